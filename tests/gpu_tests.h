/* What every GPU backend does, tested by one text (gpu_tests.c) that is linked to each backend's
 * test. */
#ifndef ITERA_TESTS_GPU_TESTS_H
#define ITERA_TESTS_GPU_TESTS_H

#include "backend/gpu/dispatch.h"
#include "backend/gpu/traits.h"
#include "tests/support/test.h"

/* What the tests must know of the backend; each test_<backend>.c has one. */
struct gpu_tested {
    const struct itera_backend *backend;
    /* Faults (of ITERA_FAULT) that take each path by which operands and their content can come to a
     * kernel; the first is NULL. */
    const char *const *paths;
    int n_paths;
    /* Called for each device that the tests open; may be NULL. */
    void (*opened)(struct itera_device *device);
    bool (*timed)(const struct itera_device *device); /* whether it can time kernels; NULL: yes */
    /* Whether none of the kernels since it was opened, and since log_clear, was compiled. */
    bool (*cached)(const struct itera_device *device);
    const char *cache_file; /* how the names of its files there begin */
    const char *says_list,
        *says_lost; /* in a message: a driver that fails, a device that is lost */
    const char *says_memory, *says_build;
    bool remembers_loss;      /* of a device; OpenCL's driver does that itself */
    const char *says_useless; /* of a cached kernel that the driver does not take; NULL: nothing */
};
extern const struct gpu_tested gpu_tested;

/* The first device of the backend, and its cache: a folder in root. */
extern char gpu_id[32], gpu_cache[96];
/* Goes before everything else: makes root, and reads the arguments. Returns -1, or the exit status
 * of a program that has no device to test or was started by a test. */
int gpu_tests_begin(int argc, char **argv);
/* Returns how many failed. */
int gpu_tests_run(void);
void gpu_tests_end(void);

/* With the faults named (NULL: none), which are over when it returns. */
struct itera_device *gpu_open(const char *faults);

/* y = silu(silu(x)) + x, x and y at `at` bytes of their buffers. */
enum { GPU_ROWS = 5, GPU_COLS = 37, GPU_ELEMENTS = GPU_ROWS * GPU_COLS };
struct gpu_fixture {
    struct itera_program *program;
    struct itera_buffer *x, *y;
    struct itera_executable *executable;
    size_t at;
};
enum itera_status gpu_compile(struct gpu_fixture *f, struct itera_device *device, size_t at);
void gpu_destroy(struct gpu_fixture *f);
/* Other values in each round, and what comes of them. */
void gpu_fill(const struct gpu_fixture *f, int round);
void gpu_assert_result(const struct gpu_fixture *f, int round);
/* All of this. */
void gpu_run_once(struct itera_device *device);

double gpu_silu(double x);

#endif
