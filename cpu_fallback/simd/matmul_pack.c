/* Packing columns of b for the tiles, from weights of every type. */
#include <string.h>

#include "cpu_fallback/simd/matmul.h"

#define NARROW_DEPTH 64 /* that much of each row is expanded at a time, near in L1 */

/* From b (n, k), f32. */
static void pack_transposed(const float *b, int64_t b_ld, int64_t k, int64_t n, float *out,
                            int64_t out_ld)
{
    int64_t j = 0;
    for (; j + VF_N <= n; j += VF_N, b += VF_N * b_ld, out += VF_N) {
        float *dst = out;
        int64_t at = 0;
        for (; at + 4 <= k; at += 4, dst += 4 * out_ld) {
            vf r[4];
            mm_load_columns(b + at, b_ld, r);
            for (int i = 0; i < 4; i++)
                vf_store(dst + i * out_ld, r[i]);
        }
        for (; at < k; at++, dst += out_ld)
            for (int i = 0; i < VF_N; i++)
                dst[i] = b[i * b_ld + at];
    }
    if (j == n)
        return;
    /* The right edge: rows that are not there are zeros. */
    for (int64_t at = 0; at < k; at++)
        vf_store(out + at * out_ld, vf_zero());
    for (; j < n; j++, b += b_ld, out++)
        for (int64_t at = 0; at < k; at++)
            out[at * out_ld] = b[at];
}

/* From b (k, n), f32. */
static void pack_rows(const float *b, int64_t b_ld, int64_t k, int64_t n, float *out,
                      int64_t out_ld)
{
    for (int64_t i = 0; i < k; i++, b += b_ld, out += out_ld) {
        int64_t j = 0;
        for (; j + VF_N <= n; j += VF_N)
            vf_store(out + j, vf_load(b + j));
        if (j < n)
            vf_store(out + j, vf_load_n(b + j, n - j));
    }
}

/* From narrow b (n, k). */
static void pack_narrow_transposed(const struct mm_product *g, int64_t k0, int64_t k, int64_t n0,
                                   int64_t n, float *out, int64_t out_ld)
{
    _Alignas(64) float wide[MM_COLS][NARROW_DEPTH];
    for (int64_t at = 0; at < k; at += NARROW_DEPTH, out += NARROW_DEPTH * out_ld) {
        const int64_t depth = k - at < NARROW_DEPTH ? k - at : NARROW_DEPTH;
        for (int64_t j = 0; j < n; j++) {
            const struct itera_weights from =
                itera_weights_from(g->b, (n0 + j) * g->b_ld + k0 + at);
            /* What follows of each row is too short for the processor to see it coming. */
            const uint8_t *next = from.data + itera_weights_bytes(from.dtype, depth);
            __builtin_prefetch(next);
            __builtin_prefetch(next + itera_weights_bytes(from.dtype, NARROW_DEPTH) - 1);
            itera_expand(from, depth, wide[j]);
        }
        pack_transposed(wide[0], NARROW_DEPTH, depth, n, out, out_ld);
    }
}

/* From narrow b (k, n). */
static void pack_narrow_rows(const struct mm_product *g, int64_t k0, int64_t k, int64_t n0,
                             int64_t n, float *out, int64_t out_ld)
{
    const int64_t whole = (n + VF_N - 1) / VF_N * VF_N;
    for (int64_t i = 0; i < k; i++, out += out_ld) {
        itera_expand(itera_weights_from(g->b, (k0 + i) * g->b_ld + n0), n, out);
        memset(out + n, 0, (size_t)(whole - n) * sizeof *out);
    }
}

void mm_pack(const struct mm_product *g, int64_t k0, int64_t k, int64_t n0, int64_t n, float *out,
             int64_t out_ld)
{
    const float *b = (const float *)(const void *)g->b.data;
    if (g->b.dtype != ITERA_F32 && g->b_trans)
        pack_narrow_transposed(g, k0, k, n0, n, out, out_ld);
    else if (g->b.dtype != ITERA_F32)
        pack_narrow_rows(g, k0, k, n0, n, out, out_ld);
    else if (g->b_trans)
        pack_transposed(b + n0 * g->b_ld + k0, g->b_ld, k, n, out, out_ld);
    else
        pack_rows(b + k0 * g->b_ld + n0, g->b_ld, k, n, out, out_ld);
}
