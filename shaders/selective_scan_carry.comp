#version 450
#extension GL_GOOGLE_include_directive : require
#include "scan_selective.glsl"

ARGS(carry_args)
IN(1, A)
IN(2, state)
IN(3, total)
INOUT(4, ends)

const uint AHEAD = 8; // spans whose operands are under way together

// From how spans end when they begin with zeros to what they really begin with, in place: one
// invocation takes one state of one sequence through its spans, of which each decays it by
// exp(A total). `backward` goes from the last span to the first, for what flows back in time.
void main()
{
    uint per_sequence = p.channels * p.states;
    uint i = THREAD / per_sequence, e = THREAD % per_sequence;
    uint c = e / p.states, n = p.first_state + e % p.states;

    if (i >= p.batch)
        return;
    float rate = A.v[p.A_at + c * p.A_ld + n] * LOG2_E, h = 0.0;
    if ((p.has & HAS_STATE) != 0)
        h = state.v[p.state_at + (i * p.channels + c) * p.state_ld + n];
    for (uint k0 = 0; k0 < p.spans; k0 += AHEAD) {
        float end[AHEAD], decay[AHEAD];
        [[unroll]] for (uint j = 0; j < AHEAD; j++) {
            uint k = min(k0 + j, p.spans - 1);
            uint row = i * p.spans + (p.backward != 0 ? p.spans - 1 - k : k);
            end[j] = ends.v[p.ends_at + row * per_sequence + e];
            decay[j] = exp2(rate * total.v[p.total_at + row * p.channels + c]);
        }
        [[unroll]] for (uint j = 0; j < AHEAD; j++) {
            uint k = k0 + j;
            uint row = i * p.spans + (p.backward != 0 ? p.spans - 1 - k : k);
            if (k < p.spans)
                ends.v[p.ends_at + row * per_sequence + e] = h;
            h = decay[j] * h + end[j];
        }
    }
}
