/* Lowering of the losses (contracts: host/ops/loss.c). */
#include "args/loss.clh"
#include "backend/gpu/lower.h"

/* Invocations for a row, or a sum, of n elements. */
static uint32_t local_for(const struct itera_gpu_lowering *l, int64_t n)
{
    return n > 4 * MAX_LOCAL && l->traits->max_local >= MAX_LOCAL ? MAX_LOCAL : ITERA_GPU_LOCAL;
}

/* Rows, classes, and how the targets lie. */
#define TARGET_WORDS                                                                               \
    .rows = itera_gpu_rows(l, logits), .cols = itera_gpu_cols(l, logits),                          \
    .target_cols = itera_gpu_cols(l, targets)

enum itera_status itera_lower_cross_entropy(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int32_t logits = op->in[0], targets = op->in[1];
    int64_t rows = itera_gpu_rows(l, logits);
    struct itera_gpu_scratch losses = itera_gpu_scratch(l, rows);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "cross_entropy_rows");
    itera_gpu_in(l, d, logits);
    itera_gpu_in(l, d, targets);
    itera_gpu_out(l, d, op->out[1]);
    itera_gpu_use(d, losses, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, cross_entropy_rows_args, TARGET_WORDS);
    itera_gpu_local(d, local_for(l, itera_gpu_cols(l, logits)), 1, 1);
    itera_gpu_groups(l, d, rows, 1, 1);

    d = itera_gpu_begin(l, "cross_entropy_mean");
    itera_gpu_use(d, losses, ITERA_GPU_READ);
    itera_gpu_in(l, d, targets);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, cross_entropy_mean_args, TARGET_WORDS);
    itera_gpu_local(d, local_for(l, rows), 1, 1);
    itera_gpu_groups(l, d, 1, 1, 1);
    return ITERA_OK;
}

enum itera_status itera_lower_cross_entropy_bwd(struct itera_gpu_lowering *l,
                                                const struct itera_op *op)
{
    int32_t logits = op->in[1], targets = op->in[2];
    int64_t rows = itera_gpu_rows(l, logits);
    int64_t tiles = itera_gpu_div_up(itera_gpu_cols(l, logits), ELEMENTS * ITERA_GPU_LOCAL);
    struct itera_gpu_scratch scale = itera_gpu_scratch(l, 1);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "cross_entropy_bwd_scale");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, targets);
    itera_gpu_use(d, scale, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, cross_entropy_bwd_scale_args, TARGET_WORDS);
    itera_gpu_local(d, local_for(l, rows), 1, 1);
    itera_gpu_groups(l, d, 1, 1, 1);

    d = itera_gpu_begin(l, "cross_entropy_bwd");
    itera_gpu_use(d, scale, ITERA_GPU_READ);
    itera_gpu_in(l, d, logits);
    itera_gpu_in(l, d, targets);
    itera_gpu_in(l, d, op->in[3]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, cross_entropy_bwd_args, TARGET_WORDS, .tiles = tiles);
    itera_gpu_groups(l, d, rows * tiles, 1, 1);
    return ITERA_OK;
}

enum itera_status itera_lower_kl_loss(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[0]), cols = itera_gpu_cols(l, op->in[0]);
    float temperature = op->attr.scale;
    struct itera_gpu_scratch losses = itera_gpu_scratch(l, rows);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "kl_loss_rows");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_use(d, losses, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, kl_loss_rows_args, .rows = rows, .cols = cols, .scale = 1.0f / temperature);
    itera_gpu_local(d, local_for(l, cols), 1, 1);
    itera_gpu_groups(l, d, rows, 1, 1);

    d = itera_gpu_begin(l, "kl_loss_mean");
    itera_gpu_use(d, losses, ITERA_GPU_READ);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, kl_loss_mean_args, .rows = rows, .factor = temperature * temperature);
    itera_gpu_local(d, local_for(l, rows), 1, 1);
    itera_gpu_groups(l, d, 1, 1, 1);
    return ITERA_OK;
}

enum itera_status itera_lower_kl_loss_bwd(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[1]), cols = itera_gpu_cols(l, op->in[1]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "kl_loss_bwd");
    for (int i = 0; i < 3; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, kl_loss_bwd_args, .rows = rows, .cols = cols, .scale = 1.0f / op->attr.scale,
                   .factor = op->attr.scale);
    itera_gpu_local(d, local_for(l, cols), 1, 1);
    itera_gpu_groups(l, d, rows, 1, 1);
    return ITERA_OK;
}
