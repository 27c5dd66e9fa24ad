/* Weights of any type, element by element: what the reference and the edges of fast kernels read. */
#ifndef ITERA_CPU_WEIGHT_H
#define ITERA_CPU_WEIGHT_H

#include "backend/cpu/kernel.h"
#include "tensor/blocks.h"

/* Element i of the storage of x; blocks have no gaps between rows. */
static inline float itera_weight(const struct itera_arg *x, int64_t i)
{
    switch (x->dtype) {
    case ITERA_F16:
        return itera_f16_to_f32(((const uint16_t *)x->data)[i]);
    case ITERA_BF16:
        return itera_bf16_to_f32(((const uint16_t *)x->data)[i]);
    case ITERA_Q8:
    case ITERA_Q4:
        return itera_blocks_get(x->dtype, itera_blocks_at(x->dtype, x->data, x->rows * x->cols, 0),
                                i);
    default:
        return itera_f32(x)[i];
    }
}

#endif
