#include "shrink.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "itera/trainer.h"
#include "output.h"
#include "progress.h"

struct itera_dataset *shrink_encode(const struct itera_model *model, const char *source)
{
    const struct itera_tokenizer *tokenizer = itera_model_tokenizer(model);
    struct itera_corpus *corpus = NULL;
    struct itera_dataset *dataset = NULL;
    if (!tokenizer)
        command_error("the model has no tokenizer: text means nothing to it");
    else if (!itera_corpus_open(source, &corpus))
        itera_dataset_create(corpus, tokenizer, &dataset);
    itera_corpus_destroy(&corpus);
    return dataset;
}

struct score_progress {
    const char *what;
    bool started;
};

static int on_score(void *user, uint64_t done, uint64_t total, double nll)
{
    struct score_progress *p = user;
    if (!p->started)
        progress_start(p->what, "tok", (double)total);
    p->started = true;
    progress_update((double)done, "nll %.4f", nll);
    return 0;
}

int shrink_score(struct itera_model *model, const char *source, int64_t tokens, const char *what,
                 struct itera_eval_result *result)
{
    struct itera_dataset *dataset = shrink_encode(model, source);
    if (!dataset)
        return EXIT_FAILED;
    struct score_progress progress = {.what = what};
    const struct itera_eval_options options = {
        .tokens = (uint64_t)tokens, .progress = on_score, .user = &progress};
    enum itera_status status = itera_evaluate(model, dataset, &options, result);
    progress_finish(0);
    itera_dataset_destroy(&dataset);
    return status ? EXIT_FAILED : EXIT_OK;
}

void shrink_print_scores(const struct shrink_score *scores, int n, const char *source)
{
    static const char *const titles[] = {"", "tokens", "nats/token", "perplexity/word",
                                         "bits/byte"};
    struct table *table = table_create(5, titles, "lrrrr");
    for (int i = 0; i < n; i++) {
        table_cell(table, "%s", scores[i].what);
        table_cell(table, "%llu", (unsigned long long)scores[i].result->tokens);
        table_cell(table, "%.4f", scores[i].result->nll);
        table_cell(table, "%.3f", scores[i].result->word_perplexity);
        table_cell(table, "%.4f", scores[i].result->bits_per_byte);
    }
    printf("\non %s\n", source);
    table_print(table);
    table_destroy(&table);
}

json_t *shrink_score_json(const struct itera_eval_result *r)
{
    return json_pack("{s:I, s:o, s:o, s:o, s:o}", "tokens", (json_int_t)r->tokens, "nll",
                     output_number(r->nll), "perplexity", output_number(r->perplexity),
                     "word_perplexity", output_number(r->word_perplexity), "bits_per_byte",
                     output_number(r->bits_per_byte));
}

/* ---- fine-tuning ----------------------------------------------------------------------------- */

static volatile sig_atomic_t stop_signal;

static void on_signal(int signal_number)
{
    stop_signal = signal_number;
}

/* The first signal ends the training after its step, the second one the command at once. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static enum itera_status train(struct itera_trainer *trainer, struct itera_train_report *report)
{
    const struct itera_train_options *o = itera_trainer_options(trainer);
    const double step_tokens = (double)(o->batch * o->seq);
    enum itera_status status = ITERA_OK;
    itera_trainer_report(trainer, report);
    progress_start("finetune", "tok", (double)report->steps * step_tokens);
    while (!(report->events & ITERA_TRAIN_FINISHED) && !stop_signal && !status) {
        status = itera_trainer_step(trainer, report);
        if (!status && report->events & ITERA_TRAIN_EVALUATED)
            progress_line("step %lld: validation loss %.4f", (long long)report->step,
                          report->valid_loss);
        if (isfinite(report->loss))
            progress_update((double)report->tokens, "loss %.3f", report->loss);
    }
    progress_finish(!status && !stop_signal);
    return status;
}

/* The best model of a run directory, where there is one, into path; else the trainer's last. */
static enum itera_status keep_result(struct itera_device *device, struct itera_trainer *trainer,
                                     const struct itera_train_report *report, const char *run,
                                     const char *path)
{
    char best[4096 + 32];
    struct itera_model *model = NULL;
    if (!run || !(report->events & ITERA_TRAIN_FINISHED)) {
        enum itera_status status = run ? itera_trainer_save(trainer) : ITERA_OK;
        return status ? status : itera_model_save(itera_trainer_model(trainer), path);
    }
    snprintf(best, sizeof best, "%s/model.safetensors", run);
    enum itera_status status = itera_model_load(device, best, &model);
    if (!status)
        status = itera_model_save(model, path);
    itera_model_destroy(&model);
    return status;
}

int shrink_finetune(struct itera_device *device, const struct finetune_request *request,
                    int32_t positions, const char *valid, const char *path,
                    struct finetune_result *result)
{
    struct itera_train_options options;
    itera_train_options_default(&options);
    options.init = path;
    options.data = request->data;
    options.valid = request->run && valid ? valid : "";
    options.directory = request->run;
    options.batch = request->batch;
    options.seq = request->seq                           ? request->seq
                  : positions && positions < options.seq ? positions
                                                         : options.seq;
    options.steps = request->steps;
    options.lr = request->lr;
    options.seed = (uint64_t)request->seed;
    struct itera_trainer *trainer = NULL;
    struct itera_train_report report = {0};
    if (itera_trainer_create(device, &options, &trainer))
        return EXIT_FAILED;
    catch_signals();
    enum itera_status status = train(trainer, &report);
    if (!status)
        status = keep_result(device, trainer, &report, request->run, path);
    *result = (struct finetune_result){.steps = report.step,
                                       .tokens = report.tokens,
                                       .loss = report.loss,
                                       .seconds = report.seconds,
                                       .stopped = !(report.events & ITERA_TRAIN_FINISHED)};
    if (!status && result->stopped)
        progress_line("itera: stopped at step %lld of %lld; %s has what was learnt until then",
                      (long long)report.step, (long long)report.steps, path);
    itera_trainer_destroy(&trainer);
    return status ? EXIT_FAILED : EXIT_OK;
}

json_t *shrink_finetune_json(const struct finetune_request *request,
                             const struct finetune_result *r)
{
    return json_pack("{s:s, s:I, s:I, s:o, s:o, s:o, s:b}", "data", request->data, "steps",
                     (json_int_t)r->steps, "tokens", (json_int_t)r->tokens, "lr",
                     output_number(request->lr), "loss", output_number(r->loss), "seconds",
                     output_number(r->seconds), "stopped", r->stopped);
}
