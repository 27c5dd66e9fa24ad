#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "scan.glsl"
#include "scan_ssd.glsl"

ARGS(ssd_scan_scores_args)
IN(1, B)
IN(2, C)
OUT(3, scores)

// scores (batch, chunks, groups, chunk_steps, chunk_steps) = C B^T. A workgroup takes one chunk of
// one group.
void main()
{
    uint piece = GROUP / p.groups, col = GROUP % p.groups * p.states;
    uint k = piece % p.chunks, count = SSD_COUNT(k);
    uint row = piece / p.chunks * p.time + SSD_FIRST(k);
    ssd_tile acc;
    ssd_clear(acc);
    for (uint first = 0; first < p.states; first += SSD_DEPTH) {
        for (uint i = LANE; i < SSD_STEPS * SSD_DEPTH; i += SCAN_LANES) {
            uint n = i % SSD_DEPTH, t = i / SSD_DEPTH;
            bool valid = t < count && first + n < p.states;
            SSD_LEFT(t, n) = valid ? C.v[p.C_at + (row + t) * p.C_ld + col + first + n] : 0.0;
            SSD_RIGHT(n, t) = valid ? B.v[p.B_at + (row + t) * p.B_ld + col + first + n] : 0.0;
        }
        barrier();
        ssd_multiply(acc);
        barrier();
    }
    [[unroll]] for (uint i = 0; i < 8; i++)
        [[unroll]] for (uint j = 0; j < 4; j++) {
            uint t = SSD_ROW + i, s = SSD_COLUMN(j);
            if (t < count && s < count)
                scores.v[p.scores_at + (GROUP * p.chunk_steps + t) * p.chunk_steps + s] =
                    ssd_get(acc, i, j);
        }
}
