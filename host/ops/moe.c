/* Mixture of experts: routing, the sort of tokens by expert, the gather before the experts and the
 * combination after them, and the loss that balances their load.
 *
 * In all of these R is the number of rows (tokens): the product of the leading dims. k is the
 * number of experts per token and E the number of experts. An assignment is a pair of a token r and
 * a choice j < k, numbered r k + j; a slot is a place in the order sorted by expert. */
#include "ops/op.h"

#include <stdio.h>

#include "core/log.h"
#include "program/autodiff.h"

#define MAX_EXPERTS 256 /* kernels keep arrays of this size on the stack */

static const int64_t any[ITERA_MAX_RANK] = {-1, -1, -1, -1};

/* f32 of any rank >= 1. */
static enum itera_status expect_matrix(const char *what, const struct itera_operand_shape *x)
{
    if (x->shape.rank < 1)
        return itera_fail(ITERA_ERR_SHAPE, "%s is a scalar, expected a matrix", what);
    return itera_expect(what, x, ITERA_F32, x->shape.rank, any);
}

static enum itera_status expect_experts(const char *name, int64_t experts, int64_t k)
{
    if (experts < 1 || experts > MAX_EXPERTS)
        return itera_fail(ITERA_ERR_SHAPE, "%s: %lld experts, expected 1 to %d", name,
                          (long long)experts, MAX_EXPERTS);
    if (k < 1 || k > experts)
        return itera_fail(ITERA_ERR_SHAPE, "%s: cannot choose %lld of %lld experts", name,
                          (long long)k, (long long)experts);
    return ITERA_OK;
}

/* ---- moe_route ----------------------------------------------------------------------------------
 * index[r] = the k largest logits of row r in falling order, the lower expert first among equals
 * (NaN below everything), and weight[r], one of
 *
 *   softmax over the k chosen logits                     (itera; renormalize changes nothing)
 *   softmax_first: their probabilities in the softmax over all E                     (Jamba)
 *   softmax_first and renormalize: these divided by their sum, which is the first again and is
 *     computed as that
 *
 * logits  (..., E) f32, E <= 256
 * index   (R, k) i32
 * weight  (R, k) f32
 * attr    top_k, softmax_first, renormalize
 * Errors: ITERA_ERR_SHAPE.
 * Source: Shazeer et al. 2017, equations 3 to 5, without noise. */

static enum itera_status moe_route_infer(const struct itera_attr *attr,
                                         const struct itera_operand_shape *const *in,
                                         struct itera_operand_shape *out)
{
    enum itera_status status = expect_matrix("moe_route: logits", in[0]);
    if (status ||
        (status = expect_experts("moe_route", itera_shape_cols(&in[0]->shape), attr->top_k)))
        return status;
    const int64_t dim[] = {itera_shape_rows(&in[0]->shape), attr->top_k};
    itera_out(&out[0], ITERA_I32, 2, dim);
    itera_out(&out[1], ITERA_F32, 2, dim);
    return ITERA_OK;
}

static void moe_route_cost(const struct itera_attr *attr,
                           const struct itera_operand_shape *const *in,
                           const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)out;
    double rows = (double)itera_shape_rows(&in[0]->shape);
    double experts = (double)itera_shape_cols(&in[0]->shape);
    cost->flops = rows * (experts * attr->top_k + 3 * experts);
}

static void moe_route_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dweight = itera_ad_of(ad, op->out[1]);
    if (dweight == ITERA_NONE)
        return;
    const int32_t in[] = {dweight, op->in[0], op->out[0], op->out[1]};
    const int32_t of[] = {op->in[0]};
    itera_ad_record(ad, ITERA_OP_moe_route_bwd, &op->attr, in, of);
}

const struct itera_op_def itera_op_moe_route = {
    .infer = moe_route_infer,
    .cost = moe_route_cost,
    .grad = moe_route_grad,
};

/* ---- moe_route_bwd ------------------------------------------------------------------------------
 * The choice itself is constant. Softmax over the chosen (also softmax_first with renormalize):
 *
 *   dlogits[index[j]] = w[j] (dw[j] - sum_i w[i] dw[i]), 0 for experts not chosen
 *
 * softmax_first alone, with p = softmax(logits): dlogits[e] = p[e] (g[e] - sum_i w[i] dw[i]), where
 * g[index[j]] = dw[j], 0 for the others.
 *
 * dweight, weight  (R, k) f32
 * logits           (..., E) f32
 * index            (R, k) i32; values outside [0, E) are taken as the nearest inside
 * dlogits          like logits; no operand's storage
 * attr             as for moe_route */

static enum itera_status moe_route_bwd_infer(const struct itera_attr *attr,
                                             const struct itera_operand_shape *const *in,
                                             struct itera_operand_shape *out)
{
    enum itera_status status = expect_matrix("moe_route_bwd: logits", in[1]);
    if (status)
        return status;
    const int64_t dim[] = {itera_shape_rows(&in[1]->shape), attr->top_k};
    if ((status = expect_experts("moe_route_bwd", itera_shape_cols(&in[1]->shape), attr->top_k)) ||
        (status = itera_expect("moe_route_bwd: dweight", in[0], ITERA_F32, 2, dim)) ||
        (status = itera_expect("moe_route_bwd: index", in[2], ITERA_I32, 2, dim)) ||
        (status = itera_expect("moe_route_bwd: weight", in[3], ITERA_F32, 2, dim)))
        return status;
    itera_out(&out[0], ITERA_F32, in[1]->shape.rank, in[1]->shape.dim);
    return ITERA_OK;
}

static void moe_route_bwd_cost(const struct itera_attr *attr,
                               const struct itera_operand_shape *const *in,
                               const struct itera_operand_shape *const *out,
                               struct itera_cost *cost)
{
    (void)out;
    double elements = (double)itera_shape_elements(&in[1]->shape);
    cost->flops = 4.0 * (double)itera_shape_rows(&in[1]->shape) * attr->top_k +
                  (attr->softmax_first && !attr->renormalize ? 5 * elements : 0);
}

const struct itera_op_def itera_op_moe_route_bwd = {
    .infer = moe_route_bwd_infer,
    .cost = moe_route_bwd_cost,
};

/* ---- moe_sort -----------------------------------------------------------------------------------
 * The assignments sorted by expert, those of one expert in their own order (a stable counting
 * sort).
 *
 * index     (R, k) i32; values outside [0, E) are taken as the nearest inside
 * offsets   (E + 1) i32: expert e has the slots offsets[e] .. offsets[e + 1] - 1
 * order     (R k) i32: for each slot its assignment, r k + j
 * position  (R, k) i32: for each assignment its slot
 * attr      experts = E <= 256
 * Errors: ITERA_ERR_SHAPE, also when R k is beyond int32. */

static enum itera_status moe_sort_infer(const struct itera_attr *attr,
                                        const struct itera_operand_shape *const *in,
                                        struct itera_operand_shape *out)
{
    enum itera_status status = itera_expect("moe_sort: index", in[0], ITERA_I32, 2, any);
    if (status || (status = expect_experts("moe_sort", attr->experts, 1)))
        return status;
    int64_t rows = in[0]->shape.dim[0], k = in[0]->shape.dim[1];
    if (k < 1 || rows > INT32_MAX / k)
        return itera_fail(ITERA_ERR_SHAPE, "moe_sort: %lld rows of %lld experts do not fit int32",
                          (long long)rows, (long long)k);
    const int64_t offsets = attr->experts + 1, slots = rows * k;
    itera_out(&out[0], ITERA_I32, 1, &offsets);
    itera_out(&out[1], ITERA_I32, 1, &slots);
    itera_out(&out[2], ITERA_I32, 2, in[0]->shape.dim);
    return ITERA_OK;
}

const struct itera_op_def itera_op_moe_sort = {
    .infer = moe_sort_infer,
};

/* ---- moe_gather ---------------------------------------------------------------------------------
 * y[slot] = x[order[slot] / k]
 *
 * x         (..., H) f32
 * order     (R k) i32, position (R, k) i32, as moe_sort gave them; position serves the gradient.
 *           Values of order outside [0, R k) are taken as the nearest inside.
 * y         (R k, H) f32; no operand's storage
 * attr      top_k = k
 * Errors: ITERA_ERR_SHAPE. */

static enum itera_status moe_gather_infer(const struct itera_attr *attr,
                                          const struct itera_operand_shape *const *in,
                                          struct itera_operand_shape *out)
{
    enum itera_status status = expect_matrix("moe_gather: x", in[0]);
    if (status)
        return status;
    const int64_t rows = itera_shape_rows(&in[0]->shape), k = attr->top_k;
    if (k < 1)
        return itera_fail(ITERA_ERR_SHAPE, "moe_gather: top_k is %lld, expected 1 or more",
                          (long long)k);
    const int64_t slots = rows * k;
    const int64_t pairs[] = {rows, k};
    if ((status = itera_expect("moe_gather: order", in[1], ITERA_I32, 1, &slots)) ||
        (status = itera_expect("moe_gather: position", in[2], ITERA_I32, 2, pairs)))
        return status;
    const int64_t dim[] = {slots, itera_shape_cols(&in[0]->shape)};
    itera_out(&out[0], ITERA_F32, 2, dim);
    return ITERA_OK;
}

static void moe_gather_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dy = itera_ad_of(ad, op->out[0]);
    if (dy == ITERA_NONE)
        return;
    const int32_t in[] = {dy, op->in[2]};
    const int32_t of[] = {op->in[0]};
    itera_ad_record(ad, ITERA_OP_moe_gather_bwd, &op->attr, in, of);
}

const struct itera_op_def itera_op_moe_gather = {
    .infer = moe_gather_infer,
    .grad = moe_gather_grad,
};

/* ---- moe_gather_bwd -----------------------------------------------------------------------------
 * dx[r] = sum_j dy[position[r,j]]
 *
 * dy        (R k, H) f32
 * position  (R, k) i32; values outside [0, R k) are taken as the nearest inside
 * dx        (R, H) f32, or an existing tensor of R rows; no operand's storage */

/* Slots by choices: y (R k, H) against position (R, k). */
static enum itera_status expect_slots(const char *name, const char *y_name,
                                      const struct itera_operand_shape *y,
                                      const struct itera_operand_shape *position)
{
    char what[64];
    snprintf(what, sizeof what, "%s: position", name);
    enum itera_status status = itera_expect(what, position, ITERA_I32, 2, any);
    if (status)
        return status;
    const int64_t dim[] = {itera_shape_elements(&position->shape), -1};
    snprintf(what, sizeof what, "%s: %s", name, y_name);
    return itera_expect(what, y, ITERA_F32, 2, dim);
}

static enum itera_status moe_gather_bwd_infer(const struct itera_attr *attr,
                                              const struct itera_operand_shape *const *in,
                                              struct itera_operand_shape *out)
{
    (void)attr;
    enum itera_status status = expect_slots("moe_gather_bwd", "dy", in[0], in[1]);
    if (status)
        return status;
    const int64_t dim[] = {in[1]->shape.dim[0], in[0]->shape.dim[1]};
    itera_out(&out[0], ITERA_F32, 2, dim);
    return ITERA_OK;
}

static void moe_gather_bwd_cost(const struct itera_attr *attr,
                                const struct itera_operand_shape *const *in,
                                const struct itera_operand_shape *const *out,
                                struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = (double)itera_shape_elements(&in[0]->shape);
}

const struct itera_op_def itera_op_moe_gather_bwd = {
    .infer = moe_gather_bwd_infer,
    .cost = moe_gather_bwd_cost,
};

/* ---- moe_combine --------------------------------------------------------------------------------
 * out[r] = sum_j weight[r,j] y[position[r,j]] + residual[r]
 *
 * y         (R k, H) f32
 * position  (R, k) i32; values outside [0, R k) are taken as the nearest inside
 * weight    (R, k) f32
 * residual  (..., H) f32 of R rows; may be absent
 * out       like residual, or (R, H); may be residual's storage
 * Errors: ITERA_ERR_SHAPE. */

static enum itera_status moe_combine_infer(const struct itera_attr *attr,
                                           const struct itera_operand_shape *const *in,
                                           struct itera_operand_shape *out)
{
    (void)attr;
    enum itera_status status = expect_slots("moe_combine", "y", in[0], in[1]);
    if (status ||
        (status = itera_expect("moe_combine: weight", in[2], ITERA_F32, 2, in[1]->shape.dim)))
        return status;
    const int64_t dim[] = {in[1]->shape.dim[0], in[0]->shape.dim[1]};
    if (!in[3]) {
        itera_out(&out[0], ITERA_F32, 2, dim);
        return ITERA_OK;
    }
    if ((status = expect_matrix("moe_combine: residual", in[3])))
        return status;
    if (itera_shape_rows(&in[3]->shape) != dim[0] || itera_shape_cols(&in[3]->shape) != dim[1]) {
        char found[96];
        return itera_fail(ITERA_ERR_SHAPE,
                          "moe_combine: residual is %s, expected %lld rows of %lld columns",
                          itera_shape_text(&in[3]->shape, found, sizeof found), (long long)dim[0],
                          (long long)dim[1]);
    }
    itera_out(&out[0], ITERA_F32, in[3]->shape.rank, in[3]->shape.dim);
    return ITERA_OK;
}

static void moe_combine_cost(const struct itera_attr *attr,
                             const struct itera_operand_shape *const *in,
                             const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    cost->flops = 2.0 * (double)itera_shape_elements(&in[0]->shape) +
                  (in[3] ? (double)itera_shape_elements(&out[0]->shape) : 0);
}

static void moe_combine_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dout = itera_ad_of(ad, op->out[0]);
    if (dout == ITERA_NONE)
        return;
    if (itera_ad_wants(ad, op->in[0]) || itera_ad_wants(ad, op->in[2])) {
        const int32_t in[] = {dout, op->in[0], op->in[1], op->in[2]};
        const int32_t of[] = {op->in[0], op->in[2]};
        itera_ad_record(ad, ITERA_OP_moe_combine_bwd, &op->attr, in, of);
    }
    itera_ad_pass(ad, op->in[3], dout);
}

const struct itera_op_def itera_op_moe_combine = {
    .infer = moe_combine_infer,
    .cost = moe_combine_cost,
    .grad = moe_combine_grad,
    .inplace = 4,
};

/* ---- moe_combine_bwd ----------------------------------------------------------------------------
 *   dy[position[r,j]] = weight[r,j] dout[r]
 *   dweight[r,j]      = dout[r] . y[position[r,j]]
 *
 * dout      (..., H) f32 of R rows
 * y         (R k, H) f32, position (R, k) i32, weight (R, k) f32, as for moe_combine. Every slot
 *           must appear once in position, or its row of dy is not written.
 * dy        like y; dweight like weight; no operand's storage */

static enum itera_status moe_combine_bwd_infer(const struct itera_attr *attr,
                                               const struct itera_operand_shape *const *in,
                                               struct itera_operand_shape *out)
{
    (void)attr;
    enum itera_status status = expect_slots("moe_combine_bwd", "y", in[1], in[2]);
    if (status || (status = expect_matrix("moe_combine_bwd: dout", in[0])) ||
        (status = itera_expect("moe_combine_bwd: weight", in[3], ITERA_F32, 2, in[2]->shape.dim)))
        return status;
    if (itera_shape_rows(&in[0]->shape) != in[2]->shape.dim[0] ||
        itera_shape_cols(&in[0]->shape) != in[1]->shape.dim[1]) {
        char found[96];
        return itera_fail(ITERA_ERR_SHAPE,
                          "moe_combine_bwd: dout is %s, expected %lld rows of %lld columns",
                          itera_shape_text(&in[0]->shape, found, sizeof found),
                          (long long)in[2]->shape.dim[0], (long long)in[1]->shape.dim[1]);
    }
    itera_out(&out[0], ITERA_F32, 2, in[1]->shape.dim);
    itera_out(&out[1], ITERA_F32, 2, in[3]->shape.dim);
    return ITERA_OK;
}

static void moe_combine_bwd_cost(const struct itera_attr *attr,
                                 const struct itera_operand_shape *const *in,
                                 const struct itera_operand_shape *const *out,
                                 struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 3.0 * (double)itera_shape_elements(&in[1]->shape);
}

const struct itera_op_def itera_op_moe_combine_bwd = {
    .infer = moe_combine_bwd_infer,
    .cost = moe_combine_bwd_cost,
};

/* ---- moe_balance --------------------------------------------------------------------------------
 * With P[e] = mean over the rows of softmax(logits)[e], and load[e] = the share of the R k
 * assignments that expert e has:
 *
 *   kind VARIATION  loss = weight (std(P) / (mean(P) + 1e-6))^2        (itera)
 *                   std with E - 1 below the sum, 0 when E = 1
 *   kind SWITCH     loss = weight E sum_e k load[e] P[e]               (Jamba)
 *
 * logits  (..., E) f32, E <= 256
 * index   (R, k) i32; values outside [0, E) are taken as the nearest inside
 * loss    (1) f32
 * load    (E) f32, which the trainer shows and the gradient takes as constant
 * attr    kind, scale = weight
 * Means in double, also in the fast kernels.
 * Errors: ITERA_ERR_SHAPE.
 * Source: Fedus et al. 2021 (Switch), equations 4 to 6; its form for k > 1 is Hugging Face's. */

static enum itera_status moe_balance_infer(const struct itera_attr *attr,
                                           const struct itera_operand_shape *const *in,
                                           struct itera_operand_shape *out)
{
    if (attr->kind != ITERA_BALANCE_VARIATION && attr->kind != ITERA_BALANCE_SWITCH)
        return itera_fail(ITERA_ERR_SHAPE, "moe_balance: kind %d is not known", attr->kind);
    enum itera_status status = expect_matrix("moe_balance: logits", in[0]);
    if (status)
        return status;
    const int64_t dim[] = {itera_shape_rows(&in[0]->shape), -1};
    const int64_t experts = itera_shape_cols(&in[0]->shape), one = 1;
    if ((status = itera_expect("moe_balance: index", in[1], ITERA_I32, 2, dim)) ||
        (status = expect_experts("moe_balance", experts, in[1]->shape.dim[1])))
        return status;
    itera_out(&out[0], ITERA_F32, 1, &one);
    itera_out(&out[1], ITERA_F32, 1, &experts);
    return ITERA_OK;
}

static void moe_balance_cost(const struct itera_attr *attr,
                             const struct itera_operand_shape *const *in,
                             const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 5.0 * (double)itera_shape_elements(&in[0]->shape);
}

static void moe_balance_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dloss = itera_ad_of(ad, op->out[0]);
    if (dloss == ITERA_NONE)
        return;
    struct itera_attr attr = op->attr;
    const struct itera_tensor *index = itera_tensor_at(itera_ad_program(ad), op->in[1]);
    attr.top_k = (int32_t)index->shape.dim[1];
    const int32_t in[] = {dloss, op->in[0], op->out[1]};
    const int32_t of[] = {op->in[0]};
    itera_ad_record(ad, ITERA_OP_moe_balance_bwd, &attr, in, of);
}

const struct itera_op_def itera_op_moe_balance = {
    .infer = moe_balance_infer,
    .cost = moe_balance_cost,
    .grad = moe_balance_grad,
};

/* ---- moe_balance_bwd ----------------------------------------------------------------------------
 * With p = softmax(logits) and g[e] = dloss dloss/dP[e]:
 *
 *   dlogits[r,e] = p[r,e] (g[e] - sum_i p[r,i] g[i]) / R
 *   VARIATION    g[e] = dloss weight 2 (P[e] - 1/E) / ((E - 1) (1/E + 1e-6)^2)
 *                that the mean, 1/E, is a function of P as well adds the same to every g[e], which
 *                changes nothing
 *   SWITCH       g[e] = dloss weight E k load[e]
 *
 * dloss    (1) f32
 * logits   (..., E) f32
 * load     (E) f32
 * dlogits  like logits; no operand's storage
 * attr     kind, scale = weight, top_k = k */

static enum itera_status moe_balance_bwd_infer(const struct itera_attr *attr,
                                               const struct itera_operand_shape *const *in,
                                               struct itera_operand_shape *out)
{
    enum itera_status status = expect_matrix("moe_balance_bwd: logits", in[1]);
    if (status)
        return status;
    const int64_t experts = itera_shape_cols(&in[1]->shape), one = 1;
    if ((status = expect_experts("moe_balance_bwd", experts, attr->top_k)) ||
        (status = itera_expect("moe_balance_bwd: dloss", in[0], ITERA_F32, 1, &one)) ||
        (status = itera_expect("moe_balance_bwd: load", in[2], ITERA_F32, 1, &experts)))
        return status;
    itera_out(&out[0], ITERA_F32, in[1]->shape.rank, in[1]->shape.dim);
    return ITERA_OK;
}

static void moe_balance_bwd_cost(const struct itera_attr *attr,
                                 const struct itera_operand_shape *const *in,
                                 const struct itera_operand_shape *const *out,
                                 struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 8.0 * (double)itera_shape_elements(&in[1]->shape);
}

const struct itera_op_def itera_op_moe_balance_bwd = {
    .infer = moe_balance_bwd_infer,
    .cost = moe_balance_bwd_cost,
};
