/* What a training step does to gradients and parameters. Errors are ITERA_ERR_SHAPE. */
#include "core/log.h"
#include "ops/op.h"

static const int64_t any[ITERA_MAX_RANK] = {-1, -1, -1, -1};
static const int64_t two = 2, eight = 8;

/* norm[0] = the L2 norm of all elements, summed in double; norm[1] = 1 if every element is finite,
 * else 0.
 *
 * grad (any dims) f32, norm (2) f32 */
static enum itera_status grad_norm_infer(const struct itera_attr *attr,
                                         const struct itera_operand_shape *const *in,
                                         struct itera_operand_shape *out)
{
    (void)attr;
    itera_out(&out[0], ITERA_F32, 1, &two);
    return itera_expect("grad_norm: grad", in[0], ITERA_F32, in[0]->shape.rank, any);
}
static void grad_norm_cost(const struct itera_attr *attr,
                           const struct itera_operand_shape *const *in,
                           const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 2.0 * (double)itera_shape_elements(&in[0]->shape);
}
const struct itera_op_def itera_op_grad_norm = {.infer = grad_norm_infer, .cost = grad_norm_cost};

/* One step of AdamW on param, m and v, in place:
 *   g = grad grad_scale min(1, max_norm / (norm[0] grad_scale + 1e-6))   (no clip if max_norm is 0)
 *   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
 *   param -= lr (m / bias1 / (sqrt(v / bias2) + eps) + decay param)
 * When norm[1] is 0 (a gradient overflowed) nothing changes.
 *
 * param, grad, m, v (any dims, the same) f32
 * hyper (8) f32: lr, beta1, beta2, eps, bias1 = 1 - beta1^t, bias2 = 1 - beta2^t, max_norm,
 *                grad_scale
 * norm  (2) f32, of the whole gradient, from grad_norm
 * attr.p is the decay.
 * Source: Loshchilov & Hutter 2019, algorithm 2. */
static enum itera_status adamw_infer(const struct itera_attr *attr,
                                     const struct itera_operand_shape *const *in,
                                     struct itera_operand_shape *out)
{
    (void)attr;
    (void)out;
    enum itera_status status =
        itera_expect("adamw: param", in[0], ITERA_F32, in[0]->shape.rank, any);
    if (!status)
        status = itera_expect_same("adamw: grad", in[0], in[1]);
    if (!status)
        status = itera_expect_same("adamw: m", in[0], in[2]);
    if (!status)
        status = itera_expect_same("adamw: v", in[0], in[3]);
    if (!status)
        status = itera_expect("adamw: hyper", in[4], ITERA_F32, 1, &eight);
    if (!status)
        status = itera_expect("adamw: norm", in[5], ITERA_F32, 1, &two);
    return status;
}
static void adamw_cost(const struct itera_attr *attr, const struct itera_operand_shape *const *in,
                       const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 14.0 * (double)itera_shape_elements(&in[0]->shape);
}
const struct itera_op_def itera_op_adamw = {.infer = adamw_infer, .cost = adamw_cost};
