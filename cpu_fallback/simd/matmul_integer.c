/* Integer products: rounding a, choosing the way, and what follows the sums. */
#include "cpu_fallback/simd/matmul_integer.h"

#include <float.h>

/* The bytes of each array of rounded rows, rounded up to whole cache lines. */
static size_t values_bytes(int64_t rows, int64_t k)
{
    return ((size_t)(rows * k) + 63) / 64 * 64;
}

static size_t blocks_bytes(int64_t rows, int64_t k)
{
    return ((size_t)(rows * (k / ITERA_BLOCK)) * 4 + 63) / 64 * 64;
}

size_t mm_rounded_bytes(int64_t rows, int64_t k)
{
    return values_bytes(rows, k) + 2 * blocks_bytes(rows, k);
}

struct mm_rounded mm_rounded_at(void *memory, int64_t rows, int64_t k)
{
    uint8_t *at = memory;
    struct mm_rounded a = {.q = memory};
    at += values_bytes(rows, k);
    a.scale = (float *)(void *)at;
    at += blocks_bytes(rows, k);
    a.excess = (int32_t *)(void *)at;
    return a;
}

struct mm_rounded mm_rounded_from(struct mm_rounded a, int64_t i, int64_t k)
{
    const int64_t blocks = i * (k / ITERA_BLOCK);
    return (struct mm_rounded){a.q + i * k, a.scale + blocks, a.excess + blocks};
}

/* One block. The largest magnitude is found among bit patterns, which order NaN above infinity: a
 * block with either gets a scale that is not finite, and so does every result it has a part in. Its
 * integers are 0: NaN has none, and what it would be converted to makes sums overflow. */
static void round_block(const float *x, int each, int8_t *q, float *scale, int32_t *excess)
{
    const vi magnitude = vi_set(0x7fffffff);
    vi largest = vi_and(vf_bits(vf_load(x)), magnitude);
    for (int i = VF_N; i < ITERA_BLOCK; i += VF_N)
        largest = vi_max(largest, vi_and(vf_bits(vf_load(x + i)), magnitude));
    const float most = itera_f32_from_bits((uint32_t)vi_hmax(largest));
    /* Below, 127 / most would not be finite; such a block counts as zeros. */
    const vi keep = vi_set(most <= FLT_MAX ? -1 : 0);
    const vf inverse = vf_set(most < 1e-36f ? 0.0f : 127.0f / most);
    vi sum = vi_set(0);
    for (int i = 0; i < ITERA_BLOCK; i += VF_N) {
        const vf scaled = vf_mul(vf_load(x + i), inverse);
        vi r = vf_to_vi(vf_round(vi_as_vf(vi_and(vf_bits(scaled), keep))));
        vi_store_i8(q + i, r);
        sum = vi_add(sum, r);
    }
    *scale = most * (1.0f / 127.0f);
    *excess = each * vi_sum(sum);
}

void mm_round(const struct mm_product *g, int64_t begin, int64_t end, const struct mm_rounded *to)
{
    const int each = g->b.dtype == ITERA_Q4 ? MI_EXCESS_Q4 : MI_EXCESS_Q8;
    struct mm_rounded a = mm_rounded_from(*to, begin, g->k);
    for (int64_t r = begin; r < end; r++) {
        const float *x = g->a + r * g->a_row;
        for (int64_t i = 0; i < g->k; i += ITERA_BLOCK, a.q += ITERA_BLOCK)
            round_block(x + i, each, a.q, a.scale++, a.excess++);
    }
}

/* With a few columns only, rounding a costs as much as it saves. */
bool mm_integer_suits(const struct mm_product *g)
{
    _Static_assert(MI_LANES <= 8, "dot products need MI_LANES columns");
    return itera_dtype_is_blocks(g->b.dtype) && g->n >= 8;
}

int64_t mm_integer_floats(const struct mm_product *g)
{
    const int64_t dot = mm_integer_dot_floats(g), tiles = mm_integer_tile_floats(g);
    return ((g->m > MI_DOT_ROWS && tiles > dot ? tiles : dot) + 15) / 16 * 16;
}

void mm_integer(const struct mm_product *g, const struct mm_rounded *a, int64_t m0, int64_t m1,
                int64_t n0, int64_t n1, float *own)
{
    if (g->m <= MI_DOT_ROWS)
        mm_integer_dot(g, a, m0, m1, n0, n1, own);
    else
        mm_integer_tiles(g, a, m0, m1, n0, n1, own);
}

static inline vf load(const float *p, int64_t n)
{
    return n >= VF_N ? vf_load(p) : vf_load_n(p, n);
}

static inline void store(float *p, vf x, int64_t n)
{
    if (n >= VF_N)
        vf_store(p, x);
    else
        vf_store_n(p, x, n);
}

void mm_integer_put(const struct mm_product *g, int64_t m, int64_t n, int64_t rows, int64_t cols,
                    float *sums, int64_t sums_ld)
{
    const bool act = g->act != ITERA_ACT_NONE;
    const float *residual = g->residual ? g->residual + m * g->residual_ld + n : NULL;
    float *c = g->c + m * g->c_ld + n;
    for (int64_t i = 0; i < rows && (!act || g->bias); i++) {
        float *from = sums + i * sums_ld, *to = act ? from : c + i * g->c_ld;
        const float *add = act             ? NULL
                           : g->accumulate ? to
                           : residual      ? residual + i * g->residual_ld
                                           : NULL;
        for (int64_t j = 0; j < cols; j += VF_N) {
            vf x = load(from + j, cols - j);
            if (g->bias)
                x = vf_add(x, load(g->bias + n + j, cols - j));
            if (add)
                x = vf_add(x, load(add + j, cols - j));
            store(to + j, x, cols - j);
        }
    }
    if (act)
        mm_finish(c, g->c_ld, sums, sums_ld, rows, cols, g->act, residual, g->residual_ld);
}
