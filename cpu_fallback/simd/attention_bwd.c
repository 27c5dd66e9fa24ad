/* Fast attention_bwd. Contract: host/ops/attention.c.
 *
 * One key and value head of one sequence at a time: keys in blocks of KEY_BLOCK, and for each the
 * queries that see it in blocks of QUERIES. A block of probabilities is recomputed from lse, then
 * all five products are small dense ones over packed blocks in cache. Sums over keys and queries
 * always run in the same order, whatever the number of threads. */
#include "cpu_fallback/simd/attention.h"

#define QUERIES 32
/* Floats between arrays, so that their rows are not a multiple of 4096 bytes apart: a load would
 * wait for an unrelated store. */
#define GAP 80

/* What a thread works with; dp = padded(d). */
struct work {
    float *kt, *vt;     /* (d, KEY_BLOCK) keys and values transposed */
    float *k;           /* (KEY_BLOCK, dp) */
    float *dk, *dv;     /* (KEY_BLOCK, dp) sums */
    float *q, *dy, *dq; /* (QUERIES, dp) */
    float *p, *ds;      /* (QUERIES, KEY_BLOCK) */
};

/* One query head; rows of one sequence. */
struct head {
    const float *dy, *q, *y, *lse;
    float *dq;
    int64_t ld_dy, ld_q, ld_y, ld_dq;
};

static int64_t work_floats(const struct itera_call *call)
{
    int64_t d = call->in[1].cols / call->attr->heads, dp = padded(d);
    return 2 * d * KEY_BLOCK + 3 * KEY_BLOCK * dp + 3 * QUERIES * dp + 2 * QUERIES * KEY_BLOCK +
           10 * GAP;
}

static size_t attention_bwd_scratch(const struct itera_call *call, int threads)
{
    return (size_t)threads * (size_t)work_floats(call) * sizeof(float);
}

/* a . b in the order of `product`: where one key has all the probability, y is its v, and dy . v
 * cancels dy . y exactly. */
static inline float dot(const float *a, const float *b, int64_t d)
{
    float sum = 0;
    for (int64_t c = 0; c < d; c++)
        sum = __builtin_fmaf(a[c], b[c], sum);
    return sum;
}

/* to (n, d) = [to +] from, n packed rows */
static void put_rows(const float *from, int64_t n, int64_t d, float *to, int64_t ld, bool add)
{
    int64_t dp = padded(d);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t c = 0; c < d; c += VF_N) {
            vf x = vf_load(from + i * dp + c);
            float *at = to + i * ld + c;
            if (c + VF_N <= d)
                vf_store(at, add ? vf_add(x, vf_load(at)) : x);
            else
                vf_store_n(at, add ? vf_add(x, vf_load_n(at, d - c)) : x, d - c);
        }
    }
}

/* p = exp(scale p - lse), ds = p (ds - delta) scale over n keys; zeros from there to n_keys. */
static void row_probabilities(float *p, float *ds, int64_t n, int64_t n_keys, float scale,
                              float lse, float delta)
{
    vf factor = vf_set(scale), shift = vf_set(lse), middle = vf_set(delta);
    for (int64_t j = 0; j < n; j += VF_N) {
        vf e = vf_exp(vf_sub(vf_mul(factor, vf_load(p + j)), shift));
        vf g = vf_mul(vf_mul(e, factor), vf_sub(vf_load(ds + j), middle));
        vf_store(p + j, e);
        vf_store(ds + j, g);
    }
    for (int64_t j = n; j < n_keys; j++)
        p[j] = ds[j] = 0;
}

/* Queries [begin, begin + count) of one head, begin >= key, against the packed keys
 * [key, key + n_keys). */
static void block_bwd(const struct head *a, const struct work *w, int64_t begin, int64_t count,
                      int64_t key, int64_t n_keys, int64_t d, float scale)
{
    int64_t dp = padded(d);
    pack_rows(a->q + begin * a->ld_q, a->ld_q, count, d, w->q);
    pack_rows(a->dy + begin * a->ld_dy, a->ld_dy, count, d, w->dy);
    for (int64_t i = 0; i < count; i += TILE_ROWS) {
        int64_t rows = count - i < TILE_ROWS ? count - i : TILE_ROWS;
        int64_t most = begin + i + rows - key; /* keys that the last of these rows sees */
        most = most < n_keys ? most : n_keys;
        product(rows, padded(most), w->q + i * dp, dp, 1, w->kt, KEY_BLOCK, d, w->p + i * KEY_BLOCK,
                KEY_BLOCK, false);
        product(rows, padded(most), w->dy + i * dp, dp, 1, w->vt, KEY_BLOCK, d,
                w->ds + i * KEY_BLOCK, KEY_BLOCK, false);
        for (int64_t r = i; r < i + rows; r++) {
            int64_t t = begin + r, seen = t + 1 - key;
            float delta = dot(w->dy + r * dp, a->y + t * a->ld_y, d);
            seen = seen < n_keys ? seen : n_keys;
            row_probabilities(w->p + r * KEY_BLOCK, w->ds + r * KEY_BLOCK, seen, n_keys, scale,
                              a->lse[t], delta);
            if (t == 0) /* one key: its probability is constant, and ds exactly 0 */
                w->ds[r * KEY_BLOCK] = 0;
        }
        product(rows, dp, w->ds + i * KEY_BLOCK, KEY_BLOCK, 1, w->k, dp, most, w->dq + i * dp, dp,
                false);
    }
    put_rows(w->dq, count, d, a->dq + begin * a->ld_dq, a->ld_dq, key > 0);
    for (int64_t j = 0; j < n_keys; j += TILE_ROWS) {
        int64_t rows = n_keys - j < TILE_ROWS ? n_keys - j : TILE_ROWS;
        int64_t from = key + j - begin; /* the first query that sees key j */
        from = from > 0 ? from : 0;
        if (from >= count)
            break;
        int64_t at = from * KEY_BLOCK + j;
        product(rows, dp, w->p + at, 1, KEY_BLOCK, w->dy + from * dp, dp, count - from,
                w->dv + j * dp, dp, true);
        product(rows, dp, w->ds + at, 1, KEY_BLOCK, w->q + from * dp, dp, count - from,
                w->dk + j * dp, dp, true);
    }
}

static void attention_bwd(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dy = &call->in[0], *q = &call->in[1], *k = &call->in[2];
    const struct itera_arg *v = &call->in[3], *y = &call->in[4], *lse = &call->in[5];
    const struct itera_arg *dq = &call->out[0], *dk = &call->out[1], *dv = &call->out[2];
    int64_t time = q->dim[1], heads = call->attr->heads, d = q->cols / heads, dp = padded(d);
    int64_t kv_heads = k->cols / d, share = heads / kv_heads, begin, end;
    float scale = call->attr->scale != 0 ? call->attr->scale : (float)(1 / sqrt((double)d));
    struct work w;
    w.kt = (float *)call->scratch + team->rank * work_floats(call);
    w.vt = w.kt + d * KEY_BLOCK + GAP;
    w.k = w.vt + d * KEY_BLOCK + GAP;
    w.dk = w.k + KEY_BLOCK * dp + GAP;
    w.dv = w.dk + KEY_BLOCK * dp + GAP;
    w.q = w.dv + KEY_BLOCK * dp + GAP;
    w.dy = w.q + QUERIES * dp + GAP;
    w.dq = w.dy + QUERIES * dp + GAP;
    w.p = w.dq + QUERIES * dp + GAP;
    w.ds = w.p + QUERIES * KEY_BLOCK + GAP;
    struct head a = {.ld_dy = dy->ld, .ld_q = q->ld, .ld_y = y->ld, .ld_dq = dq->ld};
    itera_team_range(team, q->dim[0] * kv_heads, 1, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        int64_t b = item / kv_heads, g = item % kv_heads, row = b * time;
        for (int64_t key = 0; key < time; key += KEY_BLOCK) {
            int64_t n = time - key < KEY_BLOCK ? time - key : KEY_BLOCK, r = row + key;
            pack_transposed(itera_f32(k) + r * k->ld + g * d, k->ld, n, d, w.kt);
            pack_transposed(itera_f32(v) + r * v->ld + g * d, v->ld, n, d, w.vt);
            pack_rows(itera_f32(k) + r * k->ld + g * d, k->ld, n, d, w.k);
            memset(w.dk, 0, (size_t)(n * dp) * sizeof(float));
            memset(w.dv, 0, (size_t)(n * dp) * sizeof(float));
            for (int64_t h = g * share; h < (g + 1) * share; h++) {
                a.dy = itera_f32(dy) + row * dy->ld + h * d;
                a.q = itera_f32(q) + row * q->ld + h * d;
                a.y = itera_f32(y) + row * y->ld + h * d;
                a.lse = itera_f32(lse) + (b * heads + h) * lse->ld;
                a.dq = itera_f32(dq) + row * dq->ld + h * d;
                /* KEY_BLOCK is a multiple of QUERIES: no query before `key` is in a block. */
                for (int64_t t = key; t < time; t += QUERIES)
                    block_bwd(&a, &w, t, time - t < QUERIES ? time - t : QUERIES, key, n, d, scale);
            }
            put_rows(w.dk, n, d, itera_f32(dk) + r * dk->ld + g * d, dk->ld, false);
            put_rows(w.dv, n, d, itera_f32(dv) + r * dv->ld + g * d, dv->ld, false);
        }
    }
}

const struct itera_kernel ITERA_SIMD(attention_bwd) = {.run = attention_bwd,
                                                       .scratch = attention_bwd_scratch};
