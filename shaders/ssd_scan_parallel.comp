#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"
#include "scan_ssd.glsl"

ARGS(ssd_scan_parallel_args)
IN(1, x)
IN(2, dt)
IN(3, A)
IN(4, B)
IN(5, C)
IN(6, D)
OUT(7, state)
OUT(8, y)
OUT(9, boundaries)

shared float carry[SSD_MAX_STATES], products[SCAN_LANES];
shared float inflow[8 * SCAN_LANES];

// A workgroup takes a row of the state, (sequence, head, head channel), of up to SSD_MAX_STATES states. Its
// lanes take 128 steps; four states at a time, seven rounds bring to each lane the sum of all
// earlier inputs, decayed: in round i from 2^i lanes before, by decay[i].
void main()
{
    uint row = GROUP, head = row / p.width % p.heads, sequence = row / (p.width * p.heads);
    uint channel = row % (p.width * p.heads), state_at = p.state_at + row * p.state_ld;
    uint group_at = head / p.group_heads * p.states;
    uint boundary_row = sequence * p.chunks * p.heads * p.width + channel;
    float rate = A.v[p.A_at + head], skip = p.has_skip != 0 ? D.v[p.D_at + head] : 0.0;
    for (uint n = LANE; n < p.states; n += SCAN_LANES) {
        carry[n] = p.has_state != 0 ? state.v[state_at + n] : 0.0;
        if (p.has_boundaries != 0 && p.time > 0)
            boundaries.v[p.boundaries_at + boundary_row * p.boundaries_ld + n] = carry[n];
    }
    for (uint first = 0; first < p.time; first += SCAN_LANES) {
        uint t = first + LANE, at = sequence * p.time + t;
        bool valid = t < p.time;
        bool stores = p.has_boundaries != 0 && t + 1 < p.time && (t + 1) % p.chunk == 0;
        uint stored_row = boundary_row + (t + 1) / p.chunk * p.heads * p.width;
        float step = valid ? dt.v[p.dt_at + at * p.dt_ld + head] : 0.0;
        float channel_x = valid ? x.v[p.x_at + at * p.x_ld + channel] : 0.0;
        float drive = step * channel_x, sum = skip * channel_x;
        float decay[7], product = exp(step * rate);
        [[unroll]] for (uint i = 0; i < 7; i++) {
            barrier();
            products[LANE] = product;
            barrier();
            bool has = LANE >= 1u << i;
            decay[i] = has ? product : 0.0;
            product *= has ? products[LANE - (1u << i)] : 1.0;
        }
        for (uint n = 0; n < p.states; n += 4) {
            float h[4], c[4], start[4];
            [[unroll]] for (uint j = 0; j < 4; j++) {
                bool has = n + j < p.states;
                uint col = group_at + n + j;
                start[j] = has ? carry[n + j] : 0.0;
                h[j] = has && valid ? drive * B.v[p.B_at + at * p.B_ld + col] : 0.0;
                c[j] = has && valid ? C.v[p.C_at + at * p.C_ld + col] : 0.0;
            }
            [[unroll]] for (uint i = 0; i < 7; i++) {
                uint now = i % 2 * 4 * SCAN_LANES + LANE;
                [[unroll]] for (uint j = 0; j < 4; j++)
                    inflow[now + j * SCAN_LANES] = h[j];
                barrier();
                if (LANE >= 1u << i)
                    [[unroll]] for (uint j = 0; j < 4; j++)
                        h[j] += decay[i] * inflow[now + j * SCAN_LANES - (1u << i)];
            }
            [[unroll]] for (uint j = 0; j < 4; j++) {
                h[j] += product * start[j];
                sum += c[j] * h[j];
                if (stores && n + j < p.states)
                    boundaries.v[p.boundaries_at + stored_row * p.boundaries_ld + n + j] = h[j];
                if (LANE == SCAN_LANES - 1 && n + j < p.states)
                    carry[n + j] = h[j];
            }
            barrier();
        }
        if (valid)
            y.v[p.y_at + at * p.y_ld + channel] = sum;
    }
    barrier();
    if (p.has_state != 0)
        for (uint n = LANE; n < p.states; n += SCAN_LANES)
            state.v[state_at + n] = carry[n];
}
