/* Lowering of selective_scan and its gradient (contracts: host/ops/scan.c).
 *
 * sequential  a workgroup takes some channels of a sequence through all steps
 * parallel    lanes lie along time and compose their steps (an associative scan)
 * chunked     the steps are cut into spans that run at the same time, twice: first to see how each
 *             span ends when it starts from zeros, then from its true start */
#include "args/scan_selective.clh"
#include "backend/gpu/choice.h"
#include "backend/gpu/lower.h"
#include "ops/scan.h"

enum {
    LANES = ITERA_GPU_LOCAL,
    MIN_SPAN = 32,      /* steps: shorter ones are not worth their start state */
    FULL_DEVICE = 2048, /* workgroups that keep any device busy */
    SHARED_FLOATS = 4096,
    MAX_PIECE = 64, /* steps that a gradient goes back from a stored state, at most */
};

enum { SEQUENTIAL, PARALLEL, CHUNKED, VARIANTS };
static const char *const variant_names[VARIANTS] = {"sequential", "parallel", "chunked"};

struct scan_shape {
    int64_t batch, time, channels, states, chunk, chunks;
};

/* How the lanes of a workgroup divide channels and states: `split` lanes have a channel, with
 * `states` of its states each; `steps` go through shared memory together. */
struct division {
    int64_t split, states, steps, blocks;
};

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static struct scan_shape shape_of(const struct itera_gpu_lowering *l, const struct itera_op *op,
                                  int32_t x, int32_t A)
{
    const int64_t *dim = itera_gpu_tensor(l, x)->shape.dim;
    int64_t chunk = itera_scan_chunk(&op->attr), time = dim[1];
    return (struct scan_shape){
        .batch = dim[0],
        .time = time,
        .channels = dim[2],
        .states = itera_gpu_cols(l, A),
        .chunk = chunk < time ? chunk
                 : time > 0   ? time
                              : 1,
        .chunks = itera_scan_chunks(&op->attr, time),
    };
}

/* Lanes have several states each, so that their sums take few lanes; a single step has no sums to
 * speak of, and is done soonest by many lanes. */
static struct division divide(const struct scan_shape *s)
{
    int64_t slots = itera_gpu_class(s->states);
    struct division v = {.states = slots >= 64 ? 8 : min_i64(slots, 4), .steps = 16};
    if (s->time == 1) {
        v.states = slots > 32 ? slots / 32 : 1;
        v.steps = 1;
    }
    v.split = slots / v.states;
    while (v.steps * (2 * LANES / v.split + 2 * slots + LANES) > SHARED_FLOATS)
        v.steps /= 2;
    v.blocks = itera_gpu_div_up(s->channels, LANES / v.split);
    return v;
}

static void give_division(struct itera_gpu_dispatch *d, const struct division *v)
{
    ITERA_GPU_CONSTANT(d, SPLIT, v->split);
    ITERA_GPU_CONSTANT(d, STATES, v->states);
    ITERA_GPU_CONSTANT(d, STEPS, v->steps);
}

/* Spans of a chunked run: as long as the device stays full. */
static int64_t span_for(const struct scan_shape *s, int64_t blocks, int64_t unit)
{
    int64_t span = itera_gpu_div_up(MIN_SPAN, unit) * unit;
    while (s->batch * blocks * itera_gpu_div_up(s->time, span) > FULL_DEVICE && span < s->time)
        span *= 2;
    return span;
}

/* Where channels alone do not fill the device: lanes along time read operands and compute exponentials
 * once, chunks twice, but chunks fill a device of many units. `once`: of the forward scan alone, as the
 * gradient's lanes along time hold much more in registers. */
static int choose(struct itera_gpu_lowering *l, const struct itera_op *op,
                  const struct scan_shape *s, int64_t blocks, bool once)
{
    if (op->attr.variant != ITERA_SCAN_AUTO)
        return op->attr.variant - ITERA_SCAN_SEQUENTIAL;
    if (s->time <= MIN_SPAN)
        return SEQUENTIAL;
    int64_t units = l->traits->compute_units ? l->traits->compute_units : 32;
    int64_t groups = s->batch * itera_gpu_div_up(s->channels, PARALLEL_CHANNELS);
    int fallback = s->batch * blocks >= 4 * units ? SEQUENTIAL
                   : once && groups >= units      ? PARALLEL
                                                  : CHUNKED;
    return itera_gpu_choice(l, variant_names, VARIANTS, fallback, "rows=%lld time=%lld states=%lld",
                            itera_gpu_class(s->batch * s->channels), itera_gpu_class(s->time),
                            itera_gpu_class(s->states));
}

/* One run of the kernel selective_scan_sequential; absent operands are ITERA_NONE or no bytes. */
struct run {
    int32_t x, dt, A, B, C, D, z, state, start, y, boundaries;
    struct itera_gpu_scratch starts, ends, total, own_boundaries; /* instead of the tensors */
    int64_t span, spans, chunk, chunks;
    int has;
};

static void use_either(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d, int32_t tensor,
                       struct itera_gpu_scratch scratch, int access)
{
    if (scratch.bytes)
        itera_gpu_use(d, scratch, access);
    else if (access == ITERA_GPU_READ)
        itera_gpu_in(l, d, tensor);
    else
        itera_gpu_out(l, d, tensor);
}

static void run_sequential(struct itera_gpu_lowering *l, const struct scan_shape *s,
                           const struct run *r)
{
    struct division v = divide(s);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "selective_scan_sequential");
    const int32_t in[7] = {r->x, r->dt, r->A, r->B, r->C, r->D, r->z};
    for (int i = 0; i < 7; i++)
        itera_gpu_in(l, d, in[i]);
    itera_gpu_inout(l, d, r->state);
    use_either(l, d, r->start, r->starts, ITERA_GPU_READ);
    itera_gpu_out(l, d, r->y);
    use_either(l, d, r->boundaries, r->own_boundaries, ITERA_GPU_WRITE);
    itera_gpu_use(d, r->ends, ITERA_GPU_WRITE);
    itera_gpu_use(d, r->total, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, scan_args, .batch = s->batch, .time = s->time, .channels = s->channels,
                   .states = s->states, .span = r->span, .spans = r->spans, .chunk = r->chunk,
                   .chunks = r->chunks, .has = r->has);
    give_division(d, &v);
    itera_gpu_groups(l, d, s->batch * r->spans * v.blocks, 1, 1);
}

/* Makes start states, in place, of how spans end; `states` of them from `first` on. */
static void run_carry(struct itera_gpu_lowering *l, const struct scan_shape *s, int32_t A,
                      int32_t state, struct itera_gpu_scratch total, struct itera_gpu_scratch ends,
                      int64_t first, int64_t states, int64_t spans, bool backward)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "selective_scan_carry");
    itera_gpu_in(l, d, A);
    itera_gpu_in(l, d, state);
    itera_gpu_use(d, total, ITERA_GPU_READ);
    itera_gpu_use(d, ends, ITERA_GPU_READ | ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, carry_args, .batch = s->batch, .channels = s->channels, .states = states,
                   .first_state = first, .spans = spans, .backward = backward,
                   .has = state != ITERA_NONE ? HAS_STATE : 0);
    itera_gpu_groups(l, d, itera_gpu_div_up(s->batch * s->channels * states, LANES), 1, 1);
}

static void run_parallel(struct itera_gpu_lowering *l, const struct scan_shape *s,
                         const struct run *r)
{
    int64_t across = min_i64(itera_gpu_class(s->channels), PARALLEL_CHANNELS);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "selective_scan_parallel");
    const int32_t in[7] = {r->x, r->dt, r->A, r->B, r->C, r->D, r->z};
    for (int i = 0; i < 7; i++)
        itera_gpu_in(l, d, in[i]);
    itera_gpu_inout(l, d, r->state);
    itera_gpu_out(l, d, r->y);
    itera_gpu_out(l, d, r->boundaries);
    ITERA_GPU_ARGS(d, parallel_args, .batch = s->batch, .time = s->time, .channels = s->channels,
                   .states = s->states, .chunk = s->chunk, .chunks = s->chunks, .has = r->has);
    ITERA_GPU_CONSTANT(d, CHANNELS, across);
    itera_gpu_groups(l, d, s->batch * itera_gpu_div_up(s->channels, across), 1, 1);
}

/* Scratch: a state and a sum of dt for each span and channel. */
static void run_chunked(struct itera_gpu_lowering *l, const struct scan_shape *s, struct run r)
{
    struct division v = divide(s);
    struct run probe = {.x = r.x,
                        .dt = r.dt,
                        .A = r.A,
                        .B = r.B,
                        .C = r.C,
                        .D = ITERA_NONE,
                        .z = ITERA_NONE,
                        .state = ITERA_NONE,
                        .start = ITERA_NONE,
                        .y = ITERA_NONE,
                        .boundaries = ITERA_NONE,
                        .chunk = r.chunk,
                        .chunks = r.chunks,
                        .has = HAS_ENDS};

    r.span = probe.span = span_for(s, v.blocks, 1);
    r.spans = probe.spans = itera_gpu_div_up(s->time, r.span);
    if (r.spans > 1) {
        probe.ends = itera_gpu_scratch(l, s->batch * r.spans * s->channels * s->states);
        probe.total = itera_gpu_scratch(l, s->batch * r.spans * s->channels);
        run_sequential(l, s, &probe);
        run_carry(l, s, r.A, r.state, probe.total, probe.ends, 0, s->states, r.spans, false);
        r.starts = probe.ends;
        r.has |= HAS_START;
    }
    run_sequential(l, s, &r);
}

enum itera_status itera_lower_selective_scan(struct itera_gpu_lowering *l,
                                             const struct itera_op *op)
{
    const int32_t *in = op->in;
    struct scan_shape s = shape_of(l, op, in[0], in[2]);
    struct division v = divide(&s);
    struct run r = {
        .x = in[0],
        .dt = in[1],
        .A = in[2],
        .B = in[3],
        .C = in[4],
        .D = in[5],
        .z = in[6],
        .state = in[7],
        .start = ITERA_NONE,
        .y = op->out[0],
        .boundaries = op->out[1],
        .span = s.time,
        .spans = 1,
        .chunk = s.chunk,
        .chunks = s.chunks,
        .has = HAS_Y | (in[5] != ITERA_NONE ? HAS_D : 0) | (in[6] != ITERA_NONE ? HAS_Z : 0) |
               (in[7] != ITERA_NONE ? HAS_STATE : 0) |
               (op->out[1] != ITERA_NONE ? HAS_BOUNDARIES : 0),
    };

    switch (choose(l, op, &s, v.blocks, true)) {
    case PARALLEL:
        run_parallel(l, &s, &r);
        break;
    case CHUNKED:
        run_chunked(l, &s, r);
        break;
    default:
        run_sequential(l, &s, &r);
    }
    return ITERA_OK;
}

/* The gradient. Pieces begin at stored states; its sums over channels, and over batch and time, are
 * first left in scratch, one for each workgroup. */
struct gradient {
    const struct itera_op *op;
    struct scan_shape s;
    struct division v;
    int64_t span, spans, piece, chunk, chunks;
    struct itera_gpu_scratch boundaries; /* no bytes: the op's own are used */
    struct itera_gpu_scratch flows, total, kept, sum_a, sum_b, sum_c, sum_d;
    int has;
};

/* As divide(), within the shared memory that the gradient has; its states come in rounds. Four of them in
 * a lane are more than Intel's 128 registers of a thread hold. */
static struct division divide_gradient(const struct itera_gpu_lowering *l,
                                       const struct scan_shape *s)
{
    int64_t slots = itera_gpu_class(min_i64(s->states, ROUND));
    struct division v = {.states = min_i64(slots, l->traits->vendor == ITERA_GPU_INTEL ? 2 : 4)};
    v.split = slots / v.states;
    v.steps = v.split < 4 ? 4 : 8;
    v.blocks = itera_gpu_div_up(s->channels, LANES / v.split);
    return v;
}

/* Pieces of at most `limit` steps: several chunks, or, where the stored states are farther apart,
 * states of our own every `limit` steps, computed from the stored ones of all chunks at once. */
static void divide_time(struct itera_gpu_lowering *l, struct gradient *g, int64_t limit)
{
    const struct scan_shape *s = &g->s;
    const int32_t *in = g->op->in;

    g->chunk = s->chunk;
    g->chunks = s->chunks;
    if (s->chunk <= limit) {
        g->piece = limit / s->chunk * s->chunk;
        return;
    }
    g->piece = g->chunk = limit;
    g->chunks = itera_gpu_div_up(s->time, limit);
    g->boundaries = itera_gpu_scratch(l, s->batch * g->chunks * s->channels * s->states);
    struct run again = {.x = in[1],
                        .dt = in[2],
                        .A = in[3],
                        .B = in[4],
                        .C = in[5],
                        .D = ITERA_NONE,
                        .z = ITERA_NONE,
                        .state = ITERA_NONE,
                        .start = in[8],
                        .y = ITERA_NONE,
                        .boundaries = ITERA_NONE,
                        .own_boundaries = g->boundaries,
                        .span = s->chunk,
                        .spans = s->chunks,
                        .chunk = g->chunk,
                        .chunks = g->chunks,
                        .has = HAS_START | HAS_BOUNDARIES};
    run_sequential(l, s, &again);
}

/* What flows into each span from the later ones. */
static void run_flow(struct itera_gpu_lowering *l, const struct gradient *g, int64_t first,
                     int64_t states)
{
    const struct scan_shape *s = &g->s;
    const int32_t *in = g->op->in;
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "selective_scan_bwd_flow");
    itera_gpu_in(l, d, in[0]);
    itera_gpu_in(l, d, in[2]);
    itera_gpu_in(l, d, in[3]);
    itera_gpu_in(l, d, in[5]);
    itera_gpu_in(l, d, in[7]);
    itera_gpu_use(d, g->flows, ITERA_GPU_WRITE);
    itera_gpu_use(d, g->total, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, flow_args, .batch = s->batch, .time = s->time, .channels = s->channels,
                   .states = states, .first_state = first, .span = g->span, .spans = g->spans,
                   .has = g->has);
    give_division(d, &g->v);
    itera_gpu_groups(l, d, s->batch * g->spans * g->v.blocks, 1, 1);
    run_carry(l, s, in[3], ITERA_NONE, g->total, g->flows, first, states, g->spans, true);
}

/* The gradients, but for what is left to be summed. */
static void run_gradient(struct itera_gpu_lowering *l, const struct gradient *g, bool parallel,
                         int64_t first, int64_t states)
{
    const struct scan_shape *s = &g->s;
    const struct itera_op *op = g->op;
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, parallel ? "selective_scan_bwd_parallel"
                                                               : "selective_scan_bwd_sequential");
    for (int i = 0; i < 8; i++)
        itera_gpu_in(l, d, op->in[i]);
    use_either(l, d, op->in[8], g->boundaries, ITERA_GPU_READ);
    if (!parallel) {
        itera_gpu_use(d, g->flows, ITERA_GPU_READ);
        itera_gpu_use(d, g->kept, ITERA_GPU_READ | ITERA_GPU_WRITE);
    }
    itera_gpu_inout(l, d, op->out[0]);
    itera_gpu_inout(l, d, op->out[1]);
    itera_gpu_inout(l, d, op->out[6]);
    itera_gpu_use(d, g->sum_a, ITERA_GPU_WRITE);
    itera_gpu_use(d, g->sum_b, ITERA_GPU_WRITE);
    itera_gpu_use(d, g->sum_c, ITERA_GPU_WRITE);
    itera_gpu_use(d, g->sum_d, ITERA_GPU_WRITE);
    if (parallel) {
        ITERA_GPU_ARGS(d, bwd_parallel_args, .batch = s->batch, .time = s->time,
                       .channels = s->channels, .all_states = s->states, .first_state = first,
                       .states = states, .piece = g->piece, .chunk = g->chunk, .chunks = g->chunks,
                       .has = g->has);
        ITERA_GPU_CONSTANT(d, CHANNELS, LANES / g->v.split);
    } else {
        ITERA_GPU_ARGS(d, bwd_args, .batch = s->batch, .time = s->time, .channels = s->channels,
                       .all_states = s->states, .first_state = first, .states = states,
                       .span = g->span, .spans = g->spans, .piece = g->piece, .chunk = g->chunk,
                       .chunks = g->chunks, .tiles = itera_gpu_div_up(g->piece, g->v.steps),
                       .has = g->has);
        give_division(d, &g->v);
    }
    itera_gpu_groups(l, d, s->batch * g->spans * g->v.blocks, 1, 1);
}

/* out = the sums over `rows` of what run_gradient left; cols sums, `width` in a row of out, which
 * begin in column `first`. */
static void run_sum(struct itera_gpu_lowering *l, struct itera_gpu_scratch sums, int64_t rows,
                    int64_t cols, int32_t out, int64_t width, int64_t first)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "selective_scan_bwd_sum");
    itera_gpu_use(d, sums, ITERA_GPU_READ);
    itera_gpu_out(l, d, out);
    ITERA_GPU_ARGS(d, bwd_sum_args, .cols = cols, .rows = rows, .width = width, .first = first);
    itera_gpu_groups(l, d, itera_gpu_div_up(cols, SUM_COLS), 1, 1);
}

static void run_rounds(struct itera_gpu_lowering *l, struct gradient *g, bool parallel)
{
    const struct scan_shape *s = &g->s;
    const int32_t *out = g->op->out;
    int64_t rows = s->batch * s->time, spans = s->batch * g->spans;
    int64_t widest = min_i64(s->states, ROUND);

    if (g->spans > 1) {
        g->flows = itera_gpu_scratch(l, spans * s->channels * widest);
        g->total = itera_gpu_scratch(l, spans * s->channels);
        g->has |= HAS_FLOW;
    }
    if (!parallel)
        g->kept = itera_gpu_scratch(
            l, spans * g->v.blocks * itera_gpu_div_up(g->piece, g->v.steps) * g->v.states * LANES);
    g->sum_a = itera_gpu_scratch(l, spans * s->channels * widest);
    g->sum_b = itera_gpu_scratch(l, g->v.blocks * rows * widest);
    g->sum_c = itera_gpu_scratch(l, g->v.blocks * rows * widest);
    if (g->has & HAS_D)
        g->sum_d = itera_gpu_scratch(l, spans * s->channels);
    for (int64_t first = 0; first < s->states; first += ROUND) {
        int64_t states = min_i64(s->states - first, ROUND);
        if (g->spans > 1)
            run_flow(l, g, first, states);
        run_gradient(l, g, parallel, first, states);
        run_sum(l, g->sum_a, spans, s->channels * states, out[2], states, first);
        run_sum(l, g->sum_b, g->v.blocks, rows * states, out[3], states, first);
        run_sum(l, g->sum_c, g->v.blocks, rows * states, out[4], states, first);
    }
    if (out[5] != ITERA_NONE)
        run_sum(l, g->sum_d, spans, s->channels, out[5], s->channels, 0);
}

enum itera_status itera_lower_selective_scan_bwd(struct itera_gpu_lowering *l,
                                                 const struct itera_op *op)
{
    const int32_t *in = op->in;
    struct gradient g = {
        .op = op,
        .s = shape_of(l, op, in[1], in[3]),
        .spans = 1,
        .has = (in[6] != ITERA_NONE ? HAS_D : 0) | (in[7] != ITERA_NONE ? HAS_Z : 0) |
               (op->out[6] != ITERA_NONE ? HAS_DZ : 0),
    };
    g.v = divide_gradient(l, &g.s);
    g.span = g.s.time;
    int variant = choose(l, op, &g.s, g.v.blocks, false);

    if (variant == PARALLEL) {
        int64_t across = min_i64(itera_gpu_class(g.s.channels), PARALLEL_CHANNELS);
        g.v = (struct division){.split = LANES / across,
                                .blocks = itera_gpu_div_up(g.s.channels, across)};
        divide_time(l, &g, g.v.split * PARALLEL_ITEMS);
    } else {
        divide_time(l, &g, MAX_PIECE);
    }
    if (variant == CHUNKED) {
        g.span = span_for(&g.s, g.v.blocks, g.piece);
        g.spans = itera_gpu_div_up(g.s.time, g.span);
    }
    run_rounds(l, &g, variant == PARALLEL);
    return ITERA_OK;
}
