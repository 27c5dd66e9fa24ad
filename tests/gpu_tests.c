#include "tests/gpu_tests.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/gpu/cache.h"
#include "core/file.h"

char gpu_id[32], gpu_cache[96];
static const char *self;

struct itera_device *gpu_open(const char *faults)
{
    struct itera_device *device = NULL;
    if (faults)
        setenv("ITERA_FAULT", faults, 1);
    assert_int_equal(itera_device_open(gpu_id, NULL, &device), ITERA_OK);
    unsetenv("ITERA_FAULT");
    if (gpu_tested.opened)
        gpu_tested.opened(device);
    return device;
}

static bool is_timed(const struct itera_device *device)
{
    return !gpu_tested.timed || gpu_tested.timed(device);
}

double gpu_silu(double x)
{
    return x / (1 + exp(-x));
}

enum itera_status gpu_compile(struct gpu_fixture *f, struct itera_device *device, size_t at)
{
    const int64_t dim[] = {GPU_ROWS, GPU_COLS};
    const size_t bytes = at + GPU_ELEMENTS * sizeof(float);
    *f = (struct gpu_fixture){.at = at};
    assert_int_equal(itera_program_create(&f->program), ITERA_OK);
    int32_t x = itera_bound(f->program, "x", ITERA_F32, 2, dim);
    int32_t y = itera_bound(f->program, "y", ITERA_F32, 2, dim);
    int32_t once = ITERA_NEW, twice = ITERA_NEW;
    itera_record(f->program, ITERA_OP_silu, NULL, (const int32_t[]){x}, &once);
    itera_record(f->program, ITERA_OP_silu, NULL, (const int32_t[]){once}, &twice);
    itera_record(f->program, ITERA_OP_add, NULL, (const int32_t[]){twice, x}, (int32_t[]){y});
    assert_int_equal(f->program->status, ITERA_OK);
    assert_int_equal(itera_buffer_create(device, bytes, &f->x), ITERA_OK);
    assert_int_equal(itera_buffer_create(device, bytes, &f->y), ITERA_OK);
    const struct itera_binding bindings[] = {{x, f->x, at}, {y, f->y, at}};
    return itera_compile(device, f->program, bindings, 2, NULL, NULL, &f->executable);
}

void gpu_destroy(struct gpu_fixture *f)
{
    itera_executable_destroy(&f->executable);
    itera_buffer_destroy(&f->x);
    itera_buffer_destroy(&f->y);
    itera_program_destroy(&f->program);
}

static float value_of(int i, int round)
{
    return (float)(i + round) / 20 - 4;
}

void gpu_fill(const struct gpu_fixture *f, int round)
{
    float values[GPU_ELEMENTS];
    for (int i = 0; i < GPU_ELEMENTS; i++)
        values[i] = value_of(i, round);
    assert_int_equal(itera_buffer_upload(f->x, f->at, values, sizeof values), ITERA_OK);
}

void gpu_assert_result(const struct gpu_fixture *f, int round)
{
    float values[GPU_ELEMENTS];
    assert_int_equal(itera_buffer_download(f->y, f->at, values, sizeof values), ITERA_OK);
    for (int i = 0; i < GPU_ELEMENTS; i++) {
        const double x = value_of(i, round), y = gpu_silu(gpu_silu(x)) + x;
        if (!(fabs(values[i] - y) < 1e-6 * (1 + fabs(y))))
            fail_msg("element %d is %g, not %g", i, (double)values[i], y);
    }
}

void gpu_run_once(struct itera_device *device)
{
    struct gpu_fixture f;
    assert_int_equal(gpu_compile(&f, device, 0), ITERA_OK);
    gpu_fill(&f, 1);
    assert_int_equal(itera_run(f.executable), ITERA_OK);
    gpu_assert_result(&f, 1);
    gpu_destroy(&f);
}

/* In a device of its own: whether its kernels were in the cache. What was logged is in `logged`. */
static bool run_cached(void)
{
    log_clear();
    struct itera_device *device = gpu_open(NULL);
    gpu_run_once(device);
    const bool cached = gpu_tested.cached(device);
    itera_device_close(&device);
    return cached;
}

/* ---- devices --------------------------------------------------------------------------------- */

static void lists_devices(void **state)
{
    (void)state;
    const char *name = gpu_tested.backend->name;
    struct itera_device_info *infos;
    int count, n = 0;
    assert_int_equal(itera_devices(&infos, &count), ITERA_OK);
    for (int i = 0; i < count; i++) {
        if (strcmp(infos[i].backend, name) != 0)
            continue;
        char id[32];
        snprintf(id, sizeof id, "%s:%d", name, n++);
        assert_string_equal(infos[i].id, id);
        assert_true(infos[i].name[0] && infos[i].driver[0]);
        assert_true(infos[i].memory_bytes > 0);
        assert_int_not_equal(infos[i].type, ITERA_DEVICE_CPU);
        struct itera_device *device;
        assert_int_equal(itera_device_open(id, NULL, &device), ITERA_OK);
        assert_string_equal(itera_device_info(device)->name, infos[i].name);
        const struct itera_gpu_traits *traits = &((struct itera_gpu_device *)device)->traits;
        assert_true(traits->max_local >= ITERA_GPU_LOCAL && traits->shared_bytes >= 16384);
        assert_true(traits->max_operand_bytes >= (uint64_t)128 << 20);
        itera_device_close(&device);
    }
    free(infos);
    assert_true(n > 0);

    struct itera_device *device;
    char id[32];
    snprintf(id, sizeof id, "%s:99", name);
    assert_int_equal(itera_device_open(id, NULL, &device), ITERA_ERR_DEVICE);
    assert_says(id, gpu_id);
    assert_null(device);
    assert_int_equal(gpu_tested.backend->open(99, NULL, &device), ITERA_ERR_DEVICE);
}

static void a_broken_driver_hides_nothing_else(void **state)
{
    (void)state;
    struct itera_device_info *infos;
    int n;
    log_clear();
    setenv("ITERA_FAULT", "list:1", 1);
    assert_int_equal(itera_devices(&infos, &n), ITERA_OK);
    unsetenv("ITERA_FAULT");
    for (int i = 0; i < n; i++)
        assert_string_not_equal(infos[i].backend, gpu_tested.backend->name);
    assert_string_equal(infos[0].id, "cpu");
    assert_true(logged_times(gpu_tested.says_list) >= 1);
    free(infos);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void buffers_are_zero_and_keep_what_is_written(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 3, 4, 5, 16, 4099, 65535, 65536, 65537, 300001};
    for (int p = 0; p < gpu_tested.n_paths; p++) {
        struct itera_device *device = gpu_open(gpu_tested.paths[p]);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t n = sizes[i], offset = n / 3, part = n - offset - n / 5;
            struct itera_buffer *b;
            uint8_t *expected = calloc(1, n + 1), *data = malloc(n + 1), *back = malloc(n + 1);
            assert_true(expected && data && back);
            for (size_t k = 0; k < n; k++)
                data[k] = (uint8_t)((k * 2654435761u + 7) >> 13);
            memset(back, 1, n);
            assert_int_equal(itera_buffer_create(device, n, &b), ITERA_OK);
            assert_int_equal(b->bytes, n);
            assert_int_equal(itera_buffer_download(b, 0, back, n), ITERA_OK);
            assert_memory_equal(back, expected, n);
            assert_int_equal(itera_buffer_upload(b, offset, data, part), ITERA_OK);
            memcpy(expected + offset, data, part);
            assert_int_equal(itera_buffer_download(b, 0, back, n), ITERA_OK);
            assert_memory_equal(back, expected, n);
            memset(back, 0, n);
            assert_int_equal(itera_buffer_download(b, offset, back, part), ITERA_OK);
            assert_memory_equal(back, data, part);
            assert_int_equal(itera_buffer_upload(b, n, NULL, 0), ITERA_OK);
            assert_int_equal(itera_buffer_upload(b, n, data, 1), ITERA_ERR_ARGUMENT);
            assert_int_equal(itera_buffer_download(b, 1, back, n), ITERA_ERR_ARGUMENT);
            itera_buffer_destroy(&b);
            free(expected);
            free(data);
            free(back);
        }
        itera_device_close(&device);
    }
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    /* More than any device has, and more than a size can be. */
    static const size_t too_much[] = {SIZE_MAX / 4, SIZE_MAX / 2, SIZE_MAX - 8, SIZE_MAX - 3,
                                      SIZE_MAX};
    enum { LARGE = 20 << 20 }; /* for memory of its own */
    struct itera_device *device = gpu_open(NULL);
    struct itera_buffer *b = NULL;
    setenv("ITERA_FAULT", "memory:2", 1);
    assert_int_equal(itera_buffer_create(device, LARGE, &b), ITERA_OK);
    itera_buffer_destroy(&b);
    assert_int_equal(itera_buffer_create(device, LARGE, &b), ITERA_ERR_MEMORY);
    unsetenv("ITERA_FAULT");
    assert_null(b);
    assert_says(gpu_id, gpu_tested.says_memory, "smaller batch");
    assert_true(strstr(itera_last_error(), "20.0 MiB") || strstr(itera_last_error(), "20971520"));
    for (size_t i = 0; i < sizeof too_much / sizeof *too_much; i++) {
        assert_int_equal(itera_buffer_create(device, too_much[i], &b), ITERA_ERR_MEMORY);
        assert_null(b);
        assert_says(gpu_id, "smaller batch");
    }
    assert_int_equal(itera_buffer_create(device, LARGE, &b), ITERA_OK);
    itera_buffer_destroy(&b);
    gpu_run_once(device); /* the device goes on */
    itera_device_close(&device);
}

/* ---- programs -------------------------------------------------------------------------------- */

static void programs_run_again_and_again(void **state)
{
    (void)state;
    static const size_t places[] = {0, 4, 20, 252, 256, 1028, 65540};
    static uint8_t before[65540];
    for (int p = 0; p < gpu_tested.n_paths; p++) {
        struct itera_device *device = gpu_open(gpu_tested.paths[p]);
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            struct gpu_fixture f;
            assert_int_equal(gpu_compile(&f, device, places[i]), ITERA_OK);
            assert_true(f.executable->memory_bytes >= GPU_ELEMENTS * sizeof(float));
            for (int round = 0; round < 5; round++) {
                gpu_fill(&f, round);
                assert_int_equal(itera_run(f.executable), ITERA_OK);
                gpu_assert_result(&f, round);
            }
            /* Nothing before what is bound is touched. */
            assert_int_equal(itera_buffer_download(f.y, 0, before, places[i]), ITERA_OK);
            for (size_t k = 0; k < places[i]; k++)
                assert_int_equal(before[k], 0);
            gpu_destroy(&f);
        }
        itera_device_close(&device);
    }
}

/* A program without ops, and one whose tensors are empty. */
static void an_empty_program_runs(void **state)
{
    (void)state;
    struct itera_device *device = gpu_open(NULL);
    for (int with_op = 0; with_op < 2; with_op++) {
        struct itera_program *program;
        struct itera_executable *executable;
        struct itera_buffer *buffer;
        double seconds = -1;
        assert_int_equal(itera_program_create(&program), ITERA_OK);
        assert_int_equal(itera_buffer_create(device, 0, &buffer), ITERA_OK);
        int32_t x = itera_bound(program, "x", ITERA_F32, 2, (const int64_t[]){0, 8});
        int32_t y = ITERA_NEW;
        if (with_op)
            itera_record(program, ITERA_OP_silu, NULL, &x, &y);
        const struct itera_binding binding = {x, buffer, 0};
        assert_int_equal(itera_compile(device, program, &binding, 1, NULL, NULL, &executable),
                         ITERA_OK);
        assert_int_equal(itera_run(executable), ITERA_OK);
        if (is_timed(device)) {
            assert_int_equal(itera_profile(executable, &seconds), ITERA_OK);
            assert_true(!with_op || seconds == 0);
        }
        itera_executable_destroy(&executable);
        itera_buffer_destroy(&buffer);
        itera_program_destroy(&program);
    }
    itera_device_close(&device);
}

static void profiles_time_each_op(void **state)
{
    (void)state;
    struct itera_device *device = gpu_open(NULL);
    struct gpu_fixture f;
    double seconds[3];
    assert_int_equal(gpu_compile(&f, device, 0), ITERA_OK);
    for (int round = 0; round < 3; round++) {
        gpu_fill(&f, round);
        const enum itera_status status = itera_profile(f.executable, seconds);
        if (!is_timed(device)) {
            assert_int_equal(status, ITERA_ERR_UNSUPPORTED);
            break;
        }
        assert_int_equal(status, ITERA_OK);
        gpu_assert_result(&f, round);
        for (int i = 0; i < 3; i++)
            assert_true(seconds[i] >= 0 && seconds[i] < 10);
        for (int i = 0; i < 3 && !strcmp(gpu_tested.backend->name, "opencl"); i++)
            assert_true(seconds[i] > 0);
        assert_true(seconds[0] + seconds[1] + seconds[2] > 0);
    }
    gpu_destroy(&f);
    itera_device_close(&device);
}

/* ---- the cache on disk ----------------------------------------------------------------------- */

/* How many files the backend has in the cache; the last one's path in `path`. */
static int cache_files(char *path, size_t size)
{
    int n = 0;
    DIR *dir = opendir(gpu_cache);
    for (const struct dirent *entry; dir && (entry = readdir(dir));)
        if (!strncmp(entry->d_name, gpu_tested.cache_file, strlen(gpu_tested.cache_file))) {
            snprintf(path, size, "%s/%s", gpu_cache, entry->d_name);
            n++;
        }
    if (dir)
        closedir(dir);
    return n;
}

static void write_bytes(const char *path, const uint8_t *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void kernels_are_kept_on_disk(void **state)
{
    (void)state;
    char path[512] = "", identity[1024] = "";
    itera_remove_tree(gpu_cache);
    assert_false(run_cached());
    assert_int_equal(cache_files(path, sizeof path), 1);
    assert_true(run_cached());

    /* A byte that is another one, cut short, empty: a warning, and compiled anew. */
    struct itera_map map;
    assert_int_equal(itera_map_open(path, &map), ITERA_OK);
    const size_t size = map.size;
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    memcpy(bytes, map.data, size);
    itera_map_close(&map);
    uint64_t length;
    memcpy(&length, bytes + 16, sizeof length);
    assert_true(length < sizeof identity);
    memcpy(identity, bytes + 48, (size_t)length);
    if (!strcmp(gpu_tested.backend->name, "opencl"))
        assert_non_null(strstr(identity, "-cl-std=CL"));
    const size_t cuts[] = {size, size / 2, 0};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        bytes[size - 1] ^= 1;
        write_bytes(path, bytes, cuts[i]);
        bytes[size - 1] ^= 1;
        assert_false(run_cached());
        assert_int_equal(logged_times("<1> cache: "), 1);
        assert_true(run_cached());
    }

    /* Sound, but nothing that the driver takes. To Vulkan's the header inside says whose it is. */
    static const uint8_t foreign[64] = {32, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};
    const char *name = strrchr(path, '/') + 1;
    itera_gpu_cache_write(name, identity, foreign, sizeof foreign);
    assert_false(run_cached());
    if (gpu_tested.says_useless)
        assert_int_equal(logged_times(gpu_tested.says_useless), 1);
    assert_true(run_cached());

    /* Of another device: replaced without a word. */
    itera_gpu_cache_write(name, "another device", foreign, sizeof foreign);
    assert_false(run_cached());
    assert_int_equal(logged_times("<1>"), 0);
    assert_true(run_cached());
    free(bytes);
}

static void no_cache_folder_is_no_error(void **state)
{
    (void)state;
    setenv("ITERA_CACHE_DIR", "/dev/null/cache", 1);
    assert_false(run_cached());
    assert_int_equal(logged_times("<0>") + logged_times("<1>"), 0);
    setenv("ITERA_CACHE_DIR", gpu_cache, 1);
}

/* What such a process returns. */
enum { CHILD_COMPILED = 2, CHILD_CACHED };

/* Processes that compile the same program at once, and one that comes later. */
static void processes_share_a_cache(void **state)
{
    (void)state;
    enum { PROCESSES = 3 };
    pid_t pids[PROCESSES];
    int status;
    itera_remove_tree(gpu_cache);
    for (int i = 0; i < PROCESSES; i++) {
        const bool last = i == PROCESSES - 1;
        for (int k = 0; last && k < i; k++) {
            assert_int_equal(waitpid(pids[k], &status, 0), pids[k]);
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) >= CHILD_COMPILED);
        }
        pids[i] = fork();
        if (pids[i] == 0) {
            execl(self, self, "run", (char *)NULL);
            _exit(1);
        }
        assert_true(pids[i] > 0);
    }
    assert_int_equal(waitpid(pids[PROCESSES - 1], &status, 0), pids[PROCESSES - 1]);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), CHILD_CACHED);
}

static bool child_was_cached;

static void child(void **state)
{
    (void)state;
    child_was_cached = run_cached();
}

/* ---- failures -------------------------------------------------------------------------------- */

static void a_kernel_that_does_not_compile_leaves_its_op(void **state)
{
    (void)state;
    struct gpu_fixture f;
    itera_remove_tree(gpu_cache);
    struct itera_device *device = gpu_open(NULL);
    setenv("ITERA_FAULT", "build:1", 1);
    itera_fail(ITERA_ERR_IO, "what failed before");
    log_clear();
    assert_int_equal(gpu_compile(&f, device, 0), ITERA_OK); /* with the CPU's help */
    assert_string_equal(itera_last_error(), "what failed before");
    assert_int_equal(logged_times(gpu_tested.says_build), 1);
    assert_string_equal(itera_device_fallback_op(device, 1), "silu");
    gpu_fill(&f, 1);
    assert_int_equal(itera_run(f.executable), ITERA_OK);
    gpu_assert_result(&f, 1);
    unsetenv("ITERA_FAULT");
    struct itera_reason why;
    assert_int_equal(itera_supports(device, f.program, &f.program->ops[0], &why),
                     ITERA_ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, gpu_id));
    assert_non_null(strstr(why.text, "silu"));
    gpu_destroy(&f);
    itera_device_close(&device);

    device = gpu_open(NULL); /* nothing of it is in the cache */
    log_clear();
    gpu_run_once(device);
    assert_false(gpu_tested.cached(device));
    assert_null(itera_device_fallback_op(device, 0));
    itera_device_close(&device);
}

static void a_lost_device_says_so_and_stays_lost(void **state)
{
    (void)state;
    struct gpu_fixture f, again;
    struct itera_buffer *b;
    double seconds[3];
    struct itera_device *device = gpu_open(NULL);
    assert_int_equal(gpu_compile(&f, device, 0), ITERA_OK);
    setenv("ITERA_FAULT", "lost:2", 1);
    assert_int_equal(itera_run(f.executable), ITERA_OK);
    assert_int_equal(itera_run(f.executable), ITERA_ERR_DEVICE);
    assert_says(gpu_id, gpu_tested.says_lost, "was lost", "last checkpoint on another device");
    assert_int_equal(itera_run(f.executable), ITERA_ERR_DEVICE);
    assert_int_equal(itera_profile(f.executable, seconds), ITERA_ERR_DEVICE);
    unsetenv("ITERA_FAULT");
    if (gpu_tested.remembers_loss) {
        assert_int_equal(itera_run(f.executable), ITERA_ERR_DEVICE);
        assert_int_equal(itera_buffer_create(device, 1 << 20, &b), ITERA_ERR_DEVICE);
        again = f;
        const struct itera_binding bindings[] = {{0, f.x, 0}, {1, f.y, 0}};
        assert_int_equal(
            itera_compile(device, f.program, bindings, 2, NULL, NULL, &again.executable),
            ITERA_ERR_DEVICE);
    }
    gpu_destroy(&f);
    itera_device_close(&device);
}

/* ---- the program ----------------------------------------------------------------------------- */

static bool find_device(void)
{
    /* In this process, so that a listing that crashes is no missing device. */
    struct itera_device_info infos[8];
    int n = 0;
    if (gpu_tested.backend->list(infos, 8, &n) || n == 0)
        return false;
    memcpy(gpu_id, infos[0].id, sizeof gpu_id);
    return true;
}

int gpu_tests_begin(int argc, char **argv)
{
    const struct CMUnitTest in_child[] = {cmocka_unit_test(child)};
    self = argv[0];
    unsetenv("ITERA_FAULT");
    unsetenv("ITERA_DISABLE_OPS");
    unsetenv("ITERA_KERNEL_DIR");
    log_begin();
    if (!find_device()) {
        printf("skipped: there is no %s device\n", gpu_tested.backend->name);
        return 77;
    }
    if (argc == 2 && !strcmp(argv[1], "run"))
        return cmocka_run_group_tests(in_child, NULL, NULL) ? 1
               : child_was_cached                           ? CHILD_CACHED
                                                            : CHILD_COMPILED;
    if (make_root())
        return 1;
    snprintf(gpu_cache, sizeof gpu_cache, "%s/cache", root);
    setenv("ITERA_CACHE_DIR", gpu_cache, 1);
    return -1;
}

int gpu_tests_run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_devices),
        cmocka_unit_test(a_broken_driver_hides_nothing_else),
        cmocka_unit_test(buffers_are_zero_and_keep_what_is_written),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
        cmocka_unit_test(programs_run_again_and_again),
        cmocka_unit_test(an_empty_program_runs),
        cmocka_unit_test(profiles_time_each_op),
        cmocka_unit_test(kernels_are_kept_on_disk),
        cmocka_unit_test(no_cache_folder_is_no_error),
        cmocka_unit_test(processes_share_a_cache),
        cmocka_unit_test(a_kernel_that_does_not_compile_leaves_its_op),
        cmocka_unit_test(a_lost_device_says_so_and_stays_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

void gpu_tests_end(void)
{
    remove_root();
}
