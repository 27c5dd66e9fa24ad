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

/* A product of few rows with what comes before and after it, for the kernels of chains
 * (kernels_cl/matmul_fused.clh); its weights lie along k, and nothing is transposed. */
struct itera_fused {
    struct itera_product g;
    int stage;        /* STAGE of kernels_cl/args/matmul.clh: what becomes of rows of a first */
    int32_t w, shift; /* its operands; ITERA_NONE */
    float eps;
    const struct itera_op *conv; /* makes something else of columns conv_first.. of y; NULL */
    int64_t conv_first;
    int experts; /* EXPERTS of the same; with more than none: */
    int32_t index, share;
    int64_t n_experts;
    bool over_all; /* of EXPERTS_ROUTE: shares are probabilities among all experts */
};

/* What a workgroup of the kernels of few rows takes, and how its invocations share columns: ROWS,
 * K_LANES and COLS. */
struct itera_lanes {
    int64_t k_lanes, cols, rows;
};

/* The rows of a product that is part of a chain, at most. */
#define ITERA_FUSED_ROWS 8

/* Lets the product make its rows as op `rows` does: rms_norm, layer_norm or silu_mul. */
void itera_fused_rows(struct itera_fused *f, const struct itera_op *rows);

/* Whether the device has the kernel and the memory for it. With `chunks` weights are blocks, and rows
 * may be rounded (g.integer). */
bool itera_can_fuse(struct itera_gpu_lowering *l, const struct itera_fused *f, bool chunks,
                    bool integer, struct itera_lanes lanes);
void itera_lower_fused(struct itera_gpu_lowering *l, const struct itera_fused *f, bool chunks,
                       bool integer, struct itera_lanes lanes);

/* matmul and (experts) grouped_matmul as part of a chain, in the way that is chosen for them; a
 * refusal where that is none of few rows. */
struct itera_product itera_product_of(const struct itera_gpu_lowering *l,
                                      const struct itera_op *op);
enum itera_status itera_lower_fused_product(struct itera_gpu_lowering *l, struct itera_fused *f);
enum itera_status itera_lower_fused_experts(struct itera_gpu_lowering *l, const struct itera_op *op,
                                            struct itera_fused *f);
/* The lanes of the ways for weights in blocks. */
struct itera_lanes itera_block_lanes(const struct itera_gpu_lowering *l, int32_t b, int64_t rows,
                                     int64_t cols, int64_t depth, bool integer);

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
