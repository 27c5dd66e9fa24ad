#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"
#include "scan_ssd.glsl"

ARGS(ssd_scan_outputs_args)
IN(1, x)
IN(2, dt)
IN(3, A)
IN(4, C)
IN(5, D)
IN(6, scores)
IN(7, starts)
OUT(8, y)

// A workgroup takes 64 channels of one head in one chunk.
void main()
{
    uint first_p = GROUP % p.row_tiles * SSD_STEPS, head_piece = GROUP / p.row_tiles;
    uint head = head_piece % p.heads, piece = head_piece / p.heads;
    uint group = head / p.group_heads, groups = p.heads / p.group_heads;
    uint k = piece % p.chunks, count = SSD_COUNT(k);
    uint row = piece / p.chunks * p.time + SSD_FIRST(k);
    uint x_col = head * p.width + first_p, c_col = group * p.states;
    uint scores_at = p.scores_at + (piece * groups + group) * p.chunk_steps * p.chunk_steps;
    uint starts_at = p.starts_at + (head_piece * p.width + first_p) * p.states;
    ssd_cumulate(LANE < count ? dt.v[p.dt_at + (row + LANE) * p.dt_ld + head] : 0.0,
                 A.v[p.A_at + head]);
    ssd_tile acc;
    ssd_clear(acc);
    for (uint first = 0; first < p.states; first += SSD_DEPTH) {
        for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
            uint n = first + i % SSD_DEPTH, c = i / SSD_DEPTH;
            float l = 0.0, r = 0.0;
            if (n < p.states && c < count)
                l = exp(cum[c].x + cum[c].y) * C.v[p.C_at + (row + c) * p.C_ld + c_col + n];
            if (n < p.states && first_p + c < p.width)
                r = starts.v[starts_at + c * p.states + n];
            SSD_LEFT(c, i % SSD_DEPTH) = l;
            SSD_RIGHT(i % SSD_DEPTH, c) = r;
        }
        barrier();
        ssd_multiply(acc);
        barrier();
    }
    for (uint first = 0; first < count; first += SSD_DEPTH) {
        for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
            uint s = first + i % SSD_DEPTH, t = i / SSD_DEPTH;
            float l = 0.0;
            if (s <= t && t < count)
                l = scores.v[scores_at + t * p.chunk_steps + s] * steps[s] *
                    ssd_decay(cum[t], cum[s]);
            SSD_LEFT(t, i % SSD_DEPTH) = l;
        }
        for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
            uint s = first + i / SSD_STEPS, c = i % SSD_STEPS;
            bool valid = s < count && first_p + c < p.width;
            SSD_RIGHT(i / SSD_STEPS, c) =
                valid ? x.v[p.x_at + (row + s) * p.x_ld + x_col + c] : 0.0;
        }
        barrier();
        if (SSD_ROW + 7 >= first) // earlier rows see nothing of these steps
            ssd_multiply(acc);
        barrier();
    }
    float skip = p.has_skip != 0 ? D.v[p.D_at + head] : 0.0;
    [[unroll]] for (uint i = 0; i < 8; i++)
        [[unroll]] for (uint j = 0; j < 4; j++) {
            uint t = SSD_ROW + i, c = SSD_COLUMN(j);
            if (t < count && first_p + c < p.width)
                y.v[p.y_at + (row + t) * p.y_ld + x_col + c] =
                    ssd_get(acc, i, j) + skip * x.v[p.x_at + (row + t) * p.x_ld + x_col + c];
        }
}
