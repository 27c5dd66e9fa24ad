/* What training in mixed precision adds: casts, and the loss scale. Errors are ITERA_ERR_SHAPE. */
#include "core/log.h"
#include "ops/op.h"

static const int64_t any[ITERA_MAX_RANK] = {-1, -1, -1, -1};
static const int64_t two = 2;

static bool floating(enum itera_dtype dtype)
{
    return dtype == ITERA_F32 || dtype == ITERA_F16;
}

/* y = x as attr.dtype: f32 to f16, rounded to nearest even (beyond 65519.99 it is infinite), or f16
 * to f32, exactly. x and y do not overlap; an f16 y is contiguous. Programs are lowered to f16 after they
 * are differentiated (program/precision.h), so that cast has no gradient rule.
 *
 * x (any dims) f32 or f16, any ld; y x's dims, f32 or f16 */
static enum itera_status cast_infer(const struct itera_attr *attr,
                                    const struct itera_operand_shape *const *in,
                                    struct itera_operand_shape *out)
{
    enum itera_dtype to = (enum itera_dtype)attr->dtype;
    if (!floating(in[0]->dtype) || !floating(to) || in[0]->dtype == to)
        return itera_fail(ITERA_ERR_SHAPE, "cast: from %s to %s, expected f32 to f16 or back",
                          itera_dtype_name(in[0]->dtype), itera_dtype_name(to));
    itera_out(&out[0], to, in[0]->shape.rank, in[0]->shape.dim);
    return ITERA_OK;
}
static void cast_cost(const struct itera_attr *attr, const struct itera_operand_shape *const *in,
                      const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = (double)itera_shape_elements(&in[0]->shape);
}
const struct itera_op_def itera_op_cast = {.infer = cast_infer, .cost = cast_cost};

/* y = x / scale[0]; y may be x. Takes the loss scale out of gradients.
 *
 * x, y (any dims) f32; scale (2) f32, see loss_scale */
static enum itera_status unscale_infer(const struct itera_attr *attr,
                                       const struct itera_operand_shape *const *in,
                                       struct itera_operand_shape *out)
{
    enum itera_status status = itera_expect("unscale: x", in[0], ITERA_F32, in[0]->shape.rank, any);
    if (!status)
        status = itera_expect("unscale: scale", in[1], ITERA_F32, 1, &two);
    return status ? status : itera_infer_same(attr, in, out);
}
const struct itera_op_def itera_op_unscale = {
    .infer = unscale_infer, .cost = cast_cost, .inplace = 1};

/* Keeps the loss scale as large as the gradients allow: scale[0] is the scale, a power of two from
 * 1 to 2^24; scale[1] counts the steps since it changed.
 *   norm[1] is 0 (a gradient overflowed):  scale[0] /= 2, scale[1] = 0
 *   else:  scale[1] += 1; when that reaches attr.count, scale[0] *= 2, scale[1] = 0
 *
 * scale, norm (2) f32; norm from grad_norm
 * Source: Micikevicius et al. 2018, "Mixed precision training", section 3.2. */
static enum itera_status loss_scale_infer(const struct itera_attr *attr,
                                          const struct itera_operand_shape *const *in,
                                          struct itera_operand_shape *out)
{
    (void)out;
    if (attr->count < 1)
        return itera_fail(ITERA_ERR_SHAPE, "loss_scale: doubled every %d steps, expected 1 or more",
                          attr->count);
    enum itera_status status = itera_expect("loss_scale: scale", in[0], ITERA_F32, 1, &two);
    return status ? status : itera_expect("loss_scale: norm", in[1], ITERA_F32, 1, &two);
}
const struct itera_op_def itera_op_loss_scale = {.infer = loss_scale_infer};
