#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/moe.clh"

ARGS(sort_count_args)
IN_INT(1, index)
OUT_INT(2, counts)

#define COUNT_ASSIGNMENTS
#include "moe_sort.glsl"

// A group counts a block of p.block assignments.
void main()
{
    uint begin = GROUP * p.block;
    count_block(begin, min(begin + p.block, p.count));
    for (uint e = LANE; e < p.experts; e += LANES)
        counts.v[p.counts_at + e * p.blocks + GROUP] = int(next[e]);
}
