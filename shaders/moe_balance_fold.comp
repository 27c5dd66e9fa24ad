#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/moe.clh"
#define LANE_BUFFER ITERA_GPU_LOCAL
#include "reduce.glsl"

ARGS(balance_fold_args)
IN(1, sums)
IN_INT(2, counts)
OUT(3, sum)
OUT_INT(4, count)

shared int taken;

// A group adds what the groups of moe_balance_sum found for its expert.
void main()
{
    float all = 0;
    int own = 0;
    if (LANE == 0)
        taken = 0;
    for (uint g = LANE; g < p.groups; g += LANES) {
        all += sums.v[p.sums_at + GROUP * p.groups + g];
        own += counts.v[p.counts_at + GROUP * p.groups + g];
    }
    all = group_sum(all);
    atomicAdd(taken, own);
    barrier();
    if (LANE == 0) {
        sum.v[p.sum_at + GROUP] = all;
        count.v[p.count_at + GROUP] = taken;
    }
}
