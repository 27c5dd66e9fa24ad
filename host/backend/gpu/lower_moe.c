/* Lowering of the mixture-of-experts ops (contracts: host/ops/moe.c). */
#include "args/moe.clh"
#include "backend/gpu/lower.h"

enum {
    SMALL_SORT = 1024,   /* assignments that one group sorts alone */
    SORT_BLOCKS = 512,   /* at most: their counts are summed by one group an expert */
    BALANCE_GROUPS = 512 /* at most, likewise */
};

/* A grid of groups that take TILE logits each. */
static void groups_of_tiles(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                            int64_t rows, int64_t experts)
{
    itera_gpu_groups(l, d, itera_gpu_div_up(rows, TILE / experts), 1, 1);
}

/* A grid of invocations that take four columns of a row each. */
static void groups_of_quads(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                            int64_t rows, int64_t cols)
{
    int64_t quads = rows * itera_gpu_div_up(cols, 4);
    itera_gpu_groups(l, d, itera_gpu_div_up(quads, ITERA_GPU_LOCAL), 1, 1);
}

/* Whether weights are probabilities among all experts rather than among the chosen. */
static bool over_all(const struct itera_op *op)
{
    return op->attr.softmax_first && !op->attr.renormalize;
}

enum itera_status itera_lower_moe_route(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[0]), experts = itera_gpu_cols(l, op->in[0]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "moe_route");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_out(l, d, op->out[1]);
    ITERA_GPU_ARGS(d, route_args, .rows = rows, .experts = experts,
                   .k = itera_gpu_cols(l, op->out[0]), .over_all = over_all(op));
    groups_of_tiles(l, d, rows, experts);
    return ITERA_OK;
}

enum itera_status itera_lower_moe_route_bwd(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[1]), experts = itera_gpu_cols(l, op->in[1]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "moe_route_bwd");
    for (int i = 0; i < 4; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, route_bwd_args, .rows = rows, .experts = experts,
                   .k = itera_gpu_cols(l, op->in[2]), .over_all = over_all(op));
    groups_of_tiles(l, d, rows, experts);
    return ITERA_OK;
}

/* The counts of blocks of assignments, and their sums over the blocks before. */
static void count_blocks(struct itera_gpu_lowering *l, const struct itera_op *op, int64_t count,
                         int64_t blocks, int64_t block, struct itera_gpu_scratch counts,
                         struct itera_gpu_scratch totals)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "moe_sort_count");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_use(d, counts, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, sort_count_args, .count = count, .k = itera_gpu_cols(l, op->in[0]),
                   .experts = op->attr.experts, .blocks = blocks, .block = block);
    itera_gpu_groups(l, d, blocks, 1, 1);
    d = itera_gpu_begin(l, "moe_sort_scan");
    itera_gpu_use(d, counts, ITERA_GPU_READ | ITERA_GPU_WRITE);
    itera_gpu_use(d, totals, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, sort_scan_args, .blocks = blocks);
    itera_gpu_groups(l, d, op->attr.experts, 1, 1);
}

enum itera_status itera_lower_moe_sort(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t k = itera_gpu_cols(l, op->in[0]), count = itera_gpu_rows(l, op->in[0]) * k;
    int64_t blocks = 1, block = count;
    struct itera_gpu_scratch counts = {0}, totals = {0};
    if (count > SMALL_SORT) {
        block = itera_gpu_div_up(count, (int64_t)SORT_BLOCKS * ITERA_GPU_LOCAL) * ITERA_GPU_LOCAL;
        blocks = itera_gpu_div_up(count, block);
        counts = itera_gpu_scratch(l, op->attr.experts * blocks);
        totals = itera_gpu_scratch(l, op->attr.experts);
        count_blocks(l, op, count, blocks, block, counts, totals);
    }
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "moe_sort");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_use(d, counts, ITERA_GPU_READ);
    itera_gpu_use(d, totals, ITERA_GPU_READ);
    for (int i = 0; i < 3; i++)
        itera_gpu_out(l, d, op->out[i]);
    ITERA_GPU_ARGS(d, sort_args, .count = count, .k = k, .experts = op->attr.experts,
                   .blocks = blocks, .block = block);
    itera_gpu_groups(l, d, blocks, 1, 1);
    return ITERA_OK;
}

enum itera_status itera_lower_moe_gather(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t slots = itera_gpu_rows(l, op->out[0]), cols = itera_gpu_cols(l, op->out[0]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "moe_gather");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, gather_args, .slots = slots, .cols = cols, .k = op->attr.top_k);
    groups_of_quads(l, d, slots, cols);
    return ITERA_OK;
}

enum itera_status itera_lower_moe_gather_bwd(struct itera_gpu_lowering *l,
                                             const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->out[0]), cols = itera_gpu_cols(l, op->out[0]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "moe_gather_bwd");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, gather_bwd_args, .rows = rows, .cols = cols,
                   .k = itera_gpu_cols(l, op->in[1]));
    groups_of_quads(l, d, rows, cols);
    return ITERA_OK;
}

enum itera_status itera_lower_moe_combine(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->out[0]), cols = itera_gpu_cols(l, op->out[0]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "moe_combine");
    for (int i = 0; i < 4; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, combine_args, .rows = rows, .cols = cols, .k = itera_gpu_cols(l, op->in[1]),
                   .has_residual = op->in[3] != ITERA_NONE);
    groups_of_quads(l, d, rows, cols);
    return ITERA_OK;
}

enum itera_status itera_lower_moe_combine_bwd(struct itera_gpu_lowering *l,
                                              const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[2]), k = itera_gpu_cols(l, op->in[2]);
    int64_t cols = itera_gpu_cols(l, op->in[1]), width = 1;
    while (width < ITERA_GPU_LOCAL && 4 * width < cols)
        width *= 2;
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "moe_combine_bwd");
    for (int i = 0; i < 4; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_out(l, d, op->out[1]);
    ITERA_GPU_ARGS(d, combine_bwd_args, .rows = rows, .cols = cols, .k = k, .width = width);
    itera_gpu_groups(l, d, itera_gpu_div_up(rows * k, ITERA_GPU_LOCAL / width), 1, 1);
    return ITERA_OK;
}

/* Of each expert, over all rows of logits: its probabilities (for the variation their distances
 * from 1 / E), summed, and (given an index) how many assignments it has. */
static void balance_sums(struct itera_gpu_lowering *l, int32_t logits, int32_t index, int kind,
                         struct itera_gpu_scratch *sum, struct itera_gpu_scratch *count)
{
    int64_t rows = itera_gpu_rows(l, logits), experts = itera_gpu_cols(l, logits);
    int64_t groups = itera_gpu_div_up(rows, TILE / experts);
    if (groups > BALANCE_GROUPS)
        groups = BALANCE_GROUPS;
    *sum = itera_gpu_scratch(l, experts);
    *count = itera_gpu_scratch(l, experts);
    struct itera_gpu_scratch sums = *sum, counts = *count;
    if (groups > 1) {
        sums = itera_gpu_scratch(l, experts * groups);
        counts = itera_gpu_scratch(l, experts * groups);
    }
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "moe_balance_sum");
    itera_gpu_in(l, d, logits);
    itera_gpu_in(l, d, index);
    itera_gpu_use(d, sums, ITERA_GPU_WRITE);
    itera_gpu_use(d, counts, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, balance_sum_args, .rows = rows, .experts = experts,
                   .k = index == ITERA_NONE ? 0 : itera_gpu_cols(l, index), .groups = groups,
                   .share = kind == ITERA_BALANCE_VARIATION ? 1.0f / (float)experts : 0.0f);
    itera_gpu_groups(l, d, groups, 1, 1);
    if (groups == 1)
        return;
    d = itera_gpu_begin(l, "moe_balance_fold");
    itera_gpu_use(d, sums, ITERA_GPU_READ);
    itera_gpu_use(d, counts, ITERA_GPU_READ);
    itera_gpu_use(d, *sum, ITERA_GPU_WRITE);
    itera_gpu_use(d, *count, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, balance_fold_args, .groups = groups);
    itera_gpu_groups(l, d, experts, 1, 1);
}

enum itera_status itera_lower_moe_balance(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    struct itera_gpu_scratch sum, count;
    balance_sums(l, op->in[0], op->in[1], op->attr.kind, &sum, &count);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "moe_balance");
    itera_gpu_use(d, sum, ITERA_GPU_READ);
    itera_gpu_use(d, count, ITERA_GPU_READ);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_out(l, d, op->out[1]);
    ITERA_GPU_ARGS(d, balance_args, .rows = itera_gpu_rows(l, op->in[0]),
                   .experts = itera_gpu_cols(l, op->in[0]), .k = itera_gpu_cols(l, op->in[1]),
                   .kind = op->attr.kind == ITERA_BALANCE_SWITCH, .scale = op->attr.scale);
    itera_gpu_groups(l, d, 1, 1, 1);
    return ITERA_OK;
}

enum itera_status itera_lower_moe_balance_bwd(struct itera_gpu_lowering *l,
                                              const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[1]), experts = itera_gpu_cols(l, op->in[1]);
    bool by_load = op->attr.kind == ITERA_BALANCE_SWITCH;
    double n = (double)experts, scale = op->attr.scale / (double)rows;
    struct itera_gpu_scratch sum = {0}, count;
    if (by_load) {
        scale *= n * op->attr.top_k;
    } else {
        balance_sums(l, op->in[1], ITERA_NONE, ITERA_BALANCE_VARIATION, &sum, &count);
        double center = 1 / n + 1e-6;
        scale *= experts > 1 ? 2 / ((n - 1) * center * center * (double)rows) : 0;
    }
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "moe_balance_bwd");
    for (int i = 0; i < 3; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_use(d, sum, ITERA_GPU_READ);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, balance_bwd_args, .rows = rows, .experts = experts, .kind = by_load,
                   .scale = (float)scale);
    groups_of_tiles(l, d, rows, experts);
    return ITERA_OK;
}
