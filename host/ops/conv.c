/* The causal depthwise convolution of state space mixers, and its gradient. */
#include <stdio.h>

#include "core/log.h"
#include "ops/op.h"
#include "program/autodiff.h"

#define MAX_TAPS 16

static enum itera_status expect_f32(const char *op, const char *operand,
                                    const struct itera_operand_shape *shape, int rank,
                                    const int64_t *dim)
{
    char what[64];

    snprintf(what, sizeof what, "%s: %s", op, operand);
    return itera_expect(what, shape, ITERA_F32, rank, dim);
}

static enum itera_status expect_conv(const char *op, const struct itera_attr *attr,
                                     const struct itera_operand_shape *x,
                                     const struct itera_operand_shape *weight,
                                     const struct itera_operand_shape *bias, int64_t *taps)
{
    static const int64_t any3[3] = {-1, -1, -1};
    int64_t channels, k;
    enum itera_status s;

    if (attr->act != ITERA_ACT_NONE && attr->act != ITERA_ACT_SILU)
        return itera_fail(ITERA_ERR_ARGUMENT, "%s: attr.act is %d, expected none or silu", op,
                          attr->act);
    s = expect_f32(op, "x", x, 3, any3);
    if (s)
        return s;
    channels = x->shape.dim[2];
    if (weight->shape.rank == 3)
        s = expect_f32(op, "weight", weight, 3, (int64_t[]){channels, 1, -1});
    else
        s = expect_f32(op, "weight", weight, 2, (int64_t[]){channels, -1});
    if (s)
        return s;
    k = itera_shape_cols(&weight->shape);
    if (k < 1 || k > MAX_TAPS)
        return itera_fail(ITERA_ERR_UNSUPPORTED, "%s: kernel width %lld, expected 1 to %d", op,
                          (long long)k, MAX_TAPS);
    if (bias)
        s = expect_f32(op, "bias", bias, 1, (int64_t[]){channels});
    *taps = k;
    return s;
}

/* causal_conv1d: y[t,c] = act(bias[c] + sum_k weight[c,k] x[t-K+1+k,c])
 *
 * x       (B, T, C); steps before the first are read from state, or are 0 without it
 * weight  (C, 1, K) as Conv1d stores it, or (C, K); 1 <= K <= 16
 * bias    (C), optional: 0
 * state   (B, C, K-1), optional: the K-1 inputs before the first step, oldest first; left holding
 *         the last K-1 inputs, also when T < K-1
 * y       (B, T, C), never the storage of x
 * attr.act: none or silu. All f32. Errors: ITERA_ERR_SHAPE, ITERA_ERR_UNSUPPORTED (K),
 * ITERA_ERR_ARGUMENT (act). */
static enum itera_status infer_causal_conv1d(const struct itera_attr *attr,
                                             const struct itera_operand_shape *const *in,
                                             struct itera_operand_shape *out)
{
    int64_t taps = 0;
    const int64_t *dim = in[0]->shape.dim;
    enum itera_status s = expect_conv("causal_conv1d", attr, in[0], in[1], in[2], &taps);

    if (!s && in[3])
        s = itera_expect("causal_conv1d: state", in[3], ITERA_F32, 3,
                         (int64_t[]){dim[0], dim[2], taps - 1});
    if (!s)
        itera_out(&out[0], ITERA_F32, 3, dim);
    return s;
}

static void cost_causal_conv1d(const struct itera_attr *attr,
                               const struct itera_operand_shape *const *in,
                               const struct itera_operand_shape *const *out,
                               struct itera_cost *cost)
{
    (void)out;
    cost->flops = (double)itera_shape_elements(&in[0]->shape) *
                  (2.0 * (double)itera_shape_cols(&in[1]->shape) + (in[2] ? 1.0 : 0.0) +
                   (attr->act == ITERA_ACT_SILU ? 3.0 : 0.0));
}

static void grad_causal_conv1d(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dy = itera_ad_of(ad, op->out[0]);

    if (dy == ITERA_NONE)
        return;
    if (op->in[3] != ITERA_NONE) {
        itera_ad_fail(ad, op, "the convolution carries a state between runs");
        return;
    }
    itera_ad_record(ad, ITERA_OP_causal_conv1d_bwd, &op->attr,
                    (int32_t[]){dy, op->in[0], op->in[1], op->in[2]},
                    (int32_t[]){op->in[0], op->in[1], op->in[2]});
}

const struct itera_op_def itera_op_causal_conv1d = {
    .infer = infer_causal_conv1d,
    .cost = cost_causal_conv1d,
    .grad = grad_causal_conv1d,
};

/* causal_conv1d_bwd: with p the value before act (computed again) and g = dy act'(p)
 *
 *   dx[t,c] = sum_k weight[c,k] g[t+K-1-k,c]       (g is 0 from T on)
 *   dweight[c,k] = sum_bt g[t,c] x[t-K+1+k,c]      dbias[c] = sum_bt g[t,c]
 *
 * dy, x (B, T, C), weight, bias as above -> dx, dweight, dbias with the dims of what they are
 * gradients of; dbias only with bias. */
static enum itera_status infer_causal_conv1d_bwd(const struct itera_attr *attr,
                                                 const struct itera_operand_shape *const *in,
                                                 struct itera_operand_shape *out)
{
    int64_t taps;
    enum itera_status s = expect_conv("causal_conv1d_bwd", attr, in[1], in[2], in[3], &taps);

    if (!s)
        s = itera_expect("causal_conv1d_bwd: dy", in[0], ITERA_F32, 3, in[1]->shape.dim);
    if (s)
        return s;
    itera_out(&out[0], ITERA_F32, 3, in[1]->shape.dim);
    itera_out(&out[1], ITERA_F32, in[2]->shape.rank, in[2]->shape.dim);
    itera_out(&out[2], ITERA_F32, 1, (int64_t[]){in[1]->shape.dim[2]});
    return ITERA_OK;
}

static void cost_causal_conv1d_bwd(const struct itera_attr *attr,
                                   const struct itera_operand_shape *const *in,
                                   const struct itera_operand_shape *const *out,
                                   struct itera_cost *cost)
{
    double taps = (double)itera_shape_cols(&in[2]->shape);

    (void)out;
    cost->flops = (double)itera_shape_elements(&in[1]->shape) *
                  (4.0 * taps + 1.0 + (attr->act == ITERA_ACT_SILU ? 2.0 * taps + 6.0 : 0.0));
}

const struct itera_op_def itera_op_causal_conv1d_bwd = {
    .infer = infer_causal_conv1d_bwd,
    .cost = cost_causal_conv1d_bwd,
};
