/* The causal depthwise convolution: see host/ops/conv.c for the contract.
 *
 * A workgroup takes 1 << shift channels, `across` of them lie side by side; its lanes above each
 * other take STEPS steps each, or a run of them, of one sequence. The window lies in registers. */
#include "args/conv.clh"
#include "itera.clh"
#include "math.clh"

#ifndef TAPS
#define TAPS 4
#endif
#define HISTORY     (TAPS - 1)
#define GROUP_LANES ITERA_GPU_LOCAL

#define CHANNEL ((GROUP % p.across << p.shift) + (LANE & ((1u << p.shift) - 1)))
#define ITEM    (GROUP / p.across * (LANES >> p.shift) + (LANE >> p.shift))

/* `last`: there is one block of steps, and its lanes leave the state behind. */
kernel void causal_conv1d(global const float *x, global const float *weight,
                          global const float *bias, global float *state, global float *y,
                          const struct causal_conv1d_args p)
{
    uint c = CHANNEL, sequence = ITEM / p.blocks, start = ITEM % p.blocks * STEPS;
    if (c >= p.channels || sequence >= p.batch)
        return;
    uint before = p.state_at + (sequence * p.channels + c) * p.state_ld;
    float w[TAPS], v[STEPS + TAPS];
    for (uint k = 0; k < TAPS; k++)
        w[k] = weight[p.weight_at + c * p.weight_ld + k];
    float first = p.has_bias ? bias[p.bias_at + c] : 0.0f;
    for (uint i = 0; i < STEPS + HISTORY; i++) {
        uint t = start + i; /* HISTORY too late */
        v[i] = 0.0f;
        if (t >= HISTORY && t - HISTORY < p.time)
            v[i] = x[p.x_at + (sequence * p.time + t - HISTORY) * p.x_ld + c];
        else if (t < HISTORY && p.has_state)
            v[i] = state[before + t];
    }
    for (uint s = 0; s < STEPS; s++) {
        float sum = first;
        for (uint k = 0; k < TAPS; k++)
            sum += w[k] * v[s + k];
        if (start + s < p.time)
            y[p.y_at + (sequence * p.time + start + s) * p.y_ld + c] = p.silu ? silu_of(sum) : sum;
    }
    if (p.last)
        for (uint i = 0; i < STEPS + HISTORY; i++)
            if (i >= p.time && i - p.time < HISTORY)
                state[before + i - p.time] = v[i];
}

/* The last HISTORY inputs become the state; a lane takes one channel of one sequence. */
kernel void causal_conv1d_state(global const float *x, global float *state,
                                const struct causal_conv1d_state_args p)
{
    uint c = CHANNEL, sequence = ITEM;
    if (c >= p.channels || sequence >= p.batch)
        return;
    uint before = p.state_at + (sequence * p.channels + c) * p.state_ld;
    float v[TAPS];
    for (uint k = 0; k < HISTORY; k++) {
        uint t = p.time + k; /* HISTORY too late */
        if (t >= HISTORY)
            v[k] = x[p.x_at + (sequence * p.time + t - HISTORY) * p.x_ld + c];
        else
            v[k] = state[before + t];
    }
    for (uint k = 0; k < HISTORY; k++)
        state[before + k] = v[k];
}

/* A lane goes through `run` steps. v[i] is the input of step t - HISTORY + i, g[i] the gradient
 * before act of step t + i; g needs as much of what follows as the result of what came before.
 * The workgroup leaves its sums of dweight (TAPS rows of channels) and dbias in scratch. */
kernel void causal_conv1d_bwd(global const float *dy, global const float *x,
                              global const float *weight, global const float *bias,
                              global float *dx, global float *dweight, global float *dbias,
                              const struct causal_conv1d_bwd_args p)
{
    local float sums[(TAPS + 1) * GROUP_LANES];
    uint c = CHANNEL, sequence = ITEM / p.runs, start = ITEM % p.runs * p.run;
    bool inside = c < p.channels && sequence < p.batch;
    uint end = inside ? min(p.time, start + p.run) : 0, row = sequence * p.time;
    float w[TAPS], weight_sum[TAPS], bias_sum = 0.0f, first = 0.0f;
    float v[STEPS + 2 * TAPS], g[STEPS + TAPS];
    for (uint k = 0; k < TAPS; k++) {
        w[k] = inside ? weight[p.weight_at + c * p.weight_ld + k] : 0.0f;
        weight_sum[k] = 0.0f;
    }
    if (inside && p.has_bias)
        first = bias[p.bias_at + c];
    /* At step t the first 2 HISTORY of v and the first HISTORY of g are there already. */
    for (uint i = 0; i < 2 * HISTORY; i++) {
        uint t = start + i;
        bool there = start < end && t >= HISTORY && t - HISTORY < p.time;
        v[i] = there ? x[p.x_at + (row + t - HISTORY) * p.x_ld + c] : 0.0f;
    }
    for (uint i = 0; i < HISTORY; i++) {
        uint t = start + i;
        float sum = first;
        for (uint k = 0; k < TAPS; k++)
            sum += w[k] * v[i + k];
        g[i] = start < end && t < p.time ? dy[p.dy_at + (row + t) * p.dy_ld + c] : 0.0f;
        g[i] *= p.silu ? silu_slope(sum) : 1.0f;
    }
    for (uint t0 = start; t0 < end; t0 += STEPS) {
        for (uint i = 0; i < STEPS; i++) {
            uint t = t0 + HISTORY + i;
            bool there = t < p.time;
            v[2 * HISTORY + i] = there ? x[p.x_at + (row + t) * p.x_ld + c] : 0.0f;
            g[HISTORY + i] = there ? dy[p.dy_at + (row + t) * p.dy_ld + c] : 0.0f;
        }
        for (uint i = HISTORY; i < HISTORY + STEPS; i++) {
            float sum = first;
            for (uint k = 0; k < TAPS; k++)
                sum += w[k] * v[i + k];
            g[i] *= p.silu ? silu_slope(sum) : 1.0f;
        }
        for (uint s = 0; s < STEPS; s++) {
            float sum = 0.0f;
            for (uint k = 0; k < TAPS; k++) {
                sum += w[k] * g[s + HISTORY - k];
                weight_sum[k] += g[s] * v[s + k];
            }
            bias_sum += g[s];
            if (t0 + s < p.time)
                dx[p.dx_at + (row + t0 + s) * p.dx_ld + c] = sum;
        }
        for (uint i = 0; i < 2 * HISTORY; i++)
            v[i] = v[i + STEPS];
        for (uint i = 0; i < HISTORY; i++)
            g[i] = g[i + STEPS];
    }
    for (uint k = 0; k < TAPS; k++)
        sums[k * GROUP_LANES + LANE] = weight_sum[k];
    sums[TAPS * GROUP_LANES + LANE] = bias_sum;
    barrier(CLK_LOCAL_MEM_FENCE);
    uint deep = LANES >> p.shift, block = GROUP / p.across;
    if (c >= p.channels || block * deep >= p.batch * p.runs)
        return;
    for (uint k = LANE >> p.shift; k < TAPS + p.want_dbias; k += deep) {
        float sum = 0.0f;
        for (uint i = 0; i < deep; i++)
            sum += sums[k * GROUP_LANES + (i << p.shift) + (LANE & ((1u << p.shift) - 1))];
        if (k < TAPS)
            dweight[p.dweight_at + (block * TAPS + k) * p.channels + c] = sum;
        else
            dbias[p.dbias_at + block * p.channels + c] = sum;
    }
}
