// moe_sort, a stable counting sort. Blocks of assignments are counted (moe_sort_count), an expert's
// counts are summed over the blocks before (moe_sort_scan), and every block then places its own,
// tile after tile (moe_sort). Few assignments are one block, which needs the last shader only.
// kernels_cl/moe.cl holds the same.
#ifndef ITERA_MOE_SORT_GLSL
#define ITERA_MOE_SORT_GLSL
#include "moe.glsl"

shared uint sums[LOCAL];

// The sum of the values of this lane and all lanes before; sums holds those of all lanes.
uint group_prefix(uint value)
{
    sums[LANE] = value;
    barrier();
    for (uint stride = 1; stride < LANES; stride *= 2) {
        uint earlier = LANE >= stride ? sums[LANE - stride] : 0;
        barrier();
        sums[LANE] += earlier;
        barrier();
    }
    return sums[LANE];
}

#ifdef COUNT_ASSIGNMENTS
shared uint next[MAX_EXPERTS];

// The expert of assignment i, in the order of index's rows.
#define EXPERT_OF(i) clamp_index(index.v[p.index_at + i / p.k * p.index_ld + i % p.k], p.experts)

// next[e] = how many of the assignments [begin, end) expert e has.
void count_block(uint begin, uint end)
{
    for (uint e = LANE; e < MAX_EXPERTS; e += LANES)
        next[e] = 0;
    barrier();
    for (uint i = begin + LANE; i < end; i += LANES)
        atomicAdd(next[EXPERT_OF(i)], 1);
    barrier();
}
#endif

#endif
