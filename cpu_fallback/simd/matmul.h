/* Inside the fast matmul: tiles (matmul_tile.c), dot products (matmul_dot.c), and the loops over
 * blocks and threads that use them (matmul.c).
 *
 * The product is c(m,n) = a(m,k) b(k,n). Large products are cut into register tiles: each step
 * along k loads MM_VECS vectors of a row of b and broadcasts one element of a per tile row,
 * straight from where a lies (any strides), so that only b is ever packed, one panel of MM_VECS
 * vectors at a time, and only when it is stored transposed or is reused enough. A panel is packed
 * by the thread that uses it and stays in L1; nothing is shared, so the threads never wait for each
 * other. Products with a few rows (decoding) or a few columns, where b is stored (n,k), are dot
 * products of contiguous rows, and nothing is packed. */
#ifndef ITERA_SIMD_MATMUL_H
#define ITERA_SIMD_MATMUL_H

#include "cpu_fallback/simd/kernel.h"

#include "matmul_isa.h"

#define MM_COLS (MM_VECS * VF_N) /* columns of a tile */

/* One tile: c(rows, n) = a b + bias + add, n <= vectors * VF_N. bias and add may be NULL; add may
 * be c. */
struct mm_tile {
    const float *a;
    int64_t a_row, a_col; /* element strides of a along its rows (m) and columns (k) */
    const float *b;       /* k rows of whole vectors, b_ld elements apart */
    int64_t b_ld;
    int64_t k;
    float *c;
    int64_t c_ld;
    int64_t n;
    const float *bias;
    const float *add;
    int64_t add_ld;
};

typedef void mm_tile_fn(const struct mm_tile *t);

#define mm_tiles ITERA_SIMD(matmul_tiles)
extern mm_tile_fn *const mm_tiles[MM_ROWS][MM_VECS]; /* by rows - 1 and vectors - 1 */

/* One product in the caller's terms. */
struct mm_product {
    int64_t m, n, k;
    const float *a;
    int64_t a_row, a_col;
    const float *b; /* (k, n), or (n, k) when b_trans */
    int64_t b_ld;
    bool b_trans;
    float *c;
    int64_t c_ld;
    const float *bias; /* n, or NULL */
    const float *residual;
    int64_t residual_ld;
    uint8_t act; /* enum itera_act */
    bool accumulate;
};

/* c = act(from) + residual over rows x n; from may be c, residual NULL. */
#define mm_finish ITERA_SIMD(matmul_finish)
void mm_finish(float *c, int64_t c_ld, const float *from, int64_t from_ld, int64_t rows, int64_t n,
               uint8_t act, const float *residual, int64_t residual_ld);

/* Whether dot products are the better way; needs b_trans and contiguous rows of a. */
#define mm_dot_suits ITERA_SIMD(matmul_dot_suits)
bool mm_dot_suits(const struct mm_product *p);
/* The part [m0, m1) x [n0, n1) of a product that mm_dot_suits. */
#define mm_dot ITERA_SIMD(matmul_dot)
void mm_dot(const struct mm_product *p, int64_t m0, int64_t m1, int64_t n0, int64_t n1);

#endif
