#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/moe.clh"
#include "moe_sort.glsl"

ARGS(sort_scan_args)
INOUT_INT(1, counts)
OUT_INT(2, totals)

// A group sums the counts of its expert: in place those of the blocks before, and all of them.
void main()
{
    uint first = p.counts_at + GROUP * p.blocks, carry = 0;
    for (uint start = 0; start < p.blocks; start += LANES) {
        uint b = start + LANE, own = b < p.blocks ? counts.v[first + b] : 0;
        uint prefix = group_prefix(own);
        if (b < p.blocks)
            counts.v[first + b] = int(carry + prefix - own);
        carry += sums[LANES - 1];
        barrier();
    }
    if (LANE == 0)
        totals.v[p.totals_at + GROUP] = int(carry);
}
