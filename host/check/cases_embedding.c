/* Parity cases of the embeddings. */
#include <stdio.h>

#include "check/case.h"
#include "tensor/blocks.h"

itera_case_fn itera_case_embedding, itera_case_position_embedding;

enum { CASES = 12, NARROW = 12 }; /* then tables of the narrow types */

/* The type of a table: f32, then each narrow one in turn. */
static enum itera_dtype table_type(const struct itera_case *c)
{
    static const enum itera_dtype narrow[] = {ITERA_F16, ITERA_BF16, ITERA_Q8, ITERA_Q4};
    return c->index < CASES ? ITERA_F32 : narrow[c->index % 4];
}

/* Rows of blocks are whole ones. */
static int64_t table_cols(struct itera_case *c)
{
    return itera_dtype_is_blocks(table_type(c)) ? ITERA_BLOCK * itera_case_pick(c, 1, 5)
                                                : itera_case_size(c, 129);
}

static int32_t make_table(struct itera_case *c, const int64_t *dim, int64_t padding)
{
    const enum itera_dtype dtype = table_type(c);
    int32_t table = itera_case_weights(c, "table", 2, dim,
                                       itera_dtype_is_blocks(dtype) ? 0 : padding, dtype, 0.0, 1.0);
    if (dtype != ITERA_F32)
        for (int i = 0; i < c->n_inputs; i++)
            itera_case_constant(c, c->input[i].tensor);
    return table;
}

bool itera_case_embedding(struct itera_case *c)
{
    if (c->index >= CASES + NARROW)
        return false;
    int64_t table[] = {c->index == 0 ? 200 : itera_case_size(c, 65), table_cols(c)};
    int64_t ids[] = {itera_case_pick(c, 1, 4), itera_case_size(c, 49)};
    int rank = c->index % 3 == 1 ? 1 : 2;
    if (rank == 1)
        ids[0] = c->index == 10 ? 2500 : itera_case_size(c, 65); /* many a row: sorted in blocks */
    bool strided = c->index % 4 == 3;
    bool outside = c->index % 2; /* some ids are not in the table */
    int64_t padding = strided ? itera_case_pick(c, 1, 5) : 0;
    int32_t in[2], out[] = {ITERA_NEW};
    in[0] = make_table(c, table, padding);
    in[1] = itera_case_strided(c, "ids", rank, ids, rank == 2 ? padding : 0, ITERA_FILL_INDEX,
                               outside ? -1.0 : 0.0, (double)table[0] + (outside ? 2.0 : 0.0));
    snprintf(c->label, sizeof c->label, "table=%dx%d %s ids=%d%s%.0d%s%s", (int)table[0],
             (int)table[1], itera_dtype_name(table_type(c)), (int)ids[0], rank == 2 ? "x" : "",
             rank == 2 ? (int)ids[1] : 0, strided ? " strided" : "", outside ? " outside" : "");
    itera_record(c->program, ITERA_OP_embedding, NULL, in, out);
    return true;
}

bool itera_case_position_embedding(struct itera_case *c)
{
    if (c->index >= CASES + NARROW)
        return false;
    int64_t x[] = {itera_case_pick(c, 1, 4), c->index == 0 ? 1 : itera_case_size(c, 33),
                   table_cols(c)};
    int64_t table[] = {x[1] + itera_case_pick(c, 0, 5), x[2]};
    int64_t padding = c->index % 4 == 3 ? itera_case_pick(c, 1, 5) : 0;
    bool start = c->index % 3 == 0;
    if (start && c->index % 2)
        table[0] = itera_case_pick(c, 1, x[1]); /* positions run past the table */
    int32_t in[3] = {ITERA_NONE, ITERA_NONE, ITERA_NONE}, out[] = {ITERA_NEW};
    in[0] = itera_case_strided(c, "x", 3, x, padding, ITERA_FILL_NORMAL, 0.0, 1.0);
    in[1] = make_table(c, table, padding);
    if (start) {
        in[2] =
            itera_case_input(c, "start", 1, x, c->index == 6 ? ITERA_FILL_BITS : ITERA_FILL_INDEX,
                             -1.0, (double)table[0] + 1.0);
        itera_case_constant(c, in[1]); /* decoding: no gradient */
    }
    snprintf(c->label, sizeof c->label, "batch=%d steps=%d cols=%d positions=%d %s%s%s", (int)x[0],
             (int)x[1], (int)x[2], (int)table[0], itera_dtype_name(table_type(c)),
             start ? " start" : "", padding ? " strided" : "");
    itera_record(c->program, ITERA_OP_position_embedding, NULL, in, out);
    return true;
}
