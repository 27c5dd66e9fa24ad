/* Parity cases of the optimiser ops. None has a gradient. */
#include <stdio.h>

#include "check/case.h"

itera_case_fn itera_case_grad_norm, itera_case_adamw;

enum { CASES = 12 };

static void all_constant(struct itera_case *c)
{
    for (int i = 0; i < c->n_inputs; i++)
        itera_case_constant(c, c->input[i].tensor);
}

/* One long vector as a rule, as the trainer has; sometimes a matrix with padding. */
static int choose(struct itera_case *c, int64_t dim[2], int64_t *padding)
{
    bool matrix = c->index % 4 == 3;
    dim[0] = matrix ? itera_case_size(c, 33) : itera_case_size(c, 513);
    dim[1] = itera_case_size(c, 129);
    *padding = matrix ? itera_case_pick(c, 1, 9) : 0;
    if (c->index == 0)
        dim[0] = 40000; /* several chunks of the norm */
    snprintf(c->label, sizeof c->label, "dims=%d%s%.0d%s", (int)dim[0], matrix ? "x" : "",
             matrix ? (int)dim[1] : 0, matrix ? " strided" : "");
    return matrix ? 2 : 1;
}

bool itera_case_grad_norm(struct itera_case *c)
{
    if (c->index >= CASES)
        return false;
    int64_t dim[2], padding;
    int rank = choose(c, dim, &padding);
    /* 1e30 squared is beyond f32 */
    bool extreme = c->index % 3 == 2;
    int32_t in[] = {itera_case_strided(c, "grad", rank, dim, padding,
                                       extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL, 0.0,
                                       extreme ? 1e30 : 1.0)};
    int32_t out[] = {ITERA_NEW};
    all_constant(c);
    itera_record(c->program, ITERA_OP_grad_norm, NULL, in, out);
    return true;
}

/* hyper is put together from uniform values with some that matter set by hand. */
static int32_t hyper(struct itera_case *c, bool clip)
{
    static const int64_t eight = 8;
    struct itera_program *p = c->program;
    struct itera_attr eps = {.scale = 1e-8f}, max_norm = {.scale = clip ? 0.25f : 0.0f};
    int32_t uniform = itera_case_input(c, "hyper", 1, &eight, ITERA_FILL_UNIFORM, 0.1, 0.95);
    int32_t out[] = {ITERA_NEW};
    int32_t all = itera_record(p, ITERA_OP_copy, NULL, &uniform, out);
    int32_t view = itera_view_cols(p, all, 3, 1);
    itera_record(p, ITERA_OP_fill, &eps, NULL, &view);
    view = itera_view_cols(p, all, 6, 1);
    itera_record(p, ITERA_OP_fill, &max_norm, NULL, &view);
    return all;
}

bool itera_case_adamw(struct itera_case *c)
{
    static const int64_t two = 2;
    if (c->index >= CASES)
        return false;
    int64_t dim[2], padding;
    int rank = choose(c, dim, &padding);
    bool clip = c->index % 3 == 1, overflow = c->index == 5;
    struct itera_attr attr = {.p = c->index % 2 ? 0.1f : 0.0f};
    int32_t in[6];
    in[0] = itera_case_strided(c, "param", rank, dim, padding, ITERA_FILL_NORMAL, 0.0, 1.0);
    in[1] = itera_case_strided(c, "grad", rank, dim, padding, ITERA_FILL_NORMAL, 0.0, 0.1);
    in[2] = itera_case_strided(c, "m", rank, dim, padding, ITERA_FILL_NORMAL, 0.0, 0.1);
    in[3] = itera_case_strided(c, "v", rank, dim, padding, ITERA_FILL_UNIFORM, 0.0, 0.01);
    in[4] = hyper(c, clip);
    if (overflow) { /* {0, 0}: not finite, nothing may change */
        in[5] = itera_case_input(c, "norm", 1, &two, ITERA_FILL_NORMAL, 0.0, 0.0);
    } else {
        int32_t out[] = {ITERA_NEW};
        in[5] = itera_record(c->program, ITERA_OP_grad_norm, NULL, &in[1], out);
    }
    all_constant(c);
    size_t used = 0;
    while (c->label[used])
        used++;
    snprintf(c->label + used, sizeof c->label - used, "%s%s%s", clip ? " clip" : "",
             attr.p > 0 ? " decay" : "", overflow ? " overflow" : "");
    itera_record(c->program, ITERA_OP_adamw, &attr, in, NULL);
    return true;
}
