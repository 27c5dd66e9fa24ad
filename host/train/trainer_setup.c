/* What a new run and one that goes on share: the trainer itself, its data and its programs. */
#include <math.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/log.h"
#include "train/trainer_impl.h"

enum itera_status itera_trainer_create_bare(struct itera_device *device, struct itera_trainer **out)
{
    struct itera_trainer *t = calloc(1, sizeof *t);
    if (t)
        t->arena = itera_arena_create(0);
    if (!t || !t->arena) {
        free(t);
        return itera_fail(ITERA_ERR_MEMORY, "training: no memory");
    }
    t->device = device;
    t->best_loss = t->last.teacher_loss = (double)NAN;
    t->began = itera_seconds();
    *out = t;
    return ITERA_OK;
}

void itera_trainer_destroy(struct itera_trainer **trainer)
{
    struct itera_trainer *t = *trainer;
    if (!t)
        return;
    itera_train_log_close(t);
    itera_train_program_destroy(&t->program);
    itera_dataset_destroy(&t->data);
    itera_dataset_destroy(&t->valid);
    itera_model_destroy(&t->model);
    itera_model_destroy(&t->teacher);
    itera_arena_destroy(&t->arena);
    free(t->load);
    free(t);
    *trainer = NULL;
}

static enum itera_status open_dataset(const struct itera_trainer *t, const char *source,
                                      const struct itera_corpus *corpus, struct itera_dataset **out)
{
    struct itera_corpus *opened = NULL;
    enum itera_status status = corpus ? ITERA_OK : itera_corpus_open(source, &opened);
    if (!status)
        status =
            itera_dataset_create(corpus ? corpus : opened, itera_model_tokenizer(t->model), out);
    itera_corpus_destroy(&opened);
    if (status)
        return status;
    size_t count;
    itera_dataset_tokens(*out, &count);
    if (itera_dataset_unknown(*out) > count / 20)
        itera_log(ITERA_LOG_WARNING,
                  "%s: %.0f%% of its tokens are unknown to the tokenizer; a larger word tokenizer, "
                  "or bpe, would see them",
                  source, 100.0 * (double)itera_dataset_unknown(*out) / (double)count);
    return ITERA_OK;
}

/* Data sets, programs and what else follows from options and model. */
enum itera_status itera_trainer_set_up(struct itera_trainer *t, const struct itera_corpus *corpus)
{
    struct itera_train_options *o = &t->options;
    enum itera_status status = itera_train_check_positions(o->seq, t->model->config.max_positions);
    if (!status && t->teacher)
        status = itera_train_teacher_check(o, t->model, t->teacher);
    if (!status)
        status = open_dataset(t, o->data, corpus, &t->data);
    if (!status && o->valid)
        status = open_dataset(t, o->valid, NULL, &t->valid);
    if (status)
        return status;
    if (!itera_dataset_windows(t->data, (size_t)o->seq)) {
        size_t count;
        itera_dataset_tokens(t->data, &count);
        return itera_fail(ITERA_ERR_LIMIT,
                          "%s: its %zu tokens are fewer than one sequence of %lld + 1; use more "
                          "text or shorter sequences",
                          o->data, count, (long long)o->seq);
    }
    const struct itera_train_teaching teaching = {t->teacher, o->temperature, o->teacher_weight};
    status = itera_train_program_create(t->model, o->batch, o->seq, o->accumulate, o->weight_decay,
                                        o->precision, t->teacher ? &teaching : NULL, &t->program);
    if (status)
        return status;
    t->load = calloc((size_t)(t->program.n_moe * t->program.experts) + 1, sizeof *t->load);
    if (!t->load)
        return itera_fail(ITERA_ERR_MEMORY, "training: no memory");
    t->last.best_loss = t->best_loss;
    t->last.loss = t->last.valid_loss = t->last.kl_loss = (double)NAN;
    return ITERA_OK;
}

void itera_trainer_start_clocks(struct itera_trainer *t)
{
    t->saved = itera_seconds();
    t->saved_step = t->logged = t->told_step = t->step;
    t->figures = (struct itera_train_figures){.step = -1, .load = t->load};
    t->told_skipped = t->skipped;
    t->last.step = t->step;
    t->last.best_step = t->best_step;
}
