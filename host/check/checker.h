/* What the parts of a parity check share. */
#ifndef ITERA_CHECK_CHECKER_H
#define ITERA_CHECK_CHECKER_H

#include "check/trial.h"
#include "itera/check.h"

/* A device as it is tested: for the CPU, one per instruction set level and number of threads. */
struct itera_check_target {
    char name[32]; /* "avx2 x2"; the device's backend for others */
    struct itera_device *device;
};

/* Most tensors of a case that are compared: gradients of its inputs, or outputs; and operands that
 * the op writes. */
#define ITERA_CHECK_TENSORS (ITERA_CASE_INPUTS + ITERA_MAX_IN + ITERA_MAX_OUT)

struct itera_checker {
    const struct itera_check_options *options;
    itera_check_fn *fn;
    void *user;
    struct itera_check_summary *summary;
    struct itera_check_target *targets;
    int n_targets;
    struct itera_device *reference; /* the scalar CPU */
    const char *globs;
    bool all_names; /* results are reported whatever their op's name: the globs named the forward op
                     */
    double progress;
    enum itera_status status; /* memory, or cancelled: ends the check */
};

/* The random stream of something that belongs to a case. */
uint64_t itera_check_stream(const char *op, int index, int part);

/* Whether an op has cases of its own (gradient ops are reached through their forward op's). */
bool itera_check_has_cases(enum itera_op_kind kind);
/* An empty case of what is called so, with its random numbers; false when it is not to be checked, or
 * after an error (checker->status). */
bool itera_check_begin_case(struct itera_checker *checker, const char *name, int index,
                            struct itera_case *c);
/* Builds case `index` of an op. False when there is none, or after an error (checker->status, or
 * the case's program->status, which is reported as a failure). The caller destroys c->program. */
bool itera_check_build(struct itera_checker *checker, enum itera_op_kind kind, int index,
                       struct itera_case *c);
/* Whether a tensor is one of the case's inputs (and not an output made by recording). */
bool itera_check_is_input(const struct itera_case *c, int32_t tensor);
/* The output of the case's last op whose gradient is given: the first that is f32, or ITERA_NONE. */
int32_t itera_check_seeded_output(const struct itera_program *p);
/* Turns the outputs of the op under test into bound tensors, so that their memory can be watched;
 * `padding` elements are put between their rows. */
void itera_check_bind_outputs(struct itera_case *c, int64_t padding);
/* Fills the inputs of a case, and the output of op `under_test` when that adds to it. */
void itera_check_fill(const struct itera_checker *checker, const struct itera_case *c,
                      int32_t under_test, const struct itera_trial *trial);
/* The operands of the case's last op that it writes, at most ITERA_MAX_IN + ITERA_MAX_OUT;
 * whole[i]: all of it is written, whatever it held before. */
int itera_check_written(const struct itera_case *c, int32_t *tensors, bool *whole);
/* "auto" has no name: "", "sequential", "parallel", ... */
const char *itera_check_method(const struct itera_op_def *def, int variant);

/* Reports a result: target may be NULL (then `variant` alone names what was compared). */
void itera_check_emit(struct itera_checker *checker, const char *op, const char *dtype,
                      const struct itera_check_target *target, const char *variant,
                      const char *method, const char *label, enum itera_check_verdict verdict,
                      double tolerance, const struct itera_difference *difference, double seconds,
                      struct itera_cost cost);
/* Median seconds of ops [first, last) of the runner's program; 0 unless bench was asked for. */
double itera_check_time(struct itera_checker *checker, struct itera_runner *runner, int32_t first,
                        int32_t last);

/* How one way of computing a case on a target came out. Runs it, compares the n tensors with the
 * reference's, and times ops [first, last). `way` is 0 for the device's own choice, else forces
 * candidate way - 1 (backend.h), with `apart` all ops one by one; *ways becomes the number of
 * candidates. False when this way serves
 * no op of the program: then there is nothing to report. */
struct itera_check_outcome {
    enum itera_check_verdict verdict;
    struct itera_difference difference;
    double tolerance; /* with which it was compared */
    double seconds;
    char method[32]; /* the candidate's name; "" for way 0 */
    int chains;      /* of ops that were computed together */
};
bool itera_check_run(struct itera_checker *checker, const struct itera_check_target *target,
                     const struct itera_trial *trial, const struct itera_runner *reference,
                     const int32_t *tensors, int n, double tolerance, int32_t first, int way,
                     bool apart, int *ways, struct itera_check_outcome *out);

/* What the elements of the n tensors, as `reference` left them, were summed from: summed[i] is the
 * sum of (operand x derivative by it)^2 over the f32 operands and over the elements of tensor i,
 * estimated by moving the operands by small random parts of themselves; more for few elements,
 * whose errors scatter. It is of the order of the tensor's own sum of squares unless its sums
 * cancel. Operands that the tensors are not linear in count as far as rounding them to f32 would
 * matter at this tolerance, and on a GPU (on_gpu) as far as functions may be off there: exp(x) changes
 * by more than x does, but must not be computed worse. What integer products round off counts as far as
 * the ops after them carry it. */
enum itera_status itera_check_summed(struct itera_checker *checker,
                                     const struct itera_runner *reference, const int32_t *tensors,
                                     int n, double tolerance, bool on_gpu, double *summed);

/* Whether the globs name an op. */
bool itera_check_matches(const struct itera_checker *checker, const char *op);

/* The two kinds of checks of one case; false when the op has no such case. */
bool itera_check_forward(struct itera_checker *checker, enum itera_op_kind kind, int index);
bool itera_check_gradient(struct itera_checker *checker, enum itera_op_kind kind, int index);
/* The same of chains, numbered as in cases_chains.h. */
bool itera_check_chain(struct itera_checker *checker, int kind, int index);
bool itera_check_build_chain(struct itera_checker *checker, int kind, int index,
                             struct itera_case *c);
/* The reference's gradient (run, in `gradient`) of the n tensors wrt[] against finite differences
 * of its forward pass; seed and grads[] are the tensors of the gradient's program. */
void itera_check_differences(struct itera_checker *checker, enum itera_op_kind kind, int index,
                             const struct itera_runner *gradient, int32_t seed, int n,
                             const int32_t *wrt, const int32_t *grads,
                             struct itera_difference *out);

#endif
