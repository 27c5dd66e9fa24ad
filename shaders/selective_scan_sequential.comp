#version 450
#extension GL_GOOGLE_include_directive : require
#include "scan_selective.glsl"

ARGS(scan_args)
IN(1, x)
IN(2, dt)
IN(3, A)
IN(4, B)
IN(5, C)
IN(6, D)
IN(7, z)
INOUT(8, state)
IN(9, start)
OUT(10, y)
OUT(11, boundaries)
OUT(12, ends)
OUT(13, total)

shared float tile_x[STEPS * WIDE], tile_dt[STEPS * WIDE];
shared float tile_b[STEPS * SLOTS], tile_c[STEPS * SLOTS], part[STEPS * SIZE];

// The recurrence, step by step. A workgroup takes its channels through one span of the steps of a
// sequence: all of them in the sequential variant. The chunked variant runs it twice on many short
// spans: to find how each span ends when it starts from zeros (`ends`, and the sum of dt in
// `total`), and, when selective_scan_carry has made start states of that, for y. What the lanes of
// a channel add to y is kept for a whole tile before it is summed.
void main()
{
    float h[STATES], rate[STATES], sum_dt = 0.0;
    uint blocks = (p.channels + WIDE - 1) / WIDE;
    uint span = GROUP / blocks % p.spans, i = GROUP / blocks / p.spans;
    uint first = GROUP % blocks * WIDE, channel = LANE / SPLIT, lane = LANE % SPLIT;
    uint c = first + channel, cols = p.channels - first;
    bool own = i < p.batch && c < p.channels;
    uint t0 = span * p.span, t1 = i < p.batch ? min(t0 + p.span, p.time) : 0;
    uint state_row = i * p.channels + c, span_row = (i * p.spans + span) * p.channels + c;
    uint start_ld = p.start_ld != 0 ? p.start_ld : p.states;
    uint boundaries_ld = p.boundaries_ld != 0 ? p.boundaries_ld : p.states;
    uint boundary = (t0 + p.chunk - 1) / p.chunk, stop = boundary * p.chunk;
    bool has_state = (p.has & HAS_STATE) != 0, has_start = (p.has & HAS_START) != 0;
    bool has_ends = (p.has & HAS_ENDS) != 0, has_boundaries = (p.has & HAS_BOUNDARIES) != 0;

    [[unroll]] for (uint s = 0; s < STATES; s++) {
        uint n = s * SPLIT + lane;
        bool live = own && n < p.states;
        rate[s] = live ? A.v[p.A_at + c * p.A_ld + n] * LOG2_E : 0.0;
        h[s] = 0.0;
        if (live && has_start)
            h[s] = start.v[p.start_at + span_row * start_ld + n];
        else if (live && has_state)
            h[s] = state.v[p.state_at + state_row * p.state_ld + n];
    }
    for (uint t = t0; t < t1; t += STEPS) {
        uint row = i * p.time + t, steps = min(STEPS, t1 - t);
        barrier();
        LOAD_CHANNELS(tile_x, x, p.x_at + row * p.x_ld + first, p.x_ld, steps, cols)
        LOAD_CHANNELS(tile_dt, dt, p.dt_at + row * p.dt_ld + first, p.dt_ld, steps, cols)
        LOAD_STATES(tile_b, B, p.B_at + row * p.B_ld, p.B_ld, steps, p.states)
        if ((p.has & HAS_Y) != 0)
            LOAD_STATES(tile_c, C, p.C_at + row * p.C_ld, p.C_ld, steps, p.states)
        barrier();
        for (uint j = 0; j < steps; j++) {
            float dt_j = tile_dt[j * WIDE + channel], u = dt_j * tile_x[j * WIDE + channel];
            float sum = 0.0;
            if (has_boundaries && t + j == stop) {
                uint at = p.boundaries_at +
                          ((i * p.chunks + boundary) * p.channels + c) * boundaries_ld + lane;
                [[unroll]] for (uint s = 0; s < STATES; s++)
                    if (own && s * SPLIT + lane < p.states)
                        boundaries.v[at + s * SPLIT] = h[s];
                boundary++;
                stop += p.chunk;
            }
            [[unroll]] for (uint s = 0; s < STATES; s++) {
                uint at = j * SLOTS + s * SPLIT + lane;
                h[s] = exp2(dt_j * rate[s]) * h[s] + u * tile_b[at];
                sum += tile_c[at] * h[s];
            }
            part[j * SIZE + LANE] = sum;
            sum_dt += dt_j;
        }
        barrier();
        for (uint k = LANE; k < steps * WIDE && (p.has & HAS_Y) != 0; k += SIZE) {
            uint j = k / WIDE, channel_k = k % WIDE, c_k = first + channel_k;
            if (channel_k >= cols)
                continue;
            float sum;
            SUM_OF_CHANNEL(sum, part, j * SIZE, channel_k)
            if ((p.has & HAS_D) != 0)
                sum += D.v[p.D_at + c_k] * tile_x[k];
            if ((p.has & HAS_Z) != 0)
                sum *= silu_of(z.v[p.z_at + (row + j) * p.z_ld + c_k]);
            y.v[p.y_at + (row + j) * p.y_ld + c_k] = sum;
        }
    }
    if (own && lane == 0 && has_ends)
        total.v[p.total_at + span_row] = sum_dt;
    [[unroll]] for (uint s = 0; s < STATES; s++) {
        uint n = s * SPLIT + lane;
        if (own && n < p.states) {
            if (has_ends)
                ends.v[p.ends_at + span_row * p.states + n] = h[s];
            else if (has_state && span + 1 == p.spans)
                state.v[p.state_at + state_row * p.state_ld + n] = h[s];
        }
    }
}
