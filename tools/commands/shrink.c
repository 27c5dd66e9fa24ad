#include "commands/shrink.h"

#include <stdio.h>

#include "cli/command.h"
#include "cli/output.h"
#include "commands/quality.h"
#include "commands/train_run.h"
#include "itera/trainer.h"

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

int shrink_score(struct itera_model *model, const char *source, int64_t tokens, const char *what,
                 struct itera_eval_result *result)
{
    struct itera_dataset *dataset = shrink_encode(model, source);
    if (!dataset)
        return EXIT_FAILED;
    enum itera_status status = quality_evaluate(model, dataset, tokens, what, result);
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

/* ---- fine-tuning ----------------------------------------------------------------------------- */

const char *shrink_finetune_unused(const struct finetune_request *request)
{
    static const struct finetune_request none = FINETUNE_DEFAULT;
    if (request->steps)
        return NULL;
    return request->run                   ? "run"
           : request->lr != none.lr       ? "lr"
           : request->batch != none.batch ? "batch"
           : request->seq != none.seq     ? "seq"
           : request->seed != none.seed   ? "seed"
                                          : NULL;
}

int shrink_finetune_check(const struct finetune_request *request)
{
    if (!request->run || !itera_trainer_can_resume(request->run))
        return EXIT_OK;
    command_error("%s: has a training run already; choose another directory for --run",
                  request->run);
    return EXIT_FAILED;
}

/* The best model of a run directory, where there is one, into path; else the trainer's last. */
static enum itera_status keep_result(struct itera_device *device, struct itera_trainer *trainer,
                                     const struct itera_train_report *report, const char *run,
                                     const char *path)
{
    char best[4096 + 32];
    struct itera_model *model = NULL;
    if (!run || !report->finish) {
        enum itera_status status = itera_trainer_save(trainer);
        return status ? status : itera_model_save(itera_trainer_model(trainer), path);
    }
    snprintf(best, sizeof best, "%s/model.safetensors", run);
    enum itera_status status = itera_model_load(device, best, &model);
    if (!status)
        status = itera_model_save(model, path);
    itera_model_destroy(&model);
    return status;
}

int shrink_finetune(struct itera_device *device, struct itera_model **model,
                    const struct finetune_request *request, int32_t positions, const char *valid,
                    const char *path, struct finetune_result *result)
{
    enum { SEQ = 128 }; /* the library's default */
    struct itera_train_options options = {0};
    options.data = request->data;
    options.valid = request->run && valid ? valid : "";
    options.directory = request->run;
    options.batch = request->batch;
    options.seq = request->seq ? request->seq : positions && positions < SEQ ? positions : SEQ;
    options.steps = request->steps;
    options.lr = request->lr;
    options.seed = (uint64_t)request->seed;
    struct itera_trainer *trainer = NULL;
    struct itera_train_report report = {0};
    if (itera_trainer_create_from(model, &options, &trainer))
        return EXIT_FAILED;
    int code = train_walk(trainer, "finetune", &report);
    if (code == EXIT_OK && keep_result(device, trainer, &report, request->run, path))
        code = EXIT_FAILED;
    *result = (struct finetune_result){.steps = report.step,
                                       .tokens = report.tokens,
                                       .loss = report.loss,
                                       .seconds = report.seconds,
                                       .stopped = !report.finish};
    if (code == EXIT_OK && result->stopped)
        command_note("stopped at step %lld of %lld; %s has what was learnt until then",
                     (long long)report.step, (long long)report.steps, path);
    itera_trainer_destroy(&trainer);
    return code;
}

json_t *shrink_finetune_json(const struct finetune_request *request,
                             const struct finetune_result *r)
{
    return json_pack("{s:o, s:I, s:I, s:o, s:o, s:o, s:b}", "data", output_path(request->data),
                     "steps", (json_int_t)r->steps, "tokens", (json_int_t)r->tokens, "lr",
                     output_number(request->lr), "loss", output_number(r->loss), "seconds",
                     output_number(r->seconds), "stopped", r->stopped);
}
