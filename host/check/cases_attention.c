/* Parity cases of the attention family. */
#include <stdio.h>

#include "check/case.h"

itera_case_fn itera_case_rope;
itera_case_fn itera_case_attention;

bool itera_case_rope(struct itera_case *c)
{
    if (c->index >= 20)
        return false;
    /* Half widths around the vector's; one head of two elements; a width of a large model. */
    static const int8_t halves[] = {16, 1, 4, 7, 8, 9, 17, 64, 3, 32};
    int64_t batch = itera_case_pick(c, 1, 3), time = c->index % 4 ? itera_case_size(c, 33) : 1;
    int64_t heads = itera_case_pick(c, 1, 4), d = 2 * halves[c->index % 10];
    int64_t dim[] = {batch, time, heads * d};
    bool strided = c->index % 3 == 1, started = c->index % 2, extreme = c->index % 7 == 5;
    enum itera_fill fill = extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL;
    double spread = extreme ? 1e6 : 1.0;
    int32_t in[2] = {ITERA_NONE, ITERA_NONE}, out[1] = {ITERA_NEW};
    in[0] = strided ? itera_case_strided(c, "x", 3, dim, itera_case_pick(c, 1, 9), fill, 0, spread)
                    : itera_case_input(c, "x", 3, dim, fill, 0, spread);
    if (started)
        in[1] = itera_case_input(c, "start", 1, &batch, ITERA_FILL_INDEX, 0, 100000);
    struct itera_attr attr = {.heads = (int32_t)heads, .inverse = c->index % 5 == 2};
    if (c->index % 4 == 3)
        attr.scale = 500000.0f;
    snprintf(c->label, sizeof c->label, "batch=%d time=%d heads=%d d=%d%s%s%s", (int)batch,
             (int)time, (int)heads, (int)d, started ? " start" : "", strided ? " strided" : "",
             extreme ? " extreme" : "");
    itera_record(c->program, ITERA_OP_rope, &attr, in, out);
    return true;
}

/* What a case of attention is like. */
struct kind {
    int16_t batch, time, heads, kv_heads, d;
    int16_t positions; /* of the cache; 0: none */
};

/* Inputs k_cache, v_cache and start; nothing is differentiated. */
static void add_cache(struct itera_case *c, const struct kind *k, bool strided, int32_t *in)
{
    const int64_t batch = k->batch, dim[] = {batch, k->positions, k->kv_heads * k->d};
    for (int i = 0; i < 2; i++)
        in[3 + i] = itera_case_strided(c, i ? "v_cache" : "k_cache", 3, dim, strided ? 3 : 0,
                                       ITERA_FILL_NORMAL, 0, 1);
    /* Also before the first position and beyond the last: both are to be clamped. */
    in[5] = itera_case_input(c, "start", 1, &batch, ITERA_FILL_INDEX, -1, k->positions + 2);
    for (int i = 0; i < c->n_inputs; i++)
        itera_case_constant(c, c->input[i].tensor);
}

bool itera_case_attention(struct itera_case *c)
{
    /* A training step, prefill into a cache, decoding early and late, one key, blocks of 64 keys
     * and 128 queries and one off each, shared heads, widths around the vector's, and heads wider
     * than a GPU kernel takes at once. */
    static const struct kind named[] = {
        {2, 128, 4, 4, 32, 0},  {1, 1, 4, 4, 32, 40},  {1, 1, 4, 2, 64, 600},
        {2, 33, 4, 4, 32, 70},  {1, 1, 1, 1, 8, 0},    {1, 63, 2, 1, 16, 0},
        {1, 64, 2, 2, 17, 0},   {1, 65, 1, 1, 33, 0},  {1, 129, 1, 1, 16, 0},
        {1, 131, 2, 1, 8, 200}, {3, 2, 3, 3, 5, 0},    {2, 3, 6, 2, 7, 0},
        {1, 4, 2, 2, 1, 0},     {2, 5, 4, 1, 3, 0},    {1, 7, 2, 2, 128, 0},
        {3, 1, 2, 1, 9, 1},     {2, 1, 8, 2, 16, 257}, {1, 2, 3, 1, 40, 300},
        {1, 40, 2, 2, 96, 40},  {2, 9, 2, 2, 31, 5},   {1, 200, 1, 1, 64, 0},
        {1, 17, 9, 3, 15, 0},   {1, 34, 2, 1, 160, 0}, {2, 1, 4, 2, 136, 300},
    };
    enum { NAMED = sizeof named / sizeof *named, CASES = NAMED + 18 };
    if (c->index >= CASES)
        return false;
    struct kind k;
    if (c->index < NAMED) {
        k = named[c->index];
    } else {
        k.batch = (int16_t)itera_case_pick(c, 1, 3);
        k.time = (int16_t)itera_case_size(c, 49);
        k.kv_heads = (int16_t)itera_case_pick(c, 1, 3);
        k.heads = (int16_t)(k.kv_heads * itera_case_pick(c, 1, 3));
        k.d = (int16_t)itera_case_size(c, 33);
        k.positions = (int16_t)(c->index % 3 ? 0 : k.time + itera_case_pick(c, 0, 80));
    }
    /* Finite differences of the long ones would take too long: extreme values have none. */
    bool extreme = k.time > 100 || (c->index >= NAMED && c->index % 5 == 4);
    bool fused = c->index % 3 != 2, strided = c->index % 3 == 2 && c->index % 2;
    bool inference = k.positions > 0 || c->index % 9 == 4;
    enum itera_fill fill = extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL;
    double spread = extreme ? 3.0 : 1.0;
    int64_t q_cols = k.heads * k.d, kv_cols = k.kv_heads * k.d;
    int32_t in[6] = {ITERA_NONE, ITERA_NONE, ITERA_NONE, ITERA_NONE, ITERA_NONE, ITERA_NONE};
    if (fused) {
        const int64_t dim[] = {k.batch, k.time, q_cols + 2 * kv_cols};
        int32_t qkv = itera_case_input(c, "qkv", 3, dim, fill, 0, spread);
        in[0] = itera_view_cols(c->program, qkv, 0, q_cols);
        in[1] = itera_view_cols(c->program, qkv, q_cols, kv_cols);
        in[2] = itera_view_cols(c->program, qkv, q_cols + kv_cols, kv_cols);
    } else {
        static const char *const names[] = {"q", "k", "v"};
        for (int i = 0; i < 3; i++) {
            const int64_t dim[] = {k.batch, k.time, i ? kv_cols : q_cols};
            in[i] =
                itera_case_strided(c, names[i], 3, dim, strided ? 1 + 4 * i : 0, fill, 0, spread);
        }
    }
    if (k.positions)
        add_cache(c, &k, strided, in);
    if (inference)
        for (int i = 0; i < c->n_inputs; i++)
            itera_case_constant(c, c->input[i].tensor);
    bool wants_lse = !inference || c->index % 2;
    struct itera_attr attr = {.heads = k.heads, .kv_heads = k.kv_heads};
    if (k.heads == k.kv_heads && c->index % 2)
        attr.kv_heads = 0;
    if (c->index % 4 == 2)
        attr.scale = 0.4f;
    snprintf(c->label, sizeof c->label, "batch=%d time=%d heads=%d/%d d=%d cache=%d%s%s%s", k.batch,
             k.time, k.heads, k.kv_heads, k.d, k.positions, fused ? " fused" : "",
             strided ? " strided" : "", extreme ? " extreme" : "");
    int32_t out[2] = {ITERA_NEW, wants_lse ? ITERA_NEW : ITERA_NONE};
    itera_record(c->program, ITERA_OP_attention, &attr, in, out);
    return true;
}
