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

/* With a progress bar named after the model. */
static int score(const struct shrink_request *r, struct itera_model *model, const char *name,
                 struct itera_eval_result *result)
{
    char what[64];
    snprintf(what, sizeof what, "score %s", name);
    struct itera_dataset *dataset = shrink_encode(model, r->valid);
    if (!dataset)
        return EXIT_FAILED;
    enum itera_status status = quality_evaluate(model, dataset, r->eval_tokens, what, result);
    itera_dataset_destroy(&dataset);
    return status ? EXIT_FAILED : EXIT_OK;
}

static void score_row(struct table *table, const char *name, const struct itera_eval_result *result)
{
    table_cell(table, "%s", name);
    table_cell(table, "%llu", (unsigned long long)result->tokens);
    table_cell(table, "%.4f", result->nll);
    table_cell(table, "%.3f", result->word_perplexity);
    table_cell(table, "%.4f", result->bits_per_byte);
}

static void print_scores(const struct shrink_request *r, const char *smaller,
                         const struct shrink_result *o)
{
    static const char *const titles[] = {"", "tokens", "nats/token", "perplexity/word",
                                         "bits/byte"};
    struct table *table = table_create(5, titles, "lrrrr");
    score_row(table, "original", &o->before);
    score_row(table, smaller, &o->smaller);
    if (r->finetune.steps)
        score_row(table, "fine-tuned", &o->finetuned);
    printf("\non %s\n", r->valid);
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

/* Whether the run directory, where one was asked for, is free. */
static int check_run(const struct finetune_request *request)
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

/* Trains the model (of so many positions; 0: no limit), which is gone afterwards, and writes the
 * result to r->out. With a run directory the text to validate on chooses the best model. */
static int finetune(const struct shrink_request *r, struct itera_device *device,
                    struct itera_model **model, int32_t positions, struct finetune_result *result)
{
    enum { SEQ = 128 }; /* the library's default */
    const struct finetune_request *request = &r->finetune;
    struct itera_train_options options = {0};
    options.data = request->data;
    options.valid = request->run && r->valid ? r->valid : "";
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
    int code = train_walk(trainer, "finetune", NULL, &report);
    if (code == EXIT_OK && keep_result(device, trainer, &report, request->run, r->out))
        code = EXIT_FAILED;
    *result = (struct finetune_result){.steps = report.step,
                                       .tokens = report.tokens,
                                       .loss = report.loss,
                                       .seconds = report.seconds,
                                       .stopped = !report.finish};
    if (code == EXIT_OK && result->stopped)
        command_note("stopped at step %lld of %lld; %s has what was learnt until then",
                     (long long)report.step, (long long)report.steps, r->out);
    itera_trainer_destroy(&trainer);
    return code;
}

/* The same, and its score. */
static int finetune_and_score(const struct shrink_request *r, struct itera_device *device,
                              struct itera_model **smaller, int32_t positions,
                              struct shrink_result *o)
{
    struct itera_model *model = NULL;
    int code = finetune(r, device, smaller, positions, &o->finetune);
    if (code != EXIT_OK || !r->valid)
        return code;
    if (itera_model_load(device, r->out, &model))
        return EXIT_FAILED;
    code = score(r, model, "fine-tuned", &o->finetuned);
    itera_model_destroy(&model);
    return code;
}

static json_t *finetune_json(const struct finetune_request *request,
                             const struct finetune_result *r)
{
    return json_pack("{s:o, s:I, s:I, s:o, s:o, s:o, s:b}", "data", output_path(request->data),
                     "steps", (json_int_t)r->steps, "tokens", (json_int_t)r->tokens, "lr",
                     output_number(request->lr), "loss", output_number(r->loss), "seconds",
                     output_number(r->seconds), "stopped", r->stopped);
}

/* ---- a command ------------------------------------------------------------------------------- */

static int write_json(const struct shrink_request *r, json_t *root, const struct shrink_result *o,
                      const struct itera_device *device)
{
    if (r->valid) {
        json_t *quality =
            json_pack("{s:o, s:o, s:o}", "data", output_path(r->valid), "before",
                      quality_result_json(&o->before), "after", quality_result_json(&o->smaller));
        if (r->finetune.steps)
            json_object_set_new(quality, "finetuned", quality_result_json(&o->finetuned));
        json_object_set_new(root, "quality", quality);
    }
    if (r->finetune.steps)
        json_object_set_new(root, "finetune", finetune_json(&r->finetune, &o->finetune));
    json_object_set_new(root, "device", json_string(itera_device_info(device)->id));
    json_object_set_new(root, "fallback_ops", device_fallback_json(device));
    return output_json(root, r->json.value);
}

static int report(const struct shrink_request *r, const struct shrink_command *command,
                  const void *user, const struct shrink_result *o,
                  const struct itera_device *device)
{
    if (!output_on_stdout(&r->json)) {
        command->print(user);
        if (r->valid)
            print_scores(r, command->smaller, o);
        if (r->valid && command->print_after_scores)
            command->print_after_scores(user);
        printf("\nwrote %s\n", r->out);
    }
    if (!r->json.given)
        return EXIT_OK;
    json_t *root = command->json(user);
    const int code = write_json(r, root, o, device);
    json_decref(root);
    return code;
}

static int make_smaller(const struct shrink_request *r, const struct shrink_command *command,
                        void *user, struct itera_device *device)
{
    struct itera_model *model = NULL, *smaller = NULL;
    struct shrink_result o = {0};
    if (itera_model_load(device, r->model, &model))
        return EXIT_FAILED;
    int code = command->make(user, model, &smaller);
    if (code == EXIT_OK && !r->finetune.steps && itera_model_save(smaller, r->out))
        code = EXIT_FAILED;
    if (code == EXIT_OK && r->valid)
        code = score(r, model, "original", &o.before);
    if (code == EXIT_OK && r->valid)
        code = score(r, smaller, command->smaller, &o.smaller);
    const int32_t positions = itera_model_info(model)->max_positions;
    itera_model_destroy(&model); /* its memory is the trainer's */
    if (code == EXIT_OK && r->finetune.steps)
        code = finetune_and_score(r, device, &smaller, positions, &o);
    itera_model_destroy(&smaller);
    return code == EXIT_OK ? report(r, command, user, &o, device) : code;
}

int shrink_run(const struct shrink_request *r, const struct shrink_command *command, void *user)
{
    struct itera_device *device = NULL;
    /* Known before hours of work. */
    int code = output_json_check(r->json.value);
    if (code == EXIT_OK)
        code = output_model_check(r->out, r->force);
    if (code == EXIT_OK)
        code = check_run(&r->finetune);
    if (code == EXIT_OK && device_open(&r->device, &device))
        code = EXIT_FAILED;
    if (code == EXIT_OK)
        code = make_smaller(r, command, user, device);
    device_report_fallback(device);
    itera_device_close(&device);
    return code;
}
