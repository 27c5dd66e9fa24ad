/* matmul: see host/ops/matmul.c for its contract, matmul.clh for how the kernels work. A program
 * has only those kernels whose constants it is compiled with. */
#include "args/matmul.clh"
#include "matmul.clh"

#ifdef TILE
/* Tiles go by bands of this many rows of tiles, so that those at work together share operands. */
#define BAND 8

/* y = act(op(a).op(b) + bias) + residual. A workgroup computes a tile of y over one of `slices`
 * equal parts of k, slice_depth long; with more than one, y is scratch for matmul_reduce, laid out
 * (slices, rows, cols). */
WORKGROUP(TILE_LANES)
kernel void matmul_tile(global const a_type *a, global const b_type *b, global const float *bias,
                        global const float *residual, global float *y, const struct matmul_args p)
{
    local float4 tiles[TILE_FOURS];
    uint down = (p.rows + TILE - 1) / TILE, across = (p.cols + TILE - 1) / TILE;
    uint slice = GROUP / (down * across), tile = GROUP % (down * across);
    const bool idle = slice >= p.slices; /* the grid may be larger than asked for */
    uint band = tile / (BAND * across), in_band = tile % (BAND * across);
    uint height = min((uint)BAND, down - band * BAND);
    uint row = (band * BAND + in_band % height) * TILE, col = in_band / height * TILE;

    struct side left = side_of(p.a_at, p.trans_a ? 1 : p.a_ld, p.trans_a ? p.a_ld : 1, p.rows);
    struct side right =
        side_of(b_first(p.b_at), p.trans_b ? p.b_ld : 1, p.trans_b ? 1 : p.b_ld, p.cols);
    right.scales = p.scales;
    uint begin = slice * p.slice_depth;
    float4 acc[TM * TQ];
    multiply(acc, tiles, a, left, b + b_words(p.b_at), right, row, col, begin,
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

#ifdef K_LANES
/* The same product where op(a) has few rows; when `swapped`, yT = op(a).op(b): the columns of y are
 * few, and a and b have changed places. A workgroup computes some columns (when swapped, rows) of y
 * over one of the slices. */
WORKGROUP(GEMV_LANES)
kernel void matmul_gemv(global const a_type *a, global const b_type *b, global const float *bias,
                        global const float *residual, global float *y, const struct gemv_args p)
{
    local float parts[GEMV_LANES * COLS * ROWS];
    uint few_count = p.swapped ? p.cols : p.rows, many_count = p.swapped ? p.rows : p.cols;
    uint across = (many_count + C_LANES * COLS - 1) / (C_LANES * COLS);
    uint down = (few_count + ROWS - 1) / ROWS;
    uint slice = GROUP / (down * across), place = GROUP % (down * across);
    const bool idle = slice >= p.slices; /* the grid may be larger than asked for */
    uint row = place % down * ROWS, col = place / down * C_LANES * COLS;

    struct side few = side_of(p.a_at, p.trans_a ? 1 : p.a_ld, p.trans_a ? p.a_ld : 1, few_count);
    struct side many =
        side_of(b_first(p.b_at), p.trans_b ? p.b_ld : 1, p.trans_b ? 1 : p.b_ld, many_count);
    many.scales = p.scales;
    uint begin = slice * p.slice_depth;
    multiply_lines(parts, a, few, b + b_words(p.b_at), many, row, col, begin,
                   idle ? begin : min(begin + p.slice_depth, p.depth));
    const uint ld = p.slices > 1 ? p.cols : p.y_ld;
    for (uint i = LANE; i < OUTPUTS; i += GEMV_LANES) {
        uint f = row + i / (C_LANES * COLS), c = col + i % (C_LANES * COLS);
        uint m = p.swapped ? c : f, n = p.swapped ? f : c;
        if (idle || f >= few_count || c >= many_count)
            continue;
        float sum = output_sum(parts, i);
        if (p.has_bias)
            sum += bias[p.bias_at + n];
        sum = activate(sum, p.act);
        if (p.has_residual)
            sum += residual[p.residual_at + m * p.residual_ld + n];
        y[p.y_at + slice * p.rows * p.cols + m * ld + n] = sum;
    }
}
#endif

/* Adds up the partial sums of p.slices slices in their order, and finishes the product: an
 * invocation makes an element of y. */
kernel void matmul_reduce(global const float *part, global const float *bias,
                          global const float *residual, global float *y, const struct reduce_args p)
{
    uint m = THREAD / p.cols, n = THREAD % p.cols;
    if (m >= p.rows)
        return;
    uint at = p.part_at + m * p.cols + n;
    float sum = 0.0f;
    for (uint s = 0; s < p.slices; s++)
        sum += part[at + s * p.rows * p.cols];
    if (p.has_bias)
        sum += bias[p.bias_at + n];
    sum = activate(sum, p.act);
    if (p.has_residual)
        sum += residual[p.residual_at + m * p.residual_ld + n];
    y[p.y_at + m * p.y_ld + n] = sum;
}
