#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/moe.clh"

ARGS(sort_args)
IN_INT(1, index)
IN_INT(2, counts)
IN_INT(3, totals)
OUT_INT(4, offsets)
OUT_INT(5, order)
OUT_INT(6, position)

#define COUNT_ASSIGNMENTS
#include "moe_sort.glsl"

shared uint seen[LOCAL];

// next[e] becomes the sum of those before e.
void scan_experts()
{
    uint carry = 0;
    for (uint e = LANE; e < MAX_EXPERTS; e += LANES) {
        uint own = next[e], prefix = group_prefix(own);
        next[e] = carry + prefix - own;
        carry += sums[LANES - 1];
        barrier();
    }
}

// A group gives the assignments of a block their slots, LANES at a time: those of expert e from
// next[e] on, in their own order, for which an invocation counts the earlier ones of its expert.
void main()
{
    uint begin = GROUP * p.block, end = min(begin + p.block, p.count);
    if (p.blocks > 1)
        for (uint e = LANE; e < MAX_EXPERTS; e += LANES)
            next[e] = e < p.experts ? totals.v[p.totals_at + e] : 0;
    else
        count_block(begin, end);
    scan_experts();
    for (uint e = LANE; e < p.experts; e += LANES) {
        if (GROUP == 0)
            offsets.v[p.offsets_at + e] = int(next[e]);
        if (p.blocks > 1)
            next[e] += counts.v[p.counts_at + e * p.blocks + GROUP];
    }
    if (GROUP == 0 && LANE == 0)
        offsets.v[p.offsets_at + p.experts] = int(p.count);
    for (uint start = begin; start < end; start += LANES) {
        uint i = start + LANE, e = MAX_EXPERTS, before = 0, all = 0;
        if (i < end)
            e = EXPERT_OF(i);
        seen[LANE] = e;
        barrier();
        for (uint other = 0; other < LANES; other++) {
            uint same = seen[other] == e ? 1 : 0;
            all += same;
            before += other < LANE ? same : 0;
        }
        uint slot = i < end ? next[e] + before : 0;
        barrier();
        if (i < end) {
            order.v[p.order_at + slot] = int(i);
            position.v[p.position_at + i / p.k * p.position_ld + i % p.k] = int(slot);
            if (before + 1 == all)
                next[e] = slot + 1;
        }
    }
}
