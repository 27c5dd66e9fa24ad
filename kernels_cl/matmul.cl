/* matmul: see host/ops/matmul.c for its contract, matmul.clh for how the kernels work. A program
 * has only those kernels whose constants it is compiled with. */
#include "matmul.clh"

struct matmul_args {
    T(a)
    T(b)
    T(bias)
    T(residual) T(y) uint rows, cols, depth, trans_a, trans_b, has_bias, has_residual, accumulate;
    uint slices, slice_depth;
};

/* What becomes of a sum; bias, residual and y are at the element in question. */
static inline void finish(float sum, bool accumulate, bool has_bias, global const float *bias,
                          bool has_residual, global const float *residual, global float *y)
{
    if (accumulate) {
        *y += sum;
        return;
    }
    if (has_bias)
        sum += *bias;
    sum = activate(sum, ACT);
    if (has_residual)
        sum += *residual;
    *y = sum;
}

/* Element (m, n) of a product; the partial sum of a slice goes to scratch, laid out (slices, rows,
 * cols). */
static inline void store(global const float *bias, global const float *residual, global float *y,
                         const struct matmul_args *p, uint slice, uint m, uint n, float sum)
{
    if (p->slices > 1)
        y[p->y_at + (slice * p->rows + m) * p->cols + n] = sum;
    else
        finish(sum, p->accumulate, p->has_bias, bias + p->bias_at + n, p->has_residual,
               residual + p->residual_at + m * p->residual_ld + n, y + p->y_at + m * p->y_ld + n);
}

#ifdef TILE
/* Tiles go by bands of this many rows of tiles, so that those at work together share operands. */
#define BAND 8

/* y = act(op(a).op(b) + bias) + residual. A workgroup computes a tile of y over one of `slices`
 * equal parts of k, slice_depth long; with more than one, y is scratch for matmul_reduce. */
WORKGROUP(TILE_LANES)
kernel void matmul_tile(global const a_type *a, global const b_type *b, global const float *bias,
                        global const float *residual, global float *y, const struct matmul_args p)
{
    local float4 tile_a[DEPTH * PITCH], tile_b[DEPTH * PITCH];
    uint down = (p.rows + TILE - 1) / TILE, across = (p.cols + TILE - 1) / TILE;
    uint slice = GROUP / (down * across), tile = GROUP % (down * across);
    if (slice >= p.slices)
        return;
    uint band = tile / (BAND * across), in_band = tile % (BAND * across);
    uint height = min((uint)BAND, down - band * BAND);
    uint row = (band * BAND + in_band % height) * TILE, col = in_band / height * TILE;

    struct side left = side_of(p.a_at, p.trans_a ? 1 : p.a_ld, p.trans_a ? p.a_ld : 1, p.rows);
    struct side right = side_of(p.b_at, p.trans_b ? p.b_ld : 1, p.trans_b ? 1 : p.b_ld, p.cols);
    uint begin = slice * p.slice_depth;
    float4 acc[TM * TQ];
    multiply(acc, tile_a, tile_b, a, left, b, right, row, col, begin,
             min(begin + p.slice_depth, p.depth));
#pragma unroll
    for (uint i = 0; i < TM; i++)
#pragma unroll
        for (uint j = 0; j < TN; j++) {
            uint m = row + TILE_ROW(i), n = col + TILE_COL(j);
            if (m < p.rows && n < p.cols)
                store(bias, residual, y, &p, slice, m, n, TILE_SUM(acc, i, j));
        }
}
#endif

#ifdef K_LANES
struct gemv_args {
    struct matmul_args m;
    uint swapped;
};

/* The same product where op(a) has few rows; when `swapped`, yT = op(a).op(b): the columns of y are
 * few, and a and b have changed places. A workgroup computes some columns (when swapped, rows) of y
 * over one of the slices. */
WORKGROUP(GEMV_LANES)
kernel void matmul_gemv(global const a_type *a, global const b_type *b, global const float *bias,
                        global const float *residual, global float *y, const struct gemv_args args)
{
    local float parts[GEMV_LANES * COLS * ROWS];
    const struct matmul_args p = args.m;
    uint few_count = args.swapped ? p.cols : p.rows, many_count = args.swapped ? p.rows : p.cols;
    uint across = (many_count + C_LANES * COLS - 1) / (C_LANES * COLS);
    uint down = (few_count + ROWS - 1) / ROWS;
    uint slice = GROUP / (down * across), place = GROUP % (down * across);
    if (slice >= p.slices)
        return;
    uint row = place % down * ROWS, col = place / down * C_LANES * COLS;

    struct side few = side_of(p.a_at, p.trans_a ? 1 : p.a_ld, p.trans_a ? p.a_ld : 1, few_count);
    struct side many = side_of(p.b_at, p.trans_b ? p.b_ld : 1, p.trans_b ? 1 : p.b_ld, many_count);
    uint begin = slice * p.slice_depth;
    multiply_lines(parts, a, few, b, many, row, col, begin, min(begin + p.slice_depth, p.depth));
    for (uint i = LANE; i < OUTPUTS; i += GEMV_LANES) {
        uint f = row + i / (C_LANES * COLS), c = col + i % (C_LANES * COLS);
        if (f < few_count && c < many_count)
            store(bias, residual, y, &p, slice, args.swapped ? c : f, args.swapped ? f : c,
                  parts[i * K_LANES]);
    }
}
#endif

struct reduce_args {
    T(part) T(bias) T(residual) T(y) uint rows, cols, has_bias, has_residual, accumulate;
    uint slices;
};

/* Adds up the partial sums of `slices` slices, always in the same order, and finishes the product:
 * an invocation makes an element of y. */
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
    finish(sum, p.accumulate, p.has_bias, bias + p.bias_at + n, p.has_residual,
           residual + p.residual_at + m * p.residual_ld + n, y + p.y_at + m * p.y_ld + n);
}
