/* Losses. Errors are ITERA_ERR_SHAPE unless said otherwise. */
#include "core/log.h"
#include "ops/op.h"
#include "program/autodiff.h"

static const int64_t any[ITERA_MAX_RANK] = {-1, -1, -1, -1};
static const int64_t one = 1;

static double elements(const struct itera_operand_shape *operand)
{
    return (double)itera_shape_elements(&operand->shape);
}

static enum itera_status expect_logits(const char *what, const struct itera_operand_shape *logits)
{
    if (logits->shape.rank < 1 || itera_shape_cols(&logits->shape) < 1)
        return itera_fail(ITERA_ERR_SHAPE, "%s has no classes", what);
    return itera_expect(what, logits, ITERA_F32, logits->shape.rank, any);
}

/* One target for each row of logits. */
static enum itera_status expect_targets(const char *what, const struct itera_operand_shape *logits,
                                        const struct itera_operand_shape *targets)
{
    if (targets->dtype == ITERA_I32 &&
        itera_shape_elements(&targets->shape) == itera_shape_rows(&logits->shape))
        return ITERA_OK;
    char found[96], of[96];
    return itera_fail(ITERA_ERR_SHAPE, "%s is %s %s, expected an i32 for each row of logits %s",
                      what, itera_dtype_name(targets->dtype),
                      itera_shape_text(&targets->shape, found, sizeof found),
                      itera_shape_text(&logits->shape, of, sizeof of));
}

/* loss = mean over counted rows of lse[r] - logits[r, targets[r]], lse = ln sum exp(logits[r, :]).
 *
 * logits  (..., V) f32; a row is any leading index, R in all
 * targets i32, R of them; a row whose target is not in [0, V), such as -1, is ignored
 * loss    (1) f32; 0 when no row counts; summed in double in the order of rows
 * lse     (R) f32
 * Probabilities are never stored. */
static enum itera_status cross_entropy_infer(const struct itera_attr *attr,
                                             const struct itera_operand_shape *const *in,
                                             struct itera_operand_shape *out)
{
    (void)attr;
    enum itera_status status = expect_logits("cross_entropy: logits", in[0]);
    if (!status)
        status = expect_targets("cross_entropy: targets", in[0], in[1]);
    if (status)
        return status;
    int64_t rows = itera_shape_rows(&in[0]->shape);
    itera_out(&out[0], ITERA_F32, 1, &one);
    itera_out(&out[1], ITERA_F32, 1, &rows);
    return ITERA_OK;
}
static void cross_entropy_cost(const struct itera_attr *attr,
                               const struct itera_operand_shape *const *in,
                               const struct itera_operand_shape *const *out,
                               struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 4.0 * elements(in[0]);
}
static void cross_entropy_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dloss = itera_ad_of(ad, op->out[0]);
    if (itera_ad_of(ad, op->out[1]) != ITERA_NONE) {
        itera_ad_fail(ad, op, "only its loss has a gradient, not lse");
        return;
    }
    int32_t in[] = {dloss, op->in[0], op->in[1], op->out[1]}, of[] = {op->in[0]};
    itera_ad_record(ad, ITERA_OP_cross_entropy_bwd, NULL, in, of);
}
const struct itera_op_def itera_op_cross_entropy = {
    .infer = cross_entropy_infer, .cost = cross_entropy_cost, .grad = cross_entropy_grad};

/* dlogits[r, v] = dloss / counted (exp(logits[r, v] - lse[r]) - [v = targets[r]]), 0 in ignored
 * rows. dlogits may be logits. */
static enum itera_status cross_entropy_bwd_infer(const struct itera_attr *attr,
                                                 const struct itera_operand_shape *const *in,
                                                 struct itera_operand_shape *out)
{
    enum itera_status status = expect_logits("cross_entropy_bwd: logits", in[1]);
    if (!status)
        status = itera_expect("cross_entropy_bwd: dloss", in[0], ITERA_F32, 1, &one);
    if (!status)
        status = expect_targets("cross_entropy_bwd: targets", in[1], in[2]);
    int64_t rows = itera_shape_rows(&in[1]->shape);
    if (!status)
        status = itera_expect("cross_entropy_bwd: lse", in[3], ITERA_F32, 1, &rows);
    return status ? status : itera_infer_same(attr, in + 1, out);
}
static void cross_entropy_bwd_cost(const struct itera_attr *attr,
                                   const struct itera_operand_shape *const *in,
                                   const struct itera_operand_shape *const *out,
                                   struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 3.0 * elements(in[1]);
}
const struct itera_op_def itera_op_cross_entropy_bwd = {
    .infer = cross_entropy_bwd_infer, .cost = cross_entropy_bwd_cost, .inplace = 2};

static enum itera_status expect_temperature(const char *op, const struct itera_attr *attr)
{
    if (attr->scale > 0.0f && attr->scale < 1e6f)
        return ITERA_OK;
    return itera_fail(ITERA_ERR_ARGUMENT,
                      "%s: the temperature (scale) is %g, expected above 0 and below 1e6", op,
                      (double)attr->scale);
}

/* loss = T^2 mean over rows of sum_v p[v] (ln p[v] - ln q[v]), p = softmax(teacher / T),
 * q = softmax(student / T), T = attr.scale. T^2 keeps the gradient's size (Hinton, Vinyals, Dean
 * 2015, section 2).
 *
 * student, teacher (..., V) f32, finite; loss (1) f32, 0 without rows
 * The teacher is a constant: it has no gradient. */
static enum itera_status kl_loss_infer(const struct itera_attr *attr,
                                       const struct itera_operand_shape *const *in,
                                       struct itera_operand_shape *out)
{
    enum itera_status status = expect_logits("kl_loss: student", in[0]);
    if (!status)
        status = itera_expect_same("kl_loss: teacher", in[0], in[1]);
    if (!status)
        status = expect_temperature("kl_loss", attr);
    if (status)
        return status;
    itera_out(&out[0], ITERA_F32, 1, &one);
    return ITERA_OK;
}
static void kl_loss_cost(const struct itera_attr *attr, const struct itera_operand_shape *const *in,
                         const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 10.0 * elements(in[0]);
}
static void kl_loss_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    if (itera_ad_wants(ad, op->in[1])) {
        itera_ad_fail(ad, op, "the teacher's logits have no gradient");
        return;
    }
    int32_t in[] = {itera_ad_of(ad, op->out[0]), op->in[0], op->in[1]}, of[] = {op->in[0]};
    itera_ad_record(ad, ITERA_OP_kl_loss_bwd, &op->attr, in, of);
}
const struct itera_op_def itera_op_kl_loss = {
    .infer = kl_loss_infer, .cost = kl_loss_cost, .grad = kl_loss_grad};

/* dstudent = dloss T / rows (q - p); it may be the student's logits. */
static enum itera_status kl_loss_bwd_infer(const struct itera_attr *attr,
                                           const struct itera_operand_shape *const *in,
                                           struct itera_operand_shape *out)
{
    enum itera_status status = expect_logits("kl_loss_bwd: student", in[1]);
    if (!status)
        status = itera_expect("kl_loss_bwd: dloss", in[0], ITERA_F32, 1, &one);
    if (!status)
        status = itera_expect_same("kl_loss_bwd: teacher", in[1], in[2]);
    if (!status)
        status = expect_temperature("kl_loss_bwd", attr);
    return status ? status : itera_infer_same(attr, in + 1, out);
}
static void kl_loss_bwd_cost(const struct itera_attr *attr,
                             const struct itera_operand_shape *const *in,
                             const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 12.0 * elements(in[1]);
}
const struct itera_op_def itera_op_kl_loss_bwd = {
    .infer = kl_loss_bwd_infer, .cost = kl_loss_bwd_cost, .inplace = 2};
