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
    float row_start = 0.0, row_end = 0.0, row_all = 0.0, sum_d = 0.0; // of step LANE
    ssd_cumulate(LANE < count ? dt.v[p.dt_at + (row + LANE) * p.dt_ld + head] : 0.0, rate);
    for (uint first_p = 0; first_p < p.width; first_p += SSD_STEPS) {
        uint x_col = head * p.width + first_p, state_row = head_piece * p.width + first_p;
        ssd_tile acc;
        // One copy of the code for three products: l G B, to which is added M dy, then f S C.
        [[dont_unroll]]
        for (uint pass = 0; pass < 3; pass++) {
            if (pass != 1)
                ssd_clear(acc);
            uint depth = pass == 1 ? count : p.states;
            for (uint first = 0; first < depth; first += SSD_DEPTH) {
                [[dont_unroll]]
                for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
                    float l = 0.0, r = 0.0;
                    uint across = pass == 1 ? i / SSD_STEPS : i % SSD_DEPTH, n = first + across;
                    uint c = pass == 1 ? i % SSD_STEPS : i / SSD_DEPTH;
                    bool in_time = n < depth && c < count, in_width = first_p + c < p.width;
                    if (pass == 1) {
                        if (in_time && c <= n)
                            l = scores.v[scores_at + n * p.chunk_steps + c] *
                                ssd_decay(cum[n], cum[c]);
                        if (n < depth && in_width)
                            r = dy.v[p.dy_at + (row + n) * p.dy_ld + x_col + c];
                    } else {
                        if (in_time)
                            l = pass == 0 ? ssd_decay(cum[SSD_STEPS - 1], cum[c]) *
                                                B.v[p.B_at + (row + c) * p.B_ld + b_col + n]
                                          : exp(cum[c].x + cum[c].y) *
                                                C.v[p.C_at + (row + c) * p.C_ld + b_col + n];
                        if (n < depth && in_width)
                            r = pass == 0 ? later.v[p.later_at + (state_row + c) * p.states + n]
                                          : starts.v[p.starts_at + (state_row + c) * p.start_ld + n];
                    }
                    SSD_LEFT(c, across) = l;
                    SSD_RIGHT(across, c) = r;
                }
                barrier();
                // In the second product later rows do not see these steps.
                if (pass != 1 || SSD_ROW < first + SSD_DEPTH)
                    ssd_multiply(acc);
                barrier();
            }
            float sums[8];
            [[unroll]] for (uint i = 0; i < 8; i++)
                sums[i] = 0.0;
            [[dont_unroll]]
            for (uint j = 0; j < 4; j++) {
                uint c = SSD_COLUMN(j);
                bool in_width = first_p + c < p.width;
                [[unroll]] for (uint i = 0; i < 8; i++) {
                    uint t = SSD_ROW + i;
                    if (t < count && in_width) {
                        uint x_at = p.x_at + (row + t) * p.x_ld + x_col + c;
                        uint dy_at = p.dy_at + (row + t) * p.dy_ld + x_col + c;
                        float v = ssd_get(acc, i, 0);
                        float with = pass == 2 ? dy.v[dy_at] : x.v[x_at];
                        sums[i] += v * with;
                        if (pass == 1) {
                            float dy_in = dy.v[dy_at];
                            dx.v[p.dx_at + (row + t) * p.dx_ld + x_col + c] =
                                skip * dy_in + steps[t] * v;
                            sum_d += dy_in * with;
                        }
                    }
                }
                ssd_turn(acc);
            }
            float sum = ssd_row_sum(sums);
            row_end += pass == 0 ? sum : 0.0;
            row_all += pass == 1 ? sum : 0.0;
            row_start += pass == 2 ? sum : 0.0;
        }
    }
    float through = 0.0; // from the start state to the end state
    for (uint i = LANE; i < p.width * p.states; i += SCAN_LANES)
        through +=
            later.v[p.later_at + head_piece * p.width * p.states + i] *
            starts.v[p.starts_at + (head_piece * p.width + i / p.states) * p.start_ld +
                     i % p.states];
    through = scan_sum_rows(through, 1) * exp(cum[SSD_STEPS - 1].x + cum[SSD_STEPS - 1].y);
    float q = 0.0;
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
