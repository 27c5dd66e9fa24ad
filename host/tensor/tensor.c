#include "tensor/tensor.h"

#include <stdio.h>
#include <string.h>

#include "tensor/blocks.h"

const char *itera_dtype_name(enum itera_dtype dtype)
{
    static const char *const names[ITERA_DTYPE_COUNT] = {"f32", "f16", "bf16", "i32", "q8", "q4"};
    return (unsigned)dtype < ITERA_DTYPE_COUNT ? names[dtype] : "?";
}

bool itera_dtype_find(const char *name, enum itera_dtype *dtype)
{
    for (int i = 0; i < ITERA_DTYPE_COUNT; i++) {
        *dtype = (enum itera_dtype)i;
        if (i != ITERA_I32 && !strcmp(name, itera_dtype_name(*dtype)))
            return true;
    }
    return false;
}

size_t itera_dtype_bytes(enum itera_dtype dtype, int64_t elements)
{
    const size_t n = (size_t)elements, blocks = (n + ITERA_BLOCK - 1) / ITERA_BLOCK;
    switch (dtype) {
    case ITERA_F16:
    case ITERA_BF16:
        return n * 2;
    case ITERA_Q8:
    case ITERA_Q4:
        return blocks * (2 + (size_t)itera_block_bytes(dtype));
    default:
        return n * 4;
    }
}

struct itera_shape itera_shape_make(int32_t rank, const int64_t *dim)
{
    struct itera_shape s = {.rank = rank, .dim = {1, 1, 1, 1}};
    for (int i = 0; i < rank; i++)
        s.dim[i] = dim[i];
    s.ld = itera_shape_cols(&s);
    return s;
}

bool itera_shape_equal_dims(const struct itera_shape *a, const struct itera_shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

const char *itera_shape_text(const struct itera_shape *s, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, "(");
    for (int i = 0; i < s->rank && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, i ? ", %lld" : "%lld", (long long)s->dim[i]);
    if (n < size)
        snprintf(out + n, size - n, ")");
    return out;
}
