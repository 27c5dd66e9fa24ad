/* Dot products of int8 blocks in vectors of 256 bits: AVX2, and with VNNI where the level has it.
 * A block is 32 elements (host/tensor/blocks.h); sums are exact, their eight lanes are f32. */
#ifndef ITERA_DOT_I8_H
#define ITERA_DOT_I8_H

#include <immintrin.h>
#include <stdint.h>

#define MI_LANES 8 /* rows of b that go side by side */
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define MI_UNSIGNED_Q8 1 /* q8 is taken as the unsigned q8 + 128 */
#else
#define MI_UNSIGNED_Q8 0
#endif

typedef __m256 mi_sums;
typedef __m256i mi_block;

static inline mi_sums mi_zero(void)
{
    return _mm256_setzero_ps();
}
static inline mi_block mi_load(const int8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

/* Sums of four products of unsigned u (at most 128 where there is no VNNI: the pairs of products
 * are then below 2^15) and signed s. */
static inline __m256i mi_dot_us(__m256i u, __m256i s)
{
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return _mm256_dpbusd_epi32(_mm256_setzero_si256(), u, s);
#else
    return _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1));
#endif
}

/* acc + scale * (sums of the products of q8 block w and block a) */
static inline mi_sums mi_add_q8(mi_sums acc, const uint8_t *w, mi_block a, float scale)
{
    __m256i q = mi_load((const int8_t *)w);
#if MI_UNSIGNED_Q8
    __m256i dot = mi_dot_us(_mm256_xor_si256(q, _mm256_set1_epi8(-128)), a);
#else
    /* The sign goes to a, whose values lie in [-127, 127]: |-128| is 128 as an unsigned byte. */
    __m256i dot = mi_dot_us(_mm256_abs_epi8(q), _mm256_sign_epi8(a, q));
#endif
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_set1_ps(scale), acc);
}

/* The same for a q4 block, taken as unsigned nibbles. */
static inline mi_sums mi_add_q4(mi_sums acc, const uint8_t *w, mi_block a, float scale)
{
    __m256i q = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)w));
    q = _mm256_srlv_epi64(q, _mm256_setr_epi64x(0, 0, 4, 4));
    q = _mm256_and_si256(q, _mm256_set1_epi8(15));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(mi_dot_us(q, a)), _mm256_set1_ps(scale), acc);
}

/* acc - x y over the first n lanes, 1 <= n. */
static inline mi_sums mi_take(mi_sums acc, const float *x, const float *y, int64_t n)
{
    if (n >= MI_LANES)
        return _mm256_fnmadd_ps(_mm256_loadu_ps(x), _mm256_loadu_ps(y), acc);
    __m256i lanes =
        _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    return _mm256_fnmadd_ps(_mm256_maskload_ps(x, lanes), _mm256_maskload_ps(y, lanes), acc);
}

/* out[i] is the sum of r[i]'s lanes. */
static inline void mi_reduce(const mi_sums r[MI_LANES], float *out)
{
    __m256 lo = _mm256_hadd_ps(_mm256_hadd_ps(r[0], r[1]), _mm256_hadd_ps(r[2], r[3]));
    __m256 hi = _mm256_hadd_ps(_mm256_hadd_ps(r[4], r[5]), _mm256_hadd_ps(r[6], r[7]));
    _mm256_storeu_ps(
        out, _mm256_add_ps(_mm256_blend_ps(lo, hi, 0xf0), _mm256_permute2f128_ps(lo, hi, 0x21)));
}

#endif
