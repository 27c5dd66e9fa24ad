#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "math.glsl"
#include "any_weight.glsl"
#include "args/scan_selective.clh"
#include "args/step.clh"
#define LANE_BUFFER ITERA_GPU_LOCAL
#include "reduce.glsl"

layout(constant_id = W_TYPE_ID) const uint W_TYPE = 0;
layout(constant_id = C_TYPE_ID) const uint C_TYPE = 0;

ARGS(itera_scan_step_args)
IN(1, delta)
IN(2, A)
IN(3, u)
IN_WEIGHT(4, b, W_TYPE)
IN(5, source)
IN_WEIGHT(6, c, C_TYPE)
IN(7, x)
IN(8, d)
IN(9, z)
INOUT(10, state)
OUT(11, y)

shared float row_h[STEP_STATES];

// One step of the scan of the family itera, with what its input is made of and what becomes of it:
//   h = exp(m A) h + m u, m = mean of softplus(delta), u = source.bT if the kernel makes it
//   y = (h.cT + d x) SiLU(z)
// A workgroup takes a sequence.
void main()
{
    uint i = GROUP;
    float sum = 0.0;
    for (uint k = LANE; k < p.width; k += LANES)
        sum += softplus_of(delta.v[p.delta_at + i * p.delta_ld + k]);
    float mean = group_sum(sum) / float(p.width);

    uint width = p.lanes;
    uint n = LANE / width;
    sum = 0.0;
    if (p.makes_u != 0) {
        if (n < p.states)
            for (uint k = LANE % width; k < p.depth; k += width)
                sum += source.v[p.source_at + i * p.source_ld + k] *
                       load_b(W_TYPE >= 4 ? p.b_at : p.b_at + n * p.b_ld, p.b_scales,
                              W_TYPE >= 4 ? n * p.b_ld + k : k);
        sum = row_sum(sum, width);
    }
    if (n < p.states && LANE % width == 0) {
        if (p.makes_u == 0)
            sum = u.v[p.u_at + i * p.u_ld + n];
        uint at = p.state_at + i * p.state_ld + n;
        float h = (p.has & HAS_STATE) != 0 ? state.v[at] : 0.0;
        h = exp(mean * A.v[p.A_at + n]) * h + mean * sum;
        if ((p.has & HAS_STATE) != 0)
            state.v[at] = h;
        row_h[n] = h;
    }
    barrier();
    for (uint k = LANE; k < p.channels; k += LANES) {
        sum = 0.0;
        for (uint s = 0; s < p.states; s++)
            sum += row_h[s] * load_c(C_TYPE >= 4 ? p.c_at : p.c_at + k * p.c_ld, p.c_scales,
                                     C_TYPE >= 4 ? k * p.c_ld + s : s);
        sum += d.v[p.d_at + k] * x.v[p.x_at + i * p.x_ld + k];
        if ((p.has & HAS_Z) != 0)
            sum *= silu_of(z.v[p.z_at + i * p.z_ld + k]);
        y.v[p.y_at + i * p.y_ld + k] = sum;
    }
}
