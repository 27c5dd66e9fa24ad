/* How far a model's logits may be from the reference's. */
#ifndef ITERA_CHECK_LIMITS_H
#define ITERA_CHECK_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "itera/status.h"

/* Largest difference over the largest value. The reference accumulates in double: the error of a
 * deep model's f32 activations is all there is, and it grows with depth. */
#define ITERA_REFERENCE_LIMIT 1e-4

/* NMSE (itera_integer_nmse) of a model whose products with q8 and q4 weights round activations to int8. A product may add
 * 1e-4 (DESIGN 8, the integer path), a token passes about four in a layer and one at the end, and
 * their errors add up. Outliers among the logits say little, so the largest is not limited. */
static inline double itera_integer_limit(int32_t layers)
{
    return 1e-4 * (1 + 4 * (double)layers);
}

/* NMSE that a product may add whose operands are both rounded to f16 (attr.half of matmul): each is off
 * by 2^-10 of itself at most, which is one unit and what rounding toward zero loses; the mean of the
 * squares is a third of that. Below it, the same of a model on matrix units. */
#define ITERA_CHECK_HALF (2 * 0x1p-20 / 3)
static inline double itera_half_limit(int32_t layers)
{
    return ITERA_CHECK_HALF * (1 + 4 * (double)layers);
}

/* |logits - expected|^2 / |expected|^2 over (positions, vocab). routed: without the tenth of the
 * positions with the largest errors. A router close to a tie then sends a token to another expert,
 * which is another model for this token, not an error that adds up.
 * Errors: ITERA_ERR_MEMORY. */
enum itera_status itera_integer_nmse(const float *logits, const float *expected, int64_t positions,
                                     int64_t vocab, bool routed, double *nmse);

#endif
