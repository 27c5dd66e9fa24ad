/* Parity cases of the mixture-of-experts family. */
#include <stdio.h>

#include "check/case.h"

itera_case_fn itera_case_moe_route;
itera_case_fn itera_case_moe_sort;
itera_case_fn itera_case_moe_gather;
itera_case_fn itera_case_moe_combine;
itera_case_fn itera_case_moe_balance;

/* Sizes of a case: the presets' experts first, then odd numbers up to the limit, and what GPUs cut
 * into many groups. */
struct sizes {
    int64_t rows, experts, k, cols;
};

static struct sizes pick_sizes(struct itera_case *c)
{
    static const uint16_t named[][4] = {
        {64, 8, 2, 64},    {1, 8, 2, 128},   {1, 4, 1, 65},   {67, 16, 2, 33},
        {33, 4, 2, 96},    {1, 1, 1, 1},     {5, 1, 1, 7},    {9, 256, 8, 3},
        {7, 17, 17, 16},   {31, 31, 3, 15},  {130, 3, 2, 5},  {3, 9, 1, 257},
        {2100, 64, 2, 12}, {40001, 8, 2, 1}, {40, 64, 64, 3}, {3000, 1, 1, 2},
    };
    enum { NAMED = sizeof named / sizeof *named };
    if (c->index < NAMED) {
        const uint16_t *n = named[c->index];
        return (struct sizes){n[0], n[1], n[2], n[3]};
    }
    struct sizes s = {.rows = itera_case_size(c, 97), .experts = itera_case_size(c, 65)};
    s.k = itera_case_pick(c, 1, s.experts < 4 ? s.experts : 4);
    s.cols = itera_case_size(c, 129);
    return s;
}

static void label(struct itera_case *c, const struct sizes *s, const char *more)
{
    snprintf(c->label, sizeof c->label, "rows=%d experts=%d k=%d cols=%d%s", (int)s->rows,
             (int)s->experts, (int)s->k, (int)s->cols, more);
}

/* (rows, cols), or (2, rows / 2, cols) where that is possible and asked for; sometimes strided. */
static int32_t rows_of(struct itera_case *c, const char *name, int64_t rows, int64_t cols,
                       bool batched, enum itera_fill fill, double a, double b)
{
    const int64_t padding = c->index % 3 == 1 ? itera_case_pick(c, 1, 9) : 0;
    const int64_t dim[] = {2, rows / 2, cols}, flat[] = {rows, cols};
    return batched && rows % 2 == 0 ? itera_case_strided(c, name, 3, dim, padding, fill, a, b)
                                    : itera_case_strided(c, name, 2, flat, padding, fill, a, b);
}

/* index of the case: k different experts a row, or one that has all. */
static int32_t experts_of(struct itera_case *c, const struct sizes *s, bool alone)
{
    return alone ? rows_of(c, "index", s->rows, s->k, false, ITERA_FILL_STEP,
                           (double)s->experts - 1, 0)
                 : rows_of(c, "index", s->rows, s->k, false, ITERA_FILL_EXPERTS, 0,
                           (double)s->experts);
}

bool itera_case_moe_route(struct itera_case *c)
{
    if (c->index >= 36)
        return false;
    struct sizes s = pick_sizes(c);
    /* Where two logits are nearly equal the choice has a kink, which finite differences would hit
     * among many rows: they get one row of a few experts. Extreme values have none (and ties). */
    bool smooth = c->index >= 28;
    if (smooth) {
        s.rows = 1;
        s.experts = itera_case_pick(c, 2, 4);
        s.k = itera_case_pick(c, 1, 2);
    }
    int32_t in[1], out[2] = {ITERA_NEW, ITERA_NEW};
    in[0] = rows_of(c, "logits", s.rows, s.experts, c->index % 2,
                    smooth ? ITERA_FILL_NORMAL : ITERA_FILL_EXTREME, 0, smooth ? 1 : 4);
    struct itera_attr attr = {
        .top_k = (int32_t)s.k, .softmax_first = c->index % 2, .renormalize = c->index / 2 % 2};
    label(c, &s,
          !attr.softmax_first ? ""
          : attr.renormalize  ? " softmax first, renormalised"
                              : " softmax first");
    itera_record(c->program, ITERA_OP_moe_route, &attr, in, out);
    return true;
}

bool itera_case_moe_sort(struct itera_case *c)
{
    if (c->index >= 24)
        return false;
    struct sizes s = pick_sizes(c);
    bool wild = c->index % 5 == 4; /* indices out of range, which are clamped */
    bool alone = c->index % 7 == 5;
    if (c->index >= 18) /* enough for several blocks of a sort */
        s.rows += 1000;
    int32_t in[1], out[3] = {ITERA_NEW, ITERA_NEW, ITERA_NEW};
    in[0] =
        wild ? rows_of(c, "index", s.rows, s.k, false, ITERA_FILL_INDEX, -3, (double)s.experts + 3)
             : experts_of(c, &s, alone);
    struct itera_attr attr = {.experts = (int32_t)s.experts};
    label(c, &s, wild ? " out of range" : alone ? " one has all" : "");
    itera_record(c->program, ITERA_OP_moe_sort, &attr, in, out);
    return true;
}

/* order and position for the case: those of a real sort, or anything at all. */
static void sorted(struct itera_case *c, const struct sizes *s, bool wild, int32_t *order,
                   int32_t *position)
{
    const int64_t slots = s->rows * s->k;
    if (wild) {
        *order = itera_case_input(c, "order", 1, &slots, ITERA_FILL_INDEX, -2, (double)slots + 2);
        *position =
            rows_of(c, "position", s->rows, s->k, false, ITERA_FILL_INDEX, -2, (double)slots + 2);
        return;
    }
    int32_t index = experts_of(c, s, c->index % 6 == 3);
    struct itera_attr attr = {.experts = (int32_t)s->experts};
    int32_t out[3] = {ITERA_NEW, ITERA_NEW, ITERA_NEW};
    itera_record(c->program, ITERA_OP_moe_sort, &attr, &index, out);
    *order = out[1];
    *position = out[2];
}

bool itera_case_moe_gather(struct itera_case *c)
{
    if (c->index >= 20)
        return false;
    struct sizes s = pick_sizes(c);
    bool wild = c->index % 7 == 6;
    int32_t in[3], out[1] = {ITERA_NEW};
    in[0] = rows_of(c, "x", s.rows, s.cols, c->index % 2,
                    c->index % 5 == 4 ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL, 0, 1);
    sorted(c, &s, wild, &in[1], &in[2]);
    if (wild) /* order and position do not fit each other: there is no gradient */
        itera_case_constant(c, in[0]);
    struct itera_attr attr = {.top_k = (int32_t)s.k};
    label(c, &s, wild ? " out of range" : "");
    itera_record(c->program, ITERA_OP_moe_gather, &attr, in, out);
    return true;
}

bool itera_case_moe_combine(struct itera_case *c)
{
    if (c->index >= 28)
        return false;
    struct sizes s = pick_sizes(c);
    bool wild = c->index % 7 == 6, residual = c->index % 2, extreme = c->index % 5 == 4;
    int32_t order, in[4] = {ITERA_NONE, ITERA_NONE, ITERA_NONE, ITERA_NONE};
    in[0] = rows_of(c, "y", s.rows * s.k, s.cols, false,
                    extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL, 0, extreme ? 1e4 : 1);
    sorted(c, &s, wild, &order, &in[1]);
    in[2] = rows_of(c, "weight", s.rows, s.k, false, ITERA_FILL_UNIFORM, 0, 1);
    if (residual)
        in[3] = rows_of(c, "residual", s.rows, s.cols, c->index % 4 == 1, ITERA_FILL_NORMAL, 0, 1);
    if (wild)
        for (int i = 0; i < c->n_inputs; i++)
            itera_case_constant(c, c->input[i].tensor);
    label(c, &s, wild ? " out of range" : residual ? " residual" : extreme ? " extreme" : "");
    int32_t out[1] = {ITERA_NEW};
    itera_record(c->program, ITERA_OP_moe_combine, NULL, in, out);
    return true;
}

bool itera_case_moe_balance(struct itera_case *c)
{
    if (c->index >= 24)
        return false;
    struct sizes s = pick_sizes(c);
    bool extreme = c->index % 5 == 4;
    int32_t in[2], out[2] = {ITERA_NEW, ITERA_NEW};
    in[0] = rows_of(c, "logits", s.rows, s.experts, c->index % 2,
                    extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL, 0, extreme ? 60 : 1);
    in[1] = experts_of(c, &s, c->index % 6 == 3);
    struct itera_attr attr = {
        .kind = c->index / 2 % 2 ? ITERA_BALANCE_SWITCH : ITERA_BALANCE_VARIATION, .scale = 0.01f};
    label(c, &s, attr.kind ? " switch" : " variation");
    itera_record(c->program, ITERA_OP_moe_balance, &attr, in, out);
    return true;
}
