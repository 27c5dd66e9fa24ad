#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/optimizer.clh"

ARGS(adamw_args)
INOUT(1, param)
IN(2, grad)
INOUT(3, m)
INOUT(4, v)
IN(5, hyper)
IN(6, norm)

// A workgroup takes ELEMENTS elements for each invocation.
void main()
{
    if (norm.v[p.norm_at + 1] == 0.0)
        return;
    uint h = p.hyper_at;
    float lr = hyper.v[h], beta1 = hyper.v[h + 1], beta2 = hyper.v[h + 2], eps = hyper.v[h + 3];
    float bias1 = hyper.v[h + 4], root_bias2 = sqrt(hyper.v[h + 5]), max_norm = hyper.v[h + 6];
    float scale = hyper.v[h + 7];
    if (max_norm > 0.0)
        scale *= min(max_norm / (norm.v[p.norm_at] * scale + 1e-6), 1.0);
    uint first = GROUP * ELEMENTS * LANES + LANE;
    for (uint e = 0; e < ELEMENTS; e++) {
        uint i = first + e * LANES;
        if (i >= p.rows * p.cols)
            return;
        uint row = p.rows > 1 ? i / p.cols : 0, col = i - row * p.cols;
        uint at_p = p.param_at + row * p.param_ld + col;
        uint at_m = p.m_at + row * p.m_ld + col, at_v = p.v_at + row * p.v_ld + col;
        float g = scale * grad.v[p.grad_at + row * p.grad_ld + col], w = param.v[at_p];
        float m1 = beta1 * m.v[at_m] + (1.0 - beta1) * g;
        float v1 = beta2 * v.v[at_v] + (1.0 - beta2) * g * g;
        m.v[at_m] = m1;
        v.v[at_v] = v1;
        param.v[at_p] = w - lr * (m1 / bias1 / (sqrt(v1) / root_bias2 + eps) + p.decay * w);
    }
}
