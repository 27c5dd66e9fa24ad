/* Integer dot products of a few rows of a with the rows of b, MI_LANES of these side by side. */
#include <string.h>

#include "cpu_fallback/simd/matmul_integer.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Columns whose sums are put into c together, and whose scales are multiplied ahead. */
#define COLUMNS 64
#define GROUP   16
/* From this size on b does not come from the near caches, and what is so many bytes further on is
 * fetched ahead. */
#define FAR_BYTES (1 << 20)
#define AHEAD     4096

/* A thread's floats: the products of the scales of a row of a and those of GROUP rows of b; then,
 * for each row of a, its scales, GROUP times one behind the other, as GROUP rows of b have
 * theirs. */
int64_t mm_integer_dot_floats(const struct mm_product *g)
{
    const int64_t rows = g->m < MI_DOT_ROWS ? g->m : MI_DOT_ROWS;
    return GROUP * (1 + rows) * (g->k / ITERA_BLOCK);
}

/* y = n floats, GROUP times */
static void repeat(const float *x, int64_t n, float *y)
{
    memcpy(y, x, (size_t)n * sizeof *y);
    for (int64_t i = 1; i < GROUP; i *= 2)
        memcpy(y + i * n, y, (size_t)(i * n) * sizeof *y);
}

/* y = scales of b, as f32, times x */
static void scale_products(const uint16_t *scales, const float *x, int64_t n, float *y)
{
    int64_t i = 0;
    for (; i + VF_N <= n; i += VF_N)
        vf_store(y + i, vf_mul(vf_load_half(scales + i), vf_load(x + i)));
    for (; i < n; i++)
        y[i] = itera_f16_to_f32(scales[i]) * x[i];
}

/* One row of a by MI_LANES rows of b. scale: of the products of each pair of blocks; ahead: 0 for
 * a b that is near. */
ALWAYS_INLINE void dot(const int8_t *a, const uint8_t *w, int64_t blocks, const float *scale,
                       int64_t ahead, float *out, const bool q4)
{
    const int64_t bytes = q4 ? 16 : 32, ld = blocks * bytes;
    mi_sums acc[MI_LANES];
#pragma GCC unroll 4
    for (int j = 0; j < MI_LANES; j++)
        acc[j] = mi_zero();
    int64_t b = 0;
    for (; b + 2 <= blocks; b += 2, a += 2 * ITERA_BLOCK, w += 2 * bytes, scale += 2) {
        const struct mi_pair x = q4 ? mi_pair_q4(a, false) : mi_pair_q8(a, false);
#pragma GCC unroll 4
        for (int j = 0; j < MI_LANES; j++) {
            const uint8_t *row = w + j * ld;
            const float *factor = scale + j * blocks;
            if (ahead)
                __builtin_prefetch(row + ahead);
            acc[j] = q4 ? mi_add_q4(acc[j], row, x, factor, false)
                        : mi_add_q8(acc[j], row, x, factor, false);
        }
    }
    if (b < blocks) {
        const struct mi_pair x = q4 ? mi_pair_q4(a, true) : mi_pair_q8(a, true);
#pragma GCC unroll 4
        for (int j = 0; j < MI_LANES; j++) {
            const uint8_t *row = w + j * ld;
            const float *factor = scale + j * blocks;
            acc[j] = q4 ? mi_add_q4(acc[j], row, x, factor, true)
                        : mi_add_q8(acc[j], row, x, factor, true);
        }
    }
    mi_reduce(acc, out);
}

/* One row of a by `rows` rows of b, a multiple of MI_LANES. */
ALWAYS_INLINE void dot_rows(const int8_t *a, const struct itera_weights *w, int64_t rows,
                            int64_t blocks, const float *scale, int64_t ahead, float *out,
                            const bool q4)
{
    const int64_t bytes = MI_LANES * blocks * (q4 ? 16 : 32);
    const uint8_t *at = w->data;
    for (int64_t j = 0; j < rows; j += MI_LANES, at += bytes, scale += MI_LANES * blocks)
        dot(a, at, blocks, scale, ahead, out + j, q4);
}

/* Rows [m0, m1) by `rows` rows of b from n on, a multiple of MI_LANES and at most GROUP; sums of
 * row m at out + (m - m0) COLUMNS. */
static void dot_group(const struct mm_product *g, const struct mm_rounded *a, int64_t m0,
                      int64_t m1, int64_t n, int64_t rows, bool far, float *own, float *out)
{
    const int64_t blocks = g->k / ITERA_BLOCK;
    const struct itera_weights w = itera_weights_from(g->b, n * g->k);
    float *scale = own;
    for (int64_t m = m0; m < m1; m++, far = false, out += COLUMNS) {
        const int8_t *q = a->q + m * g->k;
        scale_products(w.scales, own + (1 + m - m0) * GROUP * blocks, rows * blocks, scale);
        if (w.dtype == ITERA_Q4) {
            if (far)
                dot_rows(q, &w, rows, blocks, scale, AHEAD, out, true);
            else
                dot_rows(q, &w, rows, blocks, scale, 0, out, true);
        } else {
            if (far)
                dot_rows(q, &w, rows, blocks, scale, AHEAD, out, false);
            else
                dot_rows(q, &w, rows, blocks, scale, 0, out, false);
        }
    }
}

/* Fetches the scales of the group after the one that begins at row n. */
static void fetch_scales(const struct mm_product *g, int64_t n)
{
    const struct itera_weights w = itera_weights_from(g->b, (n + GROUP) * g->k);
    const int64_t bytes = GROUP * (g->k / ITERA_BLOCK) * (int64_t)sizeof *w.scales;
    for (int64_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const uint8_t *)w.scales + i);
}

void mm_integer_dot(const struct mm_product *g, const struct mm_rounded *a, int64_t m0, int64_t m1,
                    int64_t n0, int64_t n1, float *own)
{
    const int64_t blocks = g->k / ITERA_BLOCK;
    const bool far = g->n * blocks * (int64_t)itera_block_bytes(g->b.dtype) >= FAR_BYTES;
    float sums[MI_DOT_ROWS * COLUMNS];
    for (int64_t m = m0; m < m1; m++)
        repeat(a->scale + m * blocks, blocks, own + (1 + m - m0) * GROUP * blocks);
    for (int64_t n = n0; n < n1; n += COLUMNS) {
        const int64_t end = n1 - n < COLUMNS ? n1 : n + COLUMNS;
        for (int64_t j = n, rows; j < end; j += rows) {
            rows = (end - j < GROUP ? end - j : GROUP) / MI_LANES * MI_LANES;
            if (far && j + 2 * GROUP <= g->n)
                fetch_scales(g, j);
            if (rows) {
                dot_group(g, a, m0, m1, j, rows, far, own, sums + (j - n));
                continue;
            }
            /* The last rows of b: some are multiplied once more. */
            float again[MI_DOT_ROWS * COLUMNS];
            const int64_t first = end - MI_LANES;
            dot_group(g, a, m0, m1, first, MI_LANES, false, own, again);
            for (int64_t m = 0; m < m1 - m0; m++)
                for (int64_t i = j; i < end; i++)
                    sums[m * COLUMNS + i - n] = again[m * COLUMNS + i - first];
            rows = end - j;
        }
        mm_integer_put(g, m0, n, m1 - m0, end - n, sums, COLUMNS);
    }
}
