/* Products of small matrices in scratch, for scans in matrix form. Buffers are padded by their
 * owners, so that there are no tails: rows to a multiple of GEMM_ROWS, columns to one of
 * GEMM_COLUMNS; what stands in the padding is never used. */
#ifndef ITERA_SIMD_SMALL_GEMM_H
#define ITERA_SIMD_SMALL_GEMM_H

#include "cpu_fallback/simd/scan.h"

/* A tile of GEMM_ROWS by two vectors fills the registers: 16 in AVX2, else 32. */
#if defined(__AVX2__) && !defined(__AVX512F__)
#define GEMM_ROWS 6
#else
#define GEMM_ROWS 8
#endif
#define GEMM_COLUMNS (2 * VF_N)

ITERA_INLINE int64_t pad_to(int64_t n, int64_t multiple)
{
    return ceil_div(n, multiple) * multiple;
}

struct gemm_tile {
    vf sum[GEMM_ROWS][2];
};

/* tile += a b over k: a[r, i] at a + r row + i step, b[i] at b + i ldb. */
ITERA_INLINE void gemm_tile_add(struct gemm_tile *tile, int64_t k, const float *a, int64_t row,
                                int64_t step, const float *b, int64_t ldb)
{
    struct gemm_tile t = *tile;

    for (int64_t i = 0; i < k; i++) {
        vf b0 = vf_load(b + i * ldb), b1 = vf_load(b + i * ldb + VF_N);
#pragma GCC unroll 8
        for (int r = 0; r < GEMM_ROWS; r++) {
            vf v = vf_set(a[r * row + i * step]);
            t.sum[r][0] = vf_fma(v, b0, t.sum[r][0]);
            t.sum[r][1] = vf_fma(v, b1, t.sum[r][1]);
        }
    }
    *tile = t;
}

ITERA_INLINE void gemm_tile_load(struct gemm_tile *tile, const float *c, int64_t ldc, float scale)
{
#pragma GCC unroll 8
    for (int r = 0; r < GEMM_ROWS; r++) {
        tile->sum[r][0] = vf_mul(vf_set(scale), vf_load(c + r * ldc));
        tile->sum[r][1] = vf_mul(vf_set(scale), vf_load(c + r * ldc + VF_N));
    }
}

ITERA_INLINE void gemm_tile_zero(struct gemm_tile *tile)
{
#pragma GCC unroll 8
    for (int r = 0; r < GEMM_ROWS; r++)
        tile->sum[r][0] = tile->sum[r][1] = vf_zero();
}

ITERA_INLINE void gemm_tile_store(const struct gemm_tile *tile, float *c, int64_t ldc)
{
#pragma GCC unroll 8
    for (int r = 0; r < GEMM_ROWS; r++) {
        vf_store(c + r * ldc, tile->sum[r][0]);
        vf_store(c + r * ldc + VF_N, tile->sum[r][1]);
    }
}

/* c = keep c + a b, (m, k) by (k, n). a's element (r, i) is at a + r row + i step, so that row = 1
 * reads a transposed matrix. keep = 0 ignores what c holds. */
static inline void small_gemm(int64_t m, int64_t n, int64_t k, const float *a, int64_t row,
                              int64_t step, const float *b, int64_t ldb, float keep, float *c,
                              int64_t ldc)
{
    for (int64_t j = 0; j < n; j += GEMM_COLUMNS) {
        for (int64_t i = 0; i < m; i += GEMM_ROWS) {
            struct gemm_tile tile;
            if (keep != 0.0f)
                gemm_tile_load(&tile, c + i * ldc + j, ldc, keep);
            else
                gemm_tile_zero(&tile);
            gemm_tile_add(&tile, k, a + i * row, row, step, b + j, ldb);
            gemm_tile_store(&tile, c + i * ldc + j, ldc);
        }
    }
}

/* to[c][r] = from[r][c], row by row; the rest of to is not touched. */
static inline void small_transpose(float *to, int64_t ld_to, const float *from, int64_t ld_from,
                                   int64_t rows, int64_t cols)
{
    for (int64_t r0 = 0; r0 < rows; r0 += 8)
        for (int64_t c = 0; c < cols; c++)
            for (int64_t r = r0; r < min_i64(r0 + 8, rows); r++)
                to[c * ld_to + r] = from[r * ld_from + c];
}

#endif
