/* Lowering of the elementwise ops (contracts: host/ops/elementwise.c). */
#include "backend/gpu/gpu.h"

enum itera_status itera_lower_silu(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->out[0]), cols = itera_gpu_cols(l, op->out[0]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "silu");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_word(d, rows);
    itera_gpu_word(d, cols);
    itera_gpu_groups(l, d, itera_gpu_div_up(rows * cols, ITERA_GPU_LOCAL), 1, 1);
    return ITERA_OK;
}
