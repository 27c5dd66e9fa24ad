#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"

ARGS(itera_scan_sequential_args)
IN(1, d)
IN(2, A)
IN(3, u)
OUT(4, state)
OUT(5, h)

// An invocation takes a state of a sequence, in a register; it reads several steps ahead.
// Neighbouring lanes take neighbouring states.
void main()
{
    uint sequence = THREAD / p.cols, col = THREAD % p.cols;
    if (sequence >= p.batch)
        return;
    float rate = A.v[p.A_at + col];
    uint state_at = p.state_at + sequence * p.state_ld + col;
    float value = p.has_state != 0 ? state.v[state_at] : 0.0;
    for (uint first = 0; first < p.time; first += SCAN_STEPS) {
        scan_map step[SCAN_STEPS];
        uint row = sequence * p.time + first;
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.time) {
                float delta = d.v[p.d_at + (row + i) * p.d_ld];
                step[i].a = exp(delta * rate);
                step[i].b = delta * u.v[p.u_at + (row + i) * p.u_ld + col];
            }
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.time) {
                value = step[i].a * value + step[i].b;
                h.v[p.h_at + (row + i) * p.h_ld + col] = value;
            }
    }
    if (p.has_state != 0)
        state.v[state_at] = value;
}
