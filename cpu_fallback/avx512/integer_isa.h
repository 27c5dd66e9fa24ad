/* Steps of the integer products for AVX-512, with VNNI where the level has it. */
#ifndef ITERA_INTEGER_ISA_H
#define ITERA_INTEGER_ISA_H

#include "cpu_fallback/avx2/dot_i8.h"

#include "vec.h"

#define MI_ROWS 6 /* rows of a tile */

/* Tiles: each int32 lane is a column. w holds four steps along k of each column (a q4 as its
 * unsigned nibble, a q8 plus MI_OFFSET_Q8), a the same four of a row, in every lane. */

#ifdef __AVX512VNNI__
static inline vi mi_step_q8(vi acc, vi w, vi a)
{
    return _mm512_dpbusd_epi32(acc, w, a);
}
static inline vi mi_step_q4(vi acc, vi w, vi a)
{
    return _mm512_dpbusd_epi32(acc, w, a);
}
static inline vi mi_end_q4(vi acc)
{
    return acc;
}
#else
static inline vi mi_step_q8(vi acc, vi w, vi a)
{
    /* The sign goes to a, whose values lie in [-127, 127]: |-128| is 128 as an unsigned byte. */
    vi s = _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(w), _mm512_setzero_si512(), a);
    vi pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w), s);
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
/* The eight steps of a block stay in 16 bits: 8 * 2 * 15 * 127 < 2^15. */
static inline vi mi_step_q4(vi acc, vi w, vi a)
{
    return _mm512_add_epi16(acc, _mm512_maddubs_epi16(w, a));
}
static inline vi mi_end_q4(vi acc)
{
    return _mm512_madd_epi16(acc, _mm512_set1_epi16(1));
}
#endif

#endif
