/* Steps of the integer products for AVX2. */
#ifndef ITERA_INTEGER_ISA_H
#define ITERA_INTEGER_ISA_H

#include "cpu_fallback/avx2/dot_i8.h"

#include "vec.h"

#define MI_ROWS 4 /* rows of a tile */

/* Tiles: each int32 lane is a column. w holds four steps along k of each column (a q4 as its
 * unsigned nibble), a the same four of a row, in every lane. */

static inline vi mi_step_q8(vi acc, vi w, vi a)
{
    return _mm256_add_epi32(acc, mi_dot_us(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w)));
}
/* The eight steps of a block stay in 16 bits: 8 * 2 * 15 * 127 < 2^15. */
static inline vi mi_step_q4(vi acc, vi w, vi a)
{
    return _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, a));
}
static inline vi mi_end_q4(vi acc)
{
    return _mm256_madd_epi16(acc, _mm256_set1_epi16(1));
}

#endif
