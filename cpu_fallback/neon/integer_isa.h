/* Steps of the integer products for NEON, with the dot product instructions where the level has
 * them. A block is 32 elements (host/tensor/blocks.h); sums are exact. */
#ifndef ITERA_INTEGER_ISA_H
#define ITERA_INTEGER_ISA_H

#include "vec.h"

#define MI_LANES       4 /* rows of b that go side by side */
#define MI_UNSIGNED_Q8 0 /* tiles: q8 stays signed */
#define MI_ROWS        6 /* rows of a tile */
#define MI_VECS        2 /* vectors in a row of it */

typedef vf mi_sums;

/* Two blocks of a; of a single one, the other is not looked at. */
struct mi_pair {
    int8x16_t x[4];
    vi less[2]; /* what sums begin with, as unsigned nibbles of b are too large by 8 */
};

static inline mi_sums mi_zero(void)
{
    return vf_zero();
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

static inline struct mi_pair mi_pair_q8(const int8_t *a, const bool one)
{
    struct mi_pair p = {.x = {vld1q_s8(a), vld1q_s8(a + 16)}, .less = {vi_set(0), vi_set(0)}};
    if (!one) {
        p.x[2] = vld1q_s8(a + 32);
        p.x[3] = vld1q_s8(a + 48);
    }
    return p;
}
static inline struct mi_pair mi_pair_q4(const int8_t *a, const bool one)
{
    struct mi_pair p = mi_pair_q8(a, one);
    const int8x16_t less = vdupq_n_s8(-8);
    for (int i = 0; i < (one ? 1 : 2); i++)
        p.less[i] = mi_dot(mi_dot(vi_set(0), less, p.x[2 * i]), less, p.x[2 * i + 1]);
    return p;
}

/* acc + the products of two blocks of b, or of one, each times its scale. */
static inline mi_sums mi_add_q8(mi_sums acc, const uint8_t *w, struct mi_pair p, const float *scale,
                                const bool one)
{
    const int8_t *q = (const int8_t *)w;
    for (int i = 0; i < (one ? 1 : 2); i++) {
        vi dot = mi_dot(vi_set(0), vld1q_s8(q + 32 * i), p.x[2 * i]);
        dot = mi_dot(dot, vld1q_s8(q + 32 * i + 16), p.x[2 * i + 1]);
        acc = vf_fma(vi_to_vf(dot), vf_set(scale[i]), acc);
    }
    return acc;
}
static inline mi_sums mi_add_q4(mi_sums acc, const uint8_t *w, struct mi_pair p, const float *scale,
                                const bool one)
{
    for (int i = 0; i < (one ? 1 : 2); i++) {
        uint8x16_t q = vld1q_u8(w + 16 * i);
        int8x16_t low = vreinterpretq_s8_u8(vandq_u8(q, vdupq_n_u8(15)));
        int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(q, 4));
        vi dot = mi_dot(mi_dot(p.less[i], low, p.x[2 * i]), high, p.x[2 * i + 1]);
        acc = vf_fma(vi_to_vf(dot), vf_set(scale[i]), acc);
    }
    return acc;
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
