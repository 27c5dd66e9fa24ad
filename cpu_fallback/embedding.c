/* Scalar reference of the embeddings (contracts: host/ops/embedding.c). */
#include "cpu_fallback/reference.h"
#include "cpu_fallback/weight.h"

static float *cell(const struct itera_arg *arg, int64_t row, int64_t col)
{
    return itera_f32(arg) + row * arg->ld + col;
}

static int64_t clamp(int64_t x, int64_t below)
{
    return x < 0 ? 0 : x < below ? x : below - 1;
}

/* Element i of the ids, as a row of the table. */
static int64_t table_row(const struct itera_arg *ids, int64_t i, int64_t rows)
{
    return clamp(itera_i32(ids)[i / ids->cols * ids->ld + i % ids->cols], rows);
}

REFERENCE(embedding)
{
    if (team->rank)
        return;
    const struct itera_arg *table = &call->in[0], *ids = &call->in[1], *y = &call->out[0];
    for (int64_t i = 0; i < ids->rows * ids->cols; i++) {
        int64_t v = table_row(ids, i, table->rows);
        for (int64_t c = 0; c < table->cols; c++)
            *cell(y, i, c) = itera_weight(table, v * table->ld + c);
    }
}

/* Sums in f32 with a double addition: the table itself is the sum, in the order of tokens, which is
 * the contract. */
REFERENCE(embedding_bwd)
{
    if (team->rank)
        return;
    const struct itera_arg *dy = &call->in[0], *ids = &call->in[1], *dtable = &call->out[0];
    for (int64_t v = 0; v < dtable->rows && !call->attr->accumulate; v++)
        for (int64_t c = 0; c < dtable->cols; c++)
            *cell(dtable, v, c) = 0;
    for (int64_t i = 0; i < ids->rows * ids->cols; i++) {
        int64_t v = table_row(ids, i, dtable->rows);
        for (int64_t c = 0; c < dtable->cols; c++)
            *cell(dtable, v, c) = (float)((double)*cell(dtable, v, c) + *cell(dy, i, c));
    }
}

REFERENCE(position_embedding)
{
    if (team->rank)
        return;
    const struct itera_arg *x = &call->in[0], *table = &call->in[1], *start = &call->in[2];
    int64_t batch = x->dim[0], steps = x->dim[1];
    for (int64_t b = 0; b < batch; b++) {
        int64_t first = start->data ? clamp(itera_i32(start)[b], INT32_MAX) : 0;
        for (int64_t t = 0; t < steps; t++)
            for (int64_t c = 0; c < x->cols; c++)
                *cell(&call->out[0], b * steps + t, c) =
                    (float)((double)*cell(x, b * steps + t, c) +
                            itera_weight(table, clamp(first + t, table->rows) * table->ld + c));
    }
}

REFERENCE(position_embedding_bwd)
{
    if (team->rank)
        return;
    const struct itera_arg *dy = &call->in[0], *dtable = &call->out[0];
    int64_t batch = dy->dim[0], steps = dy->dim[1];
    for (int64_t t = 0; t < dtable->rows; t++)
        for (int64_t c = 0; c < dtable->cols; c++) {
            double sum = 0;
            for (int64_t b = 0; b < batch && t < steps; b++)
                sum += *cell(dy, b * steps + t, c);
            *cell(dtable, t, c) = (float)sum;
        }
}
