/* What the lowerings of products share. */
#ifndef ITERA_BACKEND_GPU_LOWER_MATMUL_H
#define ITERA_BACKEND_GPU_LOWER_MATMUL_H

#include "args/matmul.clh"
#include "backend/gpu/lower.h"

/* A product y (rows, cols) = op(a).op(b) over depth, with what is done to it. */
struct itera_product {
    int64_t rows, cols, depth;
    int32_t a, b, bias, residual, y;
    bool trans_a, trans_b, integer, half;
    uint8_t act;
};

/* k in `slices` parts, each slice_depth long; with more than one, their sums go to `part`. */
struct itera_cut {
    int64_t slices, slice_depth;
    struct itera_gpu_scratch part;
};

/* What a kernel is told of the end of a product and of its cut: when it is one, matmul_reduce does
 * the rest. */
#define ITERA_FINISH_WORDS(g, c)                                                                   \
    .has_bias = (c)->slices <= 1 && (g)->bias >= 0,                                                \
    .has_residual = (c)->slices <= 1 && (g)->residual >= 0,                                        \
    .act = (c)->slices > 1 ? ITERA_ACT_NONE : (g)->act, .slices = (c)->slices,                     \
    .slice_depth = (c)->slice_depth

/* Workgroups that keep the device busy. */
int64_t itera_wanted_groups(const struct itera_gpu_traits *traits);

/* Cuts k into at most `slices` parts of a multiple of `step`. */
struct itera_cut itera_cut_depth(struct itera_gpu_lowering *l, const struct itera_product *g,
                                 int64_t slices, int64_t step);
/* Makes y of `slices` sums for each element, laid out (slices, rows, cols) in scratch. */
void itera_reduce_product(struct itera_gpu_lowering *l, const struct itera_product *g,
                          struct itera_gpu_scratch part, int64_t slices);

/* Products with weights in blocks, a not transposed: matmul of few rows, with a as it is or
 * (integer) rounded to int8; matmul of integers by tiles, k in `slices` parts; and grouped_matmul,
 * for few rows when tile is 0. */
void itera_lower_blocks(struct itera_gpu_lowering *l, const struct itera_product *g, bool integer);
void itera_lower_integer(struct itera_gpu_lowering *l, const struct itera_product *g, uint32_t tile,
                         int64_t slices);
void itera_lower_grouped_blocks(struct itera_gpu_lowering *l, const struct itera_op *op,
                                bool integer, uint32_t tile);

/* Invocations of a workgroup that computes a tile with integers, and its shared memory. */
static inline uint32_t itera_integer_lanes(uint32_t tile)
{
    return 2 * tile;
}
static inline uint32_t itera_integer_shared(uint32_t tile)
{
    return 2 * TILE_DEPTH * (tile / 4 + 1) * 16 + 4 * tile * 4 + SEGMENT_ENDS * 4;
}

#endif
