/* The Vulkan backend: what it finds, its memory and copies, programs, the cache on disk, operands
 * larger than a descriptor, and what it says when something fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifndef ITERA_HAVE_VULKAN
int main(void)
{
    puts("skipped: built without Vulkan");
    return 77;
}
#else
#include <dirent.h>
#include <math.h>
#include <unistd.h>

#include "backend/gpu/cache.h"
#include "backend/vulkan/device.h"
#include "core/file.h"
#include "core/log.h"
#include "tests/support/parts.h"

static char folder[] = "/tmp/itera-vulkan-XXXXXX";
static char device_id[32];

/* What was logged since log_clear. */
static char logged[16384];

static void on_log(void *user, enum itera_log_level level, const char *message)
{
    (void)user;
    size_t used = strlen(logged);
    snprintf(logged + used, sizeof logged - used, "%d %s\n", level, message);
}

static void assert_error(const char *a, const char *b)
{
    if (!strstr(itera_last_error(), a) || !strstr(itera_last_error(), b))
        fail_msg("'%s' should say '%s' and '%s'", itera_last_error(), a, b);
}

/* With the faults named, as every test wants it; NULL: none. */
static struct vulkan_device *open_device(const char *faults)
{
    struct itera_device *device = NULL;
    if (faults)
        setenv("ITERA_FAULT", faults, 1);
    assert_int_equal(itera_device_open(device_id, NULL, &device), ITERA_OK);
    unsetenv("ITERA_FAULT");
    return (struct vulkan_device *)device;
}

static void close_device(struct vulkan_device *d)
{
    struct itera_device *device = &d->gpu.base;
    itera_device_close(&device);
}

/* The paths by which operands and their content can come to a kernel. */
static const char *const paths[] = {NULL, "staging:1", "addresses:1", "staging:1,addresses:1"};
enum { PATHS = sizeof paths / sizeof *paths };

static uint8_t pattern(size_t i, uint32_t seed)
{
    return (uint8_t)((i * 2654435761u + seed) >> 13);
}

static uint8_t *bytes_of(size_t n, uint32_t seed)
{
    uint8_t *data = malloc(n + 1);
    assert_non_null(data);
    for (size_t i = 0; i < n; i++)
        data[i] = pattern(i, seed);
    return data;
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static void devices_are_listed(void **state)
{
    (void)state;
    struct itera_device_info *infos;
    int n, found = 0;
    assert_int_equal(itera_devices(&infos, &n), ITERA_OK);
    for (int i = 0; i < n; i++) {
        if (strcmp(infos[i].backend, "vulkan") != 0)
            continue;
        found++;
        assert_int_equal(strncmp(infos[i].id, "vulkan:", 7), 0);
        assert_true(infos[i].name[0] && infos[i].driver[0] && infos[i].memory_bytes);
        assert_true(infos[i].type != ITERA_DEVICE_CPU);
        struct itera_device *device;
        assert_int_equal(itera_device_open(infos[i].id, NULL, &device), ITERA_OK);
        assert_string_equal(itera_device_info(device)->name, infos[i].name);
        const struct itera_gpu_traits *traits = &((const struct vulkan_device *)device)->gpu.traits;
        assert_true(traits->max_local >= ITERA_GPU_LOCAL && traits->shared_bytes >= 16384);
        assert_true(traits->max_operand_bytes >= (uint64_t)128 << 20);
        itera_device_close(&device);
    }
    assert_true(found > 0);
    free(infos);

    struct itera_device *device;
    assert_int_equal(itera_device_open("vulkan:99", NULL, &device), ITERA_ERR_DEVICE);
    assert_error("vulkan:99", device_id);
    assert_null(device);
}

static void a_broken_driver_hides_nothing_else(void **state)
{
    (void)state;
    struct itera_device_info *infos;
    int n;
    logged[0] = '\0';
    setenv("ITERA_FAULT", "list:1", 1);
    assert_int_equal(itera_devices(&infos, &n), ITERA_OK);
    unsetenv("ITERA_FAULT");
    for (int i = 0; i < n; i++)
        assert_string_not_equal(infos[i].backend, "vulkan");
    assert_string_equal(infos[0].id, "cpu");
    assert_non_null(strstr(logged, "VK_ERROR_INITIALIZATION_FAILED"));
    free(infos);
}

static void buffers_are_zero_and_keep_what_is_written(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 3, 4, 4099, 65535, 65536, 65537, 300001};
    for (int p = 0; p < 2; p++) {
        struct vulkan_device *d = open_device(paths[p]);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t n = sizes[i], offset = n / 3, part = n - offset - n / 5;
            struct itera_buffer *b;
            uint8_t *zeros = calloc(1, n + 1), *data = bytes_of(n, 7), *back = malloc(n + 1);
            assert_true(zeros && back);
            assert_int_equal(itera_buffer_create(&d->gpu.base, n, &b), ITERA_OK);
            assert_int_equal(b->bytes, n);
            assert_int_equal(((struct vulkan_buffer *)b)->mapped != NULL,
                             !d->staged && (d->unified || n <= 65536));
            assert_int_equal(itera_buffer_download(b, 0, back, n), ITERA_OK);
            assert_memory_equal(back, zeros, n);
            assert_int_equal(itera_buffer_upload(b, offset, data, part), ITERA_OK);
            memcpy(zeros + offset, data, part);
            assert_int_equal(itera_buffer_download(b, 0, back, n), ITERA_OK);
            assert_memory_equal(back, zeros, n);
            memset(back, 0, n);
            assert_int_equal(itera_buffer_download(b, offset, back, part), ITERA_OK);
            assert_memory_equal(back, data, part);
            assert_int_equal(itera_buffer_upload(b, n, data, 0), ITERA_OK);
            assert_int_equal(itera_buffer_upload(b, n, data, 1), ITERA_ERR_ARGUMENT);
            itera_buffer_destroy(&b);
            free(zeros);
            free(data);
            free(back);
        }
        close_device(d);
    }
}

/* Several rounds of both staging lanes, and a rest. */
static void large_copies_go_in_pieces(void **state)
{
    (void)state;
    const size_t n = ((size_t)40 << 20) + 12347, at = 333;
    struct vulkan_device *d = open_device("staging:1");
    uint8_t *data = bytes_of(n, 1), *back = calloc(1, n + 1);
    struct itera_buffer *b;
    assert_non_null(back);
    assert_int_equal(itera_buffer_create(&d->gpu.base, n + 2 * at, &b), ITERA_OK);
    assert_null(((struct vulkan_buffer *)b)->mapped);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(itera_buffer_upload(b, at, data, n), ITERA_OK);
        memset(back, 0x55, n);
        assert_int_equal(itera_buffer_download(b, at, back, n), ITERA_OK);
        assert_memory_equal(back, data, n);
        for (size_t i = 0; i < n; i++)
            data[i] ^= 0xa5;
    }
    uint8_t edge[333];
    for (int end = 0; end < 2; end++) {
        assert_int_equal(itera_buffer_download(b, end ? n + at : 0, edge, at), ITERA_OK);
        for (size_t i = 0; i < at; i++)
            assert_int_equal(edge[i], 0);
    }
    itera_buffer_destroy(&b);
    free(data);
    free(back);
    close_device(d);
}

/* Buffers come and go; each keeps its content, and in the end the memory is one piece again. */
static void blocks_are_shared_and_given_back(void **state)
{
    (void)state;
    enum { BUFFERS = 200, ROUNDS = 1500 };
    struct vulkan_device *d = open_device(NULL);
    struct itera_buffer *buffers[BUFFERS] = {0};
    uint32_t seeds[BUFFERS], random = 12345;
    int most = 0, at_first = itera_vulkan_blocks(d);
    for (int round = 0; round < ROUNDS; round++) {
        random = random * 1664525 + 1013904223;
        uint32_t i = (random >> 8) % BUFFERS;
        if (buffers[i]) {
            size_t n = buffers[i]->bytes;
            uint8_t *back = malloc(n + 1);
            assert_non_null(back);
            assert_int_equal(itera_buffer_download(buffers[i], 0, back, n), ITERA_OK);
            for (size_t k = 0; k < n; k++)
                assert_int_equal(back[k], pattern(k, seeds[i]));
            free(back);
            itera_buffer_destroy(&buffers[i]);
        } else {
            size_t n = (random >> 4) % 1000 + (random & 15 ? 0 : 200000);
            assert_int_equal(itera_buffer_create(&d->gpu.base, n, &buffers[i]), ITERA_OK);
            seeds[i] = random;
            uint8_t *data = bytes_of(n, random);
            assert_int_equal(itera_buffer_upload(buffers[i], 0, data, n), ITERA_OK);
            free(data);
        }
        most = itera_vulkan_blocks(d) > most ? itera_vulkan_blocks(d) : most;
    }
    assert_true(most <= at_first + 3); /* of each memory type in use: one */
    for (int i = 0; i < BUFFERS; i++)
        itera_buffer_destroy(&buffers[i]);
    int rest = itera_vulkan_blocks(d);
    /* A buffer of a quarter block and more gets memory of its own, and gives it back. */
    assert_int_equal(itera_buffer_create(&d->gpu.base, (size_t)20 << 20, &buffers[0]), ITERA_OK);
    assert_int_equal(itera_vulkan_blocks(d), rest + 1);
    itera_buffer_destroy(&buffers[0]);
    assert_int_equal(itera_vulkan_blocks(d), rest);
    /* All of a block is there for one size again, whatever was in it before. */
    uint64_t allocated = d->allocated;
    for (int i = 0; i < BUFFERS; i++)
        assert_int_equal(itera_buffer_create(&d->gpu.base, 60000, &buffers[i]), ITERA_OK);
    assert_int_equal(d->allocated, allocated);
    for (int i = 0; i < BUFFERS; i++)
        itera_buffer_destroy(&buffers[i]);
    close_device(d);
}

enum { ROWS = 5, COLS = 37, ELEMENTS = ROWS * COLS };

/* y = silu(silu(x)) + x, x and y at `at` bytes of their buffers. */
struct fixture {
    struct itera_program *program;
    struct itera_buffer *x, *y;
    struct itera_executable *executable;
    size_t at;
};

static enum itera_status compile(struct fixture *f, struct vulkan_device *d, size_t at)
{
    const int64_t dim[] = {ROWS, COLS};
    *f = (struct fixture){.at = at};
    assert_int_equal(itera_program_create(&f->program), ITERA_OK);
    int32_t x = itera_bound(f->program, "x", ITERA_F32, 2, dim);
    int32_t y = itera_bound(f->program, "y", ITERA_F32, 2, dim);
    int32_t once = ITERA_NEW, twice = ITERA_NEW;
    itera_record(f->program, ITERA_OP_silu, NULL, (const int32_t[]){x}, &once);
    itera_record(f->program, ITERA_OP_silu, NULL, (const int32_t[]){once}, &twice);
    itera_record(f->program, ITERA_OP_add, NULL, (const int32_t[]){twice, x}, (int32_t[]){y});
    assert_int_equal(f->program->status, ITERA_OK);
    assert_int_equal(itera_buffer_create(&d->gpu.base, at + ELEMENTS * 4, &f->x), ITERA_OK);
    assert_int_equal(itera_buffer_create(&d->gpu.base, at + ELEMENTS * 4, &f->y), ITERA_OK);
    const struct itera_binding bindings[] = {{x, f->x, at}, {y, f->y, at}};
    return itera_compile(&d->gpu.base, f->program, bindings, 2, NULL, NULL, &f->executable);
}

static void destroy(struct fixture *f)
{
    itera_executable_destroy(&f->executable);
    itera_buffer_destroy(&f->x);
    itera_buffer_destroy(&f->y);
    itera_program_destroy(&f->program);
}

static void fill(const struct fixture *f, int round)
{
    float values[ELEMENTS];
    for (int i = 0; i < ELEMENTS; i++)
        values[i] = (float)(i + round) / 20 - 4;
    assert_int_equal(itera_buffer_upload(f->x, f->at, values, sizeof values), ITERA_OK);
}

static void assert_result(const struct fixture *f, int round)
{
    float values[ELEMENTS];
    assert_int_equal(itera_buffer_download(f->y, f->at, values, sizeof values), ITERA_OK);
    for (int i = 0; i < ELEMENTS; i++) {
        double x = (double)(float)((float)(i + round) / 20 - 4), y = silu(silu(x)) + x;
        if (!(fabs(values[i] - y) < 1e-5))
            fail_msg("element %d is %g, not %g", i, (double)values[i], y);
    }
}

static void programs_run_again_and_again(void **state)
{
    (void)state;
    static const size_t places[] = {0, 4, 20, 252, 256, 65540};
    for (int p = 0; p < PATHS; p++) {
        struct vulkan_device *d = open_device(paths[p]);
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            struct fixture f;
            assert_int_equal(compile(&f, d, places[i]), ITERA_OK);
            assert_true(f.executable->memory_bytes >= ELEMENTS * 4);
            for (int round = 0; round < 5; round++) {
                fill(&f, round);
                assert_int_equal(itera_run(f.executable), ITERA_OK);
                assert_result(&f, round);
            }
            destroy(&f);
        }
        close_device(d);
    }
}

static void an_empty_program_runs(void **state)
{
    (void)state;
    const int64_t dim[] = {0, 4};
    struct vulkan_device *d = open_device(NULL);
    struct itera_program *p;
    struct itera_buffer *b;
    struct itera_executable *e;
    double seconds[1] = {1};
    assert_int_equal(itera_program_create(&p), ITERA_OK);
    int32_t x = itera_bound(p, "x", ITERA_F32, 2, dim), y = ITERA_NEW;
    itera_record(p, ITERA_OP_silu, NULL, (const int32_t[]){x}, &y);
    assert_int_equal(itera_buffer_create(&d->gpu.base, 0, &b), ITERA_OK);
    assert_int_equal(itera_compile(&d->gpu.base, p, (const struct itera_binding[]){{x, b, 0}}, 1,
                                   NULL, NULL, &e),
                     ITERA_OK);
    assert_int_equal(itera_run(e), ITERA_OK);
    if (d->probe.features[ITERA_VULKAN_TIMESTAMPS]) {
        assert_int_equal(itera_profile(e, seconds), ITERA_OK);
        assert_true(seconds[0] == 0);
    }
    itera_executable_destroy(&e);
    itera_buffer_destroy(&b);
    itera_program_destroy(&p);
    close_device(d);
}

static void profiles_time_each_op(void **state)
{
    (void)state;
    struct vulkan_device *d = open_device(NULL);
    struct fixture f;
    double seconds[3];
    assert_int_equal(compile(&f, d, 0), ITERA_OK);
    for (int round = 0; round < 3; round++) {
        fill(&f, round);
        enum itera_status status = itera_profile(f.executable, seconds);
        if (!d->probe.features[ITERA_VULKAN_TIMESTAMPS]) {
            assert_int_equal(status, ITERA_ERR_UNSUPPORTED);
            break;
        }
        assert_int_equal(status, ITERA_OK);
        assert_result(&f, round);
        for (int i = 0; i < 3; i++)
            assert_true(seconds[i] >= 0 && seconds[i] < 10);
        assert_true(seconds[0] + seconds[1] + seconds[2] > 0);
    }
    /* And a queue that has none is not given invented ones. */
    d->probe.features[ITERA_VULKAN_TIMESTAMPS] = false;
    assert_int_equal(itera_profile(f.executable, seconds), ITERA_ERR_UNSUPPORTED);
    assert_error(device_id, "timestamps");
    destroy(&f);
    close_device(d);
}

/* Every shader that the device can run is one that its driver compiles, in both forms. */
static void every_shader_compiles(void **state)
{
    (void)state;
    struct vulkan_device *d = open_device(NULL);
    int n = 0;
    for (int i = 0; itera_vulkan_shaders[i]; i++)
        for (int v = 0; v < ITERA_VULKAN_VARIANTS; v++) {
            const struct itera_gpu_dispatch dispatch = {
                .kernel = itera_vulkan_shaders[i]->name,
                .local = {ITERA_GPU_LOCAL, 1, 1},
                .n_bindings = ITERA_GPU_MAX_BINDINGS,
                .n_words = (uint8_t)itera_vulkan_words(itera_vulkan_shaders[i],
                                                       (enum itera_vulkan_variant)v)};
            struct itera_reason why = {"it failed"};
            VkPipeline pipeline;
            if (!itera_vulkan_can_run(&d->probe, itera_vulkan_shaders[i],
                                      (enum itera_vulkan_variant)v, NULL, NULL))
                continue;
            if (itera_vulkan_pipeline(d, &dispatch, (enum itera_vulkan_variant)v, &pipeline, &why))
                fail_msg("%s: %s", dispatch.kernel, why.text);
            n++;
        }
    assert_true(n > 0);
    assert_int_equal(d->n_pipelines, n);
    close_device(d);
}

/* A lowering that gives another number of words than the shader's block holds. */
static void a_shader_gets_all_its_words(void **state)
{
    (void)state;
    struct vulkan_device *d = open_device(NULL);
    /* Two words an operand, and those of kernels_cl/args/. */
    static const struct {
        const char *kernel;
        uint8_t n_bindings, n_words;
    } cases[] = {{"silu", 2, 2 * 2 + 9}, {"layer_norm", 5, 2 * 5 + 5}, {"advance", 1, 2 * 1 + 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int v = 0; v < ITERA_VULKAN_VARIANTS; v++) {
            struct itera_gpu_dispatch dispatch = {.kernel = cases[i].kernel,
                                                  .local = {ITERA_GPU_LOCAL, 1, 1},
                                                  .n_bindings = cases[i].n_bindings};
            enum itera_vulkan_variant variant = (enum itera_vulkan_variant)v;
            struct itera_reason why;
            VkPipeline pipeline;
            if (v == ITERA_VULKAN_ADDRESSES && !d->probe.features[ITERA_VULKAN_ADDRESS])
                continue;
            /* Also when there is a pipeline already. */
            for (int offset = -1; offset <= 2; offset++) {
                dispatch.n_words = (uint8_t)(cases[i].n_words + offset % 2);
                enum itera_status status =
                    itera_vulkan_pipeline(d, &dispatch, variant, &pipeline, &why);
                assert_int_equal(status, offset % 2 ? ITERA_ERR_DEVICE : ITERA_OK);
                if (offset % 2)
                    assert_error(cases[i].kernel, "the kernel and its lowering differ");
            }
        }
    close_device(d);
}

/* The cache files of pipelines; the last one's path in `path`. */
static int cache_files(char *path, size_t size)
{
    int n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir));)
        if (!strncmp(entry->d_name, "vulkan-", 7)) {
            snprintf(path, size, "%s/%s", folder, entry->d_name);
            n++;
        }
    closedir(dir);
    return n;
}

static void run_once(struct vulkan_device *d)
{
    struct fixture f;
    assert_int_equal(compile(&f, d, 0), ITERA_OK);
    fill(&f, 1);
    assert_int_equal(itera_run(f.executable), ITERA_OK);
    assert_result(&f, 1);
    destroy(&f);
}

static void pipelines_are_kept_on_disk(void **state)
{
    (void)state;
    char path[512] = "";
    for (int n = cache_files(path, sizeof path); n; n = cache_files(path, sizeof path))
        assert_int_equal(unlink(path), 0);
    struct vulkan_device *d = open_device(NULL);
    assert_int_equal(d->loaded_cache_bytes, 0);
    run_once(d);
    close_device(d);
    assert_int_equal(cache_files(path, sizeof path), 1);

    d = open_device(NULL);
    assert_true(d->loaded_cache_bytes > 0);
    run_once(d);
    close_device(d);

    /* Damaged on disk. */
    struct itera_map map;
    assert_int_equal(itera_map_open(path, &map), ITERA_OK);
    uint8_t *bytes = malloc(map.size);
    size_t size = map.size;
    assert_non_null(bytes);
    memcpy(bytes, map.data, size);
    itera_map_close(&map);
    bytes[size - 1] ^= 1;
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
    free(bytes);
    logged[0] = '\0';
    d = open_device(NULL);
    assert_int_equal(d->loaded_cache_bytes, 0);
    assert_non_null(strstr(logged, "damaged"));
    run_once(d);

    /* Sound, and from another driver: the header inside tells. */
    uint8_t foreign[64] = {32, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};
    char identity[sizeof d->identity];
    snprintf(identity, sizeof identity, "%s", d->identity);
    close_device(d);
    itera_gpu_cache_write(strrchr(path, '/') + 1, identity, foreign, sizeof foreign);
    d = open_device(NULL);
    assert_int_equal(d->loaded_cache_bytes, 0);
    run_once(d);
    close_device(d);
    d = open_device(NULL);
    assert_true(d->loaded_cache_bytes > 0);
    close_device(d);

    /* Of another identity. */
    itera_gpu_cache_write(strrchr(path, '/') + 1, "another machine", foreign, sizeof foreign);
    d = open_device(NULL);
    assert_int_equal(d->loaded_cache_bytes, 0);
    run_once(d);
    close_device(d);
}

static void no_cache_folder_is_no_error(void **state)
{
    (void)state;
    setenv("ITERA_CACHE_DIR", "/dev/null/cache", 1);
    struct vulkan_device *d = open_device(NULL);
    run_once(d);
    close_device(d);
    setenv("ITERA_CACHE_DIR", folder, 1);
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    struct vulkan_device *d = open_device(NULL);
    struct itera_buffer *b = NULL;
    setenv("ITERA_FAULT", "memory:1", 1);
    assert_int_equal(itera_buffer_create(&d->gpu.base, 1 << 20, &b), ITERA_ERR_MEMORY);
    unsetenv("ITERA_FAULT");
    assert_null(b);
    assert_error(device_id, "VK_ERROR_OUT_OF_DEVICE_MEMORY");
    assert_error("1.0 MiB", "smaller batch");
    /* More than any device has, and more than a size can be. */
    assert_int_equal(itera_buffer_create(&d->gpu.base, SIZE_MAX / 2, &b), ITERA_ERR_MEMORY);
    assert_int_equal(itera_buffer_create(&d->gpu.base, SIZE_MAX, &b), ITERA_ERR_MEMORY);
    assert_int_equal(itera_buffer_create(&d->gpu.base, SIZE_MAX - 8, &b), ITERA_ERR_MEMORY);
    run_once(d); /* the device goes on */
    close_device(d);
}

static void a_kernel_that_does_not_compile_leaves_its_op(void **state)
{
    (void)state;
    struct vulkan_device *d = open_device(NULL);
    struct fixture f;
    setenv("ITERA_FAULT", "build:1", 1);
    itera_fail(ITERA_ERR_IO, "what failed before");
    logged[0] = '\0';
    assert_int_equal(compile(&f, d, 0), ITERA_OK); /* with the CPU's help */
    assert_string_equal(itera_last_error(), "what failed before");
    assert_non_null(strstr(logged, "does not compile kernel silu"));
    assert_null(strstr(strstr(logged, "kernel silu (") + 1, "kernel silu ("));
    assert_string_equal(itera_device_fallback_op(&d->gpu.base, 1), "silu");
    fill(&f, 1);
    assert_int_equal(itera_run(f.executable), ITERA_OK);
    assert_result(&f, 1);
    unsetenv("ITERA_FAULT");
    struct itera_reason why;
    assert_int_equal(itera_supports(&d->gpu.base, f.program, &f.program->ops[0], &why),
                     ITERA_ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, device_id));
    assert_non_null(strstr(why.text, "silu"));
    destroy(&f);
    close_device(d);
    d = open_device(NULL); /* nothing of it is in the cache */
    run_once(d);
    assert_null(itera_device_fallback_op(&d->gpu.base, 0));
    close_device(d);
}

static void a_lost_device_says_so_and_stays_lost(void **state)
{
    (void)state;
    struct vulkan_device *d = open_device(NULL);
    struct itera_buffer *b;
    struct fixture f, again;
    assert_int_equal(compile(&f, d, 0), ITERA_OK);
    setenv("ITERA_FAULT", "lost:1", 1);
    assert_int_equal(itera_run(f.executable), ITERA_ERR_DEVICE);
    unsetenv("ITERA_FAULT");
    assert_error(device_id, "lost");
    assert_error("VK_ERROR_DEVICE_LOST", "checkpoint");
    assert_int_equal(itera_run(f.executable), ITERA_ERR_DEVICE);
    assert_int_equal(itera_buffer_create(&d->gpu.base, 1 << 20, &b), ITERA_ERR_DEVICE);
    again = f;
    const struct itera_binding bindings[] = {{0, f.x, 0}, {1, f.y, 0}};
    assert_int_equal(
        itera_compile(&d->gpu.base, f.program, bindings, 2, NULL, NULL, &again.executable),
        ITERA_ERR_DEVICE);
    destroy(&f);
    close_device(d);
}

/* One operand beyond what a descriptor can reach, and one a little below. */
static void operands_larger_than_a_descriptor(void **state)
{
    (void)state;
    struct vulkan_device *d = open_device(NULL);
    const uint64_t range = d->probe.properties.limits.maxStorageBufferRange;
    if (!d->probe.features[ITERA_VULKAN_ADDRESS] || range > (uint64_t)1 << 30 ||
        itera_vulkan_device_memory(&d->probe) < 4 * range) {
        close_device(d);
        skip_without("buffer addresses, or four times the memory that a descriptor reaches");
    }
    const int64_t cols = 1024, rows = (int64_t)(range / 4096 + 8192), n = rows * cols;
    const int64_t dim[] = {rows, cols};
    struct itera_program *p;
    struct itera_buffer *x, *y;
    struct itera_executable *e;
    assert_int_equal(itera_program_create(&p), ITERA_OK);
    int32_t in = itera_bound(p, "x", ITERA_F32, 2, dim),
            out = itera_bound(p, "y", ITERA_F32, 2, dim);
    itera_record(p, ITERA_OP_silu, NULL, (const int32_t[]){in}, (int32_t[]){out});
    float *values = malloc((size_t)n * 4);
    assert_non_null(values);
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)(i % 8191) / 1000 - 4;
    assert_int_equal(itera_buffer_create(&d->gpu.base, (size_t)n * 4, &x), ITERA_OK);
    assert_int_equal(itera_buffer_create(&d->gpu.base, (size_t)n * 4, &y), ITERA_OK);
    assert_int_equal(itera_buffer_upload(x, 0, values, (size_t)n * 4), ITERA_OK);
    const struct itera_binding bindings[] = {{in, x, 0}, {out, y, 0}};
    assert_int_equal(itera_compile(&d->gpu.base, p, bindings, 2, NULL, NULL, &e), ITERA_OK);
    assert_int_equal(d->pipelines[d->n_pipelines - 1].variant, ITERA_VULKAN_ADDRESSES);
    assert_int_equal(itera_run(e), ITERA_OK);
    assert_int_equal(itera_buffer_download(y, 0, values, (size_t)n * 4), ITERA_OK);
    for (int64_t i = 0; i < n; i += i < n - 5000 ? 97 : 1)
        assert_true(fabs(values[i] - silu((float)(i % 8191) / 1000 - 4)) < 1e-5);
    itera_executable_destroy(&e);
    itera_buffer_destroy(&x);
    itera_buffer_destroy(&y);
    itera_program_destroy(&p);
    free(values);
    close_device(d);
}

static bool find_device(void)
{
    struct itera_device_info *infos;
    int n;
    if (itera_devices(&infos, &n))
        return false;
    for (int i = 0; i < n && !device_id[0]; i++)
        if (!strcmp(infos[i].backend, "vulkan"))
            memcpy(device_id, infos[i].id, sizeof device_id);
    free(infos);
    return device_id[0] != '\0';
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_are_listed),
        cmocka_unit_test(a_broken_driver_hides_nothing_else),
        cmocka_unit_test(buffers_are_zero_and_keep_what_is_written),
        cmocka_unit_test(large_copies_go_in_pieces),
        cmocka_unit_test(blocks_are_shared_and_given_back),
        cmocka_unit_test(programs_run_again_and_again),
        cmocka_unit_test(an_empty_program_runs),
        cmocka_unit_test(profiles_time_each_op),
        cmocka_unit_test(every_shader_compiles),
        cmocka_unit_test(a_shader_gets_all_its_words),
        cmocka_unit_test(pipelines_are_kept_on_disk),
        cmocka_unit_test(no_cache_folder_is_no_error),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
        cmocka_unit_test(a_kernel_that_does_not_compile_leaves_its_op),
        cmocka_unit_test(a_lost_device_says_so_and_stays_lost),
    };
    const struct CMUnitTest large[] = {cmocka_unit_test(operands_larger_than_a_descriptor)};
    unsetenv("ITERA_FAULT");
    unsetenv("ITERA_DISABLE_OPS");
    itera_set_log(on_log, NULL);
    if (!find_device()) {
        puts("skipped: there is no Vulkan device");
        return 77;
    }
    if (!mkdtemp(folder))
        return 1;
    setenv("ITERA_CACHE_DIR", folder, 1);
    int failed = part_is(argc, argv, "large")
                     ? part_status(cmocka_run_group_tests(large, NULL, NULL))
                     : cmocka_run_group_tests(tests, NULL, NULL);
    itera_remove_tree(folder);
    return failed;
}
#endif
