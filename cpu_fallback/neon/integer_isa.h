/* Steps of the integer products for NEON, with the dot product instructions where the level has
 * them. A block is 32 elements (host/tensor/blocks.h); sums are exact. */
#ifndef ITERA_INTEGER_ISA_H
#define ITERA_INTEGER_ISA_H

#include "vec.h"

#define MI_LANES       4 /* rows of b that go side by side */
#define MI_UNSIGNED_Q8 0 /* q8 stays signed */
#define MI_ROWS        6 /* rows of a tile */
#define MI_VECS        2 /* vectors in a row of it */

typedef vf mi_sums;
typedef int8x16x2_t mi_block;

static inline mi_sums mi_zero(void)
{
    return vf_zero();
}
static inline mi_block mi_load(const int8_t *p)
{
    return (mi_block){{vld1q_s8(p), vld1q_s8(p + 16)}};
}

/* acc + sums of four products each. a lies in [-127, 127], so that two products stay in 16 bits. */
static inline vi mi_dot(vi acc, int8x16_t w, int8x16_t a)
{
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(acc, w, a);
#else
    int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(a));
    int16x8_t high = vmull_high_s8(w, a);
    return vpadalq_s16(acc, vpaddq_s16(low, high));
#endif
}

/* acc + scale * (sums of the products of q8 block w and block a) */
static inline mi_sums mi_add_q8(mi_sums acc, const uint8_t *w, mi_block a, float scale)
{
    mi_block q = mi_load((const int8_t *)w);
    vi dot = mi_dot(mi_dot(vi_set(0), q.val[0], a.val[0]), q.val[1], a.val[1]);
    return vf_fma(vi_to_vf(dot), vf_set(scale), acc);
}

/* The same for a q4 block, taken as unsigned nibbles. */
static inline mi_sums mi_add_q4(mi_sums acc, const uint8_t *w, mi_block a, float scale)
{
    uint8x16_t q = vld1q_u8(w);
    int8x16_t low = vreinterpretq_s8_u8(vandq_u8(q, vdupq_n_u8(15)));
    int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(q, 4));
    vi dot = mi_dot(mi_dot(vi_set(0), low, a.val[0]), high, a.val[1]);
    return vf_fma(vi_to_vf(dot), vf_set(scale), acc);
}

/* acc - x y over the first n lanes, 1 <= n. */
static inline mi_sums mi_take(mi_sums acc, const float *x, const float *y, int64_t n)
{
    return n >= MI_LANES ? vf_fnma(vf_load(x), vf_load(y), acc)
                         : vf_fnma(vf_load_n(x, n), vf_load_n(y, n), acc);
}

/* out[i] is the sum of r[i]'s lanes. */
static inline void mi_reduce(const mi_sums r[MI_LANES], float *out)
{
    vf_store(out, vpaddq_f32(vpaddq_f32(r[0], r[1]), vpaddq_f32(r[2], r[3])));
}

/* Tiles: each int32 lane is a column. w holds four steps along k of each column, as q8 or the
 * unsigned nibbles of q4; a the same four steps of a row, in every lane. */
#define MI_Q8_PARTS 1

static inline vi mi_step(vi acc, vi w, vi a)
{
    return mi_dot(acc, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(a));
}
static inline vi mi_end(vi acc, int factor)
{
    (void)factor;
    return acc;
}

#endif
