/* itera vocab: a model with fewer tokens. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/device_request.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "commands/quality.h"
#include "commands/shrink.h"
#include "itera/compress.h"

struct arguments {
    struct itera_vocab_options vocab;
    struct finetune_request finetune;
    struct device_request device;
    const char *model, *out, *data, *valid;
    int64_t size, retrain, eval_tokens;
    struct option_optional json;
};

/* What became of the model. Without --valid there are no scores, and no coverage of that text. */
struct outcome {
    struct itera_vocab_report report;
    struct itera_vocab_coverage data, valid;
    struct itera_eval_result before, smaller, finetuned;
    struct finetune_result finetune;
};

static int parse(int argc, char **argv, struct arguments *a, struct command_args *args)
{
    const struct command_option options[] = {
        {"out", 'o', OPTION_OUTPUT, &a->out, "FILE", "the smaller model"},
        {"data", 0, OPTION_INPUT, &a->data, "SRC",
         "text that the model is for: the tokens that it uses stay"},
        {"size", 0, OPTION_INTEGER, &a->size, "N",
         "at most N tokens: those that the text uses most (default:\nall that it uses)", 1,
         1 << 24},
        {"min-count", 0, OPTION_INTEGER, &a->vocab.min_count, "N",
         "tokens that the text uses less than N times go (default: 1)", 1, 1e15},
        {"retrain", 0, OPTION_INTEGER, &a->retrain, "N",
         "make a new tokenizer of N tokens from the text instead", 1, 1 << 24},
        {"valid", 0, OPTION_INPUT, &a->valid, "SRC",
         "held-out text to score before and after (default: none)"},
        {"eval-tokens", 0, OPTION_INTEGER, &a->eval_tokens, "N",
         "score about N tokens of --valid (default: all)", 1, 1e15},
        FINETUNE_OPTIONS(a->finetune),
        DEVICE_OPTIONS(a->device),
        {"json", 0, OPTION_OPTIONAL, &a->json, "FILE", "write JSON to FILE, or to stdout"},
        {0}};
    const struct command_spec spec = {
        .name = "vocab",
        .positional = "MODEL",
        .summary =
            "Makes a model's vocabulary smaller: keeps the tokens that a text uses, with their\n"
            "rows of embedding and head. Bytes and special tokens always stay, so that a BPE\n"
            "tokenizer can still write everything.",
        .options = options,
        .notes =
            "With --retrain, new tokens begin with the mean of the rows of the old ones that\n"
            "spell them, and want some --finetune.\n\n"
            "Example: itera vocab run/model.safetensors --data train.txt --valid valid.txt \\\n"
            "             --size 1500 -o small.safetensors",
        .min = 1,
        .max = 1};
    int code = options_parse(&spec, argc, argv, args);
    if (code >= 0)
        return code;
    const char *wrong = NULL, *unused = shrink_finetune_unused(&a->finetune);
    if (!a->out)
        wrong = "-o FILE is needed: where the smaller model goes";
    else if (!a->data)
        wrong = "--data SRC is needed: the text that the model is for";
    else if (a->retrain && (a->size || a->vocab.min_count))
        wrong = "--retrain makes new tokens; --size and --min-count choose among the old ones";
    if (wrong || unused) {
        options_free(args);
        return wrong ? options_usage(&spec, "%s", wrong)
                     : options_usage(&spec, "--%s needs --finetune", unused);
    }
    a->model = args->positional[0];
    a->vocab.size = (int32_t)a->size;
    a->vocab.retrain = (int32_t)a->retrain;
    a->finetune.data = a->data;
    return -1;
}

static double ratio(uint64_t part, uint64_t whole)
{
    return whole ? (double)part / (double)whole : (double)NAN;
}

static void print_sizes(const struct itera_vocab_report *r)
{
    char before[32], after[32];
    printf("%-12s %11s  %11s\n", "", "before", "after");
    printf("%-12s %11s  %11s  %5.1f%%\n", "tokens",
           output_grouped(r->vocab_before, before, sizeof before),
           output_grouped(r->vocab_after, after, sizeof after),
           100.0 * r->vocab_after / r->vocab_before);
    printf("%-12s %11s  %11s  %5.1f%%\n", "parameters",
           output_grouped(r->parameters_before, before, sizeof before),
           output_grouped(r->parameters_after, after, sizeof after),
           100.0 * (double)r->parameters_after / (double)r->parameters_before);
    printf("%-12s %11s  %11s  %5.1f%%\n", "weights",
           output_size(r->bytes_before, before, sizeof before),
           output_size(r->bytes_after, after, sizeof after),
           100.0 * (double)r->bytes_after / (double)r->bytes_before);
    if (r->averaged)
        printf("\n%d tokens have the row of the same old token, %d the mean of several\n", r->kept,
               r->averaged);
}

static void coverage_row(struct table *table, const char *source,
                         const struct itera_vocab_coverage *c)
{
    table_cell(table, "%s", source);
    table_cell(table, "%.4f", ratio(c->before, c->bytes));
    table_cell(table, "%.4f", ratio(c->after, c->bytes));
    table_cell(table, "%.2f%%", 100 * ratio(c->same_tokens, c->before));
    table_cell(table, "%.2f%%", 100 * ratio(c->same_bytes, c->bytes));
    table_cell(table, "%.3f%%", 100 * ratio(c->unknown_before, c->before));
    table_cell(table, "%.3f%%", 100 * ratio(c->unknown_after, c->after));
}

static void print_outcome(const struct arguments *a, const struct outcome *o)
{
    static const char *const titles[] = {"text",       "tokens/byte", "after",        "same tokens",
                                         "same bytes", "unknown",     "unknown after"};
    print_sizes(&o->report);
    printf("\nhow texts are cut: tokens per byte, and what is still the same token\n");
    struct table *table = table_create(7, titles, "lrrrrrr");
    coverage_row(table, a->data, &o->data);
    if (a->valid)
        coverage_row(table, a->valid, &o->valid);
    table_print(table);
    table_destroy(&table);
    if (a->valid) {
        const struct shrink_score scores[] = {
            {"original", &o->before}, {"smaller", &o->smaller}, {"fine-tuned", &o->finetuned}};
        shrink_print_scores(scores, a->finetune.steps ? 3 : 2, a->valid);
        if (o->valid.unknown_after > o->valid.unknown_before)
            printf("unknown tokens are easier to predict than what they stand for: the scores do "
                   "not compare\n");
    }
    printf("\nwrote %s\n", a->out);
}

static json_t *coverage_json(const char *source, const struct itera_vocab_coverage *c)
{
    return json_pack("{s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "data",
                     output_path(source), "bytes", (json_int_t)c->bytes, "tokens_before",
                     (json_int_t)c->before, "tokens_after", (json_int_t)c->after,
                     "tokens_per_byte_before", output_number(ratio(c->before, c->bytes)),
                     "tokens_per_byte_after", output_number(ratio(c->after, c->bytes)),
                     "same_tokens", output_number(ratio(c->same_tokens, c->before)), "same_bytes",
                     output_number(ratio(c->same_bytes, c->bytes)), "unknown_before",
                     output_number(ratio(c->unknown_before, c->before)), "unknown_after",
                     output_number(ratio(c->unknown_after, c->after)));
}

static int write_json(const struct arguments *a, const struct outcome *o,
                      const struct itera_device *device)
{
    const struct itera_vocab_report *r = &o->report;
    json_t *coverage = json_pack("[o]", coverage_json(a->data, &o->data));
    if (a->valid)
        json_array_append_new(coverage, coverage_json(a->valid, &o->valid));
    json_t *root =
        json_pack("{s:o, s:o, s:{s:i, s:I, s:I}, s:{s:i, s:I, s:I}, s:i, s:i, s:o}", "model",
                  output_path(a->model), "out", output_path(a->out), "before", "vocabulary",
                  r->vocab_before, "parameters", (json_int_t)r->parameters_before, "bytes",
                  (json_int_t)r->bytes_before, "after", "vocabulary", r->vocab_after, "parameters",
                  (json_int_t)r->parameters_after, "bytes", (json_int_t)r->bytes_after, "kept",
                  r->kept, "averaged", r->averaged, "coverage", coverage);
    if (a->valid) {
        json_t *quality =
            json_pack("{s:o, s:o, s:o}", "data", output_path(a->valid), "before",
                      quality_result_json(&o->before), "after", quality_result_json(&o->smaller));
        if (a->finetune.steps)
            json_object_set_new(quality, "finetuned", quality_result_json(&o->finetuned));
        json_object_set_new(root, "quality", quality);
    }
    if (a->finetune.steps)
        json_object_set_new(root, "finetune", shrink_finetune_json(&a->finetune, &o->finetune));
    json_object_set_new(root, "device", json_string(itera_device_info(device)->id));
    json_object_set_new(root, "fallback_ops", device_fallback_json(device));
    int code = output_json(root, a->json.value);
    json_decref(root);
    return code;
}

/* *out is the smaller model, which is in a->out unless it is to be trained first; compares how the
 * texts are cut. */
static enum itera_status make_smaller(const struct arguments *a, struct itera_model *model,
                                      struct itera_model **out, struct outcome *o)
{
    struct itera_corpus *data = NULL, *valid = NULL;
    enum itera_status status = itera_corpus_open(a->data, &data);
    if (!status && a->valid)
        status = itera_corpus_open(a->valid, &valid);
    if (!status)
        status = itera_vocab_reduce(model, data, &a->vocab, out, &o->report);
    if (!status && !a->finetune.steps)
        status = itera_model_save(*out, a->out);
    const struct itera_tokenizer *before = itera_model_tokenizer(model);
    const struct itera_tokenizer *after = status ? NULL : itera_model_tokenizer(*out);
    if (!status)
        status = itera_vocab_cover(before, after, data, &o->data);
    if (!status && valid)
        status = itera_vocab_cover(before, after, valid, &o->valid);
    itera_corpus_destroy(&data);
    itera_corpus_destroy(&valid);
    return status;
}

static int reduce(const struct arguments *a, struct itera_device *device)
{
    struct itera_model *model = NULL, *smaller = NULL;
    struct outcome o = {0};
    if (itera_model_load(device, a->model, &model))
        return EXIT_FAILED;
    int code = make_smaller(a, model, &smaller, &o) ? EXIT_FAILED : EXIT_OK;
    if (code == EXIT_OK && a->valid)
        code = shrink_score(model, a->valid, a->eval_tokens, "score original", &o.before);
    if (code == EXIT_OK && a->valid)
        code = shrink_score(smaller, a->valid, a->eval_tokens, "score smaller", &o.smaller);
    int32_t positions = itera_model_info(model)->max_positions;
    itera_model_destroy(&model); /* its memory is the trainer's */
    if (code == EXIT_OK && a->finetune.steps)
        code = shrink_finetune(device, &smaller, &a->finetune, positions, a->valid, a->out,
                               &o.finetune);
    itera_model_destroy(&smaller);
    if (code == EXIT_OK && a->finetune.steps && a->valid) {
        code = itera_model_load(device, a->out, &model) ? EXIT_FAILED : EXIT_OK;
        if (code == EXIT_OK)
            code = shrink_score(model, a->valid, a->eval_tokens, "score fine-tuned", &o.finetuned);
        itera_model_destroy(&model);
    }
    if (code != EXIT_OK)
        return code;
    bool on_stdout = a->json.given && (!a->json.value || !strcmp(a->json.value, "-"));
    if (!on_stdout)
        print_outcome(a, &o);
    return a->json.given ? write_json(a, &o, device) : EXIT_OK;
}

int itera_command_vocab(int argc, char **argv)
{
    struct arguments a = {.finetune = FINETUNE_DEFAULT};
    struct command_args args;
    int code = parse(argc, argv, &a, &args);
    if (code >= 0)
        return code;
    struct itera_device *device = NULL;
    code = output_json_check(a.json.value);
    if (code == EXIT_OK)
        code = output_file_check(a.out, "a model");
    if (code == EXIT_OK)
        code = shrink_finetune_check(&a.finetune);
    if (code == EXIT_OK && device_open(&a.device, &device))
        code = EXIT_FAILED;
    if (code == EXIT_OK)
        code = reduce(&a, device);
    device_report_fallback(device);
    itera_device_close(&device);
    options_free(&args);
    return code;
}
