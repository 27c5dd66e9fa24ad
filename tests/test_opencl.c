/* The OpenCL backend: what every GPU backend does (gpu_tests.c), its messages, its kernel files, and
 * CLBlast. */
#include "tests/support/test.h"

#ifndef ITERA_HAVE_OPENCL
#include <stdio.h>

int main(void)
{
    puts("skipped: built without OpenCL");
    return 77;
}
#else
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backend/opencl/opencl.h"
#include "core/file.h"
#include "tests/gpu_tests.h"
#include "tests/support/parts.h"

static char kernels[96];

/* With the cache on disk in use, whatever the driver. */
static void opened(struct itera_device *device)
{
    ((struct opencl_device *)device)->keeps_binaries = true;
}

static bool cached(const struct itera_device *device)
{
    (void)device;
    return !logged_times("built elementwise.cl");
}

static const char *const paths[] = {NULL};

const struct gpu_tested gpu_tested = {
    .backend = &itera_backend_opencl,
    .paths = paths,
    .n_paths = 1,
    .opened = opened,
    .cached = cached,
    .cache_file = "elementwise.cl-",
    .says_list = "<1> opencl: the driver",
    .says_lost = "CL_DEVICE_NOT_AVAILABLE",
    .says_memory = "CL_MEM_OBJECT_ALLOCATION_FAILURE",
    .says_build = "elementwise.cl does not compile; its ops",
    .says_useless = "does not take a kernel binary",
};

static void tells_errors_by_name(void **state)
{
    (void)state;
    assert_string_equal(opencl_error_name(CL_INVALID_ARG_SIZE), "CL_INVALID_ARG_SIZE");
    assert_string_equal(opencl_error_name(-1001), "CL_PLATFORM_NOT_FOUND_KHR");
    assert_string_equal(opencl_error_name(-12345), "error -12345");

    struct opencl_device d = {.gpu.base.info = {.id = "opencl:3", .name = "Card"}};
    assert_int_equal(opencl_fail(&d, "clFinish", CL_OUT_OF_RESOURCES), ITERA_ERR_DEVICE);
    assert_says("opencl:3 (Card): clFinish failed with CL_OUT_OF_RESOURCES", "was lost");
    assert_int_equal(opencl_fail(&d, "clEnqueueNDRangeKernel", CL_DEVICE_NOT_AVAILABLE),
                     ITERA_ERR_DEVICE);
    assert_says("was lost", "last checkpoint");
    assert_int_equal(opencl_fail(&d, "clFinish", CL_MEM_OBJECT_ALLOCATION_FAILURE),
                     ITERA_ERR_MEMORY);
    assert_says("no memory left", "smaller batch");
    assert_int_equal(opencl_fail(&d, "clSetKernelArg", CL_INVALID_VALUE), ITERA_ERR_DEVICE);
    assert_says("CL_INVALID_VALUE", "driver");
}

/* PoCL has a cache of its own, and would compile every kernel of a program for a binary of it. */
static void keeps_no_binaries_of_pocl(void **state)
{
    (void)state;
    struct itera_device *device = NULL;
    itera_remove_tree(gpu_cache);
    log_clear();
    assert_int_equal(itera_device_open(gpu_id, NULL, &device), ITERA_OK);
    const bool pocl = strstr(itera_device_info(device)->driver, "Portable Computing Language");
    assert_int_equal(((struct opencl_device *)device)->keeps_binaries, !pocl);
    gpu_run_once(device);
    assert_int_equal(logged_times("built elementwise.cl"), 1);
    itera_device_close(&device);
    int binaries = 0;
    DIR *dir = opendir(gpu_cache);
    for (const struct dirent *entry; dir && (entry = readdir(dir));)
        binaries += strstr(entry->d_name, ".bin") != NULL;
    if (dir)
        closedir(dir);
    assert_int_equal(binaries, !pocl);
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
    struct itera_device *device = gpu_open(NULL);
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
    char path[160];
    snprintf(path, sizeof path, "%s/%s", kernels, name);
    put(path, text);
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
    char args[128];
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
    assert_says("x.cl", "c.clh");
    opencl_sources_close(&sources);

    char none[96];
    snprintf(none, sizeof none, "%s/none", root);
    setenv("ITERA_KERNEL_DIR", none, 1);
    struct itera_device *device;
    assert_int_equal(itera_device_open(gpu_id, NULL, &device), ITERA_ERR_IO);
    assert_says("ITERA_KERNEL_DIR", none);
    unsetenv("ITERA_KERNEL_DIR");
}

/* A file that does not compile: its ops go to the CPU with a warning, or are refused. */
static void survives_bad_kernels(void **state)
{
    (void)state;
    struct gpu_fixture f;
    struct itera_device *device;
    setenv("ITERA_KERNEL_DIR", kernels, 1);
    write_kernel("x.cl", "\nkernel void silu(global int *p)\n{\n    p[0] = nonsense;\n}\n");
    log_clear();
    device = gpu_open(NULL);
    assert_int_equal(gpu_compile(&f, device, 0), ITERA_OK);
    gpu_fill(&f, 0);
    assert_int_equal(itera_run(f.executable), ITERA_OK);
    gpu_assert_result(&f, 0);
    gpu_destroy(&f);
    assert_int_equal(gpu_compile(&f, device, 0), ITERA_OK);
    gpu_destroy(&f);
    assert_int_equal(logged_times("x.cl does not compile; its ops"), 1);
    assert_true(logged_times("nonsense") >= 1);
    itera_device_close(&device);

    const struct itera_device_options refuse = {.fallback = ITERA_FALLBACK_REFUSE};
    assert_int_equal(itera_device_open(gpu_id, &refuse, &device), ITERA_OK);
    assert_int_equal(gpu_compile(&f, device, 0), ITERA_ERR_UNSUPPORTED);
    assert_says("silu", "x.cl does not compile");
    gpu_destroy(&f);
    itera_device_close(&device);

    /* Arguments that are not those of the lowering. */
    write_kernel("x.cl", "\nkernel void silu(global int *p, int2 n)\n{\n    p[0] = n.x;\n}\n");
    device = gpu_open(NULL);
    assert_int_equal(gpu_compile(&f, device, 0), ITERA_ERR_DEVICE);
    assert_says("clSetKernelArg", "silu");
    gpu_destroy(&f);
    itera_device_close(&device);
    unsetenv("ITERA_KERNEL_DIR");
}

/* As -cl-nv-verbose has it; of a kernel that is not in the log nothing is told. */
static void reads_the_log_of_nvidias_compiler(void **state)
{
    (void)state;
    static const char log[] =
        "\nptxas info    : 0 bytes gmem\n"
        "ptxas info    : Compiling entry function 'first' for 'sm_86'\n"
        "ptxas info    : Function properties for first\n"
        "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 34 registers, 384 bytes cmem[0]\n"
        "ptxas info    : Compiling entry function 'second' for 'sm_86'\n"
        "ptxas info    : Function properties for second\n"
        "ptxas         .     320 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n"
        "ptxas info    : Used 255 registers, 384 bytes cmem[0]";
    struct itera_kernel_info info = {.registers = -1, .spills = -1, .scratch_bytes = -1};
    opencl_read_nvidia_log(log, "third", &info);
    assert_int_equal(info.registers, -1);
    assert_string_equal(info.statistics, "");
    opencl_read_nvidia_log(log, "second", &info);
    assert_int_equal(info.registers, 255);
    assert_int_equal(info.spills, 12);
    assert_int_equal(info.scratch_bytes, 320);
    opencl_read_nvidia_log(log, "first", &info);
    assert_int_equal(info.registers, 34);
    assert_int_equal(info.spills, 0);
    opencl_read_nvidia_log("Compiling entry function 'a'", "a", &info);
    opencl_read_nvidia_log("", "a", &info);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_errors_by_name), cmocka_unit_test(keeps_no_binaries_of_pocl),
        cmocka_unit_test(finds_sources),        cmocka_unit_test(reads_the_log_of_nvidias_compiler),
        cmocka_unit_test(survives_bad_kernels),
    };
    const struct CMUnitTest clblast[] = {cmocka_unit_test(multiplies_with_clblast)};
    int status = gpu_tests_begin(argc, argv);
    if (status >= 0)
        return status;
    snprintf(kernels, sizeof kernels, "%s/kernels", root);
    if (mkdir(kernels, 0700))
        return 1;
    status = part_is(argc, argv, "clblast")
                 ? part_status(cmocka_run_group_tests(clblast, NULL, NULL))
                 : gpu_tests_run() + cmocka_run_group_tests(tests, NULL, NULL);
    gpu_tests_end();
    return status;
}
#endif
