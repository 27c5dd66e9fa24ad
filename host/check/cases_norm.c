/* Parity cases of the normalisations. */
#include <stdio.h>

#include "check/case.h"

itera_case_fn itera_case_layer_norm, itera_case_rms_norm, itera_case_gated_rms_norm;

struct form {
    int64_t rows, cols;
    int groups;
    int64_t padding;
    enum itera_fill fill;
    double mean, spread;
    bool saved; /* with the output that the gradient needs */
};

static bool choose(struct itera_case *c, struct form *f)
{
    static const struct form named[] = {
        {.rows = 1, .cols = 64},   {.rows = 65, .cols = 64, .groups = 2},
        {.rows = 9, .cols = 768},  {.rows = 31, .cols = 120, .groups = 8},
        {.rows = 4, .cols = 2},    {.rows = 7, .cols = 33, .groups = 3},
        {.rows = 2090, .cols = 5}, /* more rows than partial sums that one pass adds up */
        {.rows = 2, .cols = 8200}, /* more columns than the lanes of a usual workgroup hold */
        {.rows = 3, .cols = 1100},
    };
    enum { NAMED = sizeof named / sizeof *named, CASES = NAMED + 12 };
    if (c->index >= CASES)
        return false;
    if (c->index < NAMED)
        *f = named[c->index];
    else
        *f = (struct form){.rows = itera_case_size(c, 70), .cols = itera_case_size(c, 513)};
    f->padding = c->index % 3 == 2 ? itera_case_pick(c, 1, 9) : 0;
    bool extreme = c->index % 5 == 4;
    f->fill = extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL;
    f->spread = extreme ? 100.0 : 1.0;
    f->mean = extreme ? 0.0 : 0.5;
    f->saved = c->index % 6 != 4;
    if (f->groups == 0 && f->cols % 3 == 0 && c->index % 2)
        f->groups = 3;
    snprintf(c->label, sizeof c->label, "rows=%d cols=%d groups=%d%s%s%s", (int)f->rows,
             (int)f->cols, f->groups, f->padding ? " strided" : "", extreme ? " extreme" : "",
             f->saved ? "" : " inference");
    return true;
}

static int32_t matrix(struct itera_case *c, const char *name, const struct form *f)
{
    int64_t dim[] = {f->rows, f->cols};
    return itera_case_strided(c, name, 2, dim, f->padding, f->fill, f->mean, f->spread);
}

static int32_t vector(struct itera_case *c, const char *name, const struct form *f, double mean)
{
    return itera_case_input(c, name, 1, &f->cols, ITERA_FILL_NORMAL, mean, 0.3);
}

static bool record(struct itera_case *c, enum itera_op_kind kind, const struct form *f,
                   const int32_t *in)
{
    struct itera_attr attr = {.eps = c->index % 2 ? 1e-5f : 1e-6f, .groups = f->groups};
    int32_t out[] = {ITERA_NEW, f->saved ? ITERA_NEW : ITERA_NONE};
    for (int i = 0; i < c->n_inputs && !f->saved; i++)
        itera_case_constant(c, c->input[i].tensor);
    itera_record(c->program, kind, &attr, in, out);
    return true;
}

bool itera_case_layer_norm(struct itera_case *c)
{
    struct form f;
    if (!choose(c, &f))
        return false;
    /* With one or two columns the output is constant but for eps: differences say nothing. */
    int32_t in[] = {matrix(c, "x", &f), vector(c, "weight", &f, 1.0), vector(c, "bias", &f, 0.0)};
    if (f.cols < 3)
        itera_case_constant(c, in[0]);
    return record(c, ITERA_OP_layer_norm, &f, in);
}

bool itera_case_rms_norm(struct itera_case *c)
{
    struct form f;
    if (!choose(c, &f))
        return false;
    int32_t in[] = {matrix(c, "x", &f), vector(c, "weight", &f, 1.0)};
    if (f.cols < 2)
        itera_case_constant(c, in[0]);
    return record(c, ITERA_OP_rms_norm, &f, in);
}

bool itera_case_gated_rms_norm(struct itera_case *c)
{
    struct form f;
    if (!choose(c, &f))
        return false;
    int32_t in[3];
    in[0] = matrix(c, "x", &f);
    f.padding = f.padding ? f.padding + 1 : 0;
    in[1] = matrix(c, "z", &f);
    in[2] = vector(c, "weight", &f, 1.0);
    if (f.cols / (f.groups ? f.groups : 1) < 2) {
        itera_case_constant(c, in[0]);
        itera_case_constant(c, in[1]);
    }
    return record(c, ITERA_OP_gated_rms_norm, &f, in);
}
