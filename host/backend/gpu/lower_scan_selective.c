/* Lowering of selective_scan and its gradient (contracts: host/ops/scan.c).
 *
 * sequential  a workgroup takes some channels of a sequence through all steps
 * parallel    lanes lie along time and compose their steps (an associative scan)
 * chunked     the steps are cut into spans that run at the same time, twice: first to see how each
 *             span ends when it starts from zeros, then from its true start */
#include "backend/gpu/gpu.h"
#include "ops/scan.h"

/* Bits of the kernels' word `has`. */
enum {
    HAS_D = 1,
    HAS_Z = 2,
    HAS_STATE = 4,
    HAS_START = 8,
    HAS_ENDS = 16,
    HAS_Y = 32,
    HAS_BOUNDARIES = 64,
};

enum {
    LANES = ITERA_GPU_LOCAL,
    MIN_SPAN = 32,      /* steps: shorter ones are not worth their start state */
    FULL_DEVICE = 2048, /* workgroups that keep any device busy */
    SHARED_FLOATS = 4096,
    PARALLEL_CHANNELS = 8, /* at most, of a workgroup: floats of what memory moves at once */
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
    itera_gpu_constant(d, 3, "SPLIT", v->split);
    itera_gpu_constant(d, 4, "STATES", v->states);
    itera_gpu_constant(d, 5, "STEPS", v->steps);
}

/* Spans of a chunked run: as long as the device stays full. */
static int64_t span_for(const struct scan_shape *s, int64_t blocks, int64_t unit)
{
    int64_t span = itera_gpu_div_up(MIN_SPAN, unit) * unit;
    while (s->batch * blocks * itera_gpu_div_up(s->time, span) > FULL_DEVICE && span < s->time)
        span *= 2;
    return span;
}

static int choose(struct itera_gpu_lowering *l, const struct itera_op *op,
                  const struct scan_shape *s, int64_t blocks)
{
    if (op->attr.variant != ITERA_SCAN_AUTO)
        return op->attr.variant - ITERA_SCAN_SEQUENTIAL;
    if (s->time <= MIN_SPAN)
        return SEQUENTIAL;
    int64_t units = l->traits->compute_units ? l->traits->compute_units : 32;
    int fallback = s->batch * blocks >= 4 * units ? SEQUENTIAL : CHUNKED;
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
    const int64_t words[] = {s->batch, s->time,  s->channels, s->states, r->span,
                             r->spans, r->chunk, r->chunks,   r->has};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        itera_gpu_word(d, words[i]);
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
    const int64_t words[] = {
        s->batch, s->channels, states, first, spans, backward, state != ITERA_NONE ? HAS_STATE : 0};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        itera_gpu_word(d, words[i]);
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
    const int64_t words[] = {s->batch, s->time,   s->channels, s->states,
                             s->chunk, s->chunks, r->has};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        itera_gpu_word(d, words[i]);
    itera_gpu_constant(d, 6, "CHANNELS", across);
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

    switch (choose(l, op, &s, v.blocks)) {
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
