/* Weights of any type, a run of elements at a time: what embeddings and the packing of products
 * read. */
#ifndef ITERA_SIMD_EXPAND_H
#define ITERA_SIMD_EXPAND_H

#include "cpu_fallback/simd/kernel.h"
#include "tensor/blocks.h"

/* Weights from some element on. */
struct itera_weights {
    enum itera_dtype dtype;
    const uint8_t *data;    /* f32, f16, bf16, or the bytes of blocks */
    const uint16_t *scales; /* of blocks; else NULL */
};

/* All of an operand's. */
static inline struct itera_weights itera_weights(const struct itera_arg *x)
{
    struct itera_weights w = {x->dtype, x->data, NULL};
    if (itera_dtype_is_blocks(x->dtype))
        w.scales = itera_blocks_at(x->dtype, x->data, x->rows * x->cols, 0).scales;
    return w;
}

/* The bytes of n elements, without scales. */
static inline int64_t itera_weights_bytes(enum itera_dtype dtype, int64_t n)
{
    switch (dtype) {
    case ITERA_Q4:
        return n / 2;
    case ITERA_Q8:
        return n;
    case ITERA_F32:
        return 4 * n;
    default:
        return 2 * n;
    }
}

/* Those from element i on; with blocks a multiple of 32. */
static inline struct itera_weights itera_weights_from(struct itera_weights w, int64_t i)
{
    w.data += itera_weights_bytes(w.dtype, i);
    if (w.scales)
        w.scales += i / ITERA_BLOCK;
    return w;
}

/* The first n elements as f32 (with blocks, n is a multiple of 32). */
#define itera_expand ITERA_SIMD(expand)
void itera_expand(struct itera_weights w, int64_t n, float *to);

/* n halves as f32: the scales of blocks. */
#define itera_expand_half ITERA_SIMD(expand_half)
void itera_expand_half(const uint16_t *from, int64_t n, float *to);

#endif
