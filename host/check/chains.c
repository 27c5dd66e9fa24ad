/* Parity of chains: programs whose ops GPU devices compute together, against the reference, and the same
 * ops one by one. */
#include <stdio.h>

#include "check/cases_chains.h"
#include "check/checker.h"
#include "core/log.h"
#include "tensor/blocks.h"

bool itera_check_build_chain(struct itera_checker *checker, int kind, int index,
                             struct itera_case *c)
{
    return itera_check_begin_case(checker, itera_chain_cases[kind].name, index, c) &&
           itera_chain_cases[kind].build(c);
}

/* What the program leaves behind: its last op's outputs, what its ops write in place, and what they
 * write of the inputs. */
static int find_written(const struct itera_case *c, int32_t *tensors)
{
    const struct itera_program *p = c->program;
    bool whole[ITERA_MAX_IN + ITERA_MAX_OUT];
    int n = itera_check_written(c, tensors, whole);
    for (int32_t i = 0; i < p->n_ops - 1; i++)
        for (int k = 0; k < ITERA_MAX_IN && n < ITERA_CHECK_TENSORS; k++)
            if (p->ops[i].in[k] >= 0 && itera_op_info(p->ops[i].kind)->written_in >> k & 1)
                tensors[n++] = p->ops[i].in[k];
    for (int32_t i = 0; i < p->n_ops - 1; i++)
        for (int k = 0; k < ITERA_MAX_OUT && n < ITERA_CHECK_TENSORS; k++)
            if (p->ops[i].out[k] >= 0 && itera_check_is_input(c, p->ops[i].out[k]))
                tensors[n++] = p->ops[i].out[k];
    return n;
}

/* The largest of the ops', and what rounding may add in each product. */
static double tolerance_of(const struct itera_program *p)
{
    double tolerance = 0, rounding = 0;
    for (int32_t i = 0; i < p->n_ops; i++) {
        const struct itera_op *op = &p->ops[i];
        const double own = itera_op_info(op->kind)->tolerance;
        const bool product = op->kind == ITERA_OP_matmul || op->kind == ITERA_OP_grouped_matmul;
        tolerance = own > tolerance ? own : tolerance;
        if (op->attr.integer)
            rounding += 1e-4;
        else if (product && itera_dtype_is_blocks(p->tensors[op->in[1]].dtype))
            rounding += 1e-6;
    }
    return rounding > 0 ? rounding : tolerance;
}

static const char *dtype_of(const struct itera_program *p)
{
    enum itera_dtype dtype = ITERA_F32;
    for (int32_t i = 0; i < p->n_ops; i++)
        if ((p->ops[i].kind == ITERA_OP_matmul || p->ops[i].kind == ITERA_OP_grouped_matmul) &&
            p->tensors[p->ops[i].in[1]].dtype != ITERA_F32)
            dtype = p->tensors[p->ops[i].in[1]].dtype;
    return itera_dtype_name(dtype);
}

/* As the device chooses, in one of the ways that it has for a product, another one in each case, and one
 * by one. */
static void check_target(struct itera_checker *checker, const char *name,
                         const struct itera_case *c, const struct itera_trial *trial,
                         const struct itera_runner *reference,
                         const struct itera_check_target *target)
{
    const struct itera_program *p = c->program;
    const double tolerance = tolerance_of(p);
    enum { CHOSEN, FORCED, APART, RUNS };
    const int runs = itera_device_info(target->device)->type == ITERA_DEVICE_CPU ? 1 : RUNS;
    struct itera_check_outcome outcome;
    int32_t tensors[ITERA_CHECK_TENSORS];
    const int n = find_written(c, tensors);
    int ways = 0, most = 0;
    char label[160];
    snprintf(label, sizeof label, "%d %s", c->index, c->label);
    for (int run = 0; run < runs && !checker->status; run++) {
        const int way = run == FORCED && most ? 1 + c->index % most : 0;
        if ((run == FORCED && !most) ||
            !itera_check_run(checker, target, trial, reference, tensors, n, tolerance, 0, way,
                             run == APART, &ways, &outcome))
            continue;
        if (run == CHOSEN)
            most = ways;
        if (run == CHOSEN && runs > 1 && !outcome.chains && outcome.verdict == ITERA_CHECK_PASS) {
            outcome.verdict = ITERA_CHECK_FAIL;
            snprintf(outcome.difference.reason, sizeof outcome.difference.reason,
                     "its ops are not computed together");
        }
        itera_check_emit(checker, name, dtype_of(p), target, target->name,
                         run == CHOSEN   ? ""
                         : run == FORCED ? outcome.method
                                         : "apart",
                         label, outcome.verdict, tolerance, &outcome.difference, outcome.seconds,
                         itera_program_cost(p, NULL));
    }
}

bool itera_check_chain(struct itera_checker *checker, int kind, int index)
{
    const char *name = itera_chain_cases[kind].name;
    struct itera_case c = {0};
    struct itera_trial trial = {0};
    struct itera_runner reference = {0};
    const bool exists = itera_check_build_chain(checker, kind, index, &c);
    if (exists && !c.program->status) {
        itera_check_bind_outputs(&c, index % 2 ? 3 : 0);
        checker->status = itera_trial_create(c.program, index % 4, &trial);
        if (!checker->status) {
            itera_check_fill(checker, &c, c.program->n_ops - 1, &trial);
            checker->status =
                itera_runner_create(&trial, checker->reference, NULL, NULL, &reference);
        }
        if (!checker->status)
            checker->status = itera_runner_run(&reference);
        for (int i = 0; i < checker->n_targets && !checker->status; i++)
            check_target(checker, name, &c, &trial, &reference, &checker->targets[i]);
    } else if (exists) {
        struct itera_difference difference = {0};
        snprintf(difference.reason, sizeof difference.reason, "the case cannot be recorded: %s",
                 itera_last_error());
        itera_check_emit(checker, name, "f32", NULL, "reference", "", c.label, ITERA_CHECK_FAIL, 0,
                         &difference, 0, (struct itera_cost){0});
    }
    itera_runner_destroy(&reference);
    itera_trial_destroy(&trial);
    itera_program_destroy(&c.program);
    return exists;
}
