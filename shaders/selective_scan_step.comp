#version 450
#extension GL_GOOGLE_include_directive : require
#include "scan_selective.glsl"
#include "any_weight.glsl"
#include "args/step.clh"
#define LANE_BUFFER SIZE
#include "reduce.glsl"

layout(constant_id = W_TYPE_ID) const uint W_TYPE = 0;
layout(constant_id = RANK_ID) const uint RANK = 1;

ARGS(selective_scan_step_args)
IN(1, x)
IN(2, low)
IN_WEIGHT(3, w, W_TYPE)
IN(4, bias)
IN(5, A)
IN(6, B)
IN(7, C)
IN(8, D)
IN(9, z)
INOUT(10, state)
IN(11, low_norm)
IN(12, b_norm)
IN(13, c_norm)
OUT(14, y)

shared float row_low[RANK], row_b[SLOTS], row_c[SLOTS], part[SIZE];

// row = x from `at` on, normalised where there is a weight: RMS over its `count` elements.
#define LOAD_ROW(row, x, at, count, has_norm, norm, eps)                                           \
    {                                                                                              \
        float square = 0.0;                                                                        \
        for (uint k = LANE; k < (count); k += SIZE) {                                              \
            row[k] = x.v[(at) + k];                                                                \
            square += row[k] * row[k];                                                             \
        }                                                                                          \
        if (has_norm) {                                                                            \
            float r = 1.0 / sqrt(group_sum(square) / float(count) + (eps));                        \
            for (uint k = LANE; k < (count); k += SIZE)                                            \
                row[k] *= r * norm.v[p.norm##_at + k];                                             \
        }                                                                                          \
    }

// One step of the scan, with what its dt, B and C are made of: dt = act(low.wT + bias), and norms of
// low, B and C. A workgroup takes WIDE channels of a sequence.
void main()
{
    uint blocks = (p.channels + WIDE - 1) / WIDE, group = GROUP;
    bool idle = group >= p.batch * blocks; // the grid may be larger
    if (idle)
        group = 0;
    uint i = group / blocks, first = group % blocks * WIDE;
    uint channel = LANE / SPLIT, lane = LANE % SPLIT, c = first + channel;
    bool own = !idle && c < p.channels;
    bool has_state = (p.has & HAS_STATE) != 0;
    LOAD_ROW(row_low, low, p.low_at + i * p.low_ld, p.rank, (p.has & HAS_LOW_NORM) != 0, low_norm,
             p.low_eps)
    LOAD_ROW(row_b, B, p.B_at + i * p.B_ld, p.states, (p.has & HAS_B_NORM) != 0, b_norm, p.b_eps)
    LOAD_ROW(row_c, C, p.C_at + i * p.C_ld, p.states, (p.has & HAS_C_NORM) != 0, c_norm, p.c_eps)
    barrier();

    float sum = 0.0;
    for (uint k = lane; k < p.rank && own; k += SPLIT)
        sum += row_low[k] * load_w(W_TYPE >= 4 ? p.w_at : p.w_at + c * p.w_ld, p.scales,
                                   W_TYPE >= 4 ? c * p.w_ld + k : k);
    part[LANE] = sum;
    barrier();
    float dt;
    SUM_OF_CHANNEL(dt, part, 0, channel)
    if ((p.has & HAS_BIAS) != 0 && own)
        dt += bias.v[p.bias_at + c];
    dt = activate(dt, p.act);
    float input_c = own ? x.v[p.x_at + i * p.x_ld + c] : 0.0, u = dt * input_c;
    barrier(); // the parts have been read

    sum = 0.0;
    uint state_row = p.state_at + (i * p.channels + c) * p.state_ld;
    [[unroll]] for (uint s = 0; s < STATES; s++) {
        uint n = s * SPLIT + lane;
        if (!own || n >= p.states)
            continue;
        float h = has_state ? state.v[state_row + n] : 0.0;
        h = exp2(dt * (A.v[p.A_at + c * p.A_ld + n] * LOG2_E)) * h + u * row_b[n];
        sum += row_c[n] * h;
        if (has_state)
            state.v[state_row + n] = h;
    }
    part[LANE] = sum;
    barrier();
    if (!own || lane != 0)
        return;
    SUM_OF_CHANNEL(sum, part, 0, channel)
    if ((p.has & HAS_D) != 0)
        sum += D.v[p.D_at + c] * input_c;
    if ((p.has & HAS_Z) != 0)
        sum *= silu_of(z.v[p.z_at + i * p.z_ld + c]);
    y.v[p.y_at + i * p.y_ld + c] = sum;
}
