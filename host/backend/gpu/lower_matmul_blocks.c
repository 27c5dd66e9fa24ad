/* Lowering of products with weights in blocks that lie along k (contracts: host/ops/matmul.c). */
#include "args/matmul.clh"
#include "backend/gpu/choice.h"
#include "backend/gpu/lower_matmul.h"

enum {
    LANES = ITERA_GPU_LOCAL, /* of the kernels of few rows */
    MOST_ROWS = 8,           /* of one of their workgroups */
    MOST_FLOAT_ROWS = 4,     /* the same with a as it is, which fills registers */
    MOST_SUMS = 4,           /* of one of their invocations, unless it has more rows */
    STEP = 4 * TILE_DEPTH,   /* elements along k that a tile of integers takes at a time */
};

/* Rows as matmul_round leaves them; with nothing rounded, tensor `a` itself. */
struct rows {
    int32_t a;
    bool integer;
    struct itera_gpu_scratch words, sums;
};

static struct rows round_rows(struct itera_gpu_lowering *l, int32_t a, bool integer)
{
    struct rows r = {.a = a, .integer = integer};
    if (!integer)
        return r;
    const int64_t rows = itera_gpu_rows(l, a), depth = itera_gpu_cols(l, a);
    r.words = itera_gpu_scratch(l, rows * depth / 4);
    r.sums = itera_gpu_scratch(l, rows * depth / ITERA_BLOCK * 2);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "matmul_round");
    itera_gpu_in(l, d, a);
    itera_gpu_use(d, r.words, ITERA_GPU_WRITE);
    itera_gpu_use(d, r.sums, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, round_args, .rows = rows, .depth = depth);
    itera_gpu_groups(l, d, itera_gpu_div_up(rows * depth / 4, ITERA_GPU_LOCAL), 1, 1);
    return r;
}

/* Begins a kernel, or of integers its twin for devices with the instruction: OpenCL is told by a
 * constant, a shader must be another. Its first three operands are a, b, and a's sums. */
static struct itera_gpu_dispatch *begin(struct itera_gpu_lowering *l, const char *kernel,
                                        const char *with_dot, const struct rows *r, int32_t b)
{
    struct itera_gpu_device *device = (struct itera_gpu_device *)l->device;
    const bool dot = r->integer && l->traits->dot;
    struct itera_gpu_dispatch *d =
        itera_gpu_begin(l, dot && device->has_kernel(device, with_dot) ? with_dot : kernel);
    if (r->integer)
        itera_gpu_use(d, r->words, ITERA_GPU_READ);
    else
        itera_gpu_in(l, d, r->a);
    itera_gpu_in(l, d, b);
    if (r->integer)
        itera_gpu_use(d, r->sums, ITERA_GPU_READ);
    else
        itera_gpu_in(l, d, ITERA_NONE);
    ITERA_GPU_CONSTANT(d, A_TYPE, r->integer ? ITERA_F32 : itera_gpu_tensor(l, r->a)->dtype);
    ITERA_GPU_CONSTANT(d, B_TYPE, itera_gpu_tensor(l, b)->dtype);
    if (dot)
        ITERA_GPU_CONSTANT(d, DOT, 1);
    return d;
}

/* The words of matmul's kernels. */
static struct itera_gpu_dispatch *begin_product(struct itera_gpu_lowering *l, const char *kernel,
                                                const char *with_dot, const struct rows *r,
                                                const struct itera_product *g,
                                                const struct itera_cut *c)
{
    struct itera_gpu_dispatch *d = begin(l, kernel, with_dot, r, g->b);
    const bool cut = c->slices > 1; /* then matmul_reduce does the rest */
    const int32_t bias = cut ? ITERA_NONE : g->bias, residual = cut ? ITERA_NONE : g->residual;
    itera_gpu_in(l, d, bias);
    itera_gpu_in(l, d, residual);
    if (cut)
        itera_gpu_use(d, c->part, ITERA_GPU_WRITE);
    else
        itera_gpu_out(l, d, g->y);
    ITERA_GPU_ARGS(d, blocks_args, .rows = g->rows, .cols = g->cols, .depth = g->depth,
                   .scales = itera_gpu_scales(l, g->b), ITERA_FINISH_WORDS(g, c));
    return d;
}

/* How many invocations share a column of `depth` elements, and how many columns each has: 8 make a
 * load of 128 neighbouring bytes, more are for want of columns, and several columns share what is
 * read of a. */
struct shape {
    int64_t k_lanes, cols, group_cols;
};

static struct shape shape_of(const struct itera_gpu_lowering *l, int32_t b, int64_t rows,
                             int64_t cols, int64_t depth, bool integer)
{
    const int64_t bytes = depth / ITERA_BLOCK * itera_block_bytes(itera_gpu_tensor(l, b)->dtype);
    const int64_t chunks = bytes / 16, wanted = itera_wanted_groups(l->traits);
    struct shape s = {.k_lanes = 8, .cols = 1};
    while (s.k_lanes < LANES && s.k_lanes * 4 <= chunks && cols * s.k_lanes / LANES < wanted)
        s.k_lanes *= 4;
    const int64_t most = rows == 1 && !integer ? 2 : MOST_SUMS / rows;
    while (s.cols < most && cols * s.k_lanes / (LANES * 2 * s.cols) >= wanted)
        s.cols *= 2;
    s.group_cols = LANES / s.k_lanes * s.cols;
    return s;
}

static void shape_constants(struct itera_gpu_dispatch *d, const struct shape *s, int64_t rows,
                            bool integer)
{
    ITERA_GPU_CONSTANT(d, K_LANES, s->k_lanes);
    ITERA_GPU_CONSTANT(d, COLS, s->cols);
    ITERA_GPU_CONSTANT(d, ROWS, rows);
    ITERA_GPU_CONSTANT(d, INTEGER, integer);
}

struct itera_lanes itera_block_lanes(const struct itera_gpu_lowering *l, int32_t b, int64_t rows,
                                     int64_t cols, int64_t depth, bool integer)
{
    const int64_t most = integer ? MOST_ROWS : MOST_FLOAT_ROWS;
    if (rows > most)
        rows = most;
    const struct shape s = shape_of(l, b, rows, cols, depth, integer);
    return (struct itera_lanes){s.k_lanes, s.cols, rows};
}

void itera_lower_blocks(struct itera_gpu_lowering *l, const struct itera_product *g, bool integer)
{
    const int64_t most = integer ? MOST_ROWS : MOST_FLOAT_ROWS;
    const int64_t rows = g->rows < most ? itera_gpu_class(g->rows) : most;
    const struct shape s = shape_of(l, g->b, rows, g->cols, g->depth, integer);
    /* Few rows are rounded by whoever multiplies them. */
    const struct itera_lanes lanes = {s.k_lanes, s.cols, rows};
    const struct itera_fused copied = {
        .g = *g, .w = ITERA_NONE, .shift = ITERA_NONE, .index = ITERA_NONE, .share = ITERA_NONE};
    if (integer && itera_can_fuse(l, &copied, true, true, lanes)) {
        itera_lower_fused(l, &copied, true, true, lanes);
        return;
    }
    const struct rows r = round_rows(l, g->a, integer);
    const struct itera_cut whole = {.slices = 1, .slice_depth = g->depth};
    struct itera_gpu_dispatch *d =
        begin_product(l, "matmul_blocks", "matmul_blocks_dot", &r, g, &whole);
    shape_constants(d, &s, rows, integer);
    itera_gpu_groups(
        l, d, itera_gpu_div_up(g->cols, s.group_cols) * itera_gpu_div_up(g->rows, rows), 1, 1);
}

static void tile_constants(struct itera_gpu_dispatch *d, uint32_t tile)
{
    ITERA_GPU_CONSTANT(d, TILE, tile);
    itera_gpu_local(d, itera_integer_lanes(tile), 1, 1);
}

void itera_lower_integer(struct itera_gpu_lowering *l, const struct itera_product *g, uint32_t tile,
                         int64_t slices)
{
    const struct rows r = round_rows(l, g->a, true);
    const struct itera_cut c = itera_cut_depth(l, g, slices, STEP);
    struct itera_gpu_dispatch *d =
        begin_product(l, "matmul_integer", "matmul_integer_dot", &r, g, &c);
    tile_constants(d, tile);
    itera_gpu_groups(
        l, d, itera_gpu_div_up(g->rows, tile) * itera_gpu_div_up(g->cols, tile) * c.slices, 1, 1);
    if (c.slices > 1)
        itera_reduce_product(l, g, c.part, c.slices);
}

void itera_lower_grouped_blocks(struct itera_gpu_lowering *l, const struct itera_op *op,
                                bool integer, uint32_t tile)
{
    const int32_t b = op->in[1], y = op->out[0];
    const int64_t rows = itera_gpu_rows(l, y), cols = itera_gpu_cols(l, y);
    const int64_t depth = itera_gpu_cols(l, b);
    const struct rows r = round_rows(l, op->in[0], integer);
    struct itera_gpu_dispatch *d =
        tile ? begin(l, "grouped_matmul_integer", "grouped_matmul_integer_dot", &r, b)
             : begin(l, "grouped_matmul_blocks", "grouped_matmul_blocks_dot", &r, b);
    itera_gpu_in(l, d, op->in[2]);
    itera_gpu_out(l, d, y);
    ITERA_GPU_ARGS(d, grouped_blocks_args, .rows = rows, .cols = cols, .depth = depth,
                   .scales = itera_gpu_scales(l, b), .act = op->attr.act,
                   .experts = op->attr.experts);
    if (!tile) {
        const struct shape s = shape_of(l, b, 1, rows * cols, depth, integer);
        shape_constants(d, &s, 1, integer);
        itera_gpu_groups(l, d, rows * itera_gpu_div_up(cols, s.group_cols), 1, 1);
        return;
    }
    tile_constants(d, tile);
    /* Every segment, the two that are nobody's included, may end with a broken tile. */
    itera_gpu_groups(l, d, (rows / tile + op->attr.experts + 2) * itera_gpu_div_up(cols, tile), 1,
                     1);
}
