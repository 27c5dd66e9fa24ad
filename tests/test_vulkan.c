/* The Vulkan backend: what every GPU backend does (gpu_tests.c), its memory and copies, its shaders,
 * and operands larger than a descriptor. */
#include "tests/support/test.h"

#ifndef ITERA_HAVE_VULKAN
#include <stdio.h>

int main(void)
{
    puts("skipped: built without Vulkan");
    return 77;
}
#else
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/vulkan/device.h"
#include "tests/gpu_tests.h"
#include "tests/support/parts.h"

static bool timed(const struct itera_device *device)
{
    return ((const struct vulkan_device *)device)->probe.features[ITERA_VULKAN_TIMESTAMPS];
}

static bool cached(const struct itera_device *device)
{
    return ((const struct vulkan_device *)device)->loaded_cache_bytes > 0;
}

static const char *const paths[] = {NULL, "staging:1", "addresses:1", "staging:1,addresses:1"};

const struct gpu_tested gpu_tested = {
    .backend = &itera_backend_vulkan,
    .paths = paths,
    .n_paths = sizeof paths / sizeof *paths,
    .timed = timed,
    .cached = cached,
    .cache_file = "vulkan-",
    .says_list = "VK_ERROR_INITIALIZATION_FAILED",
    .says_lost = "VK_ERROR_DEVICE_LOST",
    .says_memory = "VK_ERROR_OUT_OF_DEVICE_MEMORY",
    .says_build = "kernel silu (",
    .remembers_loss = true,
};

static struct vulkan_device *open_device(const char *faults)
{
    return (struct vulkan_device *)gpu_open(faults);
}

static void close_device(struct vulkan_device *d)
{
    struct itera_device *device = &d->gpu.base;
    itera_device_close(&device);
}

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

static void small_buffers_are_mapped(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 300001};
    for (int p = 0; p < 2; p++) {
        struct vulkan_device *d = open_device(paths[p]);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct itera_buffer *b;
            assert_int_equal(itera_buffer_create(&d->gpu.base, sizes[i], &b), ITERA_OK);
            assert_int_equal(((struct vulkan_buffer *)b)->mapped != NULL,
                             !d->staged && (d->unified || sizes[i] <= 65536));
            itera_buffer_destroy(&b);
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

/* A queue that has no clock is not given invented times. */
static void no_timestamps_are_no_times(void **state)
{
    (void)state;
    struct vulkan_device *d = open_device(NULL);
    struct gpu_fixture f;
    double seconds[3];
    assert_int_equal(gpu_compile(&f, &d->gpu.base, 0), ITERA_OK);
    gpu_fill(&f, 0);
    d->probe.features[ITERA_VULKAN_TIMESTAMPS] = false;
    assert_int_equal(itera_profile(f.executable, seconds), ITERA_ERR_UNSUPPORTED);
    assert_says(gpu_id, "timestamps");
    gpu_destroy(&f);
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
                    assert_says(cases[i].kernel, "the kernel and its lowering differ");
            }
        }
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
        assert_true(fabs(values[i] - gpu_silu((float)(i % 8191) / 1000 - 4)) < 1e-5);
    itera_executable_destroy(&e);
    itera_buffer_destroy(&x);
    itera_buffer_destroy(&y);
    itera_program_destroy(&p);
    free(values);
    close_device(d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_buffers_are_mapped),
        cmocka_unit_test(large_copies_go_in_pieces),
        cmocka_unit_test(blocks_are_shared_and_given_back),
        cmocka_unit_test(no_timestamps_are_no_times),
        cmocka_unit_test(every_shader_compiles),
        cmocka_unit_test(a_shader_gets_all_its_words),
    };
    const struct CMUnitTest large[] = {cmocka_unit_test(operands_larger_than_a_descriptor)};
    int status = gpu_tests_begin(argc, argv);
    if (status >= 0)
        return status;
    status = part_is(argc, argv, "large")
                 ? part_status(cmocka_run_group_tests(large, NULL, NULL))
                 : gpu_tests_run() + cmocka_run_group_tests(tests, NULL, NULL);
    gpu_tests_end();
    return status;
}
#endif
