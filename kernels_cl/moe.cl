/* Mixture of experts: routing, the sort by expert, gather and combine, load balance. The contracts
 * are in host/ops/moe.c. Indices are untrusted everywhere: they are brought into range. */
#include "args/moe.clh"
#include "itera.clh"
#include "moe.clh"
#include "reduce.clh"

#define LOCAL ITERA_GPU_LOCAL /* LANES, for the sizes of arrays */

/* ---- Rows of logits -----------------------------------------------------------------------------
 * A group works on a tile: as many whole rows as fit into TILE elements, one invocation to an
 * element (and the next, TILE / LANES elements on), so that any number of experts reads the matrix
 * in one piece. Reductions over a row go in two steps, spans first: they cost about 2 sqrt(experts)
 * reads of local memory each. */

#define SPAN 16

/* part[i] = the sum of the span of x that begins at i, for the spans of each row. */
static inline void span_sums(local const float *x, local float *part, uint count, uint experts)
{
    for (uint i = LANE; i < count; i += LANES) {
        uint e = i % experts;
        if (e % SPAN)
            continue;
        float sum = 0;
        for (uint n = min((uint)SPAN, experts - e), j = 0; j < n; j++)
            sum += x[i + j];
        part[i] = sum;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

static inline void span_maxima(local const float *x, local float *part, uint count, uint experts)
{
    for (uint i = LANE; i < count; i += LANES) {
        uint e = i % experts;
        if (e % SPAN)
            continue;
        float top = x[i];
        for (uint n = min((uint)SPAN, experts - e), j = 1; j < n; j++)
            top = x[i + j] > top ? x[i + j] : top;
        part[i] = top;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

/* The sum of the row that element i is in. */
static inline float tile_row_sum(local const float *part, uint i, uint experts)
{
    float sum = 0;
    for (uint e = 0, first = i - i % experts; e < experts; e += SPAN)
        sum += part[first + e];
    return sum;
}

/* x = softmax of each row of the tile; the group has written x. On return an invocation sees its
 * own elements, and the others' after a barrier. */
static inline void tile_softmax(local float *x, local float *part, uint count, uint experts)
{
    barrier(CLK_LOCAL_MEM_FENCE);
    span_maxima(x, part, count, experts);
    for (uint i = LANE; i < count; i += LANES) {
        uint first = i - i % experts;
        float top = part[first];
        for (uint e = SPAN; e < experts; e += SPAN)
            top = part[first + e] > top ? part[first + e] : top;
        x[i] = exp(x[i] - top);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    span_sums(x, part, count, experts);
    for (uint i = LANE; i < count; i += LANES)
        x[i] /= tile_row_sum(part, i, experts);
}

/* ---- moe_route ------------------------------------------------------------------------------- */

/* A group routes TILE / experts tokens. An expert's place in the choice is the number of experts
 * that come before it: every invocation counts its own, for any k in one pass. */
kernel void moe_route(global const float *logits, global int *index, global float *weight,
                      const struct route_args p)
{
    local uint key[TILE], place[TILE];
    local float x[TILE], part[TILE], top[TILE];
    uint tile_rows = TILE / p.experts, first = GROUP * tile_rows;
    uint count = (first < p.rows ? min(tile_rows, p.rows - first) : 0) * p.experts;
    for (uint i = LANE; i < count; i += LANES) {
        x[i] = logits[p.logits_at + (first + i / p.experts) * p.logits_ld + i % p.experts];
        key[i] = choice_key(x[i]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = LANE; i < count; i += LANES) {
        uint begin = i - i % p.experts, own = key[i], before = 0;
        for (uint j = begin; j < begin + p.experts; j++)
            before += key[j] >= own + (j < i ? 0 : 1); /* no key is the largest number */
        place[i] = before;
        if (before == 0)
            top[i / p.experts] = x[i];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = LANE; i < count; i += LANES)
        x[i] = p.over_all || place[i] < p.k ? exp(x[i] - top[i / p.experts]) : 0.0f;
    barrier(CLK_LOCAL_MEM_FENCE);
    span_sums(x, part, count, p.experts);
    for (uint i = LANE; i < count; i += LANES) {
        uint row = first + i / p.experts, j = place[i];
        if (j >= p.k)
            continue;
        index[p.index_at + row * p.index_ld + j] = (int)(i % p.experts);
        weight[p.weight_at + row * p.weight_ld + j] = x[i] / tile_row_sum(part, i, p.experts);
    }
}

/* A group takes TILE / experts tokens, an invocation one logit at a time; the k choices of a token
 * are read by all its invocations, from cache. */
kernel void moe_route_bwd(global const float *dweight, global const float *logits,
                          global const int *index, global const float *weight,
                          global float *dlogits, const struct route_bwd_args p)
{
    local float x[TILE], part[TILE];
    uint tile_rows = TILE / p.experts, first = GROUP * tile_rows;
    uint count = (first < p.rows ? min(tile_rows, p.rows - first) : 0) * p.experts;
    if (p.over_all) {
        for (uint i = LANE; i < count; i += LANES)
            x[i] = logits[p.logits_at + (first + i / p.experts) * p.logits_ld + i % p.experts];
        tile_softmax(x, part, count, p.experts);
    }
    for (uint i = LANE; i < count; i += LANES) {
        uint row = first + i / p.experts, e = i % p.experts;
        float mean = 0, own_w = 0, own_dw = 0, sum_dw = 0;
        bool chosen = false;
        for (uint j = 0; j < p.k; j++) {
            float w = weight[p.weight_at + row * p.weight_ld + j];
            float dw = dweight[p.dweight_at + row * p.dweight_ld + j];
            mean += w * dw;
            if (clamp_index(index[p.index_at + row * p.index_ld + j], p.experts) == e) {
                chosen = true;
                own_w = w;
                own_dw = dw;
                sum_dw += dw;
            }
        }
        float dx = p.over_all ? x[i] * (sum_dw - mean) : chosen ? own_w * (own_dw - mean) : 0.0f;
        dlogits[p.dlogits_at + row * p.dlogits_ld + e] = dx;
    }
}

/* ---- moe_sort -----------------------------------------------------------------------------------
 * A stable counting sort. Blocks of assignments are counted, an expert's counts are summed over the
 * blocks before, and every block then places its own, tile after tile. Few assignments are one
 * block, which needs the last kernel only. */

/* The assignments of index, numbered in the order of rows. */
struct assignments {
    global const int *index;
    uint ld, k, experts;
};

static inline uint expert_of(const struct assignments *a, uint i)
{
    return clamp_index(a->index[i / a->k * a->ld + i % a->k], a->experts);
}

/* next[e] = how many of the assignments [begin, end) expert e has. */
static inline void count_block(const struct assignments *a, uint begin, uint end, local uint *next)
{
    for (uint e = LANE; e < MAX_EXPERTS; e += LANES)
        next[e] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = begin + LANE; i < end; i += LANES)
        atomic_inc(&next[expert_of(a, i)]);
    barrier(CLK_LOCAL_MEM_FENCE);
}

/* The sum of the values of this lane and all lanes before; sums has LANES elements. */
static inline uint group_prefix(uint value, local uint *sums)
{
    sums[LANE] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint step = 1; step < LANES; step *= 2) {
        uint earlier = LANE >= step ? sums[LANE - step] : 0;
        barrier(CLK_LOCAL_MEM_FENCE);
        sums[LANE] += earlier;
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return sums[LANE];
}

/* A group counts a block of p.block assignments. */
kernel void moe_sort_count(global const int *index, global uint *counts,
                           const struct sort_count_args p)
{
    local uint next[MAX_EXPERTS];
    struct assignments a = {index + p.index_at, p.index_ld, p.k, p.experts};
    uint begin = GROUP * p.block;
    count_block(&a, begin, min(begin + p.block, p.count), next);
    for (uint e = LANE; e < p.experts; e += LANES)
        counts[p.counts_at + e * p.blocks + GROUP] = next[e];
}

/* A group sums the counts of its expert: in place those of the blocks before, and all of them. */
kernel void moe_sort_scan(global uint *counts, global uint *totals, const struct sort_scan_args p)
{
    local uint sums[LOCAL];
    global uint *count = counts + p.counts_at + GROUP * p.blocks;
    uint carry = 0;
    for (uint tile = 0; tile < p.blocks; tile += LANES) {
        uint b = tile + LANE, own = b < p.blocks ? count[b] : 0;
        uint prefix = group_prefix(own, sums);
        if (b < p.blocks)
            count[b] = carry + prefix - own;
        carry += sums[LANES - 1];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (LANE == 0)
        totals[p.totals_at + GROUP] = carry;
}

/* next[e] becomes the sum of those before e. */
static inline void scan_experts(local uint *next, local uint *sums)
{
    uint carry = 0;
    for (uint e = LANE; e < MAX_EXPERTS; e += LANES) {
        uint own = next[e], prefix = group_prefix(own, sums);
        next[e] = carry + prefix - own;
        carry += sums[LANES - 1];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

/* A group gives the assignments of a block their slots, LANES at a time: those of expert e from
 * next[e] on, in their own order, for which an invocation counts the earlier ones of its expert. */
kernel void moe_sort(global const int *index, global const uint *counts, global const uint *totals,
                     global int *offsets, global int *order, global int *position,
                     const struct sort_args p)
{
    local uint next[MAX_EXPERTS], seen[LOCAL];
    struct assignments a = {index + p.index_at, p.index_ld, p.k, p.experts};
    uint begin = GROUP * p.block, end = min(begin + p.block, p.count);
    if (p.blocks > 1)
        for (uint e = LANE; e < MAX_EXPERTS; e += LANES)
            next[e] = e < p.experts ? totals[p.totals_at + e] : 0;
    else
        count_block(&a, begin, end, next);
    scan_experts(next, seen);
    for (uint e = LANE; e < p.experts; e += LANES) {
        if (GROUP == 0)
            offsets[p.offsets_at + e] = (int)next[e];
        if (p.blocks > 1)
            next[e] += counts[p.counts_at + e * p.blocks + GROUP];
    }
    if (GROUP == 0 && LANE == 0)
        offsets[p.offsets_at + p.experts] = (int)p.count;
    for (uint tile = begin; tile < end; tile += LANES) {
        uint i = tile + LANE, e = i < end ? expert_of(&a, i) : MAX_EXPERTS;
        uint before = 0, all = 0;
        seen[LANE] = e;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint other = 0; other < LANES; other++) {
            uint same = seen[other] == e;
            all += same;
            before += other < LANE ? same : 0;
        }
        uint slot = i < end ? next[e] + before : 0;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (i < end) {
            order[p.order_at + slot] = (int)i;
            position[p.position_at + i / p.k * p.position_ld + i % p.k] = (int)slot;
            if (before + 1 == all)
                next[e] = slot + 1;
        }
    }
}

/* ---- moe_gather, moe_combine --------------------------------------------------------------------
 * An invocation takes four neighbouring columns of a row, as one value where all rows begin at
 * multiples of 16 bytes. */

#define QUADS(x) (((p.x##_at | p.x##_ld) & 3) == 0)

/* n columns (4, or fewer at the end of a row) from x[at]; the others are 0. */
static inline float4 load4(global const float *x, uint at, uint n, bool quads)
{
    if (quads && n == 4)
        return *(global const float4 *)(x + at);
    return (float4)(x[at], n > 1 ? x[at + 1] : 0.0f, n > 2 ? x[at + 2] : 0.0f,
                    n > 3 ? x[at + 3] : 0.0f);
}

static inline void store4(global float *x, uint at, uint n, bool quads, float4 v)
{
    if (quads && n == 4) {
        *(global float4 *)(x + at) = v;
        return;
    }
    x[at] = v.x;
    if (n > 1)
        x[at + 1] = v.y;
    if (n > 2)
        x[at + 2] = v.z;
    if (n > 3)
        x[at + 3] = v.w;
}

/* A group copies 4 LANES columns of y. */
kernel void moe_gather(global const float *x, global const int *order, global float *y,
                       const struct gather_args p)
{
    uint quads = (p.cols + 3) / 4, slot = THREAD / quads, c = THREAD % quads * 4;
    if (slot >= p.slots)
        return;
    uint n = min(p.cols - c, 4u), row = clamp_index(order[p.order_at + slot], p.slots) / p.k;
    float4 v = load4(x, p.x_at + row * p.x_ld + c, n, QUADS(x));
    store4(y, p.y_at + slot * p.y_ld + c, n, QUADS(y), v);
}

/* A group computes 4 LANES columns of dx, adding the k rows of each in their order. */
kernel void moe_gather_bwd(global const float *dy, global const int *position, global float *dx,
                           const struct gather_bwd_args p)
{
    uint quads = (p.cols + 3) / 4, row = THREAD / quads, c = THREAD % quads * 4;
    if (row >= p.rows)
        return;
    uint n = min(p.cols - c, 4u);
    float4 sum = 0;
    for (uint j = 0; j < p.k; j++) {
        uint slot = clamp_index(position[p.position_at + row * p.position_ld + j], p.rows * p.k);
        sum += load4(dy, p.dy_at + slot * p.dy_ld + c, n, QUADS(dy));
    }
    store4(dx, p.dx_at + row * p.dx_ld + c, n, QUADS(dx), sum);
}

/* The upper half of a number's bits: products of halves are exact. */
static inline float4 upper(float4 v)
{
    return as_float4(as_uint4(v) & 0xfffff000u);
}

/* A group computes 4 LANES columns of out, adding the k rows of each in their order. Terms may
 * cancel, and not every device has a fused product: `rest` is what sum lost, and where one of them
 * is not finite `plain` says what the result is. */
kernel void moe_combine(global const float *y, global const int *position,
                        global const float *weight, global const float *residual,
                        global float *result, const struct combine_args p)
{
    uint quads = (p.cols + 3) / 4, row = THREAD / quads, c = THREAD % quads * 4;
    if (row >= p.rows)
        return;
    uint n = min(p.cols - c, 4u);
    float4 sum = 0, rest = 0;
    if (p.has_residual)
        sum = load4(residual, p.residual_at + row * p.residual_ld + c, n, QUADS(residual));
    float4 plain = sum;
    for (uint j = 0; j < p.k; j++) {
        uint slot = clamp_index(position[p.position_at + row * p.position_ld + j], p.rows * p.k);
        float4 w = weight[p.weight_at + row * p.weight_ld + j];
        float4 v = load4(y, p.y_at + slot * p.y_ld + c, n, QUADS(y));
        plain += w * v;
        float4 high = upper(w) * upper(v), next = sum + high, part = next - sum;
        rest += (sum - (next - part)) + (high - part);
        rest += upper(w) * (v - upper(v)) + (w - upper(w)) * v;
        sum = next;
    }
    sum += rest;
    sum = (as_uint4(sum) & 0x7fffffffu) < 0x7f800000u ? sum : plain;
    store4(result, p.result_at + row * p.result_ld + c, n, QUADS(result), sum);
}

/* p.width lanes take an assignment: a row of dy, and a dot product for dweight. */
kernel void moe_combine_bwd(global const float *dout, global const float *y,
                            global const int *position, global const float *weight,
                            global float *dy, global float *dweight,
                            const struct combine_bwd_args p)
{
    local float buffer[LOCAL];
    uint pair = GROUP * (LANES / p.width) + LANE / p.width, lane = LANE % p.width;
    uint row = pair / p.k, j = pair % p.k;
    float sum = 0;
    if (row < p.rows) {
        uint slot = clamp_index(position[p.position_at + row * p.position_ld + j], p.rows * p.k);
        float w = weight[p.weight_at + row * p.weight_ld + j];
        for (uint c = 4 * lane; c < p.cols; c += 4 * p.width) {
            uint n = min(p.cols - c, 4u);
            float4 g = load4(dout, p.dout_at + row * p.dout_ld + c, n, QUADS(dout));
            float4 from = load4(y, p.y_at + slot * p.y_ld + c, n, QUADS(y));
            store4(dy, p.dy_at + slot * p.dy_ld + c, n, QUADS(dy), w * g);
            sum += dot(g, from);
        }
    }
    sum = row_sum(sum, buffer, p.width);
    if (row < p.rows && lane == 0)
        dweight[p.dweight_at + row * p.dweight_ld + j] = sum;
}

/* ---- moe_balance --------------------------------------------------------------------------------
 * First sums by groups, over tiles of rows, then by expert, over groups; one group needs the first
 * step only. For the variation, mean probabilities lie close to each other and what counts is how
 * far: so what is summed there is their distance from 1 / E, which keeps its bits. */

/* A group sums every p.groups-th tile: sums[e][group] of p - p.share, counts[e][group] of
 * assignments, of which there are none when k is 0. */
kernel void moe_balance_sum(global const float *logits, global const int *index, global float *sums,
                            global uint *counts, const struct balance_sum_args p)
{
    local float x[TILE], part[TILE], sum[TILE];
    local uint count[TILE];
    uint tile_rows = TILE / p.experts;
    for (uint i = LANE; i < TILE; i += LANES) {
        sum[i] = 0;
        count[i] = 0;
    }
    for (uint first = GROUP * tile_rows; first < p.rows; first += p.groups * tile_rows) {
        uint n = min(tile_rows, p.rows - first) * p.experts;
        for (uint i = LANE; i < n; i += LANES)
            x[i] = logits[p.logits_at + (first + i / p.experts) * p.logits_ld + i % p.experts];
        tile_softmax(x, part, n, p.experts);
        for (uint i = LANE; i < n; i += LANES) {
            uint at = p.index_at + (first + i / p.experts) * p.index_ld, own = 0;
            for (uint j = 0; j < p.k; j++)
                own += clamp_index(index[at + j], p.experts) == i % p.experts;
            count[i] += own;
            sum[i] += x[i] - p.share;
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint e = LANE; e < p.experts; e += LANES) {
        float all = 0;
        uint taken = 0;
        for (uint i = e; i < tile_rows * p.experts; i += p.experts) {
            all += sum[i];
            taken += count[i];
        }
        sums[p.sums_at + e * p.groups + GROUP] = all;
        counts[p.counts_at + e * p.groups + GROUP] = taken;
    }
}

/* A group adds what the groups before summed of its expert. */
kernel void moe_balance_fold(global const float *sums, global const uint *counts, global float *sum,
                             global uint *count, const struct balance_fold_args p)
{
    local float buffer[LOCAL];
    local uint taken;
    float all = 0;
    uint own = 0;
    if (LANE == 0)
        taken = 0;
    for (uint g = LANE; g < p.groups; g += LANES) {
        all += sums[p.sums_at + GROUP * p.groups + g];
        own += counts[p.counts_at + GROUP * p.groups + g];
    }
    all = group_sum(all, buffer);
    atomic_add(&taken, own);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (LANE == 0) {
        sum[p.sum_at + GROUP] = all;
        count[p.count_at + GROUP] = taken;
    }
}

/* One group computes the loss from the sums over all rows. */
kernel void moe_balance(global const float *sum, global const uint *count, global float *loss,
                        global float *load, const struct balance_args p)
{
    local float buffer[LOCAL];
    float rows = (float)p.rows, n = (float)p.experts, center = 0, value = 0;
    for (uint e = LANE; e < p.experts; e += LANES) {
        float taken = (float)count[p.count_at + e] / (rows * (float)p.k);
        float mean = sum[p.sum_at + e] / rows;
        load[p.load_at + e] = taken;
        center += mean;
        value += taken * mean;
    }
    if (p.kind) {
        value = n * (float)p.k * group_sum(value, buffer);
    } else {
        center = group_sum(center, buffer) / n;
        float squares = 0;
        for (uint e = LANE; e < p.experts; e += LANES) {
            float deviation = sum[p.sum_at + e] / rows - center;
            squares += deviation * deviation;
        }
        float mean = 1.0f / n + center + 1e-6f;
        squares = group_sum(squares, buffer);
        value = p.experts > 1 ? squares / (n - 1) / (mean * mean) : 0.0f;
    }
    if (LANE == 0)
        loss[p.loss_at] = p.scale * value;
}

static inline uint likeliest(local const float *probability, uint experts)
{
    uint best = 0;
    for (uint e = 1; e < experts; e++)
        best = probability[e] > probability[best] ? e : best;
    return best;
}

/* A group takes TILE / experts rows. Slopes are dloss p.scale times the expert's load or the sum of
 * its deviations, less the likeliest's: the same for all changes nothing, and what that expert
 * takes from the others' sum does not cancel. */
kernel void moe_balance_bwd(global const float *dloss, global const float *logits,
                            global const float *load, global const float *sum,
                            global float *dlogits, const struct balance_bwd_args p)
{
    local float x[TILE], y[TILE], slope[TILE], part[TILE];
    uint tile_rows = TILE / p.experts, first = GROUP * tile_rows;
    uint count = (first < p.rows ? min(tile_rows, p.rows - first) : 0) * p.experts;
    for (uint i = LANE; i < count; i += LANES)
        x[i] = logits[p.logits_at + (first + i / p.experts) * p.logits_ld + i % p.experts];
    tile_softmax(x, part, count, p.experts);
    float scale = dloss[p.dloss_at] * p.scale;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = LANE; i < count; i += LANES) {
        uint e = i % p.experts, best = likeliest(x + (i - e), p.experts);
        slope[i] = scale * (p.kind ? load[p.load_at + e] - load[p.load_at + best]
                                   : sum[p.sum_at + e] - sum[p.sum_at + best]);
        y[i] = x[i] * slope[i];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    span_sums(y, part, count, p.experts);
    for (uint i = LANE; i < count; i += LANES) {
        uint row = first + i / p.experts, e = i % p.experts;
        dlogits[p.dlogits_at + row * p.dlogits_ld + e] =
            x[i] * (slope[i] - tile_row_sum(part, i, p.experts));
    }
}
