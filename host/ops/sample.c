/* Sampling a token, and moving positions on: what ends a decode step. */
#include "ops/op.h"

/* ---- sample -------------------------------------------------------------------------------------
 * One token per row of logits. With temperature <= 0 (or NaN): the first of the largest logits.
 * Otherwise, in this order:
 *
 *   1. p = softmax(logits / temperature); gap > 0: only logits of at least (the largest - gap), in f32,
 *      stay (none is left out where that is NaN)
 *   2. top_k >= 1: only the top_k largest stay (of equal logits the lower ids)
 *   3. top_p < 1: of these, renormalised, only the shortest run from the largest down whose sum
 *      reaches top_p; at least one token
 *   4. the draw: u uniform in [0, 1); the first token in the order of ids whose cumulative
 *      probability (renormalised) exceeds u
 *
 * A NaN logit is never chosen; when all are NaN the token is 0. Infinite logits count as equal to
 * each other.
 *
 * logits  (batch, vocabulary) f32
 * params  (batch, 4) f32: temperature, top_k (below 1, NaN, or the vocabulary and more: all), top_p
 *         (1 and more, or NaN: all), gap (0 and below, or NaN: all; -temperature ln(min_p) leaves out
 *         what is less likely than min_p times the likeliest)
 * rng     (batch, 4) i32: seed (low, high), counter, unused. u is the 32-bit value number `counter`
 *         of stream 0 of the seed, its upper 24 bits; the counter is read as unsigned and becomes
 *         counter + 1, also when nothing is drawn.
 * token   (batch) i32
 * Weights and sums in double wherever f32 could change the token: the fast kernels give the
 * reference's tokens.
 * Errors: ITERA_ERR_SHAPE.
 * Source: Holtzman et al. 2020 (top-p). */

static enum itera_status sample_infer(const struct itera_attr *attr,
                                      const struct itera_operand_shape *const *in,
                                      struct itera_operand_shape *out)
{
    (void)attr;
    const int64_t any[] = {-1, -1};
    enum itera_status status = itera_expect("sample: logits", in[0], ITERA_F32, 2, any);
    if (status)
        return status;
    const int64_t four[] = {in[0]->shape.dim[0], 4};
    if ((status = itera_expect("sample: params", in[1], ITERA_F32, 2, four)) ||
        (status = itera_expect("sample: rng", in[2], ITERA_I32, 2, four)))
        return status;
    itera_out(&out[0], ITERA_I32, 1, in[0]->shape.dim);
    return ITERA_OK;
}

static void sample_cost(const struct itera_attr *attr, const struct itera_operand_shape *const *in,
                        const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    /* The maximum, the exponential and its sum. */
    cost->flops = 3.0 * (double)itera_shape_elements(&in[0]->shape);
}

const struct itera_op_def itera_op_sample = {
    .infer = sample_infer,
    .cost = sample_cost,
};

/* ---- advance ------------------------------------------------------------------------------------
 * start[b] += attr.count, held at the largest int32.
 *
 * start  (batch) i32, read and written: the position that the next step begins at
 * attr   count */

static enum itera_status advance_infer(const struct itera_attr *attr,
                                       const struct itera_operand_shape *const *in,
                                       struct itera_operand_shape *out)
{
    (void)attr;
    (void)out;
    const int64_t any[] = {-1};
    return itera_expect("advance: start", in[0], ITERA_I32, 1, any);
}

const struct itera_op_def itera_op_advance = {
    .infer = advance_infer,
};
