/* One parity trial: a recorded program, the memory image of every bound tensor with guard bands
 * around it, runs of it on devices, and the comparison of what they leave behind. */
#ifndef ITERA_CHECK_TRIAL_H
#define ITERA_CHECK_TRIAL_H

#include "backend/backend.h"
#include "check/case.h"

/* What outputs and guards hold before a run: a quiet NaN that no computation makes by itself. */
#define ITERA_TRIAL_PATTERN 0x7fedbeefu

/* The memory of one bound tensor. */
struct itera_trial_slot {
    int32_t tensor;
    size_t bytes;  /* of the buffer, guards included */
    size_t offset; /* of the tensor's first element */
    uint8_t *initial;
    int32_t alias; /* slot whose buffer this one shares (in place); -1: its own */
};

struct itera_trial {
    const struct itera_program *program;
    struct itera_trial_slot *slots;
    int n_slots;
    int32_t *slot_of; /* per tensor id; -1 when it is no bound base */
};

/* How far a result is from the reference. */
struct itera_difference {
    double max_abs, max_rel, nmse;
    char reason[256]; /* "" when within the tolerance */
};

/* Fills a matrix of f32 or i32; see enum itera_fill. Padding between rows is left alone. */
void itera_trial_fill(enum itera_fill fill, double a, double b, struct itera_rng *rng, int64_t rows,
                      int64_t cols, int64_t ld, void *data);

/* Fills a tensor of a narrow weight type: ITERA_FILL_WEIGHTS. */
void itera_trial_fill_weights(enum itera_dtype dtype, double a, double b, struct itera_rng *rng,
                              const struct itera_shape *shape, void *data);

/* Lays out every bound tensor, everything filled with the pattern. `shift` (0 to 15 elements)
 * moves the tensors off the alignment of their buffers. The program must outlive the trial. */
enum itera_status itera_trial_create(const struct itera_program *program, int shift,
                                     struct itera_trial *out);
void itera_trial_destroy(struct itera_trial *trial); /* leaves it empty */
/* Another trial of the same program with the same layout, contents and aliases. */
enum itera_status itera_trial_copy(const struct itera_trial *trial, struct itera_trial *out);
/* Gives a copy its first contents again. */
void itera_trial_reset(struct itera_trial *copy, const struct itera_trial *trial);
/* The initial content of a bound tensor (element 0), or NULL. */
void *itera_trial_data(const struct itera_trial *trial, int32_t tensor);
/* Binds `tensor` to the very storage of `input`: both must be bound, with the same layout. */
void itera_trial_alias(struct itera_trial *trial, int32_t tensor, int32_t input);

/* A trial compiled on a device, with its buffers. */
struct itera_runner {
    const struct itera_trial *trial;
    struct itera_device *device;
    struct itera_buffer **buffers;
    struct itera_executable *executable;
    uint8_t **results; /* per slot: what a run left in its buffer */
};

/* Options and result are those of itera_compile. */
enum itera_status itera_runner_create(const struct itera_trial *trial, struct itera_device *device,
                                      const struct itera_compile_options *options,
                                      struct itera_compile_result *result,
                                      struct itera_runner *out);
void itera_runner_destroy(struct itera_runner *runner); /* leaves it empty */
/* Uploads the initial content, runs, downloads the results. */
enum itera_status itera_runner_run(struct itera_runner *runner);
/* Runs again from the same initial content; a reason when the results differ in any bit. */
void itera_runner_repeat(struct itera_runner *runner, struct itera_difference *out);
/* Element 0 of a tensor (which may be a view) in the results. */
const void *itera_runner_data(const struct itera_runner *runner, int32_t tensor);

/* Compares the n tensors of `runner` with those of `reference` (two runs of programs with the same
 * tensor ids) and checks that nothing else changed in the runner's buffers. The first violation
 * ends up in reason. An error is measured by the size of the reference's tensor, or where that is
 * larger by summed[i] (itera_check_summed); NULL: by the former. */
void itera_trial_compare(const struct itera_runner *runner, const struct itera_runner *reference,
                         const int32_t *tensors, int n, double tolerance, const double *summed,
                         struct itera_difference *out);
/* Whether a run wrote nothing but the n tensors, and all of their elements. */
void itera_trial_check_writes(const struct itera_runner *runner, const int32_t *tensors, int n,
                              const bool *must_write, struct itera_difference *out);

#endif
