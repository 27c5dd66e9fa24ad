/* Passes that the scans share; see scan.clh for the tile of a workgroup. */
#include "scan.clh"

/* Between the chunks of a scan: ends (batch, chunks, cols) hold what each chunk leaves from zeros
 * and become the states before each chunk, decay (the same dims) is what a chunk leaves of its
 * start. state (batch, cols) is where the first one starts and is left with the end of the last
 * one; SCAN_NO_STATE: from zeros, and dropped. A workgroup takes `width` columns of a sequence. */
kernel void scan_starts(global const float *decay, global float *ends, global float *state,
                        const struct scan_starts_args p)
{
    local float tile_a[SCAN_LANES], tile_b[SCAN_LANES];
    uint sequence = GROUP / p.tiles, col = GROUP % p.tiles * p.width + LANE % p.width;
    bool live = col < p.cols;
    uint state_at = p.state_at + sequence * p.state_ld + col;
    float carry = live && p.state_mode != SCAN_NO_STATE ? state[state_at] : 0.0f;
    uint lane_first = LANE / p.width * SCAN_STEPS;
    for (uint block = 0; block < p.chunks; block += SCAN_LANES / p.width * SCAN_STEPS) {
        struct scan_map step[SCAN_STEPS], own = {1.0f, 0.0f}, total;
        uint at = (sequence * p.chunks + block + lane_first) * p.cols + col;
        for (uint i = 0; i < SCAN_STEPS; i++) {
            bool valid = live && block + lane_first + i < p.chunks;
            step[i].a = valid ? decay[p.decay_at + at + i * p.cols] : 1.0f;
            step[i].b = valid ? ends[p.ends_at + at + i * p.cols] : 0.0f;
            own = scan_after(step[i], own);
        }
        struct scan_map before = scan_lanes(own, p.width, tile_a, tile_b, &total);
        float value = before.a * carry + before.b;
        for (uint i = 0; i < SCAN_STEPS; i++) {
            if (live && block + lane_first + i < p.chunks)
                ends[p.ends_at + at + i * p.cols] = value;
            value = step[i].a * value + step[i].b;
        }
        carry = total.a * carry + total.b;
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    barrier(CLK_GLOBAL_MEM_FENCE); /* all lanes of a column have read its start */
    if (live && p.state_mode != SCAN_NO_STATE && LANE < p.width)
        state[state_at] = carry;
}

/* Rows of y = the sum over i of parts[i] (count, rows, cols), in the same order every time; row r
 * is row r / span * stride + r % span + first of y. A workgroup takes `width` elements of the sum;
 * its rows share the parts. */
kernel void scan_sum(global const float *parts, global float *y, const struct scan_sum_args p)
{
    local float tile[SCAN_LANES];
    uint element = GROUP * p.width + LANE % p.width, elements = p.rows * p.cols;
    uint row = element / p.cols, y_row = row / p.span * p.stride + row % p.span + p.first;
    float sum = 0.0f;
    if (element < elements)
        for (uint i = LANE / p.width; i < p.count; i += SCAN_LANES / p.width)
            sum += parts[p.parts_at + i * elements + element];
    sum = scan_sum_rows(sum, p.width, tile);
    if (element < elements && LANE < p.width)
        y[p.y_at + y_row * p.y_ld + element % p.cols] = sum;
}
