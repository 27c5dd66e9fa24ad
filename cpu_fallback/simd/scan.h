/* What the scan and convolution kernels share: loads of part of a vector, the decay's exponential,
 * and sums over lanes. */
#ifndef ITERA_SIMD_SCAN_H
#define ITERA_SIMD_SCAN_H

#include <stdbool.h>

#include "cpu_fallback/simd/kernel.h"

#define ITERA_INLINE static inline __attribute__((always_inline))

/* A load or store of min(lanes, VF_N) floats; full vectors, nearly all, skip the mask. */
ITERA_INLINE vf vf_load_part(const float *p, int64_t lanes)
{
    return lanes >= VF_N ? vf_load(p) : vf_load_n(p, lanes);
}

ITERA_INLINE void vf_store_part(float *p, vf v, int64_t lanes)
{
    if (lanes >= VF_N)
        vf_store(p, v);
    else
        vf_store_n(p, v, lanes);
}

#define LOG2_E 1.44269504088896f

/* 2^x for x <= 127, relative error below 3e-7 and vanishing with x, so that the slow decays, which
 * a scan multiplies many times over, are the exact ones. x <= -127 gives 0 (AVX-512: when the
 * result underflows); NaN gives NaN. In the scans x is never positive: half the work of vf_exp
 * suffices. 1 + r q(r) interpolates 2^r at the Chebyshev nodes of [-1/2, 1/2]. */
ITERA_INLINE vf vf_exp2_decay(vf x)
{
    vf q = vf_set(0.00133813025f);
#if defined(__AVX512F__)
    vf r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vf n = vf_sub(x, r);
#else
    vf c = vf_max(vf_set(-127.0f), x);
    /* The sum's last bits are round(c) + 127, the exponent field of the result. */
    vf magic = vf_set(12582912.0f + 127.0f);
    vf shifted = vf_add(c, magic);
    vf r = vf_sub(c, vf_sub(shifted, magic));
#endif
    q = vf_fma(q, r, vf_set(0.00966636852f));
    q = vf_fma(q, r, vf_set(0.0555038101f));
    q = vf_fma(q, r, vf_set(0.24022349f));
    q = vf_fma(q, r, vf_set(0.693147181f));
    q = vf_fma(q, r, vf_set(1.0f));
#if defined(__AVX512F__)
    return _mm512_scalef_ps(q, n);
#else
    return vf_mul(q, vi_as_vf(vi_shl(vf_bits(shifted), 23)));
#endif
}

/* out[i] += the sum over lanes of v[i], i = 0 to 3. */
#if defined(__AVX512F__)
ITERA_INLINE void vf_add_sums4(float *out, vf a, vf b, vf c, vf d)
{
    vf ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    vf cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    vf s = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm_loadu_ps(out), sum));
}
#elif defined(__AVX2__)
ITERA_INLINE void vf_add_sums4(float *out, vf a, vf b, vf c, vf d)
{
    vf ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    vf cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    vf s = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm_loadu_ps(out), sum));
}
#else
ITERA_INLINE void vf_add_sums4(float *out, vf a, vf b, vf c, vf d)
{
    vf sum = vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
    vst1q_f32(out, vaddq_f32(vld1q_f32(out), sum));
}
#endif

ITERA_INLINE int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

ITERA_INLINE int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

#endif
