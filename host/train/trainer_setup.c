/* Setting a run up: options, models, data and plan, of a new run and of one that goes on. */
#include "itera/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "text/tokenizer_impl.h"
#include "train/trainer_impl.h"

enum { DEFAULT_STEPS = 1000 };

/* ---- options --------------------------------------------------------------------------------- */

static int64_t count_or(int64_t asked, int64_t absent)
{
    return asked ? asked : absent;
}

/* Of what can be 0: negative asks for that. */
static double value_or(double asked, double absent)
{
    return asked < 0 ? 0 : asked != 0 ? asked : absent;
}

struct itera_train_options itera_train_options_fill(const struct itera_train_options *options)
{
    struct itera_train_options o = {0};
    if (options)
        o = *options;
    o.batch = count_or(o.batch, 8);
    o.seq = count_or(o.seq, 128);
    o.accumulate = count_or(o.accumulate, 1);
    o.min_lr = value_or(o.min_lr, 0.1);
    o.warmup = o.warmup < 0 ? 0 : count_or(o.warmup, -1);
    o.beta1 = value_or(o.beta1, 0.9);
    o.beta2 = value_or(o.beta2, 0.95);
    o.eps = o.eps != 0 ? o.eps : 1e-8;
    o.weight_decay = value_or(o.weight_decay, 0.1);
    o.clip = value_or(o.clip, 1);
    o.dropout = value_or(o.dropout, -1);
    o.aux_weight = value_or(o.aux_weight, -1);
    o.temperature = o.temperature != 0 ? o.temperature : 2;
    o.teacher_weight = value_or(o.teacher_weight, 0.5);
    o.log_every = count_or(o.log_every, 10);
    o.eval_tokens = o.eval_tokens < 0 ? 0 : count_or(o.eval_tokens, 100000);
    return o;
}

/* So that tokens can be counted to the end of the run. */
static enum itera_status check_length(const struct itera_train_options *o, int64_t steps)
{
    int64_t tokens;
    if (!__builtin_mul_overflow(steps, o->batch * o->seq * o->accumulate, &tokens))
        return ITERA_OK;
    return itera_fail(
        ITERA_ERR_ARGUMENT,
        "training: %lld steps of %lld x %lld x %lld tokens are too many to count; ask for fewer",
        (long long)steps, (long long)o->accumulate, (long long)o->batch, (long long)o->seq);
}

static enum itera_status check_options(const struct itera_train_options *o)
{
    const int64_t tokens = INT64_C(1) << 24;
    const char *wrong = NULL;
    if (o->batch < 1 || o->seq < 1 || o->batch > tokens || o->seq > tokens / o->batch)
        wrong = "batch and seq must be at least 1, and batch x seq at most 16777216";
    else if (o->accumulate < 1 || o->accumulate > 65536)
        wrong = "accumulate must be from 1 to 65536";
    else if (o->steps < 0 || o->steps > INT64_C(1) << 40)
        wrong = "steps must not be negative";
    else if (!(o->epochs >= 0 && o->epochs < 1e6))
        wrong = "epochs must not be negative";
    else if (!(o->max_minutes >= 0 && o->max_minutes < 1e9))
        wrong = "max_minutes must not be negative";
    else if ((unsigned)o->schedule > ITERA_SCHEDULE_LINEAR)
        wrong = "the schedule is not known";
    else if (!(o->lr >= 0 && o->lr <= 10))
        wrong = "lr must be from 0 to 10";
    else if (!(o->min_lr >= 0 && o->min_lr <= 1))
        wrong = "min_lr, a fraction of lr, must be from 0 to 1";
    else if (!(o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1))
        wrong = "beta1 and beta2 must be in [0, 1)";
    else if (!(o->eps > 0 && o->eps < 1))
        wrong = "eps must be between 0 and 1";
    else if (!(o->weight_decay >= 0 && o->weight_decay <= 10))
        wrong = "weight_decay must be from 0 to 10";
    else if (!(o->clip >= 0 && o->clip <= 1e18))
        wrong = "clip must be from 0 to 1e18";
    else if (!(o->dropout >= -1 && o->dropout <= 0.95))
        wrong = "dropout must be at most 0.95";
    else if (!(o->aux_weight >= -1 && o->aux_weight <= 1000))
        wrong = "aux_weight must be at most 1000";
    else if (!(o->temperature > 0 && o->temperature <= 1000))
        wrong = "temperature must be above 0, and at most 1000";
    else if (!(o->teacher_weight >= 0 && o->teacher_weight <= 1))
        wrong = "teacher_weight must be from 0 to 1";
    else if (o->log_every < 1 || o->eval_every < 0 || o->eval_tokens < 0 || o->patience < 0 ||
             o->save_every < 0 || o->warmup < -1 || o->positions < 0 || o->positions > INT32_MAX)
        wrong = "a count is negative";
    if (wrong)
        return itera_fail(ITERA_ERR_ARGUMENT, "training: %s", wrong);
    return check_length(o, o->steps); /* before memory is taken for such batches */
}

/* The options outlive the caller's strings. */
static enum itera_status keep_strings(struct itera_trainer *t)
{
    struct itera_train_options *o = &t->options;
    const char **strings[] = {&o->init, &o->config, &o->preset,  &o->tokenizer,
                              &o->data, &o->valid,  &o->teacher, &o->directory};
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        if (!*strings[i])
            continue;
        *strings[i] = itera_arena_strdup(t->arena, *strings[i]);
        if (!*strings[i])
            return itera_fail(ITERA_ERR_MEMORY, "training: no memory");
    }
    return ITERA_OK;
}

/* ---- the trainer ----------------------------------------------------------------------------- */

static enum itera_status create_bare(struct itera_device *device, struct itera_trainer **out)
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

/* Refuses to write over another run. */
static enum itera_status claim_directory(struct itera_trainer *t)
{
    char path[4096];
    const char *directory = t->options.directory;
    if (!directory)
        return ITERA_OK;
    enum itera_status status = itera_make_directory(directory);
    if (!status)
        status = itera_path_join(path, sizeof path, directory, "model.safetensors");
    if (status || t->options.overwrite)
        return status;
    if (itera_trainer_can_resume(directory))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s: has a training run already; resume it (--resume), choose another "
                          "directory, or replace it (--force)",
                          directory);
    if (itera_file_exists(path))
        return itera_fail(
            ITERA_ERR_ARGUMENT,
            "%s: would be replaced; choose another directory, or replace it (--force)", path);
    return ITERA_OK;
}

/* ---- model and data -------------------------------------------------------------------------- */

/* The tokenizer's specification when none is given: as large as the configuration's vocabulary. */
static enum itera_status default_tokenizer(struct itera_trainer *t)
{
    struct itera_train_options *o = &t->options;
    struct itera_config config;
    enum itera_status status =
        o->config ? itera_config_load(o->config, &config) : itera_config_preset(o->preset, &config);
    if (status)
        return status;
    /* BPE needs its 256 bytes, the end-of-text token, and merges worth the name. */
    o->tokenizer =
        config.vocab < 512 ? "byte" : itera_arena_printf(t->arena, "bpe:%d", config.vocab);
    return o->tokenizer ? ITERA_OK : itera_fail(ITERA_ERR_MEMORY, "training: no memory");
}

/* The tokenizer that the model is to get; NULL: it brings one, as a loaded model and a teacher
 * do. */
static enum itera_status create_tokenizer(struct itera_trainer *t,
                                          const struct itera_corpus *corpus,
                                          struct itera_tokenizer **out)
{
    struct itera_train_options *o = &t->options;
    const struct itera_model *source = t->model ? t->model : t->teacher;
    const char *path = !t->model ? o->teacher : o->init ? o->init : "the model to start from";
    if (t->model && t->teacher && !itera_model_tokenizer(source)) {
        source = t->teacher;
        path = o->teacher;
    }
    const struct itera_tokenizer *theirs = source ? itera_model_tokenizer(source) : NULL;
    if (theirs && o->tokenizer)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s: brings its own tokenizer; its weights mean nothing with another",
                          path);
    if (source && !theirs && !o->tokenizer)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s: has no tokenizer; name the file of the one it was trained with",
                          path);
    if (theirs && source == t->model)
        return ITERA_OK;
    if (theirs)
        return itera_tokenizer_copy(theirs, path, out);
    enum itera_status status = o->tokenizer ? ITERA_OK : default_tokenizer(t);
    return status ? status : itera_tokenizer_create(o->tokenizer, corpus, out);
}

static enum itera_status create_model(struct itera_trainer *t, const struct itera_corpus *corpus)
{
    struct itera_train_options *o = &t->options;
    struct itera_tokenizer *tokenizer = NULL;
    enum itera_status status = ITERA_OK;
    if (o->init)
        status = itera_model_load_as(t->device, o->init,
                                     &(struct itera_load_options){.expand = true}, &t->model);
    else if (!t->model && !o->config && !o->preset)
        o->preset = "micro";
    if (!status && o->config && !itera_file_exists(o->config)) {
        /* Never a preset of that name. */
        struct itera_config config;
        status = itera_config_load(o->config, &config);
    }
    if (!status)
        status = create_tokenizer(t, corpus, &tokenizer);
    if (!status && !t->model) {
        /* Models may have more rows than their tokenizer has tokens. */
        const struct itera_model_options options = {
            .vocab = t->teacher ? t->teacher->config.vocab : itera_tokenizer_vocab_size(tokenizer),
            .positions = (int32_t)o->positions,
            .seed = o->seed};
        status =
            itera_model_create(t->device, o->config ? o->config : o->preset, &options, &t->model);
    }
    if (!status && tokenizer)
        status = itera_model_set_tokenizer(t->model, tokenizer);
    if (status) {
        itera_tokenizer_destroy(&tokenizer);
        return status;
    }
    struct itera_config *c = &t->model->config;
    if (o->dropout >= 0)
        c->dropout = o->dropout;
    if (o->aux_weight >= 0 && c->experts)
        c->aux_weight = o->aux_weight;
    o->dropout = c->dropout;
    o->aux_weight = c->experts ? c->aux_weight : o->aux_weight;
    return ITERA_OK;
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

enum itera_status itera_train_check_positions(int64_t seq, int32_t positions)
{
    if (!positions || seq <= positions)
        return ITERA_OK;
    return itera_fail(ITERA_ERR_ARGUMENT,
                      "training: sequences of %lld tokens are longer than the model's %d "
                      "positions; use --seq %d or less, or a model with more positions",
                      (long long)seq, positions, positions);
}

/* Data sets, programs and what else follows from options and model. */
static enum itera_status set_up(struct itera_trainer *t, const struct itera_corpus *corpus)
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

/* ---- the plan -------------------------------------------------------------------------------- */

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
        status = itera_train_program_step(&t->program, &t->options, 0, i, t->data, NULL);
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

static enum itera_status make_plan(struct itera_trainer *t)
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

/* ---- creating and resuming ------------------------------------------------------------------- */

static void start_clocks(struct itera_trainer *t)
{
    t->saved = itera_seconds();
    t->saved_step = t->logged = t->told_step = t->step;
    t->told_skipped = t->skipped;
    t->last.step = t->step;
    t->last.best_step = t->best_step;
}

/* Takes *model over (NULL: the options say which). The options are filled in. */
static enum itera_status create(struct itera_device *device, struct itera_model **model,
                                const struct itera_train_options *options,
                                struct itera_trainer **out)
{
    *out = NULL;
    struct itera_trainer *t = NULL;
    struct itera_corpus *corpus = NULL;
    enum itera_status status = check_options(options);
    if (!status)
        status = create_bare(device, &t);
    if (status)
        return status;
    if (model) {
        t->model = *model;
        *model = NULL;
    }
    t->options = *options;
    if (!t->options.data)
        t->options.data = "builtin:stories";
    if (!t->options.valid && strcmp(t->options.data, "builtin:stories") == 0)
        t->options.valid = "builtin:stories?valid";
    else if (t->options.valid && !*t->options.valid)
        t->options.valid = NULL;
    status = keep_strings(t);
    if (!status)
        status = claim_directory(t);
    if (!status)
        status = itera_train_teacher_open(t);
    if (!status)
        status = itera_corpus_open(t->options.data, &corpus);
    if (!status)
        status = create_model(t, corpus);
    if (!status)
        status = set_up(t, corpus);
    itera_corpus_destroy(&corpus);
    /* What the student is to be compared with. */
    if (!status && t->teacher && t->valid)
        status = itera_train_program_evaluate(&t->program, NULL, t->valid,
                                              itera_train_eval_batches(t), &t->last.teacher_loss);
    if (!status)
        status = make_plan(t);
    if (!status)
        status = check_length(&t->options, t->plan.steps);
    if (!status && t->options.directory) {
        t->data_hash = itera_train_dataset_hash(t->data);
        t->valid_hash = t->valid ? itera_train_dataset_hash(t->valid) : 0;
        if (t->teacher)
            status = itera_train_files_hash(t->options.teacher, &t->teacher_hash);
        if (!status)
            status = itera_train_log_open(t, 0);
        if (!status && isfinite(t->last.teacher_loss))
            status = itera_train_log_teacher(t);
    }
    if (!status) {
        start_clocks(t);
        /* So that there is something to resume from the first moment on. */
        status = itera_trainer_save(t);
    }
    if (status)
        itera_trainer_destroy(&t);
    *out = t;
    return status;
}

enum itera_status itera_trainer_create(struct itera_device *device,
                                       const struct itera_train_options *options,
                                       struct itera_trainer **out)
{
    const struct itera_train_options filled = itera_train_options_fill(options);
    return create(device, NULL, &filled, out);
}

enum itera_status itera_trainer_create_filled(struct itera_device *device,
                                              const struct itera_train_options *filled,
                                              struct itera_trainer **out)
{
    return create(device, NULL, filled, out);
}

enum itera_status itera_trainer_create_from(struct itera_model **model,
                                            const struct itera_train_options *options,
                                            struct itera_trainer **out)
{
    *out = NULL;
    enum itera_status status = ITERA_OK;
    const struct itera_model *m = *model;
    const struct itera_train_options filled = itera_train_options_fill(options);
    if (filled.init || filled.config || filled.preset)
        status = itera_fail(ITERA_ERR_ARGUMENT,
                            "training: a model is given, and init, config or preset name another");
    else if (m->layout.bytes != m->layout.elements * 4)
        status = itera_fail(ITERA_ERR_UNSUPPORTED,
                            "training: the weights of the model to start from are not all f32");
    if (!status)
        status = create(m->device, model, &filled, out);
    itera_model_destroy(model);
    return status;
}

static enum itera_status check_same_data(const struct itera_dataset *data, const char *source,
                                         uint64_t hash)
{
    if (!data || itera_train_dataset_hash(data) == hash)
        return ITERA_OK;
    return itera_fail(ITERA_ERR_FORMAT,
                      "%s: is not the text that the run began with, so it cannot go on with it; "
                      "start another run from its model (--init)",
                      source);
}

/* Loads it, too. */
static enum itera_status open_same_teacher(struct itera_trainer *t)
{
    const char *path = t->options.teacher;
    uint64_t hash;
    if (!path)
        return ITERA_OK;
    enum itera_status status = itera_train_files_hash(path, &hash);
    if (!status && hash != t->teacher_hash)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: is not the teacher that the run began with, so it cannot go on with "
                          "it; start another run from its model (--init)",
                          path);
    return status ? status : itera_train_teacher_open(t);
}

/* Whether what state.json says can have come from a run. */
static bool state_fits(const struct itera_trainer *t)
{
    const struct itera_train_options *o = &t->options;
    const struct itera_train_plan *plan = &t->plan;
    return o->data && plan->warmup <= plan->steps && t->step <= plan->steps &&
           (plan->from_step <= plan->warmup || plan->from_step <= t->step) &&
           t->best_step <= t->step && t->skipped <= t->step && t->skipped_in_a_row <= t->skipped &&
           (!o->valid || o->eval_every);
}

/* Removes the checkpoint before the one that was read, which a killed save left. */
static enum itera_status remove_older(const char *directory, const char *read)
{
    char older[4096];
    enum itera_status status = itera_path_join(older, sizeof older, directory, "checkpoint.old");
    return status || strcmp(older, read) == 0 ? status : itera_remove_tree(older);
}

enum itera_status itera_trainer_resume(struct itera_device *device, const char *directory,
                                       const struct itera_train_changes *changes,
                                       struct itera_trainer **out)
{
    *out = NULL;
    char folder[4096], path[4096];
    bool found;
    enum itera_status status =
        itera_train_checkpoint_find(directory, folder, sizeof folder, &found);
    if (!status && !found)
        status = itera_fail(ITERA_ERR_ARGUMENT, "%s: has no checkpoint to resume from", directory);
    struct itera_trainer *t = NULL;
    if (!status)
        status = create_bare(device, &t);
    if (status)
        return status;
    struct itera_train_options *o = &t->options;
    status = itera_train_checkpoint_read_state(t, folder);
    o->directory = directory;
    if (!status && changes) {
        o->data = changes->data ? changes->data : o->data;
        o->valid = changes->valid && *changes->valid && o->valid ? changes->valid : o->valid;
        o->teacher = changes->teacher && o->teacher ? changes->teacher : o->teacher;
        o->max_minutes = changes->max_minutes > 0 ? changes->max_minutes : o->max_minutes;
        o->save_every = changes->save_every > 0 ? changes->save_every : o->save_every;
    }
    if (!status)
        status = keep_strings(t);
    if (!status)
        status = check_options(o);
    if (!status)
        status = check_length(&t->options, t->plan.steps);
    if (!status && !state_fits(t))
        status =
            itera_fail(ITERA_ERR_FORMAT, "%s/state.json: its values do not fit together", folder);
    /* A run that the clock stopped may have got more time. */
    if (!status && t->finish && strcmp(t->finish, ITERA_TRAIN_TIME_UP) == 0 && !t->timed)
        t->finish = NULL;
    /* The lock comes before anything that takes long. */
    if (!status)
        status = itera_train_log_open(t, t->log_bytes);
    if (!status)
        status = itera_path_join(path, sizeof path, folder, "model.safetensors");
    if (!status)
        status = itera_model_load_as(device, path, &(struct itera_load_options){.expand = true},
                                     &t->model);
    if (!status && !itera_model_tokenizer(t->model))
        status = itera_fail(ITERA_ERR_FORMAT, "%s: its tokenizer is missing", path);
    if (!status)
        status = open_same_teacher(t);
    if (!status)
        status = set_up(t, NULL);
    if (!status)
        status = check_same_data(t->data, o->data, t->data_hash);
    if (!status)
        status = check_same_data(t->valid, o->valid, t->valid_hash);
    if (!status)
        status = itera_train_checkpoint_read_moments(t, folder);
    /* Last, as what is wrong with a file alone says more. */
    if (!status)
        status = itera_train_checkpoint_check_files(t, folder);
    if (!status)
        status = remove_older(directory, folder);
    if (!status)
        start_clocks(t);
    else
        itera_trainer_destroy(&t);
    *out = t;
    return status;
}
