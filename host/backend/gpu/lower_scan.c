#include "backend/gpu/lower_scan.h"

#include "args/scan.clh"
#include "backend/gpu/choice.h"

enum {
    LANES = ITERA_GPU_LOCAL,
    MAX_WIDTH = 32,       /* neighbouring columns: full cache lines, and time lanes enough */
    MANY_LANES = 16384,   /* independent columns that fill a GPU by themselves */
    MANY_GROUPS = 512,    /* workgroups that fill one */
    LEAST_CHUNK = 64,     /* steps that are worth a workgroup */
    FEW_STEPS = 16,       /* as many steps one after the other cost less than a scan in lanes */
    LONG_SEQUENCE = 1024, /* from here on chunks pay for their two further passes */
};

enum itera_scan_variant itera_gpu_scan_variant(struct itera_gpu_lowering *l,
                                               const struct itera_op *op,
                                               enum itera_scan_variant fallback, int64_t batch,
                                               int64_t time, int64_t cols)
{
    static const char *const names[] = {"sequential", "parallel", "chunked"};
    if (op->attr.variant != ITERA_SCAN_AUTO)
        return op->attr.variant;
    return ITERA_SCAN_SEQUENTIAL + itera_gpu_choice(l, names, 3, fallback - ITERA_SCAN_SEQUENTIAL,
                                                    "B%lld T%lld C%lld", itera_gpu_class(batch),
                                                    itera_gpu_class(time), itera_gpu_class(cols));
}

struct itera_gpu_scan itera_gpu_scan(struct itera_gpu_lowering *l, const struct itera_op *op,
                                     int64_t batch, int64_t time, int64_t cols)
{
    struct itera_gpu_scan s = {.batch = batch, .time = time, .cols = cols};
    s.width = itera_gpu_class(cols) < MAX_WIDTH ? itera_gpu_class(cols) : MAX_WIDTH;
    s.tiles = itera_gpu_div_up(cols, s.width);
    int64_t groups = batch * s.tiles;
    enum itera_scan_variant fallback = ITERA_SCAN_CHUNKED;
    if (time < FEW_STEPS || batch * cols >= MANY_LANES)
        fallback = ITERA_SCAN_SEQUENTIAL;
    else if (time < LONG_SEQUENCE || groups >= MANY_GROUPS)
        fallback = ITERA_SCAN_PARALLEL;
    s.variant = itera_gpu_scan_variant(l, op, fallback, batch, time, cols);
    s.chunk = time;
    s.chunks = 1;
    if (s.variant == ITERA_SCAN_CHUNKED && time > 0) {
        int64_t tile = LANES / s.width * SCAN_STEPS, wanted = groups ? MANY_GROUPS / groups + 1 : 1;
        s.chunk = itera_gpu_div_up(time, wanted);
        if (s.chunk < LEAST_CHUNK)
            s.chunk = LEAST_CHUNK;
        s.chunk = itera_gpu_div_up(s.chunk, tile) * tile;
        if (op->attr.chunk > 0)
            s.chunk = op->attr.chunk;
        if (s.chunk > time)
            s.chunk = time;
        s.chunks = itera_gpu_div_up(time, s.chunk);
    }
    return s;
}

struct itera_gpu_chunks itera_gpu_chunks(struct itera_gpu_lowering *l,
                                         const struct itera_gpu_scan *s)
{
    int64_t elements = s->batch * s->chunks * s->cols;
    struct itera_gpu_chunks c = {.decay = itera_gpu_scratch(l, elements)};
    c.ends = itera_gpu_scratch(l, elements);
    return c;
}

void itera_gpu_scan_starts(struct itera_gpu_lowering *l, const struct itera_gpu_scan *s,
                           struct itera_gpu_chunks chunks, int32_t state)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "scan_starts");
    itera_gpu_use(d, chunks.decay, ITERA_GPU_READ);
    itera_gpu_use(d, chunks.ends, ITERA_GPU_READ | ITERA_GPU_WRITE);
    itera_gpu_inout(l, d, state);
    ITERA_GPU_ARGS(d, scan_starts_args, .chunks = s->chunks, .cols = s->cols, .width = s->width,
                   .tiles = s->tiles,
                   .state_mode = state == ITERA_NONE ? SCAN_NO_STATE : SCAN_STATE);
    itera_gpu_groups(l, d, s->batch * s->tiles, 1, 1);
}

void itera_gpu_scan_state(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                          const struct itera_gpu_scan *s, struct itera_gpu_chunks chunks,
                          int32_t state)
{
    if (s->variant == ITERA_SCAN_CHUNKED)
        itera_gpu_use(d, chunks.ends, ITERA_GPU_READ);
    else
        itera_gpu_inout(l, d, state);
}

int itera_gpu_scan_state_mode(const struct itera_gpu_scan *s, int32_t state)
{
    if (s->variant == ITERA_SCAN_CHUNKED)
        return SCAN_STARTS;
    return state == ITERA_NONE ? SCAN_NO_STATE : SCAN_STATE;
}

int64_t itera_gpu_scan_state_ld(const struct itera_gpu_lowering *l, const struct itera_gpu_scan *s,
                                int32_t state)
{
    if (s->variant == ITERA_SCAN_CHUNKED)
        return s->cols;
    return state == ITERA_NONE ? 0 : itera_gpu_tensor(l, state)->shape.ld;
}

void itera_gpu_scan_sum(struct itera_gpu_lowering *l, struct itera_gpu_scratch parts, int64_t count,
                        struct itera_gpu_rows rows, int64_t cols, int32_t y)
{
    int64_t elements = rows.sequences * rows.span * cols;
    int64_t width = itera_gpu_class(elements) < LANES ? itera_gpu_class(elements) : LANES;
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "scan_sum");
    itera_gpu_use(d, parts, ITERA_GPU_READ);
    itera_gpu_out(l, d, y);
    ITERA_GPU_ARGS(d, scan_sum_args, .count = count, .rows = rows.sequences * rows.span,
                   .cols = cols, .span = rows.span, .stride = rows.stride, .first = rows.first,
                   .width = width);
    itera_gpu_groups(l, d, itera_gpu_div_up(elements, width), 1, 1);
}
