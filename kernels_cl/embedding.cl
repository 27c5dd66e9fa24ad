/* Token and position embeddings: see host/ops/embedding.c for their contracts. */
#include "args/embedding.clh"
#include "itera.clh"
#include "weight.clh"

/* How a table is stored: enum itera_dtype. Element 0 is at `at`; of blocks that is their first
 * word. */
#ifndef TABLE_TYPE
#define TABLE_TYPE 0
#endif
#if TABLE_TYPE == 5
typedef uint table_type;
#define TABLE_ELEMENT(table, at, scales, i) load_5(table + at, scales, i)
#elif TABLE_TYPE == 4
typedef uint table_type;
#define TABLE_ELEMENT(table, at, scales, i) load_4(table + at, scales, i)
#elif TABLE_TYPE == 2
typedef ushort table_type;
#define TABLE_ELEMENT(table, at, scales, i) load_2(table, at + i)
#elif TABLE_TYPE == 1
typedef half table_type;
#define TABLE_ELEMENT(table, at, scales, i) load_1(table, at + i)
#else
typedef float table_type;
#define TABLE_ELEMENT(table, at, scales, i) load_0(table, at + i)
#endif

/* Element i of the ids, brought into the table. */
static inline uint table_row(global const int *ids, uint at, uint ld, uint cols, uint i, uint rows)
{
    int id = ids[at + i / cols * ld + i % cols];
    return id < 0 ? 0 : min((uint)id, rows - 1);
}

/* A workgroup copies 128 elements. */
kernel void embedding(global const table_type *table, global const int *ids, global float *y,
                      const struct embedding_args p)
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row >= p.rows)
        return;
    uint from = table_row(ids, p.ids_at, p.ids_ld, p.ids_cols, row, p.table_rows);
    y[p.y_at + row * p.y_ld + col] =
        TABLE_ELEMENT(table, p.table_at, p.scales, from * p.table_ld + col);
}

/* ---- embedding_bwd ------------------------------------------------------------------------------
 * The tokens are put in the order of their table rows: blocks of 1024 are sorted, each token then
 * finds how many of every other block come before it. The sorted list is cut into chunks; a
 * workgroup sums along one, so that frequent rows are shared by many and rare ones cost nothing.
 * Rows that go on over the end of a chunk leave partial sums, which a last pass joins. Every row is
 * summed in the order of its tokens. */

/* A workgroup clears 128 elements. */
kernel void embedding_bwd_clear(global float *dtable, const struct clear_args p)
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row < p.rows)
        dtable[p.dtable_at + row * p.dtable_ld + col] = 0.0f;
}

/* A workgroup finds the places of 128 tokens in their block. */
kernel void embedding_bwd_sort(global const int *ids, global uint *rows, global uint *tokens,
                               const struct sort_args p)
{
    local uint block[SORT_BLOCK];
    uint first = GROUP * LANES / SORT_BLOCK * SORT_BLOCK;
    uint n = first < p.count ? min(p.count - first, (uint)SORT_BLOCK) : 0;
    for (uint i = LANE; i < n; i += LANES)
        block[i] = table_row(ids, p.ids_at, p.ids_ld, p.ids_cols, first + i, p.table_rows);
    barrier(CLK_LOCAL_MEM_FENCE);
    uint i = THREAD - first;
    if (i >= n)
        return;
    uint row = block[i], place = 0;
    for (uint j = 0; j < n; j++)
        place += block[j] < row || (block[j] == row && j < i) ? 1 : 0;
    rows[p.rows_at + first + place] = row;
    tokens[p.tokens_at + first + place] = first + i;
}

/* A workgroup finds the final places of 128 tokens. */
kernel void embedding_bwd_merge(global const uint *block_rows, global const uint *block_tokens,
                                global uint *rows, global uint *tokens, const struct merge_args p)
{
    uint i = THREAD;
    if (i >= p.count)
        return;
    global const uint *in = block_rows + p.block_rows_at;
    uint row = in[i], own = i / SORT_BLOCK, place = i % SORT_BLOCK;
    for (uint b = 0; b * SORT_BLOCK < p.count; b++) {
        if (b == own)
            continue;
        /* Of equal rows those of earlier blocks come first. */
        uint below = b < own ? row + 1 : row;
        uint low = b * SORT_BLOCK, high = min(low + SORT_BLOCK, p.count);
        while (low < high) {
            uint middle = (low + high) / 2;
            if (in[middle] < below)
                low = middle + 1;
            else
                high = middle;
        }
        place += low - b * SORT_BLOCK;
    }
    rows[p.rows_at + place] = row;
    tokens[p.tokens_at + place] = block_tokens[p.block_tokens_at + i];
}

/* A workgroup sums 128 columns along a chunk of the sorted tokens. Partial sums: row 2 i is of what
 * chunk i takes over from the one before, row 2 i + 1 of what begins in it and goes on after it. */
kernel void embedding_bwd_sum(global const float *dy, global const uint *rows,
                              global const uint *tokens, global float *dtable,
                              global float *partial, const struct sum_args p)
{
    uint chunk = GROUP / p.tiles, col = GROUP % p.tiles * LANES + LANE;
    uint begin = chunk * p.chunk, end = min(begin + p.chunk, p.count);
    if (col >= p.cols || begin >= end)
        return;
    rows += p.rows_at;
    tokens += p.tokens_at;
    uint row = rows[begin];
    bool open = begin > 0 && rows[begin - 1] == row;
    float sum = 0.0f;
    for (uint i = begin; i < end; i++) {
        sum += dy[p.dy_at + tokens[i] * p.dy_ld + col];
        uint next = i + 1 < p.count ? rows[i + 1] : row + 1;
        if (next == row && i + 1 < end)
            continue;
        if (open || next == row) {
            partial[p.partial_at + (2 * chunk + (open ? 0 : 1)) * p.cols + col] = sum;
        } else {
            uint to = p.dtable_at + row * p.dtable_ld + col;
            dtable[to] = p.accumulate ? dtable[to] + sum : sum;
        }
        open = false;
        row = next;
        sum = 0.0f;
    }
}

/* A workgroup joins 128 columns of the row that begins in a chunk and goes on after it. */
kernel void embedding_bwd_join(global const uint *rows, global const float *partial,
                               global float *dtable, const struct join_args p)
{
    uint chunk = GROUP / p.tiles, col = GROUP % p.tiles * LANES + LANE;
    uint begin = chunk * p.chunk, end = begin + p.chunk;
    if (col >= p.cols || end >= p.count)
        return;
    rows += p.rows_at;
    uint row = rows[end];
    if (rows[end - 1] != row || (begin > 0 && rows[begin - 1] == row))
        return;
    partial += p.partial_at + col;
    float sum = partial[(2 * chunk + 1) * p.cols];
    while (end < p.count && rows[end] == row) {
        chunk++;
        end += p.chunk;
        sum += partial[2 * chunk * p.cols];
    }
    uint to = p.dtable_at + row * p.dtable_ld + col;
    dtable[to] = p.accumulate ? dtable[to] + sum : sum;
}

/* ---- position_embedding ---------------------------------------------------------------------- */

/* A workgroup takes 128 elements. */
kernel void position_embedding(global const float *x, global const table_type *table,
                               global const int *start, global float *y,
                               const struct position_args p)
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row >= p.rows)
        return;
    uint first = p.started ? (uint)max(start[p.start_at + row / p.steps], 0) : 0;
    uint position = min(first + row % p.steps, p.positions - 1);
    y[p.y_at + row * p.y_ld + col] =
        x[p.x_at + row * p.x_ld + col] +
        TABLE_ELEMENT(table, p.table_at, p.scales, position * p.table_ld + col);
}

/* A workgroup sums 128 elements of the table over the batch. */
kernel void position_embedding_bwd(global const float *dy, global float *dtable,
                                   const struct position_bwd_args p)
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row >= p.positions)
        return;
    float sum = 0.0f;
    for (uint b = 0; row < p.steps && b < p.batch; b++)
        sum += dy[p.dy_at + (b * p.steps + row) * p.dy_ld + col];
    dtable[p.dtable_at + row * p.dtable_ld + col] = sum;
}
