/* matmul with weights in blocks: see host/ops/matmul.c for its contract, matmul_blocks.clh for how
 * the kernels work. A program has only those kernels whose constants it is compiled with. */
#include "args/matmul.clh"
#include "matmul_blocks.clh"

/* Rounds rows of a to int8, blocks of 32 with one scale (the largest / 127) each: words of four,
 * and for each block its scale (0 for blocks of next to nothing, NaN where a is not finite) and its
 * sum. A workgroup takes 16 blocks, eight invocations one, four elements each. */
kernel void matmul_round(global const float *a, global uint *words, global uint *sums,
                         const struct round_args p)
{
    local uint peaks[128];
    local int totals[128];
    const uint four = THREAD, row = four / (p.depth / 4), k = four % (p.depth / 4) * 4;
    const bool inside = row < p.rows;
    const uint at = p.a_at + row * p.a_ld + k;
    float4 x = (float4)(0.0f);
    if (inside)
        x = by_fours(p.a_at, 1, p.a_ld) ? load_0_four(a, at)
                                        : (float4)(a[at], a[at + 1], a[at + 2], a[at + 3]);
    /* Of magnitudes as bits: these order NaN above all, which fmax would drop. */
    uint4 size = as_uint4(x) & 0x7fffffff;
    peaks[LANE] = max(max(size.x, size.y), max(size.z, size.w));
    barrier(CLK_LOCAL_MEM_FENCE);
    uint peak = 0;
    for (uint i = 0; i < 8; i++)
        peak = max(peak, peaks[LANE / 8 * 8 + i]);
    const bool finite = peak < 0x7f800000, none = as_float(peak) < 1e-35f;
    int4 q = (int4)(0);
    if (finite && !none)
        q = convert_int4_rte(x * (127.0f / as_float(peak)));
    totals[LANE] = q.x + q.y + q.z + q.w;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (inside)
        words[p.words_at + four] = as_uint(convert_char4(q));
    if (!inside || LANE % 8 != 0)
        return;
    int total = 0;
    for (uint i = 0; i < 8; i++)
        total += totals[LANE + i];
    uint scale = !finite ? 0x7fc00000 : none ? 0 : as_uint(as_float(peak) / 127.0f);
    vstore2((uint2)(scale, as_uint(total)), four / 8, sums + p.sums_at);
}

#ifdef K_LANES
/* y = act(a.bT + bias) + residual where a has few rows: a workgroup computes some columns of y. */
WORKGROUP(GEMV_LANES)
kernel void matmul_blocks(global const few_type *a, global const uint *b, global const uint *sums,
                          global const float *bias, global const float *residual, global float *y,
                          const struct blocks_args p)
{
    local float parts[GEMV_LANES * COLS * ROWS];
    uint down = (p.rows + ROWS - 1) / ROWS;
    uint row = GROUP % down * ROWS, col = GROUP / down * C_LANES * COLS;
    struct side few = side_of(INTEGER ? 0 : p.a_at, p.a_ld, 1, p.rows);
    multiply_chunks(parts, a + (INTEGER ? p.a_at : 0), sums + p.sums_at, few, b + p.b_at, p.scales,
                    p.b_at % 4 == 0, 0, p.cols, p.depth, row, col);
    for (uint i = LANE; i < OUTPUTS; i += GEMV_LANES) {
        uint m = row + i / (C_LANES * COLS), n = col + i % (C_LANES * COLS);
        if (m >= p.rows || n >= p.cols)
            continue;
        float sum = output_sum(parts, i);
        if (p.has_bias)
            sum += bias[p.bias_at + n];
        sum = activate(sum, p.act);
        if (p.has_residual)
            sum += residual[p.residual_at + m * p.residual_ld + n];
        y[p.y_at + m * p.y_ld + n] = sum;
    }
}
#endif

#ifdef TILE
/* The same of integers, by tiles: a workgroup computes a tile of y over one of `slices` equal parts
 * of k, slice_depth long; with more than one, y is scratch for matmul_reduce, laid out (slices,
 * rows, cols). */
WORKGROUP(TILE_LANES)
kernel void matmul_integer(global const uint *a, global const uint *b, global const uint *sums,
                           global const float *bias, global const float *residual, global float *y,
                           const struct blocks_args p)
{
    local float4 tiles[TILE_FOURS];
    local float scales[TILE_SCALES];
    uint down = (p.rows + TILE - 1) / TILE, across = (p.cols + TILE - 1) / TILE;
    uint slice = GROUP / (down * across), tile = GROUP % (down * across);
    const bool idle = slice >= p.slices; /* the grid may be larger than asked for */
    uint row = tile % down * TILE, col = tile / down * TILE, begin = slice * p.slice_depth;
    struct integers s = {.a = a + p.a_at,
                         .sums = sums + p.sums_at,
                         .b = b + p.b_at,
                         .rows = p.rows,
                         .cols = p.cols,
                         .depth = p.depth,
                         .scales = p.scales};
    float4 acc[TM * TQ];
    multiply_integers(acc, tiles, scales, s, row, col, begin,
                      idle ? begin : min(begin + p.slice_depth, p.depth));
    struct target t = {
        .y = y + p.y_at + slice * p.rows * p.cols,
        .bias = p.has_bias ? bias + p.bias_at : 0,
        .residual = p.has_residual ? residual + p.residual_at : 0,
        .ld = p.slices > 1 ? p.cols : p.y_ld,
        .residual_ld = p.residual_ld,
        .rows = idle ? 0 : p.rows,
        .cols = p.cols,
        .act = p.act,
    };
    store_tile(t, tiles, acc, row, col);
}
#endif
