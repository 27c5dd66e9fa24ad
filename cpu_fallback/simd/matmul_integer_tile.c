/* Integer products as tiles of MI_ROWS rows of a by MI_COLS columns: each step along k multiplies
 * four elements of every column, side by side in a lane of a packed panel, by the same four of a
 * row. A panel holds MI_COLS columns for the whole of k. As many panels as stay in L2 are packed
 * together and go by for each few rows of a, which stay in L1. */
#include <string.h>

#include "cpu_fallback/simd/matmul_integer.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Compilers would reorder the unrolled sums, and run out of registers. */
#ifdef __x86_64__
#define KEEP_ORDER(x) __asm__ volatile("" : "+v"(x))
#else
#define KEEP_ORDER(x) __asm__ volatile("" : "+w"(x))
#endif

/* Parts: vectors of b per step, see MI_Q8_PARTS. */
#define PARTS(q4) ((q4) ? 1 : MI_Q8_PARTS)
/* Whether tiles take b as unsigned. */
#define UNSIGNED(q4) ((q4) || MI_Q8_PARTS == 2 || MI_UNSIGNED_Q8)
enum { STEPS = ITERA_BLOCK / 4, LANE_BYTES = VF_N * 4 };

/* Per block STEPS x PARTS x MI_VECS vectors; then per block MI_COLS scales. */
struct panel {
    int8_t *w;
    float *scale;
};

/* The most of b that is kept packed. */
#define KEPT_FLOATS (40 * 1024)

/* A multiple of a cache line. */
static int64_t panel_floats(const struct mm_product *g)
{
    return (MI_COLS * (PARTS(g->b.dtype == ITERA_Q4) * g->k / 4 + g->k / ITERA_BLOCK) + 15) / 16 *
           16;
}

static int64_t kept_panels(const struct mm_product *g)
{
    const int64_t fit = KEPT_FLOATS / panel_floats(g), all = (g->n + MI_COLS - 1) / MI_COLS;
    return fit < 1 ? 1 : fit < all ? fit : all;
}

int64_t mm_integer_tile_floats(const struct mm_product *g)
{
    return kept_panels(g) * panel_floats(g);
}

static struct panel panel_at(const struct mm_product *g, float *own, int64_t i)
{
    float *w = own + i * panel_floats(g);
    return (struct panel){(int8_t *)w, w + PARTS(g->b.dtype == ITERA_Q4) * MI_COLS * g->k / 4};
}

/* One step's bytes of b to its vectors. q4: the nibbles of two steps, half a block apart. */
ALWAYS_INLINE void put_step(vi x, int8_t *out, const bool q4)
{
    enum { NEXT = MI_VECS * LANE_BYTES };
    const vi low = vi_set(0x0f0f0f0f);
    int32_t *first = (int32_t *)(void *)out;
    if (!q4 && MI_Q8_PARTS == 1) {
        vi_store(first, MI_UNSIGNED_Q8 ? vi_xor(x, vi_set((int32_t)0x80808080u)) : x);
        return;
    }
    int32_t *second = (int32_t *)(void *)(out + (q4 ? STEPS / 2 : 1) * NEXT);
    if (!q4)
        x = vi_xor(x, vi_set((int32_t)0x80808080u));
    vi_store(first, vi_and(x, low));
    vi_store(second, vi_and(vi_shr(x, 4), low));
}

/* One block of VF_N columns, each `ld` bytes after the one before, to every MI_VECS-th vector. */
ALWAYS_INLINE void pack_block(const uint8_t *src, int64_t ld, int8_t *out, const bool q4)
{
    for (int half = 0; half < (q4 ? 1 : 2); half++, src += 16) {
        vf r[4];
        /* Four bytes move like a float. */
        mm_load_columns((const float *)(const void *)src, ld / 4, r);
        for (int i = 0; i < 4; i++, out += PARTS(q4) * MI_VECS * LANE_BYTES)
            put_step(vf_bits(r[i]), out, q4);
    }
}

/* Columns [n, n + cols), cols <= VF_N, to vector v of the panel. Columns that are not there have
 * scales of zero. */
ALWAYS_INLINE void pack_columns(const struct mm_product *g, int64_t n, int64_t cols, int v,
                                const struct panel *to, const bool q4)
{
    const int64_t blocks = g->k / ITERA_BLOCK, bytes = q4 ? 16 : 32;
    const struct itera_weights w = itera_weights_from(g->b, n * g->k);
    int8_t *out = to->w + v * LANE_BYTES;
    for (int64_t b = 0; b < blocks; b++, out += STEPS * PARTS(q4) * MI_VECS * LANE_BYTES) {
        if (cols == VF_N) {
            pack_block(w.data + b * bytes, blocks * bytes, out, q4);
        } else {
            uint8_t part[VF_N * 32] = {0};
            for (int64_t j = 0; j < cols; j++)
                memcpy(part + j * bytes, w.data + (j * blocks + b) * bytes, (size_t)bytes);
            pack_block(part, bytes, out, q4);
        }
    }
    float *scale = to->scale + v * VF_N;
    for (int64_t b = 0; b < blocks; b += VF_N) {
        const int64_t some = blocks - b < VF_N ? blocks - b : VF_N;
        for (int64_t j = 0; j < VF_N; j++) {
            float one[VF_N] = {0};
            if (j < cols)
                itera_expand_half(w.scales + j * blocks + b, some, one);
            for (int64_t i = 0; i < some; i++)
                scale[(b + i) * MI_COLS + j] = one[i];
        }
    }
}

static void pack(const struct mm_product *g, int64_t n, int64_t cols, const struct panel *to)
{
    for (int v = 0; v < MI_VECS; v++, cols -= VF_N, n += VF_N) {
        const int64_t some = cols < 0 ? 0 : cols < VF_N ? cols : VF_N;
        if (g->b.dtype == ITERA_Q4)
            pack_columns(g, some ? n : 0, some, v, to, true);
        else
            pack_columns(g, some ? n : 0, some, v, to, false);
    }
}

/* MI_ROWS rows by MI_COLS columns; a: pointers to MI_ROWS rows. */
ALWAYS_INLINE void tile(const int8_t *const *a, const float *const *scale,
                        const int32_t *const *excess, const struct panel *panel, int64_t blocks,
                        float *out, const bool q4)
{
    const int parts = PARTS(q4);
    const int8_t *w = panel->w;
    vf sum[MI_ROWS][MI_VECS];
#pragma GCC unroll 16
    for (int r = 0; r < MI_ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < MI_VECS; v++)
            sum[r][v] = vf_zero();
    for (int64_t b = 0; b < blocks; b++) {
        vi acc[2][MI_ROWS][MI_VECS];
#pragma GCC unroll 2
        for (int p = 0; p < parts; p++)
#pragma GCC unroll 16
            for (int r = 0; r < MI_ROWS; r++)
#pragma GCC unroll 4
                for (int v = 0; v < MI_VECS; v++)
                    acc[p][r][v] = vi_set(0);
#pragma GCC unroll 8
        for (int s = 0; s < STEPS; s++, w += parts * MI_VECS * LANE_BYTES) {
#pragma GCC unroll 16
            for (int r = 0; r < MI_ROWS; r++) {
                int32_t four;
                memcpy(&four, a[r] + b * ITERA_BLOCK + 4 * s, sizeof four);
                const vi x = vi_set(four);
#pragma GCC unroll 2
                for (int p = 0; p < parts; p++)
#pragma GCC unroll 4
                    for (int v = 0; v < MI_VECS; v++) {
                        const int8_t *at = w + (p * MI_VECS + v) * LANE_BYTES;
                        acc[p][r][v] =
                            mi_step(acc[p][r][v], vi_load((const int32_t *)(const void *)at), x);
                        KEEP_ORDER(acc[p][r][v]);
                    }
            }
        }
        const float *ws = panel->scale + b * MI_COLS;
#pragma GCC unroll 16
        for (int r = 0; r < MI_ROWS; r++) {
            const vf as = vf_set(scale[r][b]);
#pragma GCC unroll 4
            for (int v = 0; v < MI_VECS; v++) {
                vi x = mi_end(acc[0][r][v], 1);
                if (parts == 2)
                    x = vi_add(x, mi_end(acc[1][r][v], 16));
                if (UNSIGNED(q4))
                    x = vi_sub(x, vi_set(excess[r][b]));
                sum[r][v] = vf_fma(vi_to_vf(x), vf_mul(as, vf_load(ws + v * VF_N)), sum[r][v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < MI_ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < MI_VECS; v++)
            vf_store(out + r * MI_COLS + v * VF_N, sum[r][v]);
}

/* Rows [m, m + rows) by columns [n0, n1), packed in `own` from panel 0 on. */
static void few_rows(const struct mm_product *g, const struct mm_rounded *a, int64_t m,
                     int64_t rows, int64_t n0, int64_t n1, float *own)
{
    const int64_t blocks = g->k / ITERA_BLOCK;
    const int8_t *q[MI_ROWS];
    const float *scale[MI_ROWS];
    const int32_t *excess[MI_ROWS];
    _Alignas(64) float sums[MI_ROWS * MI_COLS];
    for (int64_t r = 0; r < MI_ROWS; r++) {
        /* The last row stands in for those that are not there. */
        const int64_t at = m + (r < rows ? r : rows - 1);
        q[r] = a->q + at * g->k;
        scale[r] = a->scale + at * blocks;
        excess[r] = a->excess + at * blocks;
    }
    for (int64_t n = n0; n < n1; n += MI_COLS) {
        const struct panel panel = panel_at(g, own, (n - n0) / MI_COLS);
        if (g->b.dtype == ITERA_Q4)
            tile(q, scale, excess, &panel, blocks, sums, true);
        else
            tile(q, scale, excess, &panel, blocks, sums, false);
        mm_integer_put(g, m, n, rows, n1 - n < MI_COLS ? n1 - n : MI_COLS, sums, MI_COLS);
    }
}

void mm_integer_tiles(const struct mm_product *g, const struct mm_rounded *a, int64_t m0,
                      int64_t m1, int64_t n0, int64_t n1, float *own)
{
    const int64_t chunk = kept_panels(g) * MI_COLS;
    for (int64_t n = n0; n < n1; n += chunk) {
        const int64_t end = n1 - n < chunk ? n1 : n + chunk;
        for (int64_t j = n; j < end; j += MI_COLS) {
            const struct panel panel = panel_at(g, own, (j - n) / MI_COLS);
            pack(g, j, end - j < MI_COLS ? end - j : MI_COLS, &panel);
        }
        for (int64_t m = m0; m < m1; m += MI_ROWS)
            few_rows(g, a, m, m1 - m < MI_ROWS ? m1 - m : MI_ROWS, n, end, own);
    }
}
