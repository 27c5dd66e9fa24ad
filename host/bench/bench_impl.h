/* What the benchmark files share: programs on random data, tasks, and timing in rounds. */
#ifndef ITERA_BENCH_BENCH_IMPL_H
#define ITERA_BENCH_BENCH_IMPL_H

#include "backend/backend.h"
#include "itera/bench.h"
#include "model/phase.h"

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
    enum itera_status (*prepare)(void *user); /* before each run, not timed; may be NULL */
    enum itera_status (*finish)(void *user);  /* after each block, not timed; may be NULL */
    void *user;
    bool spins; /* its threads may go on for a while after a run */
    /* Filled by itera_bench_rounds: seconds of each run (sorted in the end), and the median of each
     * block in order of time. */
    double *samples, *medians;
    int count, capacity, blocks;
    /* Its own: */
    double run_seconds; /* of a run, from the warm-up */
    int wanted;         /* blocks */
};
enum itera_status itera_bench_run_program(void *executable); /* a `run` */
void itera_bench_work_free(struct itera_bench_work *work);

/* Called before each block of work `index` (-1: between rounds, index of the round in `round`); a
 * non-zero return ends the measurement. */
typedef int itera_bench_turn_fn(void *user, int index, int round, int rounds);
/* Warms up, then runs the works in rounds of blocks until each had about `seconds`. */
enum itera_status itera_bench_rounds(struct itera_bench_work *const *works, int n, double seconds,
                                     itera_bench_turn_fn *turn, void *user);
double itera_bench_quantile(const double *sorted, int n, double q);

/* One configuration to measure. */
struct itera_bench_task {
    struct itera_device *device;
    struct itera_bench_row row;
    struct itera_bench_work work, peer;
    bool has_peer;
    double working_set; /* bytes that a run goes through, for the peak of reading */
    /* For breakdowns; NULL: none. The task's own. */
    struct itera_executable *executable;
    const struct itera_program *program;
    void *content; /* what the task is made of */
    void (*destroy)(void *content);
    enum itera_status (*parity)(struct itera_bench_task *task); /* NULL: none */
    bool fell_back[ITERA_OP_COUNT];
};
/* Empty, with the labels of the device. Between begin and end, what is made on the device counts as
 * the task's: its memory, and ops that fall back. */
enum itera_status itera_bench_task_begin(struct itera_device *device,
                                         struct itera_bench_task **out);
void itera_bench_task_end(struct itera_bench_task *task);

/* A matmul of 512 x 512 x 512 that shows how fast the CPU is at a moment. */
struct itera_bench_gauge;
enum itera_status itera_bench_gauge_open(struct itera_device *device,
                                         struct itera_bench_gauge **out);
void itera_bench_gauge_close(struct itera_bench_gauge **gauge);
double itera_bench_gauge_read(struct itera_bench_gauge *gauge); /* GFLOP/s, 0 when it fails */

/* One op on random data, described by its inputs. */
struct itera_bench_input {
    const char *name; /* NULL: absent */
    enum itera_dtype dtype;
    int rank;
    int64_t dim[ITERA_MAX_RANK];
};
struct itera_bench_op {
    enum itera_op_kind kind;
    const char *label;
    struct itera_attr attr;
    struct itera_bench_input in[ITERA_MAX_IN];
    int64_t tokens;
    int32_t index_limit;
};
enum itera_status itera_bench_build_op(struct itera_device *device, const struct itera_bench_op *op,
                                       struct itera_bench_program *out, struct itera_cost *cost);

/* One phase of a model, compiled on buffers of its own. */
struct itera_bench_graph {
    struct itera_model_phase phase;
    struct itera_buffer *ids, *start, *states, *derived, *logits, *offsets;
    int n_routes; /* MoE layers, whose offsets (experts + 1) lie in `offsets` */
};
/* ids (batch, tokens); phase is EVAL or INFER. keep_logits: bound, to be read back. */
enum itera_status itera_bench_graph_create(struct itera_model *model, bool every_position,
                                           int64_t batch, int64_t tokens, const int32_t *ids,
                                           bool keep_logits, struct itera_bench_graph *out);
void itera_bench_graph_destroy(struct itera_bench_graph *graph);
/* n random ids; free with free(). NULL: no memory. */
int32_t *itera_bench_random_ids(int64_t n, int32_t vocab);

/* Compares logits (positions, vocab), the last ones of `n` tokens, with the CPU's. */
enum itera_status itera_bench_compare(struct itera_model *model, const int32_t *ids, int64_t n,
                                      const float *logits, int64_t positions,
                                      struct itera_bench_parity *out);

/* C (m, n) = A (m, k) . B^T, B (n, k), by OpenBLAS, if it can be loaded. */
struct itera_openblas;
struct itera_openblas *itera_openblas_open(int threads); /* NULL: not here */
void itera_openblas_close(struct itera_openblas **blas);
void itera_openblas_sgemm(const struct itera_openblas *blas, int trans_a, int trans_b, int m, int n,
                          int k, const float *a, int lda, const float *b, int ldb, float *c);
/* Which kernels it chose for this processor: "Haswell", "SkylakeX", ... */
const char *itera_openblas_core(const struct itera_openblas *blas);

#endif
