/* The recurrences of state space models and their gradients.
 *
 * All scans: B is the batch, T the time. `state`, when present, is read as the state before the
 * first step and left holding the state after the last one; when absent the scan starts from zeros
 * and the last state is dropped. attr.variant (enum itera_scan_variant) chooses how a backend does
 * the work; the result is the same up to rounding. Accumulation is f32 or better. Everything is
 * f32; inputs and outputs may be column views. Gradients exist for scans recorded without state. */
#include "ops/scan.h"

#include <stdio.h>

#include "core/log.h"
#include "program/autodiff.h"

static double elements(const struct itera_operand_shape *operand)
{
    return operand ? (double)itera_shape_elements(&operand->shape) : 0.0;
}

static enum itera_status check_variant(const char *op, const struct itera_attr *attr)
{
    if (attr->variant >= ITERA_SCAN_VARIANTS)
        return itera_fail(ITERA_ERR_ARGUMENT, "%s: attr.variant is %d, expected 0 to %d", op,
                          attr->variant, ITERA_SCAN_VARIANTS - 1);
    if (attr->chunk < 0)
        return itera_fail(ITERA_ERR_ARGUMENT, "%s: attr.chunk is %d, expected 0 or more", op,
                          attr->chunk);
    return ITERA_OK;
}

/* Absent operands fit; present ones must be f32 with these dims. */
static enum itera_status expect_f32(const char *op, const char *operand,
                                    const struct itera_operand_shape *shape, int rank,
                                    const int64_t *dim)
{
    char what[64];

    if (!shape)
        return ITERA_OK;
    snprintf(what, sizeof what, "%s: %s", op, operand);
    return itera_expect(what, shape, ITERA_F32, rank, dim);
}

static const int64_t any3[3] = {-1, -1, -1};

/* linear_scan: h[t] = a[t] h[t-1] + b[t], elementwise over C
 *
 * a, b   (B, T, C)
 * state  (B, C), optional
 * h      (B, T, C); may be the storage of b
 * Source: Martin & Cundy 2018, "Parallelizing linear recurrent neural nets over sequence length".
 */
static enum itera_status infer_linear_scan(const struct itera_attr *attr,
                                           const struct itera_operand_shape *const *in,
                                           struct itera_operand_shape *out)
{
    const int64_t *dim = in[0]->shape.dim;
    enum itera_status s = check_variant("linear_scan", attr);

    if (!s)
        s = expect_f32("linear_scan", "a", in[0], 3, any3);
    if (!s)
        s = expect_f32("linear_scan", "b", in[1], 3, dim);
    if (!s)
        s = expect_f32("linear_scan", "state", in[2], 2, (int64_t[]){dim[0], dim[2]});
    if (!s)
        itera_out(&out[0], ITERA_F32, 3, dim);
    return s;
}

static void cost_linear_scan(const struct itera_attr *attr,
                             const struct itera_operand_shape *const *in,
                             const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 2.0 * elements(in[0]);
}

static void grad_linear_scan(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dh = itera_ad_of(ad, op->out[0]);

    if (dh == ITERA_NONE)
        return;
    if (op->in[2] != ITERA_NONE) {
        itera_ad_fail(ad, op, "the scan carries a state between runs");
        return;
    }
    itera_ad_record(ad, ITERA_OP_linear_scan_bwd, &op->attr, (int32_t[]){dh, op->in[0], op->out[0]},
                    (int32_t[]){op->in[0], op->in[1]});
}

const struct itera_op_def itera_op_linear_scan = {
    .infer = infer_linear_scan,
    .cost = cost_linear_scan,
    .grad = grad_linear_scan,
    .inplace = 2,
    .variants = ITERA_SCAN_VARIANTS,
};

/* linear_scan_bwd: g[t] = dh[t] + a[t+1] g[t+1]; db = g; da[t] = g[t] h[t-1], with h[-1] = 0
 *
 * dh, a, h -> da, db, all (B, T, C). */
static enum itera_status infer_linear_scan_bwd(const struct itera_attr *attr,
                                               const struct itera_operand_shape *const *in,
                                               struct itera_operand_shape *out)
{
    const int64_t *dim = in[0]->shape.dim;
    enum itera_status s = check_variant("linear_scan_bwd", attr);

    if (!s)
        s = expect_f32("linear_scan_bwd", "dh", in[0], 3, any3);
    if (!s)
        s = expect_f32("linear_scan_bwd", "a", in[1], 3, dim);
    if (!s)
        s = expect_f32("linear_scan_bwd", "h", in[2], 3, dim);
    if (!s) {
        itera_out(&out[0], ITERA_F32, 3, dim);
        itera_out(&out[1], ITERA_F32, 3, dim);
    }
    return s;
}

static void cost_linear_scan_bwd(const struct itera_attr *attr,
                                 const struct itera_operand_shape *const *in,
                                 const struct itera_operand_shape *const *out,
                                 struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 3.0 * elements(in[0]);
}

const struct itera_op_def itera_op_linear_scan_bwd = {
    .infer = infer_linear_scan_bwd,
    .cost = cost_linear_scan_bwd,
};

/* itera_scan: h[t] = exp(d[t] A) h[t-1] + d[t] u[t]
 *
 * d      (B, T, 1), the step size, 0 or more
 * A      (N), negative: d A stays below 88 for every f32 result to be finite
 * u      (B, T, N)
 * state  (B, N), optional
 * h      (B, T, N); may be the storage of u
 * Source: DESIGN section 5, the SSM core of the itera family (zero-order hold on A, Euler on u). */
static enum itera_status expect_itera_scan(const char *op, const struct itera_operand_shape *d,
                                           const struct itera_operand_shape *a,
                                           const struct itera_operand_shape *u)
{
    const int64_t *dim = u->shape.dim;
    enum itera_status s = expect_f32(op, "u", u, 3, any3);

    if (!s)
        s = expect_f32(op, "d", d, 3, (int64_t[]){dim[0], dim[1], 1});
    if (!s)
        s = expect_f32(op, "A", a, 1, (int64_t[]){dim[2]});
    return s;
}

static enum itera_status infer_itera_scan(const struct itera_attr *attr,
                                          const struct itera_operand_shape *const *in,
                                          struct itera_operand_shape *out)
{
    const int64_t *dim = in[2]->shape.dim;
    enum itera_status s = check_variant("itera_scan", attr);

    if (!s)
        s = expect_itera_scan("itera_scan", in[0], in[1], in[2]);
    if (!s)
        s = expect_f32("itera_scan", "state", in[3], 2, (int64_t[]){dim[0], dim[2]});
    if (!s)
        itera_out(&out[0], ITERA_F32, 3, dim);
    return s;
}

static void cost_itera_scan(const struct itera_attr *attr,
                            const struct itera_operand_shape *const *in,
                            const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 5.0 * elements(in[2]);
}

static void grad_itera_scan(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dh = itera_ad_of(ad, op->out[0]);

    if (dh == ITERA_NONE)
        return;
    if (op->in[3] != ITERA_NONE) {
        itera_ad_fail(ad, op, "the scan carries a state between runs");
        return;
    }
    itera_ad_record(ad, ITERA_OP_itera_scan_bwd, &op->attr,
                    (int32_t[]){dh, op->in[0], op->in[1], op->in[2], op->out[0]},
                    (int32_t[]){op->in[0], op->in[1], op->in[2]});
}

const struct itera_op_def itera_op_itera_scan = {
    .infer = infer_itera_scan,
    .cost = cost_itera_scan,
    .grad = grad_itera_scan,
    .inplace = 3,
    .variants = ITERA_SCAN_VARIANTS,
};

/* itera_scan_bwd: with e[t] = exp(d[t] A) and g[t] = dh[t] + e[t+1] g[t+1]
 *
 *   du[t] = d[t] g[t]
 *   dd[t] = sum_n g[t] (u[t] + A e[t] h[t-1])
 *   dA    = sum_bt g[t] d[t] e[t] h[t-1]
 *
 * dh, u, h (B, T, N), d (B, T, 1), A (N) -> dd (B, T, 1), dA (N), du (B, T, N). */
static enum itera_status infer_itera_scan_bwd(const struct itera_attr *attr,
                                              const struct itera_operand_shape *const *in,
                                              struct itera_operand_shape *out)
{
    const int64_t *dim = in[3]->shape.dim;
    enum itera_status s = check_variant("itera_scan_bwd", attr);

    if (!s)
        s = expect_itera_scan("itera_scan_bwd", in[1], in[2], in[3]);
    if (!s)
        s = expect_f32("itera_scan_bwd", "dh", in[0], 3, dim);
    if (!s)
        s = expect_f32("itera_scan_bwd", "h", in[4], 3, dim);
    if (!s) {
        itera_out(&out[0], ITERA_F32, 3, (int64_t[]){dim[0], dim[1], 1});
        itera_out(&out[1], ITERA_F32, 1, (int64_t[]){dim[2]});
        itera_out(&out[2], ITERA_F32, 3, dim);
    }
    return s;
}

static void cost_itera_scan_bwd(const struct itera_attr *attr,
                                const struct itera_operand_shape *const *in,
                                const struct itera_operand_shape *const *out,
                                struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = 12.0 * elements(in[3]);
}

const struct itera_op_def itera_op_itera_scan_bwd = {
    .infer = infer_itera_scan_bwd,
    .cost = cost_itera_scan_bwd,
};

/* selective_scan (Mamba-1)
 *
 *   h[t,c,n] = exp(dt[t,c] A[c,n]) h[t-1,c,n] + dt[t,c] B[t,n] x[t,c]
 *   y[t,c]   = (sum_n C[t,n] h[t,c,n] + D[c] x[t,c]) * silu(z[t,c])
 *
 * x, dt       (B, T, C); dt after softplus, 0 or more
 * A           (C, N), negative
 * B, C        (B, T, N)
 * D           (C), optional: 0
 * z           (B, T, C), optional: no gate
 * state       (B, C, N), optional
 * y           (B, T, C)
 * boundaries  (B, ceil(T / chunk), C, N), optional: the state before each chunk of attr.chunk steps
 *             (64 when attr.chunk is 0), which the gradient needs
 * Errors: ITERA_ERR_SHAPE; ITERA_ERR_UNSUPPORTED when N is not 1 to 256.
 * Source: Gu & Dao 2023, "Mamba", algorithm 2. */
static enum itera_status expect_selective(const char *op, const struct itera_operand_shape *x,
                                          const struct itera_operand_shape *const *dt_to_z)
{
    const int64_t *dim = x->shape.dim;
    int64_t states;
    enum itera_status s = expect_f32(op, "x", x, 3, any3);

    if (!s)
        s = expect_f32(op, "dt", dt_to_z[0], 3, dim);
    if (!s)
        s = expect_f32(op, "A", dt_to_z[1], 2, (int64_t[]){dim[2], -1});
    if (s)
        return s;
    states = dt_to_z[1]->shape.dim[1];
    if (states < 1 || states > ITERA_SCAN_MAX_STATES)
        return itera_fail(ITERA_ERR_UNSUPPORTED, "%s: %lld states per channel, expected 1 to %d",
                          op, (long long)states, ITERA_SCAN_MAX_STATES);
    s = expect_f32(op, "B", dt_to_z[2], 3, (int64_t[]){dim[0], dim[1], states});
    if (!s)
        s = expect_f32(op, "C", dt_to_z[3], 3, (int64_t[]){dim[0], dim[1], states});
    if (!s)
        s = expect_f32(op, "D", dt_to_z[4], 1, (int64_t[]){dim[2]});
    if (!s)
        s = expect_f32(op, "z", dt_to_z[5], 3, dim);
    return s;
}

static enum itera_status infer_selective_scan(const struct itera_attr *attr,
                                              const struct itera_operand_shape *const *in,
                                              struct itera_operand_shape *out)
{
    const int64_t *dim = in[0]->shape.dim;
    int64_t states;
    enum itera_status s = check_variant("selective_scan", attr);

    if (!s)
        s = expect_selective("selective_scan", in[0], &in[1]);
    if (s)
        return s;
    states = in[2]->shape.dim[1];
    s = expect_f32("selective_scan", "state", in[7], 3, (int64_t[]){dim[0], dim[2], states});
    if (s)
        return s;
    itera_out(&out[0], ITERA_F32, 3, dim);
    itera_out(&out[1], ITERA_F32, 4,
              (int64_t[]){dim[0], itera_scan_chunks(attr, dim[1]), dim[2], states});
    return ITERA_OK;
}

static void cost_selective_scan(const struct itera_attr *attr,
                                const struct itera_operand_shape *const *in,
                                const struct itera_operand_shape *const *out,
                                struct itera_cost *cost)
{
    double steps = elements(in[0]);

    (void)attr;
    (void)out;
    /* dt A, exp, two for h's decay and input, two for C h; dt x, D x and the gate once a channel */
    cost->flops = steps * (6.0 * (double)in[2]->shape.dim[1] + 1.0 + (in[5] ? 2.0 : 0.0) +
                           (in[6] ? 4.0 : 0.0));
}

static void grad_selective_scan(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dy = itera_ad_of(ad, op->out[0]);

    if (dy == ITERA_NONE)
        return;
    if (op->in[7] != ITERA_NONE) {
        itera_ad_fail(ad, op, "the scan carries a state between runs");
        return;
    }
    if (op->out[1] == ITERA_NONE) {
        itera_ad_fail(ad, op, "it was recorded without boundaries, which the gradient needs");
        return;
    }
    itera_ad_record(
        ad, ITERA_OP_selective_scan_bwd, &op->attr,
        (int32_t[]){dy, op->in[0], op->in[1], op->in[2], op->in[3], op->in[4], op->in[5], op->in[6],
                    op->out[1]},
        (int32_t[]){op->in[0], op->in[1], op->in[2], op->in[3], op->in[4], op->in[5], op->in[6]});
}

const struct itera_op_def itera_op_selective_scan = {
    .infer = infer_selective_scan,
    .cost = cost_selective_scan,
    .grad = grad_selective_scan,
    .variants = ITERA_SCAN_VARIANTS,
};

/* selective_scan_bwd: the gradients of selective_scan from zeros. With s = sum_n C h + D x,
 * gate = silu(z), e[t] = exp(dt[t] A), w[t] = e[t] h[t-1] and
 * g[t] = C[t] dy[t] gate[t] + e[t+1] g[t+1]:
 *
 *   dz = dy s silu'(z)              dD = sum_bt dy gate x
 *   dC = sum_c dy gate h            dB = sum_c g dt x
 *   dx = dy gate D + dt sum_n g B   ddt = sum_n g (A w + B x)
 *   dA = sum_bt g dt w
 *
 * The states inside a chunk are computed again from boundaries: scratch of O(chunk), not O(T).
 * dy, x, dt, z (B, T, C), A (C, N), B, C (B, T, N), D (C), boundaries (B, ceil(T / chunk), C, N)
 * -> dx, ddt, dA, dB, dC, dD, dz with the dims of what they are gradients of; dD and dz are
 * produced only with D and z. Parameter gradients are summed in a fixed order for a given team.
 * Source: Gu & Dao 2023, section 3.3.2 and appendix D (recomputation). */
static enum itera_status infer_selective_scan_bwd(const struct itera_attr *attr,
                                                  const struct itera_operand_shape *const *in,
                                                  struct itera_operand_shape *out)
{
    const char *op = "selective_scan_bwd";
    const int64_t *dim = in[1]->shape.dim;
    int64_t states;
    enum itera_status s = check_variant(op, attr);

    if (!s)
        s = expect_selective(op, in[1], &in[2]);
    if (!s)
        s = expect_f32(op, "dy", in[0], 3, dim);
    if (s)
        return s;
    states = in[3]->shape.dim[1];
    s = expect_f32(op, "boundaries", in[8], 4,
                   (int64_t[]){dim[0], itera_scan_chunks(attr, dim[1]), dim[2], states});
    if (s)
        return s;
    itera_out(&out[0], ITERA_F32, 3, dim);
    itera_out(&out[1], ITERA_F32, 3, dim);
    itera_out(&out[2], ITERA_F32, 2, (int64_t[]){dim[2], states});
    itera_out(&out[3], ITERA_F32, 3, (int64_t[]){dim[0], dim[1], states});
    itera_out(&out[4], ITERA_F32, 3, (int64_t[]){dim[0], dim[1], states});
    itera_out(&out[5], ITERA_F32, 1, (int64_t[]){dim[2]});
    itera_out(&out[6], ITERA_F32, 3, dim);
    return ITERA_OK;
}

static void cost_selective_scan_bwd(const struct itera_attr *attr,
                                    const struct itera_operand_shape *const *in,
                                    const struct itera_operand_shape *const *out,
                                    struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    /* per state: 4 to recompute h, 2 for g, 3 dA and A g w, 2 g B, 2 dB, 2 dC, 1 e g, 2 C h */
    cost->flops = elements(in[1]) * (18.0 * (double)in[3]->shape.dim[1] + 6.0);
}

const struct itera_op_def itera_op_selective_scan_bwd = {
    .infer = infer_selective_scan_bwd,
    .cost = cost_selective_scan_bwd,
};

/* ssd_scan (Mamba-2): H = attr.heads heads of P channels and N states, one decay a head; head h
 * reads group h / (H / G) of the G = attr.groups groups of B and C.
 *
 *   h[t,h,p,n] = exp(dt[t,h] A[h]) h[t-1,h,p,n] + dt[t,h] B[t,g,n] x[t,h,p]
 *   y[t,h,p]   = sum_n C[t,g,n] h[t,h,p,n] + D[h] x[t,h,p]
 *
 * x           (B, T, H P)
 * dt          (B, T, H), after softplus, 0 or more
 * A           (H), negative
 * B, C        (B, T, G N)
 * D           (H), optional: 0
 * state       (B, H, P, N), optional
 * y           (B, T, H P)
 * boundaries  (B, ceil(T / chunk), H P, N), optional: the state before each chunk of attr.chunk
 *             steps (64 when attr.chunk is 0); heads and head channels are one dimension, since
 *             tensors have at most four
 * Errors: ITERA_ERR_SHAPE, also when H does not divide the channels, or G the heads or states.
 * Source: Dao & Gu 2024, "Transformers are SSMs", sections 5 and 6. */
static enum itera_status expect_ssd(const char *op, const struct itera_attr *attr,
                                    const struct itera_operand_shape *x,
                                    const struct itera_operand_shape *const *dt_to_d)
{
    const int64_t *dim = x->shape.dim;
    int64_t heads = attr->heads, groups = attr->groups, width;
    enum itera_status s = expect_f32(op, "x", x, 3, any3);

    if (s)
        return s;
    if (heads < 1 || groups < 1 || heads % groups || dim[2] % heads)
        return itera_fail(ITERA_ERR_SHAPE,
                          "%s: %lld heads in %lld groups over %lld channels do not divide evenly",
                          op, (long long)heads, (long long)groups, (long long)dim[2]);
    s = expect_f32(op, "dt", dt_to_d[0], 3, (int64_t[]){dim[0], dim[1], heads});
    if (!s)
        s = expect_f32(op, "A", dt_to_d[1], 1, (int64_t[]){heads});
    if (!s)
        s = expect_f32(op, "B", dt_to_d[2], 3, (int64_t[]){dim[0], dim[1], -1});
    if (s)
        return s;
    width = dt_to_d[2]->shape.dim[2];
    if (width < 1 || width % groups)
        return itera_fail(ITERA_ERR_SHAPE, "%s: B has %lld columns, expected a multiple of %lld",
                          op, (long long)width, (long long)groups);
    s = expect_f32(op, "C", dt_to_d[3], 3, (int64_t[]){dim[0], dim[1], width});
    if (!s)
        s = expect_f32(op, "D", dt_to_d[4], 1, (int64_t[]){heads});
    return s;
}

static enum itera_status infer_ssd_scan(const struct itera_attr *attr,
                                        const struct itera_operand_shape *const *in,
                                        struct itera_operand_shape *out)
{
    const int64_t *dim = in[0]->shape.dim;
    int64_t states;
    enum itera_status s = check_variant("ssd_scan", attr);

    if (!s)
        s = expect_ssd("ssd_scan", attr, in[0], &in[1]);
    if (s)
        return s;
    states = in[3]->shape.dim[2] / attr->groups;
    s = expect_f32("ssd_scan", "state", in[6], 4,
                   (int64_t[]){dim[0], attr->heads, dim[2] / attr->heads, states});
    if (s)
        return s;
    itera_out(&out[0], ITERA_F32, 3, dim);
    itera_out(&out[1], ITERA_F32, 4,
              (int64_t[]){dim[0], itera_scan_chunks(attr, dim[1]), dim[2], states});
    return ITERA_OK;
}

static void cost_ssd_scan(const struct itera_attr *attr,
                          const struct itera_operand_shape *const *in,
                          const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    double states = (double)(in[3]->shape.dim[2] / attr->groups);

    (void)out;
    /* the recurrence: decay, input and C h; the matrix form does a little less */
    cost->flops =
        elements(in[0]) * (5.0 * states + 1.0 + (in[5] ? 2.0 : 0.0)) + 2.0 * elements(in[1]);
}

static void grad_ssd_scan(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dy = itera_ad_of(ad, op->out[0]);

    if (dy == ITERA_NONE)
        return;
    if (op->in[6] != ITERA_NONE) {
        itera_ad_fail(ad, op, "the scan carries a state between runs");
        return;
    }
    if (op->out[1] == ITERA_NONE) {
        itera_ad_fail(ad, op, "it was recorded without boundaries, which the gradient needs");
        return;
    }
    itera_ad_record(ad, ITERA_OP_ssd_scan_bwd, &op->attr,
                    (int32_t[]){dy, op->in[0], op->in[1], op->in[2], op->in[3], op->in[4],
                                op->in[5], op->out[1]},
                    (int32_t[]){op->in[0], op->in[1], op->in[2], op->in[3], op->in[4], op->in[5]});
}

const struct itera_op_def itera_op_ssd_scan = {
    .infer = infer_ssd_scan,
    .cost = cost_ssd_scan,
    .grad = grad_ssd_scan,
    .variants = ITERA_SCAN_VARIANTS,
};

/* ssd_scan_bwd: the gradients of ssd_scan from zeros. With e[t] = exp(dt[t] A), w[t] = e[t] h[t-1]
 * and g[t] = C[t] dy[t] + e[t+1] g[t+1] (P, N):
 *
 *   dC = sum over the group's heads and p of dy h      dB = the same of g dt x
 *   dx = D dy + dt sum_n g B                           dD = sum_btp dy x
 *   ddt = sum_pn g (A w + B x)                         dA = sum_btpn g dt w
 *
 * dy, x (B, T, H P), dt (B, T, H), A, D (H), B, C (B, T, G N), boundaries as ssd_scan gives them
 * -> dx, ddt, dA, dB, dC, dD with the dims of what they are gradients of; dD only with D.
 * Source: Dao & Gu 2024, section 6, differentiated. */
static enum itera_status infer_ssd_scan_bwd(const struct itera_attr *attr,
                                            const struct itera_operand_shape *const *in,
                                            struct itera_operand_shape *out)
{
    const char *op = "ssd_scan_bwd";
    const int64_t *dim = in[1]->shape.dim;
    int64_t width;
    enum itera_status s = check_variant(op, attr);

    if (!s)
        s = expect_ssd(op, attr, in[1], &in[2]);
    if (!s)
        s = expect_f32(op, "dy", in[0], 3, dim);
    if (s)
        return s;
    width = in[4]->shape.dim[2];
    s = expect_f32(
        op, "boundaries", in[7], 4,
        (int64_t[]){dim[0], itera_scan_chunks(attr, dim[1]), dim[2], width / attr->groups});
    if (s)
        return s;
    itera_out(&out[0], ITERA_F32, 3, dim);
    itera_out(&out[1], ITERA_F32, 3, (int64_t[]){dim[0], dim[1], attr->heads});
    itera_out(&out[2], ITERA_F32, 1, (int64_t[]){attr->heads});
    itera_out(&out[3], ITERA_F32, 3, (int64_t[]){dim[0], dim[1], width});
    itera_out(&out[4], ITERA_F32, 3, (int64_t[]){dim[0], dim[1], width});
    itera_out(&out[5], ITERA_F32, 1, (int64_t[]){attr->heads});
    return ITERA_OK;
}

static void cost_ssd_scan_bwd(const struct itera_attr *attr,
                              const struct itera_operand_shape *const *in,
                              const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)out;
    cost->flops = elements(in[1]) * (16.0 * (double)(in[4]->shape.dim[2] / attr->groups) + 6.0);
}

const struct itera_op_def itera_op_ssd_scan_bwd = {
    .infer = infer_ssd_scan_bwd,
    .cost = cost_ssd_scan_bwd,
};
