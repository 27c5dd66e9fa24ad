#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/moe.clh"
#include "moe_tile.glsl"

ARGS(balance_bwd_args)
IN(1, dloss)
IN(2, logits)
IN(3, load)
IN(4, sum)
OUT(5, dlogits)

shared float prob[TILE], slope[TILE];

// A group takes TILE / experts rows. Slopes are dloss p.scale times the expert's load or the sum of
// its deviations, less the likeliest's: the same for all changes nothing, and what that expert takes
// from the others' sum does not cancel.
void main()
{
    uint tile_rows = TILE / p.experts, first = GROUP * tile_rows;
    uint count = (first < p.rows ? min(tile_rows, p.rows - first) : 0) * p.experts;
    for (uint i = LANE; i < count; i += LANES) {
        uint row = first + i / p.experts;
        tile[i] = logits.v[p.logits_at + row * p.logits_ld + i % p.experts];
    }
    tile_softmax(count, p.experts);
    float scale = dloss.v[p.dloss_at] * p.scale;
    for (uint i = LANE; i < count; i += LANES)
        prob[i] = tile[i];
    barrier();
    for (uint i = LANE; i < count; i += LANES) {
        uint e = i % p.experts, best = i - e;
        for (uint j = 1; j < p.experts; j++)
            best = prob[i - e + j] > prob[best] ? i - e + j : best;
        best -= i - e;
        slope[i] = scale * (p.kind != 0 ? load.v[p.load_at + e] - load.v[p.load_at + best]
                                        : sum.v[p.sum_at + e] - sum.v[p.sum_at + best]);
        tile[i] = prob[i] * slope[i];
    }
    barrier();
    span_sums(count, p.experts);
    for (uint i = LANE; i < count; i += LANES) {
        uint row = first + i / p.experts, e = i % p.experts;
        dlogits.v[p.dlogits_at + row * p.dlogits_ld + e] =
            prob[i] * (slope[i] - tile_row_sum(i, p.experts));
    }
}
