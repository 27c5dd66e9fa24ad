#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"

ARGS(scan_starts_args)
IN(1, decay)
OUT(2, ends)
OUT(3, state)

// Between the chunks of a scan: ends (batch, chunks, cols) hold what each chunk leaves from zeros
// and become the states before each chunk, decay (the same dims) is what a chunk leaves of its
// start. state (batch, cols) is where the first one starts and is left with the end of the last
// one; SCAN_NO_STATE: from zeros, and dropped. A workgroup takes `width` columns of a sequence.
void main()
{
    uint sequence = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    bool live = col < p.cols;
    uint state_at = p.state_at + sequence * p.state_ld + col;
    float carry = live && p.state_mode != SCAN_NO_STATE ? state.v[state_at] : 0.0;
    uint lane_first = LANE / p.width * SCAN_STEPS;
    for (uint block = 0; block < p.chunks; block += SCAN_LANES / p.width * SCAN_STEPS) {
        scan_map step[SCAN_STEPS], own = scan_map(1.0, 0.0), total;
        uint at = (sequence * p.chunks + block + lane_first) * p.cols + col;
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
            bool valid = live && block + lane_first + i < p.chunks;
            step[i].a = valid ? decay.v[p.decay_at + at + i * p.cols] : 1.0;
            step[i].b = valid ? ends.v[p.ends_at + at + i * p.cols] : 0.0;
            own = scan_after(step[i], own);
        }
        scan_map before = scan_lanes(own, p.width, total);
        float value = before.a * carry + before.b;
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
            if (live && block + lane_first + i < p.chunks)
                ends.v[p.ends_at + at + i * p.cols] = value;
            value = step[i].a * value + step[i].b;
        }
        carry = total.a * carry + total.b;
        barrier();
    }
    memoryBarrierBuffer(); // all lanes of a column have read its start
    barrier();
    if (live && p.state_mode != SCAN_NO_STATE && LANE < p.width)
        state.v[state_at] = carry;
}
