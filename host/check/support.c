/* Which ops a device has kernels for: asked with the programs of the parity cases. */
#include <stdio.h>
#include <string.h>

#include "check/checker.h"
#include "core/log.h"
#include "program/autodiff.h"

/* What was found of each op on one device. */
struct survey {
    struct itera_device *device;
    bool seen[ITERA_OP_COUNT], supported[ITERA_OP_COUNT];
    char reason[ITERA_OP_COUNT][160];
};

/* Asks about every op of a program; one refusal makes an op unsupported. */
static void ask(struct survey *s, const struct itera_program *p)
{
    struct itera_reason why;
    for (int32_t i = 0; i < p->n_ops; i++) {
        enum itera_op_kind kind = p->ops[i].kind;
        if (s->seen[kind] && !s->supported[kind])
            continue;
        enum itera_status status = itera_supports(s->device, p, &p->ops[i], &why);
        if (status && status != ITERA_ERR_UNSUPPORTED)
            snprintf(why.text, sizeof why.text, "%s", itera_last_error());
        s->supported[kind] = !status;
        s->seen[kind] = true;
        if (status)
            snprintf(s->reason[kind], sizeof s->reason[kind], "%.159s", why.text);
    }
}

/* The case with its gradient, where it has one. */
static void ask_case(struct survey *s, struct itera_checker *checker, enum itera_op_kind kind,
                     int index, bool *exists)
{
    struct itera_case c;
    *exists = itera_check_build(checker, kind, index, &c);
    struct itera_program *p = c.program;
    if (*exists && !p->status && p->n_ops) {
        int32_t wrt[ITERA_CASE_INPUTS], grads[ITERA_CASE_INPUTS], seed = ITERA_NONE;
        int n = 0, out = itera_check_seeded_output(p);
        ask(s, p);
        for (int i = 0; i < c.n_inputs; i++)
            if (c.input[i].differentiate && p->tensors[c.input[i].tensor].dtype == ITERA_F32) {
                grads[n] = ITERA_NEW;
                wrt[n++] = c.input[i].tensor;
            }
        if (n && out >= 0 && itera_op_info(kind)->def->grad) {
            seed = itera_bound(p, "seed", ITERA_F32, p->tensors[out].shape.rank,
                               p->tensors[out].shape.dim);
            if (!itera_differentiate(p, out, seed, n, wrt, grads))
                ask(s, p);
        }
    }
    itera_program_destroy(&c.program);
}

enum itera_status itera_check_support(struct itera_device *device, itera_support_fn *fn, void *user)
{
    enum { CASES = 6 };
    const struct itera_check_options options = {.seed = 1, .cases = CASES};
    struct itera_check_summary summary = {0};
    struct itera_checker checker = {.options = &options, .summary = &summary, .globs = "*"};
    static struct survey none;
    struct survey s = none;
    s.device = device;
    for (int kind = 0; kind < ITERA_OP_COUNT && !checker.status; kind++) {
        bool exists = itera_check_has_cases((enum itera_op_kind)kind);
        for (int i = 0; i < CASES && exists && !checker.status; i++)
            ask_case(&s, &checker, (enum itera_op_kind)kind, i, &exists);
    }
    for (int kind = 0; kind < ITERA_OP_COUNT && !checker.status; kind++) {
        const struct itera_op_info *info = itera_op_info((enum itera_op_kind)kind);
        const char *why = s.seen[kind] ? s.reason[kind] : "no parity case reaches it";
        if (fn(user, info->name, info->def->variants == ITERA_SCAN_VARIANTS, s.supported[kind],
               why))
            checker.status = itera_fail(ITERA_ERR_CANCELLED, "the survey was stopped");
    }
    return checker.status;
}
