#version 450
#extension GL_GOOGLE_include_directive : require
#include "conv.glsl"

ARGS(causal_conv1d_state_args)
IN(1, x)
INOUT(2, state)

// The last HISTORY inputs become the state; a lane takes one channel of one sequence.
void main()
{
    uint c = CHANNEL, sequence = ITEM;
    if (c >= p.channels || sequence >= p.batch)
        return;
    uint before = p.state_at + (sequence * p.channels + c) * p.state_ld;
    float v[TAPS];
    [[unroll]] for (uint k = 0; k < HISTORY; k++) {
        uint t = p.time + k; // HISTORY too late
        if (t >= HISTORY)
            v[k] = x.v[p.x_at + (sequence * p.time + t - HISTORY) * p.x_ld + c];
        else
            v[k] = state.v[before + t];
    }
    [[unroll]] for (uint k = 0; k < HISTORY; k++)
        state.v[before + k] = v[k];
}
