/* The options of a training run, the walk through it, and what is said of it. */
#include "commands/train_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/stop.h"
#include "cli/terminal.h"
#include "itera/session.h"

/* ---- options --------------------------------------------------------------------------------- */

static const char *text_or(const char *text, const char *absent)
{
    return text ? text : absent;
}

const char *train_arguments_changed(const struct train_arguments *a,
                                    const struct itera_train_options *was)
{
    const struct itera_train_options *now = &a->train;
#define TEXT(name, option)                                                                         \
    if (a->given.name && strcmp(text_or(was->name, ""), text_or(now->name, "")) != 0)              \
    return option
#define NUMBER(name, option)                                                                       \
    if (a->given.name && !(was->name == now->name))                                                \
    return option
    /* Where the library takes 0 for the default, and less than 0 for 0. */
#define OR_ZERO(name, option)                                                                      \
    if (a->given.name && !(was->name == (now->name < 0 ? 0 : now->name)))                          \
    return option
    TEXT(preset, "preset");
    TEXT(config, "config");
    TEXT(init, "init");
    TEXT(tokenizer, "tokenizer");
    NUMBER(batch, "batch");
    NUMBER(seq, "seq");
    NUMBER(accumulate, "accumulate");
    NUMBER(steps, "steps");
    NUMBER(epochs, "epochs");
    NUMBER(schedule, "schedule");
    NUMBER(precision, "precision");
    OR_ZERO(min_lr, "min-lr");
    OR_ZERO(warmup, "warmup");
    OR_ZERO(beta1, "beta1");
    OR_ZERO(beta2, "beta2");
    NUMBER(eps, "eps");
    OR_ZERO(weight_decay, "weight-decay");
    OR_ZERO(clip, "clip");
    OR_ZERO(dropout, "dropout");
    OR_ZERO(aux_weight, "aux-weight");
    NUMBER(positions, "positions");
    NUMBER(seed, "seed");
    NUMBER(log_every, "log-every");
    OR_ZERO(eval_tokens, "eval-tokens");
    NUMBER(patience, "patience");
    /* 0 asks for a default, which the run has filled in. */
    if (now->lr > 0)
        NUMBER(lr, "lr");
    if (now->eval_every > 0)
        NUMBER(eval_every, "eval-every");
#undef TEXT
#undef NUMBER
#undef OR_ZERO
    return NULL;
}

struct itera_train_changes train_arguments_changes(const struct train_arguments *a)
{
    return (struct itera_train_changes){.data = a->train.data,
                                        .valid = a->train.valid,
                                        .teacher = a->train.teacher,
                                        .max_minutes = a->train.max_minutes,
                                        .save_every = a->train.save_every};
}

int train_refuse_change(const char *command, const char *option, const struct train_arguments *a)
{
    command_error("%s: --%s is not what the run in %s began with; leave it out to go on as it was, "
                  "or start another run (--init)",
                  command, option, a->out);
    return EXIT_FAILED;
}

void train_arguments_options(struct train_arguments *a, struct command_option *rows)
{
    struct itera_train_options *t = &a->train;
    t->hold_out = true;
    a->schedule = "cosine";
    a->precision = "f32";
    const struct command_option options[] = {
        {"preset", 0, OPTION_INPUT, &t->preset, "P",
         "the model, one of those below (default micro)", 0, 0, NULL, &a->given.preset},
        {"config", 0, OPTION_INPUT, &t->config, "F", "the model, as a configuration in JSON", 0, 0,
         NULL, &a->given.config},
        {"init", 0, OPTION_INPUT, &t->init, "MODEL",
         "start from this model's weights, with its tokenizer", 0, 0, NULL, &a->given.init},
        {"data", 0, OPTION_INPUT, &t->data, "SRC",
         "text to train on: a file, a folder of *.txt, a comma list,\n"
         "or builtin:stories (default)",
         0, 0, NULL, &a->given.data},
        {"valid", 0, OPTION_INPUT, &t->valid, "SRC",
         "text to validate on, or none (default: a twentieth of the\n"
         "data, set aside; of builtin:stories the held-out part)",
         0, 0, NULL, &a->given.valid},
        {"tokenizer", 0, OPTION_INPUT, &t->tokenizer, "T",
         "byte, char, word:N, bpe:N (made from the data) or a file\n"
         "(default: bpe of the model's vocabulary)",
         0, 0, NULL, &a->given.tokenizer},
        {"out", 'o', OPTION_FOLDER, &a->out, "DIR",
         "the run's directory: model.safetensors, train.jsonl, checkpoint/", 0, 0, NULL, NULL},
        {"resume", 0, OPTION_FLAG, &a->resume, NULL,
         "go on from DIR/checkpoint; only --out is needed then.\n--steps N makes the run longer or "
         "shorter",
         0, 0, NULL, NULL},
        {"force", 0, OPTION_FLAG, &a->force, NULL, "replace a run that is in DIR", 0, 0, NULL,
         NULL},
        {"options", 0, OPTION_SETTINGS, &a->settings, "FILE",
         "options in JSON, such as another run's DIR/options.json;\nthe command line goes before "
         "them",
         0, 0, NULL, NULL},
        {"steps", 0, OPTION_INTEGER, &t->steps, "N", "optimiser steps (default 1000)", 1, 1e12,
         NULL, &a->given.steps},
        {"epochs", 0, OPTION_NUMBER, &t->epochs, "N", "passes over the data, instead of --steps",
         1e-6, 1e5, NULL, &a->given.epochs},
        {"max-minutes", 0, OPTION_NUMBER, &t->max_minutes, "M",
         "stop after M minutes; without --steps and --epochs the\n"
         "schedule is fitted to end then",
         1e-3, 1e6, NULL, &a->given.max_minutes},
        {"batch", 0, OPTION_INTEGER, &t->batch, "B", "sequences in a batch (default 8)", 1, 65536,
         NULL, &a->given.batch},
        {"seq", 0, OPTION_INTEGER, &t->seq, "T", "tokens in a sequence (default 128)", 1, 1048576,
         NULL, &a->given.seq},
        {"accumulate", 0, OPTION_INTEGER, &t->accumulate, "N", "batches in a step (default 1)", 1,
         65536, NULL, &a->given.accumulate},
        {"lr", 0, OPTION_NUMBER, &t->lr, "X",
         "highest learning rate (default 3e-3, smaller above 3M\nparameters)", 0, 10, NULL,
         &a->given.lr},
        {"min-lr", 0, OPTION_NUMBER, &t->min_lr, "X",
         "learning rate at the end, as a fraction of --lr (default 0.1)", 0, 1, NULL,
         &a->given.min_lr},
        {"warmup", 0, OPTION_INTEGER, &t->warmup, "N",
         "steps of rising rate (default: 5% of all, at most 200)", 0, 1e12, NULL, &a->given.warmup},
        {"schedule", 0, OPTION_CHOICE, &a->schedule, "S",
         "cosine (default), linear or constant after the warm-up", 0, 0, "cosine|constant|linear",
         &a->given.schedule},
        {"precision", 0, OPTION_CHOICE, &a->precision, "P",
         "f32 (default), or f16: mixed, with f32 weights, sums and\noptimiser, and a loss scale", 0,
         0, "f32|f16", &a->given.precision},
        {"beta1", 0, OPTION_NUMBER, &t->beta1, "X", "AdamW: decay of m (default 0.9)", 0, 0.99999,
         NULL, &a->given.beta1},
        {"beta2", 0, OPTION_NUMBER, &t->beta2, "X", "AdamW: decay of v (default 0.95)", 0,
         0.9999999, NULL, &a->given.beta2},
        {"eps", 0, OPTION_NUMBER, &t->eps, "X", "AdamW: epsilon (default 1e-8)", 1e-30, 0.1, NULL,
         &a->given.eps},
        {"weight-decay", 0, OPTION_NUMBER, &t->weight_decay, "X",
         "AdamW: decay of matrices (default 0.1)", 0, 10, NULL, &a->given.weight_decay},
        {"clip", 0, OPTION_NUMBER, &t->clip, "X",
         "largest norm of the gradient, 0 for none (default 1)", 0, 1e9, NULL, &a->given.clip},
        {"dropout", 0, OPTION_NUMBER, &t->dropout, "P",
         "share of activations dropped (default: the model's)", 0, 0.95, NULL, &a->given.dropout},
        {"aux-weight", 0, OPTION_NUMBER, &t->aux_weight, "X",
         "weight of the experts' load-balance loss (default: the\nmodel's)", 0, 1000, NULL,
         &a->given.aux_weight},
        {"positions", 0, OPTION_INTEGER, &t->positions, "N",
         "learned positions (default: the model's)", 1, 1048576, NULL, &a->given.positions},
        {"seed", 0, OPTION_INTEGER, &a->seed, "S", "of weights, batches and dropout (default 0)", 0,
         9e18, NULL, &a->given.seed},
        {"log-every", 0, OPTION_INTEGER, &t->log_every, "N",
         "steps between lines of train.jsonl (default 10)", 1, 1e9, NULL, &a->given.log_every},
        {"eval-every", 0, OPTION_INTEGER, &t->eval_every, "N",
         "steps between validations (default: up to 10 in a run)", 0, 1e12, NULL,
         &a->given.eval_every},
        {"eval-tokens", 0, OPTION_INTEGER, &t->eval_tokens, "N",
         "validate on at most N tokens, 0 for all (default 100000)", 0, 1e15, NULL,
         &a->given.eval_tokens},
        {"patience", 0, OPTION_INTEGER, &t->patience, "N",
         "stop after N validations without a better loss (default:\nnever)", 0, 1e9, NULL,
         &a->given.patience},
        {"sample", 0, OPTION_STRING, &a->sample, "PROMPT",
         "at each validation, show what the model writes behind\n"
         "PROMPT; none for not (default: on a terminal, behind\nnothing)",
         0, 0, NULL, NULL},
        {"save-every", 0, OPTION_INTEGER, &t->save_every, "N",
         "steps between checkpoints (default: one a minute)", 0, 1e12, NULL, &a->given.save_every},
        DEVICE_OPTIONS(a->device),
        {"json", 0, OPTION_OPTIONAL, &a->json, "FILE", "write the summary as JSON", 0, 0, NULL,
         NULL},
        {0}};
    _Static_assert(sizeof options / sizeof *options <= TRAIN_OPTION_ROWS, "too many options");
    memcpy(rows, options, sizeof options);
}

int train_write_options(const struct train_arguments *a, const struct itera_trainer *trainer)
{
    struct train_arguments used = {.train = *itera_trainer_options(trainer), .device = a->device};
    struct command_option rows[TRAIN_OPTION_ROWS];
    char path[4096];
    train_arguments_options(&used, rows);
    used.schedule = itera_schedule_name(used.train.schedule);
    used.precision = itera_precision_name(used.train.precision);
    used.seed = (int64_t)used.train.seed;
    if (!used.train.valid)
        used.train.valid = "none";
    if (snprintf(path, sizeof path, "%s/options.json", a->out) >= (int)sizeof path)
        return EXIT_OK; /* no run has such a name */
    json_t *root = options_to_json(rows);
    int code = output_json(root, path);
    json_decref(root);
    return code;
}

/* For the library 0 is the default, and a negative number 0. */
static double zero_as_asked(bool given, double value)
{
    return given && value == 0 ? -1 : value;
}

static int64_t none_as_asked(bool given, int64_t count)
{
    return given && count == 0 ? -1 : count;
}

int train_arguments_finish(struct train_arguments *a, const struct command_spec *spec)
{
    struct itera_train_options *t = &a->train;
    if (!a->out)
        return options_usage(spec, "--out DIR is needed: where the run %s",
                             a->resume ? "is" : "goes");
    if (a->resume && a->force)
        return options_usage(spec, "--resume goes on with a run, --force replaces it");
    if (a->given.preset + a->given.config + a->given.init > 1)
        return options_usage(spec, "--preset, --config and --init exclude each other");
    if (a->given.steps && a->given.epochs)
        return options_usage(spec, "--steps and --epochs exclude each other");
    t->directory = a->out;
    t->overwrite = a->force;
    t->seed = (uint64_t)a->seed;
    t->min_lr = zero_as_asked(a->given.min_lr, t->min_lr);
    t->warmup = none_as_asked(a->given.warmup, t->warmup);
    t->beta1 = zero_as_asked(a->given.beta1, t->beta1);
    t->beta2 = zero_as_asked(a->given.beta2, t->beta2);
    t->weight_decay = zero_as_asked(a->given.weight_decay, t->weight_decay);
    t->clip = zero_as_asked(a->given.clip, t->clip);
    t->dropout = zero_as_asked(a->given.dropout, t->dropout);
    t->aux_weight = zero_as_asked(a->given.aux_weight, t->aux_weight);
    t->eval_tokens = none_as_asked(a->given.eval_tokens, t->eval_tokens);
    while (strcmp(a->schedule, itera_schedule_name(t->schedule)) != 0)
        t->schedule = (t->schedule + 1) % (ITERA_SCHEDULE_LINEAR + 1);
    bool half = strcmp(a->precision, itera_precision_name(ITERA_PRECISION_F16)) == 0;
    t->precision = half ? ITERA_PRECISION_F16 : ITERA_PRECISION_F32;
    /* "none" switches the default off; the library knows it as the absence of a source. */
    if (t->valid && strcmp(t->valid, "none") == 0)
        t->valid = "";
    return -1;
}

/* ---- the run --------------------------------------------------------------------------------- */

void train_introduce(const struct itera_trainer *trainer, const struct itera_device *device,
                     bool resumed)
{
    const struct itera_train_options *o = itera_trainer_options(trainer);
    const struct itera_model *model = itera_trainer_model(trainer);
    const struct itera_model_info *info = itera_model_info(model);
    const struct itera_tokenizer *tokenizer = itera_model_tokenizer(model);
    int64_t tokens, windows, valid;
    struct itera_train_report r;
    itera_trainer_data(trainer, &tokens, &windows, &valid);
    itera_trainer_report(trainer, &r);
    char threads[48] = "";
    int n = itera_device_threads(device);
    if (n)
        snprintf(threads, sizeof threads, " with %d thread%s", n, n == 1 ? "" : "s");
    progress_line("%s with %lld parameters, %s tokenizer of %d, on %s (%s)%s", info->architecture,
                  (long long)info->parameters, itera_tokenizer_kind(tokenizer),
                  itera_tokenizer_vocab_size(tokenizer), itera_device_info(device)->id,
                  itera_device_info(device)->name, threads);
    const struct itera_model *teacher = itera_trainer_teacher(trainer);
    if (teacher) {
        const int64_t student = info->parameters;
        info = itera_model_info(teacher);
        char loss[64] = "";
        if (isfinite(r.teacher_loss))
            snprintf(loss, sizeof loss, ", validation loss %.4f", r.teacher_loss);
        progress_line("taught by %s: %s with %lld parameters%s", o->teacher, info->architecture,
                      (long long)info->parameters, loss);
        if (info->parameters < student)
            command_note("the student has more parameters than its teacher, %s", o->teacher);
    }
    int64_t sequences = o->batch * o->accumulate;
    progress_line("%lld steps of %lld x %lld tokens: %.2f passes over the %lld tokens of %s",
                  (long long)r.steps, (long long)sequences, (long long)o->seq,
                  (double)(r.steps * sequences) / (double)windows, (long long)tokens, o->data);
    if (o->valid)
        progress_line("validated on %s: %lld tokens", o->valid, (long long)valid);
    else
        progress_line(
            "without validation (--valid names a text for it; of 20,000 bytes of data and "
            "more a part is set aside)");
    progress_line("in %s", o->directory ? o->directory : "memory alone");
    if (resumed)
        progress_line("resumed at step %lld", (long long)r.step);
}

/* shown: the mean training loss of late, NaN where there was none. */
static void show_evaluation(const struct itera_train_report *r, double shown)
{
    char loss[48] = "", rest[96];
    if (isfinite(shown))
        snprintf(loss, sizeof loss, "loss %.4f, ", shown);
    if (r->events & ITERA_TRAIN_IMPROVED)
        snprintf(rest, sizeof rest, "(perplexity %.2f), the best so far", exp(r->valid_loss));
    else
        snprintf(rest, sizeof rest, "(best %.4f at step %lld)", r->best_loss,
                 (long long)r->best_step);
    progress_line("step %lld of %lld: %svalidation loss %.4f %s", (long long)r->step,
                  (long long)r->steps, loss, r->valid_loss, rest);
}

const char *train_sample_prompt(const struct train_arguments *a)
{
    if (a->sample)
        return strcmp(a->sample, "none") == 0 ? NULL : a->sample;
    return terminal_messages() ? "" : NULL;
}

enum { SAMPLE_TOKENS = 48 };

/* One line, whatever lines the text has. A model whose sample fails still trains. */
static void show_sample(struct itera_trainer *trainer, const char *prompt)
{
    char *text;
    const struct itera_sampling sampling = {.temperature = 0.8F};
    if (itera_trainer_sample(trainer, prompt, SAMPLE_TOKENS, &sampling, &text))
        return;
    for (char *c = text; *c; c++)
        *c = *c == '\n' || *c == '\r' ? ' ' : *c;
    progress_line("sample: %s%s%s", prompt, *prompt ? " | " : "", text);
    free(text);
}

int train_walk(struct itera_trainer *trainer, const char *what, const char *sample,
               struct itera_train_report *r)
{
    const struct itera_train_options *o = itera_trainer_options(trainer);
    double shown = (double)NAN;
    int code = EXIT_OK, tenth = 0;
    stop_catch();
    itera_trainer_report(trainer, r);
    const double step_tokens = (double)(o->batch * o->accumulate * o->seq);
    progress_start(what, "tok", (double)r->steps * step_tokens);
    progress_begin_at((double)r->tokens);
    tenth = (int)(10 * r->step / r->steps);
    while (!(r->events & ITERA_TRAIN_FINISHED) && !stop_asked()) {
        if (itera_trainer_step(trainer, r)) {
            code = EXIT_FAILED;
            break;
        }
        /* A run that is fitted to a time changes its length. */
        progress_set_total((double)r->steps * step_tokens);
        if (r->events & ITERA_TRAIN_LOGGED)
            shown = isnan(shown) ? r->loss : 0.5 * (shown + r->loss);
        if (r->events & ITERA_TRAIN_EVALUATED) {
            show_evaluation(r, shown);
            if (sample)
                show_sample(trainer, sample);
        } else if (!o->valid && isfinite(shown) && 10 * r->step / r->steps > tenth) {
            /* Lines that stay, where no validation leaves any. */
            progress_line("step %lld of %lld: loss %.4f", (long long)r->step, (long long)r->steps,
                          shown);
            if (sample)
                show_sample(trainer, sample);
        }
        tenth = (int)(10 * r->step / r->steps);
        if (isnan(shown))
            progress_update((double)r->tokens, "step %lld/%lld", (long long)r->step,
                            (long long)r->steps);
        else
            progress_update((double)r->tokens, "step %lld/%lld, loss %.3f", (long long)r->step,
                            (long long)r->steps, shown);
    }
    progress_finish(code == EXIT_OK && !stop_asked());
    return code;
}

int train_run(struct itera_trainer *trainer, const char *command, const char *out,
              const char *sample, struct itera_train_report *r)
{
    int code = train_walk(trainer, "train", sample, r);
    if (code == EXIT_OK && !r->finish) {
        code = itera_trainer_save(trainer) ? EXIT_FAILED : EXIT_OK;
        if (code == EXIT_OK)
            command_note("stopped at step %lld and saved; go on with: itera %s --out %s "
                         "--resume",
                         (long long)r->step, command, out);
    }
    return code;
}

/* ---- the summary ----------------------------------------------------------------------------- */

json_t *train_summary_json(const char *directory, const struct itera_device *device,
                           const struct itera_trainer *trainer, const struct itera_train_report *r)
{
    char model[4096 + 32];
    snprintf(model, sizeof model, "%s/model.safetensors", directory);
    const struct itera_model_info *info = itera_model_info(itera_trainer_model(trainer));
    json_t *root =
        json_pack("{s:s, s:I, s:o, s:I, s:I, s:I, s:b, s:s?}", "architecture", info->architecture,
                  "parameters", (json_int_t)info->parameters, "model", output_path(model), "step",
                  (json_int_t)r->step, "steps", (json_int_t)r->steps, "tokens",
                  (json_int_t)r->tokens, "finished", r->finish != NULL, "finish", r->finish);
    json_object_set_new(root, "loss", output_number(r->loss));
    json_object_set_new(root, "aux_loss", output_number(r->aux_loss));
    if (itera_trainer_teacher(trainer)) {
        json_object_set_new(root, "kl_loss", output_number(r->kl_loss));
        json_object_set_new(root, "teacher_valid_loss", output_number(r->teacher_loss));
    }
    json_object_set_new(root, "valid_loss", output_number(r->valid_loss));
    json_object_set_new(root, "best_loss", output_number(r->best_loss));
    json_object_set_new(root, "best_step", json_integer(r->best_step));
    json_object_set_new(root, "max_load", output_number(r->max_load));
    json_object_set_new(root, "skipped_steps", json_integer(r->skipped));
    json_object_set_new(root, "seconds", output_number(r->seconds));
    json_object_set_new(root, "device", json_string(itera_device_info(device)->id));
    json_object_set_new(root, "fallback_ops", device_fallback_json(device));
    json_object_set_new(root, "tokens_per_second",
                        output_number((double)r->tokens / fmax(r->seconds, 1e-9)));
    return root;
}

void train_print_summary(const char *directory, const struct itera_train_report *r)
{
    printf("%lld of %lld steps, %lld tokens in %.0f s (%.0f tokens/s)", (long long)r->step,
           (long long)r->steps, (long long)r->tokens, r->seconds,
           (double)r->tokens / fmax(r->seconds, 1e-9));
    printf("%s%s\n", r->finish ? ": " : "", text_or(r->finish, ""));
    if (isfinite(r->loss))
        printf("training loss    %.4f nats per token\n", r->loss);
    if (isfinite(r->kl_loss))
        printf("distance         %.4f to the teacher (temperature^2 KL)\n", r->kl_loss);
    if (isfinite(r->best_loss))
        printf("validation loss  %.4f (perplexity %.2f) at step %lld\n", r->best_loss,
               exp(r->best_loss), (long long)r->best_step);
    if (isfinite(r->teacher_loss))
        printf("the teacher's    %.4f (perplexity %.2f)\n", r->teacher_loss, exp(r->teacher_loss));
    if (r->max_load > 0)
        printf("busiest expert   %.2f times its even share\n", r->max_load);
    if (r->skipped)
        printf("skipped steps    %lld, whose gradients were not finite\n", (long long)r->skipped);
    if (r->finish)
        printf("model            %s/model.safetensors\n\n"
               "Next: itera generate %s/model.safetensors --prompt \"Once upon a time\" -n 100\n",
               directory, directory);
}
