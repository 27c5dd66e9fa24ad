/* Benchmarks: latency percentiles and rates of ops, inference and training on a device, which
 * belongs to the calling thread meanwhile.
 * Errors of all functions: ITERA_ERR_ARGUMENT for options that the model or device cannot take;
 * ITERA_ERR_MEMORY; ITERA_ERR_CANCELLED; device errors. */
#ifndef ITERA_BENCH_H
#define ITERA_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "itera/device.h"
#include "itera/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the device reaches here and now; every row's share of peak refers to it. */
#define ITERA_BENCH_SIZES 3
struct itera_bench_peaks {
    double gflops;      /* f32 matmul of 1024 x 1024 x 1024 (software devices: 192) */
    double copy_gbytes; /* reading plus writing, 256 MB (software devices: 8) */
    /* Reading, over working sets of these many bytes (caches, then memory). */
    double read_bytes[ITERA_BENCH_SIZES], read_gbytes[ITERA_BENCH_SIZES];
};

struct itera_bench_row {
    char device[32];
    int threads;
    char dtype[8];
    char phase[16]; /* op, forward, prefill, decode, train */
    char op[32];    /* the op, or the model's name */
    char case_name[96];
    int64_t batch, tokens; /* per run */
    int repeats;
    double p50, p95, p99, best; /* seconds of one run */
    double flops, bytes;        /* of one run: what the work needs, from the cost rules */
    double gemm_gflops;         /* of a 512 x 512 x 512 f32 matmul just before and after: how fast
                                   the machine was at that moment; 0 where not measured: on
                                   anything but the CPU */
    double peak_share;          /* the time that the peaks allow / p50 */
    uint64_t memory_bytes;      /* of the program: activations, scratch, state */
    char peer[32];              /* a peer that was run in turn with ours; "" for none */
    double peer_p50;
};

enum itera_bench_phase {
    ITERA_BENCH_FORWARD = 1, /* logits of every position */
    ITERA_BENCH_PREFILL = 2, /* of the last position */
    ITERA_BENCH_DECODE = 4,
};

struct itera_bench_options {
    double seconds;         /* per row; 0: 1 */
    const char *filter;     /* ops: glob over "op case"; NULL: all */
    const int64_t *prompts; /* model: prompt lengths */
    int n_prompts;
    int64_t generate; /* model: tokens per decode measurement */
    unsigned phases;  /* model: which of enum itera_bench_phase; 0: all */
    const int64_t *batches;
    int n_batches;
    int64_t train_batch, train_seq; /* train: shape of a step */
    struct itera_bench_peaks peaks;
};

/* Called as each row is done; a non-zero return stops the benchmark (ITERA_ERR_CANCELLED). */
typedef int itera_bench_fn(void *user, const struct itera_bench_row *row);

enum itera_status itera_bench_measure_peaks(struct itera_device *device,
                                            struct itera_bench_peaks *peaks);
/* Forward ops at the shapes of the presets; f32 matmul beside OpenBLAS where that is installed. */
enum itera_status itera_bench_ops(struct itera_device *device,
                                  const struct itera_bench_options *options, itera_bench_fn *fn,
                                  void *user);
/* forward (logits of every position), prefill (of the last one) and decode; name labels the rows.
 */
enum itera_status itera_bench_model(struct itera_model *model, const char *name,
                                    const struct itera_bench_options *options, itera_bench_fn *fn,
                                    void *user);
/* A whole training step: forward, backward, clip, AdamW. Changes the model's weights. */
enum itera_status itera_bench_train(struct itera_model *model, const char *name,
                                    const struct itera_bench_options *options, itera_bench_fn *fn,
                                    void *user);

/* Measures which kernels are the fastest for training, prefill and decoding of these presets, where
 * a device has several, and keeps it in the cache of the device and driver, in place of what was
 * measured before. Without it, a GPU measures what it meets when it meets it, and a software device
 * uses defaults. fn may be NULL; progress goes from 0 to 1; a non-zero return stops
 * (ITERA_ERR_CANCELLED). On the CPU there is nothing to do. */
typedef int itera_bench_tune_fn(void *user, const char *preset, double progress);
enum itera_status itera_bench_tune(struct itera_device *device, const char *const *presets,
                                   int n_presets, itera_bench_tune_fn *fn, void *user);

/* Where the time of one piece of work goes, each op timed apart: by part of the model, then by kind
 * of op, each in descending order of seconds. */
#define ITERA_BENCH_PARTS 160
struct itera_bench_part {
    char name[32]; /* of a part of the model, or of an op */
    bool is_op;
    int count; /* ops in it */
    double seconds, flops, bytes;
};
/* Of a forward pass (logits of every position), or of a training step. */
enum itera_status itera_bench_breakdown(struct itera_model *model, bool training, int64_t batch,
                                        int64_t tokens,
                                        struct itera_bench_part parts[ITERA_BENCH_PARTS],
                                        int *count);

#ifdef __cplusplus
}
#endif
#endif
