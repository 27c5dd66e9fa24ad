/* Lowering of the elementwise ops (contracts: host/ops/elementwise.c). */
#include <string.h>

#include "args/elementwise.clh"
#include "backend/gpu/choice.h"
#include "backend/gpu/column_sum.h"

enum {
    TILE = ELEMENTS * ITERA_GPU_LOCAL,
    LINE = 32,  /* neighbouring floats that are worth reading together */
    SECTOR = 8, /* the fewest that waste no memory traffic; also elements of a lane in sums */
    FILL_GROUPS = 2048, /* workgroups of 128 that keep the largest devices busy */
    MAX_BLOCKS = 512,   /* of column sums, so that summing the blocks' sums stays cheap */
    FEW_ROWS = 4,       /* a lane should sum more of them than that */
};

/* TILE_WORDS of the kernels, and how many tiles lie above each other. */
struct tile {
    int64_t rows, cols, across, down, shift, tile_rows, tile_cols, row_step, col_step;
};

static int64_t log2_class(int64_t size)
{
    int64_t shift = 0;
    while ((int64_t)1 << shift < size)
        shift++;
    return shift;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Few rows: a lane goes along the row. Many: a workgroup is as wide as a line, and a lane goes down
 * its column. */
static struct tile tile_matrix(int64_t rows, int64_t cols)
{
    struct tile t = {.rows = rows, .cols = cols};
    if (rows < TILE / LINE) {
        t.shift = log2_class(ITERA_GPU_LOCAL);
        t.tile_rows = 1;
        t.tile_cols = TILE;
        t.col_step = ITERA_GPU_LOCAL;
    } else {
        t.shift = log2_class(smaller(cols, LINE));
        t.tile_cols = (int64_t)1 << t.shift;
        t.row_step = ITERA_GPU_LOCAL >> t.shift;
        t.tile_rows = ELEMENTS * t.row_step;
    }
    t.across = itera_gpu_div_up(cols, t.tile_cols);
    t.down = itera_gpu_div_up(rows, t.tile_rows);
    return t;
}

static bool contiguous(const struct itera_gpu_lowering *l, int32_t id)
{
    const struct itera_shape *s = &itera_gpu_tensor(l, id)->shape;
    return s->ld == itera_shape_cols(s) || itera_shape_rows(s) == 1;
}

/* The n operands have one shape; without padding they are one row. */
static struct tile tile_operands(const struct itera_gpu_lowering *l, const int32_t *ids, int n)
{
    int64_t rows = itera_gpu_rows(l, ids[0]), cols = itera_gpu_cols(l, ids[0]);
    bool flat = rows * cols <= INT32_MAX;
    for (int i = 0; i < n && flat; i++)
        flat = contiguous(l, ids[i]);
    return flat ? tile_matrix(1, rows * cols) : tile_matrix(rows, cols);
}

/* Tile t as TILE_WORDS. */
#define TILE_OF(t)                                                                                 \
    .rows = (t).rows, .cols = (t).cols, .across = larger((t).across, 1), .shift = (t).shift,       \
    .tile_rows = (t).tile_rows, .tile_cols = (t).tile_cols, .row_step = (t).row_step,              \
    .col_step = (t).col_step

static void over_tiles(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                       const struct tile *t)
{
    itera_gpu_groups(l, d, t->across * t->down, 1, 1);
}

enum itera_status itera_lower_fill(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    struct tile t = tile_operands(l, op->out, 1);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "fill");
    itera_gpu_out(l, d, op->out[0]);
    uint32_t bits;
    memcpy(&bits, &op->attr.scale, sizeof bits);
    ITERA_GPU_ARGS(d, fill_args, TILE_OF(t), .bits = bits);
    over_tiles(l, d, &t);
    return ITERA_OK;
}

enum itera_status itera_lower_copy(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    struct tile t = tile_operands(l, (int32_t[]){op->in[0], op->out[0]}, 2);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "copy");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, copy_args, TILE_OF(t));
    over_tiles(l, d, &t);
    return ITERA_OK;
}

static enum itera_status unary(struct itera_gpu_lowering *l, const struct itera_op *op,
                               const char *kernel)
{
    struct tile t = tile_operands(l, (int32_t[]){op->in[0], op->out[0]}, 2);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, kernel);
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, unary_args, TILE_OF(t), .factor = op->attr.scale);
    over_tiles(l, d, &t);
    return ITERA_OK;
}

static enum itera_status binary(struct itera_gpu_lowering *l, const struct itera_op *op,
                                const char *kernel)
{
    struct tile t = tile_operands(l, (int32_t[]){op->in[0], op->in[1], op->out[0]}, 3);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, kernel);
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, binary_args, TILE_OF(t));
    over_tiles(l, d, &t);
    return ITERA_OK;
}

enum itera_status itera_lower_scale(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return unary(l, op, "scale");
}

enum itera_status itera_lower_neg_exp(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return unary(l, op, "neg_exp");
}

enum itera_status itera_lower_silu(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return unary(l, op, "silu");
}

enum itera_status itera_lower_gelu(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return unary(l, op, "gelu");
}

enum itera_status itera_lower_softplus(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return unary(l, op, "softplus");
}

enum itera_status itera_lower_add(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return binary(l, op, "add");
}

enum itera_status itera_lower_mul(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return binary(l, op, "mul");
}

enum itera_status itera_lower_penalize(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return binary(l, op, "penalize");
}

enum itera_status itera_lower_silu_bwd(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return binary(l, op, "silu_bwd");
}

enum itera_status itera_lower_gelu_bwd(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return binary(l, op, "gelu_bwd");
}

enum itera_status itera_lower_softplus_bwd(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return binary(l, op, "softplus_bwd");
}

enum itera_status itera_lower_silu_mul(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return binary(l, op, "silu_mul");
}

enum itera_status itera_lower_silu_mul_bwd(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    const int32_t *in = op->in, *out = op->out;
    struct tile t = tile_operands(l, (int32_t[]){in[0], in[1], in[2], out[0], out[1]}, 5);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "silu_mul_bwd");
    for (int i = 0; i < 3; i++)
        itera_gpu_in(l, d, in[i]);
    itera_gpu_out(l, d, out[0]);
    itera_gpu_out(l, d, out[1]);
    ITERA_GPU_ARGS(d, silu_mul_bwd_args, TILE_OF(t));
    over_tiles(l, d, &t);
    return ITERA_OK;
}

enum itera_status itera_lower_skip_gate(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    struct tile t = tile_matrix(itera_gpu_rows(l, op->in[0]), itera_gpu_cols(l, op->in[0]));
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "skip_gate");
    for (int i = 0; i < 4; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, skip_gate_args, TILE_OF(t), .gated = op->in[3] != ITERA_NONE);
    over_tiles(l, d, &t);
    return ITERA_OK;
}

enum itera_status itera_lower_softplus_mean_bwd(struct itera_gpu_lowering *l,
                                                const struct itera_op *op)
{
    struct tile t = tile_matrix(itera_gpu_rows(l, op->in[1]), itera_gpu_cols(l, op->in[1]));
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "softplus_mean_bwd");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, softplus_mean_bwd_args, TILE_OF(t));
    over_tiles(l, d, &t);
    return ITERA_OK;
}

enum itera_status itera_lower_softplus_mean(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[0]), cols = itera_gpu_cols(l, op->in[0]);
    int64_t width = larger(itera_gpu_class(itera_gpu_div_up(cols, SECTOR)), LINE);
    width = smaller(width, smaller(itera_gpu_class(cols), ITERA_GPU_LOCAL));
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "softplus_mean");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, softplus_mean_args, .rows = rows, .cols = cols, .width = width);
    itera_gpu_groups(l, d, itera_gpu_div_up(rows, ITERA_GPU_LOCAL / width), 1, 1);
    return ITERA_OK;
}

enum itera_status itera_lower_dropout(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[0]), cols = itera_gpu_cols(l, op->in[0]);
    bool flat = contiguous(l, op->in[0]) && contiguous(l, op->out[0]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "dropout");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, dropout_args, .rows = flat ? 1 : rows, .cols = flat ? rows * cols : cols,
                   .stream = (uint32_t)op->attr.stream, .p = op->attr.p,
                   .factor = (float)(1.0 / (1.0 - (double)op->attr.p)));
    itera_gpu_groups(l, d, itera_gpu_div_up(rows * cols, TILE), 1, 1);
    return ITERA_OK;
}

/* How a (rows, cols) matrix is cut: a workgroup of 128 takes 1 << shift columns of block_rows
 * rows. BLOCK_WORDS of the kernels are rows, cols, across, shift, block_rows. */
struct blocks {
    int64_t rows, cols;
    int64_t across; /* workgroups side by side */
    int64_t shift;
    int64_t block_rows;
    int64_t count; /* blocks above each other; at least 1, so that no rows sum to 0 */
};

static struct blocks cut_blocks(int64_t rows, int64_t cols)
{
    struct blocks b = {.rows = rows, .cols = cols};
    b.shift = log2_class(smaller(cols, LINE));
    b.across = itera_gpu_div_up(cols, (int64_t)1 << b.shift);
    int64_t deep = ITERA_GPU_LOCAL >> b.shift;
    int64_t count = smaller(itera_gpu_div_up(FILL_GROUPS, larger(b.across, 1)), MAX_BLOCKS);
    count = larger(smaller(count, rows / (deep * FEW_ROWS)), 1);
    b.block_rows = itera_gpu_div_up(itera_gpu_div_up(larger(rows, 1), count), deep) * deep;
    b.count = itera_gpu_div_up(larger(rows, 1), b.block_rows);
    return b;
}

/* One block, and as many workgroups as there can be side by side. */
static struct blocks one_block(int64_t rows, int64_t cols)
{
    struct blocks b = {.rows = rows, .cols = cols, .count = 1};
    b.shift = log2_class(smaller(cols, SECTOR));
    b.across = itera_gpu_div_up(cols, (int64_t)1 << b.shift);
    b.block_rows = larger(rows, 1);
    return b;
}

/* Blocks b as BLOCK_WORDS. */
#define BLOCKS_OF(b)                                                                               \
    .rows = (b)->rows, .cols = (b)->cols, .across = larger((b)->across, 1), .shift = (b)->shift,   \
    .block_rows = (b)->block_rows

static void block_groups(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                         const struct blocks *b)
{
    itera_gpu_groups(l, d, b->across * b->count, 1, 1);
}

static void sum_words(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                      const struct blocks *b, int64_t x_row, int64_t wrap, int64_t outer,
                      int64_t inner)
{
    ITERA_GPU_ARGS(d, column_sum_args, BLOCKS_OF(b), .x_row = x_row, .y_block = b->cols,
                   .wrap = larger(wrap, 1), .y_outer = outer, .y_inner = inner);
    block_groups(l, d, b);
}

void itera_gpu_sum_partial(struct itera_gpu_lowering *l, struct itera_gpu_scratch partial,
                           int64_t rows, int64_t cols, int32_t y, bool transposed)
{
    struct blocks b = cut_blocks(rows, cols);
    if (rows > MAX_BLOCKS && b.count > 1) {
        struct itera_gpu_scratch sums = itera_gpu_scratch(l, b.count * cols);
        struct itera_gpu_dispatch *d = itera_gpu_begin(l, "column_sum");
        itera_gpu_use(d, partial, ITERA_GPU_READ);
        itera_gpu_use(d, sums, ITERA_GPU_WRITE);
        sum_words(l, d, &b, cols, cols, 0, 1);
        partial = sums;
        rows = b.count;
    }
    b = one_block(rows, cols);
    const struct itera_shape *shape = &itera_gpu_tensor(l, y)->shape;
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "column_sum");
    itera_gpu_use(d, partial, ITERA_GPU_READ);
    itera_gpu_out(l, d, y);
    if (transposed)
        sum_words(l, d, &b, cols, itera_shape_rows(shape), 1, shape->ld);
    else
        sum_words(l, d, &b, cols, itera_shape_cols(shape), shape->ld, 1);
}

enum itera_status itera_lower_column_sum(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[0]), cols = itera_gpu_cols(l, op->in[0]);
    int64_t ld = itera_gpu_tensor(l, op->in[0])->shape.ld;
    struct blocks b = cut_blocks(rows, cols);
    struct itera_gpu_scratch sums = {0};
    if (b.count > 1)
        sums = itera_gpu_scratch(l, b.count * cols);
    else
        b = one_block(rows, cols);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "column_sum");
    itera_gpu_in(l, d, op->in[0]);
    if (b.count > 1)
        itera_gpu_use(d, sums, ITERA_GPU_WRITE);
    else
        itera_gpu_out(l, d, op->out[0]);
    sum_words(l, d, &b, ld, cols, 0, 1);
    if (b.count > 1)
        itera_gpu_sum_partial(l, sums, b.count, cols, op->out[0], false);
    return ITERA_OK;
}

enum itera_status itera_lower_skip_gate_bwd(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[0]), cols = itera_gpu_cols(l, op->in[0]);
    bool gated = op->in[4] != ITERA_NONE;
    struct blocks b = cut_blocks(rows, cols);
    struct itera_gpu_scratch sums = {0};
    if (b.count > 1)
        sums = itera_gpu_scratch(l, b.count * cols);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "skip_gate_bwd");
    for (int i = 0; i < 5; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_out(l, d, op->out[1]);
    if (b.count > 1)
        itera_gpu_use(d, sums, ITERA_GPU_WRITE);
    else
        itera_gpu_out(l, d, op->out[2]);
    itera_gpu_out(l, d, op->out[3]);
    ITERA_GPU_ARGS(d, skip_gate_bwd_args, BLOCKS_OF(&b), .gated = gated,
                   .want_dz = gated && op->out[3] != ITERA_NONE);
    block_groups(l, d, &b);
    if (b.count > 1)
        itera_gpu_sum_partial(l, sums, b.count, cols, op->out[2], false);
    return ITERA_OK;
}
