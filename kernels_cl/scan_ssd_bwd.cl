/* The gradient of ssd_scan: see host/ops/scan.c for the contract, scan_ssd.clh for chunks and
 * tiles.
 *
 * With S the state before a chunk, G the gradient of the state after it, E[t,s] = exp(cum[t] -
 * cum[s]) for s <= t, else 0, f[t] = exp(cum[t]), l[s] = exp(cum[last] - cum[s]) and g[t] the
 * gradient of the state after step t:
 *
 *   M[t,s] = (C[t] . B[s]) E[t,s]       Z[t,s] = (dy[t] . x[s]) E[t,s] dt[s]
 *   gB[s]  = sum_n g B = sum_t M[t,s] dy[t] + l[s] G B[s]
 *   dx[s]  = dt[s] gB[s] + D dy[s]
 *   dC     = sum over heads of Z B + f (dy S)       dB = sum over heads of Z^T C + l dt (x G)
 *   q[t]   = <g[t], e[t] h[t-1]>        ddt[t] = A q[t] + x[t] . gB[t]       dA = sum_t dt[t] q[t]
 *
 * q[t] is what flows past step t: from the start state or an earlier step's input to a step's
 * output, t or later, or to the end state. It is summed as such, path by path: differences of sums
 * over all paths would cancel. */
#include "scan_ssd.clh"

#ifndef STATE_SLICES
#define STATE_SLICES 4
#endif

/* products (batch, chunks, groups, slices, chunk_steps, chunk_steps): Z, summed over the heads of a
 * slice of a group; inner (batch, chunks, heads, chunk_steps): q's paths within the chunk, the sum
 * of Z[r,s] (C[r] . B[s]) over s < t <= r. A workgroup takes a slice of a group in one chunk, head
 * by head. */
kernel void ssd_scan_bwd_scores(global const float *dy, global const float *x,
                                global const float *dt, global const float *A,
                                global const float *scores, global float *products,
                                global float *inner, const struct ssd_scan_bwd_scores_args p)
{
    local float4 left[SSD_LEFT_SIZE];
    local float right[SSD_RIGHT_SIZE], steps[SSD_STEPS];
    local float2 cum[SSD_STEPS];
    uint slice = GROUP % p.slices, group_piece = GROUP / p.slices;
    uint group = group_piece % p.groups, piece = group_piece / p.groups;
    uint k = piece % p.chunks, count = SSD_COUNT(k);
    uint row = piece / p.chunks * p.time + SSD_FIRST(k);
    uint scores_at = p.scores_at + group_piece * p.chunk_steps * p.chunk_steps;
    uint end_head = min((slice + 1) * p.slice_heads, p.group_heads);
    float total[32];
    for (uint i = 0; i < 32; i++)
        total[i] = 0.0f;
    for (uint h = slice * p.slice_heads; h < end_head; h++) {
        uint head = group * p.group_heads + h, col = head * p.width;
        uint inner_at = p.inner_at + (piece * p.heads + head) * p.chunk_steps;
        ssd_cumulate(LANE < count ? dt[p.dt_at + (row + LANE) * p.dt_ld + head] : 0.0f,
                     A[p.A_at + head], cum, steps);
        struct ssd_tile acc;
        ssd_clear(&acc);
        for (uint first = 0; first < p.width; first += SSD_DEPTH) {
            for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
                uint c = i % SSD_DEPTH, t = i / SSD_DEPTH;
                bool valid = t < count && first + c < p.width;
                uint at = col + first + c;
                SSD_LEFT(t, c) = valid ? dy[p.dy_at + (row + t) * p.dy_ld + at] : 0.0f;
                SSD_RIGHT(c, t) = valid ? x[p.x_at + (row + t) * p.x_ld + at] : 0.0f;
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            ssd_multiply(&acc, left, right);
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        /* In 16 columns at a time: earlier paths by row, then their sum over later rows. */
        float passed = 0.0f;
        for (uint j = 0; j < 4; j++) {
            uint t = SSD_COLUMN(j);
            for (uint i = 0; i < 8; i++) {
                uint r = SSD_ROW + i;
                float z = 0.0f, w = 0.0f;
                if (t <= r && r < count) {
                    z = ssd_get(&acc, i, j) * ssd_decay(cum[r], cum[t]) * steps[t];
                    if (t < r)
                        w = z * scores[scores_at + r * p.chunk_steps + t];
                }
                total[i * 4 + j] += z;
                SSD_BLOCK(r, LANE % 16) = w;
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            if (LANE < SSD_STEPS)
                for (uint c = 0; c < 16; c++) {
                    float w = SSD_BLOCK(LANE, c);
                    SSD_BLOCK(LANE, c) = passed;
                    passed += w;
                }
            barrier(CLK_LOCAL_MEM_FENCE);
            float sum = 0.0f;
            for (uint i = 0; i < 8; i++)
                sum += SSD_ROW + i >= t ? SSD_BLOCK(SSD_ROW + i, LANE % 16) : 0.0f;
            right[LANE] = sum;
            barrier(CLK_LOCAL_MEM_FENCE);
            if (LANE < 16 && t < count) {
                for (uint i = 1; i < 8; i++)
                    sum += right[i * 16 + LANE];
                inner[inner_at + t] = sum;
            }
        }
    }
    uint products_at = p.products_at + GROUP * p.chunk_steps * p.chunk_steps;
    for (uint i = 0; i < 8; i++)
        for (uint j = 0; j < 4; j++) {
            uint t = SSD_ROW + i, s = SSD_COLUMN(j);
            if (t < count && s < count)
                products[products_at + t * p.chunk_steps + s] = total[i * 4 + j];
        }
}

/* dx and ddt, and the parts of dA and dD, (batch, chunks, heads). starts and later hold S and G of
 * every chunk and head. A workgroup takes one head in one chunk, 64 channels at a time. */
kernel void ssd_scan_bwd_x(global const float *dy, global const float *x, global const float *dt,
                           global const float *A, global const float *B, global const float *C,
                           global const float *D, global const float *scores,
                           global const float *inner, global const float *starts,
                           global const float *later, global float *dx, global float *ddt,
                           global float *dA_parts, global float *dD_parts,
                           const struct ssd_scan_bwd_x_args p)
{
    local float4 left[SSD_LEFT_SIZE];
    local float right[SSD_RIGHT_SIZE], steps[SSD_STEPS];
    local float2 cum[SSD_STEPS];
    uint head_piece = GROUP, head = head_piece % p.heads, piece = head_piece / p.heads;
    uint group = head / p.group_heads, groups = p.heads / p.group_heads;
    uint k = piece % p.chunks, count = SSD_COUNT(k);
    uint row = piece / p.chunks * p.time + SSD_FIRST(k), b_col = group * p.states;
    uint scores_at = p.scores_at + (piece * groups + group) * p.chunk_steps * p.chunk_steps;
    float rate = A[p.A_at + head], skip = p.has_skip != 0 ? D[p.D_at + head] : 0.0f;
    float row_start = 0.0f, row_end = 0.0f, row_all = 0.0f, sum_d = 0.0f; /* of step LANE */
    ssd_cumulate(LANE < count ? dt[p.dt_at + (row + LANE) * p.dt_ld + head] : 0.0f, rate, cum,
                 steps);
    for (uint first_p = 0; first_p < p.width; first_p += SSD_STEPS) {
        uint x_col = head * p.width + first_p, state_row = head_piece * p.width + first_p;
        struct ssd_tile acc;
        /* One copy of the code for three products: l G B, to which is added M dy, then f S C. */
#pragma unroll 1
        for (uint pass = 0; pass < 3; pass++) {
            if (pass != 1)
                ssd_clear(&acc);
            uint depth = pass == 1 ? count : p.states;
            for (uint first = 0; first < depth; first += SSD_DEPTH) {
#pragma unroll 1
                for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
                    float l = 0.0f, r = 0.0f;
                    uint across = pass == 1 ? i / SSD_STEPS : i % SSD_DEPTH, n = first + across;
                    uint c = pass == 1 ? i % SSD_STEPS : i / SSD_DEPTH;
                    bool in_time = n < depth && c < count, in_width = first_p + c < p.width;
                    if (pass == 1) {
                        if (in_time && c <= n)
                            l = scores[scores_at + n * p.chunk_steps + c] *
                                ssd_decay(cum[n], cum[c]);
                        if (n < depth && in_width)
                            r = dy[p.dy_at + (row + n) * p.dy_ld + x_col + c];
                    } else {
                        if (in_time)
                            l = pass == 0 ? ssd_decay(cum[SSD_STEPS - 1], cum[c]) *
                                                B[p.B_at + (row + c) * p.B_ld + b_col + n]
                                          : exp(cum[c].x + cum[c].y) *
                                                C[p.C_at + (row + c) * p.C_ld + b_col + n];
                        if (n < depth && in_width)
                            r = pass == 0 ? later[p.later_at + (state_row + c) * p.states + n]
                                          : starts[p.starts_at + (state_row + c) * p.start_ld + n];
                    }
                    SSD_LEFT(c, across) = l;
                    SSD_RIGHT(across, c) = r;
                }
                barrier(CLK_LOCAL_MEM_FENCE);
                /* In the second product later rows do not see these steps. */
                if (pass != 1 || SSD_ROW < first + SSD_DEPTH)
                    ssd_multiply(&acc, left, right);
                barrier(CLK_LOCAL_MEM_FENCE);
            }
            float sums[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 1
            for (uint j = 0; j < 4; j++) {
                uint c = SSD_COLUMN(j);
                bool in_width = first_p + c < p.width;
#pragma unroll
                for (uint i = 0; i < 8; i++) {
                    uint t = SSD_ROW + i;
                    if (t < count && in_width) {
                        uint x_at = p.x_at + (row + t) * p.x_ld + x_col + c;
                        uint dy_at = p.dy_at + (row + t) * p.dy_ld + x_col + c;
                        float v = ssd_get(&acc, i, 0), with = pass == 2 ? dy[dy_at] : x[x_at];
                        sums[i] += v * with;
                        if (pass == 1) {
                            float dy_in = dy[dy_at];
                            dx[p.dx_at + (row + t) * p.dx_ld + x_col + c] =
                                skip * dy_in + steps[t] * v;
                            sum_d += dy_in * with;
                        }
                    }
                }
                ssd_turn(&acc);
            }
            float sum = ssd_row_sum(sums, left);
            row_end += pass == 0 ? sum : 0.0f;
            row_all += pass == 1 ? sum : 0.0f;
            row_start += pass == 2 ? sum : 0.0f;
        }
    }
    float through = 0.0f; /* from the start state to the end state */
    for (uint i = LANE; i < p.width * p.states; i += SCAN_LANES)
        through +=
            later[p.later_at + head_piece * p.width * p.states + i] *
            starts[p.starts_at + (head_piece * p.width + i / p.states) * p.start_ld + i % p.states];
    through = scan_sum_rows(through, 1, right) * exp(cum[SSD_STEPS - 1].x + cum[SSD_STEPS - 1].y);
    float q = 0.0f;
    barrier(CLK_LOCAL_MEM_FENCE); /* all have read the sum */
    if (LANE < SSD_STEPS) {
        right[LANE] = row_start;
        right[SSD_STEPS + LANE] = row_end * steps[LANE];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (LANE < count) {
        q = inner[p.inner_at + head_piece * p.chunk_steps + LANE] + through;
        for (uint t = 0; t < count; t++)
            q += t < LANE ? right[SSD_STEPS + t] : right[t];
        ddt[p.ddt_at + (row + LANE) * p.ddt_ld + head] = rate * q + row_all;
        q *= steps[LANE];
    }
    float sum_a = scan_sum_rows(q, 1, right);
    sum_d = scan_sum_rows(sum_d, 1, right);
    if (LANE == 0) {
        dA_parts[p.dA_parts_at + head_piece] = sum_a;
        if (p.has_skip != 0)
            dD_parts[p.dD_parts_at + head_piece] = sum_d;
    }
}

/* dC = Z B + f (dy S), with v = dy, other = B and state = S; or (is_b) dB = Z^T C + l dt (x G),
 * with v = x, other = C and state = G. grad (slices, batch, time, columns of B) is summed over the
 * heads of a slice of a group. A workgroup takes 64 states of a slice in one chunk. */
kernel void ssd_scan_bwd_bc(global const float *v, global const float *dt, global const float *A,
                            global const float *other, global const float *products,
                            global const float *state, global float *grad,
                            const struct ssd_scan_bwd_bc_args p)
{
    local float4 left[SSD_LEFT_SIZE];
    local float right[SSD_RIGHT_SIZE], steps[SSD_STEPS];
    local float2 cum[SSD_STEPS];
    uint first_n = GROUP % p.column_tiles * SSD_STEPS, slice_piece = GROUP / p.column_tiles;
    uint slice = slice_piece % p.slices, groups = p.heads / p.group_heads;
    uint group = slice_piece / p.slices % groups, piece = slice_piece / (p.slices * groups);
    uint k = piece % p.chunks, count = SSD_COUNT(k);
    uint row = piece / p.chunks * p.time + SSD_FIRST(k), col = group * p.states + first_n;
    uint products_at = p.products_at + slice_piece * p.chunk_steps * p.chunk_steps;
    uint end_head = min((slice + 1) * p.slice_heads, p.group_heads);
    struct ssd_tile acc;
    ssd_clear(&acc);
    for (uint first = 0; first < count; first += SSD_DEPTH) {
        for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
            uint r = first + i / SSD_STEPS, c = i % SSD_STEPS, t = i / SSD_DEPTH;
            uint s = first + i % SSD_DEPTH;
            bool valid = r < count && first_n + c < p.states;
            SSD_RIGHT(i / SSD_STEPS, c) =
                valid ? other[p.other_at + (row + r) * p.other_ld + col + c] : 0.0f;
            if (p.is_b != 0) {
                valid = r < count && c < count;
                SSD_LEFT(c, i / SSD_STEPS) =
                    valid ? products[products_at + r * p.chunk_steps + c] : 0.0f;
            } else {
                valid = t < count && s < count;
                SSD_LEFT(t, i % SSD_DEPTH) =
                    valid ? products[products_at + t * p.chunk_steps + s] : 0.0f;
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        ssd_multiply(&acc, left, right);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (uint h = slice * p.slice_heads; h < end_head; h++) {
        uint head = group * p.group_heads + h, state_row = (piece * p.heads + head) * p.width;
        ssd_cumulate(LANE < count ? dt[p.dt_at + (row + LANE) * p.dt_ld + head] : 0.0f,
                     A[p.A_at + head], cum, steps);
        for (uint first = 0; first < p.width; first += SSD_DEPTH) {
            for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
                uint a = first + i % SSD_DEPTH, t = i / SSD_DEPTH;
                float l = 0.0f;
                if (a < p.width && t < count) {
                    float weight = p.is_b != 0 ? steps[t] * ssd_decay(cum[SSD_STEPS - 1], cum[t])
                                               : exp(cum[t].x + cum[t].y);
                    l = weight * v[p.v_at + (row + t) * p.v_ld + head * p.width + a];
                }
                SSD_LEFT(t, i % SSD_DEPTH) = l;
                uint b = first + i / SSD_STEPS, c = i % SSD_STEPS;
                bool valid = b < p.width && first_n + c < p.states;
                SSD_RIGHT(i / SSD_STEPS, c) =
                    valid ? state[p.state_at + (state_row + b) * p.state_row_ld + first_n + c]
                          : 0.0f;
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            ssd_multiply(&acc, left, right);
            barrier(CLK_LOCAL_MEM_FENCE);
        }
    }
    uint grad_row = slice * p.batch * p.time + row;
    for (uint i = 0; i < 8; i++)
        for (uint j = 0; j < 4; j++) {
            uint t = SSD_ROW + i, c = SSD_COLUMN(j);
            if (t < count && first_n + c < p.states)
                grad[p.grad_at + (grad_row + t) * p.grad_row_ld + col + c] = ssd_get(&acc, i, j);
        }
}

/* Steps of chunks [first_chunk, end_chunk), `span` of them, from the last to the first. As in
 * ssd_scan_sequential a row of the state is in registers of `lanes` neighbouring lanes. A workgroup
 * takes 128 / lanes rows of a head: it goes through a chunk forwards and keeps the state before
 * every fourth step in kept, then backwards, four steps at a time. flow carries e[t+1] g[t+1] from
 * call to call. A workgroup's sums over rows and steps are parts, of a number of its own (or `part`
 * and on). */
/* clang-format off */
kernel void ssd_scan_bwd_sequential(
    global const float *dy, global const float *x, global const float *dt,
    global const float *A, global const float *B, global const float *C, global const float *D,
    global const float *boundaries, global float *kept, global float *flow, global float *dx,
    global float *ddt_parts, global float *dA_parts, global float *dB_parts,
    global float *dC_parts, global float *dD_parts, const struct ssd_scan_bwd_sequential_args p)
/* clang-format on */
{
    local float sums[2 * SCAN_SUMS];
    uint tile = GROUP % p.tiles, head = GROUP / p.tiles % p.heads;
    uint sequence = GROUP / (p.tiles * p.heads), rows = SCAN_LANES / p.lanes;
    uint lane = LANE % p.lanes, head_channel = tile * rows + LANE / p.lanes;
    uint channel = head * p.width + head_channel, channels = p.heads * p.width;
    uint group_at = head / p.group_heads * p.states;
    uint columns = p.heads / p.group_heads * p.states;
    uint part_row = (head % p.group_heads * p.tiles + tile) * p.batch * p.span + sequence * p.span;
    uint flow_at = p.flow_at + (sequence * channels + channel) * p.states;
    bool live = head_channel < p.width;
    float rate = A[p.A_at + head], skip = p.has_skip != 0 ? D[p.D_at + head] : 0.0f;
    float later[STATE_SLICES], h[STATE_SLICES], sum_a = 0.0f, sum_d = 0.0f;
    for (uint j = 0; j < STATE_SLICES; j++) {
        uint n = lane + j * p.lanes;
        later[j] = live && n < p.states && p.end_chunk < p.chunks ? flow[flow_at + n] : 0.0f;
    }
    for (uint k = p.end_chunk; k-- > p.first_chunk;) {
        uint first = k * p.chunk, end = min(first + p.chunk, p.time);
        uint row = sequence * p.time;
        uint start_row = (sequence * p.chunks + k) * channels + channel;
        for (uint j = 0; j < STATE_SLICES; j++) {
            uint n = lane + j * p.lanes;
            bool has = live && n < p.states;
            h[j] = has ? boundaries[p.boundaries_at + start_row * p.boundaries_ld + n] : 0.0f;
        }
        for (uint t = first; t < end; t++) {
            uint quarter = (t - first) / SCAN_STEPS;
            uint kept_at =
                p.kept_at + ((quarter * p.batch + sequence) * channels + channel) * p.states;
            float step = dt[p.dt_at + (row + t) * p.dt_ld + head], e = exp(step * rate);
            float drive = live ? step * x[p.x_at + (row + t) * p.x_ld + channel] : 0.0f;
            for (uint j = 0; j < STATE_SLICES; j++) {
                uint n = lane + j * p.lanes;
                if (live && n < p.states) {
                    if ((t - first) % SCAN_STEPS == 0)
                        kept[kept_at + n] = h[j];
                    h[j] = e * h[j] + drive * B[p.B_at + (row + t) * p.B_ld + group_at + n];
                }
            }
        }
        for (uint quarter = (end - first + SCAN_STEPS - 1) / SCAN_STEPS; quarter-- > 0;) {
            uint t0 = first + quarter * SCAN_STEPS;
            uint kept_at =
                p.kept_at + ((quarter * p.batch + sequence) * channels + channel) * p.states;
            float step[SCAN_STEPS], e[SCAN_STEPS], x_in[SCAN_STEPS], dy_in[SCAN_STEPS];
            float g_b[SCAN_STEPS], q[SCAN_STEPS];
            for (uint i = 0; i < SCAN_STEPS; i++) {
                bool valid = live && t0 + i < end;
                uint at = row + t0 + i;
                step[i] = valid ? dt[p.dt_at + at * p.dt_ld + head] : 0.0f;
                x_in[i] = valid ? x[p.x_at + at * p.x_ld + channel] : 0.0f;
                dy_in[i] = valid ? dy[p.dy_at + at * p.dy_ld + channel] : 0.0f;
                e[i] = exp(step[i] * rate);
                g_b[i] = q[i] = 0.0f;
            }
            for (uint j = 0; j < STATE_SLICES; j++) {
                uint n = lane + j * p.lanes;
                bool has = live && n < p.states;
                float b[SCAN_STEPS], before[SCAN_STEPS + 1];
                before[0] = has ? kept[kept_at + n] : 0.0f;
                for (uint i = 0; i < SCAN_STEPS; i++) {
                    bool valid = has && t0 + i < end;
                    b[i] = valid ? B[p.B_at + (row + t0 + i) * p.B_ld + group_at + n] : 0.0f;
                    before[i + 1] = e[i] * before[i] + step[i] * x_in[i] * b[i];
                }
                for (uint i = SCAN_STEPS; i-- > 0;) {
                    bool valid = has && t0 + i < end;
                    float c = valid ? C[p.C_at + (row + t0 + i) * p.C_ld + group_at + n] : 0.0f;
                    float g = c * dy_in[i] + later[j];
                    g_b[i] += g * b[i];
                    q[i] += g * e[i] * before[i];
                    sums[SCAN_SUMS + i * SCAN_LANES + LANE] = dy_in[i] * before[i + 1];
                    sums[i * SCAN_LANES + LANE] = g * step[i] * x_in[i];
                    later[j] = e[i] * g;
                }
                barrier(CLK_LOCAL_MEM_FENCE);
                for (uint o = LANE; o < SCAN_STEPS * p.lanes; o += SCAN_LANES) {
                    uint i = o / p.lanes, state_n = o % p.lanes + j * p.lanes;
                    uint at = i * SCAN_LANES + o % p.lanes;
                    float sum_b = 0.0f, sum_c = 0.0f;
                    for (uint r = 0; r < rows; r++) {
                        sum_b += sums[at + r * p.lanes];
                        sum_c += sums[SCAN_SUMS + at + r * p.lanes];
                    }
                    if (t0 + i < end && state_n < p.states) {
                        uint part_at =
                            (part_row + t0 + i - p.first_chunk * p.chunk) * columns + group_at;
                        dB_parts[p.dB_parts_at + part_at + state_n] = sum_b;
                        dC_parts[p.dC_parts_at + part_at + state_n] = sum_c;
                    }
                }
                barrier(CLK_LOCAL_MEM_FENCE);
            }
            for (uint i = 0; i < SCAN_STEPS; i++) {
                sums[i * SCAN_LANES + LANE] = g_b[i];
                sums[SCAN_SUMS + i * SCAN_LANES + LANE] = q[i];
            }
            scan_sum_columns(p.lanes, sums);
            scan_sum_columns(p.lanes, sums + SCAN_SUMS);
            if (live && lane == 0)
                for (uint i = 0; i < SCAN_STEPS; i++)
                    if (t0 + i < end) {
                        float v = sums[i * SCAN_LANES + LANE];
                        dx[p.dx_at + (row + t0 + i) * p.dx_ld + channel] =
                            skip * dy_in[i] + step[i] * v;
                        sum_d += dy_in[i] * x_in[i];
                        sums[i * SCAN_LANES + LANE] =
                            rate * sums[SCAN_SUMS + i * SCAN_LANES + LANE] + x_in[i] * v;
                    }
            barrier(CLK_LOCAL_MEM_FENCE);
            if (LANE < SCAN_STEPS && t0 + LANE < end) {
                uint at = row + t0 + LANE;
                float sum_dt = 0.0f, sum_q = 0.0f;
                for (uint r = 0; r < rows; r++) {
                    sum_dt += sums[LANE * SCAN_LANES + r * p.lanes];
                    sum_q += sums[SCAN_SUMS + LANE * SCAN_LANES + r * p.lanes];
                }
                ddt_parts[p.ddt_parts_at + (tile * p.batch * p.time + at) * p.heads + head] =
                    sum_dt;
                sum_a += dt[p.dt_at + at * p.dt_ld + head] * sum_q;
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
    }
    for (uint j = 0; j < STATE_SLICES; j++) {
        uint n = lane + j * p.lanes;
        if (live && n < p.states)
            flow[flow_at + n] = later[j];
    }
    sum_a = scan_sum_rows(sum_a, 1, sums);
    sum_d = scan_sum_rows(sum_d, 1, sums);
    if (LANE == 0) {
        uint at = (p.part + sequence * p.tiles + tile) * p.heads + head;
        dA_parts[p.dA_parts_at + at] = sum_a;
        if (p.has_skip != 0)
            dD_parts[p.dD_parts_at + at] = sum_d;
    }
}

#define SSD_ROUNDS 6 /* log2(SSD_STEPS) */

/* A workgroup of 64 takes one head of a sequence, chunk by chunk from the last; its lanes take the
 * steps of a chunk. For four states of a channel at a time, six rounds bring to each lane what
 * earlier steps leave in the state and what later ones leave in its gradient, as in
 * ssd_scan_parallel. flow (batch, channels, states) holds the gradient of the state after a chunk,
 * gathered (batch, channels, 64) gB of a chunk. dB_parts and dC_parts (heads of a group, batch,
 * time, columns of B), dA_parts and dD_parts (batch, heads). */
kernel void ssd_scan_bwd_parallel(global const float *dy, global const float *x,
                                  global const float *dt, global const float *A,
                                  global const float *B, global const float *C,
                                  global const float *D, global const float *starts,
                                  global float *flow, global float *gathered, global float *dx,
                                  global float *ddt, global float *dA_parts, global float *dB_parts,
                                  global float *dC_parts, global float *dD_parts,
                                  const struct ssd_scan_bwd_parallel_args p)
{
    local float products[SSD_STEPS], bound[8], inflow[16 * SSD_STEPS];
    uint head = GROUP % p.heads, sequence = GROUP / p.heads, channels = p.heads * p.width;
    uint group_at = head / p.group_heads * p.states;
    uint columns = p.heads / p.group_heads * p.states;
    float rate = A[p.A_at + head], skip = p.has_skip != 0 ? D[p.D_at + head] : 0.0f;
    float sum_a = 0.0f, sum_d = 0.0f;
    for (uint k = p.chunks; k-- > 0;) {
        uint row = sequence * p.time + SSD_FIRST(k) + LANE;
        bool valid = LANE < SSD_COUNT(k);
        float step = valid ? dt[p.dt_at + row * p.dt_ld + head] : 0.0f;
        float e = exp(step * rate), product = e, q = 0.0f;
        float decay[SSD_ROUNDS], back[SSD_ROUNDS];
        barrier(CLK_LOCAL_MEM_FENCE);
        products[LANE] = e;
        barrier(CLK_LOCAL_MEM_FENCE);
        float rest = LANE + 1 < SSD_STEPS ? products[LANE + 1] : 1.0f;
        for (uint i = 0; i < SSD_ROUNDS; i++) {
            bool has = LANE >= 1u << i;
            decay[i] = has ? product : 0.0f;
            barrier(CLK_LOCAL_MEM_FENCE);
            products[LANE] = product;
            barrier(CLK_LOCAL_MEM_FENCE);
            product *= has ? products[LANE - (1u << i)] : 1.0f;
        }
        for (uint i = 0; i < SSD_ROUNDS; i++) {
            bool has = LANE + (1u << i) < SSD_STEPS;
            back[i] = has ? rest : 0.0f;
            barrier(CLK_LOCAL_MEM_FENCE);
            products[LANE] = rest;
            barrier(CLK_LOCAL_MEM_FENCE);
            rest *= has ? products[LANE + (1u << i)] : 1.0f;
        }
        for (uint n = 0; n < p.states; n += 4) {
            float b[4], c[4], sum_b[4], sum_c[4];
            for (uint j = 0; j < 4; j++) {
                bool has = valid && n + j < p.states;
                b[j] = has ? B[p.B_at + row * p.B_ld + group_at + n + j] : 0.0f;
                c[j] = has ? C[p.C_at + row * p.C_ld + group_at + n + j] : 0.0f;
                sum_b[j] = sum_c[j] = 0.0f;
            }
            for (uint channel = 0; channel < p.width; channel++) {
                uint col = head * p.width + channel;
                uint start_row = (sequence * p.chunks + k) * channels + col;
                uint flow_at = p.flow_at + (sequence * channels + col) * p.states + n;
                /* Of two slots the one that no lane reads any longer, whatever the width. */
                uint bound_at = (n / 4 * p.width + channel) % 2 * 4;
                float x_in = valid ? x[p.x_at + row * p.x_ld + col] : 0.0f;
                float dy_in = valid ? dy[p.dy_at + row * p.dy_ld + col] : 0.0f;
                float w[4], g[4], g_b = 0.0f;
                for (uint j = 0; j < 4; j++) {
                    w[j] = 0.0f;
                    g[j] = dy_in * c[j];
                    if (LANE == 0) /* who wrote it */
                        bound[bound_at + j] =
                            n + j < p.states && k + 1 < p.chunks ? flow[flow_at + j] : 0.0f;
                }
                for (uint i = 0; i < SSD_ROUNDS; i++) {
                    uint now = i % 2 * 8 * SSD_STEPS + LANE;
                    for (uint j = 0; j < 4; j++) {
                        inflow[now + j * SSD_STEPS] = w[j] + step * x_in * b[j];
                        inflow[now + (j + 4) * SSD_STEPS] = g[j];
                    }
                    barrier(CLK_LOCAL_MEM_FENCE);
                    if (LANE >= 1u << i)
                        for (uint j = 0; j < 4; j++)
                            w[j] += decay[i] * inflow[now + j * SSD_STEPS - (1u << i)];
                    if (LANE + (1u << i) < SSD_STEPS)
                        for (uint j = 0; j < 4; j++)
                            g[j] += back[i] * inflow[now + (j + 4) * SSD_STEPS + (1u << i)];
                }
                for (uint j = 0; j < 4; j++) {
                    bool has = n + j < p.states;
                    uint start_at = p.starts_at + start_row * p.start_ld + n + j;
                    w[j] += product * (has ? starts[start_at] : 0.0f);
                    g[j] += rest * bound[bound_at + j];
                    sum_c[j] += dy_in * (w[j] + step * x_in * b[j]);
                    sum_b[j] += g[j] * step * x_in;
                    g_b += g[j] * b[j];
                    q += g[j] * w[j];
                    if (LANE == 0 && has)
                        flow[flow_at + j] = e * g[j];
                }
                uint gathered_at = p.gathered_at + (sequence * channels + col) * SSD_STEPS + LANE;
                gathered[gathered_at] = n == 0 ? g_b : gathered[gathered_at] + g_b;
            }
            uint part_at = (head % p.group_heads * p.batch * p.time + row) * columns + group_at + n;
            for (uint j = 0; j < 4; j++)
                if (valid && n + j < p.states) {
                    dB_parts[p.dB_parts_at + part_at + j] = sum_b[j];
                    dC_parts[p.dC_parts_at + part_at + j] = sum_c[j];
                }
        }
        if (valid) {
            float from_x = 0.0f;
            for (uint channel = 0; channel < p.width; channel++) {
                uint col = head * p.width + channel;
                float x_in = x[p.x_at + row * p.x_ld + col];
                float dy_in = dy[p.dy_at + row * p.dy_ld + col];
                float g_b =
                    gathered[p.gathered_at + (sequence * channels + col) * SSD_STEPS + LANE];
                dx[p.dx_at + row * p.dx_ld + col] = skip * dy_in + step * g_b;
                from_x += x_in * g_b;
                sum_d += dy_in * x_in;
            }
            ddt[p.ddt_at + row * p.ddt_ld + head] = rate * q + from_x;
            sum_a += step * q;
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    inflow[LANE] = sum_a;
    inflow[SSD_STEPS + LANE] = sum_d;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (LANE == 0) {
        for (uint i = 1; i < SSD_STEPS; i++) {
            sum_a += inflow[i];
            sum_d += inflow[SSD_STEPS + i];
        }
        dA_parts[p.dA_parts_at + GROUP] = sum_a;
        if (p.has_skip != 0)
            dD_parts[p.dD_parts_at + GROUP] = sum_d;
    }
}
