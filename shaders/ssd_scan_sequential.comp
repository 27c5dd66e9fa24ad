#version 450
#extension GL_GOOGLE_include_directive : require
#define SCAN_COLUMNS 1
#include "itera.glsl"
#include "scan.glsl"
#include "scan_ssd.glsl"

layout(constant_id = STATE_SLICES_ID) const uint STATE_SLICES = 4;

ARGS(ssd_scan_sequential_args)
IN(1, x)
IN(2, dt)
IN(3, A)
IN(4, B)
IN(5, C)
IN(6, D)
OUT(7, state)
OUT(8, y)
OUT(9, boundaries)

// A row of the state, (sequence, head, head channel), is in registers of `lanes` neighbouring lanes
// (a power of two), which take every `lanes`-th state; a workgroup takes 128 / lanes rows.
void main()
{
    float h[STATE_SLICES];
    uint row = GROUP * (SCAN_LANES / p.lanes) + LANE / p.lanes, lane = LANE % p.lanes;
    uint head = row / p.width % p.heads, sequence = row / (p.width * p.heads);
    uint channel = row % (p.width * p.heads), state_at = p.state_at + row * p.state_ld;
    uint group_at = head / p.group_heads * p.states;
    bool live = sequence < p.batch;
    float rate = live ? A.v[p.A_at + head] : 0.0;
    float skip = live && p.has_skip != 0 ? D.v[p.D_at + head] : 0.0;
    [[unroll]] for (uint j = 0; j < STATE_SLICES; j++) {
        uint n = lane + j * p.lanes;
        h[j] = live && p.has_state != 0 && n < p.states ? state.v[state_at + n] : 0.0;
    }
    for (uint first = 0; first < p.time; first += SCAN_STEPS) {
        float y_skip[SCAN_STEPS];
        [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++) {
            uint t = first + i, at = sequence * p.time + t;
            bool valid = live && t < p.time;
            float step = valid ? dt.v[p.dt_at + at * p.dt_ld + head] : 0.0;
            float channel_x = valid ? x.v[p.x_at + at * p.x_ld + channel] : 0.0;
            float e = exp(step * rate), drive = step * channel_x, sum = 0.0;
            bool stores = valid && p.has_boundaries != 0 && t % p.chunk == 0;
            uint boundary_row = (sequence * p.chunks + t / p.chunk) * p.heads * p.width + channel;
            [[unroll]] for (uint j = 0; j < STATE_SLICES; j++) {
                uint n = lane + j * p.lanes;
                if (valid && n < p.states) {
                    if (stores)
                        boundaries.v[p.boundaries_at + boundary_row * p.boundaries_ld + n] = h[j];
                    h[j] = e * h[j] + drive * B.v[p.B_at + at * p.B_ld + group_at + n];
                    sum += C.v[p.C_at + at * p.C_ld + group_at + n] * h[j];
                }
            }
            y_skip[i] = skip * channel_x;
            sums[i * SCAN_LANES + LANE] = sum;
        }
        scan_sum_columns(p.lanes, 0);
        if (live && lane == 0)
            [[unroll]] for (uint i = 0; i < SCAN_STEPS; i++)
                if (first + i < p.time)
                    y.v[p.y_at + (sequence * p.time + first + i) * p.y_ld + channel] =
                        sums[i * SCAN_LANES + LANE] + y_skip[i];
        barrier();
    }
    [[unroll]] for (uint j = 0; j < STATE_SLICES; j++) {
        uint n = lane + j * p.lanes;
        if (live && p.has_state != 0 && n < p.states)
            state.v[state_at + n] = h[j];
    }
}
