/* What a training step does to gradients and parameters: see host/ops/optimizer.c. */
#include "args/optimizer.clh"
#include "reduce.clh"

/* ---- grad_norm ----------------------------------------------------------------------------------
 * Squares of f32 leave its range: elements beyond 2^40 are scaled down by 2^80 and those below
 * 2^-40 up, each kind with a sum of its own. Elements that are not finite are only noted. */

struct squares {
    float small, middle, big;
    float bad; /* 1: infinities, 2: NaN */
};

static inline void add_square(struct squares *s, float x)
{
    uint magnitude = as_uint(x) & 0x7fffffffu;
    if (magnitude >= 0x7f800000u)
        s->bad = fmax(s->bad, magnitude > 0x7f800000u ? 2.0f : 1.0f);
    else if (magnitude >= as_uint(0x1p40f))
        s->big += (x * 0x1p-80f) * (x * 0x1p-80f);
    else if (magnitude < as_uint(0x1p-40f))
        s->small += (x * 0x1p80f) * (x * 0x1p80f);
    else
        s->middle += x * x;
}

/* The sums of all lanes, in all of them. */
INLINE struct squares group_squares(struct squares s, local float *buffer)
{
    s.small = group_sum(s.small, buffer);
    s.middle = group_sum(s.middle, buffer);
    s.big = group_sum(s.big, buffer);
    s.bad = group_max(s.bad, buffer);
    return s;
}

/* The workgroups go through all elements with the stride of the grid. */
kernel void grad_norm_parts(global const float *grad, global float *parts,
                            const struct grad_norm_parts_args p)
{
    local float buffer[MAX_LOCAL];
    struct squares s = {0.0f, 0.0f, 0.0f, 0.0f};
    for (uint i = THREAD; i < p.rows * p.cols; i += p.groups * LANES) {
        uint row = p.rows > 1 ? i / p.cols : 0;
        add_square(&s, grad[p.grad_at + row * p.grad_ld + i - row * p.cols]);
    }
    s = group_squares(s, buffer);
    if (LANE > 0)
        return;
    parts += p.parts_at + 4 * GROUP;
    parts[0] = s.small;
    parts[1] = s.middle;
    parts[2] = s.big;
    parts[3] = s.bad;
}

/* One workgroup joins the sums. */
kernel void grad_norm_join(global const float *parts, global float *norm,
                           const struct grad_norm_join_args p)
{
    local float buffer[MAX_LOCAL];
    struct squares s = {0.0f, 0.0f, 0.0f, 0.0f};
    parts += p.parts_at;
    for (uint i = LANE; i < p.groups; i += LANES) {
        s.small += parts[4 * i];
        s.middle += parts[4 * i + 1];
        s.big += parts[4 * i + 2];
        s.bad = fmax(s.bad, parts[4 * i + 3]);
    }
    s = group_squares(s, buffer);
    if (LANE > 0)
        return;
    float root;
    if (s.big > 0.0f)
        root = sqrt(s.big + s.middle * 0x1p-80f * 0x1p-80f) * 0x1p80f;
    else if (s.middle > 0.0f)
        root = sqrt(s.middle + s.small * 0x1p-80f * 0x1p-80f);
    else
        root = sqrt(s.small) * 0x1p-80f;
    if (s.bad > 0.0f)
        root = s.bad > 1.0f ? NAN : INFINITY;
    norm[p.norm_at] = root;
    norm[p.norm_at + 1] = s.bad > 0.0f ? 0.0f : 1.0f;
}

/* ---- adamw ----------------------------------------------------------------------------------- */

/* A workgroup takes ELEMENTS elements for each invocation. */
kernel void adamw(global float *param, global const float *grad, global float *m, global float *v,
                  global const float *hyper, global const float *norm, const struct adamw_args p)
{
    hyper += p.hyper_at;
    norm += p.norm_at;
    if (norm[1] == 0.0f)
        return;
    float lr = hyper[0], beta1 = hyper[1], beta2 = hyper[2], eps = hyper[3];
    float bias1 = hyper[4], root_bias2 = sqrt(hyper[5]), max_norm = hyper[6], scale = hyper[7];
    if (max_norm > 0.0f)
        scale *= fmin(max_norm / (norm[0] * scale + 1e-6f), 1.0f);
    uint first = GROUP * ELEMENTS * LANES + LANE;
    for (uint e = 0; e < ELEMENTS; e++) {
        uint i = first + e * LANES;
        if (i >= p.rows * p.cols)
            return;
        uint row = p.rows > 1 ? i / p.cols : 0, col = i - row * p.cols;
        uint at_p = p.param_at + row * p.param_ld + col;
        uint at_m = p.m_at + row * p.m_ld + col, at_v = p.v_at + row * p.v_ld + col;
        float g = scale * grad[p.grad_at + row * p.grad_ld + col], w = param[at_p];
        float m1 = beta1 * m[at_m] + (1.0f - beta1) * g;
        float v1 = beta2 * v[at_v] + (1.0f - beta2) * g * g;
        m[at_m] = m1;
        v[at_v] = v1;
        param[at_p] = w - lr * (m1 / bias1 / (sqrt(v1) / root_bias2 + eps) + p.decay * w);
    }
}
