/* What a device reaches: the peaks that every row is held against, and the gauge. */
#include <math.h>
#include <stdlib.h>

#include "bench/bench_impl.h"
#include "core/clock.h"
#include "core/log.h"
#include "tensor/blocks.h"

#define F32 ITERA_F32

/* The seconds of the fastest of many runs in several tries: a peak is what the device can do, not
 * what it does while others are using it. */
static enum itera_status best_of(struct itera_device *device, const struct itera_bench_op *op,
                                 double seconds, double *best)
{
    enum { FEWEST = 3 };
    struct itera_bench_program program;
    struct itera_cost cost;
    *best = NAN;
    enum itera_status status = itera_bench_build_op(device, op, &program, &cost);
    if (status)
        return status;
    status = itera_run(program.executable);
    double begin = itera_seconds();
    for (int runs = 0; !status && (runs < FEWEST || itera_seconds() - begin < seconds); runs++) {
        double before = itera_seconds();
        status = itera_run(program.executable);
        *best = fmin(*best, itera_seconds() - before);
    }
    itera_bench_program_destroy(&program);
    return status;
}

/* The rate of a square matmul with b in this type; NAN where the device has no kernel for it. */
static enum itera_status matmul_rate(struct itera_device *device, int64_t n, enum itera_dtype dtype,
                                     double seconds, double *gflops)
{
    const bool blocks = itera_dtype_is_blocks(dtype);
    const struct itera_bench_op op = {
        ITERA_OP_matmul,
        "",
        {.trans_b = 1, .integer = blocks, .half = blocks || dtype == ITERA_F16},
        {{"a", F32, 2, {n, n}}, {"b", dtype, 2, {n, n}}}};
    double best = NAN;
    struct itera_attempt attempt; /* a device may lack products of a type */
    itera_attempt_begin(&attempt);
    enum itera_status status = best_of(device, &op, seconds, &best);
    itera_attempt_end(&attempt);
    *gflops = 2.0 * (double)(n * n * n) / best / 1e9;
    if (!status || (status == ITERA_ERR_UNSUPPORTED && dtype != F32))
        return ITERA_OK;
    return itera_fail(status, "%s", attempt.error);
}

/* A matrix times a vector does little more than read, and so does the gradient norm: the faster of
 * them, or the first alone. */
static enum itera_status read_rate(struct itera_device *device, int64_t kib, bool both,
                                   double seconds, double *gbytes)
{
    const struct itera_bench_op norm = {
        ITERA_OP_grad_norm, "", {0}, {{"grad", F32, 1, {kib * 256}}}};
    const struct itera_bench_op gemv = {ITERA_OP_matmul,
                                        "",
                                        {.trans_b = 1},
                                        {{"a", F32, 2, {1, 1024}}, {"b", F32, 2, {kib / 4, 1024}}}};
    double by_norm = NAN, by_gemv;
    enum itera_status status = best_of(device, &gemv, seconds, &by_gemv);
    if (!status && both)
        status = best_of(device, &norm, seconds, &by_norm);
    if (!status)
        *gbytes = (double)kib * 1024 / fmin(by_norm, by_gemv) / 1e9;
    return status;
}

enum itera_status itera_bench_measure_peaks(struct itera_device *device, bool quick,
                                            struct itera_bench_peaks *peaks)
{
    /* A driver that emulates a GPU takes minutes for what a GPU or a CPU does in no time. */
    const bool slow = device->info.type == ITERA_DEVICE_SOFTWARE, few = slow && quick;
    const int64_t n = slow ? 192 : 1024, rows = slow ? 1024 : 32768;
    static const int64_t all_kib[2][ITERA_BENCH_SIZES] = {{512, 16384, 262144}, {128, 1024, 4096}};
    const int64_t *kib = all_kib[slow];
    const struct itera_bench_op copy = {ITERA_OP_copy, "", {0}, {{"x", F32, 2, {rows, 1024}}}};
    const double unit = quick ? 0.1 : 0.2;
    double seconds;
    *peaks = (struct itera_bench_peaks){.f16_gflops = NAN, .int8_gops = NAN};
    enum itera_status status = matmul_rate(device, n, F32, 4 * unit, &peaks->gflops);
    if (!status && !few)
        status = matmul_rate(device, n, ITERA_F16, 3 * unit, &peaks->f16_gflops);
    if (!status && !few)
        status = matmul_rate(device, n, ITERA_Q8, 3 * unit, &peaks->int8_gops);
    if (!status)
        status = best_of(device, &copy, 4 * unit, &seconds);
    if (status)
        return status;
    peaks->copy_gbytes = 2.0 * 4 * 1024 * (double)rows / seconds / 1e9;
    for (int i = 0; i < ITERA_BENCH_SIZES && !status; i++) {
        peaks->read_bytes[i] = (double)kib[i] * 1024;
        status = read_rate(device, kib[i], !few, 2 * unit, &peaks->read_gbytes[i]);
    }
    return status;
}

void itera_bench_raise_peaks(struct itera_bench_peaks *peaks, const struct itera_bench_peaks *again)
{
    /* fmax() passes over a NAN. */
    peaks->gflops = fmax(peaks->gflops, again->gflops);
    peaks->f16_gflops = fmax(peaks->f16_gflops, again->f16_gflops);
    peaks->int8_gops = fmax(peaks->int8_gops, again->int8_gops);
    peaks->copy_gbytes = fmax(peaks->copy_gbytes, again->copy_gbytes);
    for (int i = 0; i < ITERA_BENCH_SIZES; i++)
        peaks->read_gbytes[i] = fmax(peaks->read_gbytes[i], again->read_gbytes[i]);
}

struct itera_bench_gauge {
    struct itera_bench_program program;
};

enum itera_status itera_bench_gauge_open(struct itera_device *device,
                                         struct itera_bench_gauge **out)
{
    static const struct itera_bench_op gemm = {
        ITERA_OP_matmul,
        "",
        {.trans_b = 1},
        {{"a", F32, 2, {512, 512}}, {"b", F32, 2, {512, 512}}}};
    struct itera_cost cost;
    *out = calloc(1, sizeof **out);
    if (!*out)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for a benchmark");
    enum itera_status status = itera_bench_build_op(device, &gemm, &(*out)->program, &cost);
    if (status)
        itera_bench_gauge_close(out);
    return status;
}

void itera_bench_gauge_close(struct itera_bench_gauge **gauge)
{
    if (*gauge)
        itera_bench_program_destroy(&(*gauge)->program);
    free(*gauge);
    *gauge = NULL;
}

double itera_bench_gauge_read(struct itera_bench_gauge *gauge)
{
    enum { RUNS = 4 };
    double best = 0;
    for (int i = 0; i < RUNS; i++) {
        double before = itera_seconds();
        if (itera_run(gauge->program.executable))
            return 0;
        double rate = 2.0 * 512 * 512 * 512 / (itera_seconds() - before) / 1e9;
        best = i && rate > best ? rate : best; /* the first warms up */
    }
    return best;
}
