/* A program: a flat list of ops over tensors, for one phase and one shape. Models record it; it is
 * then differentiated (autodiff.h), fused (fuse.h), planned (plan.h), and compiled by a backend. */
#ifndef ITERA_PROGRAM_PROGRAM_H
#define ITERA_PROGRAM_PROGRAM_H

#include "core/arena.h"
#include "ops/op.h"

enum itera_tensor_kind {
    ITERA_ACTIVATION, /* lives in the program's own memory, at an offset chosen by the plan */
    ITERA_BOUND,      /* lives in a buffer that the caller names when compiling: weights, inputs,
                         states, outputs to read back */
};

struct itera_tensor {
    enum itera_dtype dtype;
    enum itera_tensor_kind kind;
    struct itera_shape shape;
    int32_t base;     /* itself, or the tensor that this one is a view of (never a view itself) */
    int64_t offset;   /* elements from the base's first */
    const char *name; /* for messages and profiles; may be NULL for activations */
};

struct itera_program {
    struct itera_arena *arena;
    struct itera_tensor *tensors;
    int32_t n_tensors, cap_tensors;
    struct itera_op *ops;
    int32_t n_ops, cap_ops;
    enum itera_part part;     /* given to the ops recorded from now on */
    enum itera_status status; /* the first error of recording; later calls do nothing */
};

enum itera_status itera_program_create(struct itera_program **out);
void itera_program_destroy(struct itera_program **program);

/* Recording. Every function returns a tensor id, or ITERA_NONE after an error, which stays in
 * program->status; ids may be passed on without checks, and the status looked at once at the end.
 */

/* A bound tensor. `name` is copied. */
int32_t itera_bound(struct itera_program *p, const char *name, enum itera_dtype dtype, int rank,
                    const int64_t *dim);
/* An activation that no op has written yet. */
int32_t itera_activation(struct itera_program *p, enum itera_dtype dtype, int rank,
                         const int64_t *dim);
/* A view of columns [start, start + count) of x. */
int32_t itera_view_cols(struct itera_program *p, int32_t x, int64_t start, int64_t count);
/* x (B, T, C) -> its last time step as (B, C). */
int32_t itera_view_last(struct itera_program *p, int32_t x);
/* The same elements under other dims. The last dim must stay, unless x is contiguous. */
int32_t itera_view_dims(struct itera_program *p, int32_t x, int rank, const int64_t *dim);

/* Appends an op. in[] and out[] have info->n_in and n_out entries; an output is ITERA_NEW (create
 * an activation), ITERA_NONE (optional and not wanted) or an existing tensor that fits. On return
 * out[] holds the ids. attr may be NULL. Returns out[0] (or ITERA_NONE). */
int32_t itera_record(struct itera_program *p, enum itera_op_kind kind,
                     const struct itera_attr *attr, const int32_t *in, int32_t *out);

/* Cost of one recorded op, and of the program by part (parts may be NULL). */
struct itera_cost itera_op_cost(const struct itera_program *p, const struct itera_op *op);
struct itera_cost itera_program_cost(const struct itera_program *p,
                                     struct itera_cost parts[ITERA_PART_COUNT]);

/* One op a line: name, operands with shapes, attributes that are set. For debugging and `info`. */
char *itera_program_text(const struct itera_program *p); /* free with free() */

static inline const struct itera_tensor *itera_tensor_at(const struct itera_program *p, int32_t id)
{
    return &p->tensors[id];
}

#endif
