/* ssd_scan: see host/ops/scan.c for the contract, scan_ssd.clh for chunks and tiles.
 *
 * Chunked (Dao & Gu 2024, section 6): in a chunk of up to 64 steps, with cum[t] the sum of dt A
 * from the chunk's first step to t, and S its start state,
 *
 *   y[t]  = exp(cum[t]) C[t] S + sum_{s <= t} (C[t] . B[s]) exp(cum[t] - cum[s]) dt[s] x[s]
 *   S_end = exp(cum[last]) S + sum_s exp(cum[last] - cum[s]) dt[s] B[s] x[s]
 *
 * ssd_scan_scores finds C B^T, which serves all heads of a group; ssd_scan_ends S_end from zeros;
 * ssd_scan_starts S; ssd_scan_outputs y. */
#include "scan_ssd.clh"

#ifndef STATE_SLICES
#define STATE_SLICES 4
#endif

/* A row of the state, (sequence, head, head channel), is in registers of `lanes` neighbouring
 * lanes (a power of two), which take every `lanes`-th state; a workgroup takes 128 / lanes rows. */
kernel void ssd_scan_sequential(global const float *x, global const float *dt,
                                global const float *A, global const float *B, global const float *C,
                                global const float *D, global float *state, global float *y,
                                global float *boundaries, const struct ssd_scan_sequential_args p)
{
    local float sums[SCAN_STEPS * SCAN_LANES];
    float h[STATE_SLICES];
    uint row = GROUP * (SCAN_LANES / p.lanes) + LANE / p.lanes, lane = LANE % p.lanes;
    uint head = row / p.width % p.heads, sequence = row / (p.width * p.heads);
    uint channel = row % (p.width * p.heads), state_at = p.state_at + row * p.state_ld;
    uint group_at = head / p.group_heads * p.states;
    bool live = sequence < p.batch;
    float rate = live ? A[p.A_at + head] : 0.0f;
    float skip = live && p.has_skip != 0 ? D[p.D_at + head] : 0.0f;
    for (uint j = 0; j < STATE_SLICES; j++) {
        uint n = lane + j * p.lanes;
        h[j] = live && p.has_state != 0 && n < p.states ? state[state_at + n] : 0.0f;
    }
    for (uint first = 0; first < p.time; first += SCAN_STEPS) {
        float y_skip[SCAN_STEPS];
        for (uint i = 0; i < SCAN_STEPS; i++) {
            uint t = first + i, at = sequence * p.time + t;
            bool valid = live && t < p.time;
            float step = valid ? dt[p.dt_at + at * p.dt_ld + head] : 0.0f;
            float channel_x = valid ? x[p.x_at + at * p.x_ld + channel] : 0.0f;
            float e = exp(step * rate), drive = step * channel_x, sum = 0.0f;
            bool stores = valid && p.has_boundaries != 0 && t % p.chunk == 0;
            uint boundary_row = (sequence * p.chunks + t / p.chunk) * p.heads * p.width + channel;
            for (uint j = 0; j < STATE_SLICES; j++) {
                uint n = lane + j * p.lanes;
                if (valid && n < p.states) {
                    if (stores)
                        boundaries[p.boundaries_at + boundary_row * p.boundaries_ld + n] = h[j];
                    h[j] = e * h[j] + drive * B[p.B_at + at * p.B_ld + group_at + n];
                    sum += C[p.C_at + at * p.C_ld + group_at + n] * h[j];
                }
            }
            y_skip[i] = skip * channel_x;
            sums[i * SCAN_LANES + LANE] = sum;
        }
        scan_sum_columns(p.lanes, sums);
        if (live && lane == 0)
            for (uint i = 0; i < SCAN_STEPS; i++)
                if (first + i < p.time)
                    y[p.y_at + (sequence * p.time + first + i) * p.y_ld + channel] =
                        sums[i * SCAN_LANES + LANE] + y_skip[i];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (uint j = 0; j < STATE_SLICES; j++) {
        uint n = lane + j * p.lanes;
        if (live && p.has_state != 0 && n < p.states)
            state[state_at + n] = h[j];
    }
}

/* A workgroup takes a row of the state, (sequence, head, head channel), of up to SSD_MAX_STATES states. Its
 * lanes take 128 steps; four states at a time, seven rounds bring to each lane the sum of all
 * earlier inputs, decayed: in round i from 2^i lanes before, by decay[i]. */
kernel void ssd_scan_parallel(global const float *x, global const float *dt, global const float *A,
                              global const float *B, global const float *C, global const float *D,
                              global float *state, global float *y, global float *boundaries,
                              const struct ssd_scan_parallel_args p)
{
    local float carry[SSD_MAX_STATES], products[SCAN_LANES];
    local float inflow[8 * SCAN_LANES];
    uint row = GROUP, head = row / p.width % p.heads, sequence = row / (p.width * p.heads);
    uint channel = row % (p.width * p.heads), state_at = p.state_at + row * p.state_ld;
    uint group_at = head / p.group_heads * p.states;
    uint boundary_row = sequence * p.chunks * p.heads * p.width + channel;
    float rate = A[p.A_at + head], skip = p.has_skip != 0 ? D[p.D_at + head] : 0.0f;
    for (uint n = LANE; n < p.states; n += SCAN_LANES) {
        carry[n] = p.has_state != 0 ? state[state_at + n] : 0.0f;
        if (p.has_boundaries != 0 && p.time > 0)
            boundaries[p.boundaries_at + boundary_row * p.boundaries_ld + n] = carry[n];
    }
    for (uint first = 0; first < p.time; first += SCAN_LANES) {
        uint t = first + LANE, at = sequence * p.time + t;
        bool valid = t < p.time;
        bool stores = p.has_boundaries != 0 && t + 1 < p.time && (t + 1) % p.chunk == 0;
        uint stored_row = boundary_row + (t + 1) / p.chunk * p.heads * p.width;
        float step = valid ? dt[p.dt_at + at * p.dt_ld + head] : 0.0f;
        float channel_x = valid ? x[p.x_at + at * p.x_ld + channel] : 0.0f;
        float drive = step * channel_x, sum = skip * channel_x;
        float decay[7], product = exp(step * rate);
        for (uint i = 0; i < 7; i++) {
            barrier(CLK_LOCAL_MEM_FENCE);
            products[LANE] = product;
            barrier(CLK_LOCAL_MEM_FENCE);
            bool has = LANE >= 1u << i;
            decay[i] = has ? product : 0.0f;
            product *= has ? products[LANE - (1u << i)] : 1.0f;
        }
        for (uint n = 0; n < p.states; n += 4) {
            float h[4], c[4], start[4];
            for (uint j = 0; j < 4; j++) {
                bool has = n + j < p.states;
                uint col = group_at + n + j;
                start[j] = has ? carry[n + j] : 0.0f;
                h[j] = has && valid ? drive * B[p.B_at + at * p.B_ld + col] : 0.0f;
                c[j] = has && valid ? C[p.C_at + at * p.C_ld + col] : 0.0f;
            }
            for (uint i = 0; i < 7; i++) {
                uint now = i % 2 * 4 * SCAN_LANES + LANE;
                for (uint j = 0; j < 4; j++)
                    inflow[now + j * SCAN_LANES] = h[j];
                barrier(CLK_LOCAL_MEM_FENCE);
                if (LANE >= 1u << i)
                    for (uint j = 0; j < 4; j++)
                        h[j] += decay[i] * inflow[now + j * SCAN_LANES - (1u << i)];
            }
            for (uint j = 0; j < 4; j++) {
                h[j] += product * start[j];
                sum += c[j] * h[j];
                if (stores && n + j < p.states)
                    boundaries[p.boundaries_at + stored_row * p.boundaries_ld + n + j] = h[j];
                if (LANE == SCAN_LANES - 1 && n + j < p.states)
                    carry[n + j] = h[j];
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        if (valid)
            y[p.y_at + at * p.y_ld + channel] = sum;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (p.has_state != 0)
        for (uint n = LANE; n < p.states; n += SCAN_LANES)
            state[state_at + n] = carry[n];
}

/* scores (batch, chunks, groups, chunk_steps, chunk_steps) = C B^T. A workgroup takes one chunk of
 * one group. */
kernel void ssd_scan_scores(global const float *B, global const float *C, global float *scores,
                            const struct ssd_scan_scores_args p)
{
    local float4 left[SSD_LEFT_SIZE];
    local float right[SSD_RIGHT_SIZE];
    uint piece = GROUP / p.groups, col = GROUP % p.groups * p.states;
    uint k = piece % p.chunks, count = SSD_COUNT(k);
    uint row = piece / p.chunks * p.time + SSD_FIRST(k);
    struct ssd_tile acc;
    ssd_clear(&acc);
    for (uint first = 0; first < p.states; first += SSD_DEPTH) {
        for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
            uint n = i % SSD_DEPTH, t = i / SSD_DEPTH;
            bool valid = t < count && first + n < p.states;
            SSD_LEFT(t, n) = valid ? C[p.C_at + (row + t) * p.C_ld + col + first + n] : 0.0f;
            SSD_RIGHT(n, t) = valid ? B[p.B_at + (row + t) * p.B_ld + col + first + n] : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        ssd_multiply(&acc, left, right);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (uint i = 0; i < 8; i++)
        for (uint j = 0; j < 4; j++) {
            uint t = SSD_ROW + i, s = SSD_COLUMN(j);
            if (t < count && s < count)
                scores[p.scores_at + (GROUP * p.chunk_steps + t) * p.chunk_steps + s] =
                    ssd_get(&acc, i, j);
        }
}

/* What a chunk leaves from zeros, ends (batch, chunks, heads, width, states), and of its start,
 * decay (batch, chunks, heads). Backward, x and B are dy and C, and it is what the chunk's outputs
 * bring to the gradient of its start state: sum_t exp(cum[t]) dy[t] C[t]. A workgroup takes 64 x 64
 * of one head's state in one chunk. */
kernel void ssd_scan_ends(global const float *x, global const float *dt, global const float *A,
                          global const float *B, global float *decay, global float *ends,
                          const struct ssd_scan_ends_args p)
{
    local float4 left[SSD_LEFT_SIZE];
    local float right[SSD_RIGHT_SIZE], steps[SSD_STEPS];
    local float2 cum[SSD_STEPS];
    uint tile = GROUP % (p.row_tiles * p.column_tiles);
    uint head_piece = GROUP / (p.row_tiles * p.column_tiles);
    uint head = head_piece % p.heads, piece = head_piece / p.heads;
    uint k = piece % p.chunks, count = SSD_COUNT(k);
    uint row = piece / p.chunks * p.time + SSD_FIRST(k);
    uint first_p = tile / p.column_tiles * SSD_STEPS, first_n = tile % p.column_tiles * SSD_STEPS;
    uint x_col = head * p.width + first_p, b_col = head / p.group_heads * p.states + first_n;
    ssd_cumulate(LANE < count ? dt[p.dt_at + (row + LANE) * p.dt_ld + head] : 0.0f,
                 A[p.A_at + head], cum, steps);
    struct ssd_tile acc;
    ssd_clear(&acc);
    for (uint first = 0; first < count; first += SSD_DEPTH) {
        for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
            uint t = first + i / SSD_STEPS, c = i % SSD_STEPS;
            float l = 0.0f, r = 0.0f;
            if (t < count && first_p + c < p.width) {
                float weight = p.backward != 0 ? exp(cum[t].x + cum[t].y)
                                               : steps[t] * ssd_decay(cum[SSD_STEPS - 1], cum[t]);
                l = weight * x[p.x_at + (row + t) * p.x_ld + x_col + c];
            }
            if (t < count && first_n + c < p.states)
                r = B[p.B_at + (row + t) * p.B_ld + b_col + c];
            SSD_LEFT(c, i / SSD_STEPS) = l;
            SSD_RIGHT(i / SSD_STEPS, c) = r;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        ssd_multiply(&acc, left, right);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (uint i = 0; i < 8; i++)
        for (uint j = 0; j < 4; j++) {
            uint row_p = first_p + SSD_ROW + i, n = first_n + SSD_COLUMN(j);
            if (row_p < p.width && n < p.states)
                ends[p.ends_at + (head_piece * p.width + row_p) * p.states + n] =
                    ssd_get(&acc, i, j);
        }
    if (tile == 0 && LANE == 0)
        decay[p.decay_at + head_piece] = exp(cum[SSD_STEPS - 1].x + cum[SSD_STEPS - 1].y);
}

/* ends become starts: the states before each chunk or, backward, the gradients of the states after
 * it. An invocation takes an element of the state of a sequence, through all chunks. */
kernel void ssd_scan_starts(global const float *decay, global float *ends, global float *state,
                            global float *boundaries, const struct ssd_scan_starts_args p)
{
    uint size = p.heads * p.width * p.states;
    uint sequence = THREAD / size, element = THREAD % size;
    if (sequence >= p.batch)
        return;
    uint head = element / (p.width * p.states), row = element / p.states, n = element % p.states;
    uint state_at = p.state_at + (sequence * p.heads * p.width + row) * p.state_ld + n;
    float value = p.has_state != 0 ? state[state_at] : 0.0f;
    for (uint first = 0; first < p.chunks; first += SCAN_STEPS) {
        struct scan_map step[SCAN_STEPS];
        for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.chunks) {
                uint k = p.backward != 0 ? p.chunks - 1 - first - i : first + i;
                uint piece = sequence * p.chunks + k;
                step[i].a = decay[p.decay_at + piece * p.heads + head];
                step[i].b = ends[p.ends_at + piece * size + element];
            }
        for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.chunks) {
                uint k = p.backward != 0 ? p.chunks - 1 - first - i : first + i;
                uint boundary_row =
                    (sequence * p.boundary_chunks + k / p.parts) * p.heads * p.width + row;
                ends[p.ends_at + (sequence * p.chunks + k) * size + element] = value;
                if (p.has_boundaries != 0 && k % p.parts == 0)
                    boundaries[p.boundaries_at + boundary_row * p.boundaries_ld + n] = value;
                value = step[i].a * value + step[i].b;
            }
    }
    if (p.has_state != 0)
        state[state_at] = value;
}

/* A workgroup takes 64 channels of one head in one chunk. */
kernel void ssd_scan_outputs(global const float *x, global const float *dt, global const float *A,
                             global const float *C, global const float *D,
                             global const float *scores, global const float *starts,
                             global float *y, const struct ssd_scan_outputs_args p)
{
    local float4 left[SSD_LEFT_SIZE];
    local float right[SSD_RIGHT_SIZE], steps[SSD_STEPS];
    local float2 cum[SSD_STEPS];
    uint first_p = GROUP % p.row_tiles * SSD_STEPS, head_piece = GROUP / p.row_tiles;
    uint head = head_piece % p.heads, piece = head_piece / p.heads;
    uint group = head / p.group_heads, groups = p.heads / p.group_heads;
    uint k = piece % p.chunks, count = SSD_COUNT(k);
    uint row = piece / p.chunks * p.time + SSD_FIRST(k);
    uint x_col = head * p.width + first_p, c_col = group * p.states;
    uint scores_at = p.scores_at + (piece * groups + group) * p.chunk_steps * p.chunk_steps;
    uint starts_at = p.starts_at + (head_piece * p.width + first_p) * p.states;
    ssd_cumulate(LANE < count ? dt[p.dt_at + (row + LANE) * p.dt_ld + head] : 0.0f,
                 A[p.A_at + head], cum, steps);
    struct ssd_tile acc;
    ssd_clear(&acc);
    for (uint first = 0; first < p.states; first += SSD_DEPTH) {
        for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
            uint n = first + i % SSD_DEPTH, c = i / SSD_DEPTH;
            float l = 0.0f, r = 0.0f;
            if (n < p.states && c < count)
                l = exp(cum[c].x + cum[c].y) * C[p.C_at + (row + c) * p.C_ld + c_col + n];
            if (n < p.states && first_p + c < p.width)
                r = starts[starts_at + c * p.states + n];
            SSD_LEFT(c, i % SSD_DEPTH) = l;
            SSD_RIGHT(i % SSD_DEPTH, c) = r;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        ssd_multiply(&acc, left, right);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (uint first = 0; first < count; first += SSD_DEPTH) {
        for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
            uint s = first + i % SSD_DEPTH, t = i / SSD_DEPTH;
            float l = 0.0f;
            if (s <= t && t < count)
                l = scores[scores_at + t * p.chunk_steps + s] * steps[s] *
                    ssd_decay(cum[t], cum[s]);
            SSD_LEFT(t, i % SSD_DEPTH) = l;
        }
        for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
            uint s = first + i / SSD_STEPS, c = i % SSD_STEPS;
            bool valid = s < count && first_p + c < p.width;
            SSD_RIGHT(i / SSD_STEPS, c) = valid ? x[p.x_at + (row + s) * p.x_ld + x_col + c] : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (SSD_ROW + 7 >= first) /* earlier rows see nothing of these steps */
            ssd_multiply(&acc, left, right);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    float skip = p.has_skip != 0 ? D[p.D_at + head] : 0.0f;
    for (uint i = 0; i < 8; i++)
        for (uint j = 0; j < 4; j++) {
            uint t = SSD_ROW + i, c = SSD_COLUMN(j);
            if (t < count && first_p + c < p.width)
                y[p.y_at + (row + t) * p.y_ld + x_col + c] =
                    ssd_get(&acc, i, j) + skip * x[p.x_at + (row + t) * p.x_ld + x_col + c];
        }
}
