/* Lowering of rope, attention and its gradient (contracts: host/ops/attention.c). */
#include <math.h>

#include "args/attention.clh"
#include "args/rope.clh"
#include "backend/gpu/choice.h"
#include "backend/gpu/lower.h"
#include "core/log.h"

/* Heads that an invocation of rope takes: its angle costs as much as rotating that many pairs. */
enum { ROPE_HEADS = 8 };

enum itera_status itera_lower_rope(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[0]), heads = op->attr.heads;
    int64_t half_width = itera_gpu_cols(l, op->in[0]) / heads / 2;
    int64_t blocks = itera_gpu_div_up(heads, ROPE_HEADS);
    double theta = op->attr.scale != 0 ? op->attr.scale : 10000.0;
    if (!(theta >= 1.0 && theta < 1e38))
        return itera_refuse(&l->why, "rope: theta is %g; the GPU kernel takes 1 to 1e38", theta);
    if (rows == 0 || half_width == 0)
        return ITERA_OK;
    /* From one pair to the next, angles fall by this power of 1/2. */
    uint64_t step = (uint64_t)(log2(theta) / (double)half_width * 0x1p56 + 0.5);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "rope");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, rope_args, .rows = rows, .time = itera_gpu_dim(l, op->in[0], 1),
                   .heads = heads, .half_width = half_width, .take = ROPE_HEADS, .blocks = blocks,
                   .started = op->in[1] != ITERA_NONE, .inverse = op->attr.inverse,
                   .step_low = (uint32_t)step, .step_high = (uint32_t)(step >> 32));
    itera_gpu_groups(l, d, itera_gpu_div_up(rows * blocks * half_width, ITERA_GPU_LOCAL), 1, 1);
    return ITERA_OK;
}

/* The sizes of an attention. */
struct sizes {
    int64_t batch, time, heads, kv_heads, share, d;
    int64_t width, windows; /* of the columns that a workgroup takes */
    float scale;
};

static struct sizes sizes_of(const struct itera_gpu_lowering *l, const struct itera_op *op,
                             int32_t q)
{
    struct sizes s = {.batch = itera_gpu_dim(l, q, 0), .time = itera_gpu_dim(l, q, 1)};
    s.heads = op->attr.heads;
    s.kv_heads = op->attr.kv_heads ? op->attr.kv_heads : s.heads;
    s.share = s.heads / s.kv_heads;
    s.d = itera_gpu_cols(l, q) / s.heads;
    s.scale = op->attr.scale != 0 ? op->attr.scale : (float)(1.0 / sqrt((double)s.d));
    s.width = itera_gpu_div_up(s.d, CHUNK) * CHUNK;
    if (s.width > MAX_WIDTH)
        s.width = MAX_WIDTH;
    s.windows = itera_gpu_div_up(s.d, s.width);
    return s;
}

#define SIZE_WORDS(s)                                                                              \
    .pairs = (s)->batch * (s)->kv_heads, .kv_heads = (s)->kv_heads, .share = (s)->share,           \
    .d = (s)->d, .time = (s)->time

static void tile_constants(struct itera_gpu_dispatch *d, const struct sizes *s, int64_t rows)
{
    ITERA_GPU_CONSTANT(d, ROWS, rows);
    ITERA_GPU_CONSTANT(d, WIDTH, s->width);
}

static void store_keys(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->in[1]), cols = itera_gpu_cols(l, op->in[1]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "attention_store");
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_in(l, d, op->in[2]);
    itera_gpu_in(l, d, op->in[5]);
    itera_gpu_out(l, d, op->in[3]);
    itera_gpu_out(l, d, op->in[4]);
    ITERA_GPU_ARGS(d, attention_store_args, .rows = rows, .cols = cols,
                   .time = itera_gpu_dim(l, op->in[1], 1),
                   .positions = itera_gpu_dim(l, op->in[3], 1));
    itera_gpu_groups(l, d, itera_gpu_div_up(rows * cols, ITERA_GPU_LOCAL), 1, 1);
}

/* Keys that a workgroup goes through: all, or where that leaves the device idle, a range. */
static int64_t keys_of_range(const struct itera_gpu_lowering *l, int64_t groups, int64_t keys)
{
    int64_t units = l->traits->compute_units ? l->traits->compute_units : 16;
    int64_t wanted = 4 * units < 64 ? 64 : 4 * units, least = 4 * KEYS;
    int64_t splits = groups < wanted ? wanted / groups : 1;
    int64_t range = itera_gpu_div_up(itera_gpu_div_up(keys, splits), KEYS) * KEYS;
    return range < least ? least : range;
}

/* How the rows of a sequence and key head are taken: in tiles, or all at once when they are few. */
struct way {
    const char *kernel;
    int64_t tile_rows;
};

static struct way choose_way(struct itera_gpu_lowering *l, int64_t rows, int64_t keys, int64_t d)
{
    static const char *const names[] = {"rows", "tile16", "tile64"};
    int64_t few = 1;
    while (few < rows)
        few *= 2;
    int best = rows <= MAX_FEW_ROWS ? 0 : rows <= 32 ? 1 : 2;
    int choice = itera_gpu_choice(l, names, 3, best, "rows=%lld keys=%lld d=%lld",
                                  itera_gpu_class(rows), itera_gpu_class(keys), (long long)d);
    if (choice == 0)
        return (struct way){few <= MAX_FEW_ROWS ? "attention_rows" : NULL, few};
    return (struct way){"attention", choice == 1 ? 16 : MAX_TILE_ROWS};
}

enum itera_status itera_lower_attention(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    struct sizes s = sizes_of(l, op, op->in[0]);
    bool cached = op->in[3] != ITERA_NONE, wants_lse = op->out[1] != ITERA_NONE;
    int32_t k = cached ? op->in[3] : op->in[1], v = cached ? op->in[4] : op->in[2];
    int64_t keys = itera_gpu_dim(l, k, 1), rows = s.time * s.share;
    struct way way = choose_way(l, rows, keys, s.d);
    if (!way.kernel)
        return itera_refuse(&l->why, "attention: %lld rows; attention_rows takes %d",
                            (long long)rows, MAX_FEW_ROWS);
    int64_t tiles = itera_gpu_div_up(rows, way.tile_rows);
    int64_t groups = tiles * s.windows * s.batch * s.kv_heads;
    if (groups == 0 || keys == 0)
        return ITERA_OK;
    if (cached)
        store_keys(l, op);
    int64_t range = keys_of_range(l, groups, keys);
    if (way.tile_rows <= MAX_FEW_ROWS && range > RANGE)
        range = RANGE;
    int64_t splits = itera_gpu_div_up(keys, range);
    struct itera_gpu_scratch parts = {0};
    if (splits > 1)
        parts = itera_gpu_scratch(l, s.batch * s.kv_heads * rows * splits * (s.d + 2));

    struct itera_gpu_dispatch *d = itera_gpu_begin(l, way.kernel);
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, k);
    itera_gpu_in(l, d, v);
    itera_gpu_in(l, d, op->in[5]);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_out(l, d, op->out[1]);
    itera_gpu_use(d, parts, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, attention_args, SIZE_WORDS(&s), .keys = keys, .tiles = tiles,
                   .windows = s.windows, .split = range, .splits = splits, .started = cached,
                   .wants_lse = wants_lse, .scale = s.scale);
    tile_constants(d, &s, way.tile_rows);
    itera_gpu_groups(l, d, groups * splits, 1, 1);
    if (splits == 1)
        return ITERA_OK;

    d = itera_gpu_begin(l, "attention_merge");
    itera_gpu_use(d, parts, ITERA_GPU_READ);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_out(l, d, op->out[1]);
    ITERA_GPU_ARGS(d, attention_merge_args, SIZE_WORDS(&s), .splits = splits,
                   .wants_lse = wants_lse);
    itera_gpu_groups(l, d, itera_gpu_div_up(s.batch * s.kv_heads * rows * s.d, ITERA_GPU_LOCAL), 1,
                     1);
    return ITERA_OK;
}

/* The kernels for dq, and for dk and dv, take the same operands. */
static void backward(struct itera_gpu_lowering *l, const struct itera_op *op, const char *kernel,
                     const struct sizes *s, struct itera_gpu_scratch delta, int64_t tile_rows,
                     int64_t tiles)
{
    bool of_q = tile_rows > KEYS;
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, kernel);
    for (int i = 0; i < 4; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_in(l, d, op->in[5]);
    itera_gpu_use(d, delta, ITERA_GPU_READ);
    itera_gpu_out(l, d, of_q ? op->out[0] : ITERA_NONE);
    itera_gpu_out(l, d, of_q ? ITERA_NONE : op->out[1]);
    itera_gpu_out(l, d, of_q ? ITERA_NONE : op->out[2]);
    ITERA_GPU_ARGS(d, attention_bwd_args, SIZE_WORDS(s), .tiles = tiles, .windows = s->windows,
                   .scale = s->scale);
    tile_constants(d, s, tile_rows);
    itera_gpu_groups(l, d, tiles * s->windows * s->batch * s->kv_heads, 1, 1);
}

enum itera_status itera_lower_attention_bwd(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    enum { Q_ROWS = MAX_TILE_ROWS, KV_ROWS = 32 };
    struct sizes s = sizes_of(l, op, op->in[1]);
    int64_t rows = s.batch * s.time;
    struct itera_gpu_scratch delta = itera_gpu_scratch(l, rows * s.heads);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "attention_bwd_delta");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[4]);
    itera_gpu_use(d, delta, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, attention_bwd_delta_args, .rows = rows, .heads = s.heads, .d = s.d,
                   .time = s.time);
    tile_constants(d, &s, Q_ROWS);
    itera_gpu_groups(l, d, itera_gpu_div_up(rows * s.heads * TEAM, ITERA_GPU_LOCAL), 1, 1);

    backward(l, op, "attention_bwd_q", &s, delta, Q_ROWS,
             itera_gpu_div_up(s.time * s.share, Q_ROWS));
    backward(l, op, "attention_bwd_kv", &s, delta, KV_ROWS, itera_gpu_div_up(s.time, KEYS));
    return ITERA_OK;
}
