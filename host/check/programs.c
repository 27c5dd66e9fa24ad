#include "check/programs.h"

#include "check/checker.h"
#include "program/autodiff.h"

/* Adds the case's gradient to its program; false where it has none. */
static bool add_gradient(struct itera_case *c, enum itera_op_kind kind)
{
    struct itera_program *p = c->program;
    int32_t wrt[ITERA_CASE_INPUTS], grads[ITERA_CASE_INPUTS];
    int n = 0, out = itera_check_seeded_output(p);
    for (int i = 0; i < c->n_inputs; i++)
        if (c->input[i].differentiate && p->tensors[c->input[i].tensor].dtype == ITERA_F32) {
            grads[n] = ITERA_NEW;
            wrt[n++] = c->input[i].tensor;
        }
    if (!n || out < 0 || !itera_op_info(kind)->def->grad)
        return false;
    const struct itera_shape *shape = &p->tensors[out].shape;
    int32_t seed = itera_bound(p, "seed", ITERA_F32, shape->rank, shape->dim);
    return !itera_differentiate(p, out, seed, n, wrt, grads);
}

enum itera_status itera_check_programs(enum itera_op_kind kind, int most,
                                       itera_check_program_fn *fn, void *user)
{
    const struct itera_check_options options = {.seed = 1, .cases = most};
    struct itera_check_summary summary = {0};
    struct itera_checker checker = {.options = &options, .summary = &summary, .globs = "*"};
    bool exists = itera_check_has_cases(kind);
    for (int i = 0; exists && !checker.status; i++) {
        struct itera_case c;
        exists = itera_check_build(&checker, kind, i, &c);
        if (exists && !c.program->status && c.program->n_ops) {
            checker.status = fn(user, c.program);
            if (!checker.status && add_gradient(&c, kind))
                checker.status = fn(user, c.program);
        }
        itera_program_destroy(&c.program);
    }
    return checker.status;
}
