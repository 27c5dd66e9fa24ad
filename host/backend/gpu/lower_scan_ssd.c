/* Lowering of ssd_scan (contract: host/ops/scan.c; kernels: scan_ssd.cl). */
#include "backend/gpu/lower_scan_ssd.h"

#include "args/scan_ssd.clh"
#include "backend/gpu/choice.h"

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The cut of the op's chunks into those of the kernels, which are as long as a tile at most. */
static void cut(struct itera_ssd *s, const struct itera_op *op, bool bounded)
{
    int64_t time = s->time ? s->time : 1;
    s->boundary_steps = least(bounded ? itera_scan_chunk(&op->attr) : SSD_STEPS, time);
    s->boundary_chunks = itera_gpu_div_up(s->time, s->boundary_steps);
    s->parts = itera_gpu_div_up(s->boundary_steps, SSD_STEPS);
    s->chunk_steps = itera_gpu_div_up(s->boundary_steps, s->parts);
    s->chunks = s->time / s->boundary_steps * s->parts +
                itera_gpu_div_up(s->time % s->boundary_steps, s->chunk_steps);
}

struct itera_ssd itera_ssd(struct itera_gpu_lowering *l, const struct itera_op *op, int32_t x,
                           int32_t B, bool bounded)
{
    const int64_t *dim = itera_gpu_tensor(l, x)->shape.dim;
    struct itera_ssd s = {.batch = dim[0],
                          .time = dim[1],
                          .heads = op->attr.heads,
                          .width = dim[2] / op->attr.heads,
                          .states = itera_gpu_cols(l, B) / op->attr.groups,
                          .groups = op->attr.groups,
                          .group_heads = op->attr.heads / op->attr.groups};
    const bool few_steps = s.time < 16;
    s.variant =
        itera_gpu_scan_variant(l, op, few_steps ? ITERA_SCAN_SEQUENTIAL : ITERA_SCAN_CHUNKED,
                               s.batch, s.time, dim[2] * s.states);
    if (s.variant == ITERA_SCAN_PARALLEL && s.states > SSD_MAX_STATES)
        s.variant = ITERA_SCAN_CHUNKED;
    cut(&s, op, bounded);
    s.lanes = least(itera_gpu_class(s.states), SSD_MAX_ROW_LANES);
    s.slices = itera_gpu_class(itera_gpu_div_up(s.states, s.lanes));
    s.row_tiles = itera_gpu_div_up(s.width, SSD_STEPS);
    s.column_tiles = itera_gpu_div_up(s.states, SSD_STEPS);
    return s;
}

struct itera_gpu_scratch itera_ssd_scores(struct itera_gpu_lowering *l, const struct itera_ssd *s,
                                          int32_t B, int32_t C)
{
    int64_t pieces = s->batch * s->chunks * s->groups;
    struct itera_gpu_scratch scores =
        itera_gpu_scratch(l, pieces * s->chunk_steps * s->chunk_steps);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "ssd_scan_scores");
    itera_gpu_in(l, d, B);
    itera_gpu_in(l, d, C);
    itera_gpu_use(d, scores, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, ssd_scan_scores_args, .groups = s->groups, ITERA_SSD_SIZES(s));
    itera_gpu_groups(l, d, pieces, 1, 1);
    return scores;
}

/* The scan over chunks. */
static void starts_of_ends(struct itera_gpu_lowering *l, const struct itera_ssd *s,
                           struct itera_gpu_scratch decay, struct itera_gpu_scratch ends,
                           int32_t state, int32_t boundaries, bool backward)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "ssd_scan_starts");
    itera_gpu_use(d, decay, ITERA_GPU_READ);
    itera_gpu_use(d, ends, ITERA_GPU_READ | ITERA_GPU_WRITE);
    itera_gpu_inout(l, d, state);
    itera_gpu_out(l, d, boundaries);
    ITERA_GPU_ARGS(d, ssd_scan_starts_args, .batch = s->batch, .chunks = s->chunks,
                   .heads = s->heads, .width = s->width, .states = s->states, .parts = s->parts,
                   .boundary_chunks = s->boundary_chunks, .backward = backward,
                   .has_state = state != ITERA_NONE, .has_boundaries = boundaries != ITERA_NONE);
    itera_gpu_groups(
        l, d, itera_gpu_div_up(s->batch * s->heads * s->width * s->states, ITERA_GPU_LOCAL), 1, 1);
}

struct itera_gpu_scratch itera_ssd_starts(struct itera_gpu_lowering *l, const struct itera_ssd *s,
                                          const int32_t x_dt_a_b[4], int32_t state,
                                          int32_t boundaries, bool backward)
{
    int64_t pieces = s->batch * s->chunks * s->heads;
    struct itera_gpu_scratch decay = itera_gpu_scratch(l, pieces);
    struct itera_gpu_scratch ends = itera_gpu_scratch(l, pieces * s->width * s->states);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "ssd_scan_ends");
    for (int i = 0; i < 4; i++)
        itera_gpu_in(l, d, x_dt_a_b[i]);
    itera_gpu_use(d, decay, ITERA_GPU_WRITE);
    itera_gpu_use(d, ends, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, ssd_scan_ends_args, .row_tiles = s->row_tiles,
                   .column_tiles = s->column_tiles, .backward = backward, ITERA_SSD_SIZES(s));
    itera_gpu_groups(l, d, pieces * s->row_tiles * s->column_tiles, 1, 1);
    starts_of_ends(l, s, decay, ends, state, boundaries, backward);
    return ends;
}

/* The operands and words of the kernels that take the whole op. */
static struct itera_gpu_dispatch *begin_whole(struct itera_gpu_lowering *l,
                                              const struct itera_op *op, const char *kernel)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, kernel);
    for (int i = 0; i < 6; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_inout(l, d, op->in[6]);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_out(l, d, op->out[1]);
    return d;
}

#define WHOLE_WORDS(s, op)                                                                         \
    .has_skip = (op)->in[5] != ITERA_NONE, .has_state = (op)->in[6] != ITERA_NONE,                 \
    .has_boundaries = (op)->out[1] != ITERA_NONE, .batch = (s)->batch, .time = (s)->time,          \
    .heads = (s)->heads, .width = (s)->width, .states = (s)->states,                               \
    .group_heads = (s)->group_heads, .chunk = (s)->boundary_steps, .chunks = (s)->boundary_chunks

static void sequential(struct itera_gpu_lowering *l, const struct itera_op *op,
                       const struct itera_ssd *s)
{
    int64_t rows = s->batch * s->heads * s->width;
    struct itera_gpu_dispatch *d = begin_whole(l, op, "ssd_scan_sequential");
    ITERA_GPU_ARGS(d, ssd_scan_sequential_args, WHOLE_WORDS(s, op), .lanes = s->lanes);
    ITERA_GPU_CONSTANT(d, STATE_SLICES, s->slices);
    itera_gpu_groups(l, d, itera_gpu_div_up(rows, ITERA_GPU_LOCAL / s->lanes), 1, 1);
}

static void parallel(struct itera_gpu_lowering *l, const struct itera_op *op,
                     const struct itera_ssd *s)
{
    struct itera_gpu_dispatch *d = begin_whole(l, op, "ssd_scan_parallel");
    ITERA_GPU_ARGS(d, ssd_scan_parallel_args, WHOLE_WORDS(s, op));
    itera_gpu_groups(l, d, s->batch * s->heads * s->width, 1, 1);
}

static void chunked(struct itera_gpu_lowering *l, const struct itera_op *op,
                    const struct itera_ssd *s)
{
    struct itera_gpu_scratch scores = itera_ssd_scores(l, s, op->in[3], op->in[4]);
    struct itera_gpu_scratch starts = itera_ssd_starts(l, s, op->in, op->in[6], op->out[1], false);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "ssd_scan_outputs");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_in(l, d, op->in[2]);
    itera_gpu_in(l, d, op->in[4]);
    itera_gpu_in(l, d, op->in[5]);
    itera_gpu_use(d, scores, ITERA_GPU_READ);
    itera_gpu_use(d, starts, ITERA_GPU_READ);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, ssd_scan_outputs_args, .row_tiles = s->row_tiles,
                   .has_skip = op->in[5] != ITERA_NONE, ITERA_SSD_SIZES(s));
    itera_gpu_groups(l, d, s->batch * s->chunks * s->heads * s->row_tiles, 1, 1);
}

enum itera_status itera_lower_ssd_scan(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    struct itera_ssd s = itera_ssd(l, op, op->in[0], op->in[3], op->out[1] != ITERA_NONE);
    if (s.variant == ITERA_SCAN_SEQUENTIAL)
        sequential(l, op, &s);
    else if (s.variant == ITERA_SCAN_PARALLEL)
        parallel(l, op, &s);
    else
        chunked(l, op, &s);
    return ITERA_OK;
}
