#version 450
#extension GL_GOOGLE_include_directive : require
#include "scan_selective_bwd.glsl"

ARGS(flow_args)
IN(1, dy)
IN(2, dt)
IN(3, A)
IN(4, C)
IN(5, z)
OUT(6, ends)
OUT(7, total)

shared float tile_dy[STEPS * WIDE], tile_dt[STEPS * WIDE], tile_c[STEPS * SLOTS];

// What flows out of the first step of each span when nothing flows into its last; and the sum of
// dt. A workgroup takes its channels through one span, last step first.
void main()
{
    float flow[STATES], rate[STATES], sum_dt = 0.0;
    uint blocks = (p.channels + WIDE - 1) / WIDE;
    uint span = GROUP / blocks % p.spans, i = GROUP / blocks / p.spans;
    uint first = GROUP % blocks * WIDE, channel = LANE / SPLIT, lane = LANE % SPLIT;
    uint c = first + channel, cols = p.channels - first;
    bool own = i < p.batch && c < p.channels;
    uint t0 = span * p.span, t1 = i < p.batch ? min(t0 + p.span, p.time) : 0;
    uint tiles = t1 > t0 ? (t1 - t0 + STEPS - 1) / STEPS : 0;
    uint span_row = (i * p.spans + span) * p.channels + c;

    [[unroll]] for (uint s = 0; s < STATES; s++) {
        uint n = s * SPLIT + lane;
        flow[s] = 0.0;
        rate[s] = own && n < p.states ? A.v[p.A_at + c * p.A_ld + p.first_state + n] * LOG2_E : 0.0;
    }
    for (uint tile = tiles; tile-- > 0;) {
        uint t = t0 + tile * STEPS, row = i * p.time + t, steps = min(STEPS, t1 - t);
        barrier();
        LOAD_GATED(tile_dy, dy, p.dy_at + row * p.dy_ld + first, p.dy_ld, z,
                   p.z_at + row * p.z_ld + first, p.z_ld, (p.has & HAS_Z) != 0, steps, cols)
        LOAD_CHANNELS(tile_dt, dt, p.dt_at + row * p.dt_ld + first, p.dt_ld, steps, cols)
        LOAD_STATES(tile_c, C, p.C_at + row * p.C_ld + p.first_state, p.C_ld, steps, p.states)
        barrier();
        for (uint j = steps; j-- > 0;) {
            float dt_j = tile_dt[j * WIDE + channel], dy_j = tile_dy[j * WIDE + channel];
            [[unroll]] for (uint s = 0; s < STATES; s++)
                flow[s] =
                    exp2(dt_j * rate[s]) * (tile_c[j * SLOTS + s * SPLIT + lane] * dy_j + flow[s]);
            sum_dt += dt_j;
        }
    }
    if (own && lane == 0)
        total.v[p.total_at + span_row] = sum_dt;
    [[unroll]] for (uint s = 0; s < STATES; s++)
        if (own && s * SPLIT + lane < p.states)
            ends.v[p.ends_at + span_row * p.states + s * SPLIT + lane] = flow[s];
}
