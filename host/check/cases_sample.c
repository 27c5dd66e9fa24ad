/* Parity cases of sampling. Tokens must be equal: the fast kernels decide as the reference does. */
#include <math.h>
#include <stdio.h>

#include "check/case.h"
#include "core/number.h"

itera_case_fn itera_case_sample;
itera_case_fn itera_case_advance;

bool itera_case_sample(struct itera_case *c)
{
    /* temperature, top_k, top_p, gap: greedy, each cut alone and with the other, and values at or beyond
     * the ends of what makes sense. */
    static const float params[][4] = {
        {0, 0, 1},           {1, 0, 1},          {1, 40, 1},
        {1, 0, 0.9f},        {0.8f, 40, 0.95f},  {-1, 5, 0.5f},
        {1, 1, 1},           {1, 3, 0.99f},      {2, 1e9f, 2},
        {1, -4, 0},          {1e-20f, 0, 1},     {1e30f, 0, 0.3f},
        {0.7f, 0, 0.01f},    {1, 1000, 1},       {1.5f, 0, 0.999f},
        {1, 200, 0.5f},      {1, 0, 1, 2},       {0.8f, 0, 1, 1e-30f},
        {1, 9, 1, 3.5f},     {2, 0, 0.9f, 1.5f}, {1, 50, 0.8f, 2.5f},
        {1, 0, 1, INFINITY}, {0, 0, 1, 1},       {1, 0, 0.9f, -1},
    };
    static const int16_t sizes[] = {8000, 1, 2, 63, 64, 65, 200, 1000, 257, 5000, 17};
    enum { PARAMS = sizeof params / sizeof *params, SIZES = sizeof sizes / sizeof *sizes };
    enum { STEEP = 4, LARGE = 4, FIRST_STEEP = 4 * PARAMS, FIRST_LARGE = FIRST_STEEP + STEEP };
    if (c->index >= FIRST_LARGE + LARGE)
        return false;
    /* One logit far above all others: weights that begin from another maximum overflow. */
    const bool large = c->index >= FIRST_LARGE, steep = c->index >= FIRST_STEEP && !large;
    const float *value = params[large ? c->index - FIRST_LARGE + 1 : steep ? 1 : c->index % PARAMS];
    const int64_t batch = large ? 1 : itera_case_pick(c, 1, 5);
    const int64_t vocabulary =
        large ? (c->index % 2 ? 150000 : 50257)
              : sizes[steep ? c->index % 2 * 9 : (c->index + c->index / PARAMS) % SIZES];
    const int64_t dim[] = {batch, vocabulary}, four[] = {batch, 4};
    /* Extreme values are mostly ties: many zeros and many at either end. */
    bool extreme = c->index % 3 == 2 && !steep;
    double spread = steep ? 1e4 : (double)itera_case_pick(c, 1, 5);
    int32_t logits = itera_case_strided(c, "logits", 2, dim, c->index % 2 ? 3 : 0,
                                        extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL, 0,
                                        extreme ? 9 : spread);
    int32_t table = itera_activation(c->program, ITERA_F32, 2, four);
    for (int i = 0; i < 4; i++) {
        struct itera_attr attr = {.scale = value[i]};
        int32_t column = itera_view_cols(c->program, table, i, 1);
        itera_record(c->program, ITERA_OP_fill, &attr, NULL, &column);
    }
    int32_t rng =
        itera_case_strided(c, "rng", 2, four, c->index % 2 ? 2 : 0, ITERA_FILL_BITS, 0, 0);
    itera_format(c->label, sizeof c->label,
                 "batch=%d vocabulary=%d temperature=%g top_k=%g top_p=%g gap=%g%s", (int)batch,
                 (int)vocabulary, (double)value[0], (double)value[1], (double)value[2],
                 (double)value[3], extreme ? " ties" : "");
    const int32_t in[] = {logits, table, rng};
    int32_t out[] = {ITERA_NEW};
    itera_record(c->program, ITERA_OP_sample, NULL, in, out);
    return true;
}

bool itera_case_advance(struct itera_case *c)
{
    if (c->index >= 6)
        return false;
    const int64_t batch = itera_case_size(c, 17);
    int32_t in[] = {c->index % 3 == 2 /* any bits: some are at the end of int32 */
                        ? itera_case_input(c, "start", 1, &batch, ITERA_FILL_BITS, 0, 0)
                        : itera_case_input(c, "start", 1, &batch, ITERA_FILL_INDEX, 0, 1000)};
    struct itera_attr attr = {.count = c->index % 2 ? 1 : INT32_MAX - 100};
    snprintf(c->label, sizeof c->label, "batch=%d count=%d", (int)batch, (int)attr.count);
    int32_t out[1] = {ITERA_NONE};
    itera_record(c->program, ITERA_OP_advance, &attr, in, out);
    return true;
}
