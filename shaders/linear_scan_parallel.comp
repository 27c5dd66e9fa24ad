#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"

ARGS(linear_scan_parallel_args)
IN(1, a)
IN(2, b)
OUT(3, state)
OUT(4, h)

// A workgroup takes `width` columns of a chunk of a sequence, tile by tile of time. Row `sequence *
// chunks + chunk` of state is where it starts, but for SCAN_NO_STATE; SCAN_STATE is left
// with the end.
void main()
{
    uint piece = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    uint sequence = piece / p.chunks, first = piece % p.chunks * p.chunk;
    uint end = min(first + p.chunk, p.time);
    bool live = col < p.cols;
    uint state_at = p.state_at + piece * p.start_ld + col;
    float carry = live && p.state_mode != SCAN_NO_STATE ? state.v[state_at] : 0.0;
    for (uint block = first; block < end; block += SCAN_LANES / p.width * SCAN_STEPS) {
        scan_map step[SCAN_STEPS], own = scan_map(1.0, 0.0), total;
        uint t = block + LANE / p.width * SCAN_STEPS, row = sequence * p.time + t;
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
            bool valid = live && t + i < end;
            step[i].a = valid ? a.v[p.a_at + (row + i) * p.a_ld + col] : 1.0;
            step[i].b = valid ? b.v[p.b_at + (row + i) * p.b_ld + col] : 0.0;
            own = scan_after(step[i], own);
        }
        scan_map before = scan_lanes(own, p.width, total);
        float value = before.a * carry + before.b;
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
            value = step[i].a * value + step[i].b;
            if (live && t + i < end)
                h.v[p.h_at + (row + i) * p.h_ld + col] = value;
        }
        carry = total.a * carry + total.b;
        barrier();
    }
    memoryBarrierBuffer(); // all lanes of a column have read its start
    barrier();
    if (live && p.state_mode == SCAN_STATE && LANE < p.width)
        state.v[state_at] = carry;
}
