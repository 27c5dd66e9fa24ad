/* The OpenCL backend: what it finds, its memory, programs, the cache on disk, and what it says when
 * something fails. Run with the argument "run", it is a process that runs one program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifndef ITERA_HAVE_OPENCL
int main(void)
{
    puts("skipped: built without OpenCL");
    return 77;
}
#else
#include <dirent.h>
#include <math.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/gpu/cache.h"
#include "backend/opencl/opencl.h"
#include "core/file.h"
#include "core/log.h"
#include "tests/support/parts.h"

static char folder[] = "/tmp/itera-opencl-XXXXXX";
static char cache[64], kernels[64];
static const char *self;

/* What was logged since log_clear. */
static char logged[16384];

static void on_log(void *user, enum itera_log_level level, const char *message)
{
    (void)user;
    size_t used = strlen(logged);
    snprintf(logged + used, sizeof logged - used, "<%d> %s\n", level, message);
}

static int logged_times(const char *text)
{
    int n = 0;
    for (const char *at = logged; (at = strstr(at, text)); at++)
        n++;
    return n;
}

static void assert_error(const char *a, const char *b)
{
    if (!strstr(itera_last_error(), a) || !strstr(itera_last_error(), b))
        fail_msg("'%s' should say '%s' and '%s'", itera_last_error(), a, b);
}

/* With the cache on disk in use, whatever the driver. */
static struct itera_device *open_device(void)
{
    struct itera_device *device = NULL;
    assert_int_equal(itera_device_open("opencl:0", NULL, &device), ITERA_OK);
    ((struct opencl_device *)device)->keeps_binaries = true;
    return device;
}

enum { ROWS = 5, COLS = 37, ELEMENTS = ROWS * COLS };

/* y = silu(silu(x)), x at `at` bytes of its buffer. */
struct fixture {
    struct itera_device *device;
    struct itera_program *program;
    struct itera_buffer *x, *y;
    struct itera_executable *executable;
};

static enum itera_status compile(struct fixture *f, struct itera_device *device, size_t at)
{
    const int64_t dim[] = {ROWS, COLS};
    float values[ELEMENTS];
    for (int i = 0; i < ELEMENTS; i++)
        values[i] = (float)i / 20 - 4;
    *f = (struct fixture){.device = device};
    assert_int_equal(itera_program_create(&f->program), ITERA_OK);
    int32_t x = itera_bound(f->program, "x", ITERA_F32, 2, dim);
    int32_t y = itera_bound(f->program, "y", ITERA_F32, 2, dim);
    int32_t between = ITERA_NEW;
    itera_record(f->program, ITERA_OP_silu, NULL, (const int32_t[]){x}, &between);
    itera_record(f->program, ITERA_OP_silu, NULL, (const int32_t[]){between}, (int32_t[]){y});
    assert_int_equal(itera_buffer_create(device, at + sizeof values, &f->x), ITERA_OK);
    assert_int_equal(itera_buffer_create(device, at + sizeof values, &f->y), ITERA_OK);
    assert_int_equal(itera_buffer_upload(f->x, at, values, sizeof values), ITERA_OK);
    const struct itera_binding bindings[] = {{x, f->x, at}, {y, f->y, at}};
    return itera_compile(device, f->program, bindings, 2, NULL, NULL, &f->executable);
}

static void destroy(struct fixture *f)
{
    itera_executable_destroy(&f->executable);
    itera_buffer_destroy(&f->x);
    itera_buffer_destroy(&f->y);
    itera_program_destroy(&f->program);
}

static bool result_is_right(const struct fixture *f, size_t at)
{
    float values[ELEMENTS];
    if (itera_buffer_download(f->y, at, values, sizeof values))
        return false;
    for (int i = 0; i < ELEMENTS; i++) {
        double x = (float)i / 20 - 4, y = x / (1 + exp(-x));
        y = y / (1 + exp(-y));
        if (!(fabs(values[i] - y) < 1e-6))
            return false;
    }
    return true;
}

/* Opens, compiles, runs and checks; what it took to build is in `logged`. */
static void run_once(void)
{
    struct fixture f;
    logged[0] = '\0';
    struct itera_device *device = open_device();
    assert_int_equal(compile(&f, device, 0), ITERA_OK);
    assert_int_equal(itera_run(f.executable), ITERA_OK);
    assert_true(result_is_right(&f, 0));
    destroy(&f);
    itera_device_close(&device);
}

static int child(void)
{
    struct fixture f;
    struct itera_device *device;
    if (itera_device_open("opencl:0", NULL, &device))
        return 1;
    ((struct opencl_device *)device)->keeps_binaries = true;
    bool right = compile(&f, device, 0) == ITERA_OK && itera_run(f.executable) == ITERA_OK &&
                 result_is_right(&f, 0);
    destroy(&f);
    itera_device_close(&device);
    if (!right)
        fprintf(stderr, "%s", logged);
    return !right ? 1 : logged_times("built ") ? 2 : 3;
}

static void lists_devices(void **state)
{
    (void)state;
    struct itera_device_info *infos;
    int count, n = 0;
    assert_int_equal(itera_devices(&infos, &count), ITERA_OK);
    for (int i = 0; i < count; i++) {
        if (strcmp(infos[i].backend, "opencl"))
            continue;
        char id[32];
        snprintf(id, sizeof id, "opencl:%d", n++);
        assert_string_equal(infos[i].id, id);
        assert_true(infos[i].name[0] && infos[i].driver[0]);
        assert_true(infos[i].memory_bytes > 0);
        assert_int_not_equal(infos[i].type, ITERA_DEVICE_CPU);
    }
    free(infos);
    assert_true(n > 0);

    struct itera_device *device;
    assert_int_equal(itera_device_open("opencl:31", NULL, &device), ITERA_ERR_DEVICE);
    assert_error("opencl:31", "opencl:0");
    assert_int_equal(itera_backend_opencl.open(31, NULL, &device), ITERA_ERR_DEVICE);
}

static void tells_errors_by_name(void **state)
{
    (void)state;
    assert_string_equal(opencl_error_name(CL_INVALID_ARG_SIZE), "CL_INVALID_ARG_SIZE");
    assert_string_equal(opencl_error_name(-1001), "CL_PLATFORM_NOT_FOUND_KHR");
    assert_string_equal(opencl_error_name(-12345), "error -12345");

    struct opencl_device d = {.gpu.base.info = {.id = "opencl:3", .name = "Card"}};
    assert_int_equal(opencl_fail(&d, "clFinish", CL_OUT_OF_RESOURCES), ITERA_ERR_DEVICE);
    assert_error("opencl:3 (Card): clFinish failed with CL_OUT_OF_RESOURCES", "was lost");
    assert_int_equal(opencl_fail(&d, "clEnqueueNDRangeKernel", CL_DEVICE_NOT_AVAILABLE),
                     ITERA_ERR_DEVICE);
    assert_error("was lost", "last checkpoint");
    assert_int_equal(opencl_fail(&d, "clFinish", CL_MEM_OBJECT_ALLOCATION_FAILURE),
                     ITERA_ERR_MEMORY);
    assert_error("no memory left", "smaller batch");
    assert_int_equal(opencl_fail(&d, "clSetKernelArg", CL_INVALID_VALUE), ITERA_ERR_DEVICE);
    assert_error("CL_INVALID_VALUE", "driver");
}

static void keeps_memory(void **state)
{
    (void)state;
    struct itera_device *device = open_device();
    static const size_t sizes[] = {0, 1, 5, 16, 4099};
    static uint8_t data[4099], back[4099];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7 + 1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i], half = n / 2;
        struct itera_buffer *buffer;
        assert_int_equal(itera_buffer_create(device, n, &buffer), ITERA_OK);
        memset(back, 1, sizeof back);
        assert_int_equal(itera_buffer_download(buffer, 0, back, n), ITERA_OK);
        for (size_t k = 0; k < n; k++)
            assert_int_equal(back[k], 0);
        assert_int_equal(itera_buffer_upload(buffer, half, data, n - half), ITERA_OK);
        assert_int_equal(itera_buffer_download(buffer, 0, back, n), ITERA_OK);
        for (size_t k = 0; k < half; k++)
            assert_int_equal(back[k], 0);
        assert_memory_equal(back + half, data, n - half ? n - half : 1);
        assert_int_equal(itera_buffer_upload(buffer, n, NULL, 0), ITERA_OK);
        assert_int_equal(itera_buffer_download(buffer, 1, back, n), ITERA_ERR_ARGUMENT);
        itera_buffer_destroy(&buffer);
    }
    struct itera_buffer *buffer;
    assert_int_equal(itera_buffer_create(device, SIZE_MAX / 4, &buffer), ITERA_ERR_MEMORY);
    assert_error("opencl:0", "smaller batch");
    assert_int_equal(itera_buffer_create(device, SIZE_MAX - 3, &buffer), ITERA_ERR_MEMORY);
    assert_null(buffer);
    itera_device_close(&device);
}

static void runs_programs(void **state)
{
    (void)state;
    struct itera_device *device = open_device();
    static const size_t at[] = {0, 4, 1028};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        struct fixture f;
        assert_int_equal(compile(&f, device, at[i]), ITERA_OK);
        assert_true(f.executable->memory_bytes >= ELEMENTS * sizeof(float));
        for (int run = 0; run < 3; run++)
            assert_int_equal(itera_run(f.executable), ITERA_OK);
        assert_true(result_is_right(&f, at[i]));
        /* Nothing before what is bound is touched. */
        uint8_t before[1028];
        assert_int_equal(itera_buffer_download(f.y, 0, before, at[i]), ITERA_OK);
        for (size_t k = 0; k < at[i]; k++)
            assert_int_equal(before[k], 0);

        double seconds[2] = {-1, -1};
        assert_int_equal(itera_profile(f.executable, seconds), ITERA_OK);
        for (int k = 0; k < 2; k++)
            assert_true(seconds[k] > 0 && seconds[k] < 10);
        destroy(&f);
    }
    itera_device_close(&device);
}

/* A program without ops, and one whose tensors are empty. */
static void runs_nothing(void **state)
{
    (void)state;
    struct itera_device *device = open_device();
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
        assert_int_equal(itera_profile(executable, &seconds), ITERA_OK);
        assert_true(!with_op || seconds == 0);
        itera_executable_destroy(&executable);
        itera_buffer_destroy(&buffer);
        itera_program_destroy(&program);
    }
    itera_device_close(&device);
}

static void multiply(const struct opencl_gemm *g, const float *a, const float *b, float *y)
{
    for (size_t i = 0; i < g->m; i++) {
        for (size_t j = 0; j < g->n; j++) {
            double sum = g->accumulate ? y[g->y_at + i * g->y_ld + j] : 0;
            for (size_t k = 0; k < g->k; k++)
                sum += (double)a[g->a_at + (g->trans_a ? k * g->a_ld + i : i * g->a_ld + k)] *
                       b[g->b_at + (g->trans_b ? j * g->b_ld + k : k * g->b_ld + j)];
            y[g->y_at + i * g->y_ld + j] = (float)sum;
        }
    }
}

static void multiplies_with_clblast(void **state)
{
    (void)state;
    if (!opencl_clblast_load())
        skip_without("CLBlast");
    enum { N = 256 };
    struct itera_device *device = open_device();
    const struct opencl_device *d = (const struct opencl_device *)device;
    struct itera_buffer *buffer[3];
    float host[3][N], back[N];
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < N; k++)
            host[i][k] = (float)((k * 37 + i * 11) % 19 - 9) / 8;
        assert_int_equal(itera_buffer_create(device, sizeof host[i], &buffer[i]), ITERA_OK);
    }
    for (int way = 0; way < 8; way++) {
        for (int i = 0; i < 3; i++)
            assert_int_equal(itera_buffer_upload(buffer[i], 0, host[i], sizeof host[i]), ITERA_OK);
        const struct opencl_gemm gemm = {
            .a = ((struct opencl_buffer *)buffer[0])->mem,
            .b = ((struct opencl_buffer *)buffer[1])->mem,
            .y = ((struct opencl_buffer *)buffer[2])->mem,
            .a_at = 3,
            .b_at = 5,
            .y_at = 7,
            .a_ld = 13,
            .b_ld = 11,
            .y_ld = 15,
            .m = 7,
            .n = 9,
            .k = 10,
            .trans_a = way & 1,
            .trans_b = way & 2,
            .accumulate = way & 4,
        };
        float expected[N];
        memcpy(expected, host[2], sizeof expected);
        multiply(&gemm, host[0], host[1], expected);
        assert_int_equal(opencl_clblast_gemm(&gemm, d->queue), 0);
        assert_int_equal(itera_buffer_download(buffer[2], 0, back, sizeof back), ITERA_OK);
        for (int k = 0; k < N; k++)
            assert_true(fabsf(back[k] - expected[k]) < 1e-4f);
    }
    for (int i = 0; i < 3; i++)
        itera_buffer_destroy(&buffer[i]);
    itera_device_close(&device);
}

static void write_kernel(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", kernels, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void finds_sources(void **state)
{
    (void)state;
    struct opencl_sources sources;
    char *text;
    size_t bytes;
    assert_int_equal(opencl_sources_open(&sources), ITERA_OK);
    int file = opencl_sources_find(&sources, "silu");
    assert_true(file >= 0);
    assert_string_equal(sources.files[file].name, "elementwise.cl");
    assert_int_equal(opencl_sources_find(&sources, "sil"), -1);
    assert_int_equal(opencl_sources_find(&sources, ""), -1);
    assert_int_equal(opencl_sources_resolve(&sources, file, &text, &bytes), ITERA_OK);
    assert_int_equal(strlen(text), bytes);
    assert_null(strstr(text, "#include"));
    free(text);
    opencl_sources_close(&sources);

    /* Each include once, at any depth; lines keep their numbers. */
    setenv("ITERA_KERNEL_DIR", kernels, 1);
    write_kernel("a.clh", "#include \"b.clh\"\nint a;");
    write_kernel("b.clh", "int b;\n");
    write_kernel("x.cl",
                 "#include \"a.clh\"\n#include \"b.clh\"\nkernel void one(global int *p) {}\n"
                 " kernel void two(global int *p) {}\n");
    assert_int_equal(opencl_sources_open(&sources), ITERA_OK);
    file = opencl_sources_find(&sources, "one");
    assert_true(file >= 0);
    assert_int_equal(opencl_sources_find(&sources, "two"), -1);
    assert_int_equal(opencl_sources_resolve(&sources, file, &text, &bytes), ITERA_OK);
    assert_string_equal(text, "#line 1 \"x.cl\"\n#line 1 \"a.clh\"\n#line 1 \"b.clh\"\nint b;\n\n"
                              "#line 2 \"a.clh\"\nint a;\n#line 2 \"x.cl\"\n\n#line 3 \"x.cl\"\n"
                              "kernel void one(global int *p) {}\n"
                              " kernel void two(global int *p) {}\n");
    free(text);
    opencl_sources_close(&sources);

    /* Those of the folder's args, under the names by which they are included. */
    char args[80];
    snprintf(args, sizeof args, "%s/args", kernels);
    assert_int_equal(mkdir(args, 0700), 0);
    write_kernel("args/d.clh", "int d;\n");
    write_kernel("x.cl", "#include \"args/d.clh\"\nkernel void one(global int *p) {}\n");
    assert_int_equal(opencl_sources_open(&sources), ITERA_OK);
    file = opencl_sources_find(&sources, "one");
    assert_int_equal(opencl_sources_resolve(&sources, file, &text, &bytes), ITERA_OK);
    assert_string_equal(text,
                        "#line 1 \"x.cl\"\n#line 1 \"args/d.clh\"\nint d;\n\n#line 2 \"x.cl\"\n"
                        "kernel void one(global int *p) {}\n");
    free(text);
    opencl_sources_close(&sources);

    write_kernel("x.cl", "#include \"c.clh\"\n\nkernel void one(global int *p) {}\n");
    assert_int_equal(opencl_sources_open(&sources), ITERA_OK);
    assert_int_equal(
        opencl_sources_resolve(&sources, opencl_sources_find(&sources, "one"), &text, &bytes),
        ITERA_ERR_DEVICE);
    assert_error("x.cl", "c.clh");
    opencl_sources_close(&sources);

    char none[64];
    snprintf(none, sizeof none, "%s/none", folder);
    setenv("ITERA_KERNEL_DIR", none, 1);
    struct itera_device *device;
    assert_int_equal(itera_device_open("opencl:0", NULL, &device), ITERA_ERR_IO);
    assert_error("ITERA_KERNEL_DIR", none);
    unsetenv("ITERA_KERNEL_DIR");
}

/* A file that does not compile: its ops go to the CPU with a warning, or are refused. */
static void survives_bad_kernels(void **state)
{
    (void)state;
    struct fixture f;
    struct itera_device *device;
    setenv("ITERA_KERNEL_DIR", kernels, 1);
    write_kernel("x.cl", "\nkernel void silu(global int *p)\n{\n    p[0] = nonsense;\n}\n");
    logged[0] = '\0';
    device = open_device();
    assert_int_equal(compile(&f, device, 0), ITERA_OK);
    assert_int_equal(itera_run(f.executable), ITERA_OK);
    assert_true(result_is_right(&f, 0));
    destroy(&f);
    assert_int_equal(compile(&f, device, 0), ITERA_OK);
    destroy(&f);
    assert_int_equal(logged_times("x.cl does not compile; its ops"), 1);
    assert_true(logged_times("nonsense") >= 1);
    itera_device_close(&device);

    const struct itera_device_options refuse = {.fallback = ITERA_FALLBACK_REFUSE};
    assert_int_equal(itera_device_open("opencl:0", &refuse, &device), ITERA_OK);
    assert_int_equal(compile(&f, device, 0), ITERA_ERR_UNSUPPORTED);
    assert_error("silu", "x.cl does not compile");
    destroy(&f);
    itera_device_close(&device);

    /* Arguments that are not those of the lowering. */
    write_kernel("x.cl", "\nkernel void silu(global int *p, int2 n)\n{\n    p[0] = n.x;\n}\n");
    device = open_device();
    assert_int_equal(compile(&f, device, 0), ITERA_ERR_DEVICE);
    assert_error("clSetKernelArg", "silu");
    destroy(&f);
    itera_device_close(&device);
    unsetenv("ITERA_KERNEL_DIR");
}

/* How many files with a name like elementwise.cl-<hash>.bin are in the cache; one of them in path. */
static int cached(char *path, size_t size)
{
    DIR *dir = opendir(cache);
    if (!dir)
        return 0;
    int n = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strncmp(entry->d_name, "elementwise.cl-", 15))
            continue;
        snprintf(path, size, "%s/%.40s", cache, entry->d_name);
        n++;
    }
    closedir(dir);
    return n;
}

static void caches_binaries(void **state)
{
    (void)state;
    char path[128];
    itera_remove_tree(cache);
    run_once();
    assert_int_equal(logged_times("built elementwise.cl"), 1);
    assert_int_equal(cached(path, sizeof path), 1);
    run_once();
    assert_int_equal(logged_times("built "), 0);

    struct itera_map map;
    char identity[1024] = "";
    assert_int_equal(itera_map_open(path, &map), ITERA_OK);
    uint64_t length;
    memcpy(&length, map.data + 16, sizeof length);
    assert_true(length < sizeof identity);
    memcpy(identity, map.data + 48, (size_t)length);
    assert_non_null(strstr(identity, "-cl-std=CL1.2"));
    size_t size = map.size;
    itera_map_close(&map);
    const char *name = strrchr(path, '/') + 1;

    /* Damaged, cut short, empty: a warning, and built anew. */
    static const double cuts[] = {1, 0.5, 0};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        FILE *file = fopen(path, "r+");
        assert_non_null(file);
        fseek(file, (long)size - 100, SEEK_SET);
        fputs("broken", file);
        fclose(file);
        assert_int_equal(truncate(path, (off_t)((double)size * cuts[i])), 0);
        run_once();
        assert_int_equal(logged_times("built elementwise.cl"), 1);
        assert_int_equal(logged_times("<1> cache: "), 1);
        run_once();
        assert_int_equal(logged_times("built "), 0);
    }

    /* Of another device: replaced without a word. */
    itera_gpu_cache_write(name, "another device", "binary", 6);
    run_once();
    assert_int_equal(logged_times("built elementwise.cl"), 1);
    assert_int_equal(logged_times("<1>"), 0);

    /* Whole, but nothing that the driver takes. */
    itera_gpu_cache_write(name, identity, "binary", 6);
    run_once();
    assert_int_equal(logged_times("built elementwise.cl"), 1);
    assert_int_equal(logged_times("does not take a kernel binary"), 1);
    run_once();
    assert_int_equal(logged_times("built "), 0);

    /* A folder that cannot be written stops nobody. */
    setenv("ITERA_CACHE_DIR", "/dev/null/cache", 1);
    run_once();
    assert_int_equal(logged_times("built elementwise.cl"), 1);
    assert_int_equal(logged_times("<0>") + logged_times("<1>"), 0);
    setenv("ITERA_CACHE_DIR", cache, 1);
}

/* PoCL has a cache of its own, and would compile every kernel of a program for a binary of it. */
static void keeps_no_binaries_of_pocl(void **state)
{
    (void)state;
    struct fixture f;
    struct itera_device *device = NULL;
    itera_remove_tree(cache);
    logged[0] = '\0';
    assert_int_equal(itera_device_open("opencl:0", NULL, &device), ITERA_OK);
    const bool pocl = strstr(itera_device_info(device)->driver, "Portable Computing Language");
    assert_int_equal(((struct opencl_device *)device)->keeps_binaries, !pocl);
    assert_int_equal(compile(&f, device, 0), ITERA_OK);
    assert_int_equal(itera_run(f.executable), ITERA_OK);
    assert_true(result_is_right(&f, 0));
    assert_int_equal(logged_times("built elementwise.cl"), 1);
    destroy(&f);
    itera_device_close(&device);
    assert_int_equal(cached(NULL, 0), !pocl);
}

/* Processes that build the same program at once, and one that comes later. */
static void shares_cache(void **state)
{
    (void)state;
    enum { PROCESSES = 3 };
    pid_t pids[PROCESSES];
    itera_remove_tree(cache);
    for (int i = 0; i < PROCESSES; i++) {
        bool last = i == PROCESSES - 1;
        for (int k = 0; last && k < i; k++) {
            int status;
            assert_int_equal(waitpid(pids[k], &status, 0), pids[k]);
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) >= 2);
        }
        pids[i] = fork();
        if (pids[i] == 0) {
            execl(self, self, "run", (char *)NULL);
            _exit(1);
        }
        assert_true(pids[i] > 0);
    }
    int status;
    assert_int_equal(waitpid(pids[PROCESSES - 1], &status, 0), pids[PROCESSES - 1]);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 3);
}

static void reports_no_memory(void **state)
{
    (void)state;
    struct itera_device *device = open_device();
    struct itera_buffer *buffer;
    setenv("ITERA_FAULT", "memory:2", 1);
    assert_int_equal(itera_buffer_create(device, 64, &buffer), ITERA_OK);
    itera_buffer_destroy(&buffer);
    assert_int_equal(itera_buffer_create(device, 64, &buffer), ITERA_ERR_MEMORY);
    assert_null(buffer);
    assert_error("64 bytes (CL_MEM_OBJECT_ALLOCATION_FAILURE)", "smaller batch");
    unsetenv("ITERA_FAULT");
    assert_int_equal(itera_buffer_create(device, 64, &buffer), ITERA_OK);
    itera_buffer_destroy(&buffer);
    itera_device_close(&device);
}

static void reports_lost_device(void **state)
{
    (void)state;
    struct fixture f;
    double seconds[2];
    struct itera_device *device = open_device();
    assert_int_equal(compile(&f, device, 0), ITERA_OK);
    setenv("ITERA_FAULT", "lost:2", 1);
    assert_int_equal(itera_run(f.executable), ITERA_OK);
    assert_int_equal(itera_run(f.executable), ITERA_ERR_DEVICE);
    assert_error("the device was lost", "last checkpoint on another device");
    assert_int_equal(itera_profile(f.executable, seconds), ITERA_ERR_DEVICE);
    unsetenv("ITERA_FAULT");
    destroy(&f);
    itera_device_close(&device);
}

static void reports_failed_build(void **state)
{
    (void)state;
    struct fixture f;
    struct itera_device *device = open_device();
    itera_remove_tree(cache);
    setenv("ITERA_FAULT", "build:1", 1);
    logged[0] = '\0';
    assert_int_equal(compile(&f, device, 0), ITERA_OK);
    assert_int_equal(logged_times("elementwise.cl does not compile; its ops"), 1);
    assert_int_equal(itera_run(f.executable), ITERA_OK);
    assert_true(result_is_right(&f, 0));
    destroy(&f);
    unsetenv("ITERA_FAULT");
    itera_device_close(&device);
    run_once(); /* nothing of it is in the cache */
    assert_int_equal(logged_times("built elementwise.cl"), 1);
}

static void survives_bad_driver(void **state)
{
    (void)state;
    struct itera_device_info *infos;
    int count;
    setenv("ITERA_FAULT", "list:1", 1);
    logged[0] = '\0';
    assert_int_equal(itera_devices(&infos, &count), ITERA_OK);
    for (int i = 0; i < count; i++)
        assert_string_not_equal(infos[i].backend, "opencl");
    free(infos);
    assert_true(logged_times("<1> opencl: the driver") >= 1);
    unsetenv("ITERA_FAULT");
}

int main(int argc, char **argv)
{
    itera_set_log(on_log, NULL);
    if (argc == 2 && !strcmp(argv[1], "run"))
        return child();
    self = argv[0];
    int count;
    struct opencl_found found[1];
    count = opencl_find(found, 1, false);
    if (!count) {
        puts("skipped: there is no OpenCL device");
        return 77;
    }
    if (!mkdtemp(folder))
        return 1;
    snprintf(cache, sizeof cache, "%s/cache", folder);
    snprintf(kernels, sizeof kernels, "%s/kernels", folder);
    if (mkdir(kernels, 0700))
        return 1;
    setenv("ITERA_CACHE_DIR", cache, 1);
    unsetenv("ITERA_FAULT");
    unsetenv("ITERA_KERNEL_DIR");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_devices),
        cmocka_unit_test(tells_errors_by_name),
        cmocka_unit_test(keeps_memory),
        cmocka_unit_test(runs_programs),
        cmocka_unit_test(runs_nothing),
        cmocka_unit_test(finds_sources),
        cmocka_unit_test(survives_bad_kernels),
        cmocka_unit_test(caches_binaries),
        cmocka_unit_test(keeps_no_binaries_of_pocl),
        cmocka_unit_test(shares_cache),
        cmocka_unit_test(reports_no_memory),
        cmocka_unit_test(reports_lost_device),
        cmocka_unit_test(reports_failed_build),
        cmocka_unit_test(survives_bad_driver),
    };
    const struct CMUnitTest clblast[] = {cmocka_unit_test(multiplies_with_clblast)};
    int failed = part_is(argc, argv, "clblast")
                     ? part_status(cmocka_run_group_tests(clblast, NULL, NULL))
                     : cmocka_run_group_tests(tests, NULL, NULL);
    itera_remove_tree(folder);
    return failed;
}
#endif
