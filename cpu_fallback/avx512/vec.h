/* The vector type of AVX-512 (F, BW, VL, DQ): 16 floats. Same names as in avx2/vec.h. */
#ifndef ITERA_VEC_H
#define ITERA_VEC_H

#include <immintrin.h>
#include <stdint.h>

#define VF_N 16

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

static inline vf vf_set(float x)
{
    return _mm512_set1_ps(x);
}
static inline vf vf_zero(void)
{
    return _mm512_setzero_ps();
}
static inline vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vf_store(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}
/* f16 in memory, as bit patterns; stores round to nearest even. */
static inline vf vf_load_half(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vf vf_set_half(uint16_t x)
{
    return _mm512_set1_ps(_cvtsh_ss(x));
}
static inline void vf_store_half(uint16_t *p, vf v)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
/* bf16 in memory, as bit patterns. */
static inline vf vf_load_bf16(const uint16_t *p)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
static inline __mmask16 vf_lanes(int64_t n)
{
    return (__mmask16)((1u << n) - 1);
}
static inline vf vf_load_n(const float *p, int64_t n)
{
    return _mm512_maskz_loadu_ps(vf_lanes(n), p);
}
static inline vf vf_load_or(const float *p, int64_t n, vf other)
{
    return _mm512_mask_loadu_ps(other, vf_lanes(n), p);
}
static inline void vf_store_n(float *p, vf v, int64_t n)
{
    _mm512_mask_storeu_ps(p, vf_lanes(n), v);
}
static inline vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf vf_fnma(vf a, vf b, vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
static inline vf vf_sqrt(vf a)
{
    return _mm512_sqrt_ps(a);
}
static inline vf vf_abs(vf a)
{
    return _mm512_abs_ps(a);
}
static inline vf vf_neg(vf a)
{
    return _mm512_xor_ps(_mm512_set1_ps(-0.0f), a);
}
static inline vf vf_round(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vm vf_lt(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
static inline vm vf_eq(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
static inline vf vf_select(vm m, vf yes, vf no)
{
    return _mm512_mask_blend_ps(m, no, yes);
}
static inline vi vf_to_vi(vf a)
{
    return _mm512_cvtps_epi32(a);
}
static inline vf vi_to_vf(vi a)
{
    return _mm512_cvtepi32_ps(a);
}
static inline vi vf_bits(vf a)
{
    return _mm512_castps_si512(a);
}
static inline vf vi_as_vf(vi a)
{
    return _mm512_castsi512_ps(a);
}
static inline vi vi_set(int32_t x)
{
    return _mm512_set1_epi32(x);
}
static inline vi vi_load(const int32_t *p)
{
    return _mm512_loadu_si512(p);
}
static inline void vi_store(int32_t *p, vi v)
{
    _mm512_storeu_si512(p, v);
}
static inline vi vi_add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}
static inline vi vi_sub(vi a, vi b)
{
    return _mm512_sub_epi32(a, b);
}
static inline vi vi_and(vi a, vi b)
{
    return _mm512_and_si512(a, b);
}
static inline vi vi_or(vi a, vi b)
{
    return _mm512_or_si512(a, b);
}
static inline vi vi_xor(vi a, vi b)
{
    return _mm512_xor_si512(a, b);
}
#define vi_shl(a, n) _mm512_slli_epi32((a), (n))
#define vi_sar(a, n) _mm512_srai_epi32((a), (n))
#define vi_shr(a, n) _mm512_srli_epi32((a), (n))

/* VF_N bytes in memory: extended by their sign, or by zeros; and stored, cut to [-128, 127]. */
static inline vi vi_load_i8(const int8_t *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}
static inline vi vi_load_u8(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
static inline void vi_store_i8(int8_t *p, vi v)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtsepi32_epi8(v));
}
static inline vi vi_max(vi a, vi b)
{
    return _mm512_max_epi32(a, b);
}
static inline int32_t vi_hmax(vi a)
{
    return _mm512_reduce_max_epi32(a);
}
static inline int32_t vi_sum(vi a)
{
    return _mm512_reduce_add_epi32(a);
}

/* Lanes of 64 bits, for Philox: VF_N / 2 of them. */
static inline vi vi_set64(uint64_t x)
{
    return _mm512_set1_epi64((long long)x);
}
static inline vi vi_load64(const uint64_t *p)
{
    return _mm512_loadu_si512(p);
}
static inline vi vi_add64(vi a, vi b)
{
    return _mm512_add_epi64(a, b);
}
#define vi_shr64(a, n) _mm512_srli_epi64((a), (n))
#define vi_shl64(a, n) _mm512_slli_epi64((a), (n))
static inline vi vi_mul_low(vi a, vi b)
{
    return _mm512_mul_epu32(a, b);
}
static inline vi vi_even64(vi a, vi b)
{
    return _mm512_unpacklo_epi64(a, b);
}
static inline vi vi_odd64(vi a, vi b)
{
    return _mm512_unpackhi_epi64(a, b);
}

typedef __m512d vd;
static inline vd vd_zero(void)
{
    return _mm512_setzero_pd();
}
static inline vd vf_low_vd(vf a)
{
    return _mm512_cvtps_pd(_mm512_castps512_ps256(a));
}
static inline vd vf_high_vd(vf a)
{
    return _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
}
static inline vd vd_add(vd a, vd b)
{
    return _mm512_add_pd(a, b);
}
static inline vd vd_fma(vd a, vd b, vd c)
{
    return _mm512_fmadd_pd(a, b, c);
}
static inline double vd_sum(vd a)
{
    return _mm512_reduce_add_pd(a);
}

static inline float vf_sum(vf a)
{
    return _mm512_reduce_add_ps(a);
}
static inline float vf_hmax(vf a)
{
    return _mm512_reduce_max_ps(a);
}

#endif
