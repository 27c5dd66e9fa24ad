#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/moe.clh"
#include "moe_tile.glsl"

ARGS(route_bwd_args)
IN(1, dweight)
IN(2, logits)
IN_INT(3, index)
IN(4, weight)
OUT(5, dlogits)

// A group takes TILE / experts tokens, an invocation one logit at a time; the k choices of a token
// are read by all its invocations, from cache.
void main()
{
    uint tile_rows = TILE / p.experts, first = GROUP * tile_rows;
    uint count = (first < p.rows ? min(tile_rows, p.rows - first) : 0) * p.experts;
    if (p.over_all != 0) {
        for (uint i = LANE; i < count; i += LANES) {
            uint row = first + i / p.experts;
            tile[i] = logits.v[p.logits_at + row * p.logits_ld + i % p.experts];
        }
        tile_softmax(count, p.experts);
    }
    for (uint i = LANE; i < count; i += LANES) {
        uint row = first + i / p.experts, e = i % p.experts;
        float mean = 0, own_w = 0, own_dw = 0, sum_dw = 0;
        bool chosen = false;
        for (uint j = 0; j < p.k; j++) {
            float w = weight.v[p.weight_at + row * p.weight_ld + j];
            float dw = dweight.v[p.dweight_at + row * p.dweight_ld + j];
            mean += w * dw;
            if (clamp_index(index.v[p.index_at + row * p.index_ld + j], p.experts) == e) {
                chosen = true;
                own_w = w;
                own_dw = dw;
                sum_dw += dw;
            }
        }
        float dx = chosen ? own_w * (own_dw - mean) : 0.0;
        if (p.over_all != 0)
            dx = tile[i] * (sum_dw - mean);
        dlogits.v[p.dlogits_at + row * p.dlogits_ld + e] = dx;
    }
}
