/* Embeddings over vectors (contracts: host/ops/embedding.c). */
#include "cpu_fallback/simd/expand.h"
#include "cpu_fallback/simd/span.h"

static inline int64_t clamp(int64_t x, int64_t below)
{
    return x < 0 ? 0 : x < below ? x : below - 1;
}

/* y = a + b */
static inline void add_span(const float *a, const float *b, float *y, int64_t n)
{
    int64_t i = 0;
    for (; i + VF_N <= n; i += VF_N)
        vf_store(y + i, vf_add(vf_load(a + i), vf_load(b + i)));
    if (i < n)
        vf_store_n(y + i, vf_add(vf_load_n(a + i, n - i), vf_load_n(b + i, n - i)), n - i);
}

/* y = a + w for narrow weights */
static void add_weights(const float *a, struct itera_weights w, float *y, int64_t n)
{
    enum { PART = 4 * ITERA_BLOCK };
    float wide[PART];
    for (int64_t i = 0; i < n; i += PART) {
        const int64_t part = n - i < PART ? n - i : PART;
        itera_expand(itera_weights_from(w, i), part, wide);
        add_span(a + i, wide, y + i, part);
    }
}

FAST(embedding)
{
    const struct itera_arg *table = &call->in[0], *ids = &call->in[1], *y = &call->out[0];
    const struct itera_weights weights = itera_weights(table);
    int64_t begin, end, cols = table->cols;
    itera_share(team, ids->rows * ids->cols, 1, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        int64_t v = clamp(itera_id(ids, i), table->rows);
        itera_expand(itera_weights_from(weights, v * table->ld), cols, itera_row(y, i));
    }
}

/* Threads share the columns: every sum then runs in the order of tokens, and a frequent token does
 * not weigh on one thread. Zeroing the table is the only cost that grows with it. */
FAST(embedding_bwd)
{
    const struct itera_arg *dy = &call->in[0], *ids = &call->in[1], *dtable = &call->out[0];
    int64_t n = ids->rows * ids->cols, begin, end;
    if (!call->attr->accumulate) {
        struct itera_area a = itera_area(team, dtable, itera_plain(dtable));
        for (int64_t r = a.row; r < a.rows_end; r++)
            memset(itera_row(dtable, r) + a.col, 0, (size_t)a.cols * sizeof(float));
        if (team->size > 1)
            itera_team_barrier(team);
    }
    itera_share(team, dtable->cols, 16, &begin, &end);
    for (int64_t i = 0; i < n && begin < end; i++) {
        float *sum = itera_row(dtable, clamp(itera_id(ids, i), dtable->rows)) + begin;
        add_span(sum, itera_row(dy, i) + begin, sum, end - begin);
    }
}

FAST(position_embedding)
{
    const struct itera_arg *x = &call->in[0], *table = &call->in[1], *start = &call->in[2];
    const struct itera_weights weights = itera_weights(table);
    int64_t begin, end, batch = x->dim[0], steps = x->dim[1];
    itera_share(team, batch * steps, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        int64_t b = r / steps, position = r - b * steps;
        if (start->data)
            position += clamp(itera_i32(start)[b], INT32_MAX);
        position = clamp(position, table->rows);
        const struct itera_weights row = itera_weights_from(weights, position * table->ld);
        if (table->dtype == ITERA_F32)
            add_span(itera_row(x, r), itera_row(table, position), itera_row(&call->out[0], r),
                     x->cols);
        else
            add_weights(itera_row(x, r), row, itera_row(&call->out[0], r), x->cols);
    }
}

FAST(position_embedding_bwd)
{
    const struct itera_arg *dy = &call->in[0], *dtable = &call->out[0];
    int64_t begin, end, batch = dy->dim[0], steps = dy->dim[1];
    itera_share(team, dtable->rows, 1, &begin, &end);
    for (int64_t t = begin; t < end; t++) {
        float *sum = itera_row(dtable, t);
        if (t >= steps || batch == 0) {
            memset(sum, 0, (size_t)dtable->cols * sizeof *sum);
            continue;
        }
        memcpy(sum, itera_row(dy, t), (size_t)dtable->cols * sizeof *sum);
        for (int64_t b = 1; b < batch; b++)
            add_span(sum, itera_row(dy, b * steps + t), sum, dtable->cols);
    }
}
