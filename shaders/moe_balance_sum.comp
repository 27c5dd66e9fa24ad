#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/moe.clh"
#include "moe_tile.glsl"

ARGS(balance_sum_args)
IN(1, logits)
IN_INT(2, index)
OUT(3, sums)
OUT_INT(4, counts)

shared float sum[TILE];
shared uint count[TILE];

// A group sums every p.groups-th tile of rows: sums[e][group] of probability - p.share, and
// counts[e][group] of assignments, of which there are none when k is 0. For the variation, mean
// probabilities lie close to each other and what counts is how far: so the share is 1 / E there,
// and the distance keeps its bits.
void main()
{
    uint tile_rows = TILE / p.experts;
    for (uint i = LANE; i < TILE; i += LANES) {
        sum[i] = 0;
        count[i] = 0;
    }
    for (uint first = GROUP * tile_rows; first < p.rows; first += p.groups * tile_rows) {
        uint n = min(tile_rows, p.rows - first) * p.experts;
        for (uint i = LANE; i < n; i += LANES) {
            uint row = first + i / p.experts;
            tile[i] = logits.v[p.logits_at + row * p.logits_ld + i % p.experts];
        }
        tile_softmax(n, p.experts);
        for (uint i = LANE; i < n; i += LANES) {
            uint at = p.index_at + (first + i / p.experts) * p.index_ld, own = 0;
            for (uint j = 0; j < p.k; j++)
                own += clamp_index(index.v[at + j], p.experts) == i % p.experts ? 1 : 0;
            count[i] += own;
            sum[i] += tile[i] - p.share;
        }
    }
    barrier();
    for (uint e = LANE; e < p.experts; e += LANES) {
        float all = 0;
        uint taken = 0;
        for (uint i = e; i < tile_rows * p.experts; i += p.experts) {
            all += sum[i];
            taken += count[i];
        }
        sums.v[p.sums_at + e * p.groups + GROUP] = all;
        counts.v[p.counts_at + e * p.groups + GROUP] = int(taken);
    }
}
