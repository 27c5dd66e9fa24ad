/* The register tiles of the matmul, one function per number of rows and vectors. */
#include "cpu_fallback/simd/matmul.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Broadcasting needs the addresses of up to 14 rows of a: one pointer per three rows reaches the
 * other two by scaled indexing, so they all stay in registers. */
ALWAYS_INLINE void tile(const struct mm_tile *t, const int rows, const int vecs)
{
    enum { POINTERS = (MM_ROWS + 2) / 3 };
    vf acc[MM_ROWS][MM_VECS];
    const float *p[POINTERS];
    const float *b = t->b;
    const int64_t row = t->a_row, col = t->a_col, b_ld = t->b_ld;
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++)
            acc[r][v] = vf_zero();
        if (r % 3 == 0)
            p[r / 3] = t->a + r * row;
    }
#if MM_ROWS > 8
    /* The lines of c are called one row at a time, between the steps along k: that many at once
     * would hold up the loads of a. */
    const int64_t stride = t->k / rows + 1;
    const float *line = t->c;
#else
    const int64_t stride = t->k;
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        __builtin_prefetch(t->c + r * t->c_ld, 1);
        __builtin_prefetch(t->c + r * t->c_ld + vecs * VF_N - 1, 1);
    }
#endif
    for (int64_t left = t->k; left > 0; left -= stride) {
#if MM_ROWS > 8
        __builtin_prefetch(line, 1);
        __builtin_prefetch(line + vecs * VF_N - 1, 1);
        line += t->c_ld;
#endif
        for (int64_t k = left < stride ? left : stride; k > 0; k--) {
            vf bv[MM_VECS];
#pragma GCC unroll 4
            for (int v = 0; v < vecs; v++)
                bv[v] = vf_load(b + v * VF_N);
            b += b_ld;
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                vf x = vf_set(p[r / 3][r % 3 * row]);
#pragma GCC unroll 4
                for (int v = 0; v < vecs; v++)
                    acc[r][v] = vf_fma(x, bv[v], acc[r][v]);
                if (r % 3 == 2 || r == rows - 1)
                    p[r / 3] += col;
            }
        }
    }

    float *c = t->c;
    const int64_t c_ld = t->c_ld;
    int64_t last = t->n - (vecs - 1) * VF_N; /* columns of the last vector */
    if (t->bias) {
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++) {
            vf bias =
                v + 1 < vecs ? vf_load(t->bias + v * VF_N) : vf_load_n(t->bias + v * VF_N, last);
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++)
                acc[r][v] = vf_add(acc[r][v], bias);
        }
    }
    if (t->add) {
        const float *add = t->add;
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
            for (int v = 0; v < vecs; v++)
                acc[r][v] = vf_add(acc[r][v], v + 1 < vecs || last == VF_N
                                                  ? vf_load(add + v * VF_N)
                                                  : vf_load_n(add + v * VF_N, last));
            add += t->add_ld;
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < vecs - 1; v++)
            vf_store(c + v * VF_N, acc[r][v]);
        if (last == VF_N)
            vf_store(c + (vecs - 1) * VF_N, acc[r][vecs - 1]);
        else
            vf_store_n(c + (vecs - 1) * VF_N, acc[r][vecs - 1], last);
        c += c_ld;
    }
}

#define TILE(rows)                                                                                 \
    static void tile_##rows##_1(const struct mm_tile *t)                                           \
    {                                                                                              \
        tile(t, rows, 1);                                                                          \
    }                                                                                              \
    static void tile_##rows##_2(const struct mm_tile *t)                                           \
    {                                                                                              \
        tile(t, rows, 2);                                                                          \
    }
#define ENTRY(rows)                                                                                \
    {                                                                                              \
        tile_##rows##_1, tile_##rows##_2                                                           \
    }

TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
#if MM_ROWS > 6
TILE(7)
TILE(8)
#endif
#if MM_ROWS > 8
TILE(9)
TILE(10)
TILE(11)
TILE(12)
TILE(13)
TILE(14)
#endif

_Static_assert(MM_VECS == 2 && (MM_ROWS == 6 || MM_ROWS == 8 || MM_ROWS == 14),
               "the table below lists the tiles");

mm_tile_fn *const mm_tiles[MM_ROWS][MM_VECS] = {
    ENTRY(1), ENTRY(2),  ENTRY(3),  ENTRY(4),  ENTRY(5),  ENTRY(6),
#if MM_ROWS > 6
    ENTRY(7), ENTRY(8),
#endif
#if MM_ROWS > 8
    ENTRY(9), ENTRY(10), ENTRY(11), ENTRY(12), ENTRY(13), ENTRY(14),
#endif
};
