/* ssd_scan; the contract is in host/ops/scan.c, the gradient in scan_ssd_bwd.c.
 *
 * Sequential: states along the vector, in memory order, one token after the other; for decoding
 * this reads and writes the state once, which is all there is to do.
 *
 * Chunked (Dao & Gu 2024, section 6): in a chunk of up to 64 steps, with cum[t] the sum of dt A
 * from the chunk's first step to t, and S its start state,
 *
 *   y[t]  = exp(cum[t]) C[t] S + sum_{s <= t} (C[t] . B[s]) exp(cum[t] - cum[s]) dt[s] x[s]
 *   S_end = exp(cum[last]) S + sum_s exp(cum[last] - cum[s]) dt[s] B[s] x[s]
 *
 * all as matrix products on packed panels in scratch. C B^T serves all heads of a group: the
 * chunks are the outer loop, and the states of all heads wait in scratch, transposed to [n][p].
 *
 * Parallel: each thread takes a block of time. It first finds its block's end state from zeros,
 * then the start states are combined in order, then the blocks run as above. */
#include "cpu_fallback/simd/scan_ssd.h"

struct ssd {
    const float *x, *dt, *A, *B, *C, *D;
    float *state, *y, *boundaries;
    int64_t ld_x, ld_dt, ld_b, ld_c, ld_state, ld_y, ld_boundaries;
    int64_t batch, time, heads, width, groups, states, chunk, chunks;
    int64_t padded;     /* states, to GEMM_ROWS */
    int64_t panels;     /* of GEMM_COLUMNS head channels */
    int64_t head_state; /* floats of one head's state in scratch: [panel][n][column] */
};

static struct ssd ssd_make(const struct itera_call *call)
{
    const struct itera_arg *in = call->in, *out = call->out;
    struct ssd s = {
        .x = itera_f32(&in[0]),
        .dt = itera_f32(&in[1]),
        .A = itera_f32(&in[2]),
        .B = itera_f32(&in[3]),
        .C = itera_f32(&in[4]),
        .D = itera_f32(&in[5]),
        .state = itera_f32(&in[6]),
        .y = itera_f32(&out[0]),
        .boundaries = itera_f32(&out[1]),
        .ld_x = in[0].ld,
        .ld_dt = in[1].ld,
        .ld_b = in[3].ld,
        .ld_c = in[4].ld,
        .ld_state = in[6].ld,
        .ld_y = out[0].ld,
        .ld_boundaries = out[1].ld,
        .batch = in[0].dim[0],
        .time = in[0].dim[1],
        .heads = call->attr->heads,
        .width = in[0].cols / call->attr->heads,
        .groups = call->attr->groups,
        .states = in[3].cols / call->attr->groups,
        .chunk = itera_scan_chunk(call->attr),
        .chunks = itera_scan_chunks(call->attr, in[0].dim[1]),
    };

    s.padded = pad_to(s.states, GEMM_ROWS);
    s.panels = ceil_div(s.width, GEMM_COLUMNS);
    s.head_state = s.panels * s.padded * GEMM_COLUMNS;
    return s;
}

static int64_t ssd_group(const struct ssd *s, int64_t head)
{
    return head / (s->heads / s->groups);
}

/* One token of `count` (4 or 1) rows p of a head. y holds D x. */
ITERA_INLINE void ssd_rows(const struct ssd *s, int count, float decay, float step, const float *x,
                           const float *b, const float *c, float *h, int64_t ld_h, float *y)
{
    vf sum[4], in[4], e = vf_set(decay);

#pragma GCC unroll 4
    for (int j = 0; j < count; j++) {
        sum[j] = vf_zero();
        in[j] = vf_set(step * x[j]);
    }
    for (int64_t n = 0; n < s->states; n += VF_N) {
        int64_t lanes = s->states - n;
        vf bn = vf_load_part(b + n, lanes), cn = vf_load_part(c + n, lanes);
#pragma GCC unroll 4
        for (int j = 0; j < count; j++) {
            float *slot = h + j * ld_h + n;
            vf v = vf_fma(e, vf_load_part(slot, lanes), vf_mul(in[j], bn));
            vf_store_part(slot, v, lanes);
            sum[j] = vf_fma(cn, v, sum[j]);
        }
    }
    if (count == 4)
        vf_add_sums4(y, sum[0], sum[1], sum[2], sum[3]);
    else
        y[0] += vf_sum(sum[0]);
}

static void ssd_copy_rows(float *to, int64_t ld_to, const float *from, int64_t ld_from,
                          int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c += VF_N)
            vf_store_part(to + r * ld_to + c, vf_load_part(from + r * ld_from + c, cols - c),
                          cols - c);
}

/* scratch: a state for each thread, used when none is carried. */
static void ssd_sequential(const struct ssd *s, float *scratch, struct itera_team *team)
{
    int64_t item, end;

    itera_team_range(team, s->batch * s->heads, 1, &item, &end);
    for (; item < end; item++) {
        int64_t i = item / s->heads, j = item % s->heads, from = ssd_group(s, j) * s->states;
        float *h = scratch + team->rank * s->width * s->states;
        int64_t ld_h = s->states;
        float skip = s->D ? s->D[j] : 0.0f;
        if (s->state) {
            h = s->state + item * s->width * s->ld_state;
            ld_h = s->ld_state;
        } else {
            for (int64_t n = 0; n < s->width * s->states; n++)
                h[n] = 0.0f;
        }
        for (int64_t t = 0; t < s->time; t++) {
            int64_t row = i * s->time + t, p = 0;
            const float *x = s->x + row * s->ld_x + j * s->width;
            const float *b = s->B + row * s->ld_b + from, *c = s->C + row * s->ld_c + from;
            float *y = s->y + row * s->ld_y + j * s->width;
            float step = s->dt[row * s->ld_dt + j], decay;
            float wide[VF_N];
            if (s->boundaries && t % s->chunk == 0) {
                int64_t to = ((i * s->chunks + t / s->chunk) * s->heads + j) * s->width;
                ssd_copy_rows(s->boundaries + to * s->ld_boundaries, s->ld_boundaries, h, ld_h,
                              s->width, s->states);
            }
            vf_store(wide, vf_exp2_decay(vf_set(step * s->A[j] * LOG2_E)));
            decay = wide[0];
            for (int64_t q = 0; q < s->width; q += VF_N)
                vf_store_part(y + q, vf_mul(vf_set(skip), vf_load_part(x + q, s->width - q)),
                              s->width - q);
            for (; p + 4 <= s->width; p += 4)
                ssd_rows(s, 4, decay, step, x + p, b, c, h + p * ld_h, ld_h, y + p);
            for (; p < s->width; p++)
                ssd_rows(s, 1, decay, step, x + p, b, c, h + p * ld_h, ld_h, y + p);
        }
    }
}

/* A head's state between memory, (P, N), and scratch. */
static void ssd_load_state(const struct ssd *s, int64_t item, float *h)
{
    for (int64_t n = 0; n < s->head_state; n += VF_N)
        vf_store(h + n, vf_zero());
    for (int64_t p = 0; s->state && p < s->width; p += GEMM_COLUMNS)
        small_transpose(h + p * s->padded, GEMM_COLUMNS,
                        s->state + (item * s->width + p) * s->ld_state, s->ld_state,
                        min_i64(GEMM_COLUMNS, s->width - p), s->states);
}

static void ssd_store_state(const struct ssd *s, const float *h, float *to, int64_t ld)
{
    for (int64_t p = 0; p < s->width; p += GEMM_COLUMNS)
        small_transpose(to + p * ld, ld, h + p * s->padded, GEMM_COLUMNS, s->states,
                        min_i64(GEMM_COLUMNS, s->width - p));
}

/* One thread's buffers for a chunk. */
struct ssd_work {
    float *c_tiles;  /* C: [tile of t][n][t in tile] */
    float *b_tiles;  /* B: [tile of n][s][n in tile] */
    float *b_panels; /* B transposed: [panel of s][n][s in panel] */
    float *cb;       /* C B^T: [t][s] */
    float *m;        /* cb with decay and dt: [t][s] */
    float *x, *xw;   /* x, and x weighted for the end state: [panel of p][s][p in panel] */
    float *carried;  /* one head's state */
};

static size_t ssd_work_floats(const struct ssd *s)
{
    return (size_t)(SSD_PADDED * s->padded * 3 + SSD_PADDED * SSD_PADDED * 2 +
                    s->panels * GEMM_COLUMNS * SSD_STEPS * 2 + s->head_state);
}

static struct ssd_work ssd_work_at(const struct ssd *s, float *base)
{
    struct ssd_work w;
    int64_t square = SSD_PADDED * SSD_PADDED, part = SSD_PADDED * s->padded;

    w.c_tiles = base;
    w.b_tiles = w.c_tiles + part;
    w.b_panels = w.b_tiles + part;
    w.cb = w.b_panels + part;
    w.m = w.cb + square;
    w.x = w.m + square;
    w.xw = w.x + s->panels * GEMM_COLUMNS * SSD_STEPS;
    w.carried = w.xw + s->panels * GEMM_COLUMNS * SSD_STEPS;
    return w;
}

/* What all heads of a group share, for `steps` steps from matrix row `row`. */
static void ssd_group_chunk(const struct ssd *s, const struct ssd_work *w, int64_t group,
                            int64_t row, int64_t steps, bool output)
{
    const float *b = s->B + row * s->ld_b + group * s->states;
    const float *c = s->C + row * s->ld_c + group * s->states;

    for (int64_t t = 0; t < steps; t++) {
        for (int64_t n0 = 0; n0 < s->padded; n0 += GEMM_ROWS)
            for (int64_t n = n0; n < n0 + GEMM_ROWS; n++)
                w->b_tiles[n0 * steps + t * GEMM_ROWS + n - n0] =
                    n < s->states ? b[t * s->ld_b + n] : 0.0f;
    }
    if (!output)
        return;
    for (int64_t t0 = 0; t0 < steps; t0 += GEMM_ROWS)
        for (int64_t n = 0; n < s->states; n++)
            for (int64_t t = t0; t < t0 + GEMM_ROWS; t++)
                w->c_tiles[t0 * s->padded + n * GEMM_ROWS + t - t0] =
                    t < steps ? c[t * s->ld_c + n] : 0.0f;
    for (int64_t t0 = 0; t0 < steps; t0 += GEMM_COLUMNS)
        for (int64_t t = t0; t < t0 + GEMM_COLUMNS; t++)
            for (int64_t n = 0; n < s->states; n++)
                w->b_panels[t0 * s->padded + n * GEMM_COLUMNS + t - t0] =
                    t < steps ? b[t * s->ld_b + n] : 0.0f;
    for (int64_t t0 = 0; t0 < steps; t0 += GEMM_ROWS) {
        for (int64_t s0 = 0; s0 < min_i64(t0 + GEMM_ROWS, steps); s0 += GEMM_COLUMNS) {
            struct gemm_tile tile;
            gemm_tile_zero(&tile);
            gemm_tile_add(&tile, s->states, w->c_tiles + t0 * s->padded, 1, GEMM_ROWS,
                          w->b_panels + s0 * s->padded, GEMM_COLUMNS);
            gemm_tile_store(&tile, w->cb + t0 * SSD_PADDED + s0, SSD_PADDED);
        }
    }
}

/* m[t][s] = cb[t][s] exp(cum[t] - cum[s]) dt[s] for s <= t, else 0, as far as the tile of t reads.
 */
static void ssd_decayed(const struct ssd_work *w, const struct ssd_decay *d, int64_t steps)
{
    for (int64_t t = 0; t < pad_to(steps, GEMM_ROWS); t++) {
        int64_t end = min_i64(t / GEMM_ROWS * GEMM_ROWS + GEMM_ROWS, steps);
        for (int64_t u = 0; u < end; u += VF_N) {
            vf value = vf_mul(ssd_decay_between(d, t, u), vf_load(d->dt + u));
            value = vf_mul(value, vf_load(w->cb + t * SSD_PADDED + u));
            value = vf_select(ssd_before(u, t + 1), value, vf_zero());
            vf_store(w->m + t * SSD_PADDED + u, value);
        }
    }
}

/* One head's chunk: y (with `output`), then the state h. `fresh`: h is all zeros. */
static void ssd_head_chunk(const struct ssd *s, const struct ssd_work *w, int64_t head, int64_t row,
                           int64_t steps, bool output, bool fresh, float *h, float *total)
{
    struct ssd_decay d;
    const float *x = s->x + row * s->ld_x + head * s->width;
    float *y = s->y + row * s->ld_y + head * s->width;
    vf skip = vf_set(s->D ? s->D[head] : 0.0f);

    ssd_decays(&d, s->dt + row * s->ld_dt + head, s->ld_dt, s->A[head], steps);
    *total = d.total;
    if (output)
        ssd_decayed(w, &d, steps);
    for (int64_t p0 = 0; p0 < s->width; p0 += GEMM_COLUMNS) {
        float *xp = w->x + p0 * SSD_STEPS, *xw = w->xw + p0 * SSD_STEPS, *hp = h + p0 * s->padded;
        int64_t lanes = s->width - p0, lanes1 = lanes > VF_N ? lanes - VF_N : 0;
        for (int64_t t = 0; t < steps; t++) {
            vf weight = vf_set(d.to_end[t]);
            vf x0 = vf_load_part(x + t * s->ld_x + p0, lanes);
            vf x1 = lanes1 ? vf_load_part(x + t * s->ld_x + p0 + VF_N, lanes1) : vf_zero();
            vf_store(xp + t * GEMM_COLUMNS, x0);
            vf_store(xp + t * GEMM_COLUMNS + VF_N, x1);
            vf_store(xw + t * GEMM_COLUMNS, vf_mul(weight, x0));
            vf_store(xw + t * GEMM_COLUMNS + VF_N, vf_mul(weight, x1));
        }
        for (int64_t t0 = 0; output && t0 < steps; t0 += GEMM_ROWS) {
            struct gemm_tile tile;
            gemm_tile_zero(&tile);
            if (!fresh) {
                gemm_tile_add(&tile, s->states, w->c_tiles + t0 * s->padded, 1, GEMM_ROWS, hp,
                              GEMM_COLUMNS);
#pragma GCC unroll 8
                for (int r = 0; r < GEMM_ROWS; r++) {
                    vf scale = vf_set(d.from_start[t0 + r]);
                    tile.sum[r][0] = vf_mul(scale, tile.sum[r][0]);
                    tile.sum[r][1] = vf_mul(scale, tile.sum[r][1]);
                }
            }
            gemm_tile_add(&tile, min_i64(t0 + GEMM_ROWS, steps), w->m + t0 * SSD_PADDED, SSD_PADDED,
                          1, xp, GEMM_COLUMNS);
#pragma GCC unroll 8
            for (int r = 0; r < GEMM_ROWS; r++) {
                const float *from = xp + (t0 + r) * GEMM_COLUMNS;
                float *to = y + (t0 + r) * s->ld_y + p0;
                if (t0 + r >= steps)
                    break;
                vf_store_part(to, vf_fma(skip, vf_load(from), tile.sum[r][0]), lanes);
                if (lanes1)
                    vf_store_part(to + VF_N, vf_fma(skip, vf_load(from + VF_N), tile.sum[r][1]),
                                  lanes1);
            }
        }
        for (int64_t n = 0; n < s->padded; n += GEMM_ROWS) {
            struct gemm_tile tile;
            if (fresh)
                gemm_tile_zero(&tile);
            else
                gemm_tile_load(&tile, hp + n * GEMM_COLUMNS, GEMM_COLUMNS, d.total);
            gemm_tile_add(&tile, steps, w->b_tiles + n * steps, 1, GEMM_ROWS, xw, GEMM_COLUMNS);
            gemm_tile_store(&tile, hp + n * GEMM_COLUMNS, GEMM_COLUMNS);
        }
    }
}

/* Steps [t0, t1) of heads [j0, j1) of sequence i. h: their states; decay: NULL, or multiplied by
 * each head's decay over the span. Starts that are known to be zeros skip their products. */
static void ssd_span(const struct ssd *s, const struct ssd_work *w, int64_t i, int64_t j0,
                     int64_t j1, int64_t t0, int64_t t1, bool output, bool fresh, float *h,
                     float *decay)
{
    int64_t per_group = s->heads / s->groups;

    while (t0 < t1) {
        int64_t end = min_i64(t1, t0 + SSD_STEPS);
        if (output && s->boundaries)
            end = min_i64(end, (t0 / s->chunk + 1) * s->chunk);
        for (int64_t j = j0; j < j1; j++) {
            float *head = h + (j - j0) * s->head_state, total;
            if (j == j0 || j % per_group == 0)
                ssd_group_chunk(s, w, j / per_group, i * s->time + t0, end - t0, output);
            if (output && s->boundaries && t0 % s->chunk == 0) {
                int64_t to = ((i * s->chunks + t0 / s->chunk) * s->heads + j) * s->width;
                ssd_store_state(s, head, s->boundaries + to * s->ld_boundaries, s->ld_boundaries);
            }
            ssd_head_chunk(s, w, j, i * s->time + t0, end - t0, output, fresh, head, &total);
            if (decay)
                decay[j - j0] *= total;
        }
        fresh = false;
        t0 = end;
    }
}

static void ssd_save_state(const struct ssd *s, int64_t item, const float *h)
{
    if (s->state)
        ssd_store_state(s, h, s->state + item * s->width * s->ld_state, s->ld_state);
}

/* scratch: each thread's work, then the states of all heads of all sequences. */
static void ssd_chunked(const struct ssd *s, float *scratch, struct itera_team *team)
{
    size_t floats = ssd_work_floats(s);
    struct ssd_work w = ssd_work_at(s, scratch + (size_t)team->rank * floats);
    float *all = scratch + (size_t)team->size * floats;
    int64_t item, end;

    itera_team_range(team, s->batch * s->heads, 1, &item, &end);
    while (item < end) {
        int64_t i = item / s->heads, j = item % s->heads;
        int64_t count = min_i64(end - item, s->heads - j);
        for (int64_t k = item; k < item + count; k++)
            ssd_load_state(s, k, all + k * s->head_state);
        ssd_span(s, &w, i, j, j + count, 0, s->time, true, !s->state, all + item * s->head_state,
                 NULL);
        for (int64_t k = item; k < item + count; k++)
            ssd_save_state(s, k, all + k * s->head_state);
        item += count;
    }
}

/* scratch: each thread's work, then for each sequence and thread the states of all heads and the
 * heads' decays. */
static void ssd_parallel(const struct ssd *s, float *scratch, struct itera_team *team)
{
    size_t floats = ssd_work_floats(s);
    struct ssd_work w = ssd_work_at(s, scratch + (size_t)team->rank * floats);
    float *all = scratch + (size_t)team->size * floats;
    int64_t size = s->heads * s->head_state, blocks = team->size, begin, end, item, last;
    int64_t length = ceil_div(s->time, blocks);
    float *decays = all + s->batch * blocks * size;

    begin = min_i64(team->rank * length, s->time);
    end = min_i64(begin + length, s->time);
    for (int64_t i = 0; i < s->batch; i++) {
        float *h = all + (i * blocks + team->rank) * size;
        float *decay = decays + (i * blocks + team->rank) * s->heads;
        for (int64_t j = 0; j < s->heads; j++)
            decay[j] = 1.0f;
        for (int64_t n = 0; n < size; n += VF_N)
            vf_store(h + n, vf_zero());
        if (end < s->time)
            ssd_span(s, &w, i, 0, s->heads, begin, end, false, true, h, decay);
    }
    itera_team_barrier(team);
    itera_team_range(team, s->batch * s->heads, 1, &item, &last);
    for (; item < last; item++) {
        int64_t i = item / s->heads, j = item % s->heads;
        float *first = all + i * blocks * size + j * s->head_state;
        ssd_load_state(s, item, w.carried);
        for (int64_t n = 0; n < s->head_state; n += VF_N) {
            vf h = vf_load(w.carried + n);
            for (int64_t k = 0; k < blocks; k++) {
                float *slot = first + k * size + n;
                vf own = vf_load(slot);
                vf_store(slot, h);
                h = vf_fma(vf_set(decays[(i * blocks + k) * s->heads + j]), h, own);
            }
        }
    }
    itera_team_barrier(team);
    for (int64_t i = 0; i < s->batch; i++) {
        float *h = all + (i * blocks + team->rank) * size;
        ssd_span(s, &w, i, 0, s->heads, begin, end, true, begin == 0 && !s->state, h, NULL);
        for (int64_t j = 0; end == s->time && begin < end && j < s->heads; j++)
            ssd_save_state(s, i * s->heads + j, h + j * s->head_state);
    }
}

/* auto: the recurrence for a few tokens, where packing costs more than it saves; else matrix form,
 * over heads, or over time when there are fewer heads than threads. Monotone in threads: scratch
 * sized for many threads serves fewer. */
static enum itera_scan_variant ssd_variant(const struct itera_call *call, int threads)
{
    const int64_t *dim = call->in[0].dim;

    if (call->attr->variant != ITERA_SCAN_AUTO)
        return (enum itera_scan_variant)call->attr->variant;
    if (dim[1] < 8)
        return ITERA_SCAN_SEQUENTIAL;
    if (dim[0] * call->attr->heads * 2 <= threads && dim[1] >= 2 * SSD_STEPS)
        return ITERA_SCAN_PARALLEL;
    return ITERA_SCAN_CHUNKED;
}

static size_t ssd_scan_scratch(const struct itera_call *call, int threads)
{
    struct ssd s = ssd_make(call);
    enum itera_scan_variant variant = ssd_variant(call, threads);
    size_t work = (size_t)threads * ssd_work_floats(&s), heads = (size_t)(s.batch * s.heads);

    if (variant == ITERA_SCAN_SEQUENTIAL)
        return s.state ? 0 : sizeof(float) * (size_t)(threads * s.width * s.states);
    if (variant == ITERA_SCAN_PARALLEL)
        heads *= (size_t)threads;
    return sizeof(float) * (work + heads * (size_t)(s.head_state + 1));
}

static void ssd_scan(const struct itera_call *call, struct itera_team *team)
{
    struct ssd s = ssd_make(call);

    if (s.time == 0)
        return;
    switch (ssd_variant(call, team->size)) {
    case ITERA_SCAN_PARALLEL:
        ssd_parallel(&s, call->scratch, team);
        break;
    case ITERA_SCAN_CHUNKED:
        ssd_chunked(&s, call->scratch, team);
        break;
    default:
        ssd_sequential(&s, call->scratch, team);
    }
}

const struct itera_kernel ITERA_SIMD(ssd_scan) = {.run = ssd_scan, .scratch = ssd_scan_scratch};
