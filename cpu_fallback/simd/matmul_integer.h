/* Products in integers, for b in q8 or q4 (n, k): each row of a is rounded to blocks of 32 int8
 * with one f32 scale; the products of a block are summed exactly in int32, then scaled and added in
 * f32. A few rows of a make dot products with the rows of b where they lie
 * (matmul_integer_dot.c); more rows make tiles of packed columns (matmul_integer_tile.c). What a
 * thread computes is the same however the work is shared. */
#ifndef ITERA_SIMD_MATMUL_INTEGER_H
#define ITERA_SIMD_MATMUL_INTEGER_H

#include "cpu_fallback/simd/matmul.h"

#include "integer_isa.h"

/* Up to so many rows dot products are faster than packing. */
#define MI_DOT_ROWS 8
#define MI_COLS     (MI_VECS * VF_N) /* columns of a tile */

/* What unsigned values of b are too large by: q4's nibbles, and q8 where it is taken as q8 + 128. */
#define MI_EXCESS_Q8 128
#define MI_EXCESS_Q4 8

/* Rows of a, rounded: (rows, k) int8 in [-127, 127], and for each of their blocks the scale, and
 * the sum times the excess of b's type, which a sum of products with unsigned values is too large
 * by. */
struct mm_rounded {
    int8_t *q;
    float *scale;
    int32_t *excess;
};

/* The bytes that rounded rows take (a multiple of 64), and where they lie in them. */
#define mm_rounded_bytes ITERA_SIMD(matmul_rounded_bytes)
size_t mm_rounded_bytes(int64_t rows, int64_t k);
#define mm_rounded_at ITERA_SIMD(matmul_rounded_at)
struct mm_rounded mm_rounded_at(void *memory, int64_t rows, int64_t k);
/* Those from row i on. */
#define mm_rounded_from ITERA_SIMD(matmul_rounded_from)
struct mm_rounded mm_rounded_from(struct mm_rounded a, int64_t i, int64_t k);

/* Rounds rows [begin, end) of g's a. */
#define mm_round ITERA_SIMD(matmul_round)
void mm_round(const struct mm_product *g, int64_t begin, int64_t end, const struct mm_rounded *to);

/* Whether the product can be one of integers. */
#define mm_integer_suits ITERA_SIMD(matmul_integer_suits)
bool mm_integer_suits(const struct mm_product *g);
/* Floats of memory that a thread needs for it, or for fewer rows; a multiple of 16. */
#define mm_integer_floats ITERA_SIMD(matmul_integer_floats)
int64_t mm_integer_floats(const struct mm_product *g);
/* The part [m0, m1) x [n0, n1). a: all rows of g's a. own: mm_integer_floats of this thread,
 * aligned to 64 bytes. */
#define mm_integer ITERA_SIMD(matmul_integer)
void mm_integer(const struct mm_product *g, const struct mm_rounded *a, int64_t m0, int64_t m1,
                int64_t n0, int64_t n1, float *own);

/* The two ways, and the floats that each needs. */
#define mm_integer_dot ITERA_SIMD(matmul_integer_dot)
void mm_integer_dot(const struct mm_product *g, const struct mm_rounded *a, int64_t m0, int64_t m1,
                    int64_t n0, int64_t n1, float *own);
#define mm_integer_dot_floats ITERA_SIMD(matmul_integer_dot_floats)
int64_t mm_integer_dot_floats(const struct mm_product *g);
#define mm_integer_tiles ITERA_SIMD(matmul_integer_tiles)
void mm_integer_tiles(const struct mm_product *g, const struct mm_rounded *a, int64_t m0,
                      int64_t m1, int64_t n0, int64_t n1, float *own);
#define mm_integer_tile_floats ITERA_SIMD(matmul_integer_tile_floats)
int64_t mm_integer_tile_floats(const struct mm_product *g);

/* c = act(sums + bias) + residual, or c += sums, for rows x cols at c(m, n); sums are spent. */
#define mm_integer_put ITERA_SIMD(matmul_integer_put)
void mm_integer_put(const struct mm_product *g, int64_t m, int64_t n, int64_t rows, int64_t cols,
                    float *sums, int64_t sums_ld);

#endif
