/* Normalisations over the last dimension. All operands f32, any ld; errors are ITERA_ERR_SHAPE.
 * What a gradient needs of the forward pass (mean, rstd = 1 / sqrt(variance + eps)) is a small
 * optional output, absent in inference. */
#include "core/log.h"
#include "ops/op.h"
#include "program/autodiff.h"

static const int64_t any[ITERA_MAX_RANK] = {-1, -1, -1, -1};

static int64_t elements(const struct itera_operand_shape *operand)
{
    return itera_shape_elements(&operand->shape);
}

static void set_matrix(struct itera_operand_shape *out, int64_t rows, int64_t cols)
{
    int64_t dim[] = {rows, cols};
    itera_out(out, ITERA_F32, 2, dim);
}

/* x (..., C), C >= 1, and a weight of C. */
static enum itera_status expect_x_weight(const char *what_x, const struct itera_operand_shape *x,
                                         const char *what_weight,
                                         const struct itera_operand_shape *weight)
{
    if (x->shape.rank < 1 || itera_shape_cols(&x->shape) < 1)
        return itera_fail(ITERA_ERR_SHAPE, "%s has no channels to normalise", what_x);
    enum itera_status status = itera_expect(what_x, x, ITERA_F32, x->shape.rank, any);
    int64_t channels = itera_shape_cols(&x->shape);
    return status ? status : itera_expect(what_weight, weight, ITERA_F32, 1, &channels);
}

static void cost_norm(const struct itera_attr *attr, const struct itera_operand_shape *const *in,
                      const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 7.0 * (double)elements(in[0]);
}
static void cost_norm_bwd(const struct itera_attr *attr,
                          const struct itera_operand_shape *const *in,
                          const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 14.0 * (double)elements(in[0]);
}

/* y = (x - mean) rstd o weight + bias, with the biased variance of each row, in two passes.
 *
 * x, y   (..., C); y may be x
 * weight, bias (C)
 * stats? (rows, 2): mean, rstd
 * attr.eps is added to the variance.
 * Source: Ba, Kiros, Hinton 2016. */
static enum itera_status layer_norm_infer(const struct itera_attr *attr,
                                          const struct itera_operand_shape *const *in,
                                          struct itera_operand_shape *out)
{
    enum itera_status status = expect_x_weight("layer_norm: x", in[0], "layer_norm: weight", in[1]);
    if (!status)
        status = itera_expect_same("layer_norm: bias", in[1], in[2]);
    if (status)
        return status;
    set_matrix(&out[1], itera_shape_rows(&in[0]->shape), 2);
    return itera_infer_same(attr, in, out);
}
static void layer_norm_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    if (op->out[1] == ITERA_NONE) {
        itera_ad_fail(ad, op, "it was recorded without stats");
        return;
    }
    int32_t in[] = {itera_ad_of(ad, op->out[0]), op->in[0], op->in[1], op->out[1]};
    int32_t of[] = {op->in[0], op->in[1], op->in[2]};
    itera_ad_record(ad, ITERA_OP_layer_norm_bwd, &op->attr, in, of);
}
const struct itera_op_def itera_op_layer_norm = {
    .infer = layer_norm_infer, .cost = cost_norm, .grad = layer_norm_grad, .inplace = 1};

/* With n = (x - mean) rstd and g = dy o weight:
 * dx = rstd (g - mean(g) - n mean(g o n)), dweight = sum over rows of dy o n, dbias = of dy.
 * dx may be dy. The sums are f32, by thread and then over threads in order: the same for the same
 * number of threads. */
static enum itera_status layer_norm_bwd_infer(const struct itera_attr *attr,
                                              const struct itera_operand_shape *const *in,
                                              struct itera_operand_shape *out)
{
    enum itera_status status =
        expect_x_weight("layer_norm_bwd: x", in[1], "layer_norm_bwd: weight", in[2]);
    if (!status)
        status = itera_expect_same("layer_norm_bwd: dy", in[1], in[0]);
    if (status)
        return status;
    int64_t stats[] = {itera_shape_rows(&in[1]->shape), 2};
    status = itera_expect("layer_norm_bwd: stats", in[3], ITERA_F32, 2, stats);
    if (status)
        return status;
    itera_out(&out[1], ITERA_F32, 1, in[2]->shape.dim);
    out[2] = out[1];
    return itera_infer_same(attr, in, out);
}
const struct itera_op_def itera_op_layer_norm_bwd = {
    .infer = layer_norm_bwd_infer, .cost = cost_norm_bwd, .inplace = 1};

/* y = x rstd o weight, rstd = 1 / sqrt(mean(x^2) + eps).
 *
 * x, y (..., C); y may be x
 * weight (C)
 * rstd? (rows, 1)
 * Source: Zhang & Sennrich 2019. */
static enum itera_status rms_norm_infer(const struct itera_attr *attr,
                                        const struct itera_operand_shape *const *in,
                                        struct itera_operand_shape *out)
{
    enum itera_status status = expect_x_weight("rms_norm: x", in[0], "rms_norm: weight", in[1]);
    if (status)
        return status;
    set_matrix(&out[1], itera_shape_rows(&in[0]->shape), 1);
    return itera_infer_same(attr, in, out);
}
static void rms_norm_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    if (op->out[1] == ITERA_NONE) {
        itera_ad_fail(ad, op, "it was recorded without rstd");
        return;
    }
    int32_t in[] = {itera_ad_of(ad, op->out[0]), op->in[0], op->in[1], op->out[1]};
    int32_t of[] = {op->in[0], op->in[1]};
    itera_ad_record(ad, ITERA_OP_rms_norm_bwd, &op->attr, in, of);
}
const struct itera_op_def itera_op_rms_norm = {
    .infer = rms_norm_infer, .cost = cost_norm, .grad = rms_norm_grad, .inplace = 1};

/* With n = x rstd and g = dy o weight: dx = rstd (g - n mean(g o n)), dweight = sum over rows of
 * dy o n, as in layer_norm_bwd. dx may be dy. */
static enum itera_status rms_norm_bwd_infer(const struct itera_attr *attr,
                                            const struct itera_operand_shape *const *in,
                                            struct itera_operand_shape *out)
{
    enum itera_status status =
        expect_x_weight("rms_norm_bwd: x", in[1], "rms_norm_bwd: weight", in[2]);
    if (!status)
        status = itera_expect_same("rms_norm_bwd: dy", in[1], in[0]);
    if (status)
        return status;
    int64_t rstd[] = {itera_shape_rows(&in[1]->shape), 1};
    status = itera_expect("rms_norm_bwd: rstd", in[3], ITERA_F32, 2, rstd);
    if (status)
        return status;
    itera_out(&out[1], ITERA_F32, 1, in[2]->shape.dim);
    return itera_infer_same(attr, in, out);
}
const struct itera_op_def itera_op_rms_norm_bwd = {
    .infer = rms_norm_bwd_infer, .cost = cost_norm_bwd, .inplace = 1};

/* Groups of channels, each normalised by itself; 0 stands for 1. */
static enum itera_status count_groups(const char *op, const struct itera_attr *attr,
                                      const struct itera_operand_shape *x, int64_t *groups)
{
    *groups = attr->groups ? attr->groups : 1;
    int64_t channels = itera_shape_cols(&x->shape);
    if (*groups > 0 && channels % *groups == 0)
        return ITERA_OK;
    return itera_fail(ITERA_ERR_SHAPE, "%s: %lld channels cannot be split into %lld groups", op,
                      (long long)channels, (long long)*groups);
}

/* g = x silu(z); y = g rstd o weight, rstd = 1 / sqrt(mean over the group of g^2 + eps).
 *
 * x, z, y (..., C); y may be x
 * weight (C)
 * rstd? (rows, groups), groups = attr.groups or 1
 * Source: Dao & Gu 2024 (Mamba-2), section 7. */
static enum itera_status gated_rms_norm_infer(const struct itera_attr *attr,
                                              const struct itera_operand_shape *const *in,
                                              struct itera_operand_shape *out)
{
    int64_t groups;
    enum itera_status status =
        expect_x_weight("gated_rms_norm: x", in[0], "gated_rms_norm: weight", in[2]);
    if (!status)
        status = itera_expect_same("gated_rms_norm: z", in[0], in[1]);
    if (!status)
        status = count_groups("gated_rms_norm", attr, in[0], &groups);
    if (status)
        return status;
    set_matrix(&out[1], itera_shape_rows(&in[0]->shape), groups);
    return itera_infer_same(attr, in, out);
}
static void cost_gated(const struct itera_attr *attr, const struct itera_operand_shape *const *in,
                       const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 9.0 * (double)elements(in[0]);
}
static void gated_rms_norm_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    if (op->out[1] == ITERA_NONE) {
        itera_ad_fail(ad, op, "it was recorded without rstd");
        return;
    }
    int32_t in[] = {itera_ad_of(ad, op->out[0]), op->in[0], op->in[1], op->in[2], op->out[1]};
    int32_t of[] = {op->in[0], op->in[1], op->in[2]};
    itera_ad_record(ad, ITERA_OP_gated_rms_norm_bwd, &op->attr, in, of);
}
const struct itera_op_def itera_op_gated_rms_norm = {
    .infer = gated_rms_norm_infer, .cost = cost_gated, .grad = gated_rms_norm_grad, .inplace = 1};

/* dg as dx of rms_norm_bwd, by group; dx = dg silu(z), dz = dg x silu'(z). dx may be dy. */
static enum itera_status gated_rms_norm_bwd_infer(const struct itera_attr *attr,
                                                  const struct itera_operand_shape *const *in,
                                                  struct itera_operand_shape *out)
{
    int64_t groups;
    enum itera_status status =
        expect_x_weight("gated_rms_norm_bwd: x", in[1], "gated_rms_norm_bwd: weight", in[3]);
    if (!status)
        status = itera_expect_same("gated_rms_norm_bwd: dy", in[1], in[0]);
    if (!status)
        status = itera_expect_same("gated_rms_norm_bwd: z", in[1], in[2]);
    if (!status)
        status = count_groups("gated_rms_norm_bwd", attr, in[1], &groups);
    if (status)
        return status;
    int64_t rstd[] = {itera_shape_rows(&in[1]->shape), groups};
    status = itera_expect("gated_rms_norm_bwd: rstd", in[4], ITERA_F32, 2, rstd);
    if (status)
        return status;
    itera_infer_same(attr, in, out);
    out[1] = out[0];
    itera_out(&out[2], ITERA_F32, 1, in[3]->shape.dim);
    return ITERA_OK;
}
static void cost_gated_bwd(const struct itera_attr *attr,
                           const struct itera_operand_shape *const *in,
                           const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 22.0 * (double)elements(in[0]);
}
const struct itera_op_def itera_op_gated_rms_norm_bwd = {
    .infer = gated_rms_norm_bwd_infer, .cost = cost_gated_bwd, .inplace = 1};
