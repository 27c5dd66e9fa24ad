/* selective_scan_bwd: see host/ops/scan.c for its contract, and scan_selective.clh.
 *
 * Here dy is what has passed the gate, dy silu(z), but for dz; e = exp(dt A), w = e h[t-1] and
 * g = C dy + flow, where flow = e[t+1] g[t+1] is what flows back into a step. The states come in
 * rounds of at most 32: `states` of all_states, from first_state on; later rounds add to dx, ddt
 * and dz. What is a sum over channels (dB, dC) or over batch and time (dA, dD) is first summed
 * within a workgroup and left in scratch: dB and dC as [block of channels][row][state], dA as
 * [sequence and span][channel][state], dD as [sequence and span][channel]. selective_scan_bwd_sum
 * adds these in order. */
#include "scan_selective.clh"

/* dy silu(z) of a tile, as load_channels has it. */
INLINE void load_gated(local float *tile, global const float *dy, uint dy_at, uint dy_ld,
                       global const float *z, uint z_at, uint z_ld, bool gated, uint steps,
                       uint cols)
{
    for (uint k = LANE; k < STEPS * WIDE; k += SIZE) {
        uint step = k / WIDE, c = k % WIDE;
        float value = 0.0f;
        if (step < steps && c < cols) {
            value = dy[dy_at + step * dy_ld + c];
            if (gated)
                value *= silu_of(z[z_at + step * z_ld + c]);
        }
        tile[k] = value;
    }
}

/* What flows out of the first step of each span when nothing flows into its last; and the sum of
 * dt. A workgroup takes its channels through one span, last step first. */
kernel void selective_scan_bwd_flow(global const float *dy, global const float *dt,
                                    global const float *A, global const float *C,
                                    global const float *z, global float *ends, global float *total,
                                    const struct flow_args p)
{
    local float tile_dy[STEPS * WIDE], tile_dt[STEPS * WIDE], tile_c[STEPS * SLOTS];
    float flow[STATES], rate[STATES], sum_dt = 0.0f;
    uint blocks = (p.channels + WIDE - 1) / WIDE;
    uint span = GROUP / blocks % p.spans, i = GROUP / blocks / p.spans;
    uint first = GROUP % blocks * WIDE, channel = LANE / SPLIT, lane = LANE % SPLIT;
    uint c = first + channel, cols = p.channels - first;
    bool own = i < p.batch && c < p.channels;
    uint t0 = span * p.span, t1 = i < p.batch ? min(t0 + p.span, p.time) : 0;
    uint tiles = t1 > t0 ? (t1 - t0 + STEPS - 1) / STEPS : 0;
    uint span_row = (i * p.spans + span) * p.channels + c;

#pragma unroll
    for (uint s = 0; s < STATES; s++) {
        uint n = s * SPLIT + lane;
        flow[s] = 0.0f;
        rate[s] = own && n < p.states ? A[p.A_at + c * p.A_ld + p.first_state + n] * LOG2_E : 0.0f;
    }
    for (uint tile = tiles; tile-- > 0;) {
        uint t = t0 + tile * STEPS, row = i * p.time + t, steps = min((uint)STEPS, t1 - t);
        barrier(CLK_LOCAL_MEM_FENCE);
        load_gated(tile_dy, dy, p.dy_at + row * p.dy_ld + first, p.dy_ld, z,
                   p.z_at + row * p.z_ld + first, p.z_ld, (p.has & HAS_Z) != 0, steps, cols);
        load_channels(tile_dt, dt, p.dt_at + row * p.dt_ld + first, p.dt_ld, steps, cols);
        load_states(tile_c, C, p.C_at + row * p.C_ld + p.first_state, p.C_ld, steps, p.states);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint j = steps; j-- > 0;) {
            float dt_j = tile_dt[j * WIDE + channel], dy_j = tile_dy[j * WIDE + channel];
#pragma unroll
            for (uint s = 0; s < STATES; s++)
                flow[s] =
                    exp2(dt_j * rate[s]) * (tile_c[j * SLOTS + s * SPLIT + lane] * dy_j + flow[s]);
            sum_dt += dt_j;
        }
    }
    if (own && lane == 0)
        total[p.total_at + span_row] = sum_dt;
#pragma unroll
    for (uint s = 0; s < STATES; s++)
        if (own && s * SPLIT + lane < p.states)
            ends[p.ends_at + span_row * p.states + s * SPLIT + lane] = flow[s];
}

#define SUMS   (2 * STATES + 3)      /* values of a lane and step that are summed over lanes */
#define STRIDE (SIZE + 16)           /* of one of them: two in a row of banks do not collide */
#define GATHER (SIZE / (2 * STATES)) /* lanes that sum one of the first 2 STATES */
#define PARTS  (GATHER / SPLIT)      /* sums of one state, each over SIZE / GATHER channels */

/* The gradients of one span of a sequence (all of its steps in the sequential variant, with nothing
 * flowing in). A workgroup takes its channels through it piece by piece, last piece first. A piece
 * begins at a stored boundary; its states are computed from there twice: once to keep those before
 * each tile of STEPS steps (in `kept`, each lane its own), once in each tile, in registers, before
 * the gradients are taken from its last step to its first. Scratch: `kept` is of a piece, not of T;
 * sum_b and sum_c together have 2 states / WIDE times the elements of x, sum_a one state of every
 * span. */
kernel void selective_scan_bwd_sequential(
    global const float *dy, global const float *x, global const float *dt, global const float *A,
    global const float *B, global const float *C, global const float *D, global const float *z,
    global const float *boundaries, global const float *flows, global float *kept, global float *dx,
    global float *ddt, global float *dz, global float *sum_a, global float *sum_b,
    global float *sum_c, global float *sum_d, const struct bwd_args p)
{
    local float tile_x[STEPS * WIDE], tile_dt[STEPS * WIDE], tile_dy[STEPS * WIDE];
    local float tile_b[STEPS * SLOTS], tile_c[STEPS * SLOTS];
    local float lanes[SUMS * STRIDE], parts[STEPS * SIZE];
    float h[STATES], flow[STATES], rate[STATES], grad_a[STATES], grad_d = 0.0f;
    uint blocks = (p.channels + WIDE - 1) / WIDE, block = GROUP % blocks;
    uint span = GROUP / blocks % p.spans, i = GROUP / blocks / p.spans;
    uint first = block * WIDE, channel = LANE / SPLIT, lane = LANE % SPLIT;
    uint c = first + channel, cols = p.channels - first;
    bool own = i < p.batch && c < p.channels, gated = (p.has & HAS_Z) != 0;
    bool add = p.first_state > 0, skip = (p.has & HAS_D) != 0 && !add;
    uint t0 = span * p.span, t1 = i < p.batch ? min(t0 + p.span, p.time) : 0;
    uint pieces = t1 > t0 ? (t1 - t0 + p.piece - 1) / p.piece : 0;
    uint span_row = (i * p.spans + span) * p.channels + c;
    uint boundaries_ld = p.boundaries_ld ? p.boundaries_ld : p.all_states;

#pragma unroll
    for (uint s = 0; s < STATES; s++) {
        uint n = s * SPLIT + lane;
        bool live = own && n < p.states;
        grad_a[s] = 0.0f;
        rate[s] = live ? A[p.A_at + c * p.A_ld + p.first_state + n] * LOG2_E : 0.0f;
        flow[s] = live && p.has & HAS_FLOW ? flows[p.flows_at + span_row * p.states + n] : 0.0f;
    }
    for (uint k = pieces; k-- > 0;) {
        uint begin = t0 + k * p.piece, end = min(begin + p.piece, t1);
        uint tiles = (end - begin + STEPS - 1) / STEPS;
        uint boundary = (i * p.chunks + begin / p.chunk) * p.channels + c;
        uint from = p.boundaries_at + boundary * boundaries_ld + p.first_state + lane;
#pragma unroll
        for (uint s = 0; s < STATES; s++)
            h[s] = own && s * SPLIT + lane < p.states ? boundaries[from + s * SPLIT] : 0.0f;
        for (uint tile = 0; tile < tiles; tile++) {
            uint to = p.kept_at + (GROUP * p.tiles + tile) * STATES * SIZE + LANE;
#pragma unroll
            for (uint s = 0; s < STATES; s++)
                kept[to + s * SIZE] = h[s];
            if (tile + 1 == tiles)
                break;
            uint row = i * p.time + begin + tile * STEPS;
            barrier(CLK_LOCAL_MEM_FENCE);
            load_channels(tile_x, x, p.x_at + row * p.x_ld + first, p.x_ld, STEPS, cols);
            load_channels(tile_dt, dt, p.dt_at + row * p.dt_ld + first, p.dt_ld, STEPS, cols);
            load_states(tile_b, B, p.B_at + row * p.B_ld + p.first_state, p.B_ld, STEPS, p.states);
            barrier(CLK_LOCAL_MEM_FENCE);
            for (uint j = 0; j < STEPS; j++) {
                float dt_j = tile_dt[j * WIDE + channel], u = dt_j * tile_x[j * WIDE + channel];
#pragma unroll
                for (uint s = 0; s < STATES; s++)
                    h[s] = exp2(dt_j * rate[s]) * h[s] + u * tile_b[j * SLOTS + s * SPLIT + lane];
            }
        }
        for (uint tile = tiles; tile-- > 0;) {
            uint t = begin + tile * STEPS, row = i * p.time + t, steps = min((uint)STEPS, end - t);
            uint to = p.kept_at + (GROUP * p.tiles + tile) * STATES * SIZE + LANE;
            float before[STEPS][STATES], decay[STEPS][STATES];
            barrier(CLK_LOCAL_MEM_FENCE);
            load_channels(tile_x, x, p.x_at + row * p.x_ld + first, p.x_ld, steps, cols);
            load_channels(tile_dt, dt, p.dt_at + row * p.dt_ld + first, p.dt_ld, steps, cols);
            load_gated(tile_dy, dy, p.dy_at + row * p.dy_ld + first, p.dy_ld, z,
                       p.z_at + row * p.z_ld + first, p.z_ld, gated, steps, cols);
            load_states(tile_b, B, p.B_at + row * p.B_ld + p.first_state, p.B_ld, steps, p.states);
            load_states(tile_c, C, p.C_at + row * p.C_ld + p.first_state, p.C_ld, steps, p.states);
            barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
            for (uint s = 0; s < STATES; s++)
                h[s] = kept[to + s * SIZE];
#pragma unroll
            for (uint j = 0; j < STEPS; j++) {
                float dt_j = tile_dt[j * WIDE + channel], u = dt_j * tile_x[j * WIDE + channel];
#pragma unroll
                for (uint s = 0; s < STATES; s++) {
                    before[j][s] = h[s];
                    decay[j][s] = exp2(dt_j * rate[s]);
                    h[s] = decay[j][s] * h[s] + u * tile_b[j * SLOTS + s * SPLIT + lane];
                }
            }
#pragma unroll
            for (uint back = 1; back <= STEPS; back++) {
                const uint j = STEPS - back;
                float dt_j = tile_dt[j * WIDE + channel], u = dt_j * tile_x[j * WIDE + channel];
                float dy_j = tile_dy[j * WIDE + channel];
                float sum_gb = 0.0f, sum_gw = 0.0f, sum_ch = 0.0f;
#pragma unroll
                for (uint s = 0; s < STATES; s++) {
                    float b = tile_b[j * SLOTS + s * SPLIT + lane];
                    float c_n = tile_c[j * SLOTS + s * SPLIT + lane];
                    float w = decay[j][s] * before[j][s], after = w + u * b;
                    float g = c_n * dy_j + flow[s];
                    lanes[2 * s * STRIDE + LANE] = g * u;
                    lanes[(2 * s + 1) * STRIDE + LANE] = dy_j * after;
                    grad_a[s] += g * dt_j * w;
                    sum_gb += g * b;
                    sum_gw += g * rate[s] * w;
                    sum_ch += c_n * after;
                    flow[s] = decay[j][s] * g;
                }
                lanes[2 * STATES * STRIDE + LANE] = sum_gb;
                lanes[(2 * STATES + 1) * STRIDE + LANE] = sum_gw;
                lanes[(2 * STATES + 2) * STRIDE + LANE] = sum_ch;
                barrier(CLK_LOCAL_MEM_FENCE);
                float sum = 0.0f;
#pragma unroll
                for (uint m = 0; m < 2 * STATES; m++)
                    sum += lanes[LANE / GATHER * STRIDE + m * GATHER + LANE % GATHER];
                parts[j * SIZE + LANE] = sum;
                for (uint task = LANE; task < 3 * WIDE; task += SIZE) {
                    uint channel_k = task % WIDE, c_k = first + channel_k;
                    float x_k = tile_x[j * WIDE + channel_k], dy_k = tile_dy[j * WIDE + channel_k];
                    float skip_k = skip && channel_k < cols ? D[p.D_at + c_k] : 0.0f;
                    if (channel_k >= cols || j >= steps)
                        continue;
                    if (task < WIDE) {
                        float value = sum_of_channel(lanes + 2 * STATES * STRIDE, channel_k);
                        uint at = p.dx_at + (row + j) * p.dx_ld + c_k;
                        value = tile_dt[j * WIDE + channel_k] * value + dy_k * skip_k;
                        dx[at] = add ? dx[at] + value : value;
                        grad_d += dy_k * x_k;
                    } else if (task < 2 * WIDE) {
                        float value = sum_of_channel(lanes + 2 * STATES * STRIDE, channel_k) * x_k;
                        uint at = p.ddt_at + (row + j) * p.ddt_ld + c_k;
                        value +=
                            LN_2 * sum_of_channel(lanes + (2 * STATES + 1) * STRIDE, channel_k);
                        ddt[at] = add ? ddt[at] + value : value;
                    } else if (p.has & HAS_DZ) {
                        float value = sum_of_channel(lanes + (2 * STATES + 2) * STRIDE, channel_k);
                        uint at = p.dz_at + (row + j) * p.dz_ld + c_k;
                        value = (value + skip_k * x_k) * dy[p.dy_at + (row + j) * p.dy_ld + c_k] *
                                silu_slope(z[p.z_at + (row + j) * p.z_ld + c_k]);
                        dz[at] = add ? dz[at] + value : value;
                    }
                }
                barrier(CLK_LOCAL_MEM_FENCE);
            }
            for (uint task = LANE; task < 2 * steps * SLOTS; task += SIZE) {
                uint n = task % SLOTS, j = task / SLOTS % steps, of_c = task / SLOTS / steps;
                uint part = j * SIZE + (2 * (n / SPLIT) + of_c) * GATHER + n % SPLIT;
                float sum = 0.0f;
                for (uint q = 0; q < PARTS; q++)
                    sum += parts[part + q * SPLIT];
                uint at = (block * p.batch * p.time + row + j) * p.states + n;
                if (n < p.states && of_c)
                    sum_c[p.sum_c_at + at] = sum;
                else if (n < p.states)
                    sum_b[p.sum_b_at + at] = sum;
            }
        }
    }
#pragma unroll
    for (uint s = 0; s < STATES; s++)
        if (own && s * SPLIT + lane < p.states)
            sum_a[p.sum_a_at + span_row * p.states + s * SPLIT + lane] = grad_a[s];
    if (skip && i < p.batch && LANE < WIDE && LANE < cols)
        sum_d[p.sum_d_at + (i * p.spans + span) * p.channels + first + LANE] = grad_d;
}

/* y = the sum of the rows of x (rows, cols), which is contiguous. The sums are a matrix of `width`
 * columns that begins in column `first` of y. A workgroup takes SUM_COLS columns; SIZE / SUM_COLS
 * lanes share one. */
kernel void selective_scan_bwd_sum(global const float *x, global float *y,
                                   const struct bwd_sum_args p)
{
    local float sums[SIZE];
    uint col = GROUP * SUM_COLS + LANE % SUM_COLS;
    float sum = 0.0f;

    for (uint row = LANE / SUM_COLS; row < p.rows && col < p.cols; row += SIZE / SUM_COLS)
        sum += x[p.x_at + row * p.cols + col];
    sums[LANE] = sum;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (LANE >= SUM_COLS || col >= p.cols)
        return;
    for (uint k = LANE + SUM_COLS; k < SIZE; k += SUM_COLS)
        sum += sums[k];
    y[p.y_at + col / p.width * p.y_ld + p.first + col % p.width] = sum;
}

#define QUART (SIZE / BUNCH) /* lanes that keep the sums of dA of one state */

/* The gradients by associative scans over time. A workgroup takes CHANNELS channels of one sequence
 * piece by piece, last piece first; a piece begins at a stored boundary and has at most ITEMS steps
 * for each lane of a channel. For BUNCH states at a time a scan forward over the lanes gives the
 * states before each lane's steps, and a scan backward what flows into them; the lane goes on from
 * there. `carry` is what flows from one piece to the one before it. */
kernel void selective_scan_bwd_parallel(global const float *dy, global const float *x,
                                        global const float *dt, global const float *A,
                                        global const float *B, global const float *C,
                                        global const float *D, global const float *z,
                                        global const float *boundaries, global float *dx,
                                        global float *ddt, global float *dz, global float *sum_a,
                                        global float *sum_b, global float *sum_c,
                                        global float *sum_d, const struct bwd_parallel_args p)
{
    local float of_a[BUNCH * SIZE], of_b[BUNCH * SIZE], lanes[2 * BUNCH * SIZE];
    local float carry[CHANNELS * ROUND], grad_a[ROUND / BUNCH * SIZE];
    uint blocks = (p.channels + CHANNELS - 1) / CHANNELS, block = GROUP % blocks;
    uint i = GROUP / blocks, first = block * CHANNELS;
    uint channel = LANE % CHANNELS, c = first + channel;
    bool own = i < p.batch && c < p.channels, gated = (p.has & HAS_Z) != 0;
    bool add = p.first_state > 0;
    float skip = own && p.has & HAS_D && !add ? D[p.D_at + c] : 0.0f, grad_d = 0.0f;
    uint pieces = i < p.batch ? (p.time + p.piece - 1) / p.piece : 0;
    uint boundaries_ld = p.boundaries_ld ? p.boundaries_ld : p.all_states;

    for (uint k = LANE; k < CHANNELS * ROUND; k += SIZE)
        carry[k] = 0.0f;
    for (uint k = LANE; k < ROUND / BUNCH * SIZE; k += SIZE)
        grad_a[k] = 0.0f;
    for (uint piece = pieces; piece-- > 0;) {
        uint begin = piece * p.piece, end = min(begin + p.piece, p.time);
        uint t = begin + LANE / CHANNELS * ITEMS, row = i * p.time + t;
        uint boundary = (i * p.chunks + begin / p.chunk) * p.channels + c;
        float dt_of[ITEMS], x_of[ITEMS], dy_of[ITEMS];
        float sum_gb[ITEMS], sum_gw[ITEMS], sum_ch[ITEMS];
#pragma unroll
        for (uint j = 0; j < ITEMS; j++) {
            bool live = own && t + j < end;
            dt_of[j] = live ? dt[p.dt_at + (row + j) * p.dt_ld + c] : 0.0f;
            x_of[j] = live ? x[p.x_at + (row + j) * p.x_ld + c] : 0.0f;
            dy_of[j] = live ? dy[p.dy_at + (row + j) * p.dy_ld + c] : 0.0f;
            if (live && gated)
                dy_of[j] *= silu_of(z[p.z_at + (row + j) * p.z_ld + c]);
            sum_gb[j] = sum_gw[j] = sum_ch[j] = 0.0f;
        }
        for (uint n0 = 0; n0 < p.states; n0 += BUNCH) {
            float a[BUNCH], b[BUNCH], h[BUNCH], flow[BUNCH], rate[BUNCH], lane_a[BUNCH];
            float decay[ITEMS][BUNCH], before[ITEMS][BUNCH];
            float b_of[ITEMS][BUNCH], c_of[ITEMS][BUNCH];
#pragma unroll
            for (uint s = 0; s < BUNCH; s++) {
                uint n = p.first_state + n0 + s;
                bool live = own && n0 + s < p.states;
                rate[s] = live ? A[p.A_at + c * p.A_ld + n] * LOG2_E : 0.0f;
                h[s] = live ? boundaries[p.boundaries_at + boundary * boundaries_ld + n] : 0.0f;
                a[s] = 1.0f;
                b[s] = lane_a[s] = 0.0f;
#pragma unroll
                for (uint j = 0; j < ITEMS; j++) {
                    bool there = live && t + j < end;
                    b_of[j][s] = there ? B[p.B_at + (row + j) * p.B_ld + n] : 0.0f;
                    c_of[j][s] = there ? C[p.C_at + (row + j) * p.C_ld + n] : 0.0f;
                    decay[j][s] = exp2(rate[s] * dt_of[j]);
                    a[s] *= decay[j][s];
                    b[s] = decay[j][s] * b[s] + dt_of[j] * x_of[j] * b_of[j][s];
                }
            }
            compose_lanes(a, b, of_a, of_b, false);
#pragma unroll
            for (uint s = 0; s < BUNCH; s++) {
                h[s] = a[s] * h[s] + b[s];
                a[s] = 1.0f;
                b[s] = 0.0f;
#pragma unroll
                for (uint j = 0; j < ITEMS; j++) {
                    before[j][s] = h[s];
                    a[s] *= decay[j][s];
                    h[s] = decay[j][s] * h[s] + dt_of[j] * x_of[j] * b_of[j][s];
                }
#pragma unroll
                for (uint back = 1; back <= ITEMS; back++)
                    b[s] = decay[ITEMS - back][s] *
                           (c_of[ITEMS - back][s] * dy_of[ITEMS - back] + b[s]);
            }
            compose_lanes(a, b, of_a, of_b, true);
#pragma unroll
            for (uint s = 0; s < BUNCH; s++)
                flow[s] = a[s] * carry[channel * ROUND + n0 + s] + b[s];
#pragma unroll
            for (uint back = 1; back <= ITEMS; back++) {
                const uint j = ITEMS - back;
                float u = dt_of[j] * x_of[j];
#pragma unroll
                for (uint s = 0; s < BUNCH; s++) {
                    float w = decay[j][s] * before[j][s], after = w + u * b_of[j][s];
                    float g = c_of[j][s] * dy_of[j] + flow[s];
                    lanes[s * SIZE + LANE] = g * u;
                    lanes[(BUNCH + s) * SIZE + LANE] = dy_of[j] * after;
                    lane_a[s] += g * dt_of[j] * w;
                    sum_gb[j] += g * b_of[j][s];
                    sum_gw[j] += g * rate[s] * w;
                    sum_ch[j] += c_of[j][s] * after;
                    flow[s] = decay[j][s] * g;
                }
                barrier(CLK_LOCAL_MEM_FENCE);
                for (uint task = LANE; task < 2 * BUNCH * TIMES; task += SIZE) {
                    uint s = task % BUNCH, r = task / BUNCH % TIMES, of_c = task / BUNCH / TIMES;
                    uint n = n0 + s, t_r = begin + r * ITEMS + j;
                    float sum = 0.0f;
                    for (uint w = 0; w < CHANNELS; w++)
                        sum += lanes[(of_c * BUNCH + s) * SIZE + r * CHANNELS +
                                     (w + 2 * s + r / 4) % CHANNELS];
                    uint at = (block * p.batch * p.time + i * p.time + t_r) * p.states + n;
                    if (t_r >= end || n >= p.states)
                        continue;
                    if (of_c)
                        sum_c[p.sum_c_at + at] = sum;
                    else
                        sum_b[p.sum_b_at + at] = sum;
                }
                barrier(CLK_LOCAL_MEM_FENCE);
            }
#pragma unroll
            for (uint s = 0; s < BUNCH; s++) {
                lanes[s * SIZE + LANE] = lane_a[s];
                if (LANE < CHANNELS)
                    carry[channel * ROUND + n0 + s] = flow[s];
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            float sum = grad_a[n0 / BUNCH * SIZE + LANE];
#pragma unroll
            for (uint m = 0; m < BUNCH; m++)
                sum += lanes[LANE / QUART * SIZE + m * QUART + LANE % QUART];
            grad_a[n0 / BUNCH * SIZE + LANE] = sum;
        }
#pragma unroll
        for (uint j = 0; j < ITEMS; j++) {
            uint at_x = p.dx_at + (row + j) * p.dx_ld + c;
            uint at_dt = p.ddt_at + (row + j) * p.ddt_ld + c;
            uint at_z = p.dz_at + (row + j) * p.dz_ld + c;
            if (!own || t + j >= end)
                continue;
            float grad_x = dt_of[j] * sum_gb[j] + dy_of[j] * skip;
            float grad_dt = LN_2 * sum_gw[j] + x_of[j] * sum_gb[j];
            dx[at_x] = add ? dx[at_x] + grad_x : grad_x;
            ddt[at_dt] = add ? ddt[at_dt] + grad_dt : grad_dt;
            if (p.has & HAS_DZ) {
                float grad_z = (sum_ch[j] + skip * x_of[j]) *
                               dy[p.dy_at + (row + j) * p.dy_ld + c] *
                               silu_slope(z[p.z_at + (row + j) * p.z_ld + c]);
                dz[at_z] = add ? dz[at_z] + grad_z : grad_z;
            }
            grad_d += dy_of[j] * x_of[j];
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    lanes[LANE] = grad_d;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint k = LANE; k < CHANNELS * p.states; k += SIZE) {
        uint channel_k = k / p.states, n = k % p.states;
        float sum = 0.0f;
        for (uint q = channel_k; q < QUART; q += CHANNELS)
            sum += grad_a[n / BUNCH * SIZE + n % BUNCH * QUART + q];
        if (i < p.batch && first + channel_k < p.channels)
            sum_a[p.sum_a_at + (i * p.channels + first + channel_k) * p.states + n] = sum;
    }
    if (own && LANE < CHANNELS && p.has & HAS_D && !add) {
        float sum = 0.0f;
        for (uint q = channel; q < SIZE; q += CHANNELS)
            sum += lanes[q];
        sum_d[p.sum_d_at + i * p.channels + c] = sum;
    }
}
