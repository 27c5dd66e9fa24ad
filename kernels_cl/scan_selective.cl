/* selective_scan: see host/ops/scan.c for its contract, and scan_selective.clh. */
#include "scan_selective.clh"

/* The recurrence, step by step. A workgroup takes its channels through one span of the steps of a
 * sequence: all of them in the sequential variant. The chunked variant runs it twice on many short
 * spans: to find how each span ends when it starts from zeros (`ends`, and the sum of dt in
 * `total`), and, when selective_scan_carry has made start states of that, for y. What the lanes of
 * a channel add to y is kept for a whole tile before it is summed. */
kernel void selective_scan_sequential(global const float *x, global const float *dt,
                                      global const float *A, global const float *B,
                                      global const float *C, global const float *D,
                                      global const float *z, global float *state,
                                      global const float *start, global float *y,
                                      global float *boundaries, global float *ends,
                                      global float *total, const struct scan_args p)
{
    local float tile_x[STEPS * WIDE], tile_dt[STEPS * WIDE];
    local float tile_b[STEPS * SLOTS], tile_c[STEPS * SLOTS], part[STEPS * SIZE];
    float h[STATES], rate[STATES], sum_dt = 0.0f;
    uint blocks = (p.channels + WIDE - 1) / WIDE;
    uint span = GROUP / blocks % p.spans, i = GROUP / blocks / p.spans;
    uint first = GROUP % blocks * WIDE, channel = LANE / SPLIT, lane = LANE % SPLIT;
    uint c = first + channel, cols = p.channels - first;
    bool own = i < p.batch && c < p.channels;
    uint t0 = span * p.span, t1 = i < p.batch ? min(t0 + p.span, p.time) : 0;
    uint state_row = i * p.channels + c, span_row = (i * p.spans + span) * p.channels + c;
    uint start_ld = p.start_ld ? p.start_ld : p.states;
    uint boundaries_ld = p.boundaries_ld ? p.boundaries_ld : p.states;
    uint boundary = (t0 + p.chunk - 1) / p.chunk, stop = boundary * p.chunk;

#pragma unroll
    for (uint s = 0; s < STATES; s++) {
        uint n = s * SPLIT + lane;
        bool live = own && n < p.states;
        rate[s] = live ? A[p.A_at + c * p.A_ld + n] * LOG2_E : 0.0f;
        h[s] = 0.0f;
        if (live && p.has & HAS_START)
            h[s] = start[p.start_at + span_row * start_ld + n];
        else if (live && p.has & HAS_STATE)
            h[s] = state[p.state_at + state_row * p.state_ld + n];
    }
    for (uint t = t0; t < t1; t += STEPS) {
        uint row = i * p.time + t, steps = min((uint)STEPS, t1 - t);
        barrier(CLK_LOCAL_MEM_FENCE);
        load_channels(tile_x, x, p.x_at + row * p.x_ld + first, p.x_ld, steps, cols);
        load_channels(tile_dt, dt, p.dt_at + row * p.dt_ld + first, p.dt_ld, steps, cols);
        load_states(tile_b, B, p.B_at + row * p.B_ld, p.B_ld, steps, p.states);
        if (p.has & HAS_Y)
            load_states(tile_c, C, p.C_at + row * p.C_ld, p.C_ld, steps, p.states);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint j = 0; j < steps; j++) {
            float dt_j = tile_dt[j * WIDE + channel], u = dt_j * tile_x[j * WIDE + channel];
            float sum = 0.0f;
            if (p.has & HAS_BOUNDARIES && t + j == stop) {
                uint at = p.boundaries_at +
                          ((i * p.chunks + boundary) * p.channels + c) * boundaries_ld + lane;
#pragma unroll
                for (uint s = 0; s < STATES; s++)
                    if (own && s * SPLIT + lane < p.states)
                        boundaries[at + s * SPLIT] = h[s];
                boundary++;
                stop += p.chunk;
            }
#pragma unroll
            for (uint s = 0; s < STATES; s++) {
                uint at = j * SLOTS + s * SPLIT + lane;
                h[s] = exp2(dt_j * rate[s]) * h[s] + u * tile_b[at];
                sum += tile_c[at] * h[s];
            }
            part[j * SIZE + LANE] = sum;
            sum_dt += dt_j;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint k = LANE; k < steps * WIDE && p.has & HAS_Y; k += SIZE) {
            uint j = k / WIDE, channel_k = k % WIDE, c_k = first + channel_k;
            if (channel_k >= cols)
                continue;
            float sum = sum_of_channel(part + j * SIZE, channel_k);
            if (p.has & HAS_D)
                sum += D[p.D_at + c_k] * tile_x[k];
            if (p.has & HAS_Z)
                sum *= silu_of(z[p.z_at + (row + j) * p.z_ld + c_k]);
            y[p.y_at + (row + j) * p.y_ld + c_k] = sum;
        }
    }
    if (own && lane == 0 && p.has & HAS_ENDS)
        total[p.total_at + span_row] = sum_dt;
#pragma unroll
    for (uint s = 0; s < STATES; s++) {
        uint n = s * SPLIT + lane;
        if (!own || n >= p.states)
            continue;
        if (p.has & HAS_ENDS)
            ends[p.ends_at + span_row * p.states + n] = h[s];
        else if (p.has & HAS_STATE && span + 1 == p.spans)
            state[p.state_at + state_row * p.state_ld + n] = h[s];
    }
}

#define AHEAD 8 /* spans whose operands are under way together */

/* From how spans end when they begin with zeros to what they really begin with, in place: one
 * invocation takes one state of one sequence through its spans, of which each decays it by
 * exp(A total). `backward` goes from the last span to the first, for what flows back in time. */
kernel void selective_scan_carry(global const float *A, global const float *state,
                                 global const float *total, global float *ends,
                                 const struct carry_args p)
{
    uint per_sequence = p.channels * p.states;
    uint i = THREAD / per_sequence, e = THREAD % per_sequence;
    uint c = e / p.states, n = p.first_state + e % p.states;

    if (i >= p.batch)
        return;
    float rate = A[p.A_at + c * p.A_ld + n] * LOG2_E, h = 0.0f;
    if (p.has & HAS_STATE)
        h = state[p.state_at + (i * p.channels + c) * p.state_ld + n];
    for (uint k0 = 0; k0 < p.spans; k0 += AHEAD) {
        float end[AHEAD], decay[AHEAD];
#pragma unroll
        for (uint j = 0; j < AHEAD; j++) {
            uint k = min(k0 + j, p.spans - 1);
            uint row = i * p.spans + (p.backward ? p.spans - 1 - k : k);
            end[j] = ends[p.ends_at + row * per_sequence + e];
            decay[j] = exp2(rate * total[p.total_at + row * p.channels + c]);
        }
#pragma unroll
        for (uint j = 0; j < AHEAD; j++) {
            uint k = k0 + j;
            uint row = i * p.spans + (p.backward ? p.spans - 1 - k : k);
            if (k < p.spans)
                ends[p.ends_at + row * per_sequence + e] = h;
            h = decay[j] * h + end[j];
        }
    }
}

/* An associative scan over time. A workgroup takes CHANNELS channels of one sequence; each lane's
 * steps are one map h -> a h + b, and a scan over the lanes composes these, so that SIZE * ITEMS /
 * CHANNELS steps are taken at once. The states between such tiles stand in `carry`. Steps beyond
 * the end have dt 0: they leave h as it is. */
kernel void selective_scan_parallel(global const float *x, global const float *dt,
                                    global const float *A, global const float *B,
                                    global const float *C, global const float *D,
                                    global const float *z, global float *state, global float *y,
                                    global float *boundaries, const struct parallel_args p)
{
    local float of_a[BUNCH * SIZE], of_b[BUNCH * SIZE], carry[CHANNELS * 256];
    uint blocks = (p.channels + CHANNELS - 1) / CHANNELS;
    uint i = GROUP / blocks, first = GROUP % blocks * CHANNELS;
    uint channel = LANE % CHANNELS, c = first + channel, time = i < p.batch ? p.time : 0;
    bool own = i < p.batch && c < p.channels;
    float skip = own && p.has & HAS_D ? D[p.D_at + c] : 0.0f;

    for (uint k = LANE; k < CHANNELS * p.states; k += SIZE) {
        uint channel_k = k / p.states, n = k % p.states;
        bool live = i < p.batch && first + channel_k < p.channels && p.has & HAS_STATE;
        uint row = i * p.channels + first + channel_k;
        carry[k] = live ? state[p.state_at + row * p.state_ld + n] : 0.0f;
    }
    for (uint t0 = 0; t0 < time; t0 += TIMES * ITEMS) {
        uint t = t0 + LANE / CHANNELS * ITEMS, row = i * p.time + t;
        float dt_of[ITEMS], u[ITEMS], sum[ITEMS];
#pragma unroll
        for (uint j = 0; j < ITEMS; j++) {
            bool live = own && t + j < p.time;
            float x_j = live ? x[p.x_at + (row + j) * p.x_ld + c] : 0.0f;
            dt_of[j] = live ? dt[p.dt_at + (row + j) * p.dt_ld + c] : 0.0f;
            u[j] = dt_of[j] * x_j;
            sum[j] = skip * x_j;
        }
        for (uint n0 = 0; n0 < p.states; n0 += BUNCH) {
            float a[BUNCH], b[BUNCH], h[BUNCH], decay[ITEMS][BUNCH], add[ITEMS][BUNCH];
#pragma unroll
            for (uint s = 0; s < BUNCH; s++) {
                bool live = own && n0 + s < p.states;
                float rate = live ? A[p.A_at + c * p.A_ld + n0 + s] * LOG2_E : 0.0f;
                a[s] = 1.0f;
                b[s] = 0.0f;
#pragma unroll
                for (uint j = 0; j < ITEMS; j++) {
                    uint at = p.B_at + (row + j) * p.B_ld + n0 + s;
                    decay[j][s] = exp2(rate * dt_of[j]);
                    add[j][s] = live && t + j < p.time ? u[j] * B[at] : 0.0f;
                    a[s] *= decay[j][s];
                    b[s] = decay[j][s] * b[s] + add[j][s];
                }
            }
            compose_lanes(a, b, of_a, of_b, false);
#pragma unroll
            for (uint s = 0; s < BUNCH; s++) {
                h[s] = n0 + s < p.states ? carry[channel * p.states + n0 + s] : 0.0f;
                h[s] = a[s] * h[s] + b[s];
            }
            barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
            for (uint j = 0; j < ITEMS; j++) {
                bool live = own && t + j < p.time;
                bool keep = live && p.has & HAS_BOUNDARIES && (t + j) % p.chunk == 0;
                uint to = (i * p.chunks + (t + j) / p.chunk) * p.channels + c;
#pragma unroll
                for (uint s = 0; s < BUNCH; s++) {
                    uint n = n0 + s;
                    if (keep && n < p.states)
                        boundaries[p.boundaries_at + to * p.boundaries_ld + n] = h[s];
                    h[s] = decay[j][s] * h[s] + add[j][s];
                    if (live && n < p.states)
                        sum[j] += C[p.C_at + (row + j) * p.C_ld + n] * h[s];
                }
            }
#pragma unroll
            for (uint s = 0; s < BUNCH; s++)
                if (LANE >= SIZE - CHANNELS && n0 + s < p.states)
                    carry[channel * p.states + n0 + s] = h[s];
        }
#pragma unroll
        for (uint j = 0; j < ITEMS; j++) {
            if (!own || t + j >= p.time)
                continue;
            if (p.has & HAS_Z)
                sum[j] *= silu_of(z[p.z_at + (row + j) * p.z_ld + c]);
            y[p.y_at + (row + j) * p.y_ld + c] = sum[j];
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint k = LANE; k < CHANNELS * p.states && p.has & HAS_STATE; k += SIZE) {
        uint channel_k = k / p.states, n = k % p.states, row = i * p.channels + first + channel_k;
        if (i < p.batch && first + channel_k < p.channels)
            state[p.state_at + row * p.state_ld + n] = carry[k];
    }
}
