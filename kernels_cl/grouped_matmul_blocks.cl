/* grouped_matmul with weights in blocks: see host/ops/matmul.c for its contract, matmul_blocks.clh
 * for how the kernels work. A program has only the kernels whose constants it is compiled with. */
#include "args/matmul.clh"
#include "grouped_matmul.clh"
#include "matmul_blocks.clh"

#ifdef K_LANES
/* y_e = act(a_e . b_eT) for few rows in all (decoding), zeros in rows that are nobody's; ROWS is 1.
 * A workgroup computes some columns of one row, whose expert it finds by the offsets. */
WORKGROUP(GEMV_LANES)
kernel void grouped_matmul_blocks(global const few_type *a, global const uint *b,
                                  global const uint *sums, global const int *offsets,
                                  global float *y, const struct grouped_blocks_args p)
{
    local float parts[GEMV_LANES * COLS * ROWS];
    local int ends[SEGMENT_CHUNK];
    uint across = (p.cols + C_LANES * COLS - 1) / (C_LANES * COLS);
    uint row = GROUP / across, col = GROUP % across * C_LANES * COLS;
    struct segment s = find_segment(offsets + p.offsets_at, ends, p.experts, p.rows, row, 1);
    struct side few = side_of(INTEGER ? 0 : p.a_at, p.a_ld, 1, p.rows);
    multiply_chunks(parts, a + (INTEGER ? p.a_at : 0), sums + p.sums_at, few, b + p.b_at, p.scales,
                    p.b_at % 4 == 0, s.expert * p.cols, p.cols, s.owned ? p.depth : 0, row, col);
    for (uint i = LANE; i < OUTPUTS && col + i < p.cols && row < s.end; i += GEMV_LANES)
        y[p.y_at + row * p.y_ld + col + i] = activate(output_sum(parts, i), s.owned ? p.act : 0);
}
#endif

#ifdef TILE
/* The same of integers, by tiles: a workgroup computes a tile of y within the rows of one expert.
 * The grid has as many tiles as there can be, and some of them have nothing to do. */
WORKGROUP(TILE_LANES)
kernel void grouped_matmul_integer(global const uint *a, global const uint *b,
                                   global const uint *sums, global const int *offsets,
                                   global float *y, const struct grouped_blocks_args p)
{
    local float4 tiles[TILE_FOURS];
    local float scales[TILE_SCALES];
    local int ends[SEGMENT_CHUNK];
    uint across = (p.cols + TILE - 1) / TILE;
    struct segment s =
        find_segment(offsets + p.offsets_at, ends, p.experts, p.rows, GROUP / across, TILE);
    uint col = GROUP % across * TILE;
    struct integers from = {.a = a + p.a_at,
                            .sums = sums + p.sums_at,
                            .b = b + p.b_at,
                            .rows = s.end,
                            .cols = p.cols,
                            .depth = p.depth,
                            .first = s.expert * p.cols,
                            .scales = p.scales};
    float4 acc[TM * TQ];
    multiply_integers(acc, tiles, scales, from, s.begin, col, 0, s.owned ? p.depth : 0);
    struct target t = {
        .y = y + p.y_at, .ld = p.y_ld, .rows = s.end, .cols = p.cols, .act = s.owned ? p.act : 0};
    store_tile(t, tiles, acc, s.begin, col);
}
#endif
