/* Lowering of itera_scan and its gradient (contracts: host/ops/scan.c; kernels: scan_itera.cl). */
#include "args/scan.clh"
#include "backend/gpu/lower_scan.h"

static struct itera_gpu_scan scan_of(struct itera_gpu_lowering *l, const struct itera_op *op,
                                     int32_t u)
{
    const int64_t *dim = itera_gpu_tensor(l, u)->shape.dim;
    return itera_gpu_scan(l, op, dim[0], dim[1], dim[2]);
}

/* The first two passes over chunks; in[] are the first pass's inputs. */
static struct itera_gpu_chunks chunk_starts(struct itera_gpu_lowering *l,
                                            const struct itera_gpu_scan *s, bool backward,
                                            const int32_t in[3], int32_t state)
{
    struct itera_gpu_chunks chunks = itera_gpu_chunks(l, s);
    struct itera_gpu_dispatch *d =
        itera_gpu_begin(l, backward ? "itera_scan_bwd_chunk" : "itera_scan_chunk");
    for (int i = 0; i < 3; i++)
        itera_gpu_in(l, d, in[i]);
    itera_gpu_use(d, chunks.decay, ITERA_GPU_WRITE);
    itera_gpu_use(d, chunks.ends, ITERA_GPU_WRITE);
    if (backward)
        ITERA_GPU_ARGS(d, itera_scan_bwd_chunk_args, ITERA_SCAN_SIZES(s));
    else
        ITERA_GPU_ARGS(d, itera_scan_chunk_args, ITERA_SCAN_SIZES(s));
    itera_gpu_groups(l, d, s->batch * s->chunks * s->tiles, 1, 1);
    itera_gpu_scan_starts(l, s, chunks, state);
    return chunks;
}

static void sequential(struct itera_gpu_lowering *l, const struct itera_op *op,
                       const struct itera_gpu_scan *s)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "itera_scan_sequential");
    for (int i = 0; i < 3; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_inout(l, d, op->in[3]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, itera_scan_sequential_args, .batch = s->batch, .time = s->time,
                   .cols = s->cols, .has_state = op->in[3] != ITERA_NONE);
    itera_gpu_groups(l, d, itera_gpu_div_up(s->batch * s->cols, ITERA_GPU_LOCAL), 1, 1);
}

enum itera_status itera_lower_itera_scan(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    struct itera_gpu_scan s = scan_of(l, op, op->in[2]);
    struct itera_gpu_chunks chunks = {0};
    if (s.variant == ITERA_SCAN_SEQUENTIAL) {
        sequential(l, op, &s);
        return ITERA_OK;
    }
    if (s.variant == ITERA_SCAN_CHUNKED)
        chunks = chunk_starts(l, &s, false, op->in, op->in[3]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "itera_scan_parallel");
    for (int i = 0; i < 3; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_scan_state(l, d, &s, chunks, op->in[3]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, itera_scan_parallel_args, ITERA_SCAN_SIZES(&s),
                   .state_mode = itera_gpu_scan_state_mode(&s, op->in[3]),
                   .start_ld = itera_gpu_scan_state_ld(l, &s, op->in[3]));
    itera_gpu_groups(l, d, s.batch * s.chunks * s.tiles, 1, 1);
    return ITERA_OK;
}

/* The sums that leave the gradient's kernels in parts: dd, a part for each tile of states, which is
 * dd itself when one tile holds them all, and dA, a part for each chunk. */
struct parts {
    struct itera_gpu_scratch dd, dA;
};

static void parts_operands(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                           const struct itera_op *op, const struct itera_gpu_scan *s,
                           const struct parts *parts)
{
    if (s->tiles > 1)
        itera_gpu_use(d, parts->dd, ITERA_GPU_WRITE);
    else
        itera_gpu_out(l, d, op->out[0]);
    itera_gpu_use(d, parts->dA, ITERA_GPU_WRITE);
    itera_gpu_out(l, d, op->out[2]);
}

static int64_t dd_ld(struct itera_gpu_lowering *l, const struct itera_op *op,
                     const struct itera_gpu_scan *s)
{
    return s->tiles > 1 ? 1 : itera_gpu_tensor(l, op->out[0])->shape.ld;
}

static void bwd_sequential(struct itera_gpu_lowering *l, const struct itera_op *op,
                           const struct itera_gpu_scan *s, const struct parts *parts)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "itera_scan_bwd_sequential");
    for (int i = 0; i < 5; i++)
        itera_gpu_in(l, d, op->in[i]);
    parts_operands(l, d, op, s, parts);
    ITERA_GPU_ARGS(d, itera_scan_bwd_sequential_args, .batch = s->batch, .time = s->time,
                   .cols = s->cols, .width = s->width, .tiles = s->tiles, .dd_ld = dd_ld(l, op, s));
    itera_gpu_groups(l, d, itera_gpu_div_up(s->batch, ITERA_GPU_LOCAL / s->width) * s->tiles, 1, 1);
}

static void bwd_parallel(struct itera_gpu_lowering *l, const struct itera_op *op,
                         const struct itera_gpu_scan *s, const struct parts *parts)
{
    struct itera_gpu_chunks chunks = {0};
    const bool chunked = s->variant == ITERA_SCAN_CHUNKED;
    if (chunked)
        chunks = chunk_starts(l, s, true, op->in, ITERA_NONE);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "itera_scan_bwd_parallel");
    for (int i = 0; i < 5; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_use(d, chunks.ends, ITERA_GPU_READ);
    parts_operands(l, d, op, s, parts);
    ITERA_GPU_ARGS(d, itera_scan_bwd_parallel_args, .batch = s->batch, ITERA_SCAN_SIZES(s),
                   .has_start = chunked, .dd_ld = dd_ld(l, op, s));
    itera_gpu_groups(l, d, s->batch * s->chunks * s->tiles, 1, 1);
}

enum itera_status itera_lower_itera_scan_bwd(struct itera_gpu_lowering *l,
                                             const struct itera_op *op)
{
    struct itera_gpu_scan s = scan_of(l, op, op->in[3]);
    const int64_t rows = s.batch * s.time;
    struct parts parts = {.dA = itera_gpu_scratch(l, s.batch * s.chunks * s.cols)};
    if (s.tiles > 1)
        parts.dd = itera_gpu_scratch(l, s.tiles * rows);
    if (s.variant == ITERA_SCAN_SEQUENTIAL)
        bwd_sequential(l, op, &s, &parts);
    else
        bwd_parallel(l, op, &s, &parts);
    if (s.tiles > 1)
        itera_gpu_scan_sum(l, parts.dd, s.tiles, itera_gpu_all_rows(rows), 1, op->out[0]);
    itera_gpu_scan_sum(l, parts.dA, s.batch * s.chunks, itera_gpu_all_rows(1), s.cols, op->out[1]);
    return ITERA_OK;
}
