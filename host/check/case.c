#include "check/case.h"

#include <math.h>
#include <stdio.h>

#include "check/trial.h"
#include "core/log.h"
#include "tensor/blocks.h"

static bool is_real(enum itera_fill fill)
{
    return fill == ITERA_FILL_NORMAL || fill == ITERA_FILL_UNIFORM || fill == ITERA_FILL_EXTREME ||
           fill == ITERA_FILL_SPECIAL;
}

int32_t itera_case_strided(struct itera_case *c, const char *name, int rank, const int64_t *dim,
                           int64_t padding, enum itera_fill fill, double a, double b)
{
    struct itera_program *p = c->program;
    if (c->n_inputs == ITERA_CASE_INPUTS) {
        if (!p->status)
            p->status = itera_fail(ITERA_ERR_LIMIT, "a parity case has more than %d inputs",
                                   ITERA_CASE_INPUTS);
        return ITERA_NONE;
    }
    int32_t id = itera_bound(p, name, is_real(fill) ? ITERA_F32 : ITERA_I32, rank, dim);
    if (id == ITERA_NONE)
        return id;
    p->tensors[id].shape.ld += padding;
    c->input[c->n_inputs].tensor = id;
    c->input[c->n_inputs].fill = fill;
    c->input[c->n_inputs].a = a;
    c->input[c->n_inputs].b = b;
    c->input[c->n_inputs].differentiate = is_real(fill);
    c->n_inputs++;
    return id;
}

int32_t itera_case_weights(struct itera_case *c, const char *name, int rank, const int64_t *dim,
                           int64_t padding, enum itera_dtype dtype, double a, double b)
{
    int32_t id =
        itera_case_strided(c, name, rank, dim, padding,
                           dtype == ITERA_F32 ? ITERA_FILL_NORMAL : ITERA_FILL_WEIGHTS, a, b);
    if (id != ITERA_NONE)
        c->program->tensors[id].dtype = dtype;
    return id;
}

int32_t itera_case_input(struct itera_case *c, const char *name, int rank, const int64_t *dim,
                         enum itera_fill fill, double a, double b)
{
    return itera_case_strided(c, name, rank, dim, 0, fill, a, b);
}

void itera_case_constant(struct itera_case *c, int32_t tensor)
{
    for (int i = 0; i < c->n_inputs; i++)
        if (c->input[i].tensor == tensor)
            c->input[i].differentiate = false;
}

int64_t itera_case_pick(struct itera_case *c, int64_t low, int64_t high)
{
    if (high <= low)
        return low;
    return low + (int64_t)itera_rng_below(&c->rng, (uint32_t)(high - low + 1));
}

int64_t itera_case_size(struct itera_case *c, int64_t high)
{
    /* Around the vector widths (4, 8, 16), their unrolled multiples, and the tiles of matmuls. */
    static const int16_t sizes[] = {
        1,  2,  3,  4,  5,  6,  7,  8,  9,  12,  13,  15,  16,  17,  23,  24,  31,  32,  33,  47,
        48, 49, 63, 64, 65, 79, 95, 96, 97, 127, 128, 129, 191, 193, 255, 256, 257, 383, 511, 513};
    int n = 0;
    while (n < (int)(sizeof sizes / sizeof *sizes) && sizes[n] <= high)
        n++;
    return n ? sizes[itera_rng_below(&c->rng, (uint32_t)n)] : 1;
}

static float real_value(struct itera_rng *rng, enum itera_fill fill, double a, double b)
{
    if (fill == ITERA_FILL_NORMAL)
        return (float)(a + b * itera_rng_normal(rng));
    if (fill == ITERA_FILL_UNIFORM)
        return (float)(a + (b - a) * itera_rng_uniform(rng));
    if (fill == ITERA_FILL_SPECIAL && itera_rng_below(rng, 1000) == 0)
        return itera_rng_below(rng, 2) ? NAN : copysignf(INFINITY, itera_rng_normal(rng));
    switch (itera_rng_below(rng, 10)) {
    case 0:
        return 0.0f;
    case 1:
        return -0.0f;
    case 2:
        return 1e-30f * itera_rng_normal(rng);
    case 3:
        return (float)(b * (2.0 * itera_rng_uniform(rng) - 1.0));
    case 4:
        return (float)(itera_rng_below(rng, 2) ? b : -b);
    default:
        return itera_rng_normal(rng);
    }
}

/* Uniform in [a, b). */
static int32_t index_value(struct itera_rng *rng, double a, double b)
{
    uint32_t n = b > a ? (uint32_t)(b - a) : 1;
    return (int32_t)((int64_t)a + itera_rng_below(rng, n ? n : 1));
}

/* k different values in [a, b), as far as there are that many. */
static void fill_experts(struct itera_rng *rng, double a, double b, int32_t *row, int64_t k)
{
    for (int64_t j = 0; j < k; j++) {
        bool again = true;
        while (again) {
            row[j] = index_value(rng, a, b);
            again = false;
            for (int64_t i = 0; (double)j < b - a && i < j; i++)
                again |= row[i] == row[j];
        }
    }
}

/* 0 = x[0] <= x[1] <= ... <= x[n - 1] = total, a third of the steps empty. */
static void fill_offsets(struct itera_rng *rng, double total, int32_t *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        /* Weights first, in place. */
        x[i] = i == 0 || itera_rng_below(rng, 3) == 0 ? 0 : 1 + (int32_t)itera_rng_below(rng, 1000);
        sum += x[i];
    }
    double so_far = 0;
    for (int64_t i = 0; i < n; i++) {
        so_far += x[i];
        x[i] = sum > 0 ? (int32_t)(total * (so_far / sum)) : 0;
    }
    if (n > 0)
        x[n - 1] = (int32_t)total;
}

void itera_trial_fill(enum itera_fill fill, double a, double b, struct itera_rng *rng, int64_t rows,
                      int64_t cols, int64_t ld, void *data)
{
    if (fill == ITERA_FILL_OFFSETS && rows == 1) {
        fill_offsets(rng, b, data, cols);
        return;
    }
    for (int64_t r = 0; r < rows; r++) {
        float *real = (float *)data + r * ld;
        int32_t *whole = (int32_t *)data + r * ld;
        if (fill == ITERA_FILL_EXPERTS) {
            fill_experts(rng, a, b, whole, cols);
            continue;
        }
        for (int64_t i = 0; i < cols; i++) {
            if (is_real(fill))
                real[i] = real_value(rng, fill, a, b);
            else if (fill == ITERA_FILL_BITS)
                whole[i] = (int32_t)itera_rng_u32(rng);
            else if (fill == ITERA_FILL_STEP)
                whole[i] = (int32_t)a;
            else if (fill == ITERA_FILL_IGNORE && itera_rng_below(rng, 4) == 0)
                whole[i] = -1;
            else
                whole[i] = index_value(rng, a, b);
        }
    }
}

/* Random values of every bit pattern that a file may hold: q8 has -128, too. */
static void fill_blocks(enum itera_dtype dtype, double b, struct itera_rng *rng, int64_t elements,
                        void *data)
{
    struct itera_blocks blocks = itera_blocks_at(dtype, data, elements, 0);
    const double step = b / (dtype == ITERA_Q8 ? 64 : 4); /* the values spread over twice that */
    for (int64_t i = 0; i < elements / ITERA_BLOCK * itera_block_bytes(dtype); i++)
        blocks.bytes[i] = (uint8_t)itera_rng_u32(rng);
    for (int64_t i = 0; i < elements / ITERA_BLOCK; i++) {
        double sign = itera_rng_below(rng, 2) ? 1 : -1;
        double size = itera_rng_below(rng, 16) ? 0.5 + (double)itera_rng_uniform(rng) : 0;
        blocks.scales[i] = itera_f32_to_f16((float)(sign * size * step));
    }
}

void itera_trial_fill_weights(enum itera_dtype dtype, double a, double b, struct itera_rng *rng,
                              const struct itera_shape *shape, void *data)
{
    const int64_t rows = itera_shape_rows(shape), cols = itera_shape_cols(shape);
    if (itera_dtype_is_blocks(dtype)) {
        fill_blocks(dtype, b, rng, rows * cols, data);
        return;
    }
    uint16_t *half = data;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < cols; i++) {
            float x = real_value(rng, ITERA_FILL_NORMAL, a, b);
            half[r * shape->ld + i] =
                dtype == ITERA_F16 ? itera_f32_to_f16(x) : itera_f32_to_bf16(x);
        }
}

int32_t itera_case_half(struct itera_case *c, int32_t tensor)
{
    struct itera_attr attr = {.dtype = ITERA_F16};
    int32_t out = ITERA_NEW;
    itera_case_constant(c, tensor);
    return itera_record(c->program, ITERA_OP_cast, &attr, &tensor, &out);
}
