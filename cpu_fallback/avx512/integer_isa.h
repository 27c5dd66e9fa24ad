/* Steps of the integer products for AVX-512, with VNNI where the level has it. */
#ifndef ITERA_INTEGER_ISA_H
#define ITERA_INTEGER_ISA_H

#include "cpu_fallback/avx2/dot_i8.h"

#include "vec.h"

#define MI_ROWS 6 /* rows of a tile */
#define MI_VECS 2 /* vectors in a row of it */

#ifdef __AVX512VNNI__
/* Tiles: each int32 lane is a column. w holds four steps along k of each column, as the unsigned q8
 * + 128 or the unsigned nibbles of q4; a the same four steps of a row, in every lane. */
#define MI_Q8_PARTS 1

static inline vi mi_step(vi acc, vi w, vi a)
{
    return _mm512_dpbusd_epi32(acc, w, a);
}
static inline vi mi_end(vi acc, int factor)
{
    (void)factor;
    return acc;
}
#else
/* Tiles: each int32 lane is a column. w holds four steps along k of each column as unsigned nibbles:
 * those of q4, or first the low, then the high halves of q8 + 128. a holds the same four steps of a
 * row, in every lane. Two multiplications of nibbles, whose sums stay in 16 bits, cost less than
 * one of bytes, whose pairs of products must go to 32 bits at each step. */
#define MI_Q8_PARTS 2

/* The eight steps of a block: 8 * 2 * 15 * 127 < 2^15. */
static inline vi mi_step(vi acc, vi w, vi a)
{
    return _mm512_add_epi16(acc, _mm512_maddubs_epi16(w, a));
}
/* The sums in 32 bits, times `factor`. */
static inline vi mi_end(vi acc, int factor)
{
    return _mm512_madd_epi16(acc, _mm512_set1_epi16((int16_t)factor));
}
#endif

#endif
