/* Element types and the shape of a tensor as every op sees it: a matrix of rows with one stride. */
#ifndef ITERA_TENSOR_TENSOR_H
#define ITERA_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum itera_dtype {
    ITERA_F32,
    ITERA_F16,
    ITERA_BF16,
    ITERA_I32,
    ITERA_Q8, /* blocks of 32 with a scale: tensor/blocks.h */
    ITERA_Q4,
    ITERA_DTYPE_COUNT,
};

const char *itera_dtype_name(enum itera_dtype dtype);
/* Of `elements` elements; whole blocks for the block types. */
size_t itera_dtype_bytes(enum itera_dtype dtype, int64_t elements);
/* f32, f16, bf16, q8, q4. False when `name` is none of them. */
bool itera_dtype_find(const char *name, enum itera_dtype *dtype);

#define ITERA_MAX_RANK 4

/* dim[0..rank-1], slowest first; the last dimension is contiguous. Seen as a matrix, a tensor has
 * dim[rank-1] columns and as many rows as the product of the other dimensions; row r starts at
 * element r * ld. A plain tensor has ld == columns; a column slice has a larger ld. Unused dims
 * are 1. */
struct itera_shape {
    int32_t rank;
    int64_t dim[ITERA_MAX_RANK];
    int64_t ld;
};

struct itera_shape itera_shape_make(int32_t rank, const int64_t *dim);
static inline int64_t itera_shape_cols(const struct itera_shape *s)
{
    return s->rank ? s->dim[s->rank - 1] : 1;
}
static inline int64_t itera_shape_rows(const struct itera_shape *s)
{
    int64_t rows = 1;
    for (int i = 0; i + 1 < s->rank; i++)
        rows *= s->dim[i];
    return rows;
}
static inline int64_t itera_shape_elements(const struct itera_shape *s)
{
    return itera_shape_rows(s) * itera_shape_cols(s);
}
/* Elements from the first to the last, the gaps between rows included. */
static inline int64_t itera_shape_span(const struct itera_shape *s)
{
    int64_t rows = itera_shape_rows(s), cols = itera_shape_cols(s);
    return rows && cols ? (rows - 1) * s->ld + cols : 0;
}
bool itera_shape_equal_dims(const struct itera_shape *a, const struct itera_shape *b);
/* "(2, 3, 4)" into a caller's buffer; returns it. */
const char *itera_shape_text(const struct itera_shape *s, char *out, size_t size);

#endif
