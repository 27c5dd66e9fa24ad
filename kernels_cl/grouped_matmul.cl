/* grouped_matmul: see host/ops/matmul.c for its contract, matmul.clh for how the kernels work. A
 * program has only those kernels whose constants it is compiled with. */
#include "args/matmul.clh"
#include "grouped_matmul.clh"
#include "matmul.clh"

#ifdef TILE
/* y_e = act(a_e . op(b_e)) for the rows of each expert e, zeros in rows that are nobody's. A
 * workgroup computes a tile of y within the rows of one expert, which it finds by the offsets: the
 * grid has as many tiles as there can be, and some of them have nothing to do. */
WORKGROUP(TILE_LANES)
kernel void grouped_matmul_tile(global const a_type *a, global const b_type *b,
                                global const int *offsets, global float *y,
                                const struct grouped_args p)
{
    local float4 tiles[TILE_FOURS];
    local int ends[SEGMENT_CHUNK];
    uint across = (p.cols + TILE - 1) / TILE;
    struct segment s =
        find_segment(offsets + p.offsets_at, ends, p.experts, p.rows, GROUP / across, TILE);
    uint col = GROUP % across * TILE;
    struct side left = side_of(p.a_at, p.a_ld, 1, s.end);
    struct side right = side_of(b_first(p.b_at) + s.expert * p.b_step * p.b_ld,
                                p.trans_b ? p.b_ld : 1, p.trans_b ? 1 : p.b_ld, p.cols);
    right.scales = p.scales;
    float4 acc[TM * TQ];
    multiply(acc, tiles, a, left, b + b_words(p.b_at), right, s.begin, col, 0,
             s.owned ? p.depth : 0);
    struct target t = {
        .y = y + p.y_at, .ld = p.y_ld, .rows = s.end, .cols = p.cols, .act = s.owned ? p.act : 0};
    store_tile(t, tiles, acc, s.begin, col);
}

/* The gradient of the experts' weights: y_e = a_eT . b_e, summed over the rows of expert e. A
 * workgroup computes a tile of one y_e over one of `slices` equal parts of its rows; with more than
 * one slice, y is scratch for matmul_reduce, laid out (slices, experts * out_rows, cols). */
WORKGROUP(TILE_LANES)
kernel void grouped_matmul_weights(global const a_type *a, global const b_type *b,
                                   global const int *offsets, global float *y,
                                   const struct weights_args p)
{
    local float4 tiles[TILE_FOURS];
    local int ends[SEGMENT_CHUNK];
    uint down = (p.out_rows + TILE - 1) / TILE, across = (p.cols + TILE - 1) / TILE;
    uint tile = GROUP % (down * across), rest = GROUP / (down * across);
    uint expert = rest % p.experts, slice = rest / p.experts;
    uint row = tile % down * TILE, col = tile / down * TILE;
    struct segment s = find_segment(offsets + p.offsets_at, ends, p.experts, p.rows, expert + 1, 0);
    uint share = (s.end - s.begin + p.slices - 1) / p.slices;
    uint begin = min(s.begin + slice * share, s.end), end = min(begin + share, s.end);

    struct side left = side_of(p.a_at, 1, p.a_ld, p.out_rows);
    struct side right = side_of(p.b_at, 1, p.b_ld, p.cols);
    float4 acc[TM * TQ];
    multiply(acc, tiles, a, left, b, right, row, col, begin, end);
    struct target t = {
        .y = y + p.y_at,
        .ld = p.slices > 1 ? p.cols : p.y_ld,
        .rows = slice < p.slices ? p.out_rows : 0,
        .cols = p.cols,
    };
    t.y += (slice * p.experts + expert) * p.out_rows * t.ld;
    store_tile(t, tiles, acc, row, col);
}
#endif

#ifdef K_LANES
/* The same as grouped_matmul_tile for few rows in all (decoding), with ROWS 1: a workgroup computes
 * some columns of one row, whose expert it finds by the offsets. */
WORKGROUP(GEMV_LANES)
kernel void grouped_matmul_gemv(global const a_type *a, global const b_type *b,
                                global const int *offsets, global float *y,
                                const struct grouped_args p)
{
    local float parts[GEMV_LANES * COLS * ROWS];
    local int ends[SEGMENT_CHUNK];
    uint across = (p.cols + C_LANES * COLS - 1) / (C_LANES * COLS);
    uint row = GROUP / across, col = GROUP % across * C_LANES * COLS;
    struct segment s = find_segment(offsets + p.offsets_at, ends, p.experts, p.rows, row, 1);
    struct side few = side_of(p.a_at, p.a_ld, 1, p.rows);
    struct side many = side_of(b_first(p.b_at) + s.expert * p.b_step * p.b_ld,
                               p.trans_b ? p.b_ld : 1, p.trans_b ? 1 : p.b_ld, p.cols);
    many.scales = p.scales;
    multiply_lines(parts, a, few, b + b_words(p.b_at), many, row, col, 0, s.owned ? p.depth : 0);
    for (uint i = LANE; i < OUTPUTS && col + i < p.cols && row < s.end; i += GEMV_LANES)
        y[p.y_at + row * p.y_ld + col + i] = activate(output_sum(parts, i), s.owned ? p.act : 0);
}
#endif
