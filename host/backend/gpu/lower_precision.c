/* Lowering of the mixed precision ops (contracts: host/ops/precision.c). */
#include "args/precision.clh"
#include "backend/gpu/lower.h"
#include "core/log.h"

enum itera_status itera_lower_cast(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    const struct itera_tensor *y = itera_gpu_tensor(l, op->out[0]);
    int64_t rows = itera_shape_rows(&y->shape), cols = itera_shape_cols(&y->shape);
    bool to_half = y->dtype == ITERA_F16;
    /* Words of two elements are written. */
    if (to_half && (y->shape.ld != cols || y->offset % 2))
        return itera_refuse(&l->why, "cast: an f16 result that is not contiguous");
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, to_half ? "cast_to_half" : "cast_from_half");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, cast_args, .rows = rows, .cols = cols);
    itera_gpu_groups(l, d, itera_gpu_div_up(rows * cols, ITERA_GPU_LOCAL), 1, 1);
    return ITERA_OK;
}

enum itera_status itera_lower_unscale(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->out[0]), cols = itera_gpu_cols(l, op->out[0]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "unscale");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, unscale_args, .rows = rows, .cols = cols);
    itera_gpu_groups(l, d, itera_gpu_div_up(rows * cols, ITERA_GPU_LOCAL), 1, 1);
    return ITERA_OK;
}

enum itera_status itera_lower_loss_scale(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "loss_scale");
    itera_gpu_inout(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    ITERA_GPU_ARGS(d, loss_scale_args, .count = op->attr.count);
    itera_gpu_groups(l, d, 1, 1, 1);
    return ITERA_OK;
}
