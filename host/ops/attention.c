/* Causal attention with grouped heads, and the rotary position embedding that goes with it. */
#include "ops/op.h"

#include <stdio.h>

#include "core/log.h"
#include "program/autodiff.h"

static const int64_t any[ITERA_MAX_RANK] = {-1, -1, -1, -1};

/* ---- rope: rotary position embedding ------------------------------------------------------------
 * For each head of width d and each pair (i, i + d/2), i < d/2, with the angle
 * phi = (start[b] + t) theta^(-2i/d):
 *
 *   y[i]       = x[i] cos phi - x[i + d/2] sin phi
 *   y[i + d/2] = x[i + d/2] cos phi + x[i] sin phi
 *
 * x      (batch, time, heads d) f32, d even
 * start  (batch) i32, the position of the first time step; absent: 0
 * y      like x; may be x's storage
 * attr   heads; scale = theta, 10000 when 0; inverse: phi is negated, which undoes the rotation and
 *        is its gradient.
 * Angles, cosines and sines in double, the rotation in f32 (double in the reference).
 * Errors: ITERA_ERR_SHAPE.
 * Source: Su et al. 2021 (RoFormer), equation 34, with the halves paired as GPT-NeoX does. */

static enum itera_status rope_infer(const struct itera_attr *attr,
                                    const struct itera_operand_shape *const *in,
                                    struct itera_operand_shape *out)
{
    enum itera_status status = itera_expect("rope: x", in[0], ITERA_F32, 3, any);
    if (status)
        return status;
    int64_t width = in[0]->shape.dim[2];
    if (attr->heads < 1 || width % attr->heads || width / attr->heads % 2)
        return itera_fail(ITERA_ERR_SHAPE,
                          "rope: %lld columns do not split into %d heads of an even width",
                          (long long)width, (int)attr->heads);
    if (in[1] && (status = itera_expect("rope: start", in[1], ITERA_I32, 1, in[0]->shape.dim)))
        return status;
    return itera_infer_same(attr, in, out);
}

static void rope_cost(const struct itera_attr *attr, const struct itera_operand_shape *const *in,
                      const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)out;
    const struct itera_shape *x = &in[0]->shape;
    /* Two products and a sum per element; angles once per position and pair. */
    cost->flops = 3.0 * (double)itera_shape_elements(x) +
                  3.0 * (double)itera_shape_rows(x) * (double)(x->dim[2] / attr->heads / 2);
}

static void rope_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dy = itera_ad_of(ad, op->out[0]);
    if (dy == ITERA_NONE)
        return;
    struct itera_attr attr = op->attr;
    attr.inverse = !attr.inverse;
    const int32_t in[] = {dy, op->in[1]};
    const int32_t of[] = {op->in[0]};
    itera_ad_record(ad, ITERA_OP_rope, &attr, in, of);
}

const struct itera_op_def itera_op_rope = {
    .infer = rope_infer,
    .cost = rope_cost,
    .grad = rope_grad,
    .inplace = 1,
};

/* ---- attention ----------------------------------------------------------------------------------
 * For head h, with its key and value head g = h / (heads / kv_heads) and position p(t):
 *
 *   y[t,h] = sum_j softmax_j(scale q[t,h] . k[j,g]) v[j,g],   0 <= j <= p(t)
 *
 * Without caches, p(t) = t and j runs over the rows of k and v. With caches, the new rows are first
 * stored at cache positions start[b] .. start[b] + time - 1, then p(t) = start[b] + t and j runs
 * over the cache.
 *
 * q         (batch, time, heads d) f32
 * k, v      (batch, time, kv_heads d) f32; q, k and v are mostly column views of one tensor
 * k_cache   (batch, positions, kv_heads d) f32, read and written; both caches or none
 * v_cache   like k_cache
 * start     (batch) i32, required with caches, absent without. Taken as 0 when negative; rows that
 *           would fall beyond the last cache position are not stored, and their queries attend to
 *           the whole cache.
 * y         like q; no operand's storage
 * lse       (batch, heads, time) f32: the log of the softmax's denominator, which the gradient
 *           needs; not produced in inference
 * attr      heads; kv_heads (0: heads), a divisor of heads; scale (0: 1 / sqrt(d))
 * Scores and sums in f32 (double in the reference), with the running maximum subtracted, so that
 * probabilities are never stored.
 * Errors: ITERA_ERR_SHAPE.
 * Source: Vaswani et al. 2017, equation 1; Ainslie et al. 2023 (grouped heads); Dao 2023
 * (FlashAttention-2), algorithms 1 and 2, for the blocking. */

static int32_t kv_heads_of(const struct itera_attr *attr)
{
    return attr->kv_heads ? attr->kv_heads : attr->heads;
}

/* The part of the shape rule that attention and its gradient share: q, k and v at in[0..2]. */
static enum itera_status expect_qkv(const char *name, const struct itera_attr *attr,
                                    const struct itera_operand_shape *const *in)
{
    char what[64];
    snprintf(what, sizeof what, "%s: q", name);
    enum itera_status status = itera_expect(what, in[0], ITERA_F32, 3, any);
    if (status)
        return status;
    const int64_t *q = in[0]->shape.dim;
    int32_t kv_heads = kv_heads_of(attr);
    if (attr->heads < 1 || q[2] % attr->heads)
        return itera_fail(ITERA_ERR_SHAPE, "%s: %lld columns do not split into %d heads", name,
                          (long long)q[2], (int)attr->heads);
    if (kv_heads < 1 || attr->heads % kv_heads)
        return itera_fail(ITERA_ERR_SHAPE, "%s: %d heads cannot share %d key and value heads", name,
                          (int)attr->heads, (int)kv_heads);
    const int64_t kv[] = {q[0], q[1], q[2] / attr->heads * kv_heads};
    snprintf(what, sizeof what, "%s: k", name);
    if ((status = itera_expect(what, in[1], ITERA_F32, 3, kv)))
        return status;
    snprintf(what, sizeof what, "%s: v", name);
    return itera_expect(what, in[2], ITERA_F32, 3, kv);
}

static enum itera_status attention_infer(const struct itera_attr *attr,
                                         const struct itera_operand_shape *const *in,
                                         struct itera_operand_shape *out)
{
    enum itera_status status = expect_qkv("attention", attr, in);
    if (status)
        return status;
    const int64_t *q = in[0]->shape.dim;
    if (!in[3] != !in[4] || !in[3] != !in[5])
        return itera_fail(ITERA_ERR_SHAPE,
                          "attention: k_cache, v_cache and start go together; give all or none");
    if (in[3]) {
        const int64_t cache[] = {q[0], -1, in[1]->shape.dim[2]};
        if ((status = itera_expect("attention: k_cache", in[3], ITERA_F32, 3, cache)) ||
            (status = itera_expect_same("attention: v_cache", in[3], in[4])) ||
            (status = itera_expect("attention: start", in[5], ITERA_I32, 1, q)))
            return status;
    }
    itera_out(&out[0], ITERA_F32, 3, q);
    const int64_t lse[] = {q[0], attr->heads, q[1]};
    itera_out(&out[1], ITERA_F32, 3, lse);
    return ITERA_OK;
}

/* Pairs of a query and a key that are looked at, over all heads. With a cache the position is not
 * known from the shapes: the cost is that of a full one. */
static double score_count(const struct itera_attr *attr, const struct itera_operand_shape *q,
                          const struct itera_operand_shape *cache)
{
    double batch = (double)q->shape.dim[0], time = (double)q->shape.dim[1];
    double pairs = cache ? time * (double)cache->shape.dim[1] : time * (time + 1) / 2;
    return batch * attr->heads * pairs;
}

static void attention_cost(const struct itera_attr *attr,
                           const struct itera_operand_shape *const *in,
                           const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)out;
    double d = (double)(in[0]->shape.dim[2] / attr->heads);
    /* Two dot products of d; scale, maximum, exponential and sum. */
    cost->flops = score_count(attr, in[0], in[3]) * (4 * d + 4);
    /* Caches are read; of what is written to them, there are only the new rows. */
    if (in[3])
        cost->bytes += 8.0 * ((double)itera_shape_elements(&in[1]->shape) -
                              (double)itera_shape_elements(&in[3]->shape));
}

static void attention_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dy = itera_ad_of(ad, op->out[0]);
    if (dy == ITERA_NONE)
        return;
    if (op->in[3] != ITERA_NONE) {
        itera_ad_fail(ad, op,
                      "it was recorded with a cache, whose earlier content has no gradient");
        return;
    }
    if (op->out[1] == ITERA_NONE) {
        itera_ad_fail(ad, op, "it was recorded for inference, without its output lse");
        return;
    }
    const int32_t in[] = {dy, op->in[0], op->in[1], op->in[2], op->out[0], op->out[1]};
    const int32_t of[] = {op->in[0], op->in[1], op->in[2]};
    itera_ad_record(ad, ITERA_OP_attention_bwd, &op->attr, in, of);
}

const struct itera_op_def itera_op_attention = {
    .infer = attention_infer,
    .cost = attention_cost,
    .grad = attention_grad,
};

/* ---- attention_bwd ------------------------------------------------------------------------------
 * With P[t,j] = exp(scale q[t] . k[j] - lse[t]) recomputed, and per head:
 *
 *   dv[j]   = sum_t P[t,j] dy[t]
 *   dS[t,j] = P[t,j] (dy[t] . v[j] - dy[t] . y[t]) scale
 *   dq[t]   = sum_j dS[t,j] k[j]
 *   dk[j]   = sum_t dS[t,j] q[t]
 *
 * dk and dv are summed over the heads that share a key and value head. The result does not depend
 * on the number of threads.
 *
 * dy, q, y    (batch, time, heads d) f32
 * k, v        (batch, time, kv_heads d) f32
 * lse         (batch, heads, time) f32, as attention gave it
 * dq, dk, dv  like q, k, v; mostly column views of one tensor; no operand's storage
 * attr        as for attention; no caches
 * Errors: ITERA_ERR_SHAPE. */

static enum itera_status attention_bwd_infer(const struct itera_attr *attr,
                                             const struct itera_operand_shape *const *in,
                                             struct itera_operand_shape *out)
{
    enum itera_status status = expect_qkv("attention_bwd", attr, in + 1);
    if (status)
        return status;
    const int64_t *q = in[1]->shape.dim;
    const int64_t lse[] = {q[0], attr->heads, q[1]};
    if ((status = itera_expect("attention_bwd: dy", in[0], ITERA_F32, 3, q)) ||
        (status = itera_expect("attention_bwd: y", in[4], ITERA_F32, 3, q)) ||
        (status = itera_expect("attention_bwd: lse", in[5], ITERA_F32, 3, lse)))
        return status;
    for (int i = 0; i < 3; i++)
        itera_out(&out[i], ITERA_F32, 3, in[1 + i]->shape.dim);
    return ITERA_OK;
}

static void attention_bwd_cost(const struct itera_attr *attr,
                               const struct itera_operand_shape *const *in,
                               const struct itera_operand_shape *const *out,
                               struct itera_cost *cost)
{
    (void)out;
    double d = (double)(in[1]->shape.dim[2] / attr->heads);
    cost->flops = score_count(attr, in[1], NULL) * (10 * d + 6);
}

const struct itera_op_def itera_op_attention_bwd = {
    .infer = attention_bwd_infer,
    .cost = attention_bwd_cost,
};
