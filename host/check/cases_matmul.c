/* Parity cases of the matmul family: the shapes that models use, then odd ones. */
#include <stdio.h>

#include "check/cases_weights.h"

itera_case_fn itera_case_matmul;
itera_case_fn itera_case_grouped_matmul;

/* A matrix with given columns, sometimes a column view of a wider one. */
static int32_t matrix(struct itera_case *c, const char *name, int64_t rows, int64_t cols,
                      bool strided, enum itera_fill fill, double a, double b)
{
    int64_t dim[2] = {rows, cols};
    return strided ? itera_case_strided(c, name, 2, dim, itera_case_pick(c, 1, 9), fill, a, b)
                   : itera_case_input(c, name, 2, dim, fill, a, b);
}

bool itera_case_matmul(struct itera_case *c)
{
    /* m, n, k, trans_a, trans_b: projections, heads, gradients of weights and inputs, router,
     * decoding, one element, a tile of AVX2 and of AVX-512 and one off each, depths around the
     * panel's. */
    static const struct {
        int16_t m, n, k;
        uint8_t trans_a, trans_b;
    } named[] = {
        {128, 256, 64, 0, 1}, {96, 64, 128, 0, 1}, {64, 96, 120, 1, 0}, {96, 64, 100, 0, 0},
        {67, 8, 128, 0, 1},   {67, 4, 64, 0, 1},   {65, 128, 8, 0, 1},  {1, 200, 64, 0, 1},
        {1, 4, 64, 0, 1},     {2, 131, 96, 0, 1},  {3, 65, 33, 0, 1},   {4, 66, 80, 0, 1},
        {8, 65, 256, 0, 1},   {9, 65, 257, 0, 1},  {1, 1, 1, 0, 1},     {1, 1, 1, 1, 0},
        {6, 16, 31, 0, 1},    {7, 17, 32, 0, 1},   {14, 32, 63, 0, 0},  {15, 33, 64, 0, 0},
        {13, 31, 65, 1, 0},   {28, 47, 300, 0, 1}, {29, 49, 520, 0, 0}, {30, 30, 513, 1, 0},
        {5, 3, 255, 1, 1},    {31, 34, 256, 1, 1}, {1, 70, 33, 0, 0},   {16, 1, 90, 0, 1},
        {33, 2, 17, 0, 1},    {200, 7, 19, 0, 1},  {290, 20, 10, 0, 1}, {12, 100, 7, 1, 0},
    };
    enum { NAMED = sizeof named / sizeof *named, FULL = NAMED + 48, CASES = FULL + 24 };
    if (c->index >= CASES)
        return itera_case_matmul_weights(c, c->index - CASES);
    /* Then f16 operands: both, a, or b. */
    const bool half_a = c->index >= FULL && c->index % 3 != 2;
    const bool half_b = c->index >= FULL && c->index % 3 != 1;
    const bool is_named = c->index < NAMED;
    int64_t m, n, k;
    struct itera_attr attr = {0};
    if (is_named) {
        m = named[c->index].m;
        n = named[c->index].n;
        k = named[c->index].k;
        attr.trans_a = named[c->index].trans_a;
        attr.trans_b = named[c->index].trans_b;
    } else {
        m = itera_case_size(c, 129);
        n = itera_case_size(c, 129);
        k = itera_case_size(c, 300);
        attr.trans_a = itera_case_pick(c, 0, 3) == 0;
        attr.trans_b = itera_case_pick(c, 0, 2) != 0;
    }
    /* Activation and residual run through all their combinations as the index rises. */
    attr.act = (uint8_t)(c->index / 3 % 4);
    const bool bias = c->index % 2, residual = c->index % 5 < 2;
    const bool in_place = residual && c->index % 3 == 0, strided = c->index % 3 == 1;
    const bool extreme = !is_named && c->index % 11 == 0;
    const bool accumulate = c->index % 7 == 6;
    const bool batched =
        !attr.trans_a && !strided && !accumulate && m % 2 == 0 && c->index % 4 == 0;
    if (accumulate)
        attr.act = ITERA_ACT_NONE;
    enum itera_fill fill = extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL;
    const double spread = extreme ? 1e4 : 1.0;
    int32_t a;
    if (batched) {
        int64_t dim[3] = {2, m / 2, k};
        a = itera_case_input(c, "a", 3, dim, fill, 0.0, spread);
    } else {
        a = matrix(c, "a", attr.trans_a ? k : m, attr.trans_a ? m : k, strided, fill, 0.0, spread);
    }
    int32_t b = matrix(c, "b", attr.trans_b ? n : k, attr.trans_b ? k : n, strided,
                       ITERA_FILL_NORMAL, 0.0, 0.2);
    if (half_a)
        a = itera_case_half(c, a);
    if (half_b)
        b = itera_case_half(c, b);
    int32_t in[4] = {a, b, ITERA_NONE, ITERA_NONE}, out = ITERA_NEW;
    if (accumulate) {
        attr.accumulate = 1;
        out = matrix(c, "y", m, n, strided, ITERA_FILL_NORMAL, 0.0, 1.0);
        for (int i = 0; i < c->n_inputs; i++)
            itera_case_constant(c, c->input[i].tensor);
    } else {
        if (bias)
            in[2] = itera_case_input(c, "bias", 1, &n, ITERA_FILL_NORMAL, 0.0, 1.0);
        if (residual && batched) {
            int64_t dim[3] = {2, m / 2, n};
            in[3] = itera_case_input(c, "residual", 3, dim, ITERA_FILL_NORMAL, 0.0, 1.0);
        } else if (residual) {
            in[3] = matrix(c, "residual", m, n, strided, ITERA_FILL_NORMAL, 0.0, 1.0);
        }
        if (in_place)
            out = in[3];
        /* Only what fusion leaves alone is differentiated: see matmul's gradient rule. */
        const bool smooth =
            attr.act == ITERA_ACT_NONE || (attr.act == ITERA_ACT_SOFTPLUS && !residual);
        for (int i = 0; i < c->n_inputs; i++)
            if (!smooth || in_place || half_a || half_b)
                itera_case_constant(c, c->input[i].tensor);
    }
    static const char *const act[] = {"", " silu", " gelu", " softplus"};
    snprintf(c->label, sizeof c->label, "m=%d n=%d k=%d %c%c%s%s%s%s%s%s%s%s", (int)m, (int)n,
             (int)k, attr.trans_a ? 't' : 'n', attr.trans_b ? 't' : 'n', act[attr.act],
             in[2] >= 0 ? " bias" : "", in[3] >= 0 ? " residual" : "",
             accumulate ? " accumulate"
             : in_place ? " in place"
                        : "",
             strided ? " strided" : "", extreme ? " extreme" : "", half_a ? " a=f16" : "",
             half_b ? " b=f16" : "");
    itera_record(c->program, ITERA_OP_matmul, &attr, in, &out);
    return true;
}

bool itera_case_grouped_matmul(struct itera_case *c)
{
    /* rows, n, k, experts, form (0: b as (E,K,N), 1: trans_b, 2: trans_a) */
    static const struct {
        int16_t rows, n, k;
        uint8_t experts, form;
    } named[] = {
        {256, 32, 64, 4, 1}, {256, 64, 32, 4, 1}, {200, 64, 32, 4, 0}, {250, 32, 64, 4, 2},
        {2, 32, 64, 4, 1},   {1, 64, 32, 4, 1},   {1, 33, 17, 3, 0},   {1, 9, 5, 2, 2},
        {65, 17, 300, 3, 1}, {90, 33, 15, 8, 2},  {64, 1, 1, 5, 1},    {300, 34, 14, 2, 2},
    };
    enum { NAMED = sizeof named / sizeof *named, FULL = NAMED + 18, CASES = FULL + 12 };
    if (c->index >= CASES)
        return itera_case_grouped_weights(c, c->index - CASES);
    int64_t rows, n, k, experts;
    int form;
    if (c->index < NAMED) {
        rows = named[c->index].rows;
        n = named[c->index].n;
        k = named[c->index].k;
        experts = named[c->index].experts;
        form = named[c->index].form;
    } else {
        rows = itera_case_size(c, 129);
        n = itera_case_size(c, 70);
        k = itera_case_size(c, 130);
        experts = itera_case_pick(c, 1, 9);
        form = c->index % 3;
    }
    struct itera_attr attr = {.experts = (int32_t)experts,
                              .trans_a = form == 2,
                              .trans_b = form == 1,
                              .act = form == 2 ? ITERA_ACT_NONE : (uint8_t)(c->index / 2 % 4)};
    const bool strided = c->index % 4 == 1;
    int32_t a = matrix(c, "a", rows, k, strided, ITERA_FILL_NORMAL, 0.0, 1.0), b;
    if (form == 2) {
        b = matrix(c, "b", rows, n, strided, ITERA_FILL_NORMAL, 0.0, 0.2);
    } else {
        int64_t dim[3] = {experts, form == 1 ? n : k, form == 1 ? k : n};
        b = strided ? itera_case_strided(c, "b", 3, dim, 3, ITERA_FILL_NORMAL, 0.0, 0.2)
                    : itera_case_input(c, "b", 3, dim, ITERA_FILL_NORMAL, 0.0, 0.2);
    }
    int64_t n_offsets = experts + 1;
    int32_t offsets =
        itera_case_input(c, "offsets", 1, &n_offsets, ITERA_FILL_OFFSETS, 0.0, (double)rows);
    const bool half = c->index >= FULL;
    if (attr.act != ITERA_ACT_NONE || half) {
        itera_case_constant(c, a);
        itera_case_constant(c, b);
    }
    if (half) {
        a = itera_case_half(c, a);
        b = itera_case_half(c, b);
    }
    static const char *const forms[] = {"nn", "nt", "tn"};
    snprintf(c->label, sizeof c->label, "rows=%d n=%d k=%d experts=%d %s act=%d%s%s", (int)rows,
             (int)n, (int)k, (int)experts, forms[form], attr.act, strided ? " strided" : "",
             half ? " f16" : "");
    int32_t in[3] = {a, b, offsets}, out = ITERA_NEW;
    itera_record(c->program, ITERA_OP_grouped_matmul, &attr, in, &out);
    return true;
}
