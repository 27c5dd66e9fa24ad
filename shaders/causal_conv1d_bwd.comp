#version 450
#extension GL_GOOGLE_include_directive : require
#include "conv.glsl"

ARGS(causal_conv1d_bwd_args)
IN(1, dy)
IN(2, x)
IN(3, weight)
IN(4, bias)
OUT(5, dx)
OUT(6, dweight)
OUT(7, dbias)

shared float sums[(TAPS + 1) * GROUP_LANES];

// A lane goes through `run` steps. v[i] is the input of step t - HISTORY + i, g[i] the gradient
// before act of step t + i; g needs as much of what follows as the result of what came before.
// The workgroup leaves its sums of dweight (TAPS rows of channels) and dbias in scratch.
void main()
{
    uint c = CHANNEL, sequence = ITEM / p.runs, start = ITEM % p.runs * p.run;
    bool inside = c < p.channels && sequence < p.batch;
    uint end = inside ? min(p.time, start + p.run) : 0, row = sequence * p.time;
    float w[TAPS], weight_sum[TAPS], bias_sum = 0.0, first = 0.0;
    float v[STEPS + 2 * TAPS], g[STEPS + TAPS];
    [[unroll]] for (uint k = 0; k < TAPS; k++) {
        w[k] = inside ? weight.v[p.weight_at + c * p.weight_ld + k] : 0.0;
        weight_sum[k] = 0.0;
    }
    if (inside && p.has_bias != 0)
        first = bias.v[p.bias_at + c];
    // At step t the first 2 HISTORY of v and the first HISTORY of g are there already.
    [[unroll]] for (uint i = 0; i < 2 * HISTORY; i++) {
        uint t = start + i;
        bool there = start < end && t >= HISTORY && t - HISTORY < p.time;
        v[i] = there ? x.v[p.x_at + (row + t - HISTORY) * p.x_ld + c] : 0.0;
    }
    [[unroll]] for (uint i = 0; i < HISTORY; i++) {
        uint t = start + i;
        float sum = first;
        [[unroll]] for (uint k = 0; k < TAPS; k++)
            sum += w[k] * v[i + k];
        g[i] = start < end && t < p.time ? dy.v[p.dy_at + (row + t) * p.dy_ld + c] : 0.0;
        g[i] *= p.silu != 0 ? silu_slope(sum) : 1.0;
    }
    for (uint t0 = start; t0 < end; t0 += STEPS) {
        [[unroll]] for (uint i = 0; i < STEPS; i++) {
            uint t = t0 + HISTORY + i;
            bool there = t < p.time;
            v[2 * HISTORY + i] = there ? x.v[p.x_at + (row + t) * p.x_ld + c] : 0.0;
            g[HISTORY + i] = there ? dy.v[p.dy_at + (row + t) * p.dy_ld + c] : 0.0;
        }
        [[unroll]] for (uint i = HISTORY; i < HISTORY + STEPS; i++) {
            float sum = first;
            [[unroll]] for (uint k = 0; k < TAPS; k++)
                sum += w[k] * v[i + k];
            g[i] *= p.silu != 0 ? silu_slope(sum) : 1.0;
        }
        [[unroll]] for (uint s = 0; s < STEPS; s++) {
            float sum = 0.0;
            [[unroll]] for (uint k = 0; k < TAPS; k++) {
                sum += w[k] * g[s + HISTORY - k];
                weight_sum[k] += g[s] * v[s + k];
            }
            bias_sum += g[s];
            if (t0 + s < p.time)
                dx.v[p.dx_at + (row + t0 + s) * p.dx_ld + c] = sum;
        }
        [[unroll]] for (uint i = 0; i < 2 * HISTORY; i++)
            v[i] = v[i + STEPS];
        [[unroll]] for (uint i = 0; i < HISTORY; i++)
            g[i] = g[i + STEPS];
    }
    [[unroll]] for (uint k = 0; k < TAPS; k++)
        sums[k * GROUP_LANES + LANE] = weight_sum[k];
    sums[TAPS * GROUP_LANES + LANE] = bias_sum;
    barrier();
    uint deep = LANES >> p.shift, block = GROUP / p.across;
    if (c >= p.channels || block * deep >= p.batch * p.runs)
        return;
    for (uint k = LANE >> p.shift; k < TAPS + p.want_dbias; k += deep) {
        float sum = 0.0;
        for (uint i = 0; i < deep; i++)
            sum += sums[k * GROUP_LANES + (i << p.shift) + (LANE & ((1u << p.shift) - 1))];
        if (k < TAPS)
            dweight.v[p.dweight_at + (block * TAPS + k) * p.channels + c] = sum;
        else
            dbias.v[p.dbias_at + block * p.channels + c] = sum;
    }
}
