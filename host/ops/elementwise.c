/* Ops that act on elements one by one, and sums over rows or columns. Unless an op says otherwise,
 * all its operands are f32 of one shape, any ld; inputs do not overlap outputs, except that
 * `inplace` lets output 0 be an input's very storage; errors are ITERA_ERR_SHAPE. */
#include "core/log.h"
#include "ops/op.h"
#include "program/autodiff.h"

static const int64_t any[ITERA_MAX_RANK] = {-1, -1, -1, -1};

/* An f32 operand of any rank from 1 on. */
static enum itera_status expect_f32(const char *what, const struct itera_operand_shape *operand)
{
    if (operand->shape.rank < 1)
        return itera_fail(ITERA_ERR_SHAPE, "%s is a scalar, expected at least one dimension", what);
    return itera_expect(what, operand, ITERA_F32, operand->shape.rank, any);
}

static int64_t elements(const struct itera_operand_shape *operand)
{
    return itera_shape_elements(&operand->shape);
}

static int64_t columns(const struct itera_operand_shape *operand)
{
    return itera_shape_cols(&operand->shape);
}

/* <op>_infer for one f32 input and an output like it. */
#define UNARY_INFER(op, x)                                                                         \
    static enum itera_status op##_infer(const struct itera_attr *attr,                             \
                                        const struct itera_operand_shape *const *in,               \
                                        struct itera_operand_shape *out)                           \
    {                                                                                              \
        enum itera_status status = expect_f32(#op ": " x, in[0]);                                  \
        return status ? status : itera_infer_same(attr, in, out);                                  \
    }

/* <op>_infer for two f32 inputs of one shape and an output like them. */
#define BINARY_INFER(op, a, b)                                                                     \
    static enum itera_status op##_infer(const struct itera_attr *attr,                             \
                                        const struct itera_operand_shape *const *in,               \
                                        struct itera_operand_shape *out)                           \
    {                                                                                              \
        enum itera_status status = expect_f32(#op ": " a, in[0]);                                  \
        if (!status)                                                                               \
            status = itera_expect_same(#op ": " b, in[0], in[1]);                                  \
        return status ? status : itera_infer_same(attr, in, out);                                  \
    }

/* A cost of `n` FLOPs an element of the first input. */
#define COST(n)                                                                                    \
    static void cost_##n(const struct itera_attr *attr,                                            \
                         const struct itera_operand_shape *const *in,                              \
                         const struct itera_operand_shape *const *out, struct itera_cost *cost)    \
    {                                                                                              \
        (void)attr;                                                                                \
        (void)out;                                                                                 \
        cost->flops = (double)(n) * (double)elements(in[0]);                                       \
    }
COST(1)
COST(2)
COST(4)
COST(5)
COST(6)
COST(8)
COST(10)
#undef COST

/* y = attr.scale everywhere. No inputs: recorded with an existing output, of f32 or, for 0, of any
 * dtype of four bytes; the shape rule leaves that output as it is. */
static enum itera_status fill_infer(const struct itera_attr *attr,
                                    const struct itera_operand_shape *const *in,
                                    struct itera_operand_shape *out)
{
    (void)in;
    bool zero = attr->scale == 0.0f;
    if (out[0].dtype == ITERA_F32 || (zero && out[0].dtype == ITERA_I32))
        return ITERA_OK;
    return itera_fail(ITERA_ERR_SHAPE, "fill: y is %s, expected f32 (or i32 filled with 0)",
                      itera_dtype_name(out[0].dtype));
}
const struct itera_op_def itera_op_fill = {.infer = fill_infer};

/* y = x, f32 or i32; x and y may have different ld and must not overlap. */
static enum itera_status copy_infer(const struct itera_attr *attr,
                                    const struct itera_operand_shape *const *in,
                                    struct itera_operand_shape *out)
{
    if (in[0]->dtype != ITERA_F32 && in[0]->dtype != ITERA_I32)
        return itera_fail(ITERA_ERR_SHAPE, "copy: x is %s, expected f32 or i32",
                          itera_dtype_name(in[0]->dtype));
    return itera_infer_same(attr, in, out);
}
static void copy_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    itera_ad_pass(ad, op->in[0], itera_ad_of(ad, op->out[0]));
}
const struct itera_op_def itera_op_copy = {.infer = copy_infer, .grad = copy_grad};

/* y = attr.scale x */
UNARY_INFER(scale, "x")
static void scale_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t in[] = {itera_ad_of(ad, op->out[0])}, of[] = {op->in[0]};
    itera_ad_record(ad, ITERA_OP_scale, &op->attr, in, of);
}
const struct itera_op_def itera_op_scale = {
    .infer = scale_infer, .cost = cost_1, .grad = scale_grad, .inplace = 1};

/* y = a + b; y may be a. */
BINARY_INFER(add, "a", "b")
static void add_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dy = itera_ad_of(ad, op->out[0]);
    itera_ad_pass(ad, op->in[0], dy);
    itera_ad_pass(ad, op->in[1], dy);
}
const struct itera_op_def itera_op_add = {
    .infer = add_infer, .cost = cost_1, .grad = add_grad, .inplace = 1};

/* y = a o b; y may be a. */
BINARY_INFER(mul, "a", "b")
static void mul_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dy = itera_ad_of(ad, op->out[0]);
    for (int i = 0; i < 2; i++) {
        if (!itera_ad_wants(ad, op->in[i]))
            continue;
        int32_t in[] = {dy, op->in[1 - i]}, of[] = {op->in[i]};
        itera_ad_record(ad, ITERA_OP_mul, NULL, in, of);
    }
}
const struct itera_op_def itera_op_mul = {
    .infer = mul_infer, .cost = cost_1, .grad = mul_grad, .inplace = 1};

/* y = -e^x: A from A_log. dx = dy y. */
UNARY_INFER(neg_exp, "x")
static void neg_exp_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t in[] = {itera_ad_of(ad, op->out[0]), op->out[0]}, of[] = {op->in[0]};
    itera_ad_record(ad, ITERA_OP_mul, NULL, in, of);
}
const struct itera_op_def itera_op_neg_exp = {
    .infer = neg_exp_infer, .cost = cost_2, .grad = neg_exp_grad, .inplace = 1};

/* y = x sigmoid(x). Source: Elfwing, Uchibe, Doya 2017. */
UNARY_INFER(silu, "x")
static void silu_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t in[] = {itera_ad_of(ad, op->out[0]), op->in[0]}, of[] = {op->in[0]};
    itera_ad_record(ad, ITERA_OP_silu_bwd, NULL, in, of);
}
const struct itera_op_def itera_op_silu = {
    .infer = silu_infer, .cost = cost_4, .grad = silu_grad, .inplace = 1};

/* dx = dy s (1 + x (1 - s)), s = sigmoid(x); dx may be dy. */
BINARY_INFER(silu_bwd, "dy", "x")
const struct itera_op_def itera_op_silu_bwd = {
    .infer = silu_bwd_infer, .cost = cost_8, .inplace = 1};

/* y = x Phi(x) = x (1 + erf(x / sqrt 2)) / 2, the exact form.
 * Source: Hendrycks & Gimpel 2016. */
UNARY_INFER(gelu, "x")
static void gelu_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t in[] = {itera_ad_of(ad, op->out[0]), op->in[0]}, of[] = {op->in[0]};
    itera_ad_record(ad, ITERA_OP_gelu_bwd, NULL, in, of);
}
const struct itera_op_def itera_op_gelu = {
    .infer = gelu_infer, .cost = cost_5, .grad = gelu_grad, .inplace = 1};

/* dx = dy (Phi(x) + x phi(x)); dx may be dy. */
BINARY_INFER(gelu_bwd, "dy", "x")
const struct itera_op_def itera_op_gelu_bwd = {
    .infer = gelu_bwd_infer, .cost = cost_10, .inplace = 1};

/* y = ln(1 + e^x) */
UNARY_INFER(softplus, "x")
static void softplus_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t in[] = {itera_ad_of(ad, op->out[0]), op->out[0]}, of[] = {op->in[0]};
    itera_ad_record(ad, ITERA_OP_softplus_bwd, NULL, in, of);
}
const struct itera_op_def itera_op_softplus = {
    .infer = softplus_infer, .cost = cost_4, .grad = softplus_grad, .inplace = 1};

/* dx = dy (1 - e^-y) with y the output of softplus, since sigmoid(x) = 1 - e^-softplus(x); small y
 * keep their relative precision. dx may be dy. */
BINARY_INFER(softplus_bwd, "dy", "y")
const struct itera_op_def itera_op_softplus_bwd = {
    .infer = softplus_bwd_infer, .cost = cost_4, .inplace = 1};

/* y = x silu(z): a gate, and SwiGLU (Shazeer 2020). y may be x. */
BINARY_INFER(silu_mul, "x", "z")
static void silu_mul_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t in[] = {itera_ad_of(ad, op->out[0]), op->in[0], op->in[1]};
    int32_t of[] = {op->in[0], op->in[1]};
    itera_ad_record(ad, ITERA_OP_silu_mul_bwd, NULL, in, of);
}
const struct itera_op_def itera_op_silu_mul = {
    .infer = silu_mul_infer, .cost = cost_5, .grad = silu_mul_grad, .inplace = 1};

/* dx = dy silu(z), dz = dy x silu'(z); dx may be dy. */
static enum itera_status silu_mul_bwd_infer(const struct itera_attr *attr,
                                            const struct itera_operand_shape *const *in,
                                            struct itera_operand_shape *out)
{
    enum itera_status status = expect_f32("silu_mul_bwd: dy", in[0]);
    if (!status)
        status = itera_expect_same("silu_mul_bwd: x", in[0], in[1]);
    if (!status)
        status = itera_expect_same("silu_mul_bwd: z", in[0], in[2]);
    if (status)
        return status;
    itera_infer_same(attr, in, out);
    out[1] = out[0];
    return ITERA_OK;
}
const struct itera_op_def itera_op_silu_mul_bwd = {
    .infer = silu_mul_bwd_infer, .cost = cost_10, .inplace = 1};

/* y = (c + d o x) silu(z): what follows a scan, its skip connection and gate.
 *
 * c, x, z (..., C) f32; d (C) f32, one factor a channel; without z there is no gate.
 * y may be c. */
static enum itera_status skip_gate_infer(const struct itera_attr *attr,
                                         const struct itera_operand_shape *const *in,
                                         struct itera_operand_shape *out)
{
    enum itera_status status = expect_f32("skip_gate: c", in[0]);
    if (!status)
        status = itera_expect_same("skip_gate: x", in[0], in[1]);
    int64_t channels = columns(in[0]);
    if (!status)
        status = itera_expect("skip_gate: d", in[2], ITERA_F32, 1, &channels);
    if (!status && in[3])
        status = itera_expect_same("skip_gate: z", in[0], in[3]);
    return status ? status : itera_infer_same(attr, in, out);
}
static void skip_gate_cost(const struct itera_attr *attr,
                           const struct itera_operand_shape *const *in,
                           const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = (in[3] ? 7.0 : 2.0) * (double)elements(in[0]);
}
static void skip_gate_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t in[] = {itera_ad_of(ad, op->out[0]), op->in[0], op->in[1], op->in[2], op->in[3]};
    int32_t of[] = {op->in[0], op->in[1], op->in[2], op->in[3]};
    itera_ad_record(ad, ITERA_OP_skip_gate_bwd, NULL, in, of);
}
const struct itera_op_def itera_op_skip_gate = {
    .infer = skip_gate_infer, .cost = skip_gate_cost, .grad = skip_gate_grad, .inplace = 1};

/* With t = c + d o x and g = dy silu(z) (g = dy without z):
 * dc = g, dx = g o d, dd = sum over rows of g o x, dz = dy t silu'(z).
 * dc may be dy. dz is produced only where z is there. */
static enum itera_status skip_gate_bwd_infer(const struct itera_attr *attr,
                                             const struct itera_operand_shape *const *in,
                                             struct itera_operand_shape *out)
{
    enum itera_status status = skip_gate_infer(attr, in + 1, out);
    if (!status)
        status = itera_expect_same("skip_gate_bwd: dy", in[1], in[0]);
    if (status)
        return status;
    out[1] = out[0];
    itera_out(&out[2], ITERA_F32, 1, in[3]->shape.dim);
    out[3] = out[0];
    return ITERA_OK;
}
static void skip_gate_bwd_cost(const struct itera_attr *attr,
                               const struct itera_operand_shape *const *in,
                               const struct itera_operand_shape *const *out,
                               struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = (in[4] ? 15.0 : 3.0) * (double)elements(in[0]);
}
const struct itera_op_def itera_op_skip_gate_bwd = {
    .infer = skip_gate_bwd_infer, .cost = skip_gate_bwd_cost, .inplace = 1};

/* y[...] = mean over the last dimension of softplus(x): x (..., C) -> y (..., 1). */
static enum itera_status softplus_mean_infer(const struct itera_attr *attr,
                                             const struct itera_operand_shape *const *in,
                                             struct itera_operand_shape *out)
{
    (void)attr;
    enum itera_status status = expect_f32("softplus_mean: x", in[0]);
    if (status)
        return status;
    struct itera_shape shape = in[0]->shape;
    shape.dim[shape.rank - 1] = 1;
    itera_out(&out[0], ITERA_F32, shape.rank, shape.dim);
    return ITERA_OK;
}
static void softplus_mean_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t in[] = {itera_ad_of(ad, op->out[0]), op->in[0]}, of[] = {op->in[0]};
    itera_ad_record(ad, ITERA_OP_softplus_mean_bwd, NULL, in, of);
}
const struct itera_op_def itera_op_softplus_mean = {
    .infer = softplus_mean_infer, .cost = cost_5, .grad = softplus_mean_grad};

/* dx = dy / C sigmoid(x): dy (..., 1), x (..., C) -> dx (..., C), which may be x. */
static enum itera_status softplus_mean_bwd_infer(const struct itera_attr *attr,
                                                 const struct itera_operand_shape *const *in,
                                                 struct itera_operand_shape *out)
{
    enum itera_status status = expect_f32("softplus_mean_bwd: x", in[1]);
    if (!status)
        status = expect_f32("softplus_mean_bwd: dy", in[0]);
    if (!status && (columns(in[0]) != 1 || elements(in[0]) != itera_shape_rows(&in[1]->shape)))
        status = itera_fail(ITERA_ERR_SHAPE,
                            "softplus_mean_bwd: dy has %lld elements in %lld columns, expected one "
                            "for each of the %lld rows of x",
                            (long long)elements(in[0]), (long long)columns(in[0]),
                            (long long)itera_shape_rows(&in[1]->shape));
    return status ? status : itera_infer_same(attr, in + 1, out);
}
static void softplus_mean_bwd_cost(const struct itera_attr *attr,
                                   const struct itera_operand_shape *const *in,
                                   const struct itera_operand_shape *const *out,
                                   struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 4.0 * (double)elements(in[1]);
}
const struct itera_op_def itera_op_softplus_mean_bwd = {
    .infer = softplus_mean_bwd_infer, .cost = softplus_mean_bwd_cost, .inplace = 2};

/* y = x / (1 - p) where the element is kept, else 0. Element i (counted over rows and columns, not
 * over padding) is kept when u(i) >= p, with u(i) = (r >> 8) 2^-24 and r the value at index i of
 * the random stream `stream` ^ step: itera_rng_at(seed, (uint64)attr.stream << 32 ^ step, i). The
 * mask is a pure function of these, so the gradient draws it again instead of storing it.
 *
 * rng (4) i32: seed (low, high), step (low, high); attr.p in [0, 1). y may be x.
 * Source: Srivastava et al. 2014. */
static enum itera_status dropout_infer(const struct itera_attr *attr,
                                       const struct itera_operand_shape *const *in,
                                       struct itera_operand_shape *out)
{
    static const int64_t four = 4;
    enum itera_status status = expect_f32("dropout: x", in[0]);
    if (!status)
        status = itera_expect("dropout: rng", in[1], ITERA_I32, 1, &four);
    if (!status && !(attr->p >= 0.0f && attr->p < 1.0f))
        status =
            itera_fail(ITERA_ERR_ARGUMENT, "dropout: p is %g, expected at least 0 and less than 1",
                       (double)attr->p);
    return status ? status : itera_infer_same(attr, in, out);
}
static void dropout_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t in[] = {itera_ad_of(ad, op->out[0]), op->in[1]}, of[] = {op->in[0]};
    itera_ad_record(ad, ITERA_OP_dropout, &op->attr, in, of);
}
const struct itera_op_def itera_op_dropout = {
    .infer = dropout_infer, .cost = cost_6, .grad = dropout_grad, .inplace = 1};

/* y[c] = sum over rows of x[., c]: x (..., C) -> y (C). Not differentiable: it is the gradient of a
 * bias. */
static enum itera_status column_sum_infer(const struct itera_attr *attr,
                                          const struct itera_operand_shape *const *in,
                                          struct itera_operand_shape *out)
{
    (void)attr;
    enum itera_status status = expect_f32("column_sum: x", in[0]);
    if (status)
        return status;
    int64_t channels = columns(in[0]);
    itera_out(&out[0], ITERA_F32, 1, &channels);
    return ITERA_OK;
}
const struct itera_op_def itera_op_column_sum = {.infer = column_sum_infer, .cost = cost_1};

/* y = x factor where x < 0, else x / factor: above 1, a logit becomes less likely whatever its sign;
 * 1 leaves it as it is. factor is above 0; y may be x.
 * Source: Keskar et al. 2019 (CTRL), section 4.1; with a product for negative logits, as Hugging
 * Face has it. */
BINARY_INFER(penalize, "x", "factor")
const struct itera_op_def itera_op_penalize = {
    .infer = penalize_infer, .cost = cost_1, .inplace = 1};
