/* How long a new run is to be: its steps, and what follows from them. */
#include <math.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/log.h"
#include "train/trainer_impl.h"

enum { DEFAULT_STEPS = 1000 };

/* Seconds of one step, from real ones whose effects are undone. */
static enum itera_status measure_step(struct itera_trainer *t, double budget, double *seconds)
{
    const size_t bytes = (size_t)t->model->layout.elements * 4;
    float *weights = malloc(bytes), *zeros = calloc(1, bytes);
    enum itera_status status = ITERA_OK;
    if (!weights || !zeros)
        status = itera_fail(ITERA_ERR_MEMORY, "training: no memory to measure a step");
    if (!status)
        status = itera_buffer_download(t->model->weights, 0, weights, bytes);
    float scale[2];
    if (!status)
        status = itera_train_program_get_scale(&t->program, scale);
    double first = itera_seconds(), begin = first;
    int64_t counted = 0;
    for (int64_t i = 0; !status && (i < 2 || (itera_seconds() - first < budget && i < 30)); i++) {
        struct itera_train_figures figures = {0};
        status = itera_train_program_step(&t->program, &t->options, 0, i, t->data);
        if (!status)
            status = itera_train_program_read(&t->program, &figures);
        if (i == 0) /* memory is touched for the first time there */
            begin = itera_seconds();
        else
            counted++;
    }
    *seconds = (itera_seconds() - begin) / (double)(counted ? counted : 1);
    if (!status)
        status = itera_buffer_upload(t->model->weights, 0, weights, bytes);
    if (!status)
        status = itera_train_program_set_scale(&t->program, scale);
    if (!status)
        status = itera_buffer_upload(t->program.m, 0, zeros, bytes);
    if (!status)
        status = itera_buffer_upload(t->program.v, 0, zeros, bytes);
    free(weights);
    free(zeros);
    return status;
}

/* A tenth of the run, but rare enough that evaluating (a third of the work of training on the same
 * text) stays a tenth of it. */
static int64_t default_eval_every(const struct itera_trainer *t, int64_t steps)
{
    int64_t every = steps / 10,
            rare = 3 * (int64_t)itera_train_eval_batches(t) / t->options.accumulate;
    every = every > rare ? every : rare;
    return every > 1 ? every : 1;
}

enum itera_status itera_train_make_plan(struct itera_trainer *t)
{
    struct itera_train_options *o = &t->options;
    int64_t steps = o->steps;
    if (!steps && o->epochs > 0) {
        double windows = (double)itera_dataset_windows(t->data, (size_t)o->seq);
        steps = (int64_t)ceil(o->epochs * windows / (double)(o->batch * o->accumulate));
    }
    t->timed = !steps && o->max_minutes > 0;
    if (t->timed) {
        double limit = o->max_minutes * 60, seconds;
        enum itera_status status = measure_step(t, fmin(1.5, limit / 20), &seconds);
        if (status)
            return status;
        double left = limit * ITERA_TRAIN_TIME_MARGIN - (itera_seconds() - t->began);
        steps = left > seconds ? (int64_t)(left / seconds) : 1;
    }
    if (!steps)
        steps = DEFAULT_STEPS;
    if (!o->lr) {
        double parameters = (double)t->model->layout.parameters;
        o->lr = 3e-3 * fmin(1, sqrt(3e6 / parameters));
    }
    itera_train_plan_start(&t->plan, steps, o->warmup);
    if (t->valid && !o->eval_every)
        o->eval_every = default_eval_every(t, steps);
    return ITERA_OK;
}
