/* Lowering of the normalisations (contracts: host/ops/norm.c). */
#include "args/norm.clh"
#include "backend/gpu/choice.h"
#include "backend/gpu/column_sum.h"

enum {
    LEAST_WIDTH = 32,          /* lanes of a slice: neighbouring floats worth reading together */
    MOST_WIDTH = 1024,         /* and of any workgroup */
    MOST_GRADIENT_WIDTH = 256, /* the same of gradients, which need more registers */
    FILL_LANES = 131072,       /* in gradients: slices that run at once times their width */
    FEW_ROWS = 4,              /* in gradients: a slice should take at least so many rows */
};

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Lanes for a slice of so many columns. */
static int64_t slice_width(const struct itera_gpu_lowering *l, int64_t cols, int64_t most)
{
    int64_t width = larger(itera_gpu_class(itera_gpu_div_up(cols, USUAL_ITEMS)), LEAST_WIDTH);
    while (most > l->traits->max_local)
        most /= 2;
    return smaller(smaller(width, itera_gpu_class(cols)), most);
}

/* Sets the workgroup and the grid: `slices` of `cols` columns. */
static void finish_slices(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                          int64_t slices, int64_t cols, int64_t width)
{
    int64_t items = itera_gpu_class(itera_gpu_div_up(cols, width));
    int64_t local = larger(width, ITERA_GPU_LOCAL);
    if (items > USUAL_ITEMS)
        ITERA_GPU_CONSTANT(d, ITEMS, items);
    if (local != ITERA_GPU_LOCAL)
        ITERA_GPU_CONSTANT(d, GROUP_LANES, local);
    itera_gpu_local(d, (uint32_t)local, 1, 1);
    itera_gpu_groups(l, d, itera_gpu_div_up(slices, local / width), 1, 1);
}

/* The last output may be absent. */
static struct itera_gpu_dispatch *begin_forward(struct itera_gpu_lowering *l,
                                                const struct itera_op *op, const char *kernel,
                                                int inputs)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, kernel);
    for (int i = 0; i < inputs; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_out(l, d, op->out[1]);
    return d;
}

enum itera_status itera_lower_layer_norm(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[0]), cols = itera_gpu_cols(l, op->in[0]);
    int64_t width = slice_width(l, cols, MOST_WIDTH);
    struct itera_gpu_dispatch *d = begin_forward(l, op, "layer_norm", 3);
    ITERA_GPU_ARGS(d, layer_norm_args, .rows = rows, .cols = cols, .width = width,
                   .save = op->out[1] != ITERA_NONE, .eps = op->attr.eps);
    finish_slices(l, d, rows, cols, width);
    return ITERA_OK;
}

enum itera_status itera_lower_rms_norm(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[0]), cols = itera_gpu_cols(l, op->in[0]);
    int64_t width = slice_width(l, cols, MOST_WIDTH);
    struct itera_gpu_dispatch *d = begin_forward(l, op, "rms_norm", 2);
    ITERA_GPU_ARGS(d, rms_norm_args, .rows = rows, .cols = cols, .width = width,
                   .save = op->out[1] != ITERA_NONE, .eps = op->attr.eps);
    finish_slices(l, d, rows, cols, width);
    return ITERA_OK;
}

enum itera_status itera_lower_gated_rms_norm(struct itera_gpu_lowering *l,
                                             const struct itera_op *op)
{
    int64_t groups = op->attr.groups ? op->attr.groups : 1;
    int64_t rows = itera_gpu_rows(l, op->in[0]), cols = itera_gpu_cols(l, op->in[0]) / groups;
    int64_t width = slice_width(l, cols, MOST_WIDTH);
    struct itera_gpu_dispatch *d = begin_forward(l, op, "gated_rms_norm", 3);
    ITERA_GPU_ARGS(d, gated_rms_norm_args, .rows = rows, .cols = cols, .width = width,
                   .groups = groups, .save = op->out[1] != ITERA_NONE, .eps = op->attr.eps);
    finish_slices(l, d, rows * groups, cols, width);
    return ITERA_OK;
}

/* How many slices share the rows of a gradient. */
static int64_t count_blocks(int64_t rows, int64_t groups, int64_t width)
{
    return larger(smaller(FILL_LANES / (width * groups), rows / FEW_ROWS), 1);
}

/* The sums of one weight's gradient by block: scratch, or the output itself when there is but one
 * block. */
static struct itera_gpu_scratch begin_sums(struct itera_gpu_lowering *l,
                                           struct itera_gpu_dispatch *d, int64_t blocks,
                                           int64_t cols, int32_t out)
{
    struct itera_gpu_scratch sums = {0};
    if (blocks == 1) {
        itera_gpu_out(l, d, out);
    } else {
        sums = itera_gpu_scratch(l, blocks * cols);
        itera_gpu_use(d, sums, ITERA_GPU_WRITE);
    }
    return sums;
}

static void finish_sums(struct itera_gpu_lowering *l, struct itera_gpu_scratch sums, int64_t blocks,
                        int64_t cols, int32_t out)
{
    if (blocks > 1)
        itera_gpu_sum_partial(l, sums, blocks, cols, out, false);
}

/* dx, then a gradient for each of the weights. */
static enum itera_status backward(struct itera_gpu_lowering *l, const struct itera_op *op,
                                  const char *kernel, int weights)
{
    int64_t rows = itera_gpu_rows(l, op->in[1]), cols = itera_gpu_cols(l, op->in[1]);
    int64_t width = slice_width(l, cols, MOST_GRADIENT_WIDTH),
            blocks = count_blocks(rows, 1, width);
    struct itera_gpu_scratch sums[2];
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, kernel);
    for (int i = 0; i < 4; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_out(l, d, op->out[0]);
    for (int i = 0; i < weights; i++)
        sums[i] = begin_sums(l, d, blocks, cols, op->out[1 + i]);
    if (weights == 2)
        ITERA_GPU_ARGS(d, layer_norm_bwd_args, .rows = rows, .cols = cols, .width = width,
                       .blocks = blocks);
    else
        ITERA_GPU_ARGS(d, rms_norm_bwd_args, .rows = rows, .cols = cols, .width = width,
                       .blocks = blocks);
    finish_slices(l, d, blocks, cols, width);
    for (int i = 0; i < weights; i++)
        finish_sums(l, sums[i], blocks, cols, op->out[1 + i]);
    return ITERA_OK;
}

enum itera_status itera_lower_layer_norm_bwd(struct itera_gpu_lowering *l,
                                             const struct itera_op *op)
{
    return backward(l, op, "layer_norm_bwd", 2);
}

enum itera_status itera_lower_rms_norm_bwd(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return backward(l, op, "rms_norm_bwd", 1);
}

enum itera_status itera_lower_gated_rms_norm_bwd(struct itera_gpu_lowering *l,
                                                 const struct itera_op *op)
{
    int64_t groups = op->attr.groups ? op->attr.groups : 1;
    int64_t rows = itera_gpu_rows(l, op->in[1]), all = itera_gpu_cols(l, op->in[1]);
    int64_t cols = all / groups, width = slice_width(l, cols, MOST_GRADIENT_WIDTH);
    int64_t blocks = count_blocks(rows, groups, width);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "gated_rms_norm_bwd");
    for (int i = 0; i < 5; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_out(l, d, op->out[1]);
    struct itera_gpu_scratch sums = begin_sums(l, d, blocks, all, op->out[2]);
    ITERA_GPU_ARGS(d, gated_rms_norm_bwd_args, .rows = rows, .cols = cols, .width = width,
                   .groups = groups, .blocks = blocks);
    finish_slices(l, d, blocks * groups, cols, width);
    finish_sums(l, sums, blocks, all, op->out[2]);
    return ITERA_OK;
}
