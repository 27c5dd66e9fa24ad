/* Dot products of int8 blocks in vectors of 256 bits: AVX2, and with VNNI where the level has it.
 * A block is 32 elements (host/tensor/blocks.h); sums are exact, their eight lanes are f32. */
#ifndef ITERA_DOT_I8_H
#define ITERA_DOT_I8_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define MI_LANES 4 /* rows of b that go side by side */
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define MI_UNSIGNED_Q8 1 /* q8 is taken as the unsigned q8 + 128 */
#else
#define MI_UNSIGNED_Q8 0
#endif

typedef __m256 mi_sums;

/* Two blocks of a, as the products want them; `one`: of a single block, the other is 0. */
struct mi_pair {
    __m256i x[2];
    __m256i less[2]; /* what sums begin with, as unsigned values of b are too large */
};

static inline mi_sums mi_zero(void)
{
    return _mm256_setzero_ps();
}
static inline __m256i mi_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

#if MI_UNSIGNED_Q8
/* acc + sums of four products of unsigned u and signed s, as int32. */
static inline __m256i mi_dot_us(__m256i acc, __m256i u, __m256i s)
{
    return _mm256_dpbusd_epi32(acc, u, s);
}
static inline __m256i mi_minus(__m256i x)
{
    return _mm256_sub_epi32(_mm256_setzero_si256(), x);
}
static inline __m256 mi_sums_of(__m256i dot)
{
    return _mm256_cvtepi32_ps(dot);
}
#else
/* acc + sums of two products of unsigned u and signed s, as int16: u is at most 128 where there is
 * one product, at most 15 where there are more. */
static inline __m256i mi_dot_us(__m256i acc, __m256i u, __m256i s)
{
    return _mm256_add_epi16(acc, _mm256_maddubs_epi16(u, s));
}
static inline __m256i mi_minus(__m256i x)
{
    return _mm256_sub_epi16(_mm256_setzero_si256(), x);
}
static inline __m256 mi_sums_of(__m256i dot)
{
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(dot, _mm256_set1_epi16(1)));
}
#endif

/* For q8, blocks stay apart. */
static inline struct mi_pair mi_pair_q8(const int8_t *a, const bool one)
{
    struct mi_pair p = {.x = {mi_load(a), one ? _mm256_setzero_si256() : mi_load(a + 32)}};
#if MI_UNSIGNED_Q8
    for (int i = 0; i < 2; i++)
        p.less[i] = mi_minus(mi_dot_us(_mm256_setzero_si256(), _mm256_set1_epi8(-128), p.x[i]));
#endif
    return p;
}

/* For q4, first the first halves of both blocks, then the second, as nibbles lie. */
static inline struct mi_pair mi_pair_q4(const int8_t *a, const bool one)
{
    const __m256i first = mi_load(a), second = one ? _mm256_setzero_si256() : mi_load(a + 32);
    const __m256i zero = _mm256_setzero_si256(), eight = _mm256_set1_epi8(8);
    struct mi_pair p = {.x = {_mm256_permute2x128_si256(first, second, 0x20),
                              _mm256_permute2x128_si256(first, second, 0x31)}};
    p.less[0] = mi_minus(mi_dot_us(mi_dot_us(zero, eight, p.x[0]), eight, p.x[1]));
    return p;
}

/* The sums of the products of a q8 block and block i of the pair. */
static inline __m256 mi_block_q8(__m256i q, const struct mi_pair *p, const int i)
{
#if MI_UNSIGNED_Q8
    return mi_sums_of(mi_dot_us(p->less[i], _mm256_xor_si256(q, _mm256_set1_epi8(-128)), p->x[i]));
#else
    /* The sign goes to a, whose values lie in [-127, 127]: |-128| is 128 as an unsigned byte. */
    return mi_sums_of(_mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(p->x[i], q)));
#endif
}

/* acc + the products of two blocks of b, or of one, each times its scale. */
static inline mi_sums mi_add_q8(mi_sums acc, const uint8_t *w, struct mi_pair p, const float *scale,
                                const bool one)
{
    acc = _mm256_fmadd_ps(mi_block_q8(mi_load(w), &p, 0), _mm256_set1_ps(scale[0]), acc);
    if (one)
        return acc;
    return _mm256_fmadd_ps(mi_block_q8(mi_load(w + 32), &p, 1), _mm256_set1_ps(scale[1]), acc);
}
static inline mi_sums mi_add_q4(mi_sums acc, const uint8_t *w, struct mi_pair p, const float *scale,
                                const bool one)
{
    const __m256i low = _mm256_set1_epi8(15), lanes = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    __m256i q;
    __m256 factor;
    if (one) {
        q = _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)w));
        factor = _mm256_set1_ps(scale[0]);
    } else {
        double both;
        memcpy(&both, scale, sizeof both);
        q = mi_load(w);
        factor = _mm256_permutevar_ps(_mm256_castpd_ps(_mm256_set1_pd(both)), lanes);
    }
    __m256i dot = mi_dot_us(p.less[0], _mm256_and_si256(q, low), p.x[0]);
    dot = mi_dot_us(dot, _mm256_and_si256(_mm256_srli_epi16(q, 4), low), p.x[1]);
    return _mm256_fmadd_ps(mi_sums_of(dot), factor, acc);
}

/* out[i] is the sum of r[i]'s lanes. */
static inline void mi_reduce(const mi_sums r[MI_LANES], float *out)
{
    /* Half the work of horizontal additions. */
    __m256 a = _mm256_add_ps(_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1]));
    __m256 b = _mm256_add_ps(_mm256_unpacklo_ps(r[2], r[3]), _mm256_unpackhi_ps(r[2], r[3]));
    __m256 all = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}

#endif
