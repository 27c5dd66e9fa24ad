/* Forward parity: every op's own outputs and in-place operands against the reference. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/checker.h"
#include "core/log.h"
#include "tensor/blocks.h"

static const char *dtype_of(const struct itera_case *c)
{
    const struct itera_op *op = &c->program->ops[c->program->n_ops - 1];
    /* The narrowest operand names it, weights before what they meet. */
    for (int i = ITERA_MAX_IN - 1; i >= 0; i--) {
        enum itera_dtype dtype = op->in[i] >= 0 ? c->program->tensors[op->in[i]].dtype : ITERA_F32;
        if (dtype != ITERA_F32 && dtype != ITERA_I32)
            return itera_dtype_name(dtype);
    }
    for (int i = 0; i < ITERA_MAX_OUT; i++)
        if (op->out[i] >= 0)
            return itera_dtype_name(c->program->tensors[op->out[i]].dtype);
    for (int i = 0; i < ITERA_MAX_IN; i++)
        if (op->in[i] >= 0)
            return itera_dtype_name(c->program->tensors[op->in[i]].dtype);
    return "f32";
}

/* The input in whose storage output 0 of the op may be, where the case allows it: a bound tensor of
 * the same elements that the op reads in no other role. ITERA_NONE otherwise. */
static int32_t in_place_input(const struct itera_case *c)
{
    const struct itera_program *p = c->program;
    const struct itera_op *op = &p->ops[p->n_ops - 1];
    const struct itera_op_def *def = itera_op_info(op->kind)->def;
    if (!def->inplace)
        return ITERA_NONE;
    int32_t in = op->in[def->inplace - 1], out = op->out[0];
    if (in < 0 || out < 0 || itera_check_is_input(c, out) || !itera_check_is_input(c, in))
        return ITERA_NONE;
    const struct itera_tensor *a = &p->tensors[in], *b = &p->tensors[out];
    if (b->base != out || a->dtype != b->dtype ||
        itera_shape_rows(&a->shape) != itera_shape_rows(&b->shape) ||
        itera_shape_cols(&a->shape) != itera_shape_cols(&b->shape))
        return ITERA_NONE;
    for (int k = 0; k < ITERA_MAX_IN; k++)
        if (k != def->inplace - 1 && op->in[k] >= 0 && p->tensors[op->in[k]].base == in)
            return ITERA_NONE;
    return in;
}

/* The op's, but for quantised weights: the reference multiplies their values exactly, where matrix
 * units round them to f16, and integer products round the other operand to int8. */
static double tolerance_of(const struct itera_program *p, const struct itera_op *op)
{
    const double weights = 1e-6, integer = 1e-4;
    const bool product = op->kind == ITERA_OP_matmul || op->kind == ITERA_OP_grouped_matmul;
    if (op->attr.integer)
        return integer;
    if (product && itera_dtype_is_blocks(p->tensors[op->in[1]].dtype))
        return weights;
    return itera_op_info(op->kind)->tolerance;
}

/* Runs the case on one target and reports. */
static void check_target(struct itera_checker *checker, const struct itera_case *c,
                         const struct itera_trial *trial, const struct itera_runner *reference,
                         const struct itera_check_target *target, const char *method,
                         const char *label)
{
    const struct itera_program *p = c->program;
    const struct itera_op *op = &p->ops[p->n_ops - 1];
    const struct itera_op_info *info = itera_op_info(op->kind);
    const double tolerance = tolerance_of(p, op);
    struct itera_check_outcome outcome;
    int32_t tensors[ITERA_MAX_IN + ITERA_MAX_OUT];
    bool whole[ITERA_MAX_IN + ITERA_MAX_OUT];
    int n = itera_check_written(c, tensors, whole), ways = 0;

    for (int way = 0; way <= ways && !checker->status; way++) {
        if (!itera_check_run(checker, target, trial, reference, tensors, n, tolerance, p->n_ops - 1,
                             way, false, &ways, &outcome))
            continue;
        itera_check_emit(checker, info->name, dtype_of(c), target, target->name,
                         way ? outcome.method : method, label, outcome.verdict, outcome.tolerance,
                         &outcome.difference, outcome.seconds, itera_op_cost(p, op));
        if (info->def->variants)
            break; /* the candidates are its variants, which come by themselves */
    }
}

/* All methods and targets on one trial. */
static void check_targets(struct itera_checker *checker, struct itera_case *c,
                          const struct itera_trial *trial, const struct itera_runner *reference,
                          const char *suffix)
{
    struct itera_op *op = &c->program->ops[c->program->n_ops - 1];
    const struct itera_op_def *def = itera_op_info(op->kind)->def;
    const uint8_t recorded = op->attr.variant;
    char label[160];
    snprintf(label, sizeof label, "%d%s%s%s", c->index, c->label[0] ? " " : "", c->label, suffix);
    for (int v = 0; v < (def->variants ? def->variants : 1); v++) {
        if (def->variants)
            op->attr.variant = (uint8_t)v;
        for (int i = 0; i < checker->n_targets && !checker->status; i++)
            check_target(checker, c, trial, reference, &checker->targets[i],
                         op->attr.integer ? "integer" : itera_check_method(def, v), label);
    }
    op->attr.variant = recorded;
}

/* A second program of the case, with output 0 in the storage of `in`. */
static void check_in_place(struct itera_checker *checker, enum itera_op_kind kind, int index,
                           int32_t in, const struct itera_runner *reference)
{
    struct itera_case c = {0};
    struct itera_trial trial = {0};
    if (itera_check_build(checker, kind, index, &c)) {
        itera_check_bind_outputs(&c, 0);
        int32_t out = c.program->ops[c.program->n_ops - 1].out[0];
        c.program->tensors[out].shape.ld = c.program->tensors[in].shape.ld;
        checker->status = itera_trial_create(c.program, index % 4, &trial);
        if (!checker->status) {
            itera_check_fill(checker, &c, c.program->n_ops - 1, &trial);
            itera_trial_alias(&trial, out, in);
            check_targets(checker, &c, &trial, reference, ", in place");
        }
        itera_trial_destroy(&trial);
    }
    itera_program_destroy(&c.program);
}

/* The reference must keep the rules itself before it can be a reference. */
static bool run_reference(struct itera_checker *checker, const struct itera_case *c,
                          const struct itera_trial *trial, struct itera_runner *runner)
{
    int32_t tensors[ITERA_MAX_IN + ITERA_MAX_OUT];
    bool whole[ITERA_MAX_IN + ITERA_MAX_OUT];
    int n = itera_check_written(c, tensors, whole);
    struct itera_difference difference = {0};
    if (itera_runner_create(trial, checker->reference, NULL, NULL, runner) ||
        itera_runner_run(runner))
        snprintf(difference.reason, sizeof difference.reason, "%s", itera_last_error());
    else
        itera_trial_check_writes(runner, tensors, n, whole, &difference);
    if (!difference.reason[0])
        return true;
    char label[160];
    snprintf(label, sizeof label, "%d%s%s", c->index, c->label[0] ? " " : "", c->label);
    itera_check_emit(checker, itera_op_info(c->program->ops[c->program->n_ops - 1].kind)->name,
                     dtype_of(c), NULL, "reference", "", label, ITERA_CHECK_FAIL, 0, &difference, 0,
                     (struct itera_cost){0});
    return false;
}

bool itera_check_forward(struct itera_checker *checker, enum itera_op_kind kind, int index)
{
    struct itera_case c = {0};
    struct itera_trial trial = {0};
    struct itera_runner reference = {0};
    bool exists = itera_check_build(checker, kind, index, &c);
    if (exists && !c.program->status && c.program->n_ops > 0) {
        int32_t in = in_place_input(&c);
        itera_check_bind_outputs(&c, index % 2 ? 3 : 0);
        checker->status = itera_trial_create(c.program, index % 4, &trial);
        if (!checker->status) {
            itera_check_fill(checker, &c, c.program->n_ops - 1, &trial);
            if (run_reference(checker, &c, &trial, &reference)) {
                check_targets(checker, &c, &trial, &reference, "");
                if (in != ITERA_NONE && !checker->status)
                    check_in_place(checker, kind, index, in, &reference);
            }
        }
    } else if (exists) {
        struct itera_difference difference = {0};
        snprintf(difference.reason, sizeof difference.reason, "the case cannot be recorded: %s",
                 c.program->status ? itera_last_error() : "it has no op");
        itera_check_emit(checker, itera_op_info(kind)->name, "f32", NULL, "reference", "", c.label,
                         ITERA_CHECK_FAIL, 0, &difference, 0, (struct itera_cost){0});
    }
    itera_runner_destroy(&reference);
    itera_trial_destroy(&trial);
    itera_program_destroy(&c.program);
    return exists;
}
