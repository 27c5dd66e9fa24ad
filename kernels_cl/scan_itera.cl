/* itera_scan and its gradient: see host/ops/scan.c for the contracts, scan.clh for the tile of a
 * workgroup. Chunked: itera_scan_chunk, scan_starts, then itera_scan_parallel on every chunk. */
#include "scan.clh"

/* An invocation takes a state of a sequence, in a register; it reads several steps ahead.
 * Neighbouring lanes take neighbouring states. */
kernel void itera_scan_sequential(global const float *d, global const float *A,
                                  global const float *u, global float *state, global float *h,
                                  const struct itera_scan_sequential_args p)
{
    uint sequence = THREAD / p.cols, col = THREAD % p.cols;
    if (sequence >= p.batch)
        return;
    float rate = A[p.A_at + col];
    uint state_at = p.state_at + sequence * p.state_ld + col;
    float value = p.has_state != 0 ? state[state_at] : 0.0f;
    for (uint first = 0; first < p.time; first += SCAN_STEPS) {
        struct scan_map step[SCAN_STEPS];
        uint row = sequence * p.time + first;
        for (uint i = 0; i < SCAN_STEPS; i++)
            if (first + i < p.time) {
                float delta = d[p.d_at + (row + i) * p.d_ld];
                step[i].a = exp(delta * rate);
                step[i].b = delta * u[p.u_at + (row + i) * p.u_ld + col];
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

/* A workgroup takes `width` states of a chunk of a sequence, tile by tile of time. Row `sequence *
 * chunks + chunk` of state is where it starts, but for SCAN_NO_STATE; SCAN_STATE is left
 * with the end. */
kernel void itera_scan_parallel(global const float *d, global const float *A, global const float *u,
                                global float *state, global float *h,
                                const struct itera_scan_parallel_args p)
{
    local float tile_a[SCAN_LANES], tile_b[SCAN_LANES];
    uint piece = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    uint sequence = piece / p.chunks, first = piece % p.chunks * p.chunk;
    uint end = min(first + p.chunk, p.time);
    bool live = col < p.cols;
    float rate = live ? A[p.A_at + col] : 0.0f;
    uint state_at = p.state_at + piece * p.start_ld + col;
    float carry = live && p.state_mode != SCAN_NO_STATE ? state[state_at] : 0.0f;
    for (uint block = first; block < end; block += SCAN_LANES / p.width * SCAN_STEPS) {
        struct scan_map step[SCAN_STEPS], own = {1.0f, 0.0f}, total;
        uint t = block + LANE / p.width * SCAN_STEPS, row = sequence * p.time + t;
        for (uint i = 0; i < SCAN_STEPS; i++) {
            bool valid = live && t + i < end;
            float delta = valid ? d[p.d_at + (row + i) * p.d_ld] : 0.0f;
            step[i].a = exp(delta * rate);
            step[i].b = valid ? delta * u[p.u_at + (row + i) * p.u_ld + col] : 0.0f;
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

/* A workgroup finds the map of `width` states of a chunk of a sequence: what the chunk leaves of
 * its start (decay) and what it leaves from zeros (ends), both (batch, chunks, cols). Each lane
 * first goes through its share of the steps. */
kernel void itera_scan_chunk(global const float *d, global const float *A, global const float *u,
                             global float *decay, global float *ends,
                             const struct itera_scan_chunk_args p)
{
    local float tile_a[SCAN_LANES], tile_b[SCAN_LANES];
    uint piece = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    uint sequence = piece / p.chunks, first = piece % p.chunks * p.chunk;
    uint end = min(first + p.chunk, p.time), rows = SCAN_LANES / p.width;
    uint share = (p.chunk + rows - 1) / rows, lane_first = first + LANE / p.width * share;
    bool live = col < p.cols;
    float rate = live ? A[p.A_at + col] : 0.0f;
    struct scan_map own = {1.0f, 0.0f}, total;
    for (uint i = 0; i < share; i++) {
        uint t = lane_first + i, row = sequence * p.time + t;
        if (live && t < end) {
            float delta = d[p.d_at + row * p.d_ld];
            struct scan_map step = {exp(delta * rate), delta * u[p.u_at + row * p.u_ld + col]};
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
 * g[t] = e[t+1] g[t+1] + dh[t] with e[t] = exp(d[t] A). Chunks, and lanes of a tile, count from the
 * end of time too. With w[t] = e[t] h[t-1], du = d g; dd[t], the sum of g (u + A w) over states, is
 * left as a sum for each tile of states in dd_parts (tiles, batch, time), and dA, the sum of g d w
 * over time, for each chunk in dA_parts (batch, chunks, cols): scan_sum adds them up. */

/* A workgroup takes `width` states of 128 / width sequences. */
kernel void itera_scan_bwd_sequential(global const float *dh, global const float *d,
                                      global const float *A, global const float *u,
                                      global const float *h, global float *dd_parts,
                                      global float *dA_parts, global float *du,
                                      const struct itera_scan_bwd_sequential_args p)
{
    local float sums[SCAN_STEPS * SCAN_LANES];
    uint tile = GROUP % p.tiles, col = tile * p.width + LANE % p.width;
    uint sequence = GROUP / p.tiles * (SCAN_LANES / p.width) + LANE / p.width;
    bool live = sequence < p.batch && col < p.cols;
    float rate = live ? A[p.A_at + col] : 0.0f;
    float flow = 0.0f, sum_a = 0.0f; /* flow: e[t+1] g[t+1] */
    for (uint first = 0; first < p.time; first += SCAN_STEPS) {
        float delta[SCAN_STEPS], inflow[SCAN_STEPS], drive[SCAN_STEPS], before[SCAN_STEPS];
        uint row = sequence * p.time + p.time - 1 - first;
        for (uint i = 0; i < SCAN_STEPS; i++) {
            bool valid = live && first + i < p.time, has_before = live && first + i + 1 < p.time;
            delta[i] = valid ? d[p.d_at + (row - i) * p.d_ld] : 0.0f;
            inflow[i] = valid ? dh[p.dh_at + (row - i) * p.dh_ld + col] : 0.0f;
            drive[i] = valid ? u[p.u_at + (row - i) * p.u_ld + col] : 0.0f;
            before[i] = has_before ? h[p.h_at + (row - i - 1) * p.h_ld + col] : 0.0f;
        }
        for (uint i = 0; i < SCAN_STEPS; i++) {
            float e = exp(delta[i] * rate), g = inflow[i] + flow, w = e * before[i];
            sum_a += g * delta[i] * w;
            sums[i * SCAN_LANES + LANE] = g * (drive[i] + rate * w);
            if (live && first + i < p.time)
                du[p.du_at + (row - i) * p.du_ld + col] = delta[i] * g;
            flow = e * g;
        }
        scan_sum_columns(p.width, sums);
        if (sequence < p.batch && LANE % p.width == 0)
            for (uint i = 0; i < SCAN_STEPS && first + i < p.time; i++)
                dd_parts[p.dd_parts_at + (tile * p.batch * p.time + row - i) * p.dd_ld] =
                    sums[i * SCAN_LANES + LANE];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (live)
        dA_parts[p.dA_parts_at + sequence * p.cols + col] = sum_a;
}

/* A workgroup takes `width` states of a chunk of a sequence, tile by tile of time; starts (batch,
 * chunks, cols) hold g after each chunk. */
kernel void itera_scan_bwd_parallel(global const float *dh, global const float *d,
                                    global const float *A, global const float *u,
                                    global const float *h, global const float *starts,
                                    global float *dd_parts, global float *dA_parts,
                                    global float *du, const struct itera_scan_bwd_parallel_args p)
{
    local float tile_a[SCAN_LANES], tile_b[SCAN_LANES], sums[SCAN_STEPS * SCAN_LANES];
    uint tile = GROUP % p.tiles, col = tile * p.width + LANE % p.width;
    uint piece = GROUP / p.tiles, sequence = piece / p.chunks;
    uint first = piece % p.chunks * p.chunk, end = min(first + p.chunk, p.time);
    uint last_row = sequence * p.time + p.time - 1;
    bool live = col < p.cols;
    float rate = live ? A[p.A_at + col] : 0.0f, sum_a = 0.0f;
    float carry = live && p.has_start != 0 ? starts[p.starts_at + piece * p.cols + col] : 0.0f;
    for (uint block = first; block < end; block += SCAN_LANES / p.width * SCAN_STEPS) {
        struct scan_map step[SCAN_STEPS], own = {1.0f, 0.0f}, total;
        uint s = block + LANE / p.width * SCAN_STEPS, row = last_row - s;
        for (uint i = 0; i < SCAN_STEPS; i++) {
            bool valid = live && s + i < end;
            float later = valid && s + i > 0 ? d[p.d_at + (row - i + 1) * p.d_ld] : 0.0f;
            step[i].a = exp(later * rate);
            step[i].b = valid ? dh[p.dh_at + (row - i) * p.dh_ld + col] : 0.0f;
            own = scan_after(step[i], own);
        }
        struct scan_map before = scan_lanes(own, p.width, tile_a, tile_b, &total);
        float g = before.a * carry + before.b;
        for (uint i = 0; i < SCAN_STEPS; i++) {
            bool valid = live && s + i < end;
            g = step[i].a * g + step[i].b;
            float sum_d = 0.0f;
            if (valid) {
                float delta = d[p.d_at + (row - i) * p.d_ld], w = 0.0f;
                if (s + i + 1 < p.time)
                    w = exp(delta * rate) * h[p.h_at + (row - i - 1) * p.h_ld + col];
                sum_d = g * (u[p.u_at + (row - i) * p.u_ld + col] + rate * w);
                sum_a += g * delta * w;
                du[p.du_at + (row - i) * p.du_ld + col] = delta * g;
            }
            sums[i * SCAN_LANES + LANE] = sum_d;
        }
        carry = total.a * carry + total.b;
        scan_sum_columns(p.width, sums);
        if (LANE % p.width == 0)
            for (uint i = 0; i < SCAN_STEPS && s + i < end; i++)
                dd_parts[p.dd_parts_at + (tile * p.batch * p.time + row - i) * p.dd_ld] =
                    sums[i * SCAN_LANES + LANE];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    sum_a = scan_sum_rows(sum_a, p.width, tile_a);
    if (live && LANE < p.width)
        dA_parts[p.dA_parts_at + piece * p.cols + col] = sum_a;
}

/* As itera_scan_chunk. */
kernel void itera_scan_bwd_chunk(global const float *dh, global const float *d,
                                 global const float *A, global float *decay, global float *ends,
                                 const struct itera_scan_bwd_chunk_args p)
{
    local float tile_a[SCAN_LANES], tile_b[SCAN_LANES];
    uint piece = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    uint sequence = piece / p.chunks, first = piece % p.chunks * p.chunk;
    uint end = min(first + p.chunk, p.time), rows = SCAN_LANES / p.width;
    uint share = (p.chunk + rows - 1) / rows, lane_first = first + LANE / p.width * share;
    bool live = col < p.cols;
    float rate = live ? A[p.A_at + col] : 0.0f;
    struct scan_map own = {1.0f, 0.0f}, total;
    for (uint i = 0; i < share; i++) {
        uint s = lane_first + i, row = sequence * p.time + p.time - 1 - s;
        if (live && s < end) {
            float later = s > 0 ? d[p.d_at + (row + 1) * p.d_ld] : 0.0f;
            struct scan_map step = {exp(later * rate), dh[p.dh_at + row * p.dh_ld + col]};
            own = scan_after(step, own);
        }
    }
    scan_lanes(own, p.width, tile_a, tile_b, &total);
    if (live && LANE < p.width) {
        decay[p.decay_at + piece * p.cols + col] = total.a;
        ends[p.ends_at + piece * p.cols + col] = total.b;
    }
}
