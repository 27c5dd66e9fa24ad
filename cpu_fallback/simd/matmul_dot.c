/* Matrix products as dot products: c(m,n) = sum over k of a(m,k) b(n,k), both with contiguous rows.
 * A block is VF_N dot products at once, of p rows of a by q rows of b with p q = VF_N; a
 * transposing reduction turns its accumulators into one vector of results. */
#include "cpu_fallback/simd/matmul.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Decoding batches up to here read b once, at the speed of memory; above, tiles are faster. */
#define DOT_ROWS 8
/* From this size on b does not come from the near caches, and the next rows are fetched ahead. */
#define FAR_BYTES (1 << 20)

/* Lane i q + j is row i of x times row j of y. `ahead` is the distance in elements from y to the
 * rows that are to be fetched meanwhile, or 0. */
ALWAYS_INLINE vf dot_block(const float *x, int64_t x_ld, const float *y, int64_t y_ld, int64_t k,
                           int64_t ahead, const int p, const int q)
{
    vf acc[VF_N];
    const float *px[(VF_N + 2) / 3], *py[(VF_N + 2) / 3];
#pragma GCC unroll 16
    for (int i = 0; i < p * q; i++)
        acc[i] = vf_zero();
#pragma GCC unroll 16
    for (int i = 0; i < p; i += 3)
        px[i / 3] = x + i * x_ld;
#pragma GCC unroll 16
    for (int j = 0; j < q; j += 3)
        py[j / 3] = y + j * y_ld;
    for (; k >= VF_N; k -= VF_N) {
        vf xv[VF_N];
#pragma GCC unroll 16
        for (int i = 0; i < p; i++)
            xv[i] = vf_load(px[i / 3] + i % 3 * x_ld);
#pragma GCC unroll 16
        for (int j = 0; j < q; j++) {
            const float *row = py[j / 3] + j % 3 * y_ld;
            if (ahead)
                __builtin_prefetch(row + ahead);
            vf yv = vf_load(row);
#pragma GCC unroll 16
            for (int i = 0; i < p; i++)
                acc[i * q + j] = vf_fma(xv[i], yv, acc[i * q + j]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < p; i += 3)
            px[i / 3] += VF_N;
#pragma GCC unroll 16
        for (int j = 0; j < q; j += 3)
            py[j / 3] += VF_N;
    }
    if (k > 0) {
        vf xv[VF_N];
#pragma GCC unroll 16
        for (int i = 0; i < p; i++)
            xv[i] = vf_load_n(px[i / 3] + i % 3 * x_ld, k);
#pragma GCC unroll 16
        for (int j = 0; j < q; j++) {
            vf yv = vf_load_n(py[j / 3] + j % 3 * y_ld, k);
#pragma GCC unroll 16
            for (int i = 0; i < p; i++)
                acc[i * q + j] = vf_fma(xv[i], yv, acc[i * q + j]);
        }
    }
    return mm_reduce(acc);
}

/* The same with fewer rows than p and q: the last ones stand in for those that are not there. */
ALWAYS_INLINE vf dot_edge(const float *x, int64_t x_ld, int64_t x_rows, const float *y,
                          int64_t y_ld, int64_t y_rows, int64_t k, const int p, const int q)
{
    vf acc[VF_N];
    const float *px[VF_N], *py[VF_N];
    for (int i = 0; i < p; i++)
        px[i] = x + (i < x_rows ? i : x_rows - 1) * x_ld;
    for (int j = 0; j < q; j++)
        py[j] = y + (j < y_rows ? j : y_rows - 1) * y_ld;
#pragma GCC unroll 16
    for (int i = 0; i < p * q; i++)
        acc[i] = vf_zero();
    for (int64_t at = 0; at < k; at += VF_N) {
        int64_t n = k - at < VF_N ? k - at : VF_N;
#pragma GCC unroll 16
        for (int i = 0; i < p; i++) {
            vf xv = vf_load_n(px[i] + at, n);
#pragma GCC unroll 16
            for (int j = 0; j < q; j++)
                acc[i * q + j] = vf_fma(xv, vf_load_n(py[j] + at, n), acc[i * q + j]);
        }
    }
    return mm_reduce(acc);
}

/* Writes rows x n of a block's results at c(m, n0), with what the product adds to them. */
ALWAYS_INLINE void put(const struct mm_product *g, int64_t m, int64_t n0, int64_t rows, int64_t n,
                       vf sums, const int q)
{
    float *c = g->c + m * g->c_ld + n0;
    const float *add = NULL;
    int64_t add_ld = 0;
    if (g->accumulate) {
        add = c;
        add_ld = g->c_ld;
    } else if (g->residual) {
        add = g->residual + m * g->residual_ld + n0;
        add_ld = g->residual_ld;
    }
    if (q == VF_N) { /* one row */
        if (n == VF_N) {
            if (g->bias)
                sums = vf_add(sums, vf_load(g->bias + n0));
            if (add)
                sums = vf_add(sums, vf_load(add));
            vf_store(c, sums);
        } else {
            if (g->bias)
                sums = vf_add(sums, vf_load_n(g->bias + n0, n));
            if (add)
                sums = vf_add(sums, vf_load_n(add, n));
            vf_store_n(c, sums, n);
        }
        return;
    }
    float lane[VF_N];
    vf_store(lane, sums);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < n; j++) {
            float v = lane[i * q + j];
            if (g->bias)
                v += g->bias[n0 + j];
            if (add)
                v += add[i * add_ld + j];
            c[i * g->c_ld + j] = v;
        }
}

/* Rows [m, m + rows), rows <= p, by columns [n0, n1); b: row n0 of it. */
ALWAYS_INLINE void dot_rows(const struct mm_product *g, int64_t m, int64_t rows, const float *b,
                            int64_t b_ld, int64_t n0, int64_t n1, int64_t ahead, const int p)
{
    const int q = VF_N / p;
    const float *a = g->a + m * g->a_row;
    int64_t n = n0;
    if (rows == p)
        for (; n + q <= n1; n += q, b += q * b_ld) {
            vf s = ahead ? dot_block(a, g->a_row, b, b_ld, g->k, ahead, p, q)
                         : dot_block(a, g->a_row, b, b_ld, g->k, 0, p, q);
            put(g, m, n, p, q, s, q);
        }
    for (; n < n1; n += q, b += q * b_ld) {
        int64_t cols = n1 - n < q ? n1 - n : q;
        vf s = dot_edge(a, g->a_row, rows, b, b_ld, cols, g->k, p, q);
        put(g, m, n, rows, cols, s, q);
    }
}

static const float *wide_b(const struct mm_product *g)
{
    return (const float *)(const void *)g->b.data;
}

/* Rows [n, n + rows) of a narrow b as f32 in `to`, g->k apart. */
static void expand_rows(const struct mm_product *g, int64_t n, int64_t rows, float *to)
{
    for (int64_t j = 0; j < rows; j++)
        itera_expand(itera_weights_from(g->b, (n + j) * g->b_ld), g->k, to + j * g->k);
}

static bool reads_far(const struct mm_product *g)
{
    return (int64_t)itera_dtype_bytes(g->b.dtype, g->n * g->k) >= FAR_BYTES;
}

/* Few rows: b streams by once, VF_N rows at a time, and stays near for all rows of a. */
static void few_rows(const struct mm_product *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
                     float *own)
{
    const bool narrow = g->b.dtype != ITERA_F32;
    const int64_t far = !narrow && reads_far(g) ? VF_N * g->b_ld : 0;
    const int64_t ld = narrow ? g->k : g->b_ld;
    for (int64_t n = n0; n < n1; n += VF_N) {
        int64_t end = n + VF_N < n1 ? n + VF_N : n1;
        int64_t ahead = end + VF_N <= g->n ? far : 0;
        const float *b = narrow ? own : wide_b(g) + n * ld;
        if (narrow)
            expand_rows(g, n, end - n, own);
        int64_t m = m0;
        for (; m + 4 <= m1; m += 4, ahead = 0)
            dot_rows(g, m, 4, b, ld, n, end, ahead, 4);
        if (m + 2 <= m1) {
            dot_rows(g, m, 2, b, ld, n, end, ahead, 2);
            m += 2;
            ahead = 0;
        }
        if (m < m1)
            dot_rows(g, m, 1, b, ld, n, end, ahead, 1);
    }
}

/* Few columns: b stays in L1 and a streams by. */
static void few_columns(const struct mm_product *g, int64_t m0, int64_t m1, float *own)
{
    const bool narrow = g->b.dtype != ITERA_F32;
    const float *b = narrow ? own : wide_b(g);
    const int64_t ld = narrow ? g->k : g->b_ld;
    if (narrow)
        expand_rows(g, 0, g->n, own);
    int64_t m = m0;
#if VF_N >= 16
    if (g->n > 4) {
        for (; m < m1; m += VF_N / 8)
            dot_rows(g, m, m1 - m < VF_N / 8 ? m1 - m : VF_N / 8, b, ld, 0, g->n, 0, VF_N / 8);
        return;
    }
#endif
    for (; m < m1; m += VF_N / 4)
        dot_rows(g, m, m1 - m < VF_N / 4 ? m1 - m : VF_N / 4, b, ld, 0, g->n, 0, VF_N / 4);
}

/* One row by a narrow b. The last dot products are VF_N too, some of them once more. */
static void one_narrow_row(const struct mm_product *g, int64_t n0, int64_t n1, float *own)
{
    const bool far = reads_far(g);
    float lanes[2 * VF_N];
    mm_narrow_begin(g, g->a, own);
    for (int64_t n = n0; n < n1; n += VF_N) {
        const int64_t first = n + VF_N <= g->n ? n : g->n - VF_N;
        vf sums = mm_narrow_dot(g, g->a, first, far, own);
        if (first < n) {
            vf_store(lanes, sums);
            sums = vf_load(lanes + (n - first));
        }
        put(g, 0, n, 1, n1 - n < VF_N ? n1 - n : VF_N, sums, VF_N);
    }
}

bool mm_dot_suits(const struct mm_product *g)
{
    if (!g->b_trans || g->a_col != 1)
        return false;
    /* The residual may lie in c, where results wait for act. */
    if (g->act != ITERA_ACT_NONE && g->residual)
        return false;
    return g->m <= DOT_ROWS || g->n <= VF_N / 2;
}

int64_t mm_dot_floats(const struct mm_product *g)
{
    return g->b.dtype == ITERA_F32 ? 0 : (VF_N * g->k + 15) / 16 * 16;
}

void mm_dot(const struct mm_product *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *own)
{
    if (g->m == 1 && g->n >= VF_N && g->b.dtype != ITERA_F32)
        one_narrow_row(g, n0, n1, own);
    else if (g->m <= DOT_ROWS)
        few_rows(g, m0, m1, n0, n1, own);
    else
        few_columns(g, m0, m1, own);
    if (g->act != ITERA_ACT_NONE) {
        float *c = g->c + m0 * g->c_ld + n0;
        mm_finish(c, g->c_ld, c, g->c_ld, m1 - m0, n1 - n0, g->act, NULL, 0);
    }
}
