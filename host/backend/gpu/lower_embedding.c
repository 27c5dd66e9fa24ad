/* Lowering of the embeddings (contracts: host/ops/embedding.c). */
#include "args/embedding.clh"
#include "backend/gpu/lower.h"

/* A grid with an invocation for each of n elements. */
static void invocations(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d, int64_t n)
{
    itera_gpu_groups(l, d, itera_gpu_div_up(n, ITERA_GPU_LOCAL), 1, 1);
}

static void table_storage(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d, int32_t table)
{
    ITERA_GPU_CONSTANT(d, TABLE_TYPE, itera_gpu_tensor(l, table)->dtype);
}

enum itera_status itera_lower_embedding(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->out[0]), cols = itera_gpu_cols(l, op->out[0]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "embedding");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(
        d, embedding_args, .rows = rows, .cols = cols, .ids_cols = itera_gpu_cols(l, op->in[1]),
        .table_rows = itera_gpu_rows(l, op->in[0]), .scales = itera_gpu_scales(l, op->in[0]));
    table_storage(l, d, op->in[0]);
    invocations(l, d, rows * cols);
    return ITERA_OK;
}

/* The tokens in the order of their table rows: lists of `count` rows and tokens. */
struct sorted {
    struct itera_gpu_scratch rows, tokens;
    int64_t count;
};

static struct sorted new_list(struct itera_gpu_lowering *l, int64_t count)
{
    return (struct sorted){itera_gpu_scratch(l, count), itera_gpu_scratch(l, count), count};
}

static void use_list(struct itera_gpu_dispatch *d, const struct sorted *list, int access)
{
    itera_gpu_use(d, list->rows, access);
    itera_gpu_use(d, list->tokens, access);
}

static struct sorted sort_tokens(struct itera_gpu_lowering *l, int32_t ids, int64_t count,
                                 int64_t table_rows)
{
    struct sorted blocks = new_list(l, count);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "embedding_bwd_sort");
    itera_gpu_in(l, d, ids);
    use_list(d, &blocks, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, sort_args, .count = count, .ids_cols = itera_gpu_cols(l, ids),
                   .table_rows = table_rows);
    invocations(l, d, count);
    if (count <= SORT_BLOCK)
        return blocks;

    struct sorted all = new_list(l, count);
    d = itera_gpu_begin(l, "embedding_bwd_merge");
    use_list(d, &blocks, ITERA_GPU_READ);
    use_list(d, &all, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, merge_args, .count = count);
    invocations(l, d, count);
    return all;
}

static void add_table(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                      const struct itera_op *op)
{
    if (op->attr.accumulate)
        itera_gpu_inout(l, d, op->out[0]);
    else
        itera_gpu_out(l, d, op->out[0]);
}

/* The words of the passes over chunks of the list (sum_args and join_args), and their grid. */
#define CHUNK_WORDS(l, op, count_, chunk_)                                                         \
    .count = (count_), .cols = itera_gpu_cols(l, (op)->out[0]), .chunk = (chunk_),                 \
    .tiles = tiles_of(l, op), .accumulate = (op)->attr.accumulate

static int64_t tiles_of(const struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return itera_gpu_div_up(itera_gpu_cols(l, op->out[0]), ITERA_GPU_LOCAL);
}

static void over_chunks(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                        const struct itera_op *op, int64_t count, int64_t chunk)
{
    itera_gpu_groups(l, d, itera_gpu_div_up(count, chunk) * tiles_of(l, op), 1, 1);
}

enum itera_status itera_lower_embedding_bwd(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    int32_t dy = op->in[0], dtable = op->out[0];
    int64_t count = itera_gpu_rows(l, dy), rows = itera_gpu_rows(l, dtable);
    int64_t cols = itera_gpu_cols(l, dtable);
    struct itera_gpu_dispatch *d;
    if (!op->attr.accumulate) {
        d = itera_gpu_begin(l, "embedding_bwd_clear");
        itera_gpu_out(l, d, dtable);
        ITERA_GPU_ARGS(d, clear_args, .rows = rows, .cols = cols);
        invocations(l, d, rows * cols);
    }
    if (count == 0 || cols == 0)
        return ITERA_OK;
    struct sorted list = sort_tokens(l, op->in[1], count, rows);

    /* Were all tokens the same, one workgroup would add up as many partial sums as there are
     * chunks. */
    int64_t chunk = 32;
    while (chunk < 256 && chunk * chunk < count)
        chunk *= 2;
    struct itera_gpu_scratch partial =
        itera_gpu_scratch(l, 2 * itera_gpu_div_up(count, chunk) * cols);
    d = itera_gpu_begin(l, "embedding_bwd_sum");
    itera_gpu_in(l, d, dy);
    use_list(d, &list, ITERA_GPU_READ);
    add_table(l, d, op);
    itera_gpu_use(d, partial, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, sum_args, CHUNK_WORDS(l, op, count, chunk));
    over_chunks(l, d, op, count, chunk);
    if (count <= chunk)
        return ITERA_OK;

    d = itera_gpu_begin(l, "embedding_bwd_join");
    itera_gpu_use(d, list.rows, ITERA_GPU_READ);
    itera_gpu_use(d, partial, ITERA_GPU_READ);
    add_table(l, d, op);
    ITERA_GPU_ARGS(d, join_args, CHUNK_WORDS(l, op, count, chunk));
    over_chunks(l, d, op, count, chunk);
    return ITERA_OK;
}

enum itera_status itera_lower_position_embedding(struct itera_gpu_lowering *l,
                                                 const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->out[0]), cols = itera_gpu_cols(l, op->out[0]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "position_embedding");
    for (int i = 0; i < 3; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, position_args, .rows = rows, .cols = cols,
                   .steps = itera_gpu_dim(l, op->in[0], 1),
                   .positions = itera_gpu_rows(l, op->in[1]), .started = op->in[2] != ITERA_NONE,
                   .scales = itera_gpu_scales(l, op->in[1]));
    table_storage(l, d, op->in[1]);
    invocations(l, d, rows * cols);
    return ITERA_OK;
}

enum itera_status itera_lower_position_embedding_bwd(struct itera_gpu_lowering *l,
                                                     const struct itera_op *op)
{
    int64_t rows = itera_gpu_rows(l, op->out[0]), cols = itera_gpu_cols(l, op->out[0]);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "position_embedding_bwd");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, position_bwd_args, .positions = rows, .cols = cols,
                   .steps = itera_gpu_dim(l, op->in[0], 1),
                   .batch = itera_gpu_dim(l, op->in[0], 0));
    invocations(l, d, rows * cols);
    return ITERA_OK;
}
