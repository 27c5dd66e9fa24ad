/* itera vocab: a model with fewer tokens. */
#include <math.h>
#include <stdio.h>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "commands/shrink.h"
#include "itera/compress.h"

struct arguments {
    struct shrink_request common;
    struct itera_vocab_options vocab;
    const char *data;
    int64_t size, retrain;
};

/* Without --valid there is no coverage of that text. */
struct reduction {
    const struct arguments *a;
    struct itera_vocab_report report;
    struct itera_vocab_coverage data, valid;
};

static int parse(int argc, char **argv, struct arguments *a, struct command_args *args)
{
    const struct command_option options[] = {
        {"out", 'o', OPTION_OUTPUT, &a->common.out, "FILE", "the smaller model"},
        FORCE_OPTION(a->common.force),
        {"data", 0, OPTION_INPUT, &a->data, "SRC",
         "text that the model is for: the tokens that it uses stay"},
        {"size", 0, OPTION_INTEGER, &a->size, "N",
         "at most N tokens: those that the text uses most (default:\nall that it uses)", 1,
         1 << 24},
        {"min-count", 0, OPTION_INTEGER, &a->vocab.min_count, "N",
         "tokens that the text uses less than N times go (default: 1)", 1, 1e15},
        {"retrain", 0, OPTION_INTEGER, &a->retrain, "N",
         "make a new tokenizer of N tokens from the text instead", 1, 1 << 24},
        {"valid", 0, OPTION_INPUT, &a->common.valid, "SRC",
         "held-out text to score before and after (default: none)"},
        {"eval-tokens", 0, OPTION_INTEGER, &a->common.eval_tokens, "N",
         "score about N tokens of --valid (default: all)", 1, 1e15},
        FINETUNE_OPTIONS(a->common.finetune),
        DEVICE_OPTIONS(a->common.device),
        {"json", 0, OPTION_OPTIONAL, &a->common.json, "FILE", "write JSON to FILE, or to stdout"},
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
    const char *wrong = NULL, *unused = shrink_finetune_unused(&a->common.finetune);
    if (!a->common.out)
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
    a->common.model = args->positional[0];
    a->vocab.size = (int32_t)a->size;
    a->vocab.retrain = (int32_t)a->retrain;
    a->common.finetune.data = a->data;
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

static void print_outcome(const void *user)
{
    static const char *const titles[] = {"text",       "tokens/byte", "after",        "same tokens",
                                         "same bytes", "unknown",     "unknown after"};
    const struct reduction *r = user;
    print_sizes(&r->report);
    printf("\nhow texts are cut: tokens per byte, and what is still the same token\n");
    struct table *table = table_create(7, titles, "lrrrrrr");
    coverage_row(table, r->a->data, &r->data);
    if (r->a->common.valid)
        coverage_row(table, r->a->common.valid, &r->valid);
    table_print(table);
    table_destroy(&table);
}

static void print_unknown(const void *user)
{
    const struct reduction *r = user;
    if (r->valid.unknown_after > r->valid.unknown_before)
        printf("unknown tokens are easier to predict than what they stand for: the scores do "
               "not compare\n");
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

static json_t *outcome_json(const void *user)
{
    const struct reduction *reduction = user;
    const struct shrink_request *common = &reduction->a->common;
    const struct itera_vocab_report *r = &reduction->report;
    json_t *coverage = json_pack("[o]", coverage_json(reduction->a->data, &reduction->data));
    if (common->valid)
        json_array_append_new(coverage, coverage_json(common->valid, &reduction->valid));
    return json_pack("{s:o, s:o, s:{s:i, s:I, s:I}, s:{s:i, s:I, s:I}, s:i, s:i, s:o}", "model",
                     output_path(common->model), "out", output_path(common->out), "before",
                     "vocabulary", r->vocab_before, "parameters", (json_int_t)r->parameters_before,
                     "bytes", (json_int_t)r->bytes_before, "after", "vocabulary", r->vocab_after,
                     "parameters", (json_int_t)r->parameters_after, "bytes",
                     (json_int_t)r->bytes_after, "kept", r->kept, "averaged", r->averaged,
                     "coverage", coverage);
}

/* Compares how the texts are cut, too. */
static int make_smaller(void *user, struct itera_model *model, struct itera_model **smaller)
{
    struct reduction *r = user;
    struct itera_corpus *data = NULL, *valid = NULL;
    enum itera_status status = itera_corpus_open(r->a->data, &data);
    if (!status && r->a->common.valid)
        status = itera_corpus_open(r->a->common.valid, &valid);
    if (!status)
        status = itera_vocab_reduce(model, data, &r->a->vocab, smaller, &r->report);
    const struct itera_tokenizer *before = itera_model_tokenizer(model);
    const struct itera_tokenizer *after = status ? NULL : itera_model_tokenizer(*smaller);
    if (!status)
        status = itera_vocab_cover(before, after, data, &r->data);
    if (!status && valid)
        status = itera_vocab_cover(before, after, valid, &r->valid);
    itera_corpus_destroy(&data);
    itera_corpus_destroy(&valid);
    return status ? EXIT_FAILED : EXIT_OK;
}

int itera_command_vocab(int argc, char **argv)
{
    static const struct shrink_command command = {.smaller = "smaller",
                                                  .make = make_smaller,
                                                  .print = print_outcome,
                                                  .json = outcome_json,
                                                  .print_after_scores = print_unknown};
    struct arguments a = {.common.finetune = FINETUNE_DEFAULT};
    struct command_args args;
    int code = parse(argc, argv, &a, &args);
    if (code >= 0)
        return code;
    struct reduction reduction = {.a = &a};
    code = shrink_run(&a.common, &command, &reduction);
    options_free(&args);
    return code;
}
