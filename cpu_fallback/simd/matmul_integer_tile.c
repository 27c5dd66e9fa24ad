/* Integer products as tiles of MI_ROWS rows of a by MM_COLS columns: each step along k multiplies
 * four elements of every column, side by side in a lane of a packed panel, by the same four of a
 * row. A panel holds MM_COLS columns for the whole of k and serves all rows of a thread. */
#include <string.h>

#include "cpu_fallback/simd/matmul_integer.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { STEPS = ITERA_BLOCK / 4, LANE_BYTES = VF_N * 4 };

/* Per block STEPS x MM_VECS vectors; then per block MM_COLS scales. */
struct panel {
    int8_t *w;
    float *scale;
};

static struct panel panel_at(const struct mm_product *g, float *own)
{
    return (struct panel){(int8_t *)own, own + MM_COLS * g->k / 4};
}

int64_t mm_integer_tile_floats(const struct mm_product *g)
{
    return MM_COLS * (g->k / 4 + g->k / ITERA_BLOCK);
}

/* One block of VF_N columns, each `ld` bytes after the one before, to every MM_VECS-th vector. */
ALWAYS_INLINE void pack_block(const uint8_t *src, int64_t ld, int8_t *out, const bool q4)
{
    enum { NEXT = MM_VECS * LANE_BYTES };
    vf r[4];
    /* Four bytes move like a float. */
    mm_load_columns((const float *)(const void *)src, ld / 4, r);
    for (int i = 0; i < 4; i++, out += NEXT) {
        const vi x = vf_bits(r[i]), low = vi_set(0x0f0f0f0f);
        if (q4) {
            vi_store((int32_t *)(void *)out, vi_and(x, low));
            vi_store((int32_t *)(void *)(out + 4 * NEXT), vi_and(vi_shr(x, 4), low));
        } else {
            vi_store((int32_t *)(void *)out,
                     MI_OFFSET_Q8 ? vi_xor(x, vi_set((int32_t)0x80808080u)) : x);
        }
    }
    if (q4)
        return;
    mm_load_columns((const float *)(const void *)(src + 16), ld / 4, r);
    for (int i = 0; i < 4; i++, out += NEXT) {
        const vi x = vf_bits(r[i]);
        vi_store((int32_t *)(void *)out,
                 MI_OFFSET_Q8 ? vi_xor(x, vi_set((int32_t)0x80808080u)) : x);
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
    for (int64_t b = 0; b < blocks; b++, out += STEPS * MM_VECS * LANE_BYTES) {
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
                scale[(b + i) * MM_COLS + j] = one[i];
        }
    }
}

static void pack(const struct mm_product *g, int64_t n, int64_t cols, const struct panel *to)
{
    for (int v = 0; v < MM_VECS; v++, cols -= VF_N, n += VF_N) {
        const int64_t some = cols < 0 ? 0 : cols < VF_N ? cols : VF_N;
        if (g->b.dtype == ITERA_Q4)
            pack_columns(g, some ? n : 0, some, v, to, true);
        else
            pack_columns(g, some ? n : 0, some, v, to, false);
    }
}

/* MI_ROWS rows by MM_COLS columns; a: pointers to MI_ROWS rows. */
ALWAYS_INLINE void tile(const int8_t *const *a, const float *const *scale,
                        const int32_t *const *excess, const struct panel *panel, int64_t blocks,
                        float *out, const bool q4)
{
    const bool offset = q4 ? MI_OFFSET_Q4 != 0 : MI_OFFSET_Q8 != 0;
    const int8_t *w = panel->w;
    vf sum[MI_ROWS][MM_VECS];
#pragma GCC unroll 16
    for (int r = 0; r < MI_ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < MM_VECS; v++)
            sum[r][v] = vf_zero();
    for (int64_t b = 0; b < blocks; b++) {
        vi acc[MI_ROWS][MM_VECS];
#pragma GCC unroll 16
        for (int r = 0; r < MI_ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < MM_VECS; v++)
                acc[r][v] = vi_set(0);
#pragma GCC unroll 8
        for (int s = 0; s < STEPS; s++, w += MM_VECS * LANE_BYTES) {
            vi wv[MM_VECS];
#pragma GCC unroll 4
            for (int v = 0; v < MM_VECS; v++)
                wv[v] = vi_load((const int32_t *)(const void *)(w + v * LANE_BYTES));
#pragma GCC unroll 16
            for (int r = 0; r < MI_ROWS; r++) {
                int32_t four;
                memcpy(&four, a[r] + b * ITERA_BLOCK + 4 * s, sizeof four);
                const vi x = vi_set(four);
#pragma GCC unroll 4
                for (int v = 0; v < MM_VECS; v++)
                    acc[r][v] =
                        q4 ? mi_step_q4(acc[r][v], wv[v], x) : mi_step_q8(acc[r][v], wv[v], x);
            }
        }
        const float *ws = panel->scale + b * MM_COLS;
#pragma GCC unroll 16
        for (int r = 0; r < MI_ROWS; r++) {
            const vf as = vf_set(scale[r][b]);
#pragma GCC unroll 4
            for (int v = 0; v < MM_VECS; v++) {
                vi x = q4 ? mi_end_q4(acc[r][v]) : acc[r][v];
                if (offset)
                    x = vi_sub(x, vi_set(excess[r][b]));
                sum[r][v] = vf_fma(vi_to_vf(x), vf_mul(as, vf_load(ws + v * VF_N)), sum[r][v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < MI_ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < MM_VECS; v++)
            vf_store(out + r * MM_COLS + v * VF_N, sum[r][v]);
}

void mm_integer_tiles(const struct mm_product *g, const struct mm_rounded *a, int64_t m0,
                      int64_t m1, int64_t n0, int64_t n1, float *own)
{
    const int64_t blocks = g->k / ITERA_BLOCK;
    const struct panel panel = panel_at(g, own);
    for (int64_t n = n0; n < n1; n += MM_COLS) {
        const int64_t cols = n1 - n < MM_COLS ? n1 - n : MM_COLS;
        pack(g, n, cols, &panel);
        for (int64_t m = m0; m < m1; m += MI_ROWS) {
            const int64_t rows = m1 - m < MI_ROWS ? m1 - m : MI_ROWS;
            const int8_t *q[MI_ROWS];
            const float *scale[MI_ROWS];
            const int32_t *excess[MI_ROWS];
            _Alignas(64) float sums[MI_ROWS * MM_COLS];
            for (int64_t r = 0; r < MI_ROWS; r++) {
                /* The last row stands in for those that are not there. */
                const int64_t at = m + (r < rows ? r : rows - 1);
                q[r] = a->q + at * g->k;
                scale[r] = a->scale + at * blocks;
                excess[r] = a->excess + at * blocks;
            }
            if (g->b.dtype == ITERA_Q4)
                tile(q, scale, excess, &panel, blocks, sums, true);
            else
                tile(q, scale, excess, &panel, blocks, sums, false);
            mm_integer_put(g, m, n, rows, cols, sums, MM_COLS);
        }
    }
}
