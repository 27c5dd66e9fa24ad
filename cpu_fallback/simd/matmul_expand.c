/* Weights of every type to f32. */
#include <string.h>

#include "cpu_fallback/simd/expand.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE void expand_16(const uint16_t *from, int64_t n, float *to, const bool half)
{
    int64_t i = 0;
    for (; i + VF_N <= n; i += VF_N)
        vf_store(to + i, half ? vf_load_half(from + i) : vf_load_bf16(from + i));
    for (; i < n; i++)
        to[i] = half ? itera_f16_to_f32(from[i]) : itera_bf16_to_f32(from[i]);
}

void itera_expand_half(const uint16_t *from, int64_t n, float *to)
{
    expand_16(from, n, to, true);
}

static void expand_q8(const int8_t *from, const uint16_t *scales, int64_t n, float *to)
{
    for (int64_t b = 0; b < n; b += ITERA_BLOCK, from += ITERA_BLOCK, to += ITERA_BLOCK) {
        const vf scale = vf_set_half(*scales++);
        for (int i = 0; i < ITERA_BLOCK; i += VF_N)
            vf_store(to + i, vf_mul(scale, vi_to_vf(vi_load_i8(from + i))));
    }
}

static void expand_q4(const uint8_t *from, const uint16_t *scales, int64_t n, float *to)
{
    const vi low = vi_set(15), offset = vi_set(8);
    for (int64_t b = 0; b < n; b += ITERA_BLOCK, from += ITERA_BLOCK / 2, to += ITERA_BLOCK) {
        const vf scale = vf_set_half(*scales++);
        for (int i = 0; i < ITERA_BLOCK / 2; i += VF_N) {
            vi q = vi_load_u8(from + i);
            vf_store(to + i, vf_mul(scale, vi_to_vf(vi_sub(vi_and(q, low), offset))));
            vf_store(to + ITERA_BLOCK / 2 + i,
                     vf_mul(scale, vi_to_vf(vi_sub(vi_shr(q, 4), offset))));
        }
    }
}

void itera_expand(struct itera_weights w, int64_t n, float *to)
{
    switch (w.dtype) {
    case ITERA_F16:
        expand_16((const uint16_t *)(const void *)w.data, n, to, true);
        break;
    case ITERA_BF16:
        expand_16((const uint16_t *)(const void *)w.data, n, to, false);
        break;
    case ITERA_Q8:
        expand_q8((const int8_t *)w.data, w.scales, n, to);
        break;
    case ITERA_Q4:
        expand_q4(w.data, w.scales, n, to);
        break;
    default:
        memcpy(to, w.data, (size_t)n * sizeof *to);
        break;
    }
}
