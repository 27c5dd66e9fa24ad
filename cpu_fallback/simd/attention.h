/* What the fast attention kernels share: a register-tiled product over small packed blocks. */
#ifndef ITERA_SIMD_ATTENTION_H
#define ITERA_SIMD_ATTENTION_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "cpu_fallback/simd/kernel.h"

#define KEY_BLOCK 64 /* keys per block; a multiple of every VF_N */
#define TILE_ROWS 4

/* Vectors per tile row: with TILE_ROWS as many accumulators as the registers hold beside a row of B
 * and one broadcast. */
#if defined(__AVX2__) && !defined(__AVX512F__)
#define TILE_VECTORS 2
#else
#define TILE_VECTORS 4
#endif

static inline int64_t padded(int64_t n)
{
    return (n + VF_N - 1) / VF_N * VF_N;
}

/* C (rows, vectors VF_N) = [C +] A (rows, k) B (k, vectors VF_N), with A's element (i, l) at
 * a[i row + l step], so that A may be read transposed. rows and vectors are constants after
 * inlining. */
static inline __attribute__((always_inline)) void tile(int rows, int vectors, const float *a,
                                                       int64_t row, int64_t step, const float *b,
                                                       int64_t ldb, int64_t k, float *c,
                                                       int64_t ldc, bool add)
{
    vf sum[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++)
            sum[i][n] = add ? vf_load(c + i * ldc + n * VF_N) : vf_zero();
    for (int64_t l = 0; l < k; l++) {
        vf right[TILE_VECTORS];
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++)
            right[n] = vf_load(b + n * VF_N);
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            vf left = vf_set(a[i * row]);
#pragma GCC unroll 4
            for (int n = 0; n < vectors; n++)
                sum[i][n] = vf_fma(left, right[n], sum[i][n]);
        }
        a += step;
        b += ldb;
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++)
            vf_store(c + i * ldc + n * VF_N, sum[i][n]);
}

static inline __attribute__((always_inline)) void
tile_columns(int rows, int64_t cols, const float *a, int64_t row, int64_t step, const float *b,
             int64_t ldb, int64_t k, float *c, int64_t ldc, bool add)
{
    int64_t n = 0;
    for (; n + TILE_VECTORS * VF_N <= cols; n += TILE_VECTORS * VF_N)
        tile(rows, TILE_VECTORS, a, row, step, b + n, ldb, k, c + n, ldc, add);
#if TILE_VECTORS == 4
    if (n + 2 * VF_N <= cols) {
        tile(rows, 2, a, row, step, b + n, ldb, k, c + n, ldc, add);
        n += 2 * VF_N;
    }
#endif
    if (n < cols)
        tile(rows, 1, a, row, step, b + n, ldb, k, c + n, ldc, add);
}

/* As tile, for rows <= TILE_ROWS and any cols that is a multiple of VF_N. Not inlined: its loops
 * need the registers. */
static __attribute__((noinline)) void product(int64_t rows, int64_t cols, const float *a,
                                              int64_t row, int64_t step, const float *b,
                                              int64_t ldb, int64_t k, float *c, int64_t ldc,
                                              bool add)
{
    if (rows == TILE_ROWS) {
        tile_columns(TILE_ROWS, cols, a, row, step, b, ldb, k, c, ldc, add);
        return;
    }
    for (int64_t i = 0; i < rows; i++)
        tile_columns(1, cols, a + i * row, row, step, b, ldb, k, c + i * ldc, ldc, add);
}

/* to (d, KEY_BLOCK) = the transpose of n rows, with zeros up to a whole vector. */
static inline void pack_transposed(const float *from, int64_t ld, int64_t n, int64_t d, float *to)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t c = 0; c < d; c++)
            to[c * KEY_BLOCK + j] = from[j * ld + c];
    for (int64_t j = n; j < padded(n); j++)
        for (int64_t c = 0; c < d; c++)
            to[c * KEY_BLOCK + j] = 0;
}

/* to (n, padded(d)) = n rows, with zeros beyond d. */
static inline void pack_rows(const float *from, int64_t ld, int64_t n, int64_t d, float *to)
{
    int64_t dp = padded(d);
    for (int64_t j = 0; j < n; j++) {
        int64_t c = 0;
        for (; c + VF_N <= d; c += VF_N)
            vf_store(to + j * dp + c, vf_load(from + j * ld + c));
        if (c < d)
            vf_store(to + j * dp + c, vf_load_n(from + j * ld + c, d - c));
    }
}

#endif
