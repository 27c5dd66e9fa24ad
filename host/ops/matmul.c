/* Matrix products: matmul and grouped_matmul. */
#include "core/log.h"
#include "ops/op.h"
#include "program/autodiff.h"
#include "tensor/blocks.h"

/* matmul: y = act(a.b + bias) + residual
 *
 * a         (..., K) f32 or f16, its leading dims flattened to M rows; trans_a: (..., M) with K such rows
 * b         (..., N) f32, f16 or bf16, with K flattened rows; trans_b: (N, K), as weights are
 *           stored. With trans_b also q8 or q4 (tensor/blocks.h), where K is a multiple of 32 and
 *           b is no view
 * bias      (N) f32, optional
 * residual  y's dims f32, optional
 * y         a's leading dims and N; (M, N) when trans_a
 *
 * attr.act is one of enum itera_act (gelu is exact). attr.accumulate: y += a.b, with no bias, act
 * or residual; for gradients of tensors that are used more than once. attr.integer, with b in q8 or
 * q4 and a in f32: the product may round each row of a to blocks of 32 int8 with one f32 scale
 * (max |a| / 127) each, and sum a block's products in integers. attr.half: the product may round what
 * a and b hold to f16, sums staying f32; finite values above 65504, the largest of f16, become 65504.
 * Any other operand may be a column
 * view. y may be the storage of residual, and otherwise overlaps nothing. Sums run in f32 (or
 * better) along k in blocks; the result does not depend on the thread count. Errors:
 * ITERA_ERR_SHAPE; ITERA_ERR_ARGUMENT for an unknown act or accumulate with bias, act or residual.
 */

static enum itera_status check_act(const char *op, const struct itera_attr *attr)
{
    if (attr->act > ITERA_ACT_SOFTPLUS)
        return itera_fail(ITERA_ERR_ARGUMENT, "%s: unknown activation %d", op, attr->act);
    return ITERA_OK;
}

static enum itera_status check_matrix(const char *what, const struct itera_operand_shape *x)
{
    char text[96];
    if (x->shape.rank < 2)
        return itera_fail(ITERA_ERR_SHAPE, "%s has dims %s, expected at least two", what,
                          itera_shape_text(&x->shape, text, sizeof text));
    return ITERA_OK;
}

static enum itera_status check_a(const char *what, const struct itera_operand_shape *a)
{
    if (a->dtype != ITERA_F32 && a->dtype != ITERA_F16)
        return itera_fail(ITERA_ERR_SHAPE, "%s is %s, expected f32 or f16", what,
                          itera_dtype_name(a->dtype));
    return check_matrix(what, a);
}

/* trans_b: as weights lie. */
static enum itera_status check_b(const char *what, const struct itera_attr *attr,
                                 const struct itera_operand_shape *a,
                                 const struct itera_operand_shape *b)
{
    const bool blocks = itera_dtype_is_blocks(b->dtype);
    if (b->dtype == ITERA_I32)
        return itera_fail(ITERA_ERR_SHAPE, "%s is i32, expected numbers", what);
    if (attr->integer && (!blocks || a->dtype != ITERA_F32))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s is %s: the integer product takes q8 or q4, and an f32 a", what,
                          itera_dtype_name(b->dtype));
    enum itera_status status = check_matrix(what, b);
    const int64_t cols = itera_shape_cols(&b->shape);
    if (!status && blocks && (!attr->trans_b || cols % ITERA_BLOCK || b->shape.ld != cols))
        return itera_fail(ITERA_ERR_SHAPE,
                          "%s is %s with rows of %lld; blocks need whole rows of a multiple of %d "
                          "along k",
                          what, itera_dtype_name(b->dtype), (long long)cols, ITERA_BLOCK);
    return status;
}

/* y: the leading dims of a, then n columns. */
static void out_like(const struct itera_operand_shape *a, int64_t n,
                     struct itera_operand_shape *out)
{
    int64_t dim[ITERA_MAX_RANK];
    for (int i = 0; i + 1 < a->shape.rank; i++)
        dim[i] = a->shape.dim[i];
    dim[a->shape.rank - 1] = n;
    itera_out(out, ITERA_F32, a->shape.rank, dim);
}

static enum itera_status matmul_infer(const struct itera_attr *attr,
                                      const struct itera_operand_shape *const *in,
                                      struct itera_operand_shape *out)
{
    enum itera_status status = check_act("matmul", attr);
    if (!status)
        status = check_a("matmul: a", in[0]);
    if (!status)
        status = check_b("matmul: b", attr, in[0], in[1]);
    if (status)
        return status;
    if (attr->accumulate && (attr->act || in[2] || in[3]))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "matmul: accumulate excludes bias, activation and residual");
    const struct itera_shape *a = &in[0]->shape, *b = &in[1]->shape;
    const int64_t k = attr->trans_a ? itera_shape_rows(a) : itera_shape_cols(a);
    const int64_t b_k = attr->trans_b ? itera_shape_cols(b) : itera_shape_rows(b);
    const int64_t n = attr->trans_b ? itera_shape_rows(b) : itera_shape_cols(b);
    if (k != b_k) {
        char a_text[96], b_text[96];
        return itera_fail(ITERA_ERR_SHAPE, "matmul: a %s%s gives %lld products, b %s%s takes %lld",
                          itera_shape_text(a, a_text, sizeof a_text),
                          attr->trans_a ? " transposed" : "", (long long)k,
                          itera_shape_text(b, b_text, sizeof b_text),
                          attr->trans_b ? " transposed" : "", (long long)b_k);
    }
    if (attr->trans_a) {
        int64_t dim[2] = {itera_shape_cols(a), n};
        itera_out(&out[0], ITERA_F32, 2, dim);
    } else {
        out_like(in[0], n, &out[0]);
    }
    if (in[2] && (status = itera_expect("matmul: bias", in[2], ITERA_F32, 1, &n)))
        return status;
    if (in[3] && (status = itera_expect_same("matmul: residual", &out[0], in[3])))
        return status;
    return ITERA_OK;
}

static void matmul_cost(const struct itera_attr *attr, const struct itera_operand_shape *const *in,
                        const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    const struct itera_shape *a = &in[0]->shape;
    double k = (double)(attr->trans_a ? itera_shape_rows(a) : itera_shape_cols(a));
    double elements = (double)itera_shape_elements(&out[0]->shape);
    cost->flops = elements * (2.0 * k + (in[2] ? 1 : 0) + (in[3] ? 1 : 0) + (attr->act ? 4 : 0) +
                              (attr->accumulate ? 1 : 0));
    if (attr->accumulate)
        cost->bytes += elements * sizeof(float); /* y is read too */
}

/* Records the product a.b as a contribution to the gradient of `of`. */
static void product_gradient(struct itera_autodiff *ad, int32_t of, int32_t a, uint8_t trans_a,
                             int32_t b, uint8_t trans_b)
{
    if (!itera_ad_wants(ad, of))
        return;
    struct itera_program *p = itera_ad_program(ad);
    struct itera_attr attr = {.trans_a = trans_a, .trans_b = trans_b};
    int32_t target = itera_ad_target(ad, of, &attr.accumulate);
    if (p->status)
        return;
    /* Leading dims that were flattened in the forward product are flattened in its gradient. */
    struct itera_shape like = trans_a ? p->tensors[b].shape : p->tensors[a].shape;
    const struct itera_shape *shape = &p->tensors[target].shape;
    if (shape->rank != (trans_a ? 2 : like.rank)) {
        int64_t dim[2] = {itera_shape_rows(shape), itera_shape_cols(shape)};
        if (!trans_a && like.rank != 2) {
            int64_t flat[2] = {itera_shape_rows(&like), itera_shape_cols(&like)};
            a = itera_view_dims(p, a, 2, flat);
        }
        target = itera_view_dims(p, target, 2, dim);
    }
    int32_t in[4] = {a, b, ITERA_NONE, ITERA_NONE};
    itera_record(p, ITERA_OP_matmul, &attr, in, &target);
}

static void matmul_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    struct itera_program *p = itera_ad_program(ad);
    const int32_t a = op->in[0], b = op->in[1], bias = op->in[2], residual = op->in[3];
    const uint8_t ta = op->attr.trans_a, tb = op->attr.trans_b, act = op->attr.act;
    int32_t dy = itera_ad_of(ad, op->out[0]);
    if (dy == ITERA_NONE)
        return;
    if (op->attr.accumulate) {
        itera_ad_fail(ad, op, "it adds to its output, which gradient rules alone may record");
        return;
    }
    if (itera_ad_wants(ad, residual))
        itera_ad_pass(ad, residual, dy);
    if (act == ITERA_ACT_SOFTPLUS && residual == ITERA_NONE) {
        /* The derivative 1 - e^-y needs the output only. */
        int32_t in[2] = {dy, op->out[0]}, dx = ITERA_NEW;
        dy = itera_record(p, ITERA_OP_softplus_bwd, NULL, in, &dx);
    } else if (act != ITERA_ACT_NONE) {
        itera_ad_fail(ad, op,
                      "its fused activation leaves no pre-activation to differentiate at; "
                      "differentiate before fusion");
    }
    if (p->status)
        return;
    if (itera_ad_wants(ad, bias))
        itera_ad_record(ad, ITERA_OP_column_sum, NULL, &dy, &bias);
    if (ta)
        product_gradient(ad, a, b, tb, dy, 1); /* op(b) . dyT */
    else
        product_gradient(ad, a, dy, 0, b, !tb); /* dy . op(b)T */
    if (tb)
        product_gradient(ad, b, dy, 1, a, ta); /* dyT . op(a) */
    else
        product_gradient(ad, b, a, !ta, dy, 0); /* op(a)T . dy */
}

const struct itera_op_def itera_op_matmul = {
    .infer = matmul_infer, .cost = matmul_cost, .grad = matmul_grad, .inplace = 4, /* residual */
};

/* grouped_matmul: one matrix product per expert, over rows sorted by expert
 *
 * a        (..., K) f32 or f16, its leading dims flattened to R rows
 * b        (E, K, N) f32, f16 or bf16, or (E, N, K), as weights are stored, when trans_b; then also
 *          q8 or q4, as for matmul, attr.integer too; attr.half in every form
 * offsets  (E + 1) int32: rows offsets[e] .. offsets[e + 1] - 1 belong to expert e
 * y        a's leading dims and N: y = act(a_e . b_e) for the rows of each expert e
 *
 * With trans_a (the gradient of the weights; no act, no trans_b): a (R, M), b (R, N), and y (E, M,
 * N) is a_eT . b_e for each expert, zeros for one without rows. attr.experts is E in every form.
 * Offsets are data of the run: each counts as at least its predecessor and at most R. Rows that are
 * nobody's (before offsets[0], from offsets[E] on) give zeros in y, and nothing in the trans_a
 * form. Accumulation and views as for matmul; y overlaps nothing. Errors: ITERA_ERR_SHAPE;
 * ITERA_ERR_ARGUMENT for an unknown act, or trans_a with act or trans_b. */

static enum itera_status grouped_matmul_infer(const struct itera_attr *attr,
                                              const struct itera_operand_shape *const *in,
                                              struct itera_operand_shape *out)
{
    const int64_t experts = attr->experts;
    enum itera_status status = check_act("grouped_matmul", attr);
    if (status)
        return status;
    if (attr->accumulate || (attr->trans_a && (attr->act || attr->trans_b)))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "grouped_matmul: accumulate, or trans_a with an activation or trans_b");
    if (experts < 1 || experts >= INT32_MAX)
        return itera_fail(ITERA_ERR_ARGUMENT, "grouped_matmul: %lld experts, expected 1 or more",
                          (long long)experts);
    if ((status = check_a("grouped_matmul: a", in[0])))
        return status;
    if ((status = check_b("grouped_matmul: b", attr, in[0], in[1])))
        return status;
    const int64_t n_offsets = experts + 1;
    if ((status = itera_expect("grouped_matmul: offsets", in[2], ITERA_I32, 1, &n_offsets)))
        return status;
    const struct itera_shape *a = &in[0]->shape, *b = &in[1]->shape;
    if (attr->trans_a) {
        if (itera_shape_rows(a) != itera_shape_rows(b))
            return itera_fail(ITERA_ERR_SHAPE, "grouped_matmul: a has %lld rows, b %lld",
                              (long long)itera_shape_rows(a), (long long)itera_shape_rows(b));
        int64_t dim[3] = {experts, itera_shape_cols(a), itera_shape_cols(b)};
        itera_out(&out[0], ITERA_F32, 3, dim);
        return ITERA_OK;
    }
    int64_t dim[3] = {experts, -1, -1};
    dim[attr->trans_b ? 2 : 1] = itera_shape_cols(a);
    if ((status = itera_expect("grouped_matmul: b", in[1], in[1]->dtype, 3, dim)))
        return status;
    out_like(in[0], b->dim[attr->trans_b ? 1 : 2], &out[0]);
    return ITERA_OK;
}

static void grouped_matmul_cost(const struct itera_attr *attr,
                                const struct itera_operand_shape *const *in,
                                const struct itera_operand_shape *const *out,
                                struct itera_cost *cost)
{
    const struct itera_shape *a = &in[0]->shape;
    double rows = (double)itera_shape_rows(a);
    double cols = (double)itera_shape_cols(&out[0]->shape);
    double elements = (double)itera_shape_elements(&out[0]->shape);
    cost->flops = 2.0 * rows * (double)itera_shape_cols(a) * cols + (attr->act ? 4 * elements : 0);
    /* Experts without rows are not read: of more experts than rows, at most one a row is. */
    if (!attr->trans_a && rows < (double)attr->experts)
        cost->bytes -= itera_operand_bytes(in[1]) * (1 - rows / (double)attr->experts);
}

static void grouped_gradient(struct itera_autodiff *ad, int32_t of, const struct itera_attr *attr,
                             int32_t a, int32_t b, int32_t offsets)
{
    if (!itera_ad_wants(ad, of))
        return;
    struct itera_program *p = itera_ad_program(ad);
    int32_t contribution = itera_ad_begin(ad, of), target = contribution;
    if (p->status)
        return;
    struct itera_shape like = p->tensors[a].shape;
    const struct itera_shape *shape = &p->tensors[target].shape;
    if (!attr->trans_a && shape->rank != like.rank) {
        int64_t dim[2] = {itera_shape_rows(shape), itera_shape_cols(shape)};
        int64_t flat[2] = {itera_shape_rows(&like), itera_shape_cols(&like)};
        if (like.rank != 2)
            a = itera_view_dims(p, a, 2, flat);
        if (p->tensors[target].shape.rank != 2)
            target = itera_view_dims(p, target, 2, dim);
    }
    int32_t in[3] = {a, b, offsets};
    itera_record(p, ITERA_OP_grouped_matmul, attr, in, &target);
    itera_ad_end(ad, of, contribution);
}

static void grouped_matmul_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    const int32_t a = op->in[0], b = op->in[1], offsets = op->in[2];
    const int32_t dy = itera_ad_of(ad, op->out[0]);
    if (dy == ITERA_NONE)
        return;
    if (op->attr.act != ITERA_ACT_NONE) {
        itera_ad_fail(ad, op,
                      "its fused activation leaves no pre-activation to differentiate at; "
                      "differentiate before fusion");
        return;
    }
    struct itera_attr plain = {.experts = op->attr.experts};
    struct itera_attr trans_b = {.experts = op->attr.experts, .trans_b = 1};
    struct itera_attr trans_a = {.experts = op->attr.experts, .trans_a = 1};
    if (op->attr.trans_a) {
        grouped_gradient(ad, a, &trans_b, b, dy, offsets); /* b_e . dy_eT */
        grouped_gradient(ad, b, &plain, a, dy, offsets);   /* a_e . dy_e */
    } else if (op->attr.trans_b) {
        grouped_gradient(ad, a, &plain, dy, b, offsets);   /* dy . b_e */
        grouped_gradient(ad, b, &trans_a, dy, a, offsets); /* dy_eT . a_e */
    } else {
        grouped_gradient(ad, a, &trans_b, dy, b, offsets); /* dy . b_eT */
        grouped_gradient(ad, b, &trans_a, a, dy, offsets); /* a_eT . dy */
    }
}

const struct itera_op_def itera_op_grouped_matmul = {
    .infer = grouped_matmul_infer,
    .cost = grouped_matmul_cost,
    .grad = grouped_matmul_grad,
};
