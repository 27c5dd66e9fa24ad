/* Benchmarks: latency and rates of ops, inference and training, measured in turns.
 *
 * Each configuration to measure is a task: an op, or one phase of a model, compiled on its device.
 * Tasks that are to be compared are measured together, by one call of itera_bench_measure: short
 * blocks of each in turn, so that a machine that slows down slows all of them. docs/benchmarks.md
 * says how the figures come about.
 *
 * The interface serves the itera command and changes with it: a version that keeps the rest of the
 * library's interface may change this header in any way.
 *
 * A task belongs to its device and, in phases of a model, to its model; both must outlive it. All
 * devices of the tasks belong to the calling thread meanwhile.
 * Errors of all functions: ITERA_ERR_ARGUMENT for what the model or device cannot take;
 * ITERA_ERR_MEMORY; device errors. */
#ifndef ITERA_BENCH_H
#define ITERA_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "itera/device.h"
#include "itera/energy.h"
#include "itera/model.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the device reaches here and now, the best of many tries before and after the rows, whose
 * shares of peak refer to it. NAN where the device lacks the op. */
#define ITERA_BENCH_SIZES 3
struct itera_bench_peaks {
    double gflops;      /* f32 matmul of 1024 x 1024 x 1024 (software devices: 192) */
    double f16_gflops;  /* the same with f16 weights and f32 activations */
    double int8_gops;   /* the same with q8 weights and activations rounded to int8 */
    double copy_gbytes; /* reading plus writing, 256 MB (software devices: 8) */
    /* Reading, over working sets of these many bytes (caches, then memory). */
    double read_bytes[ITERA_BENCH_SIZES], read_gbytes[ITERA_BENCH_SIZES];
};
/* quick: takes half the time; on software devices, which compile for long, leaves f16 and int8
 * out. */
ITERA_API enum itera_status itera_bench_measure_peaks(struct itera_device *device, bool quick,
                                                      struct itera_bench_peaks *peaks);
/* Takes over what `again`, of the same device, has more of. */
ITERA_API void itera_bench_raise_peaks(struct itera_bench_peaks *peaks,
                                       const struct itera_bench_peaks *again);

/* How the logits of a configuration compare with those of the CPU in f32 on the same weights. */
struct itera_bench_parity {
    bool known;
    char reference[48];      /* "cpu f32 (ref)": which kernels computed it */
    int64_t positions;       /* whose logits were compared */
    double max_abs, max_rel; /* max_rel: the largest difference over the largest value */
    double nmse;             /* |a - b|^2 / |b|^2 */
    double limit;            /* on nmse */
    bool pass;
};

#define ITERA_BENCH_MOE_LAYERS 256
struct itera_bench_load {
    int experts, top_k, layers; /* layers 0: nothing known */
    int64_t tokens;
    double imbalance[ITERA_BENCH_MOE_LAYERS]; /* assignments of the busiest expert over the mean */
    double worst;
};

struct itera_bench_row {
    char device[32];
    int threads;
    char dtype[8];
    char phase[16]; /* op, forward, prefill, decode, mixed, train */
    char op[48];    /* the op, or the model's name */
    char case_name[96];
    int64_t batch, tokens; /* per run */
    int repeats, blocks;   /* runs that were timed, and the blocks that they came in */
    double p50;            /* seconds of one run: median of the blocks' medians */
    double low, high;      /* 95% confidence interval of p50 */
    double p95, p99, best; /* of all runs */
    bool stable;
    char unstable_because[96];
    double device_p50;   /* seconds by the device's own timestamps; NAN where it has none */
    double flops, bytes; /* of one run: what the work needs, from the cost rules */
    double gemm_gflops;  /* of a 512 x 512 x 512 f32 matmul between the blocks: how fast the
                             machine was meanwhile; 0 where not measured: on anything but the CPU */
    double peak_share;   /* the time that the peaks allow / p50 */
    bool compute_bound;  /* which peak sets that time: arithmetic, else memory */
    size_t memory_bytes; /* of the program: activations, scratch, state */
    size_t peak_bytes;   /* all memory on the device that this task needs, with the weights */
    int dispatches; /* of a run on a GPU: kernels launched; 0: a CPU, or more than one program */
    int barriers;   /* how often they wait for what was launched before */
    char peer[32];  /* a peer that was run in turn with ours; "" for none */
    double peer_p50;
    struct itera_bench_parity parity;
    struct itera_bench_load load;
    struct itera_energy energy; /* n_figures 0: not measured */
    double energy_tokens;
};

enum itera_bench_phase {
    ITERA_BENCH_FORWARD, /* logits of every position */
    ITERA_BENCH_PREFILL, /* of the last position */
    ITERA_BENCH_DECODE, /* `tokens` tokens, one by one, then anew from the beginning; a run is one */
    ITERA_BENCH_MIXED,  /* the same, of sequences that are all at different positions */
    ITERA_BENCH_TRAIN,  /* forward, backward, clip, AdamW with a learning rate of 0: the weights
                            stay. Models with all weights in f32 only */
};

struct itera_bench_task;

/* Forward ops at the shapes of the presets; on the CPU, f32 matmul beside OpenBLAS where that is
 * installed. The name is "matmul 512x3072x768"; NULL past the last. */
ITERA_API const char *itera_bench_op_name(int index, char *name, size_t size);
ITERA_API enum itera_status itera_bench_task_op(struct itera_device *device, int index,
                                                struct itera_bench_task **task);
/* name and dtype label the row (NULL: the type of nine tenths of the weights, or "mixed"). The
 * tokens are random. */
ITERA_API enum itera_status itera_bench_task_model(struct itera_model *model, const char *name,
                                                   const char *dtype, enum itera_bench_phase phase,
                                                   int64_t batch, int64_t tokens,
                                                   struct itera_bench_task **task);
ITERA_API void itera_bench_task_destroy(struct itera_bench_task **task); /* NULL-safe */

/* Compares forward, prefill and decode with the CPU's f32 kernels (the scalar reference where that
 * takes seconds at most) on the expanded weights; nothing for ops and training. */
ITERA_API enum itera_status itera_bench_task_parity(struct itera_bench_task *task);

/* Zero-initialise and set what matters. */
struct itera_bench_options {
    double seconds; /* of timed runs per task; 0: 1 */
    /* Called between blocks with the share that is done; a non-zero return ends the measurement
     * early, which is no error: tasks without a block have 0 repeats. May be NULL. */
    int (*progress)(void *user, double done, const struct itera_bench_task *task);
    void *user;
};
/* Warms all tasks up, then times them in rounds. options may be NULL. */
ITERA_API enum itera_status itera_bench_measure(struct itera_bench_task *const *tasks, int n,
                                                const struct itera_bench_options *options);

/* Repeats the task for about `seconds` under the meter. */
ITERA_API enum itera_status itera_bench_task_energy(struct itera_bench_task *task,
                                                    struct itera_meter *meter, double seconds);

/* The figures so far, with the share of these peaks. */
ITERA_API const struct itera_bench_row *itera_bench_task_row(struct itera_bench_task *task,
                                                             const struct itera_bench_peaks *peaks);
/* The ops of the task that ran on the CPU instead of its device: NULL past the last. */
ITERA_API const char *itera_bench_task_fallback_op(const struct itera_bench_task *task, int index);

/* Where the time of a task goes, each op timed apart: by part of the model, then by kind of op,
 * each in descending order of seconds. */
#define ITERA_BENCH_PARTS 160
struct itera_bench_part {
    char name[32]; /* of a part of the model, or of an op */
    bool is_op;
    int count; /* ops in it */
    double seconds, flops, bytes;
};
/* Repeats the profile for about `seconds`. *count is 0 where the device cannot time its ops. On
 * devices with timestamps it gives the row's device_p50, too. */
ITERA_API enum itera_status
itera_bench_task_breakdown(struct itera_bench_task *task, double seconds,
                           struct itera_bench_part parts[ITERA_BENCH_PARTS], int *count);

/* A preset, or a configuration file, with random weights and some sizes changed: for curves of how
 * cost grows. width 1: as it is; else all widths are multiplied by it (heads and channels keep
 * their sizes and become more). positions > 0: learned positions of families that have them. */
ITERA_API enum itera_status itera_bench_create_scaled(struct itera_device *device,
                                                      const char *config, double width,
                                                      int32_t positions,
                                                      struct itera_model **model);

/* ---- statistics ------------------------------------------------------------------------------ */

struct itera_bench_interval {
    double median, low, high;
};
/* The median of a series in order of time and its 95% confidence interval, by order statistics for
 * as many values as the series is worth: its autocorrelation takes off. Up to 6: the extremes.
 * NAN for n == 0. Errors: ITERA_ERR_MEMORY. */
ITERA_API enum itera_status itera_bench_interval(const double *series, int n,
                                                 struct itera_bench_interval *out);

/* y = c x^exponent, by least squares of the logarithms; low and high are the 95% interval of the
 * exponent by Student's t, infinite for two points, NAN for fewer. */
struct itera_bench_fit {
    double exponent, low, high;
};
ITERA_API struct itera_bench_fit itera_bench_fit(const double *x, const double *y, int n);

/* ---- the machine ----------------------------------------------------------------------------- */

/* What the machine says of itself now. NAN and "" stand for what cannot be read. */
struct itera_bench_machine {
    char virtual_machine[32];        /* "kvm", ...; "" on bare metal, or unknown */
    char governor[32];               /* of frequency: "powersave"; "mixed" */
    double clock_mhz, clock_max_mhz; /* mean over the processors */
    double temperature_c;
    double throttles; /* events since the machine was started */
    double load;      /* average over a minute */
    uint64_t memory_bytes, available_bytes;
};
/* sysfs: NULL for ITERA_SYSFS, else "/sys". */
ITERA_API void itera_bench_look(const char *sysfs, struct itera_bench_machine *machine);

/* ---- tuning ---------------------------------------------------------------------------------- */

/* Measures which kernels are the fastest for training, prefill and decoding of these presets, where
 * a device has several, and keeps it in the cache of the device and driver, in place of what was
 * measured before. Without it, a GPU measures what it meets when it meets it, and a software device
 * uses defaults. fn may be NULL; progress goes from 0 to 1; a non-zero return stops
 * (ITERA_ERR_CANCELLED). On the CPU there is nothing to do. */
typedef int itera_bench_tune_fn(void *user, const char *preset, double progress);
ITERA_API enum itera_status itera_bench_tune(struct itera_device *device,
                                             const char *const *presets, int n_presets,
                                             itera_bench_tune_fn *fn, void *user);

#ifdef __cplusplus
}
#endif
#endif
