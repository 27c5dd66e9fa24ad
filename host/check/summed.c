/* What the elements of a result were summed from. A sum that cancels is far smaller than its terms,
 * and rounding errors are relative to the terms: compared with the sum alone, they look large. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/kernel.h"
#include "check/checker.h"
#include "core/log.h"

/* Large enough to show through an operand's rounding to f16. */
#define STEP 0x1p-12f
/* Small enough that hardly any choice between operands becomes another, nor anything that bends is
 * moved past its bend. */
#define FINE_STEP 0x1p-20f
/* A rounding or two to f32, of an operand that a result is not linear in; on GPUs what their languages
 * let functions be off: OpenCL's exp 3 units, Vulkan's 3 + 2 |x|. */
#define ROUNDING        0x1p-23
#define ROUNDING_ON_GPU 0x1p-21

enum { DRAWS = 9 };

/* How the results depend on an operand. */
enum way { LINEAR, CURVED, BY_CHOICE };

/* Operands are moved in `moved`, which `runner` runs. */
struct moves {
    const struct itera_runner *reference;
    struct itera_trial moved;
    struct itera_runner runner;
    const int32_t *tensors;
    int n;
};

static bool is_real(const struct moves *m, int32_t tensor)
{
    return m->moved.program->tensors[tensor].dtype == ITERA_F32;
}

/* A number of mean 0 and variance 1. Any of a range: were it one of two, moves would often make up for
 * each other, and what was summed would seem not to be. */
static float any_number(const struct itera_rng *rng, uint64_t stream, uint64_t index)
{
    return ((float)(itera_rng_at(rng->seed, stream, index) >> 8) * 0x1p-23f - 1) * 1.7320508f;
}

/* Multiplies the values of a slot by `factor`, give or take `step`; with `ties` those that are equal
 * in a row alike. What the program only writes holds ITERA_TRIAL_PATTERN, which is not a number. */
static void multiply(const struct moves *m, int slot, float factor, float step, bool ties,
                     struct itera_rng *rng)
{
    const int32_t tensor = m->moved.slots[slot].tensor;
    const struct itera_shape *s = &m->moved.program->tensors[tensor].shape;
    const uint32_t key = itera_rng_u32(rng);
    float *x = itera_trial_data(&m->moved, tensor);
    for (int64_t k = 0; k < itera_shape_span(s); k++) {
        uint32_t bits;
        memcpy(&bits, &x[k], sizeof bits);
        const uint64_t index = ties ? (uint64_t)(k / s->ld) << 32 | bits : (uint64_t)k;
        if (isfinite(x[k]))
            x[k] *= factor + step * any_number(rng, key, index);
    }
}

static const float *row_of(const struct itera_runner *runner, int32_t tensor, int64_t row)
{
    const struct itera_shape *s = &runner->trial->program->tensors[tensor].shape;
    return (const float *)itera_runner_data(runner, tensor) + row * s->ld;
}

/* Sums over result i, as it is now: of (now - reference)^2, and of its elements. */
static double change(const struct moves *m, int i, double *count)
{
    const struct itera_shape *s = &m->moved.program->tensors[m->tensors[i]].shape;
    double sum = 0;
    *count = 0;
    for (int64_t r = 0; r < itera_shape_rows(s); r++) {
        const float *now = row_of(&m->runner, m->tensors[i], r);
        const float *was = row_of(m->reference, m->tensors[i], r);
        for (int64_t c = 0; c < itera_shape_cols(s); c++) {
            const double d = (double)now[c] - was[c];
            *count += 1;
            sum += isfinite(d) ? d * d : 0;
        }
    }
    return sum;
}

/* |x(2) - 2 x(1) + x(0)|^2 of result i, x(f) with f times an operand, and what it is part of. */
static void bend_of(const struct moves *m, int i, const struct itera_runner *none, double *bend,
                    double *size)
{
    const struct itera_shape *s = &m->moved.program->tensors[m->tensors[i]].shape;
    for (int64_t r = 0; r < itera_shape_rows(s); r++) {
        const float *x0 = row_of(none, m->tensors[i], r);
        const float *x1 = row_of(m->reference, m->tensors[i], r);
        const float *x2 = row_of(&m->runner, m->tensors[i], r);
        for (int64_t c = 0; c < itera_shape_cols(s); c++) {
            const double d = (double)x2[c] - 2 * (double)x1[c] + x0[c];
            *bend += d * d;
            *size += (double)x2[c] * x2[c] + (double)x0[c] * x0[c];
        }
    }
}

/* Whether an op chooses by the values of a slot's tensor. */
static bool is_chosen_by(const struct moves *m, int slot)
{
    const struct itera_program *p = m->moved.program;
    for (int32_t i = 0; i < p->n_ops; i++)
        if (p->ops[i].kind == ITERA_OP_moe_route &&
            p->tensors[p->ops[i].in[0]].base == m->moved.slots[slot].tensor)
            return true;
    return false;
}

/* Whether the results are linear in a slot's tensor: then twice the operand moves them as far one way as
 * none of it moves them the other. */
static enum itera_status find_way(struct moves *m, int slot, enum way *way)
{
    struct itera_runner none = {0};
    struct itera_rng rng = {0};
    enum itera_status status = itera_runner_create(&m->moved, m->runner.device, NULL, NULL, &none);
    if (!status) {
        multiply(m, slot, 0, 0, false, &rng);
        status = itera_runner_run(&none);
    }
    itera_trial_reset(&m->moved, m->reference->trial);
    if (!status) {
        multiply(m, slot, 2, 0, false, &rng);
        status = itera_runner_run(&m->runner);
    }
    itera_trial_reset(&m->moved, m->reference->trial);
    double bend = 0, size = 0;
    for (int i = 0; i < m->n && !status; i++)
        if (is_real(m, m->tensors[i]))
            bend_of(m, i, &none, &bend, &size);
    *way = is_chosen_by(m, slot) ? BY_CHOICE : bend <= 1e-8 * size ? LINEAR : CURVED;
    itera_runner_destroy(&none);
    return status;
}

/* About how many terms an element of result i is the sum of. Terms that are computed alike may all be
 * wrong in the same direction, where a move at random goes both ways. */
static double terms_of(const struct moves *m, int i)
{
    const struct itera_program *p = m->moved.program;
    double most = 1;
    for (int k = 0; k < m->moved.n_slots; k++)
        if (is_real(m, m->moved.slots[k].tensor))
            most = fmax(most,
                        (double)itera_shape_elements(&p->tensors[m->moved.slots[k].tensor].shape));
    return most / fmax((double)itera_shape_elements(&p->tensors[m->tensors[i]].shape), 1);
}

/* The errors of few elements may all be far from their mean. */
static double of_few(double count)
{
    const double few = 1 + 3 / sqrt(fmax(count, 1));
    return few * few;
}

/* What a divergence is summed from lies within one op, and near its minimum no move of an operand
 * shows it: of each row sum p (t - s) / T, beside the logarithms. Sum over rows of their squares. */
static double divergence_terms(const struct moves *m, const struct itera_op *op)
{
    const struct itera_shape *s = &m->moved.program->tensors[op->in[0]].shape;
    const double temperature = op->attr.scale;
    const int64_t rows = itera_shape_rows(s), classes = itera_shape_cols(s);
    double sum = 0;
    for (int64_t r = 0; r < rows; r++) {
        const float *student = row_of(m->reference, op->in[0], r);
        const float *teacher = row_of(m->reference, op->in[1], r);
        double most = -INFINITY, weights = 0, terms = 0;
        for (int64_t c = 0; c < classes; c++)
            most = fmax(most, teacher[c]);
        for (int64_t c = 0; c < classes; c++) {
            const double weight = exp((teacher[c] - most) / temperature);
            weights += weight;
            terms += weight * fabs((double)teacher[c] - student[c]);
        }
        const double term = temperature * terms / weights / (double)rows;
        sum += isfinite(term) ? term * term : 0;
    }
    return sum;
}

/* The same of a normalisation: of each element x and the mean, before they are scaled. A mean that is
 * off moves all of a row alike, which no move of x does. */
static double mean_terms(const struct moves *m, const struct itera_op *op)
{
    const struct itera_shape *s = &m->moved.program->tensors[op->in[0]].shape;
    const float *weight = row_of(m->reference, op->in[1], 0);
    const int64_t cols = itera_shape_cols(s);
    double sum = 0, weights = 0;
    for (int64_t c = 0; c < cols; c++)
        weights += (double)weight[c] * weight[c];
    for (int64_t r = 0; r < itera_shape_rows(s); r++) {
        const float *x = row_of(m->reference, op->in[0], r);
        double mean = 0, squares = 0;
        for (int64_t c = 0; c < cols; c++)
            mean += (double)x[c] / (double)cols;
        for (int64_t c = 0; c < cols; c++)
            squares += (x[c] - mean) * (x[c] - mean);
        const double term = mean * mean / (squares / (double)cols + op->attr.eps) * weights;
        sum += isfinite(term) ? term : 0;
    }
    return sum;
}

/* The terms of result i that an op hides. */
static double hidden_terms(const struct moves *m, int i)
{
    const struct itera_program *p = m->moved.program;
    const double few = of_few((double)itera_shape_elements(&p->tensors[m->tensors[i]].shape));
    double sum = 0;
    for (int32_t k = 0; k < p->n_ops; k++) {
        const struct itera_op *op = &p->ops[k];
        if (op->out[0] != m->tensors[i])
            continue;
        if (op->kind == ITERA_OP_kl_loss)
            sum += few * divergence_terms(m, op);
        else if (op->kind == ITERA_OP_layer_norm)
            sum += few * mean_terms(m, op);
    }
    return sum;
}

struct noise {
    struct itera_rng rng;
    float step;
    int n_calls;
};

/* Multiplies what an op has computed, as rounding it does, by numbers near 1. */
static void disturb(void *user, const struct itera_call *call)
{
    struct noise *noise = user;
    for (int k = 0; k < ITERA_MAX_OUT; k++) {
        const struct itera_arg *out = &call->out[k];
        const uint64_t stream = noise->rng.stream + (uint64_t)(noise->n_calls * ITERA_MAX_OUT + k);
        for (int64_t r = 0; out->data && out->dtype == ITERA_F32 && r < out->rows; r++)
            for (int64_t c = 0; c < out->cols; c++) {
                float *x = (float *)out->data + r * out->ld + c;
                const uint64_t index = (uint64_t)(r * out->cols + c);
                if (isfinite(*x))
                    *x *= 1 + noise->step * any_number(&noise->rng, stream, index);
            }
    }
    noise->n_calls++;
}

/* What rounding to int8 may come to in a product (host/check/forward.c), as a part of its power. */
#define ROUNDED_TO_INT8 1e-4

/* Whether ops follow on a product that does: of one alone, the tolerance says it all. */
static bool rounds_to_int8(const struct itera_program *p)
{
    for (int32_t i = 0; i < p->n_ops && p->n_ops > 1; i++)
        if (p->ops[i].attr.integer)
            return true;
    return false;
}

/* Moves what an integer product has computed as far as its rounding may. */
static void round_product(void *user, const struct itera_call *call)
{
    struct noise *noise = user;
    const struct itera_arg *out = &call->out[0];
    const uint64_t stream = noise->rng.stream + (uint64_t)noise->n_calls++;
    for (int64_t r = 0; call->attr->integer && out->dtype == ITERA_F32 && r < out->rows; r++) {
        float *row = (float *)out->data + r * out->ld;
        double power = 0;
        for (int64_t c = 0; c < out->cols; c++)
            power += (double)row[c] * row[c];
        const double step = sqrt(ROUNDED_TO_INT8 * power / (double)out->cols);
        for (int64_t c = 0; c < out->cols && isfinite(step); c++)
            row[c] += (float)step * any_number(&noise->rng, stream, (uint64_t)(r * out->cols + c));
    }
}

/* Runs the operands as they were moved, `after` each op (NULL: nothing), and moves them back; sums[i]
 * becomes (now - reference)^2 of result i, more for few elements. */
static enum itera_status run_moved(struct moves *m,
                                   void (*after)(void *user, const struct itera_call *call),
                                   struct noise *noise, double *sums)
{
    m->runner.device->after_op = after;
    m->runner.device->after_op_user = noise;
    enum itera_status status = itera_runner_run(&m->runner);
    m->runner.device->after_op = NULL;
    itera_trial_reset(&m->moved, m->reference->trial);
    for (int i = 0; i < m->n; i++) {
        double count;
        sums[i] = 0;
        if (!status && is_real(m, m->tensors[i])) {
            sums[i] = change(m, i, &count);
            sums[i] *= of_few(count);
        }
    }
    return status;
}

static struct noise make_noise(struct itera_rng *rng, float step)
{
    const uint64_t stream = (uint64_t)itera_rng_u32(rng) << 32;
    return (struct noise){.rng = {.seed = rng->seed, .stream = stream}, .step = step};
}

/* What the rounding of integer products, carried through the ops after them, does to each result. */
static enum itera_status draw_rounded(struct moves *m, struct itera_rng *rng, double *sums)
{
    struct noise noise = make_noise(rng, 0);
    return run_moved(m, round_product, &noise, sums);
}

/* Moves the operands of the ways `from` to `to`, with those that are not linear all that lies between
 * the ops, and adds (the change by the step, in steps)^2 to the draw of each result. */
static enum itera_status draw(struct moves *m, const enum way *ways, enum way from, enum way to,
                              float step, double weight, double alike_by_term,
                              struct itera_rng *rng, double *sums)
{
    double moved[ITERA_CHECK_TENSORS];
    for (int k = 0; k < m->moved.n_slots; k++)
        if (is_real(m, m->moved.slots[k].tensor) && ways[k] >= from && ways[k] <= to)
            multiply(m, k, 1, step, ways[k] == BY_CHOICE, rng);
    struct noise noise = make_noise(rng, step);
    enum itera_status status = run_moved(m, from > LINEAR ? disturb : NULL, &noise, moved);
    for (int i = 0; i < m->n && !status; i++)
        sums[i] += (weight + alike_by_term * terms_of(m, i)) * moved[i] / ((double)step * step);
    return status;
}

/* The most terms that a product is the sum of, or steps that a scan's state has gone through. */
static double most_terms(const struct itera_program *p)
{
    double most = 1;
    for (int32_t i = 0; i < p->n_ops; i++) {
        const struct itera_op *op = &p->ops[i];
        if (op->kind == ITERA_OP_matmul || op->kind == ITERA_OP_grouped_matmul)
            most = fmax(most, itera_op_cost(p, op).flops / 2 /
                                  (double)itera_shape_elements(&p->tensors[op->out[0]].shape));
        for (int k = 0; k < ITERA_MAX_IN && strstr(itera_op_info(op->kind)->name, "_scan"); k++)
            if (op->in[k] >= 0 && p->tensors[op->in[k]].shape.rank >= 3)
                most = fmax(most, (double)p->tensors[op->in[k]].shape.dim[1]);
    }
    return most;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The upper quartile: near the mean, whether one element counts (where the median would be half of it)
 * or many, and not what one choice comes to that became another. */
static double typical(double (*draws)[ITERA_CHECK_TENSORS], int i)
{
    double of[DRAWS];
    for (int k = 0; k < DRAWS; k++)
        of[k] = draws[k][i];
    qsort(of, DRAWS, sizeof of[0], by_size);
    return of[DRAWS * 3 / 4];
}

static enum itera_status measure(struct moves *m, uint64_t seed, double rounding, double tolerance,
                                 enum way *ways, double *summed)
{
    double linear[ITERA_CHECK_TENSORS] = {0};
    double curved[DRAWS][ITERA_CHECK_TENSORS] = {{0}}, fine[DRAWS][ITERA_CHECK_TENSORS] = {{0}};
    double rounded[DRAWS][ITERA_CHECK_TENSORS] = {{0}};
    const bool rounds = rounds_to_int8(m->moved.program);
    enum itera_status status = ITERA_OK;
    struct itera_rng rng = {.seed = seed, .stream = itera_check_stream("summed", 0, 0)};
    const double one = fmin(rounding * rounding / tolerance, 1);
    /* Roundings add up: of n terms, sqrt(n) parts of each are lost. */
    const double terms = fmax(most_terms(m->moved.program) / 8, 1);
    const double weight = fmin(terms * one, 1);
    for (int k = 0; k < m->moved.n_slots && !status; k++)
        if (is_real(m, m->moved.slots[k].tensor))
            status = find_way(m, k, &ways[k]);
    for (int k = 0; k < DRAWS && !status; k++) {
        status = draw(m, ways, LINEAR, LINEAR, STEP, 1, one, &rng, linear);
        if (!status)
            status = draw(m, ways, CURVED, CURVED, STEP, weight, 0, &rng, curved[k]);
        if (!status)
            status = draw(m, ways, CURVED, BY_CHOICE, FINE_STEP, weight, 0, &rng, fine[k]);
        if (!status && rounds)
            status = draw_rounded(m, &rng, rounded[k]);
    }
    /* Of what is linear, the mean is the sum of the terms' squares. */
    for (int i = 0; i < m->n && !status; i++)
        summed[i] = linear[i] / DRAWS + fmax(typical(curved, i), typical(fine, i)) +
                    one * hidden_terms(m, i) + typical(rounded, i) / tolerance;
    return status;
}

enum itera_status itera_check_summed(struct itera_checker *checker,
                                     const struct itera_runner *reference, const int32_t *tensors,
                                     int n, double tolerance, bool on_gpu, double *summed)
{
    struct moves m = {.reference = reference, .tensors = tensors, .n = n};
    enum way *ways = calloc((size_t)reference->trial->n_slots + 1, sizeof *ways);
    enum itera_status status =
        ways ? itera_trial_copy(reference->trial, &m.moved)
             : itera_fail(ITERA_ERR_MEMORY, "no memory to check what a result is summed from");
    if (!status)
        status = itera_runner_create(&m.moved, checker->reference, NULL, NULL, &m.runner);
    if (!status)
        status = measure(&m, checker->options->seed, on_gpu ? ROUNDING_ON_GPU : ROUNDING, tolerance,
                         ways, summed);
    itera_runner_destroy(&m.runner);
    itera_trial_destroy(&m.moved);
    free(ways);
    return status;
}
