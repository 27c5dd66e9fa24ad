/* Lowering of ssd_scan_bwd (contract: host/ops/scan.c; kernels: scan_ssd_bwd.cl). */
#include "args/scan.clh"
#include "args/scan_ssd.clh"
#include "backend/gpu/lower_scan_ssd.h"

enum {
    MANY_GROUPS = 256,     /* workgroups that fill a GPU */
    PART_BYTES = 64 << 20, /* of dB and dC each, in the sequential variant */
};

enum { DY, X, DT, A, B, C, D, BOUNDARIES }; /* inputs */
enum { DX, DDT, DA, DB, DC, DD };           /* outputs */

/* The state before every chunk: the op's boundaries, when the kernels' chunks are the op's, or else
 * computed again. */
struct starts {
    int32_t boundaries;
    struct itera_gpu_scratch scratch;
    int64_t ld;
};

static struct starts starts_of(struct itera_gpu_lowering *l, const struct itera_op *op,
                               const struct itera_ssd *s)
{
    if (s->parts == 1)
        return (struct starts){.boundaries = op->in[BOUNDARIES],
                               .ld = itera_gpu_tensor(l, op->in[BOUNDARIES])->shape.ld};
    return (struct starts){.boundaries = ITERA_NONE,
                           .scratch =
                               itera_ssd_starts(l, s, &op->in[X], ITERA_NONE, ITERA_NONE, false),
                           .ld = s->states};
}

static void use_starts(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                       const struct starts *starts)
{
    if (starts->boundaries != ITERA_NONE)
        itera_gpu_in(l, d, starts->boundaries);
    else
        itera_gpu_use(d, starts->scratch, ITERA_GPU_READ);
}

/* Sums for dA and dD, (count, heads). */
struct head_parts {
    struct itera_gpu_scratch dA, dD;
    int64_t count;
};

static struct head_parts head_parts(struct itera_gpu_lowering *l, const struct itera_ssd *s,
                                    int64_t count)
{
    struct head_parts parts = {.count = count};
    parts.dA = itera_gpu_scratch(l, count * s->heads);
    parts.dD = itera_gpu_scratch(l, count * s->heads);
    return parts;
}

static void sum_head_parts(struct itera_gpu_lowering *l, const struct itera_op *op,
                           const struct itera_ssd *s, const struct head_parts *parts)
{
    itera_gpu_scan_sum(l, parts->dA, parts->count, itera_gpu_all_rows(1), s->heads, op->out[DA]);
    if (op->out[DD] != ITERA_NONE)
        itera_gpu_scan_sum(l, parts->dD, parts->count, itera_gpu_all_rows(1), s->heads,
                           op->out[DD]);
}

/* D may be given where its gradient is not wanted. */
static bool has_skip(const struct itera_op *op)
{
    return op->in[D] != ITERA_NONE;
}

/* Heads of a group go to several workgroups, where groups are too few for the device. */
struct slices {
    int64_t count, heads;
};

static struct slices slices_of(const struct itera_ssd *s)
{
    int64_t groups = s->batch * s->chunks * s->groups * s->column_tiles;
    int64_t wanted = groups ? itera_gpu_div_up(MANY_GROUPS, groups) : 1;
    if (wanted > s->group_heads)
        wanted = s->group_heads;
    struct slices slices = {.heads = itera_gpu_div_up(s->group_heads, wanted)};
    slices.count = itera_gpu_div_up(s->group_heads, slices.heads);
    return slices;
}

struct chunked {
    struct itera_ssd s;
    struct slices slices;
    struct starts starts;
    struct itera_gpu_scratch scores, later, products, inner;
};

static void chunk_scores(struct itera_gpu_lowering *l, const struct itera_op *op,
                         const struct chunked *c)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "ssd_scan_bwd_scores");
    for (int i = DY; i <= A; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_use(d, c->scores, ITERA_GPU_READ);
    itera_gpu_use(d, c->products, ITERA_GPU_WRITE);
    itera_gpu_use(d, c->inner, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, ssd_scan_bwd_scores_args, .groups = c->s.groups, .slices = c->slices.count,
                   .slice_heads = c->slices.heads, ITERA_SSD_SIZES(&c->s));
    itera_gpu_groups(l, d, c->s.batch * c->s.chunks * c->s.groups * c->slices.count, 1, 1);
}

static void chunk_x(struct itera_gpu_lowering *l, const struct itera_op *op,
                    const struct chunked *c, const struct head_parts *parts)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "ssd_scan_bwd_x");
    for (int i = DY; i <= D; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_use(d, c->scores, ITERA_GPU_READ);
    itera_gpu_use(d, c->inner, ITERA_GPU_READ);
    use_starts(l, d, &c->starts);
    itera_gpu_use(d, c->later, ITERA_GPU_READ);
    itera_gpu_out(l, d, op->out[DX]);
    itera_gpu_out(l, d, op->out[DDT]);
    itera_gpu_use(d, parts->dA, ITERA_GPU_WRITE);
    itera_gpu_use(d, parts->dD, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, ssd_scan_bwd_x_args, .has_skip = has_skip(op), .start_ld = c->starts.ld,
                   ITERA_SSD_SIZES(&c->s));
    itera_gpu_groups(l, d, c->s.batch * c->s.chunks * c->s.heads, 1, 1);
}

/* dC, or dB. */
static void chunk_bc(struct itera_gpu_lowering *l, const struct itera_op *op,
                     const struct chunked *c, bool is_b)
{
    const struct itera_ssd *s = &c->s;
    const int64_t rows = s->batch * s->time, cols = s->groups * s->states;
    const int32_t out = op->out[is_b ? DB : DC];
    struct itera_gpu_scratch parts = {0};
    if (c->slices.count > 1)
        parts = itera_gpu_scratch(l, c->slices.count * rows * cols);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "ssd_scan_bwd_bc");
    itera_gpu_in(l, d, op->in[is_b ? X : DY]);
    itera_gpu_in(l, d, op->in[DT]);
    itera_gpu_in(l, d, op->in[A]);
    itera_gpu_in(l, d, op->in[is_b ? C : B]);
    itera_gpu_use(d, c->products, ITERA_GPU_READ);
    if (is_b)
        itera_gpu_use(d, c->later, ITERA_GPU_READ);
    else
        use_starts(l, d, &c->starts);
    if (c->slices.count > 1)
        itera_gpu_use(d, parts, ITERA_GPU_WRITE);
    else
        itera_gpu_out(l, d, out);
    ITERA_GPU_ARGS(d, ssd_scan_bwd_bc_args, .batch = s->batch, .slices = c->slices.count,
                   .slice_heads = c->slices.heads, .column_tiles = s->column_tiles,
                   .state_row_ld = is_b ? s->states : c->starts.ld,
                   .grad_row_ld = c->slices.count > 1 ? cols : itera_gpu_tensor(l, out)->shape.ld,
                   .is_b = is_b, ITERA_SSD_SIZES(s));
    itera_gpu_groups(l, d, s->batch * s->chunks * s->groups * c->slices.count * s->column_tiles, 1,
                     1);
    if (c->slices.count > 1)
        itera_gpu_scan_sum(l, parts, c->slices.count, itera_gpu_all_rows(rows), cols, out);
}

static void chunked(struct itera_gpu_lowering *l, const struct itera_op *op,
                    const struct itera_ssd *s)
{
    const int32_t backward[4] = {op->in[DY], op->in[DT], op->in[A], op->in[C]};
    const int64_t square = s->chunk_steps * s->chunk_steps, pieces = s->batch * s->chunks;
    struct chunked c = {.s = *s, .slices = slices_of(s)};
    c.starts = starts_of(l, op, s);
    c.later = itera_ssd_starts(l, s, backward, ITERA_NONE, ITERA_NONE, true);
    c.scores = itera_ssd_scores(l, s, op->in[B], op->in[C]);
    c.products = itera_gpu_scratch(l, pieces * s->groups * c.slices.count * square);
    c.inner = itera_gpu_scratch(l, pieces * s->heads * s->chunk_steps);
    struct head_parts parts = head_parts(l, s, pieces);
    chunk_scores(l, op, &c);
    chunk_x(l, op, &c, &parts);
    chunk_bc(l, op, &c, false);
    chunk_bc(l, op, &c, true);
    sum_head_parts(l, op, s, &parts);
}

static void parallel(struct itera_gpu_lowering *l, const struct itera_op *op,
                     const struct itera_ssd *s)
{
    const int64_t rows = s->batch * s->time, cols = s->groups * s->states;
    const int64_t channels = s->batch * s->heads * s->width;
    struct starts starts = starts_of(l, op, s);
    struct itera_gpu_scratch flow = itera_gpu_scratch(l, channels * s->states);
    struct itera_gpu_scratch gathered = itera_gpu_scratch(l, channels * SSD_STEPS);
    struct itera_gpu_scratch dB = itera_gpu_scratch(l, s->group_heads * rows * cols);
    struct itera_gpu_scratch dC = itera_gpu_scratch(l, s->group_heads * rows * cols);
    struct head_parts parts = head_parts(l, s, s->batch);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "ssd_scan_bwd_parallel");
    itera_gpu_local(d, SSD_STEPS, 1, 1);
    for (int i = DY; i <= D; i++)
        itera_gpu_in(l, d, op->in[i]);
    use_starts(l, d, &starts);
    itera_gpu_use(d, flow, ITERA_GPU_READ | ITERA_GPU_WRITE);
    itera_gpu_use(d, gathered, ITERA_GPU_READ | ITERA_GPU_WRITE);
    itera_gpu_out(l, d, op->out[DX]);
    itera_gpu_out(l, d, op->out[DDT]);
    itera_gpu_use(d, parts.dA, ITERA_GPU_WRITE);
    itera_gpu_use(d, dB, ITERA_GPU_WRITE);
    itera_gpu_use(d, dC, ITERA_GPU_WRITE);
    itera_gpu_use(d, parts.dD, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, ssd_scan_bwd_parallel_args, .has_skip = has_skip(op), .batch = s->batch,
                   .start_ld = starts.ld, ITERA_SSD_SIZES(s));
    itera_gpu_groups(l, d, s->batch * s->heads, 1, 1);
    itera_gpu_scan_sum(l, dB, s->group_heads, itera_gpu_all_rows(rows), cols, op->out[DB]);
    itera_gpu_scan_sum(l, dC, s->group_heads, itera_gpu_all_rows(rows), cols, op->out[DC]);
    sum_head_parts(l, op, s, &parts);
}

/* The sequential gradient runs in segments of whole chunks, the last first, so that the parts of dB
 * and dC, of which there is one for every few rows of the state, stay within PART_BYTES. */
struct sequential {
    struct itera_ssd s;
    int64_t tiles; /* workgroups of a head */
    int64_t segment_chunks, segments;
    struct itera_gpu_scratch kept, flow, ddt, dB, dC;
    struct head_parts parts;
};

static void segment(struct itera_gpu_lowering *l, const struct itera_op *op,
                    const struct sequential *q, int64_t index)
{
    const struct itera_ssd *s = &q->s;
    const int64_t first = index * q->segment_chunks, count = s->group_heads * q->tiles;
    int64_t end = first + q->segment_chunks, end_step;
    if (end > s->boundary_chunks)
        end = s->boundary_chunks;
    end_step = end * s->boundary_steps < s->time ? end * s->boundary_steps : s->time;
    struct itera_gpu_rows rows = {s->batch, end_step - first * s->boundary_steps, s->time,
                                  first * s->boundary_steps};
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "ssd_scan_bwd_sequential");
    for (int i = DY; i <= BOUNDARIES; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_use(d, q->kept, ITERA_GPU_READ | ITERA_GPU_WRITE);
    itera_gpu_use(d, q->flow, ITERA_GPU_READ | ITERA_GPU_WRITE);
    itera_gpu_out(l, d, op->out[DX]);
    itera_gpu_use(d, q->ddt, ITERA_GPU_WRITE);
    itera_gpu_use(d, q->parts.dA, ITERA_GPU_WRITE);
    itera_gpu_use(d, q->dB, ITERA_GPU_WRITE);
    itera_gpu_use(d, q->dC, ITERA_GPU_WRITE);
    itera_gpu_use(d, q->parts.dD, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, ssd_scan_bwd_sequential_args, .has_skip = has_skip(op), .batch = s->batch,
                   .time = s->time, .heads = s->heads, .width = s->width, .states = s->states,
                   .group_heads = s->group_heads, .chunk = s->boundary_steps,
                   .chunks = s->boundary_chunks, .lanes = s->lanes, .tiles = q->tiles,
                   .first_chunk = first, .end_chunk = end, .span = rows.span,
                   .part = index * s->batch * q->tiles);
    ITERA_GPU_CONSTANT(d, STATE_SLICES, s->slices);
    itera_gpu_groups(l, d, s->batch * s->heads * q->tiles, 1, 1);
    itera_gpu_scan_sum(l, q->dB, count, rows, s->groups * s->states, op->out[DB]);
    itera_gpu_scan_sum(l, q->dC, count, rows, s->groups * s->states, op->out[DC]);
}

static void sequential(struct itera_gpu_lowering *l, const struct itera_op *op,
                       const struct itera_ssd *s)
{
    const int64_t channels = s->batch * s->heads * s->width;
    struct sequential q = {.s = *s, .segments = 1};
    q.tiles = itera_gpu_div_up(s->width, ITERA_GPU_LOCAL / s->lanes);
    int64_t chunk_parts =
        s->boundary_steps * s->batch * s->heads * q.tiles * s->states; /* of dB and of dC */
    q.segment_chunks = chunk_parts ? PART_BYTES / (4 * chunk_parts) : 1;
    if (q.segment_chunks < 1)
        q.segment_chunks = 1;
    if (q.segment_chunks > s->boundary_chunks)
        q.segment_chunks = s->boundary_chunks ? s->boundary_chunks : 1;
    q.segments = itera_gpu_div_up(s->boundary_chunks, q.segment_chunks);
    q.kept = itera_gpu_scratch(l, itera_gpu_div_up(s->boundary_steps, SCAN_STEPS) * channels *
                                      s->states);
    q.flow = itera_gpu_scratch(l, channels * s->states);
    q.ddt = itera_gpu_scratch(l, q.tiles * s->batch * s->time * s->heads);
    q.dB = itera_gpu_scratch(l, q.segment_chunks * chunk_parts);
    q.dC = itera_gpu_scratch(l, q.segment_chunks * chunk_parts);
    q.parts = head_parts(l, s, q.segments * s->batch * q.tiles);
    for (int64_t i = q.segments; i-- > 0;)
        segment(l, op, &q, i);
    itera_gpu_scan_sum(l, q.ddt, q.tiles, itera_gpu_all_rows(s->batch * s->time), s->heads,
                       op->out[DDT]);
    sum_head_parts(l, op, s, &q.parts);
}

enum itera_status itera_lower_ssd_scan_bwd(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    struct itera_ssd s = itera_ssd(l, op, op->in[X], op->in[B], true);
    if (s.variant == ITERA_SCAN_SEQUENTIAL)
        sequential(l, op, &s);
    else if (s.variant == ITERA_SCAN_PARALLEL)
        parallel(l, op, &s);
    else
        chunked(l, op, &s);
    return ITERA_OK;
}
