/* Fast rope and attention. Contracts: host/ops/attention.c.
 *
 * Attention works on one head of one sequence at a time: queries in blocks, and for each block the
 * keys in blocks of KEY_BLOCK, packed (keys transposed, so that scores are vectors over keys). Four
 * queries at a time take a block's scores, exponentials and weighted values while these are in the
 * first cache, under the running maximum and sum of FlashAttention. One to three queries, as in a
 * decode step, read keys and values where they lie. */
#include "cpu_fallback/simd/attention.h"

/* ---- rope ------------------------------------------------------------------------------------ */

static size_t rope_scratch(const struct itera_call *call, int threads)
{
    return (size_t)threads * 2 * (size_t)padded(call->in[0].cols / call->attr->heads / 2) *
           sizeof(float);
}

/* The cosines and sines of one position. */
static void rope_angles(double position, double ratio, bool inverse, int64_t half, float *cosine,
                        float *sine)
{
    double frequency = 1;
    for (int64_t i = 0; i < half; i++) {
        double s = sin(position * frequency);
        cosine[i] = (float)cos(position * frequency);
        sine[i] = (float)(inverse ? -s : s);
        frequency *= ratio;
    }
}

static void rope(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *x = &call->in[0], *y = &call->out[0];
    const int32_t *start = itera_i32(&call->in[1]);
    int64_t batch = x->dim[0], time = x->dim[1], heads = call->attr->heads, d = x->cols / heads;
    int64_t half = d / 2;
    double theta = call->attr->scale != 0 ? call->attr->scale : 10000.0;
    double ratio = pow(theta, -2.0 / (double)d);
    float *cosine = (float *)call->scratch + team->rank * 2 * padded(half);
    float *sine = cosine + padded(half);
    double last = -1;
    bool known = false;
    int64_t begin, end;
    /* By time first: without start, the sequences of a batch share their angles. */
    itera_team_range(team, x->rows, 1, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        int64_t t = item / batch, b = item % batch, r = b * time + t;
        double position = (double)t + (start ? start[b] : 0);
        if (!known || position != last)
            rope_angles(position, ratio, call->attr->inverse, half, cosine, sine);
        last = position;
        known = true;
        for (int64_t h = 0; h < heads; h++) {
            const float *from = itera_f32(x) + r * x->ld + h * d;
            float *to = itera_f32(y) + r * y->ld + h * d;
            for (int64_t i = 0; i < half; i += VF_N) {
                int64_t n = half - i < VF_N ? half - i : VF_N;
                vf c = vf_load_n(cosine + i, n), s = vf_load_n(sine + i, n);
                vf p = vf_load_n(from + i, n), q = vf_load_n(from + half + i, n);
                vf_store_n(to + i, vf_fnma(q, s, vf_mul(p, c)), n);
                vf_store_n(to + half + i, vf_fma(p, s, vf_mul(q, c)), n);
            }
        }
    }
}

const struct itera_kernel ITERA_SIMD(rope) = {.run = rope, .scratch = rope_scratch};

/* ---- attention ------------------------------------------------------------------------------- */

#define QUERY_BLOCK 128 /* queries that share a packed block of keys */
#define ROW_KEYS    256 /* keys at a time for a single query */

/* What a thread works with. */
struct work {
    float *keys;   /* (d, KEY_BLOCK) */
    float *values; /* (KEY_BLOCK, padded(d)) */
    float *scores; /* (TILE_ROWS, KEY_BLOCK), or ROW_KEYS */
    float *sums;   /* (QUERY_BLOCK, padded(d)): weighted values so far */
    float *max;    /* (QUERY_BLOCK) the largest score so far */
    float *total;  /* (QUERY_BLOCK) sum of exponentials so far */
};

/* One head of one sequence. */
struct head {
    const float *q, *k, *v; /* first rows */
    float *y, *lse;         /* lse NULL: not wanted */
    int64_t ldq, ldk, ldv, ldy;
    int64_t time, keys, d;
    int64_t first; /* position of the first query */
    float scale;
};

static bool few_queries(const struct itera_call *call)
{
    return call->in[0].dim[1] < TILE_ROWS;
}

static int64_t work_floats(const struct itera_call *call)
{
    int64_t d = call->in[0].cols / call->attr->heads, dp = padded(d);
    if (few_queries(call))
        return ROW_KEYS + dp;
    return padded(d * KEY_BLOCK) + KEY_BLOCK * dp + TILE_ROWS * KEY_BLOCK + QUERY_BLOCK * dp +
           2 * QUERY_BLOCK;
}

static size_t attention_scratch(const struct itera_call *call, int threads)
{
    return (size_t)threads * (size_t)work_floats(call) * sizeof(float);
}

/* Turns n scores (room for padded(n)) into exponentials under the new running maximum, adds them to
 * *total, and returns what earlier sums are to be multiplied by. */
static float softmax_step(float *scores, int64_t n, float scale, float *max, float *total)
{
    for (int64_t j = n; j < padded(n); j++)
        scores[j] = -INFINITY;
    vf factor = vf_set(scale), top = vf_set(-INFINITY);
    if (scale > 0) { /* -INFINITY stays what it is */
        for (int64_t j = 0; j < n; j += VF_N) {
            vf s = vf_mul(factor, vf_load(scores + j));
            vf_store(scores + j, s);
            top = vf_max(s, top);
        }
    } else {
        for (int64_t j = 0; j < n; j++)
            scores[j] *= scale;
        for (int64_t j = 0; j < n; j += VF_N)
            top = vf_max(vf_load(scores + j), top);
    }
    float before = *max, now = vf_hmax(top);
    now = now > before ? now : before;
    /* With nothing but -INFINITY so far, the exponentials are 0 and not NaN. */
    float base = now == -INFINITY ? 0 : now;
    vf shift = vf_set(base), sum = vf_zero();
    for (int64_t j = 0; j < n; j += VF_N) {
        vf e = vf_exp(vf_sub(vf_load(scores + j), shift));
        vf_store(scores + j, e);
        sum = vf_add(sum, e);
    }
    float keep = before == now ? 1 : before == -INFINITY ? 0 : expf(before - base);
    *max = now;
    *total = *total * keep + vf_sum(sum);
    return keep;
}

static void scale_row(float *row, int64_t n, float factor)
{
    if (factor == 1)
        return;
    vf f = vf_set(factor);
    for (int64_t c = 0; c < n; c += VF_N)
        vf_store(row + c, vf_mul(f, vf_load(row + c)));
}

/* Writes a finished row. */
static void finish_row(const struct head *a, int64_t t, const float *sums, float max, float total)
{
    float *y = a->y + t * a->ldy;
    vf denominator = vf_set(total);
    int64_t c = 0;
    for (; c + VF_N <= a->d; c += VF_N)
        vf_store(y + c, vf_div(vf_load(sums + c), denominator));
    if (c < a->d)
        vf_store_n(y + c, vf_div(vf_load(sums + c), denominator), a->d - c);
    if (a->lse) /* max - max: NaN where the maximum is infinite, as the softmax is */
        a->lse[t] = max - max + max + logf(total);
}

/* Keys that query t may look at. */
static int64_t visible(const struct head *a, int64_t t)
{
    int64_t n = a->first + t + 1;
    return n < a->keys ? n : a->keys;
}

/* Queries [begin, begin + n) against the packed keys [key, key + n_keys); sums, max and total of w
 * are those of the block that starts at query `block`. */
static void attend_block(const struct head *a, const struct work *w, int64_t block, int64_t count,
                         int64_t key, int64_t n_keys)
{
    int64_t d = a->d, dp = padded(d);
    /* Earlier queries see nothing of these keys. */
    int64_t begin = key - a->first - block;
    for (int64_t i = begin > 0 ? begin : 0; i < count; i += TILE_ROWS) {
        int64_t rows = count - i < TILE_ROWS ? count - i : TILE_ROWS;
        int64_t seen[TILE_ROWS];
        for (int64_t r = 0; r < rows; r++) {
            int64_t n = visible(a, block + i + r) - key;
            seen[r] = n < n_keys ? n : n_keys;
        }
        product(rows, padded(seen[rows - 1]), a->q + (block + i) * a->ldq, a->ldq, 1, w->keys,
                KEY_BLOCK, d, w->scores, KEY_BLOCK, false);
        for (int64_t r = 0; r < rows; r++) {
            float keep = softmax_step(w->scores + r * KEY_BLOCK, seen[r], a->scale, &w->max[i + r],
                                      &w->total[i + r]);
            scale_row(w->sums + (i + r) * dp, dp, keep);
        }
        product(rows, dp, w->scores, KEY_BLOCK, 1, w->values, dp, seen[0], w->sums + i * dp, dp,
                true);
        /* On the diagonal, the last keys of each row are its own: masked values are never read. */
        for (int64_t r = 1; r < rows; r++)
            if (seen[r] > seen[0])
                product(1, dp, w->scores + r * KEY_BLOCK + seen[0], KEY_BLOCK, 1,
                        w->values + seen[0] * dp, dp, seen[r] - seen[0], w->sums + (i + r) * dp, dp,
                        true);
    }
}

static void attend(const struct head *a, const struct work *w)
{
    int64_t d = a->d, dp = padded(d);
    for (int64_t block = 0; block < a->time; block += QUERY_BLOCK) {
        int64_t count = a->time - block < QUERY_BLOCK ? a->time - block : QUERY_BLOCK;
        for (int64_t i = 0; i < count; i++) {
            w->max[i] = -INFINITY;
            w->total[i] = 0;
        }
        memset(w->sums, 0, (size_t)(count * dp) * sizeof(float));
        int64_t n = visible(a, block + count - 1);
        for (int64_t key = 0; key < n; key += KEY_BLOCK) {
            int64_t n_keys = n - key < KEY_BLOCK ? n - key : KEY_BLOCK;
            pack_transposed(a->k + key * a->ldk, a->ldk, n_keys, d, w->keys);
            pack_rows(a->v + key * a->ldv, a->ldv, n_keys, d, w->values);
            attend_block(a, w, block, count, key, n_keys);
        }
        for (int64_t i = 0; i < count; i++)
            finish_row(a, block + i, w->sums + i * dp, w->max[i], w->total[i]);
    }
}

/* scores[j] = q . k[j] */
static void row_scores(const float *q, const float *k, int64_t ld, int64_t n, int64_t d,
                       float *scores)
{
    int64_t j = 0, whole = d / VF_N * VF_N;
    for (; j + 4 <= n; j += 4) {
        const float *row = k + j * ld;
        vf s0 = vf_zero(), s1 = vf_zero(), s2 = vf_zero(), s3 = vf_zero();
        for (int64_t c = 0; c < whole; c += VF_N) {
            vf x = vf_load(q + c);
            s0 = vf_fma(x, vf_load(row + c), s0);
            s1 = vf_fma(x, vf_load(row + ld + c), s1);
            s2 = vf_fma(x, vf_load(row + 2 * ld + c), s2);
            s3 = vf_fma(x, vf_load(row + 3 * ld + c), s3);
        }
        if (whole < d) {
            vf x = vf_load_n(q + whole, d - whole);
            s0 = vf_fma(x, vf_load_n(row + whole, d - whole), s0);
            s1 = vf_fma(x, vf_load_n(row + ld + whole, d - whole), s1);
            s2 = vf_fma(x, vf_load_n(row + 2 * ld + whole, d - whole), s2);
            s3 = vf_fma(x, vf_load_n(row + 3 * ld + whole, d - whole), s3);
        }
        scores[j] = vf_sum(s0);
        scores[j + 1] = vf_sum(s1);
        scores[j + 2] = vf_sum(s2);
        scores[j + 3] = vf_sum(s3);
    }
    for (; j < n; j++) {
        vf s = vf_zero();
        for (int64_t c = 0; c < d; c += VF_N) {
            int64_t m = d - c < VF_N ? d - c : VF_N;
            s = vf_fma(vf_load_n(q + c, m), vf_load_n(k + j * ld + c, m), s);
        }
        scores[j] = vf_sum(s);
    }
}

/* sums[c] += sum_j p[j] v[j,c] over `vectors` vectors; even and odd keys apart, for the latency. */
static inline __attribute__((always_inline)) void
row_values(int vectors, const float *p, const float *v, int64_t ld, int64_t n, float *sums)
{
    vf even[4], odd[4];
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) {
        even[i] = vf_load(sums + i * VF_N);
        odd[i] = vf_zero();
    }
    int64_t j = 0;
    for (; j + 2 <= n; j += 2) {
        vf p0 = vf_set(p[j]), p1 = vf_set(p[j + 1]);
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            even[i] = vf_fma(p0, vf_load(v + j * ld + i * VF_N), even[i]);
            odd[i] = vf_fma(p1, vf_load(v + (j + 1) * ld + i * VF_N), odd[i]);
        }
    }
    if (j < n)
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++)
            even[i] = vf_fma(vf_set(p[j]), vf_load(v + j * ld + i * VF_N), even[i]);
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++)
        vf_store(sums + i * VF_N, vf_add(even[i], odd[i]));
}

/* One query at a time, from keys and values as they lie in memory. */
static void attend_rows(const struct head *a, const struct work *w)
{
    int64_t d = a->d, dp = padded(d);
    for (int64_t t = 0; t < a->time; t++) {
        float max = -INFINITY, total = 0;
        memset(w->sums, 0, (size_t)dp * sizeof(float));
        int64_t seen = visible(a, t);
        for (int64_t key = 0; key < seen; key += ROW_KEYS) {
            int64_t n = seen - key < ROW_KEYS ? seen - key : ROW_KEYS;
            const float *v = a->v + key * a->ldv;
            row_scores(a->q + t * a->ldq, a->k + key * a->ldk, a->ldk, n, d, w->scores);
            float keep = softmax_step(w->scores, n, a->scale, &max, &total);
            scale_row(w->sums, dp, keep);
            int64_t c = 0;
            for (; c + 4 * VF_N <= d; c += 4 * VF_N)
                row_values(4, w->scores, v + c, a->ldv, n, w->sums + c);
            for (; c + 2 * VF_N <= d; c += 2 * VF_N)
                row_values(2, w->scores, v + c, a->ldv, n, w->sums + c);
            for (; c + VF_N <= d; c += VF_N)
                row_values(1, w->scores, v + c, a->ldv, n, w->sums + c);
            if (c < d) {
                vf sum = vf_load(w->sums + c);
                for (int64_t j = 0; j < n; j++)
                    sum = vf_fma(vf_set(w->scores[j]), vf_load_n(v + j * a->ldv + c, d - c), sum);
                vf_store(w->sums + c, sum);
            }
        }
        finish_row(a, t, w->sums, max, total);
    }
}

static void store_rows(const struct itera_call *call, const struct itera_team *team)
{
    const struct itera_arg *k = &call->in[1], *v = &call->in[2];
    const struct itera_arg *k_cache = &call->in[3], *v_cache = &call->in[4];
    const int32_t *start = itera_i32(&call->in[5]);
    int64_t time = k->dim[1], positions = k_cache->dim[1], begin, end;
    size_t bytes = (size_t)k->cols * sizeof(float);
    itera_team_range(team, k->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        int64_t b = r / time, at = (start[b] < 0 ? 0 : start[b]) + r % time;
        if (at >= positions)
            continue;
        int64_t to = b * positions + at;
        memcpy(itera_f32(k_cache) + to * k_cache->ld, itera_f32(k) + r * k->ld, bytes);
        memcpy(itera_f32(v_cache) + to * v_cache->ld, itera_f32(v) + r * v->ld, bytes);
    }
}

static void attention(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *q = &call->in[0], *y = &call->out[0], *lse = &call->out[1];
    const int32_t *start = itera_i32(&call->in[5]);
    bool cached = call->in[3].data != NULL, rows = few_queries(call);
    if (cached) {
        store_rows(call, team);
        if (team->size > 1)
            itera_team_barrier(team);
    }
    const struct itera_arg *k = cached ? &call->in[3] : &call->in[1];
    const struct itera_arg *v = cached ? &call->in[4] : &call->in[2];
    int64_t heads = call->attr->heads, d = q->cols / heads, dp = padded(d);
    int64_t share = q->cols / k->cols, begin, end;
    float *memory = (float *)call->scratch + team->rank * work_floats(call);
    struct work w;
    w.scores = memory;
    w.sums = memory + (rows ? ROW_KEYS : TILE_ROWS * KEY_BLOCK);
    w.keys = w.sums + QUERY_BLOCK * dp;
    w.values = w.keys + padded(d * KEY_BLOCK);
    w.max = w.values + KEY_BLOCK * dp;
    w.total = w.max + QUERY_BLOCK;
    struct head a = {.ldq = q->ld, .ldk = k->ld, .ldv = v->ld, .ldy = y->ld};
    a.time = q->dim[1];
    a.keys = k->dim[1];
    a.d = d;
    a.scale = call->attr->scale != 0 ? call->attr->scale : (float)(1 / sqrt((double)d));
    itera_team_range(team, q->dim[0] * heads, 1, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        int64_t b = item / heads, h = item % heads;
        a.first = cached && start[b] > 0 ? start[b] : 0;
        a.q = itera_f32(q) + b * a.time * q->ld + h * d;
        a.k = itera_f32(k) + b * a.keys * k->ld + h / share * d;
        a.v = itera_f32(v) + b * a.keys * v->ld + h / share * d;
        a.y = itera_f32(y) + b * a.time * y->ld + h * d;
        a.lse = lse->data ? itera_f32(lse) + item * lse->ld : NULL;
        if (rows)
            attend_rows(&a, &w);
        else
            attend(&a, &w);
    }
}

const struct itera_kernel ITERA_SIMD(attention) = {.run = attention, .scratch = attention_scratch};
