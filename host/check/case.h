/* How an op describes its random parity cases. Each forward op has one builder,
 * itera_case_<op>, in host/check/cases_<family>.c; gradient ops are reached by differentiating the
 * forward op's cases, and have none (cross-check: itera check --grad). */
#ifndef ITERA_CHECK_CASE_H
#define ITERA_CHECK_CASE_H

#include "core/rng.h"
#include "program/program.h"

enum itera_fill {
    ITERA_FILL_NORMAL,  /* a + b * standard normal */
    ITERA_FILL_UNIFORM, /* uniform in [a, b) */
    ITERA_FILL_EXTREME, /* normal, with some zeros, tiny and large values up to b in magnitude */
    ITERA_FILL_SPECIAL, /* the same, a few of them infinite or not a number */
    ITERA_FILL_INDEX,   /* int32 uniform in [a, b) */
    ITERA_FILL_IGNORE,  /* int32 uniform in [a, b), some of them -1 */
    ITERA_FILL_EXPERTS, /* int32 (rows, k): k different values in [a, b) per row */
    ITERA_FILL_OFFSETS, /* int32 (n + 1): rising from 0 to b, some groups empty */
    ITERA_FILL_BITS,    /* int32: random bits */
    ITERA_FILL_STEP,    /* int32: all equal to a */
    ITERA_FILL_WEIGHTS, /* any weight type: a + b * standard normal, rounded to it */
};

#define ITERA_CASE_INPUTS 16

struct itera_case {
    struct itera_program *program; /* created by the harness; the builder records into it */
    struct itera_rng rng;          /* for the builder's choices of shapes and attributes */
    int index;                     /* which case: 0, 1, 2, ... the first ones cover named shapes */
    char label[96];                /* the builder says what is special: "rows=7 cols=65 in place" */
    int n_inputs;
    struct {
        int32_t tensor;
        enum itera_fill fill;
        double a, b;
        bool differentiate; /* f32: its gradient is checked */
    } input[ITERA_CASE_INPUTS];
};

/* A bound input of the case. f32 for NORMAL, UNIFORM, EXTREME, SPECIAL, else i32; differentiated if f32. */
int32_t itera_case_input(struct itera_case *c, const char *name, int rank, const int64_t *dim,
                         enum itera_fill fill, double a, double b);
/* The same, but laid out with padding between rows (ld > columns): a column view of a wider tensor.
 */
int32_t itera_case_strided(struct itera_case *c, const char *name, int rank, const int64_t *dim,
                           int64_t padding, enum itera_fill fill, double a, double b);
/* Weights of a given type, f32 included: ITERA_FILL_WEIGHTS. Not differentiated unless f32; padding
 * must be 0 for block types. */
int32_t itera_case_weights(struct itera_case *c, const char *name, int rank, const int64_t *dim,
                           int64_t padding, enum itera_dtype dtype, double a, double b);
/* Takes the tensor out of the gradient check (the fill is not differentiable there). */
void itera_case_constant(struct itera_case *c, int32_t tensor);
/* The tensor rounded to f16, as an activation. The case is then not differentiable in it. */
int32_t itera_case_half(struct itera_case *c, int32_t tensor);
/* Uniform choice in [low, high]. */
int64_t itera_case_pick(struct itera_case *c, int64_t low, int64_t high);
/* A size that tends to be awkward: 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65 ... <= high. */
int64_t itera_case_size(struct itera_case *c, int64_t high);

/* Builder: records inputs and the op (the last op recorded is the one under test; all its outputs
 * and its in-place operands are compared). Returns false when there is no case of this index (each
 * op has at least 6). Builders must cover: odd sizes, one off the tile, every optional operand
 * absent and present, every attribute value, strided inputs, extreme values; small enough that a
 * case takes the scalar reference well below 50 ms. */
typedef bool itera_case_fn(struct itera_case *c);

#endif
