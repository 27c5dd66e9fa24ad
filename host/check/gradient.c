/* Gradients: a device's against the reference's, and the reference's against finite differences. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/checker.h"
#include "core/log.h"
#include "core/number.h"
#include "program/autodiff.h"

/* The program of a case, differentiated. */
struct derivative {
    struct itera_case c;
    int32_t seed;
    int n;
    int32_t wrt[ITERA_CASE_INPUTS], grads[ITERA_CASE_INPUTS];
    int32_t n_forward; /* ops of the forward pass; op n_forward - 1 is the one under test */
    char name[64];     /* of the gradient op, for results */
    double tolerance;
    bool applies; /* there is something to differentiate */
};

int32_t itera_check_seeded_output(const struct itera_program *p)
{
    const struct itera_op *op = &p->ops[p->n_ops - 1];
    for (int i = 0; i < ITERA_MAX_OUT; i++)
        if (op->out[i] >= 0 && p->tensors[op->out[i]].dtype == ITERA_F32)
            return op->out[i];
    return ITERA_NONE;
}

static bool has_views(const struct itera_program *p, int32_t base)
{
    for (int32_t t = 0; t < p->n_tensors; t++)
        if (t != base && p->tensors[t].base == base)
            return true;
    return false;
}

static void name_gradient(struct derivative *d, enum itera_op_kind kind)
{
    const struct itera_program *p = d->c.program;
    const char *op = itera_op_info(kind)->name;
    snprintf(d->name, sizeof d->name, "%s_bwd", op);
    d->tolerance = itera_op_info(kind)->tolerance;
    bool own = false;
    for (int32_t i = d->n_forward; i < p->n_ops; i++) {
        const struct itera_op_info *info = itera_op_info(p->ops[i].kind);
        own |= !strcmp(info->name, d->name);
        d->tolerance = fmax(d->tolerance, info->tolerance);
    }
    if (!own)
        snprintf(d->name, sizeof d->name, "%s_grad", op);
}

/* Builds and differentiates; false when there is no such case. An error stays in the program. */
static bool differentiate(struct itera_checker *checker, enum itera_op_kind kind, int index,
                          int variant, struct derivative *d)
{
    *d = (struct derivative){.seed = ITERA_NONE};
    if (!itera_check_build(checker, kind, index, &d->c))
        return false;
    struct itera_program *p = d->c.program;
    if (p->status || p->n_ops == 0)
        return true;
    if (variant > 0)
        p->ops[p->n_ops - 1].attr.variant = (uint8_t)variant;
    int32_t out = itera_check_seeded_output(p);
    if (out == ITERA_NONE || itera_check_is_input(&d->c, p->tensors[out].base))
        return true;
    for (int i = 0; i < d->c.n_inputs; i++)
        if (d->c.input[i].differentiate && p->tensors[d->c.input[i].tensor].dtype == ITERA_F32)
            d->wrt[d->n++] = d->c.input[i].tensor;
    if (d->n == 0)
        return true;
    d->applies = true;
    struct itera_shape shape = p->tensors[out].shape;
    d->seed = itera_bound(p, "seed", ITERA_F32, shape.rank, shape.dim);
    if (d->seed >= 0 && index % 4 == 3)
        p->tensors[d->seed].shape.ld += 5;
    for (int i = 0; i < d->n && !p->status; i++) {
        char name[64];
        const struct itera_tensor *x = &p->tensors[d->wrt[i]];
        snprintf(name, sizeof name, "d%.50s", x->name ? x->name : "input");
        shape = x->shape;
        d->grads[i] = itera_bound(p, name, ITERA_F32, shape.rank, shape.dim);
        if (d->grads[i] >= 0 && index % 2 && !has_views(p, d->wrt[i]))
            p->tensors[d->grads[i]].shape.ld += 3;
    }
    d->n_forward = p->n_ops;
    if (!p->status)
        itera_differentiate(p, out, d->seed, d->n, d->wrt, d->grads);
    name_gradient(d, kind);
    return true;
}

static void fill(const struct itera_checker *checker, enum itera_op_kind kind,
                 const struct derivative *d, const struct itera_trial *trial)
{
    itera_check_fill(checker, &d->c, d->n_forward - 1, trial);
    const struct itera_shape *shape = &d->c.program->tensors[d->seed].shape;
    struct itera_rng rng = {.seed = checker->options->seed,
                            .stream =
                                itera_check_stream(itera_op_info(kind)->name, d->c.index, 101)};
    itera_trial_fill(ITERA_FILL_NORMAL, 0, 1, &rng, itera_shape_rows(shape),
                     itera_shape_cols(shape), shape->ld, itera_trial_data(trial, d->seed));
}

/* The tensors that a run may write: the gradients, and operands that the forward op updates. */
static int written(const struct derivative *d, int32_t *tensors, bool *whole)
{
    int n = 0;
    for (; n < d->n; n++) {
        tensors[n] = d->grads[n];
        whole[n] = true;
    }
    const struct itera_op *op = &d->c.program->ops[d->n_forward - 1];
    const struct itera_op_info *info = itera_op_info(op->kind);
    for (int k = 0; k < info->n_in; k++)
        if (op->in[k] >= 0 && info->written_in >> k & 1) {
            whole[n] = false;
            tensors[n++] = op->in[k];
        }
    return n;
}

static void check_target(struct itera_checker *checker, const struct derivative *d,
                         const struct itera_trial *trial, const struct itera_runner *reference,
                         const struct itera_check_target *target, const char *method,
                         const char *label)
{
    enum { ROOM = ITERA_CASE_INPUTS + ITERA_MAX_IN };
    const struct itera_program *p = d->c.program;
    struct itera_check_outcome outcome;
    struct itera_cost cost = {0};
    int32_t tensors[ROOM];
    bool whole[ROOM];
    int n = written(d, tensors, whole), ways = 0;

    for (int32_t i = d->n_forward; i < p->n_ops; i++) {
        struct itera_cost c = itera_op_cost(p, &p->ops[i]);
        cost.flops += c.flops;
        cost.bytes += c.bytes;
    }
    for (int way = 0; way <= ways && !checker->status; way++) {
        if (!itera_check_run(checker, target, trial, reference, tensors, n, d->tolerance,
                             d->n_forward, way, false, &ways, &outcome))
            continue;
        itera_check_emit(checker, d->name, "f32", target, target->name,
                         way ? outcome.method : method, label, outcome.verdict, outcome.tolerance,
                         &outcome.difference, outcome.seconds, cost);
        if (itera_op_info(p->ops[d->n_forward - 1].kind)->def->variants)
            break; /* the candidates are its variants, which come by themselves */
    }
}

/* The reference's own rows: its writes, and the finite differences. */
static bool check_reference(struct itera_checker *checker, enum itera_op_kind kind,
                            const struct derivative *d, struct itera_runner *reference,
                            const char *label)
{
    enum { ROOM = ITERA_CASE_INPUTS + ITERA_MAX_IN };
    int32_t tensors[ROOM];
    bool whole[ROOM];
    int n = written(d, tensors, whole);
    struct itera_difference difference = {0};
    itera_trial_check_writes(reference, tensors, n, whole, &difference);
    if (difference.reason[0]) {
        itera_check_emit(checker, d->name, "f32", NULL, "reference", "", label, ITERA_CHECK_FAIL, 0,
                         &difference, 0, (struct itera_cost){0});
        return false;
    }
    for (int i = 0; i < d->c.n_inputs; i++)
        if (d->c.input[i].fill == ITERA_FILL_EXTREME)
            return true; /* no step fits values of all magnitudes */
    itera_check_differences(checker, kind, d->c.index, reference, d->seed, d->n, d->wrt, d->grads,
                            &difference);
    itera_check_emit(checker, d->name, "f32", NULL, "finite-difference", "", label,
                     difference.reason[0] ? ITERA_CHECK_FAIL : ITERA_CHECK_PASS, 1e-6, &difference,
                     0, (struct itera_cost){0});
    return true;
}

bool itera_check_gradient(struct itera_checker *checker, enum itera_op_kind kind, int index)
{
    const struct itera_op_def *def = itera_op_info(kind)->def;
    if (!def->grad)
        return false;
    struct itera_runner reference = {0};
    struct itera_trial first = {0}; /* the reference's, of variant 0 */
    struct derivative d = {0}, d0 = {0};
    bool exists = differentiate(checker, kind, index, 0, &d0);
    if (!exists || checker->status || !d0.applies)
        goto done;
    char label[160];
    snprintf(label, sizeof label, "%d%s%s", index, d0.c.label[0] ? " " : "", d0.c.label);
    if (d0.c.program->status) {
        struct itera_difference difference = {0};
        snprintf(difference.reason, sizeof difference.reason, "%s", itera_last_error());
        /* A rule may say that an op recorded for inference only has no gradient. */
        bool refused = d0.c.program->status == ITERA_ERR_UNSUPPORTED;
        itera_check_emit(checker, d0.name, "f32", NULL, "reference", "", label,
                         refused ? ITERA_CHECK_SKIP : ITERA_CHECK_FAIL, 0, &difference, 0,
                         (struct itera_cost){0});
        goto done;
    }
    checker->status = itera_trial_create(d0.c.program, index % 4, &first);
    if (checker->status)
        goto done;
    fill(checker, kind, &d0, &first);
    if (itera_runner_create(&first, checker->reference, NULL, NULL, &reference) ||
        itera_runner_run(&reference)) {
        struct itera_difference difference = {0};
        snprintf(difference.reason, sizeof difference.reason, "%s", itera_last_error());
        itera_check_emit(checker, d0.name, "f32", NULL, "reference", "", label, ITERA_CHECK_FAIL, 0,
                         &difference, 0, (struct itera_cost){0});
        goto done;
    }
    if (!check_reference(checker, kind, &d0, &reference, label))
        goto done;
    for (int v = 0; v < (def->variants ? def->variants : 1) && !checker->status; v++) {
        struct itera_trial trial = {0};
        if (!differentiate(checker, kind, index, v, &d))
            break;
        if (!d.c.program->status)
            checker->status = itera_trial_create(d.c.program, index % 4, &trial);
        if (trial.slots) {
            fill(checker, kind, &d, &trial);
            for (int i = 0; i < checker->n_targets && !checker->status; i++)
                check_target(checker, &d, &trial, &reference, &checker->targets[i],
                             itera_check_method(def, v), label);
        }
        itera_trial_destroy(&trial);
        itera_program_destroy(&d.c.program);
    }
done:
    itera_program_destroy(&d.c.program);
    itera_runner_destroy(&reference);
    itera_trial_destroy(&first);
    itera_program_destroy(&d0.c.program);
    return exists;
}

/* f = sum of seed * output 0, after a run of the forward pass; *noise is what rounding the outputs
 * to f32 may change in it. */
static double weighted_sum(const struct itera_runner *forward, int32_t out,
                           const struct itera_runner *gradient, int32_t seed, double *noise)
{
    const struct itera_shape *s = &forward->trial->program->tensors[out].shape;
    const struct itera_shape *u = &gradient->trial->program->tensors[seed].shape;
    const float *y = itera_runner_data(forward, out), *w = itera_runner_data(gradient, seed);
    double sum = 0, squares = 0;
    for (int64_t r = 0; r < itera_shape_rows(s); r++)
        for (int64_t c = 0; c < itera_shape_cols(s); c++) {
            double term = (double)y[r * s->ld + c] * w[r * u->ld + c];
            sum += term;
            squares += term * term;
        }
    *noise = 0x1p-24 * sqrt(squares);
    return sum;
}

/* One input moved along one direction. */
struct direction {
    struct itera_runner *forward;
    const struct itera_runner *gradient;
    int32_t out, seed, wrt, grad;
    float *x;          /* the input's initial content in the forward trial */
    const float *kept; /* its unmoved values, packed */
    const float *move; /* per element, packed: the step at eps 1 */
};

/* Moves x by t and -t steps: the change of f, and the change that the gradient predicts (from the
 * moves as f32 rounds them). */
static bool probe(const struct direction *d, double t, double *change, double *predicted,
                  double *scale, double *noise)
{
    const struct itera_shape *s = &d->forward->trial->program->tensors[d->wrt].shape;
    const struct itera_shape *gs = &d->gradient->trial->program->tensors[d->grad].shape;
    const float *g = itera_runner_data(d->gradient, d->grad);
    int64_t rows = itera_shape_rows(s), cols = itera_shape_cols(s);
    double f[2], n[2], sum = 0, squares = 0;
    for (int side = 0; side < 2; side++) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++) {
                float x = d->kept[r * cols + c];
                double step = t * d->move[r * cols + c];
                d->x[r * s->ld + c] = (float)(side ? x - step : x + step);
                if (side) {
                    double moved = (double)(float)(x + step) - (double)(float)(x - step);
                    double term = g[r * gs->ld + c] * moved;
                    sum += term;
                    squares += term * term;
                }
            }
        if (itera_runner_run(d->forward))
            return false;
        f[side] = weighted_sum(d->forward, d->out, d->gradient, d->seed, &n[side]);
    }
    *change = f[0] - f[1];
    *predicted = sum;
    *scale = sqrt(squares);
    *noise = fmax(n[0], n[1]);
    return true;
}

/* Central differences at a step and at its half, extrapolated (Richardson): the error of the
 * difference is of fourth order in the step. */
static void check_direction(const struct direction *d, struct itera_difference *out)
{
    /* A larger step is better where rounding hides the change, a smaller one near a kink. */
    static const double steps[] = {1e-2, 4e-2, 2.5e-3, 6e-4};
    const double tolerance = 1e-3;
    double best = INFINITY, best_error = 0, best_scale = 0;
    for (int i = 0; i < 4; i++) {
        double change[2], predicted[2], scale[2], noise[2];
        if (!probe(d, steps[i], &change[0], &predicted[0], &scale[0], &noise[0]) ||
            !probe(d, steps[i] / 2, &change[1], &predicted[1], &scale[1], &noise[1])) {
            snprintf(out->reason, sizeof out->reason, "%s", itera_last_error());
            return;
        }
        double measured = (8 * change[1] - change[0]) / 3;
        double expected = (8 * predicted[1] - predicted[0]) / 3;
        double error = fabs(measured - expected);
        double relative = error / (scale[0] + 1e-30);
        double allowed = tolerance * scale[0] + 10 * noise[0];
        if (error / (allowed + 1e-30) < best) {
            best = error / (allowed + 1e-30);
            best_error = error;
            best_scale = relative;
        }
        if (best <= 1)
            break;
    }
    out->max_abs = fmax(out->max_abs, best_error);
    out->max_rel = fmax(out->max_rel, fmin(best_scale, best_scale * best + tolerance));
    out->nmse = out->max_rel * out->max_rel;
    if (!(best <= 1))
        itera_format(out->reason, sizeof out->reason,
                     "the gradient of %.40s is off by %.2g of its size along a random direction",
                     d->forward->trial->program->tensors[d->wrt].name, best_scale);
}

/* Steps that suit each element: 1 stands for the input's own magnitude, no element moves by more
 * than a fraction of itself unless it is small beside the others. */
static void draw_direction(struct itera_rng *rng, const float *x, int64_t n, float *move)
{
    double squares = 0;
    for (int64_t i = 0; i < n; i++)
        squares += (double)x[i] * x[i];
    double rms = n ? sqrt(squares / (double)n) : 0;
    if (!(rms > 1e-6))
        rms = 1;
    for (int64_t i = 0; i < n; i++) {
        double size = fmin(fmax(fabs((double)x[i]), 0.1 * rms), rms);
        double length = 0.5 + 0.5 * itera_rng_uniform(rng);
        move[i] = (float)(itera_rng_below(rng, 2) ? size * length : -size * length);
    }
}

void itera_check_differences(struct itera_checker *checker, enum itera_op_kind kind, int index,
                             const struct itera_runner *gradient, int32_t seed, int n,
                             const int32_t *wrt, const int32_t *grads, struct itera_difference *out)
{
    *out = (struct itera_difference){0};
    struct itera_case c = {0};
    struct itera_trial trial = {0};
    struct itera_runner forward = {0};
    float *memory = NULL;
    if (!itera_check_build(checker, kind, index, &c))
        goto done;
    itera_check_bind_outputs(&c, 0);
    checker->status = itera_trial_create(c.program, 0, &trial);
    if (checker->status)
        goto done;
    itera_check_fill(checker, &c, c.program->n_ops - 1, &trial);
    if (itera_runner_create(&trial, checker->reference, NULL, NULL, &forward)) {
        snprintf(out->reason, sizeof out->reason, "%s", itera_last_error());
        goto done;
    }
    for (int i = 0; i < n && !out->reason[0]; i++) {
        const struct itera_shape *s = &c.program->tensors[wrt[i]].shape;
        int64_t rows = itera_shape_rows(s), cols = itera_shape_cols(s);
        float *x = itera_trial_data(&trial, wrt[i]);
        free(memory);
        memory = malloc(((size_t)(2 * rows * cols) + 1) * sizeof *memory);
        if (!memory) {
            checker->status = itera_fail(ITERA_ERR_MEMORY, "no memory to check a gradient");
            goto done;
        }
        float *kept = memory, *move = memory + rows * cols;
        for (int64_t r = 0; r < rows; r++)
            memcpy(kept + r * cols, x + r * s->ld, (size_t)cols * sizeof *x);
        struct itera_rng rng = {.seed = checker->options->seed,
                                .stream =
                                    itera_check_stream(itera_op_info(kind)->name, index, 200 + i)};
        draw_direction(&rng, kept, rows * cols, move);
        struct direction d = {&forward, gradient, itera_check_seeded_output(c.program),
                              seed,     wrt[i],   grads[i],
                              x,        kept,     move};
        check_direction(&d, out);
        for (int64_t r = 0; r < rows; r++)
            memcpy(x + r * s->ld, kept + r * cols, (size_t)cols * sizeof *x);
    }
done:
    free(memory);
    itera_runner_destroy(&forward);
    itera_trial_destroy(&trial);
    itera_program_destroy(&c.program);
}
