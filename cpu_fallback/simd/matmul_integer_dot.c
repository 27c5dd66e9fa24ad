/* Integer dot products of a few rows of a with the rows of b, MI_LANES of these side by side. */
#include "cpu_fallback/simd/matmul_integer.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Columns whose sums are put into c together. */
#define COLUMNS 64
/* From this size on b does not come from the near caches, and the next rows are fetched ahead. */
#define FAR_BYTES (1 << 20)

/* What a row of a brings along, in f32: its scales, MI_LANES times one behind the other, as
 * MI_LANES rows of b have theirs; and the excess of its blocks. */
struct factors {
    float *scale, *excess;
};

static struct factors factors_at(float *own, int64_t row, int64_t blocks)
{
    float *at = own + (MI_LANES + row * (MI_LANES + 1)) * blocks;
    return (struct factors){at, at + MI_LANES * blocks};
}

int64_t mm_integer_dot_floats(const struct mm_product *g)
{
    const int64_t rows = g->m < MI_DOT_ROWS ? g->m : MI_DOT_ROWS;
    return (MI_LANES + rows * (MI_LANES + 1)) * (g->k / ITERA_BLOCK);
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

/* One row of a by MI_LANES rows of b. scale: of the products of each pair of blocks; excess: NULL
 * where b is taken as signed; ahead: the distance in bytes to the rows that are fetched meanwhile. */
ALWAYS_INLINE void dot(const int8_t *a, const uint8_t *w, int64_t blocks, const float *scale,
                       const float *excess, int64_t ahead, float *out, const bool q4)
{
    enum { POINTERS = (MI_LANES + 2) / 3 };
    const int64_t bytes = q4 ? 16 : 32, ld = blocks * bytes;
    mi_sums acc[MI_LANES];
    const uint8_t *p[POINTERS];
    const float *s[POINTERS];
#pragma GCC unroll 8
    for (int j = 0; j < MI_LANES; j += 3) {
        p[j / 3] = w + j * ld;
        s[j / 3] = scale + j * blocks;
    }
#pragma GCC unroll 8
    for (int j = 0; j < MI_LANES; j++) {
        acc[j] = mi_zero();
        for (int64_t b = 0; excess && b < blocks; b += MI_LANES)
            acc[j] = mi_take(acc[j], scale + j * blocks + b, excess + b, blocks - b);
    }
    for (int64_t b = 0; b < blocks; b++, a += ITERA_BLOCK) {
        const mi_block x = mi_load(a);
#pragma GCC unroll 8
        for (int j = 0; j < MI_LANES; j++) {
            const uint8_t *row = p[j / 3] + j % 3 * ld;
            const float factor = s[j / 3][j % 3 * blocks];
            if (ahead)
                __builtin_prefetch(row + ahead);
            acc[j] = q4 ? mi_add_q4(acc[j], row, x, factor) : mi_add_q8(acc[j], row, x, factor);
        }
#pragma GCC unroll 8
        for (int j = 0; j < POINTERS; j++) {
            p[j] += bytes;
            s[j]++;
        }
    }
    mi_reduce(acc, out);
}

/* Rows [m0, m1) by MI_LANES rows of b from n on; sums of row m at out + (m - m0) COLUMNS. */
static void dot_rows(const struct mm_product *g, const struct mm_rounded *a, int64_t m0, int64_t m1,
                     int64_t n, int64_t ahead, float *own, float *out)
{
    const int64_t blocks = g->k / ITERA_BLOCK;
    const struct itera_weights w = itera_weights_from(g->b, n * g->k);
    const bool q4 = w.dtype == ITERA_Q4;
    float *scale = own;
    for (int64_t m = m0; m < m1; m++, ahead = 0, out += COLUMNS) {
        const struct factors f = factors_at(own, m - m0, blocks);
        const float *excess = MI_UNSIGNED_Q8 ? f.excess : NULL;
        scale_products(w.scales, f.scale, MI_LANES * blocks, scale);
        if (q4)
            dot(a->q + m * g->k, w.data, blocks, scale, f.excess, ahead, out, true);
        else
            dot(a->q + m * g->k, w.data, blocks, scale, excess, ahead, out, false);
    }
}

void mm_integer_dot(const struct mm_product *g, const struct mm_rounded *a, int64_t m0, int64_t m1,
                    int64_t n0, int64_t n1, float *own)
{
    const int64_t blocks = g->k / ITERA_BLOCK;
    const int64_t group = MI_LANES * blocks * itera_block_bytes(g->b.dtype);
    const bool far = g->n / MI_LANES * group >= FAR_BYTES;
    float sums[MI_DOT_ROWS * COLUMNS + MI_LANES];
    for (int64_t m = m0; m < m1; m++) {
        const struct factors f = factors_at(own, m - m0, blocks);
        for (int64_t b = 0; b < blocks; b++)
            f.excess[b] = (float)a->excess[m * blocks + b];
        for (int64_t i = 0; i < MI_LANES; i++)
            for (int64_t b = 0; b < blocks; b++)
                f.scale[i * blocks + b] = a->scale[m * blocks + b];
    }
    for (int64_t n = n0; n < n1; n += COLUMNS) {
        const int64_t end = n1 - n < COLUMNS ? n1 : n + COLUMNS;
        for (int64_t j = n; j < end; j += MI_LANES) {
            const int64_t ahead = far && j + 2 * MI_LANES <= g->n ? group : 0;
            if (j + MI_LANES <= g->n) {
                dot_rows(g, a, m0, m1, j, ahead, own, sums + (j - n));
                continue;
            }
            /* The last rows of b: some are multiplied once more. */
            float again[MI_DOT_ROWS * COLUMNS];
            const int64_t first = g->n - MI_LANES;
            dot_rows(g, a, m0, m1, first, 0, own, again);
            for (int64_t m = 0; m < m1 - m0; m++)
                for (int64_t i = j; i < end; i++)
                    sums[m * COLUMNS + i - n] = again[m * COLUMNS + i - first];
        }
        mm_integer_put(g, m0, n, m1 - m0, end - n, sums, COLUMNS);
    }
}
