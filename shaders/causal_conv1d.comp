#version 450
#extension GL_GOOGLE_include_directive : require
#include "conv.glsl"

ARGS(causal_conv1d_args)
IN(1, x)
IN(2, weight)
IN(3, bias)
INOUT(4, state)
OUT(5, y)

// `last`: there is one block of steps, and its lanes leave the state behind.
void main()
{
    uint c = CHANNEL, sequence = ITEM / p.blocks, start = ITEM % p.blocks * STEPS;
    if (c >= p.channels || sequence >= p.batch)
        return;
    uint before = p.state_at + (sequence * p.channels + c) * p.state_ld;
    float w[TAPS], v[STEPS + TAPS];
    [[unroll]] for (uint k = 0; k < TAPS; k++)
        w[k] = weight.v[p.weight_at + c * p.weight_ld + k];
    float first = p.has_bias != 0 ? bias.v[p.bias_at + c] : 0.0;
    [[unroll]] for (uint i = 0; i < STEPS + HISTORY; i++) {
        uint t = start + i; // HISTORY too late
        v[i] = 0.0;
        if (t >= HISTORY && t - HISTORY < p.time)
            v[i] = x.v[p.x_at + (sequence * p.time + t - HISTORY) * p.x_ld + c];
        else if (t < HISTORY && p.has_state != 0)
            v[i] = state.v[before + t];
    }
    [[unroll]] for (uint s = 0; s < STEPS; s++) {
        float sum = first;
        [[unroll]] for (uint k = 0; k < TAPS; k++)
            sum += w[k] * v[s + k];
        if (start + s < p.time)
            y.v[p.y_at + (sequence * p.time + start + s) * p.y_ld + c] =
                p.silu != 0 ? silu_of(sum) : sum;
    }
    if (p.last != 0)
        [[unroll]] for (uint i = 0; i < STEPS + HISTORY; i++)
            if (i >= p.time && i - p.time < HISTORY)
                state.v[before + i - p.time] = v[i];
}
