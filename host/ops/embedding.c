/* Token and position embeddings. Errors are ITERA_ERR_SHAPE unless said otherwise. */
#include "core/log.h"
#include "ops/op.h"
#include "program/autodiff.h"
#include "tensor/blocks.h"

static const int64_t any[ITERA_MAX_RANK] = {-1, -1, -1, -1};

static double operand_bytes(const struct itera_operand_shape *operand)
{
    return 4.0 * (double)itera_shape_elements(&operand->shape);
}

/* A table of any weight type. */
static enum itera_status expect_table(const char *what, const struct itera_operand_shape *table,
                                      const int64_t *dim)
{
    enum itera_status status = itera_expect(what, table, table->dtype, 2, dim);
    const int64_t cols = itera_shape_cols(&table->shape);
    if (status)
        return status;
    if (table->dtype == ITERA_I32)
        return itera_fail(ITERA_ERR_SHAPE, "%s is i32, expected numbers", what);
    if (itera_dtype_is_blocks(table->dtype) && (cols % ITERA_BLOCK || table->shape.ld != cols))
        return itera_fail(ITERA_ERR_SHAPE,
                          "%s is %s with rows of %lld; blocks need whole rows of a multiple of %d",
                          what, itera_dtype_name(table->dtype), (long long)cols, ITERA_BLOCK);
    return ITERA_OK;
}

/* y[..., :] = table[ids[...], :]
 *
 * table (V, H) f32, f16, bf16, or q8 or q4 with H a multiple of 32; V >= 1
 * ids   (...) i32, at most 3 dims; below 0 counts as 0, V and above as V - 1
 * y     (..., H) f32 */
static enum itera_status embedding_infer(const struct itera_attr *attr,
                                         const struct itera_operand_shape *const *in,
                                         struct itera_operand_shape *out)
{
    (void)attr;
    const struct itera_shape *ids = &in[1]->shape;
    enum itera_status status = expect_table("embedding: table", in[0], any);
    if (!status && in[0]->shape.dim[0] < 1)
        status = itera_fail(ITERA_ERR_SHAPE, "embedding: the table has no rows");
    if (!status && (ids->rank < 1 || ids->rank >= ITERA_MAX_RANK))
        status = itera_fail(ITERA_ERR_SHAPE, "embedding: ids has %d dimensions, expected 1 to %d",
                            (int)ids->rank, ITERA_MAX_RANK - 1);
    if (!status)
        status = itera_expect("embedding: ids", in[1], ITERA_I32, ids->rank, any);
    if (status)
        return status;
    int64_t dim[ITERA_MAX_RANK];
    for (int i = 0; i < ids->rank; i++)
        dim[i] = ids->dim[i];
    dim[ids->rank] = in[0]->shape.dim[1];
    itera_out(&out[0], ITERA_F32, ids->rank + 1, dim);
    return ITERA_OK;
}
/* Only the rows asked for are read. */
static void embedding_cost(const struct itera_attr *attr,
                           const struct itera_operand_shape *const *in,
                           const struct itera_operand_shape *const *out, struct itera_cost *cost)
{
    (void)attr;
    cost->bytes = operand_bytes(in[1]) + operand_bytes(out[0]) +
                  (double)itera_dtype_bytes(in[0]->dtype, itera_shape_elements(&out[0]->shape));
}
static void embedding_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t table = op->in[0], dy = itera_ad_of(ad, op->out[0]);
    if (!itera_ad_wants(ad, table) || dy == ITERA_NONE)
        return;
    struct itera_program *p = itera_ad_program(ad);
    int64_t rows = itera_tensor_at(p, table)->shape.dim[0];
    if (rows > INT32_MAX) {
        itera_ad_fail(ad, op, "the table has more than 2^31 rows");
        return;
    }
    struct itera_attr attr = {.count = (int32_t)rows};
    int32_t in[] = {dy, op->in[1]}, out[] = {itera_ad_target(ad, table, &attr.accumulate)};
    itera_record(p, ITERA_OP_embedding_bwd, &attr, in, out);
}
const struct itera_op_def itera_op_embedding = {
    .infer = embedding_infer, .cost = embedding_cost, .grad = embedding_grad};

/* dtable[v, :] = sum of dy[i, :] over ids[i] = v, in the order of i whatever the threads.
 *
 * dy (..., H), ids (...) as in embedding
 * dtable (V, H), V = attr.count; attr.accumulate: added to what dtable holds, else to zeros */
static enum itera_status embedding_bwd_infer(const struct itera_attr *attr,
                                             const struct itera_operand_shape *const *in,
                                             struct itera_operand_shape *out)
{
    enum itera_status status =
        itera_expect("embedding_bwd: dy", in[0], ITERA_F32, in[0]->shape.rank, any);
    if (!status)
        status = itera_expect("embedding_bwd: ids", in[1], ITERA_I32, in[1]->shape.rank, any);
    if (!status && itera_shape_elements(&in[1]->shape) != itera_shape_rows(&in[0]->shape))
        status = itera_fail(ITERA_ERR_SHAPE,
                            "embedding_bwd: %lld ids for the %lld rows of dy, expected as many",
                            (long long)itera_shape_elements(&in[1]->shape),
                            (long long)itera_shape_rows(&in[0]->shape));
    if (!status && attr->count < 1)
        status = itera_fail(ITERA_ERR_ARGUMENT,
                            "embedding_bwd: count (table rows) is %d, expected at least 1",
                            (int)attr->count);
    if (status)
        return status;
    int64_t dim[] = {attr->count, itera_shape_cols(&in[0]->shape)};
    itera_out(&out[0], ITERA_F32, 2, dim);
    return ITERA_OK;
}
static void embedding_bwd_cost(const struct itera_attr *attr,
                               const struct itera_operand_shape *const *in,
                               const struct itera_operand_shape *const *out,
                               struct itera_cost *cost)
{
    cost->flops = operand_bytes(in[0]) / 4.0;
    cost->bytes = operand_bytes(in[1]) + 3.0 * operand_bytes(in[0]);
    if (!attr->accumulate)
        cost->bytes += operand_bytes(out[0]);
}
const struct itera_op_def itera_op_embedding_bwd = {.infer = embedding_bwd_infer,
                                                    .cost = embedding_bwd_cost};

/* y[b,t,:] = x[b,t,:] + table[min(max(start[b], 0) + t, P - 1), :]
 *
 * x, y  (B, T, H) f32; y may be x
 * table (P, H) of any weight type, as in embedding; P >= 1
 * start? (B) i32, contiguous: how far each sequence is; absent: 0, and then T <= P */
static enum itera_status position_embedding_infer(const struct itera_attr *attr,
                                                  const struct itera_operand_shape *const *in,
                                                  struct itera_operand_shape *out)
{
    enum itera_status status = itera_expect("position_embedding: x", in[0], ITERA_F32, 3, any);
    if (status)
        return status;
    const int64_t *dim = in[0]->shape.dim;
    int64_t table[] = {-1, dim[2]};
    status = expect_table("position_embedding: table", in[1], table);
    if (!status && in[2])
        status = itera_expect("position_embedding: start", in[2], ITERA_I32, 1, dim);
    int64_t positions = in[1]->shape.dim[0];
    if (!status && (positions < 1 || (!in[2] && dim[1] > positions)))
        status = itera_fail(ITERA_ERR_SHAPE,
                            "position_embedding: %lld steps, but the table has %lld positions; use "
                            "a shorter sequence",
                            (long long)dim[1], (long long)positions);
    return status ? status : itera_infer_same(attr, in, out);
}
static void position_embedding_cost(const struct itera_attr *attr,
                                    const struct itera_operand_shape *const *in,
                                    const struct itera_operand_shape *const *out,
                                    struct itera_cost *cost)
{
    (void)attr;
    int64_t rows = in[0]->shape.dim[1] * in[0]->shape.dim[2];
    cost->flops = operand_bytes(out[0]) / 4.0;
    cost->bytes = 2.0 * operand_bytes(out[0]) + (double)itera_dtype_bytes(in[1]->dtype, rows);
}
static void position_embedding_grad(struct itera_autodiff *ad, const struct itera_op *op)
{
    int32_t dy = itera_ad_of(ad, op->out[0]), table = op->in[1];
    itera_ad_pass(ad, op->in[0], dy);
    if (!itera_ad_wants(ad, table))
        return;
    int64_t positions = itera_tensor_at(itera_ad_program(ad), table)->shape.dim[0];
    if (op->in[2] != ITERA_NONE || positions > INT32_MAX) {
        itera_ad_fail(ad, op, "its table has a gradient only without start");
        return;
    }
    struct itera_attr attr = {.count = (int32_t)positions};
    int32_t in[] = {dy}, of[] = {table};
    itera_ad_record(ad, ITERA_OP_position_embedding_bwd, &attr, in, of);
}
const struct itera_op_def itera_op_position_embedding = {.infer = position_embedding_infer,
                                                         .cost = position_embedding_cost,
                                                         .grad = position_embedding_grad,
                                                         .inplace = 1};

/* dtable[t, :] = sum over b of dy[b, t, :], zero from T on: dy (B, T, H) -> dtable (P, H),
 * P = attr.count >= T. */
static enum itera_status position_embedding_bwd_infer(const struct itera_attr *attr,
                                                      const struct itera_operand_shape *const *in,
                                                      struct itera_operand_shape *out)
{
    enum itera_status status = itera_expect("position_embedding_bwd: dy", in[0], ITERA_F32, 3, any);
    if (!status && in[0]->shape.dim[1] > attr->count)
        status = itera_fail(ITERA_ERR_SHAPE,
                            "position_embedding_bwd: %lld steps, but count (positions) is %d",
                            (long long)in[0]->shape.dim[1], (int)attr->count);
    if (status)
        return status;
    int64_t dim[] = {attr->count, in[0]->shape.dim[2]};
    itera_out(&out[0], ITERA_F32, 2, dim);
    return ITERA_OK;
}
static void position_embedding_bwd_cost(const struct itera_attr *attr,
                                        const struct itera_operand_shape *const *in,
                                        const struct itera_operand_shape *const *out,
                                        struct itera_cost *cost)
{
    (void)attr;
    (void)out;
    cost->flops = operand_bytes(in[0]) / 4.0;
}
const struct itera_op_def itera_op_position_embedding_bwd = {.infer = position_embedding_bwd_infer,
                                                             .cost = position_embedding_bwd_cost};
