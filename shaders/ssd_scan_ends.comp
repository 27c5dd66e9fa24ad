#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"
#include "scan_ssd.glsl"

ARGS(ssd_scan_ends_args)
IN(1, x)
IN(2, dt)
IN(3, A)
IN(4, B)
OUT(5, decay)
OUT(6, ends)

// What a chunk leaves from zeros, ends (batch, chunks, heads, width, states), and of its start,
// decay (batch, chunks, heads). Backward, x and B are dy and C, and it is what the chunk's outputs
// bring to the gradient of its start state: sum_t exp(cum[t]) dy[t] C[t]. A workgroup takes 64 x 64
// of one head's state in one chunk.
void main()
{
    uint tile = GROUP % (p.row_tiles * p.column_tiles);
    uint head_piece = GROUP / (p.row_tiles * p.column_tiles);
    uint head = head_piece % p.heads, piece = head_piece / p.heads;
    uint k = piece % p.chunks, count = SSD_COUNT(k);
    uint row = piece / p.chunks * p.time + SSD_FIRST(k);
    uint first_p = tile / p.column_tiles * SSD_STEPS, first_n = tile % p.column_tiles * SSD_STEPS;
    uint x_col = head * p.width + first_p, b_col = head / p.group_heads * p.states + first_n;
    ssd_cumulate(LANE < count ? dt.v[p.dt_at + (row + LANE) * p.dt_ld + head] : 0.0,
                 A.v[p.A_at + head]);
    ssd_tile acc;
    ssd_clear(acc);
    for (uint first = 0; first < count; first += SSD_DEPTH) {
        for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
            uint t = first + i / SSD_STEPS, c = i % SSD_STEPS;
            float l = 0.0, r = 0.0;
            if (t < count && first_p + c < p.width) {
                float weight = p.backward != 0 ? exp(cum[t].x + cum[t].y)
                                               : steps[t] * ssd_decay(cum[SSD_STEPS - 1], cum[t]);
                l = weight * x.v[p.x_at + (row + t) * p.x_ld + x_col + c];
            }
            if (t < count && first_n + c < p.states)
                r = B.v[p.B_at + (row + t) * p.B_ld + b_col + c];
            SSD_LEFT(c, i / SSD_STEPS) = l;
            SSD_RIGHT(i / SSD_STEPS, c) = r;
        }
        barrier();
        ssd_multiply(acc);
        barrier();
    }
    [[unroll]] for (uint i = 0; i < 8; i++)
        [[unroll]] for (uint j = 0; j < 4; j++) {
            uint row_p = first_p + SSD_ROW + i, n = first_n + SSD_COLUMN(j);
            if (row_p < p.width && n < p.states)
                ends.v[p.ends_at + (head_piece * p.width + row_p) * p.states + n] =
                    ssd_get(acc, i, j);
        }
    if (tile == 0 && LANE == 0)
        decay.v[p.decay_at + head_piece] = exp(cum[SSD_STEPS - 1].x + cum[SSD_STEPS - 1].y);
}
