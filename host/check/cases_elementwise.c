/* Parity cases of the elementwise ops. */
#include <stdio.h>

#include "check/case.h"

itera_case_fn itera_case_fill, itera_case_copy, itera_case_scale, itera_case_add, itera_case_mul;
itera_case_fn itera_case_neg_exp, itera_case_silu, itera_case_gelu, itera_case_softplus;
itera_case_fn itera_case_silu_mul, itera_case_skip_gate, itera_case_softplus_mean;
itera_case_fn itera_case_dropout, itera_case_column_sum, itera_case_penalize;

enum { CASES = 14 };

/* What the operands of a case have in common. */
struct form {
    int rank;
    int64_t dim[3];
    int64_t padding; /* between rows of the inputs */
    enum itera_fill fill;
    double spread;
};

/* The shapes of models first, then odd ones; every third case is strided, every fourth extreme.
 * `large`: magnitude of extreme values. False when there is no such case. */
static bool choose(struct itera_case *c, double large, struct form *f)
{
    static const struct form named[] = {
        {.rank = 2, .dim = {1, 64}}, {.rank = 2, .dim = {96, 128}}, {.rank = 3, .dim = {3, 17, 40}},
        {.rank = 1, .dim = {1000}},  {.rank = 2, .dim = {5, 1}},    {.rank = 3, .dim = {2, 3, 129}},
    };
    enum { NAMED = sizeof named / sizeof *named };
    if (c->index >= CASES)
        return false;
    if (c->index < NAMED)
        *f = named[c->index];
    else
        *f = (struct form){.rank = 2, .dim = {itera_case_size(c, 100), itera_case_size(c, 200)}};
    f->padding = c->index % 3 == 2 ? itera_case_pick(c, 1, 9) : 0;
    bool extreme = c->index % 4 == 3;
    f->fill = extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL;
    f->spread = extreme ? large : 2.0;
    int n = snprintf(c->label, sizeof c->label, "dims=");
    for (int i = 0; i < f->rank; i++)
        n += snprintf(c->label + n, sizeof c->label - (size_t)n, "%s%d", i ? "x" : "",
                      (int)f->dim[i]);
    snprintf(c->label + n, sizeof c->label - (size_t)n, "%s%s", f->padding ? " strided" : "",
             extreme ? " extreme" : "");
    return true;
}

static int32_t operand(struct itera_case *c, const char *name, const struct form *f)
{
    return itera_case_strided(c, name, f->rank, f->dim, f->padding, f->fill, 0.0, f->spread);
}

static void all_constant(struct itera_case *c)
{
    for (int i = 0; i < c->n_inputs; i++)
        itera_case_constant(c, c->input[i].tensor);
}

/* y = op(x) */
static bool unary(struct itera_case *c, enum itera_op_kind kind, double large)
{
    struct form f;
    if (!choose(c, large, &f))
        return false;
    int32_t in[] = {operand(c, "x", &f)}, out[] = {ITERA_NEW};
    struct itera_attr attr = {.scale = -1.75f};
    itera_record(c->program, kind, &attr, in, out);
    return true;
}

/* y = op(a, b) */
static bool binary(struct itera_case *c, enum itera_op_kind kind, const char *a, const char *b)
{
    struct form f;
    if (!choose(c, 100.0, &f))
        return false;
    int32_t in[2], out[] = {ITERA_NEW};
    in[0] = operand(c, a, &f);
    f.padding = f.padding ? f.padding + 1 : 0;
    in[1] = operand(c, b, &f);
    itera_record(c->program, kind, NULL, in, out);
    return true;
}

bool itera_case_fill(struct itera_case *c)
{
    static const float values[] = {0.0f, 1.0f, -0.5f, -0.0f, 1e30f};
    struct form f;
    if (!choose(c, 1.0, &f))
        return false;
    struct itera_attr attr = {.scale = values[c->index % 5]};
    int32_t out[] = {itera_activation(c->program, ITERA_F32, f.rank, f.dim)};
    itera_record(c->program, ITERA_OP_fill, &attr, NULL, out);
    return true;
}

bool itera_case_copy(struct itera_case *c)
{
    struct form f;
    if (!choose(c, 1e30, &f))
        return false;
    if (c->index % 5 == 4)
        f.fill = ITERA_FILL_BITS; /* i32 */
    int32_t in[] = {operand(c, "x", &f)}, out[] = {ITERA_NEW};
    itera_record(c->program, ITERA_OP_copy, NULL, in, out);
    return true;
}

bool itera_case_scale(struct itera_case *c)
{
    return unary(c, ITERA_OP_scale, 1e6);
}

bool itera_case_add(struct itera_case *c)
{
    return binary(c, ITERA_OP_add, "a", "b");
}

bool itera_case_mul(struct itera_case *c)
{
    return binary(c, ITERA_OP_mul, "a", "b");
}

bool itera_case_penalize(struct itera_case *c)
{
    struct form f;
    if (!choose(c, 1e6, &f))
        return false;
    int32_t in[2], out[] = {ITERA_NEW};
    in[0] = operand(c, "x", &f);
    in[1] = itera_case_strided(c, "factor", f.rank, f.dim, f.padding ? f.padding + 1 : 0,
                               ITERA_FILL_NORMAL, 2.0, 0.2);
    all_constant(c);
    itera_record(c->program, ITERA_OP_penalize, NULL, in, out);
    return true;
}

bool itera_case_neg_exp(struct itera_case *c)
{
    return unary(c, ITERA_OP_neg_exp, 20.0);
}

/* Beyond 88 e^-x overflows, and beyond 13 the normal tail underflows. */
bool itera_case_silu(struct itera_case *c)
{
    return unary(c, ITERA_OP_silu, 200.0);
}

bool itera_case_gelu(struct itera_case *c)
{
    return unary(c, ITERA_OP_gelu, 200.0);
}

bool itera_case_softplus(struct itera_case *c)
{
    /* Where steps of a scan live: softplus(x) from 0.001 to 0.1 */
    if (c->index == CASES) {
        int64_t dim[] = {40, 33};
        int32_t in[] = {itera_case_input(c, "x", 2, dim, ITERA_FILL_UNIFORM, -7.0, -2.2)};
        int32_t out[] = {ITERA_NEW};
        snprintf(c->label, sizeof c->label, "dims=40x33 small results");
        itera_record(c->program, ITERA_OP_softplus, NULL, in, out);
        return true;
    }
    return unary(c, ITERA_OP_softplus, 200.0);
}

bool itera_case_silu_mul(struct itera_case *c)
{
    return binary(c, ITERA_OP_silu_mul, "x", "z");
}

bool itera_case_skip_gate(struct itera_case *c)
{
    struct form f;
    if (!choose(c, 100.0, &f))
        return false;
    int32_t in[4], out[] = {ITERA_NEW};
    in[0] = operand(c, "c", &f);
    in[1] = operand(c, "x", &f);
    in[2] = itera_case_input(c, "d", 1, &f.dim[f.rank - 1], ITERA_FILL_NORMAL, 1.0, 0.5);
    bool gate = c->index % 5 != 4;
    f.padding = f.padding ? f.padding + 3 : 0;
    in[3] = gate ? operand(c, "z", &f) : ITERA_NONE;
    if (gate && c->index % 5 == 3)
        itera_case_constant(c, in[3]); /* the gradient without dz */
    itera_record(c->program, ITERA_OP_skip_gate, NULL, in, out);
    return true;
}

bool itera_case_softplus_mean(struct itera_case *c)
{
    return unary(c, ITERA_OP_softplus_mean, 100.0);
}

bool itera_case_dropout(struct itera_case *c)
{
    static const float p[] = {0.1f, 0.5f, 0.0f, 0.9f};
    static const int64_t four = 4;
    struct form f;
    if (!choose(c, 1e4, &f))
        return false;
    struct itera_attr attr = {.p = p[c->index % 4], .stream = c->index * 1000003 - 5};
    int32_t in[2], out[] = {ITERA_NEW};
    in[0] = operand(c, "x", &f);
    in[1] = itera_case_input(c, "rng", 1, &four, ITERA_FILL_BITS, 0.0, 0.0);
    itera_record(c->program, ITERA_OP_dropout, &attr, in, out);
    return true;
}

bool itera_case_column_sum(struct itera_case *c)
{
    static const int64_t tall[] = {700, 65};
    if (c->index == CASES) {
        int32_t in[] = {itera_case_input(c, "x", 2, tall, ITERA_FILL_NORMAL, 0.0, 1.0)};
        int32_t out[] = {ITERA_NEW};
        snprintf(c->label, sizeof c->label, "dims=700x65");
        itera_record(c->program, ITERA_OP_column_sum, NULL, in, out);
    } else if (!unary(c, ITERA_OP_column_sum, 100.0)) {
        return false;
    }
    all_constant(c); /* itself a gradient */
    return true;
}
