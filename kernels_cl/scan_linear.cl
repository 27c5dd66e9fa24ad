/* linear_scan and its gradient: see host/ops/scan.c for the contracts, scan.clh for the tile of a
 * workgroup. Chunked: linear_scan_chunk, scan_starts, then linear_scan_parallel on every chunk. */
#include "scan.clh"

/* An invocation takes a column of a sequence, with the state in a register; it reads several steps
 * ahead. Neighbouring lanes take neighbouring columns. */
kernel void linear_scan_sequential(global const float *a, global const float *b,
                                   global float *state, global float *h,
                                   const struct linear_scan_sequential_args p)
{
    uint sequence = THREAD / p.cols, col = THREAD % p.cols;
    if (sequence >= p.batch)
        return;
    uint state_at = p.state_at + sequence * p.state_ld + col;
    float value = p.has_state != 0 ? state[state_at] : 0.0f;
    for (uint first = 0; first < p.time; first += SCAN_STEPS) {
        struct scan_map step[SCAN_STEPS];
        uint row = sequence * p.time + first;
        for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.time) {
                step[i].a = a[p.a_at + (row + i) * p.a_ld + col];
                step[i].b = b[p.b_at + (row + i) * p.b_ld + col];
            }
        for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.time) {
                value = step[i].a * value + step[i].b;
                h[p.h_at + (row + i) * p.h_ld + col] = value;
            }
    }
    if (p.has_state != 0)
        state[state_at] = value;
}

/* A workgroup takes `width` columns of a chunk of a sequence, tile by tile of time. Row `sequence *
 * chunks + chunk` of state is where it starts, but for SCAN_NO_STATE; SCAN_STATE is left
 * with the end. */
kernel void linear_scan_parallel(global const float *a, global const float *b, global float *state,
                                 global float *h, const struct linear_scan_parallel_args p)
{
    local float tile_a[SCAN_LANES], tile_b[SCAN_LANES];
    uint piece = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    uint sequence = piece / p.chunks, first = piece % p.chunks * p.chunk;
    uint end = min(first + p.chunk, p.time);
    bool live = col < p.cols;
    uint state_at = p.state_at + piece * p.start_ld + col;
    float carry = live && p.state_mode != SCAN_NO_STATE ? state[state_at] : 0.0f;
    for (uint block = first; block < end; block += SCAN_LANES / p.width * SCAN_STEPS) {
        struct scan_map step[SCAN_STEPS], own = {1.0f, 0.0f}, total;
        uint t = block + LANE / p.width * SCAN_STEPS, row = sequence * p.time + t;
        for (uint i = 0; i < SCAN_STEPS; i++) {
            bool valid = live && t + i < end;
            step[i].a = valid ? a[p.a_at + (row + i) * p.a_ld + col] : 1.0f;
            step[i].b = valid ? b[p.b_at + (row + i) * p.b_ld + col] : 0.0f;
            own = scan_after(step[i], own);
        }
        struct scan_map before = scan_lanes(own, p.width, tile_a, tile_b, &total);
        float value = before.a * carry + before.b;
        for (uint i = 0; i < SCAN_STEPS; i++) {
            value = step[i].a * value + step[i].b;
            if (live && t + i < end)
                h[p.h_at + (row + i) * p.h_ld + col] = value;
        }
        carry = total.a * carry + total.b;
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    barrier(CLK_GLOBAL_MEM_FENCE); /* all lanes of a column have read its start */
    if (live && p.state_mode == SCAN_STATE && LANE < p.width)
        state[state_at] = carry;
}

/* A workgroup finds the map of `width` columns of a chunk of a sequence: what the chunk leaves of
 * its start (decay) and what it leaves from zeros (ends), both (batch, chunks, cols). Each lane
 * first goes through its share of the steps. */
kernel void linear_scan_chunk(global const float *a, global const float *b, global float *decay,
                              global float *ends, const struct linear_scan_chunk_args p)
{
    local float tile_a[SCAN_LANES], tile_b[SCAN_LANES];
    uint piece = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    uint sequence = piece / p.chunks, first = piece % p.chunks * p.chunk;
    uint end = min(first + p.chunk, p.time), rows = SCAN_LANES / p.width;
    uint share = (p.chunk + rows - 1) / rows, lane_first = first + LANE / p.width * share;
    bool live = col < p.cols;
    struct scan_map own = {1.0f, 0.0f}, total;
    for (uint i = 0; i < share; i++) {
        uint t = lane_first + i, row = sequence * p.time + t;
        if (live && t < end) {
            struct scan_map step = {a[p.a_at + row * p.a_ld + col], b[p.b_at + row * p.b_ld + col]};
            own = scan_after(step, own);
        }
    }
    scan_lanes(own, p.width, tile_a, tile_b, &total);
    if (live && LANE < p.width) {
        decay[p.decay_at + piece * p.cols + col] = total.a;
        ends[p.ends_at + piece * p.cols + col] = total.b;
    }
}

/* The gradient is a scan from the last step to the first: step s is t = time - 1 - s, and brings
 * g[t] = a[t+1] g[t+1] + dh[t]. Chunks, and lanes of a tile, count from the end of time too. */

/* As linear_scan_sequential. */
kernel void linear_scan_bwd_sequential(global const float *dh, global const float *a,
                                       global const float *h, global float *da, global float *db,
                                       const struct linear_scan_bwd_sequential_args p)
{
    uint sequence = THREAD / p.cols, col = THREAD % p.cols;
    if (sequence >= p.batch)
        return;
    float flow = 0.0f; /* a[t+1] g[t+1] */
    for (uint first = 0; first < p.time; first += SCAN_STEPS) {
        float decay[SCAN_STEPS], inflow[SCAN_STEPS], before[SCAN_STEPS];
        uint row = sequence * p.time + p.time - 1 - first;
        for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.time) {
                decay[i] = a[p.a_at + (row - i) * p.a_ld + col];
                inflow[i] = dh[p.dh_at + (row - i) * p.dh_ld + col];
                before[i] =
                    first + i + 1 < p.time ? h[p.h_at + (row - i - 1) * p.h_ld + col] : 0.0f;
            }
        for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.time) {
                float g = inflow[i] + flow;
                da[p.da_at + (row - i) * p.da_ld + col] = g * before[i];
                db[p.db_at + (row - i) * p.db_ld + col] = g;
                flow = decay[i] * g;
            }
    }
}

/* As linear_scan_parallel; starts (batch, chunks, cols) hold g after each chunk. */
kernel void linear_scan_bwd_parallel(global const float *dh, global const float *a,
                                     global const float *h, global const float *starts,
                                     global float *da, global float *db,
                                     const struct linear_scan_bwd_parallel_args p)
{
    local float tile_a[SCAN_LANES], tile_b[SCAN_LANES];
    uint piece = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    uint sequence = piece / p.chunks, first = piece % p.chunks * p.chunk;
    uint end = min(first + p.chunk, p.time), last_row = sequence * p.time + p.time - 1;
    bool live = col < p.cols;
    float carry = live && p.has_start != 0 ? starts[p.starts_at + piece * p.cols + col] : 0.0f;
    for (uint block = first; block < end; block += SCAN_LANES / p.width * SCAN_STEPS) {
        struct scan_map step[SCAN_STEPS], own = {1.0f, 0.0f}, total;
        uint s = block + LANE / p.width * SCAN_STEPS, row = last_row - s;
        for (uint i = 0; i < SCAN_STEPS; i++) {
            bool valid = live && s + i < end;
            step[i].a =
                valid ? (s + i > 0 ? a[p.a_at + (row - i + 1) * p.a_ld + col] : 0.0f) : 1.0f;
            step[i].b = valid ? dh[p.dh_at + (row - i) * p.dh_ld + col] : 0.0f;
            own = scan_after(step[i], own);
        }
        struct scan_map before = scan_lanes(own, p.width, tile_a, tile_b, &total);
        float g = before.a * carry + before.b;
        for (uint i = 0; i < SCAN_STEPS; i++) {
            g = step[i].a * g + step[i].b;
            if (live && s + i < end) {
                float h_before =
                    s + i + 1 < p.time ? h[p.h_at + (row - i - 1) * p.h_ld + col] : 0.0f;
                da[p.da_at + (row - i) * p.da_ld + col] = g * h_before;
                db[p.db_at + (row - i) * p.db_ld + col] = g;
            }
        }
        carry = total.a * carry + total.b;
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

/* As linear_scan_chunk. */
kernel void linear_scan_bwd_chunk(global const float *dh, global const float *a,
                                  global float *decay, global float *ends,
                                  const struct linear_scan_bwd_chunk_args p)
{
    local float tile_a[SCAN_LANES], tile_b[SCAN_LANES];
    uint piece = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    uint sequence = piece / p.chunks, first = piece % p.chunks * p.chunk;
    uint end = min(first + p.chunk, p.time), rows = SCAN_LANES / p.width;
    uint share = (p.chunk + rows - 1) / rows, lane_first = first + LANE / p.width * share;
    bool live = col < p.cols;
    struct scan_map own = {1.0f, 0.0f}, total;
    for (uint i = 0; i < share; i++) {
        uint s = lane_first + i, row = sequence * p.time + p.time - 1 - s;
        if (live && s < end) {
            struct scan_map step = {s > 0 ? a[p.a_at + (row + 1) * p.a_ld + col] : 0.0f,
                                    dh[p.dh_at + row * p.dh_ld + col]};
            own = scan_after(step, own);
        }
    }
    scan_lanes(own, p.width, tile_a, tile_b, &total);
    if (live && LANE < p.width) {
        decay[p.decay_at + piece * p.cols + col] = total.a;
        ends[p.ends_at + piece * p.cols + col] = total.b;
    }
}
