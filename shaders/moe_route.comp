#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/moe.clh"
#include "moe_tile.glsl"

ARGS(route_args)
IN(1, logits)
OUT_INT(2, index)
OUT(3, weight)

shared uint key[TILE], place[TILE];
shared float top[TILE];

// A group routes TILE / experts tokens. An expert's place in the choice is the number of experts
// that come before it: every invocation counts its own, for any k in one pass.
void main()
{
    uint tile_rows = TILE / p.experts, first = GROUP * tile_rows;
    uint count = (first < p.rows ? min(tile_rows, p.rows - first) : 0) * p.experts;
    for (uint i = LANE; i < count; i += LANES) {
        uint row = first + i / p.experts;
        float x = logits.v[p.logits_at + row * p.logits_ld + i % p.experts];
        tile[i] = x;
        key[i] = choice_key(x);
    }
    barrier();
    for (uint i = LANE; i < count; i += LANES) {
        uint begin = i - i % p.experts, own = key[i], before = 0;
        for (uint j = begin; j < begin + p.experts; j++) {
            uint least = own + (j < i ? 0 : 1); // no key is the largest number
            before += key[j] >= least ? 1 : 0;
        }
        place[i] = before;
        if (before == 0)
            top[i / p.experts] = tile[i];
    }
    barrier();
    for (uint i = LANE; i < count; i += LANES) {
        bool counts = p.over_all != 0 || place[i] < p.k;
        tile[i] = counts ? exp(tile[i] - top[i / p.experts]) : 0.0;
    }
    barrier();
    span_sums(count, p.experts);
    for (uint i = LANE; i < count; i += LANES) {
        uint row = first + i / p.experts, j = place[i];
        if (j < p.k) {
            index.v[p.index_at + row * p.index_ld + j] = int(i % p.experts);
            weight.v[p.weight_at + row * p.weight_ld + j] = tile[i] / tile_row_sum(i, p.experts);
        }
    }
}
