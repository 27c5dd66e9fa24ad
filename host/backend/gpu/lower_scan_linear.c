/* Lowering of linear_scan and its gradient (contracts: host/ops/scan.c; kernels: scan_linear.cl).
 */
#include "args/scan.clh"
#include "backend/gpu/lower_scan.h"

static struct itera_gpu_scan scan_of(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    const int64_t *dim = itera_gpu_tensor(l, op->in[0])->shape.dim;
    return itera_gpu_scan(l, op, dim[0], dim[1], dim[2]);
}

/* The first two passes over chunks, of the scan (dh and shifted a: of its gradient). */
static struct itera_gpu_chunks chunk_starts(struct itera_gpu_lowering *l,
                                            const struct itera_gpu_scan *s, bool backward,
                                            int32_t x, int32_t y, int32_t state)
{
    struct itera_gpu_chunks chunks = itera_gpu_chunks(l, s);
    struct itera_gpu_dispatch *d =
        itera_gpu_begin(l, backward ? "linear_scan_bwd_chunk" : "linear_scan_chunk");
    itera_gpu_in(l, d, x);
    itera_gpu_in(l, d, y);
    itera_gpu_use(d, chunks.decay, ITERA_GPU_WRITE);
    itera_gpu_use(d, chunks.ends, ITERA_GPU_WRITE);
    if (backward)
        ITERA_GPU_ARGS(d, linear_scan_bwd_chunk_args, ITERA_SCAN_SIZES(s));
    else
        ITERA_GPU_ARGS(d, linear_scan_chunk_args, ITERA_SCAN_SIZES(s));
    itera_gpu_groups(l, d, s->batch * s->chunks * s->tiles, 1, 1);
    itera_gpu_scan_starts(l, s, chunks, state);
    return chunks;
}

static void sequential(struct itera_gpu_lowering *l, const struct itera_op *op,
                       const struct itera_gpu_scan *s)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "linear_scan_sequential");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_inout(l, d, op->in[2]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, linear_scan_sequential_args, .batch = s->batch, .time = s->time,
                   .cols = s->cols, .has_state = op->in[2] != ITERA_NONE);
    itera_gpu_groups(l, d, itera_gpu_div_up(s->batch * s->cols, ITERA_GPU_LOCAL), 1, 1);
}

enum itera_status itera_lower_linear_scan(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    struct itera_gpu_scan s = scan_of(l, op);
    bool chunked = s.variant == ITERA_SCAN_CHUNKED;
    struct itera_gpu_chunks chunks = {0};
    if (s.variant == ITERA_SCAN_SEQUENTIAL) {
        sequential(l, op, &s);
        return ITERA_OK;
    }
    if (chunked)
        chunks = chunk_starts(l, &s, false, op->in[0], op->in[1], op->in[2]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "linear_scan_parallel");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_scan_state(l, d, &s, chunks, op->in[2]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, linear_scan_parallel_args, ITERA_SCAN_SIZES(&s),
                   .state_mode = itera_gpu_scan_state_mode(&s, op->in[2]),
                   .start_ld = itera_gpu_scan_state_ld(l, &s, op->in[2]));
    itera_gpu_groups(l, d, s.batch * s.chunks * s.tiles, 1, 1);
    return ITERA_OK;
}

static void bwd_sequential(struct itera_gpu_lowering *l, const struct itera_op *op,
                           const struct itera_gpu_scan *s)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "linear_scan_bwd_sequential");
    for (int i = 0; i < 3; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_out(l, d, op->out[1]);
    ITERA_GPU_ARGS(d, linear_scan_bwd_sequential_args, .batch = s->batch, .time = s->time,
                   .cols = s->cols);
    itera_gpu_groups(l, d, itera_gpu_div_up(s->batch * s->cols, ITERA_GPU_LOCAL), 1, 1);
}

enum itera_status itera_lower_linear_scan_bwd(struct itera_gpu_lowering *l,
                                              const struct itera_op *op)
{
    struct itera_gpu_scan s = scan_of(l, op);
    bool chunked = s.variant == ITERA_SCAN_CHUNKED;
    struct itera_gpu_chunks chunks = {0};
    if (s.variant == ITERA_SCAN_SEQUENTIAL) {
        bwd_sequential(l, op, &s);
        return ITERA_OK;
    }
    if (chunked)
        chunks = chunk_starts(l, &s, true, op->in[0], op->in[1], ITERA_NONE);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "linear_scan_bwd_parallel");
    for (int i = 0; i < 3; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_use(d, chunks.ends, ITERA_GPU_READ);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_out(l, d, op->out[1]);
    ITERA_GPU_ARGS(d, linear_scan_bwd_parallel_args, ITERA_SCAN_SIZES(&s), .has_start = chunked);
    itera_gpu_groups(l, d, s.batch * s.chunks * s.tiles, 1, 1);
    return ITERA_OK;
}
