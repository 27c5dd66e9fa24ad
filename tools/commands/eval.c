/* itera eval: how well a model predicts a text. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/command.h"
#include "cli/device_request.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "itera/eval.h"

static int on_progress(void *user, uint64_t done, uint64_t total, double nll)
{
    bool *started = user;
    if (!*started)
        progress_start("eval", "tok", (double)total);
    *started = true;
    progress_update((double)done, "nll %.4f", nll);
    return 0;
}

static void print_result(const struct itera_eval_result *r, const struct itera_model *model,
                         const char *data)
{
    printf("%s on %s: %llu tokens, %llu words, %llu bytes\n", itera_model_info(model)->architecture,
           data, (unsigned long long)r->tokens, (unsigned long long)r->words,
           (unsigned long long)r->bytes);
    printf("nats per token        %12.5f\n", r->nll);
    printf("perplexity per token  %12.4f\n", r->perplexity);
    printf("perplexity per word   %12.4f\n", r->word_perplexity);
    printf("bits per byte         %12.5f\n", r->bits_per_byte);
    printf("tokens per second     %12.0f\n", r->tokens_per_second);
    printf("windows of %d tokens, %d scored in each\n", r->window, r->stride);
}

static int write_json(const struct itera_eval_result *r, const struct itera_device *device,
                      const char *file)
{
    json_t *root = json_pack(
        "{s:I, s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:I, s:I, s:i, s:i, s:i, s:o}", "tokens",
        (json_int_t)r->tokens, "nll", output_number(r->nll), "perplexity",
        output_number(r->perplexity), "word_perplexity", output_number(r->word_perplexity),
        "bits_per_byte", output_number(r->bits_per_byte), "tokens_per_second",
        output_number(r->tokens_per_second), "device", itera_device_info(device)->id,
        "fallback_ops", device_fallback_json(device), "words", (json_int_t)r->words, "bytes",
        (json_int_t)r->bytes, "window", r->window, "stride", r->stride, "batch", r->batch,
        "seconds", output_number(r->seconds));
    int code = output_json(root, file);
    json_decref(root);
    return code;
}

static int evaluate(struct itera_model *model, const struct itera_device *device, const char *data,
                    struct itera_eval_options *options, const struct option_optional *json)
{
    const struct itera_tokenizer *tokenizer = itera_model_tokenizer(model);
    if (!tokenizer) {
        command_error("the model has no tokenizer; name one with --tokenizer FILE");
        return EXIT_FAILED;
    }
    struct itera_corpus *corpus = NULL;
    struct itera_dataset *dataset = NULL;
    struct itera_eval_result result;
    bool started = false;
    options->progress = on_progress;
    options->user = &started;
    int code = EXIT_FAILED;
    if (!itera_corpus_open(data, &corpus) && !itera_dataset_create(corpus, tokenizer, &dataset)) {
        enum itera_status status = itera_evaluate(model, dataset, options, &result);
        progress_finish(0);
        if (!status) {
            uint64_t unknown = itera_dataset_unknown(dataset);
            if (unknown)
                command_note("%llu tokens of the text are unknown to the tokenizer; "
                             "figures per word or byte do not compare with other tokenizers",
                             (unsigned long long)unknown);
            if (!output_on_stdout(json))
                print_result(&result, model, data);
            code = json->given ? write_json(&result, device, json->value) : EXIT_OK;
        }
    }
    itera_dataset_destroy(&dataset);
    itera_corpus_destroy(&corpus);
    return code;
}

int itera_command_eval(int argc, char **argv)
{
    const char *data = NULL, *tokenizer_file = NULL;
    struct device_request request = {0};
    struct itera_load_options load = {0};
    const char *precision = NULL;
    int64_t window = 0, stride = 0, batch = 0, tokens = 0;
    struct option_optional json = {0};
    const struct command_option options[] = {
        {"data", 0, OPTION_INPUT, &data, "SRC",
         "text to predict: builtin:stories?valid, a file, a folder,\nor a comma list of these"},
        DEVICE_OPTIONS(request),
        EXACT_OPTION(load.exact),
        PRECISION_OPTION(precision),
        {"window", 'w', OPTION_INTEGER, &window, "N",
         "tokens that the model sees at once (default: its learned\npositions, or 1024)", 1,
         1 << 20},
        {"stride", 0, OPTION_INTEGER, &stride, "N",
         "tokens scored per window, the others being context\n(default: half of the window)", 1,
         1 << 20},
        {"batch", 'b', OPTION_INTEGER, &batch, "N",
         "windows computed together (default: chosen by size)", 1, 4096},
        {"max-tokens", 0, OPTION_INTEGER, &tokens, "N", "stop after about N tokens (default: all)",
         1, 9e15},
        {"tokenizer", 0, OPTION_INPUT, &tokenizer_file, "FILE",
         "for a model that comes without one"},
        {"json", 0, OPTION_OPTIONAL, &json, "FILE", "write JSON to FILE, or to stdout"},
        {0}};
    const struct command_spec spec = {
        .name = "eval",
        .positional = "MODEL",
        .summary = "Scores a text: nats and perplexity per token (end-of-text tokens included),\n"
                   "perplexity per word, bits per byte of the documents.",
        .notes =
            "A word is a run without white space, and each newline is one (as WikiText counts).",
        .options = options,
        .min = 1,
        .max = 1};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    precision_take(precision, &load.exact, &load.half);
    if (!data) {
        options_free(&args);
        return options_usage(&spec, "--data SRC is needed");
    }
    if (output_json_check(json.value) != EXIT_OK) {
        options_free(&args);
        return EXIT_FAILED;
    }
    struct itera_eval_options eval = {.window = (int32_t)window,
                                      .stride = (int32_t)stride,
                                      .batch = (int32_t)batch,
                                      .tokens = (uint64_t)tokens};
    struct itera_device *device = NULL;
    struct itera_model *model = NULL;
    code = EXIT_FAILED;
    if (!device_open(&request, &device) &&
        !itera_model_load_as(device, args.positional[0], &load, &model)) {
        struct itera_tokenizer *tokenizer = NULL;
        bool ready = true;
        if (tokenizer_file)
            ready = !itera_tokenizer_open(tokenizer_file, &tokenizer) &&
                    !itera_model_set_tokenizer(model, tokenizer);
        if (ready)
            code = evaluate(model, device, data, &eval, &json);
        else
            itera_tokenizer_destroy(&tokenizer);
    }
    itera_model_destroy(&model);
    device_report_fallback(device);
    itera_device_close(&device);
    options_free(&args);
    return code;
}
