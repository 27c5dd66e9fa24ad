/* Dot products of one row of a, in f32, with rows of a narrow b, which are read where they lie.
 * VF_N rows of b go side by side, each with an accumulator; a transposing reduction turns these
 * into one vector of results. */
#include "cpu_fallback/simd/matmul.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Row j of VF_N rows that lie ld apart, where one pointer per three rows is kept: scaled indexing
 * reaches the other two. */
#define ROW(p, j, ld) ((p)[(j) / 3] + (j) % 3 * (ld))
enum { POINTERS = (VF_N + 2) / 3 };

ALWAYS_INLINE vf load_16(const uint16_t *p, const bool half)
{
    return half ? vf_load_half(p) : vf_load_bf16(p);
}

/* f16 or bf16. ahead: the distance in elements to the rows that are fetched meanwhile, or 0. */
ALWAYS_INLINE vf dot_16(const float *x, const uint16_t *y, int64_t ld, int64_t k, int64_t ahead,
                        const bool half)
{
    vf acc[VF_N];
    const uint16_t *p[POINTERS];
#pragma GCC unroll 16
    for (int j = 0; j < VF_N; j++)
        acc[j] = vf_zero();
#pragma GCC unroll 16
    for (int j = 0; j < VF_N; j += 3)
        p[j / 3] = y + j * ld;
    for (; k >= VF_N; k -= VF_N, x += VF_N) {
        const vf xv = vf_load(x);
#pragma GCC unroll 16
        for (int j = 0; j < VF_N; j++) {
            const uint16_t *row = ROW(p, j, ld);
            if (ahead)
                __builtin_prefetch(row + ahead);
            acc[j] = vf_fma(load_16(row, half), xv, acc[j]);
        }
#pragma GCC unroll 16
        for (int j = 0; j < POINTERS; j++)
            p[j] += VF_N;
    }
    if (k > 0) {
        const vf xv = vf_load_n(x, k);
        for (int j = 0; j < VF_N; j++) {
            uint16_t last[VF_N] = {0};
            for (int64_t i = 0; i < k; i++)
                last[i] = ROW(p, j, ld)[i];
            acc[j] = vf_fma(load_16(last, half), xv, acc[j]);
        }
    }
    return mm_reduce(acc);
}

/* scale: of the blocks of VF_N rows, row after row. */
ALWAYS_INLINE vf dot_q8(const float *x, const int8_t *y, int64_t k, const float *scale,
                        int64_t ahead)
{
    enum { PARTS = ITERA_BLOCK / VF_N };
    const int64_t blocks = k / ITERA_BLOCK;
    vf acc[VF_N];
    const int8_t *p[POINTERS];
    const float *s[POINTERS];
#pragma GCC unroll 16
    for (int j = 0; j < VF_N; j++)
        acc[j] = vf_zero();
#pragma GCC unroll 16
    for (int j = 0; j < VF_N; j += 3) {
        p[j / 3] = y + j * k;
        s[j / 3] = scale + j * blocks;
    }
    for (int64_t b = 0; b < blocks; b++, x += ITERA_BLOCK) {
        vf xv[PARTS];
#pragma GCC unroll 16
        for (int i = 0; i < PARTS; i++)
            xv[i] = vf_load(x + i * VF_N);
#pragma GCC unroll 16
        for (int j = 0; j < VF_N; j++) {
            const int8_t *row = ROW(p, j, k);
            if (ahead)
                __builtin_prefetch(row + ahead);
            vf sum = vf_mul(vi_to_vf(vi_load_i8(row)), xv[0]);
#pragma GCC unroll 16
            for (int i = 1; i < PARTS; i++)
                sum = vf_fma(vi_to_vf(vi_load_i8(row + i * VF_N)), xv[i], sum);
            acc[j] = vf_fma(sum, vf_set(*ROW(s, j, blocks)), acc[j]);
        }
#pragma GCC unroll 16
        for (int j = 0; j < POINTERS; j++) {
            p[j] += ITERA_BLOCK;
            s[j]++;
        }
    }
    return mm_reduce(acc);
}

/* sums: eight times the sum of each block of x, which the offset of the nibbles takes away again. */
ALWAYS_INLINE vf dot_q4(const float *x, const uint8_t *y, int64_t k, const float *scale,
                        const float *sums, int64_t ahead)
{
    enum { HALF = ITERA_BLOCK / 2, PARTS = HALF / VF_N };
    const int64_t blocks = k / ITERA_BLOCK, ld = k / 2;
    const vi low = vi_set(15);
    vf acc[VF_N];
    const uint8_t *p[POINTERS];
#pragma GCC unroll 16
    for (int j = 0; j < VF_N; j += 3)
        p[j / 3] = y + j * ld;
#pragma GCC unroll 16
    for (int j = 0; j < VF_N; j++) {
        acc[j] = vf_zero();
        for (int64_t b = 0; b < blocks; b += VF_N) {
            const int64_t n = blocks - b;
            const vf taken = n >= VF_N ? vf_load(sums + b) : vf_load_n(sums + b, n);
            const float *s = scale + j * blocks + b;
            acc[j] = vf_fnma(taken, n >= VF_N ? vf_load(s) : vf_load_n(s, n), acc[j]);
        }
    }
    for (int64_t b = 0; b < blocks; b++, x += ITERA_BLOCK, scale++) {
#pragma GCC unroll 16
        for (int j = 0; j < VF_N; j++) {
            const uint8_t *row = ROW(p, j, ld);
            if (ahead)
                __builtin_prefetch(row + ahead);
            vf sum = vf_zero();
#pragma GCC unroll 16
            for (int i = 0; i < PARTS; i++) {
                const vi q = vi_load_u8(row + i * VF_N);
                sum = vf_fma(vi_to_vf(vi_and(q, low)), vf_load(x + i * VF_N), sum);
                sum = vf_fma(vi_to_vf(vi_shr(q, 4)), vf_load(x + HALF + i * VF_N), sum);
            }
            acc[j] = vf_fma(sum, vf_set(scale[j * blocks]), acc[j]);
        }
#pragma GCC unroll 16
        for (int j = 0; j < POINTERS; j++)
            p[j] += HALF;
    }
    return mm_reduce(acc);
}

void mm_narrow_begin(const struct mm_product *g, const float *a, float *own)
{
    if (g->b.dtype != ITERA_Q4)
        return;
    for (int64_t b = 0; b < g->k / ITERA_BLOCK; b++, a += ITERA_BLOCK) {
        vf sum = vf_load(a);
        for (int i = VF_N; i < ITERA_BLOCK; i += VF_N)
            sum = vf_add(sum, vf_load(a + i));
        *own++ = 8 * vf_sum(sum);
    }
}

vf mm_narrow_dot(const struct mm_product *g, const float *a, int64_t n0, bool far, float *own)
{
    const struct itera_weights w = itera_weights_from(g->b, n0 * g->b_ld);
    const uint16_t *y = (const uint16_t *)(const void *)w.data;
    const int64_t k = g->k, ahead = far && n0 + 2 * VF_N <= g->n ? VF_N * g->b_ld : 0;
    const float *sums = own;
    float *scale = own + k / ITERA_BLOCK;
    if (w.scales)
        itera_expand_half(w.scales, VF_N * (k / ITERA_BLOCK), scale);
    switch (w.dtype) {
    case ITERA_F16:
        return dot_16(a, y, g->b_ld, k, ahead, true);
    case ITERA_BF16:
        return dot_16(a, y, g->b_ld, k, ahead, false);
    case ITERA_Q8:
        return dot_q8(a, (const int8_t *)w.data, k, scale, ahead);
    default:
        return dot_q4(a, w.data, k, scale, sums, ahead / 2);
    }
}
