#version 450
#extension GL_GOOGLE_include_directive : require
#define SCAN_PARALLEL
#define SCAN_SUBGROUPS
#include "scan_selective.glsl"

ARGS(parallel_args)
IN(1, x)
IN(2, dt)
IN(3, A)
IN(4, B)
IN(5, C)
IN(6, D)
IN(7, z)
INOUT(8, state)
OUT(9, y)
OUT(10, boundaries)

shared float carry[CHANNELS * 256];

// An associative scan over time. A workgroup takes CHANNELS channels of one sequence; each lane's
// steps are one map h -> a h + b, and a scan over the lanes composes these, so that SIZE * ITEMS /
// CHANNELS steps are taken at once. The states between such tiles stand in `carry`. Steps beyond
// the end have dt 0: they leave h as it is.
void main()
{
    uint blocks = (p.channels + CHANNELS - 1) / CHANNELS;
    uint i = GROUP / blocks, first = GROUP % blocks * CHANNELS;
    uint channel = LANE % CHANNELS, c = first + channel, time = i < p.batch ? p.time : 0;
    bool own = i < p.batch && c < p.channels, has_state = (p.has & HAS_STATE) != 0;
    bool has_boundaries = (p.has & HAS_BOUNDARIES) != 0;
    float skip = own && (p.has & HAS_D) != 0 ? D.v[p.D_at + c] : 0.0;

    for (uint k = LANE; k < CHANNELS * p.states; k += SIZE) {
        uint channel_k = k / p.states, n = k % p.states;
        bool live = i < p.batch && first + channel_k < p.channels && has_state;
        uint row = i * p.channels + first + channel_k;
        carry[k] = live ? state.v[p.state_at + row * p.state_ld + n] : 0.0;
    }
    for (uint t0 = 0; t0 < time; t0 += TIMES * ITEMS) {
        uint t = t0 + LANE / CHANNELS * ITEMS, row = i * p.time + t;
        float dt_of[ITEMS], u[ITEMS], sum[ITEMS];
        [[unroll]] for (uint j = 0; j < ITEMS; j++) {
            bool live = own && t + j < p.time;
            float x_j = live ? x.v[p.x_at + (row + j) * p.x_ld + c] : 0.0;
            dt_of[j] = live ? dt.v[p.dt_at + (row + j) * p.dt_ld + c] : 0.0;
            u[j] = dt_of[j] * x_j;
            sum[j] = skip * x_j;
        }
        for (uint n0 = 0; n0 < p.states; n0 += BUNCH) {
            float a[BUNCH], b[BUNCH], h[BUNCH], decay[ITEMS][BUNCH], add[ITEMS][BUNCH];
            [[unroll]] for (uint s = 0; s < BUNCH; s++) {
                bool live = own && n0 + s < p.states;
                float rate = live ? A.v[p.A_at + c * p.A_ld + n0 + s] * LOG2_E : 0.0;
                a[s] = 1.0;
                b[s] = 0.0;
                [[unroll]] for (uint j = 0; j < ITEMS; j++) {
                    uint at = p.B_at + (row + j) * p.B_ld + n0 + s;
                    decay[j][s] = exp2(rate * dt_of[j]);
                    add[j][s] = live && t + j < p.time ? u[j] * B.v[at] : 0.0;
                    a[s] *= decay[j][s];
                    b[s] = decay[j][s] * b[s] + add[j][s];
                }
            }
            compose_lanes(a, b, false);
            [[unroll]] for (uint s = 0; s < BUNCH; s++) {
                h[s] = n0 + s < p.states ? carry[channel * p.states + n0 + s] : 0.0;
                h[s] = a[s] * h[s] + b[s];
            }
            barrier();
            [[unroll]] for (uint j = 0; j < ITEMS; j++) {
                bool live = own && t + j < p.time;
                bool keep = live && has_boundaries && (t + j) % p.chunk == 0;
                uint to = (i * p.chunks + (t + j) / p.chunk) * p.channels + c;
                [[unroll]] for (uint s = 0; s < BUNCH; s++) {
                    uint n = n0 + s;
                    if (keep && n < p.states)
                        boundaries.v[p.boundaries_at + to * p.boundaries_ld + n] = h[s];
                    h[s] = decay[j][s] * h[s] + add[j][s];
                    if (live && n < p.states)
                        sum[j] += C.v[p.C_at + (row + j) * p.C_ld + n] * h[s];
                }
            }
            [[unroll]] for (uint s = 0; s < BUNCH; s++)
                if (LANE >= SIZE - CHANNELS && n0 + s < p.states)
                    carry[channel * p.states + n0 + s] = h[s];
        }
        [[unroll]] for (uint j = 0; j < ITEMS; j++) {
            if (!own || t + j >= p.time)
                continue;
            if ((p.has & HAS_Z) != 0)
                sum[j] *= silu_of(z.v[p.z_at + (row + j) * p.z_ld + c]);
            y.v[p.y_at + (row + j) * p.y_ld + c] = sum[j];
        }
    }
    barrier();
    for (uint k = LANE; k < CHANNELS * p.states && has_state; k += SIZE) {
        uint channel_k = k / p.states, n = k % p.states, row = i * p.channels + first + channel_k;
        if (i < p.batch && first + channel_k < p.channels)
            state.v[p.state_at + row * p.state_ld + n] = carry[k];
    }
}
