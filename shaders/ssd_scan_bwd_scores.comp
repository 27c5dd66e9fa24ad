#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"
#include "scan_ssd.glsl"

ARGS(ssd_scan_bwd_scores_args)
IN(1, dy)
IN(2, x)
IN(3, dt)
IN(4, A)
IN(5, scores)
OUT(6, products)
OUT(7, inner)

// products (batch, chunks, groups, slices, chunk_steps, chunk_steps): Z, summed over the heads of a
// slice of a group; inner (batch, chunks, heads, chunk_steps): q's paths within the chunk, the sum
// of Z[r,s] (C[r] . B[s]) over s < t <= r. A workgroup takes a slice of a group in one chunk, head
// by head.
void main()
{
    uint slice = GROUP % p.slices, group_piece = GROUP / p.slices;
    uint group = group_piece % p.groups, piece = group_piece / p.groups;
    uint k = piece % p.chunks, count = SSD_COUNT(k);
    uint row = piece / p.chunks * p.time + SSD_FIRST(k);
    uint scores_at = p.scores_at + group_piece * p.chunk_steps * p.chunk_steps;
    uint end_head = min((slice + 1) * p.slice_heads, p.group_heads);
    float total[32];
    for (uint i = 0; i < 32; i++)
        total[i] = 0.0;
    for (uint h = slice * p.slice_heads; h < end_head; h++) {
        uint head = group * p.group_heads + h, col = head * p.width;
        uint inner_at = p.inner_at + (piece * p.heads + head) * p.chunk_steps;
        ssd_cumulate(LANE < count ? dt.v[p.dt_at + (row + LANE) * p.dt_ld + head] : 0.0,
                     A.v[p.A_at + head]);
        ssd_tile acc;
        ssd_clear(acc);
        for (uint first = 0; first < p.width; first += SSD_DEPTH) {
            for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
                uint c = i % SSD_DEPTH, t = i / SSD_DEPTH;
                bool valid = t < count && first + c < p.width;
                uint at = col + first + c;
                SSD_LEFT(t, c) = valid ? dy.v[p.dy_at + (row + t) * p.dy_ld + at] : 0.0;
                SSD_RIGHT(c, t) = valid ? x.v[p.x_at + (row + t) * p.x_ld + at] : 0.0;
            }
            barrier();
            ssd_multiply(acc);
            barrier();
        }
        // In 16 columns at a time: earlier paths by row, then their sum over later rows.
        float passed = 0.0;
        [[unroll]] for (uint j = 0; j < 4; j++) {
            uint t = SSD_COLUMN(j);
            [[unroll]] for (uint i = 0; i < 8; i++) {
                uint r = SSD_ROW + i;
                float z = 0.0, w = 0.0;
                if (t <= r && r < count) {
                    z = ssd_get(acc, i, j) * ssd_decay(cum[r], cum[t]) * steps[t];
                    if (t < r)
                        w = z * scores.v[scores_at + r * p.chunk_steps + t];
                }
                total[i * 4 + j] += z;
                SSD_BLOCK(r, LANE % 16) = w;
            }
            barrier();
            if (LANE < SSD_STEPS)
                for (uint c = 0; c < 16; c++) {
                    float w = SSD_BLOCK(LANE, c);
                    SSD_BLOCK(LANE, c) = passed;
                    passed += w;
                }
            barrier();
            float sum = 0.0;
            [[unroll]] for (uint i = 0; i < 8; i++)
                sum += SSD_ROW + i >= t ? SSD_BLOCK(SSD_ROW + i, LANE % 16) : 0.0;
            right[LANE] = sum;
            barrier();
            if (LANE < 16 && t < count) {
                for (uint i = 1; i < 8; i++)
                    sum += right[i * 16 + LANE];
                inner.v[inner_at + t] = sum;
            }
        }
    }
    uint products_at = p.products_at + GROUP * p.chunk_steps * p.chunk_steps;
    [[unroll]] for (uint i = 0; i < 8; i++)
        [[unroll]] for (uint j = 0; j < 4; j++) {
            uint t = SSD_ROW + i, s = SSD_COLUMN(j);
            if (t < count && s < count)
                products.v[products_at + t * p.chunk_steps + s] = total[i * 4 + j];
        }
}
