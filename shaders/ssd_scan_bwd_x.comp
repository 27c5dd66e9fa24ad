#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"
#include "scan_ssd.glsl"

ARGS(ssd_scan_bwd_x_args)
IN(1, dy)
IN(2, x)
IN(3, dt)
IN(4, A)
IN(5, B)
IN(6, C)
IN(7, D)
IN(8, scores)
IN(9, inner)
IN(10, starts)
IN(11, later)
OUT(12, dx)
OUT(13, ddt)
OUT(14, dA_parts)
OUT(15, dD_parts)

// dx and ddt, and the parts of dA and dD, (batch, chunks, heads). starts and later hold S and G of
// every chunk and head. A workgroup takes one head in one chunk, 64 channels at a time.
void main()
{
    uint head_piece = GROUP, head = head_piece % p.heads, piece = head_piece / p.heads;
    uint group = head / p.group_heads, groups = p.heads / p.group_heads;
    uint k = piece % p.chunks, count = SSD_COUNT(k);
    uint row = piece / p.chunks * p.time + SSD_FIRST(k), b_col = group * p.states;
    uint scores_at = p.scores_at + (piece * groups + group) * p.chunk_steps * p.chunk_steps;
    float rate = A.v[p.A_at + head], skip = p.has_skip != 0 ? D.v[p.D_at + head] : 0.0;
    float from_start[8], to_end[8], to_all[8], sum_d = 0.0;
    [[unroll]] for (uint i = 0; i < 8; i++)
        from_start[i] = to_end[i] = to_all[i] = 0.0;
    ssd_cumulate(LANE < count ? dt.v[p.dt_at + (row + LANE) * p.dt_ld + head] : 0.0, rate);
    for (uint first_p = 0; first_p < p.width; first_p += SSD_STEPS) {
        uint x_col = head * p.width + first_p, state_row = head_piece * p.width + first_p;
        ssd_tile acc;
        ssd_clear(acc);
        for (uint first = 0; first < p.states; first += SSD_DEPTH) {
            for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
                uint n = first + i % SSD_DEPTH, c = i / SSD_DEPTH;
                float l = 0.0, r = 0.0;
                if (n < p.states && c < count)
                    l = ssd_decay(cum[SSD_STEPS - 1], cum[c]) *
                        B.v[p.B_at + (row + c) * p.B_ld + b_col + n];
                if (n < p.states && first_p + c < p.width)
                    r = later.v[p.later_at + (state_row + c) * p.states + n];
                SSD_LEFT(c, i % SSD_DEPTH) = l;
                SSD_RIGHT(i % SSD_DEPTH, c) = r;
            }
            barrier();
            ssd_multiply(acc);
            barrier();
        }
        [[unroll]] for (uint i = 0; i < 8; i++)
            [[unroll]] for (uint j = 0; j < 4; j++) {
                uint t = SSD_ROW + i, c = SSD_COLUMN(j);
                if (t < count && first_p + c < p.width)
                    to_end[i] += ssd_get(acc, i, j) * x.v[p.x_at + (row + t) * p.x_ld + x_col + c];
            }
        for (uint first = 0; first < count; first += SSD_DEPTH) {
            for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
                uint r = first + i / SSD_STEPS, c = i % SSD_STEPS;
                float m = 0.0;
                if (c <= r && r < count)
                    m = scores.v[scores_at + r * p.chunk_steps + c] * ssd_decay(cum[r], cum[c]);
                SSD_LEFT(c, i / SSD_STEPS) = m;
                bool valid = r < count && first_p + c < p.width;
                SSD_RIGHT(i / SSD_STEPS, c) =
                    valid ? dy.v[p.dy_at + (row + r) * p.dy_ld + x_col + c] : 0.0;
            }
            barrier();
            if (SSD_ROW < first + SSD_DEPTH) // later rows do not see these steps
                ssd_multiply(acc);
            barrier();
        }
        [[unroll]] for (uint i = 0; i < 8; i++)
            [[unroll]] for (uint j = 0; j < 4; j++) {
                uint t = SSD_ROW + i, c = SSD_COLUMN(j);
                if (t < count && first_p + c < p.width) {
                    float v = ssd_get(acc, i, j);
                    float x_in = x.v[p.x_at + (row + t) * p.x_ld + x_col + c];
                    float dy_in = dy.v[p.dy_at + (row + t) * p.dy_ld + x_col + c];
                    dx.v[p.dx_at + (row + t) * p.dx_ld + x_col + c] = skip * dy_in + steps[t] * v;
                    to_all[i] += v * x_in;
                    sum_d += dy_in * x_in;
                }
            }
        ssd_clear(acc);
        for (uint first = 0; first < p.states; first += SSD_DEPTH) {
            for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
                uint n = first + i % SSD_DEPTH, c = i / SSD_DEPTH;
                float l = 0.0, r = 0.0;
                if (n < p.states && c < count)
                    l = exp(cum[c].x + cum[c].y) * C.v[p.C_at + (row + c) * p.C_ld + b_col + n];
                if (n < p.states && first_p + c < p.width)
                    r = starts.v[p.starts_at + (state_row + c) * p.start_ld + n];
                SSD_LEFT(c, i % SSD_DEPTH) = l;
                SSD_RIGHT(i % SSD_DEPTH, c) = r;
            }
            barrier();
            ssd_multiply(acc);
            barrier();
        }
        [[unroll]] for (uint i = 0; i < 8; i++)
            [[unroll]] for (uint j = 0; j < 4; j++) {
                uint t = SSD_ROW + i, c = SSD_COLUMN(j);
                if (t < count && first_p + c < p.width)
                    from_start[i] +=
                        ssd_get(acc, i, j) * dy.v[p.dy_at + (row + t) * p.dy_ld + x_col + c];
            }
    }
    float through = 0.0; // from the start state to the end state
    for (uint i = LANE; i < p.width * p.states; i += SCAN_LANES)
        through +=
            later.v[p.later_at + head_piece * p.width * p.states + i] *
            starts.v[p.starts_at + (head_piece * p.width + i / p.states) * p.start_ld +
                     i % p.states];
    through = scan_sum_rows(through, 1) * exp(cum[SSD_STEPS - 1].x + cum[SSD_STEPS - 1].y);
    float row_start = ssd_row_sum(from_start), row_end = ssd_row_sum(to_end);
    float row_all = ssd_row_sum(to_all), q = 0.0;
    if (LANE < SSD_STEPS) {
        right[LANE] = row_start;
        right[SSD_STEPS + LANE] = row_end * steps[LANE];
    }
    barrier();
    if (LANE < count) {
        q = inner.v[p.inner_at + head_piece * p.chunk_steps + LANE] + through;
        for (uint t = 0; t < count; t++)
            q += t < LANE ? right[SSD_STEPS + t] : right[t];
        ddt.v[p.ddt_at + (row + LANE) * p.ddt_ld + head] = rate * q + row_all;
        q *= steps[LANE];
    }
    float sum_a = scan_sum_rows(q, 1);
    sum_d = scan_sum_rows(sum_d, 1);
    if (LANE == 0) {
        dA_parts.v[p.dA_parts_at + head_piece] = sum_a;
        if (p.has_skip != 0)
            dD_parts.v[p.dD_parts_at + head_piece] = sum_d;
    }
}
