/* The vector type of AVX2 + FMA: 8 floats. Same names in avx512/vec.h and neon/vec.h. */
#ifndef ITERA_VEC_H
#define ITERA_VEC_H

#include <immintrin.h>
#include <stdint.h>

#define VF_N 8 /* floats in a vector */

typedef __m256 vf;  /* VF_N floats */
typedef __m256i vi; /* VF_N int32 */
typedef __m256 vm;  /* a lane mask, as comparisons return it */

static inline vf vf_set(float x)
{
    return _mm256_set1_ps(x);
}
static inline vf vf_zero(void)
{
    return _mm256_setzero_ps();
}
static inline vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}
/* f16 in memory, as bit patterns; stores round to nearest even. */
static inline vf vf_load_half(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline vf vf_set_half(uint16_t x)
{
    return _mm256_set1_ps(_cvtsh_ss(x));
}
static inline void vf_store_half(uint16_t *p, vf v)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
/* bf16 in memory, as bit patterns. */
static inline vf vf_load_bf16(const uint16_t *p)
{
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
/* The first n lanes, 0 <= n <= VF_N; the others read as 0 and are not touched in memory. */
static inline __m256i vf_lanes(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf vf_load_n(const float *p, int64_t n)
{
    return _mm256_maskload_ps(p, vf_lanes(n));
}
/* As vf_load_n, the other lanes from `other`. */
static inline vf vf_load_or(const float *p, int64_t n, vf other)
{
    __m256i lanes = vf_lanes(n);
    return _mm256_blendv_ps(other, _mm256_maskload_ps(p, lanes), _mm256_castsi256_ps(lanes));
}
static inline void vf_store_n(float *p, vf v, int64_t n)
{
    _mm256_maskstore_ps(p, vf_lanes(n), v);
}
static inline vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c) /* a b + c */
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline vf vf_fnma(vf a, vf b, vf c) /* c - a b */
{
    return _mm256_fnmadd_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b) /* b where either is NaN */
{
    return _mm256_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
static inline vf vf_sqrt(vf a)
{
    return _mm256_sqrt_ps(a);
}
static inline vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
static inline vf vf_neg(vf a)
{
    return _mm256_xor_ps(_mm256_set1_ps(-0.0f), a);
}
static inline vf vf_round(vf a) /* to the nearest integer */
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vm vf_lt(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}
static inline vm vf_eq(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}
static inline vf vf_select(vm m, vf yes, vf no)
{
    return _mm256_blendv_ps(no, yes, m);
}
static inline vi vf_to_vi(vf a) /* of integral values */
{
    return _mm256_cvtps_epi32(a);
}
static inline vf vi_to_vf(vi a)
{
    return _mm256_cvtepi32_ps(a);
}
static inline vi vf_bits(vf a)
{
    return _mm256_castps_si256(a);
}
static inline vf vi_as_vf(vi a)
{
    return _mm256_castsi256_ps(a);
}
static inline vi vi_set(int32_t x)
{
    return _mm256_set1_epi32(x);
}
static inline vi vi_load(const int32_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
static inline void vi_store(int32_t *p, vi v)
{
    _mm256_storeu_si256((__m256i *)p, v);
}
static inline vi vi_add(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}
static inline vi vi_sub(vi a, vi b)
{
    return _mm256_sub_epi32(a, b);
}
static inline vi vi_and(vi a, vi b)
{
    return _mm256_and_si256(a, b);
}
static inline vi vi_or(vi a, vi b)
{
    return _mm256_or_si256(a, b);
}
static inline vi vi_xor(vi a, vi b)
{
    return _mm256_xor_si256(a, b);
}
#define vi_shl(a, n) _mm256_slli_epi32((a), (n))
#define vi_sar(a, n) _mm256_srai_epi32((a), (n))
#define vi_shr(a, n) _mm256_srli_epi32((a), (n))

/* VF_N bytes in memory: extended by their sign, or by zeros; and stored, cut to [-128, 127]. */
static inline vi vi_load_i8(const int8_t *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
static inline vi vi_load_u8(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
static inline void vi_store_i8(int8_t *p, vi v)
{
    __m128i x = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(x, x));
}
static inline vi vi_max(vi a, vi b)
{
    return _mm256_max_epi32(a, b);
}
static inline int32_t vi_hmax(vi a)
{
    __m128i s = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
static inline int32_t vi_sum(vi a)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* Lanes of 64 bits, for Philox: VF_N / 2 of them. */
static inline vi vi_set64(uint64_t x)
{
    return _mm256_set1_epi64x((long long)x);
}
static inline vi vi_load64(const uint64_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
static inline vi vi_add64(vi a, vi b)
{
    return _mm256_add_epi64(a, b);
}
#define vi_shr64(a, n) _mm256_srli_epi64((a), (n))
#define vi_shl64(a, n) _mm256_slli_epi64((a), (n))
/* The full product of the low, unsigned 32 bits of each lane. */
static inline vi vi_mul_low(vi a, vi b)
{
    return _mm256_mul_epu32(a, b);
}
/* Even (odd) 64-bit lanes of a and b, alternating. */
static inline vi vi_even64(vi a, vi b)
{
    return _mm256_unpacklo_epi64(a, b);
}
static inline vi vi_odd64(vi a, vi b)
{
    return _mm256_unpackhi_epi64(a, b);
}

typedef __m256d vd; /* VF_N / 2 doubles, for long sums */
static inline vd vd_zero(void)
{
    return _mm256_setzero_pd();
}
static inline vd vf_low_vd(vf a) /* the first half of a */
{
    return _mm256_cvtps_pd(_mm256_castps256_ps128(a));
}
static inline vd vf_high_vd(vf a)
{
    return _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1));
}
static inline vd vd_add(vd a, vd b)
{
    return _mm256_add_pd(a, b);
}
static inline vd vd_fma(vd a, vd b, vd c)
{
    return _mm256_fmadd_pd(a, b, c);
}
static inline double vd_sum(vd a)
{
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

static inline float vf_sum(vf a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float vf_hmax(vf a)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

#endif
