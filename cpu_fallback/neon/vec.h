/* The vector type of AArch64 NEON: 4 floats. Same names as in avx2/vec.h. */
#ifndef ITERA_VEC_H
#define ITERA_VEC_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define VF_N 4

typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint32x4_t vm;

static inline vf vf_set(float x)
{
    return vdupq_n_f32(x);
}
static inline vf vf_zero(void)
{
    return vdupq_n_f32(0);
}
static inline vf vf_load(const float *p)
{
    return vld1q_f32(p);
}
static inline void vf_store(float *p, vf v)
{
    vst1q_f32(p, v);
}
/* f16 in memory, as bit patterns; stores round to nearest even. */
static inline vf vf_load_half(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static inline vf vf_set_half(uint16_t x)
{
    return vdupq_laneq_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(x))), 0);
}
static inline void vf_store_half(uint16_t *p, vf v)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v)));
}
/* bf16 in memory, as bit patterns. */
static inline vf vf_load_bf16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
static inline vf vf_load_n(const float *p, int64_t n)
{
    float t[4] = {0};
    for (int64_t i = 0; i < n; i++)
        t[i] = p[i];
    return vld1q_f32(t);
}
static inline vf vf_load_or(const float *p, int64_t n, vf other)
{
    float t[4];
    vst1q_f32(t, other);
    for (int64_t i = 0; i < n; i++)
        t[i] = p[i];
    return vld1q_f32(t);
}
static inline void vf_store_n(float *p, vf v, int64_t n)
{
    float t[4];
    vst1q_f32(t, v);
    for (int64_t i = 0; i < n; i++)
        p[i] = t[i];
}
static inline vf vf_add(vf a, vf b)
{
    return vaddq_f32(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return vsubq_f32(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return vmulq_f32(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return vdivq_f32(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}
static inline vf vf_fnma(vf a, vf b, vf c)
{
    return vfmsq_f32(c, a, b);
}
static inline vf vf_max(vf a, vf b) /* b where either is NaN, as on x86 */
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
static inline vf vf_sqrt(vf a)
{
    return vsqrtq_f32(a);
}
static inline vf vf_abs(vf a)
{
    return vabsq_f32(a);
}
static inline vf vf_neg(vf a)
{
    return vnegq_f32(a);
}
static inline vf vf_round(vf a)
{
    return vrndnq_f32(a);
}
static inline vm vf_lt(vf a, vf b)
{
    return vcltq_f32(a, b);
}
static inline vm vf_eq(vf a, vf b)
{
    return vceqq_f32(a, b);
}
static inline vf vf_select(vm m, vf yes, vf no)
{
    return vbslq_f32(m, yes, no);
}
static inline vi vf_to_vi(vf a)
{
    return vcvtnq_s32_f32(a);
}
static inline vf vi_to_vf(vi a)
{
    return vcvtq_f32_s32(a);
}
static inline vi vf_bits(vf a)
{
    return vreinterpretq_s32_f32(a);
}
static inline vf vi_as_vf(vi a)
{
    return vreinterpretq_f32_s32(a);
}
static inline vi vi_set(int32_t x)
{
    return vdupq_n_s32(x);
}
static inline vi vi_load(const int32_t *p)
{
    return vld1q_s32(p);
}
static inline void vi_store(int32_t *p, vi v)
{
    vst1q_s32(p, v);
}
static inline vi vi_add(vi a, vi b)
{
    return vaddq_s32(a, b);
}
static inline vi vi_sub(vi a, vi b)
{
    return vsubq_s32(a, b);
}
static inline vi vi_and(vi a, vi b)
{
    return vandq_s32(a, b);
}
static inline vi vi_or(vi a, vi b)
{
    return vorrq_s32(a, b);
}
static inline vi vi_xor(vi a, vi b)
{
    return veorq_s32(a, b);
}
#define vi_shl(a, n) vshlq_n_s32((a), (n))
#define vi_sar(a, n) vshrq_n_s32((a), (n))
#define vi_shr(a, n) vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a), (n)))

/* VF_N bytes in memory: extended by their sign, or by zeros; and stored, cut to [-128, 127]. */
static inline vi vi_load_i8(const int8_t *p)
{
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes)))));
}
static inline vi vi_load_u8(const uint8_t *p)
{
    uint32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return vreinterpretq_s32_u32(
        vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(bytes))))));
}
static inline void vi_store_i8(int8_t *p, vi v)
{
    int16x4_t x = vqmovn_s32(v);
    int32_t bytes = vget_lane_s32(vreinterpret_s32_s8(vqmovn_s16(vcombine_s16(x, x))), 0);
    memcpy(p, &bytes, sizeof bytes);
}
static inline vi vi_max(vi a, vi b)
{
    return vmaxq_s32(a, b);
}
static inline int32_t vi_hmax(vi a)
{
    return vmaxvq_s32(a);
}
static inline int32_t vi_sum(vi a)
{
    return vaddvq_s32(a);
}

/* Lanes of 64 bits, for Philox: VF_N / 2 of them. */
static inline vi vi_set64(uint64_t x)
{
    return vreinterpretq_s32_u64(vdupq_n_u64(x));
}
static inline vi vi_load64(const uint64_t *p)
{
    return vreinterpretq_s32_u64(vld1q_u64(p));
}
static inline vi vi_add64(vi a, vi b)
{
    return vreinterpretq_s32_u64(vaddq_u64(vreinterpretq_u64_s32(a), vreinterpretq_u64_s32(b)));
}
#define vi_shr64(a, n) vreinterpretq_s32_u64(vshrq_n_u64(vreinterpretq_u64_s32(a), (n)))
#define vi_shl64(a, n) vreinterpretq_s32_u64(vshlq_n_u64(vreinterpretq_u64_s32(a), (n)))
static inline vi vi_mul_low(vi a, vi b)
{
    uint32x2_t x = vmovn_u64(vreinterpretq_u64_s32(a));
    uint32x2_t y = vmovn_u64(vreinterpretq_u64_s32(b));
    return vreinterpretq_s32_u64(vmull_u32(x, y));
}
static inline vi vi_even64(vi a, vi b)
{
    return vreinterpretq_s32_u64(vtrn1q_u64(vreinterpretq_u64_s32(a), vreinterpretq_u64_s32(b)));
}
static inline vi vi_odd64(vi a, vi b)
{
    return vreinterpretq_s32_u64(vtrn2q_u64(vreinterpretq_u64_s32(a), vreinterpretq_u64_s32(b)));
}

typedef float64x2_t vd;
static inline vd vd_zero(void)
{
    return vdupq_n_f64(0);
}
static inline vd vf_low_vd(vf a)
{
    return vcvt_f64_f32(vget_low_f32(a));
}
static inline vd vf_high_vd(vf a)
{
    return vcvt_high_f64_f32(a);
}
static inline vd vd_add(vd a, vd b)
{
    return vaddq_f64(a, b);
}
static inline vd vd_fma(vd a, vd b, vd c)
{
    return vfmaq_f64(c, a, b);
}
static inline double vd_sum(vd a)
{
    return vaddvq_f64(a);
}

static inline float vf_sum(vf a)
{
    return vaddvq_f32(a);
}
static inline float vf_hmax(vf a)
{
    return vmaxvq_f32(a);
}

#endif
