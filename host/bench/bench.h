/* What the benchmark files share: programs on random data, and repeated timing. */
#ifndef ITERA_BENCH_BENCH_H
#define ITERA_BENCH_BENCH_H

#include "backend/backend.h"
#include "itera/bench.h"

/* A program with a buffer of seeded random values for every bound tensor. */
struct itera_bench_program {
    struct itera_program *p;
    struct itera_executable *executable;
    struct itera_buffer **buffers; /* per tensor id; NULL for what is not bound here */
    int n_buffers;
};
/* Takes ownership of p. i32 tensors get values below index_limit, those named "offsets" a rising
 * sequence up to it. f32 tensors are uniform in [0.01, 1), negated where the name begins with
 * "neg". */
enum itera_status itera_bench_build(struct itera_device *device, struct itera_program *p,
                                    int32_t index_limit, struct itera_bench_program *out);
void itera_bench_program_destroy(struct itera_bench_program *program);

/* Something to time: one call is one run. */
struct itera_bench_work {
    enum itera_status (*run)(void *user);
    void *user;
    double *samples; /* filled by itera_bench_time, `count` of them, sorted */
    int count;
};
enum itera_status itera_bench_run_program(void *executable); /* a `run` */

/* Warms up, then runs the works for about `seconds` in all, at least 5 times each; several works
 * take turns in short blocks. Each sample is one run. */
enum itera_status itera_bench_time(struct itera_bench_work *works, int n, double seconds);
void itera_bench_work_free(struct itera_bench_work *work);

/* Percentiles, rates and share of peak from sorted samples; flops and bytes are set before. */
void itera_bench_fill(struct itera_bench_row *row, const struct itera_bench_work *work,
                      const struct itera_bench_peaks *peaks, double working_set);
void itera_bench_device(struct itera_bench_row *row, const struct itera_device *device);

/* The rate of a 512 x 512 x 512 f32 matmul now, in GFLOP/s; 0 when it fails. */
double itera_bench_gauge(struct itera_device *device);

/* C (m, n) = A (m, k) . B^T, B (n, k), by OpenBLAS, if it can be loaded. */
struct itera_openblas;
struct itera_openblas *itera_openblas_open(int threads); /* NULL: not here */
void itera_openblas_close(struct itera_openblas **blas);
void itera_openblas_sgemm(const struct itera_openblas *blas, int trans_a, int trans_b, int m, int n,
                          int k, const float *a, int lda, const float *b, int ldb, float *c);
/* Which kernels it chose for this processor: "Haswell", "SkylakeX", ... */
const char *itera_openblas_core(const struct itera_openblas *blas);

#endif
