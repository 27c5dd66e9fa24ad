// Rows of logits, for the mixture-of-experts shaders; kernels_cl/moe.cl holds the same.
//
// A group works on a tile: as many whole rows as fit into TILE elements, one invocation to an
// element (and the next, TILE / LANES elements on), so that any number of experts reads the matrix
// in one piece. Reductions over a row go in two steps, spans first: they cost about
// 2 sqrt(experts) reads of shared memory each.
#ifndef ITERA_MOE_TILE_GLSL
#define ITERA_MOE_TILE_GLSL
#include "moe.glsl"

#define SPAN 16

shared float tile[TILE], part[TILE];

// part[i] = the sum of the span of the tile that begins at i, for the spans of each row
void span_sums(uint count, uint experts)
{
    for (uint i = LANE; i < count; i += LANES) {
        uint e = i % experts;
        if (e % SPAN == 0) {
            uint n = min(SPAN, experts - e);
            float sum = 0;
            for (uint j = 0; j < n; j++)
                sum += tile[i + j];
            part[i] = sum;
        }
    }
    barrier();
}

void span_maxima(uint count, uint experts)
{
    for (uint i = LANE; i < count; i += LANES) {
        uint e = i % experts;
        if (e % SPAN == 0) {
            uint n = min(SPAN, experts - e);
            float top = tile[i];
            for (uint j = 1; j < n; j++)
                top = tile[i + j] > top ? tile[i + j] : top;
            part[i] = top;
        }
    }
    barrier();
}

// The sum of the row that element i is in
float tile_row_sum(uint i, uint experts)
{
    uint first = i - i % experts;
    float sum = 0;
    for (uint e = 0; e < experts; e += SPAN)
        sum += part[first + e];
    return sum;
}

// tile = softmax of each of its rows, which the group has written. On return an invocation sees its
// own elements, and the others' after a barrier.
void tile_softmax(uint count, uint experts)
{
    barrier();
    span_maxima(count, experts);
    for (uint i = LANE; i < count; i += LANES) {
        uint first = i - i % experts;
        float top = part[first];
        for (uint e = SPAN; e < experts; e += SPAN)
            top = part[first + e] > top ? part[first + e] : top;
        tile[i] = exp(tile[i] - top);
    }
    barrier();
    span_sums(count, experts);
    for (uint i = LANE; i < count; i += LANES)
        tile[i] /= tile_row_sum(i, experts);
}

#endif
