#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"

ARGS(linear_scan_sequential_args)
IN(1, a)
IN(2, b)
OUT(3, state)
OUT(4, h)

// An invocation takes a column of a sequence, with the state in a register; it reads several steps
// ahead. Neighbouring lanes take neighbouring columns.
void main()
{
    uint sequence = THREAD / p.cols, col = THREAD % p.cols;
    if (sequence >= p.batch)
        return;
    uint state_at = p.state_at + sequence * p.state_ld + col;
    float value = p.has_state != 0 ? state.v[state_at] : 0.0;
    for (uint first = 0; first < p.time; first += SCAN_STEPS) {
        scan_map step[SCAN_STEPS];
        uint row = sequence * p.time + first;
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.time) {
                step[i].a = a.v[p.a_at + (row + i) * p.a_ld + col];
                step[i].b = b.v[p.b_at + (row + i) * p.b_ld + col];
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
