/* Lowering of the optimiser ops (contracts: host/ops/optimizer.c). */
#include "args/optimizer.clh"
#include "backend/gpu/lower.h"

enum { MAX_GROUPS = 2048 }; /* that share a norm */

static bool contiguous(const struct itera_gpu_lowering *l, int32_t id)
{
    return itera_gpu_tensor(l, id)->shape.ld == itera_gpu_cols(l, id);
}

/* rows and cols of elements that may be seen as one row. */
#define SIZE_WORDS(l, id, flat)                                                                    \
    .rows = (flat) ? 1 : itera_gpu_rows(l, id),                                                    \
    .cols = (flat) ? elements(l, id) : itera_gpu_cols(l, id)

static int64_t elements(const struct itera_gpu_lowering *l, int32_t id)
{
    return itera_gpu_rows(l, id) * itera_gpu_cols(l, id);
}

enum itera_status itera_lower_grad_norm(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t n = elements(l, op->in[0]);
    int64_t groups = itera_gpu_div_up(n, 16 * ITERA_GPU_LOCAL);
    groups = groups < 1 ? 1 : groups > MAX_GROUPS ? MAX_GROUPS : groups;
    struct itera_gpu_scratch parts = itera_gpu_scratch(l, 4 * groups);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "grad_norm_parts");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_use(d, parts, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, grad_norm_parts_args, SIZE_WORDS(l, op->in[0], contiguous(l, op->in[0])),
                   .groups = groups);
    itera_gpu_groups(l, d, groups, 1, 1);

    d = itera_gpu_begin(l, "grad_norm_join");
    itera_gpu_use(d, parts, ITERA_GPU_READ);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, grad_norm_join_args, .groups = groups);
    itera_gpu_local(d, l->traits->max_local < MAX_LOCAL ? ITERA_GPU_LOCAL : MAX_LOCAL, 1, 1);
    itera_gpu_groups(l, d, 1, 1, 1);
    return ITERA_OK;
}

enum itera_status itera_lower_adamw(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    bool flat = true;
    for (int i = 0; i < 4; i++)
        flat = flat && contiguous(l, op->in[i]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "adamw");
    itera_gpu_inout(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_inout(l, d, op->in[2]);
    itera_gpu_inout(l, d, op->in[3]);
    itera_gpu_in(l, d, op->in[4]);
    itera_gpu_in(l, d, op->in[5]);
    ITERA_GPU_ARGS(d, adamw_args, SIZE_WORDS(l, op->in[0], flat), .decay = op->attr.p);
    itera_gpu_groups(l, d, itera_gpu_div_up(elements(l, op->in[0]), ELEMENTS * ITERA_GPU_LOCAL), 1,
                     1);
    return ITERA_OK;
}
