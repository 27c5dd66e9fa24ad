#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"
#include "scan_ssd.glsl"

ARGS(ssd_scan_starts_args)
IN(1, decay)
OUT(2, ends)
OUT(3, state)
OUT(4, boundaries)

// ends become starts: the states before each chunk or, backward, the gradients of the states after
// it. An invocation takes an element of the state of a sequence, through all chunks.
void main()
{
    uint size = p.heads * p.width * p.states;
    uint sequence = THREAD / size, element = THREAD % size;
    if (sequence >= p.batch)
        return;
    uint head = element / (p.width * p.states), row = element / p.states, n = element % p.states;
    uint state_at = p.state_at + (sequence * p.heads * p.width + row) * p.state_ld + n;
    float value = p.has_state != 0 ? state.v[state_at] : 0.0;
    for (uint first = 0; first < p.chunks; first += SCAN_STEPS) {
        scan_map step[SCAN_STEPS];
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.chunks) {
                uint k = p.backward != 0 ? p.chunks - 1 - first - i : first + i;
                uint piece = sequence * p.chunks + k;
                step[i].a = decay.v[p.decay_at + piece * p.heads + head];
                step[i].b = ends.v[p.ends_at + piece * size + element];
            }
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.chunks) {
                uint k = p.backward != 0 ? p.chunks - 1 - first - i : first + i;
                uint boundary_row =
                    (sequence * p.boundary_chunks + k / p.parts) * p.heads * p.width + row;
                ends.v[p.ends_at + (sequence * p.chunks + k) * size + element] = value;
                if (p.has_boundaries != 0 && k % p.parts == 0)
                    boundaries.v[p.boundaries_at + boundary_row * p.boundaries_ld + n] = value;
                value = step[i].a * value + step[i].b;
            }
    }
    if (p.has_state != 0)
        state.v[state_at] = value;
}
