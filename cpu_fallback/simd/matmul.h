/* Inside the fast matmul: tiles (matmul_tile.c), dot products (matmul_dot.c), and the loops over
 * blocks and threads that use them (matmul.c).
 *
 * The product is c(m,n) = a(m,k) b(k,n). Large products are cut into register tiles: each step
 * along k loads MM_VECS vectors of a row of b and broadcasts one element of a per tile row,
 * straight from where a lies (any strides), so that only b is ever packed, one panel of MM_VECS
 * vectors at a time, and only when it is stored transposed or is reused enough. A panel is packed
 * by the thread that uses it and stays in L1; nothing is shared, so the threads never wait for each
 * other. Products with a few rows (decoding) or a few columns, where b is stored (n,k), are dot
 * products of contiguous rows, and nothing is packed.
 *
 * Narrow weights (f16, bf16, q8, q4) are expanded while they are packed; dot products of one row
 * read them where they lie (matmul_narrow.c), those of a few rows expand VF_N rows of b at a time
 * into a near cache. */
#ifndef ITERA_SIMD_MATMUL_H
#define ITERA_SIMD_MATMUL_H

#include "cpu_fallback/simd/expand.h"

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
    struct itera_weights b; /* (k, n), or (n, k) when b_trans */
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

/* Packing: n columns of b from depth k0 on as k rows of MM_COLS floats or, at the right edge, of as
 * many whole vectors as n needs; columns beyond n are 0. k0 is a multiple of 32 where b is blocks.
 */
#define mm_pack ITERA_SIMD(matmul_pack)
void mm_pack(const struct mm_product *g, int64_t k0, int64_t k, int64_t n0, int64_t n, float *out,
             int64_t out_ld);

/* Whether dot products are the better way; needs b_trans and contiguous rows of a. */
#define mm_dot_suits ITERA_SIMD(matmul_dot_suits)
bool mm_dot_suits(const struct mm_product *p);
/* Floats of memory that a thread needs for them. */
#define mm_dot_floats ITERA_SIMD(matmul_dot_floats)
int64_t mm_dot_floats(const struct mm_product *p);
/* The part [m0, m1) x [n0, n1) of a product that mm_dot_suits; own: mm_dot_floats of this thread.
 */
#define mm_dot ITERA_SIMD(matmul_dot)
void mm_dot(const struct mm_product *p, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *own);

/* One row of a, contiguous, by VF_N rows of b (n, k), narrow and contiguous in themselves, read
 * where they lie: sum over k. n0: the first row; the others are all there. own: VF_N + 1 floats per
 * 32 of k, kept from call to call between mm_narrow_begin and the end of the row. */
#define mm_narrow_begin ITERA_SIMD(matmul_narrow_begin)
void mm_narrow_begin(const struct mm_product *p, const float *a, float *own);
#define mm_narrow_dot ITERA_SIMD(matmul_narrow_dot)
vf mm_narrow_dot(const struct mm_product *p, const float *a, int64_t n0, bool far, float *own);

#endif
