/* Lowering of products of few rows with what comes before and after them: the kernels
 * matmul_gemv_fused and matmul_blocks_fused. */
#include "args/matmul.clh"
#include "backend/gpu/choice.h"
#include "backend/gpu/lower_matmul.h"

enum { LANES = ITERA_GPU_LOCAL };

/* Fours of words that the rows of a workgroup take in shared memory. */
static int64_t staged(const struct itera_fused *f, struct itera_lanes lanes, bool integer)
{
    return lanes.rows * itera_gpu_div_up(f->g.depth, integer ? 16 : 4);
}

static const char *kernel_for(const struct itera_gpu_lowering *l, bool chunks, bool integer)
{
    struct itera_gpu_device *device = (struct itera_gpu_device *)l->device;
    if (!chunks)
        return "matmul_gemv_fused";
    /* OpenCL is told by a constant, a shader must be another. */
    return integer && l->traits->dot && device->has_kernel(device, "matmul_blocks_fused_dot")
               ? "matmul_blocks_fused_dot"
               : "matmul_blocks_fused";
}

bool itera_can_fuse(struct itera_gpu_lowering *l, const struct itera_fused *f, bool chunks,
                    bool integer, struct itera_lanes lanes)
{
    struct itera_gpu_device *device = (struct itera_gpu_device *)l->device;
    const struct itera_product *g = &f->g;
    if (g->rows < 1 || g->depth < 1 || g->cols < 1 || !g->trans_b || g->trans_a ||
        itera_gpu_tensor(l, g->a)->dtype != ITERA_F32 ||
        (f->experts == EXPERTS_NONE && g->rows > ITERA_FUSED_ROWS))
        return false;
    int64_t shared =
        LANES * lanes.cols * lanes.rows * 4 + staged(f, lanes, integer) * 16 + 3 * LANES * 4;
    if (integer)
        shared += staged(f, lanes, integer) * 4 + 8; /* scales and sums */
    return shared <= l->traits->shared_bytes &&
           device->has_kernel(device, kernel_for(l, chunks, integer));
}

void itera_lower_fused(struct itera_gpu_lowering *l, const struct itera_fused *f, bool chunks,
                       bool integer, struct itera_lanes lanes)
{
    const struct itera_product *g = &f->g;
    const struct itera_op *conv = f->conv;
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, kernel_for(l, chunks, integer));
    itera_gpu_in(l, d, g->a);
    itera_gpu_in(l, d, g->b);
    itera_gpu_in(l, d, f->w);
    itera_gpu_in(l, d, f->shift);
    itera_gpu_in(l, d, g->bias);
    itera_gpu_in(l, d, g->residual);
    itera_gpu_out(l, d, g->y);
    itera_gpu_in(l, d, conv ? conv->in[1] : ITERA_NONE);
    itera_gpu_in(l, d, conv ? conv->in[2] : ITERA_NONE);
    itera_gpu_inout(l, d, conv ? conv->in[3] : ITERA_NONE);
    itera_gpu_out(l, d, conv ? conv->out[0] : ITERA_NONE);
    const bool routes = f->experts == EXPERTS_ROUTE;
    (routes ? itera_gpu_out : itera_gpu_in)(l, d, f->index);
    (routes ? itera_gpu_out : itera_gpu_in)(l, d, f->share);
    const bool experts = f->experts != EXPERTS_NONE;
    ITERA_GPU_ARGS(
        d, fused_args, .rows = g->rows, .cols = g->cols, .depth = g->depth,
        .scales = itera_gpu_scales(l, g->b), .has_bias = g->bias >= 0,
        .has_residual = g->residual >= 0, .act = g->act,
        .k = experts ? itera_gpu_cols(l, f->index) : 1, .experts = experts ? f->n_experts : 1,
        .conv_first = f->conv_first, .conv_cols = conv ? itera_gpu_cols(l, conv->in[0]) : 0,
        .has_conv_bias = conv && conv->in[2] >= 0, .has_state = conv && conv->in[3] >= 0,
        .silu = conv && conv->attr.act == ITERA_ACT_SILU, .over_all = f->over_all, .eps = f->eps);
    ITERA_GPU_CONSTANT(d, B_TYPE, itera_gpu_tensor(l, g->b)->dtype);
    ITERA_GPU_CONSTANT(d, K_LANES, lanes.k_lanes);
    ITERA_GPU_CONSTANT(d, COLS, lanes.cols);
    ITERA_GPU_CONSTANT(d, ROWS, lanes.rows);
    if (chunks)
        ITERA_GPU_CONSTANT(d, INTEGER, integer);
    if (integer && l->traits->dot)
        ITERA_GPU_CONSTANT(d, DOT, 1);
    ITERA_GPU_CONSTANT(d, STAGE, f->stage);
    ITERA_GPU_CONSTANT(d, STAGED, staged(f, lanes, integer));
    ITERA_GPU_CONSTANT(d, EXPERTS, f->experts);
    ITERA_GPU_CONSTANT(d, CONV_TAPS, conv ? itera_gpu_cols(l, conv->in[1]) : 0);
    const int64_t across = itera_gpu_div_up(g->cols, LANES / lanes.k_lanes * lanes.cols);
    itera_gpu_groups(l, d, across * itera_gpu_div_up(g->rows, lanes.rows), 1, 1);
}
