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

/* One product, as its case's index chooses it. */
struct product {
    int64_t m, n, k;
    bool bias, residual, in_place, strided, extreme, accumulate, batched;
    bool half_a, half_b;
};

/* m, n, k, trans_a, trans_b: projections, heads, gradients of weights and inputs, router, decoding,
 * one element, a tile of AVX2 and of AVX-512 and one off each, depths around the panel's. */
static const struct {
    int16_t m, n, k;
    uint8_t trans_a, trans_b;
} named_products[] = {
    {128, 256, 64, 0, 1}, {96, 64, 128, 0, 1}, {64, 96, 120, 1, 0}, {96, 64, 100, 0, 0},
    {67, 8, 128, 0, 1},   {67, 4, 64, 0, 1},   {65, 128, 8, 0, 1},  {1, 200, 64, 0, 1},
    {1, 4, 64, 0, 1},     {2, 131, 96, 0, 1},  {3, 65, 33, 0, 1},   {4, 66, 80, 0, 1},
    {8, 65, 256, 0, 1},   {9, 65, 257, 0, 1},  {1, 1, 1, 0, 1},     {1, 1, 1, 1, 0},
    {6, 16, 31, 0, 1},    {7, 17, 32, 0, 1},   {14, 32, 63, 0, 0},  {15, 33, 64, 0, 0},
    {13, 31, 65, 1, 0},   {28, 47, 300, 0, 1}, {29, 49, 520, 0, 0}, {30, 30, 513, 1, 0},
    {5, 3, 255, 1, 1},    {31, 34, 256, 1, 1}, {1, 70, 33, 0, 0},   {16, 1, 90, 0, 1},
    {33, 2, 17, 0, 1},    {200, 7, 19, 0, 1},  {290, 20, 10, 0, 1}, {12, 100, 7, 1, 0},
};
enum {
    PRODUCTS_NAMED = sizeof named_products / sizeof *named_products,
    PRODUCTS_FULL = PRODUCTS_NAMED + 48, /* from here on f16 operands: both, a, or b */
    PRODUCTS = PRODUCTS_FULL + 24
};

static struct product draw_product(struct itera_case *c, struct itera_attr *attr)
{
    struct product p = {0};
    if (c->index < PRODUCTS_NAMED) {
        p.m = named_products[c->index].m;
        p.n = named_products[c->index].n;
        p.k = named_products[c->index].k;
        attr->trans_a = named_products[c->index].trans_a;
        attr->trans_b = named_products[c->index].trans_b;
    } else {
        p.m = itera_case_size(c, 129);
        p.n = itera_case_size(c, 129);
        p.k = itera_case_size(c, 300);
        attr->trans_a = itera_case_pick(c, 0, 3) == 0;
        attr->trans_b = itera_case_pick(c, 0, 2) != 0;
    }
    p.half_a = c->index >= PRODUCTS_FULL && c->index % 3 != 2;
    p.half_b = c->index >= PRODUCTS_FULL && c->index % 3 != 1;
    /* Activation and residual run through all their combinations as the index rises. */
    attr->act = (uint8_t)(c->index / 3 % 4);
    p.bias = c->index % 2;
    p.residual = c->index % 5 < 2;
    p.in_place = p.residual && c->index % 3 == 0;
    p.strided = c->index % 3 == 1;
    p.extreme = c->index >= PRODUCTS_NAMED && c->index % 11 == 0;
    p.accumulate = c->index % 7 == 6;
    p.batched = !attr->trans_a && !p.strided && !p.accumulate && p.m % 2 == 0 && c->index % 4 == 0;
    if (p.accumulate)
        attr->act = ITERA_ACT_NONE;
    attr->accumulate = p.accumulate;
    return p;
}

/* in[0] and in[1]. */
static void add_factors(struct itera_case *c, const struct product *p,
                        const struct itera_attr *attr, int32_t in[4])
{
    enum itera_fill fill = p->extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL;
    const double spread = p->extreme ? 1e4 : 1.0;
    if (p->batched) {
        int64_t dim[3] = {2, p->m / 2, p->k};
        in[0] = itera_case_input(c, "a", 3, dim, fill, 0.0, spread);
    } else {
        in[0] = matrix(c, "a", attr->trans_a ? p->k : p->m, attr->trans_a ? p->m : p->k, p->strided,
                       fill, 0.0, spread);
    }
    in[1] = matrix(c, "b", attr->trans_b ? p->n : p->k, attr->trans_b ? p->k : p->n, p->strided,
                   ITERA_FILL_NORMAL, 0.0, 0.2);
    if (p->half_a)
        in[0] = itera_case_half(c, in[0]);
    if (p->half_b)
        in[1] = itera_case_half(c, in[1]);
}

/* in[2] and in[3]: what is added to the product. */
static void add_terms(struct itera_case *c, const struct product *p, int32_t in[4])
{
    if (p->bias)
        in[2] = itera_case_input(c, "bias", 1, &p->n, ITERA_FILL_NORMAL, 0.0, 1.0);
    if (p->residual && p->batched) {
        int64_t dim[3] = {2, p->m / 2, p->n};
        in[3] = itera_case_input(c, "residual", 3, dim, ITERA_FILL_NORMAL, 0.0, 1.0);
    } else if (p->residual) {
        in[3] = matrix(c, "residual", p->m, p->n, p->strided, ITERA_FILL_NORMAL, 0.0, 1.0);
    }
}

static void label_product(struct itera_case *c, const struct product *p,
                          const struct itera_attr *attr, const int32_t in[4])
{
    static const char *const act[] = {"", " silu", " gelu", " softplus"};
    snprintf(c->label, sizeof c->label, "m=%d n=%d k=%d %c%c%s%s%s%s%s%s%s%s", (int)p->m, (int)p->n,
             (int)p->k, attr->trans_a ? 't' : 'n', attr->trans_b ? 't' : 'n', act[attr->act],
             in[2] >= 0 ? " bias" : "", in[3] >= 0 ? " residual" : "",
             p->accumulate ? " accumulate"
             : p->in_place ? " in place"
                           : "",
             p->strided ? " strided" : "", p->extreme ? " extreme" : "", p->half_a ? " a=f16" : "",
             p->half_b ? " b=f16" : "");
}

bool itera_case_matmul(struct itera_case *c)
{
    if (c->index >= PRODUCTS)
        return itera_case_matmul_weights(c, c->index - PRODUCTS);
    struct itera_attr attr = {0};
    const struct product p = draw_product(c, &attr);
    int32_t in[4] = {ITERA_NONE, ITERA_NONE, ITERA_NONE, ITERA_NONE}, out = ITERA_NEW;
    add_factors(c, &p, &attr, in);
    if (p.accumulate)
        out = matrix(c, "y", p.m, p.n, p.strided, ITERA_FILL_NORMAL, 0.0, 1.0);
    else
        add_terms(c, &p, in);
    if (p.in_place && !p.accumulate)
        out = in[3];
    /* Only what fusion leaves alone is differentiated: see matmul's gradient rule. */
    const bool smooth =
        attr.act == ITERA_ACT_NONE || (attr.act == ITERA_ACT_SOFTPLUS && !p.residual);
    for (int i = 0; i < c->n_inputs; i++)
        if (p.accumulate || !smooth || p.in_place || p.half_a || p.half_b)
            itera_case_constant(c, c->input[i].tensor);
    label_product(c, &p, &attr, in);
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
