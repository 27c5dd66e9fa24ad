/* The trainer: walks a run step by step, decides what is due. */
#include "itera/trainer.h"

#include <math.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "train/trainer_impl.h"

static const char DONE[] = "all steps are done",
                  NO_BETTER[] = "the validation loss no longer falls";
const char ITERA_TRAIN_TIME_UP[] = "the time is up";

enum {
    TELL_EVERY = 10,   /* steps between messages about skipped steps */
    SKIP_LIMIT = 10,   /* skipped steps in a row that end a run */
    SAVE_SECONDS = 60, /* between checkpoints when save_every is 0 */
};

/* ---- what is due after a step ---------------------------------------------------------------- */

static int64_t step_tokens(const struct itera_trainer *t)
{
    return t->options.batch * t->options.seq * t->options.accumulate;
}

static enum itera_status diverged(const struct itera_trainer *t, int64_t step, const char *what)
{
    return itera_fail(ITERA_ERR_LIMIT,
                      "training diverged: %s at step %lld; start again with a lower learning rate "
                      "(it is %g), a longer warm-up, or stricter clipping",
                      what, (long long)step, t->options.lr);
}

/* Says how many of the first `step` steps were skipped since it last did. */
static void tell_skipped(struct itera_trainer *t, int64_t step)
{
    const int64_t steps = step - t->told_step, skipped = t->skipped - t->told_skipped;
    t->told_step = step;
    t->told_skipped = t->skipped;
    if (!skipped)
        return;
    /* That is how the loss scale finds its size; without one it is a bad sign. */
    bool scaled = t->options.precision == ITERA_PRECISION_F16;
    itera_log(scaled ? ITERA_LOG_INFO : ITERA_LOG_WARNING,
              "step %lld: %lld of the last %lld steps had gradients that are not finite, and were "
              "skipped%s",
              (long long)step, (long long)skipped, (long long)steps,
              scaled ? "; the loss scale is halved each time" : "");
}

/* Counts a step when it was skipped: one by one, as ten in a row may begin anywhere. */
static enum itera_status count_skipped(struct itera_trainer *t,
                                       const struct itera_train_figures *figures)
{
    const int64_t step = figures->step + 1;
    t->skipped += !figures->finite;
    t->skipped_in_a_row = figures->finite ? 0 : t->skipped_in_a_row + 1;
    const bool over = t->skipped_in_a_row >= SKIP_LIMIT;
    if (over || step % TELL_EVERY == 0 || step >= t->plan.steps)
        tell_skipped(t, step);
    return over ? diverged(t, step, "ten steps in a row without a finite gradient") : ITERA_OK;
}

/* Reads the figures of steps until at most `behind` of those that were queued are left. */
static enum itera_status read_steps(struct itera_trainer *t, int behind)
{
    enum itera_status status = ITERA_OK;
    if (t->failed)
        return itera_fail(t->failed,
                          "training: a step before this one failed; resume from the last "
                          "checkpoint");
    while (t->program.n_pending > behind && !status) {
        status = t->failed = itera_train_program_read(&t->program, &t->figures);
        if (!status)
            status = count_skipped(t, &t->figures);
    }
    return status;
}

enum itera_status itera_train_read_steps(struct itera_trainer *t)
{
    return read_steps(t, 0);
}

/* Weights that are not finite are never saved: what is there from before is worth more. */
static enum itera_status check_weights(const struct itera_trainer *t)
{
    const size_t n = (size_t)t->model->layout.elements;
    float *values = malloc(n * sizeof *values + 1);
    if (!values)
        return itera_fail(ITERA_ERR_MEMORY, "training: no memory to look at the weights");
    enum itera_status status =
        itera_buffer_download(t->model->weights, 0, values, n * sizeof *values);
    bool finite = true;
    for (size_t i = 0; i < n && !status && finite; i++)
        finite = isfinite(values[i]);
    free(values);
    return status || finite ? status : diverged(t, t->step, "weights that are not finite");
}

/* Before a run counts as done: its last loss, of training or evaluation, is a number. */
static enum itera_status check_finish(const struct itera_trainer *t)
{
    double loss;
    enum itera_status status = itera_train_program_loss(&t->program, &loss);
    if (status)
        return status;
    const bool evaluated = t->last.events & ITERA_TRAIN_EVALUATED;
    if (isfinite(loss) && (!evaluated || isfinite(t->last.valid_loss)))
        return ITERA_OK;
    return diverged(t, t->step, "a loss that is not finite");
}

static void summarize_load(struct itera_trainer *t)
{
    const int n = t->program.n_moe * t->program.experts;
    t->last.max_load = 0;
    for (int i = 0; i < n; i++)
        t->last.max_load = fmax(t->last.max_load, t->load[i] * t->program.experts);
}

/* The step whose figures were read last. */
static enum itera_status log_step(struct itera_trainer *t, double lr)
{
    const struct itera_train_figures *figures = &t->figures;
    struct itera_train_report *r = &t->last;
    r->loss = figures->loss;
    r->aux_loss = figures->aux_loss;
    r->kl_loss = figures->kl_loss;
    r->grad_norm = figures->grad_norm;
    r->lr = lr;
    r->tokens_per_second =
        (double)((t->step - t->logged) * step_tokens(t)) / fmax(t->trained, 1e-9);
    t->trained = 0;
    t->logged = t->step;
    r->events |= ITERA_TRAIN_LOGGED;
    summarize_load(t);
    return itera_train_log_step(t);
}

static enum itera_status save_model(const struct itera_trainer *t)
{
    char path[4096];
    enum itera_status status = check_weights(t);
    if (!status)
        status = itera_path_join(path, sizeof path, t->options.directory, "model.safetensors");
    return status ? status : itera_model_save(t->model, path);
}

uint64_t itera_train_eval_batches(const struct itera_trainer *t)
{
    const struct itera_train_options *o = &t->options;
    uint64_t batches = itera_dataset_eval_batches(t->valid, (size_t)o->batch, (size_t)o->seq, 0);
    if (!o->eval_tokens)
        return batches;
    uint64_t most = (uint64_t)((o->eval_tokens - 1) / (o->batch * o->seq) + 1);
    return batches < most ? batches : most;
}

static enum itera_status evaluate(struct itera_trainer *t)
{
    const struct itera_train_options *o = &t->options;
    struct itera_train_report *r = &t->last;
    enum itera_status status = itera_train_program_evaluate(
        &t->program, t->model, t->valid, itera_train_eval_batches(t), &r->valid_loss);
    if (status)
        return status;
    r->events |= ITERA_TRAIN_EVALUATED;
    if (!(r->valid_loss >= t->best_loss) && isfinite(r->valid_loss)) {
        t->best_loss = r->valid_loss;
        t->best_step = t->step;
        t->bad_evaluations = 0;
        r->events |= ITERA_TRAIN_IMPROVED;
        if (o->directory)
            status = save_model(t);
    } else {
        t->bad_evaluations++;
    }
    r->best_loss = t->best_loss;
    r->best_step = t->best_step;
    return status ? status : itera_train_log_evaluation(t);
}

enum itera_status itera_trainer_save(struct itera_trainer *t)
{
    enum itera_status status = read_steps(t, 0);
    if (!status)
        status = check_weights(t);
    if (!t->options.directory)
        return status;
    if (!status)
        status = itera_train_checkpoint_save(t);
    /* The model file is the best one; before there is a best, the last. */
    if (!status && t->step && !t->best_step)
        status = save_model(t);
    if (!status) {
        t->saved = itera_seconds();
        t->saved_step = t->step;
    }
    return status;
}

/* Fits the end of a timed plan to the speed since the last checkpoint. It is done there alone, so
 * that a resumed run has the plan that the killed one had. */
static void follow_clock(struct itera_trainer *t)
{
    const double now = itera_seconds();
    if (!t->timed || t->step == t->saved_step || now - t->saved < 0.5)
        return;
    double seconds = (now - t->saved) / (double)(t->step - t->saved_step);
    double left = t->options.max_minutes * 60 * ITERA_TRAIN_TIME_MARGIN - (now - t->began);
    itera_train_plan_move(&t->plan, t->step, t->step + (int64_t)fmax(1, left / seconds));
}

/* A timed run looks at the clock when it saves: a short one does so more often. */
static double save_seconds(const struct itera_trainer *t)
{
    return t->timed ? fmin(SAVE_SECONDS, t->options.max_minutes * 60 / 10) : SAVE_SECONDS;
}

enum itera_status itera_trainer_step(struct itera_trainer *t, struct itera_train_report *report)
{
    const struct itera_train_options *o = &t->options;
    enum itera_status status = ITERA_OK;
    t->last.events = 0;
    if (t->step >= t->plan.steps && !t->finish)
        t->finish = DONE;
    if (t->finish) {
        itera_trainer_report(t, report);
        return ITERA_OK;
    }
    const double begin = itera_seconds(), lr = itera_train_learning_rate(o, &t->plan, t->step);
    const bool last = t->step + 1 >= t->plan.steps;
    const bool logs = last || t->step == 0 || (t->step + 1) % o->log_every == 0;
    if (!t->failed)
        t->failed = itera_train_program_step(&t->program, o, lr, t->step, t->data);
    else
        status = read_steps(t, 0); /* says so */
    status = status ? status : t->failed;
    if (status)
        goto done;
    t->step++;
    t->last.step = t->step;
    t->last.tokens = t->step * step_tokens(t);
    /* The device goes on with this step while the next batch is made, unless it is looked at. */
    const bool evaluates = t->valid && (last || t->step % o->eval_every == 0);
    const bool due = o->save_every ? t->step % o->save_every == 0
                                   : itera_seconds() - t->saved >= save_seconds(t);
    status = read_steps(t, logs || evaluates || due ? 0 : itera_train_program_ahead(&t->program));
    t->trained += itera_seconds() - begin;
    if (logs && t->figures.step + 1 == t->step) {
        const enum itera_status logged = log_step(t, lr);
        status = status ? status : logged;
    }
    if (!status && evaluates)
        status = evaluate(t);
    if (status)
        goto done;
    if (last)
        t->finish = DONE;
    else if (o->patience && t->bad_evaluations >= o->patience)
        t->finish = NO_BETTER;
    else if (o->max_minutes > 0 && itera_seconds() - t->began >= o->max_minutes * 60)
        t->finish = ITERA_TRAIN_TIME_UP;
    if (t->finish)
        status = read_steps(t, 0);
    if (!status && t->finish == ITERA_TRAIN_TIME_UP && t->valid &&
        !(t->last.events & ITERA_TRAIN_EVALUATED))
        status = evaluate(t);
    if (!status && t->finish)
        status = check_finish(t);
    if (!status && (due || t->finish)) {
        if (!t->finish)
            follow_clock(t);
        status = itera_trainer_save(t);
        if (!status && o->directory)
            t->last.events |= ITERA_TRAIN_SAVED;
    }
done:
    if (status)
        t->finish = NULL;
    itera_trainer_report(t, report);
    return status;
}

/* ---- looking at it --------------------------------------------------------------------------- */

void itera_trainer_report(const struct itera_trainer *t, struct itera_train_report *report)
{
    *report = t->last;
    if (t->finish)
        report->events |= ITERA_TRAIN_FINISHED;
    report->step = t->step;
    report->steps = t->plan.steps;
    report->tokens = t->step * step_tokens(t);
    report->skipped = t->skipped;
    report->seconds = itera_seconds() - t->began;
    report->finish = t->finish;
}

const struct itera_train_options *itera_trainer_options(const struct itera_trainer *t)
{
    return &t->options;
}

const struct itera_model *itera_trainer_model(const struct itera_trainer *t)
{
    return t->model;
}

const struct itera_model *itera_trainer_teacher(const struct itera_trainer *t)
{
    return t->teacher;
}

void itera_trainer_data(const struct itera_trainer *t, int64_t *tokens, int64_t *windows,
                        int64_t *valid_tokens)
{
    size_t count;
    itera_dataset_tokens(t->data, &count);
    *tokens = (int64_t)count;
    *windows = (int64_t)itera_dataset_windows(t->data, (size_t)t->options.seq);
    count = 0;
    if (t->valid)
        itera_dataset_tokens(t->valid, &count);
    *valid_tokens = (int64_t)count;
}
