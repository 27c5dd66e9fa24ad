/* itera eval: how well models predict texts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/device_request.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/stop.h"
#include "itera/eval.h"

struct request {
    struct device_request device;
    struct itera_load_options load;
    struct itera_eval_options eval;
    struct option_names data; /* none: each model's own text */
    const char *tokenizer, *csv, *precision;
    struct option_optional json;
};

/* One model on one text. */
struct score {
    const char *model;
    char *data;
    struct itera_eval_result result;
    bool foreign; /* the model's own text is another */
};

struct scores {
    struct score *score;
    size_t n;
    const char *architecture; /* of the only model */
};

static int on_progress(void *user, uint64_t done, uint64_t total, double nll)
{
    bool *started = user;
    if (!*started)
        progress_start("eval", "tok", (double)total);
    *started = true;
    progress_update((double)done, "nll %.4f", nll);
    return stop_asked();
}

/* ---- results --------------------------------------------------------------------------------- */

static void print_one(const struct scores *scores)
{
    const struct score *s = scores->score;
    const struct itera_eval_result *r = &s->result;
    printf("%s on %s: %llu tokens, %llu words, %llu bytes\n", scores->architecture, s->data,
           (unsigned long long)r->tokens, (unsigned long long)r->words,
           (unsigned long long)r->bytes);
    printf("nats per token        %12.5f\n", r->nll);
    printf("perplexity per token  %12.4f\n", r->perplexity);
    printf("perplexity per word   %12.4f\n", r->word_perplexity);
    printf("bits per byte         %12.5f\n", r->bits_per_byte);
    printf("tokens per second     %12.0f\n", r->tokens_per_second);
    printf("windows of %d tokens, %d scored in each\n", r->window, r->stride);
}

static void print_table(const struct scores *scores)
{
    static const char *const titles[] = {"model",      "text",          "tokens",
                                         "nats/token", "bits per byte", "tokens/s"};
    struct table *table = table_create(6, titles, "llrrrr");
    char text[32];
    for (size_t i = 0; i < scores->n; i++) {
        const struct score *s = &scores->score[i];
        table_cell(table, "%s", s->model);
        table_cell(table, "%s", s->data);
        table_cell(table, "%s", output_grouped((int64_t)s->result.tokens, text, sizeof text));
        table_cell(table, "%.5f", s->result.nll);
        table_cell(table, "%.5f", s->result.bits_per_byte);
        table_cell(table, "%s",
                   output_grouped((int64_t)s->result.tokens_per_second, text, sizeof text));
    }
    table_print(table);
    table_destroy(&table);
}

static json_t *score_json(const struct score *s, const struct itera_device *device)
{
    const struct itera_eval_result *r = &s->result;
    return json_pack(
        "{s:I, s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:I, s:I, s:i, s:i, s:i, s:o, s:o, s:o}",
        "tokens", (json_int_t)r->tokens, "nll", output_number(r->nll), "perplexity",
        output_number(r->perplexity), "word_perplexity", output_number(r->word_perplexity),
        "bits_per_byte", output_number(r->bits_per_byte), "tokens_per_second",
        output_number(r->tokens_per_second), "device", itera_device_info(device)->id,
        "fallback_ops", device_fallback_json(device), "words", (json_int_t)r->words, "bytes",
        (json_int_t)r->bytes, "window", r->window, "stride", r->stride, "batch", r->batch,
        "seconds", output_number(r->seconds), "model", output_path(s->model), "data",
        output_path(s->data));
}

/* One result is the object itself, several are a list of them. */
static int write_json(const struct scores *scores, bool several, const struct itera_device *device,
                      const char *file)
{
    json_t *root = several ? json_object() : score_json(&scores->score[0], device);
    json_t *list = several ? json_array() : NULL;
    for (size_t i = 0; several && i < scores->n; i++)
        json_array_append_new(list, score_json(&scores->score[i], device));
    if (several)
        json_object_set_new(root, "results", list);
    int code = output_json(root, file);
    json_decref(root);
    return code;
}

static void csv_text(FILE *f, const char *text)
{
    putc('"', f);
    for (; *text; text++)
        fprintf(f, *text == '"' ? "\"\"" : "%c", *text);
    fputs("\",", f);
}

static int write_csv(const struct scores *scores, const char *file)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (f)
        fputs("model,data,tokens,words,bytes,nll,perplexity,word_perplexity,bits_per_byte,"
              "tokens_per_second\n",
              f);
    for (size_t i = 0; f && i < scores->n; i++) {
        const struct itera_eval_result *r = &scores->score[i].result;
        csv_text(f, scores->score[i].model);
        csv_text(f, scores->score[i].data);
        fprintf(f, "%llu,%llu,%llu,%.9g,%.9g,%.9g,%.9g,%.9g\n", (unsigned long long)r->tokens,
                (unsigned long long)r->words, (unsigned long long)r->bytes, r->nll, r->perplexity,
                r->word_perplexity, r->bits_per_byte, r->tokens_per_second);
    }
    int code = EXIT_FAILED;
    if (f && fclose(f) == 0)
        code = output_text(file, text);
    else
        command_error("%s: no memory to write it", file);
    free(text);
    return code;
}

/* What there is to say of all that was scored. */
static int report(const struct request *r, const struct scores *scores, bool several,
                  const struct itera_device *device)
{
    int code = EXIT_OK;
    if (!scores->n)
        return EXIT_OK;
    if (!output_on_stdout(&r->json)) {
        if (several)
            print_table(scores);
        else
            print_one(scores);
    }
    for (size_t i = 0; i < scores->n; i++)
        if (scores->score[i].foreign)
            command_note("%s: %s is not the text that its run set aside; how well it does there "
                         "may say more of the text than of the model",
                         scores->score[i].model, scores->score[i].data);
    if (r->json.given)
        code = write_json(scores, several, device, r->json.value);
    if (code == EXIT_OK && r->csv)
        code = write_csv(scores, r->csv);
    return code;
}

/* ---- scoring --------------------------------------------------------------------------------- */

static int score(const struct request *r, struct itera_model *model, const char *data,
                 struct score *out)
{
    struct itera_corpus *corpus = NULL;
    struct itera_dataset *dataset = NULL;
    struct itera_eval_options options = r->eval;
    bool started = false;
    options.progress = on_progress;
    options.user = &started;
    enum itera_status status = itera_corpus_open(data, &corpus);
    if (!status)
        status = itera_dataset_create(corpus, itera_model_tokenizer(model), &dataset);
    if (!status)
        status = itera_evaluate(model, dataset, &options, &out->result);
    progress_finish(0);
    const uint64_t unknown = dataset ? itera_dataset_unknown(dataset) : 0;
    if (!status && unknown)
        command_note("%llu tokens of the text are unknown to the tokenizer; figures per word or "
                     "byte do not compare with other tokenizers",
                     (unsigned long long)unknown);
    itera_dataset_destroy(&dataset);
    itera_corpus_destroy(&corpus);
    return status ? EXIT_FAILED : EXIT_OK;
}

/* One model on all texts; scores has room for them. */
static int score_model(const struct request *r, struct itera_device *device, const char *path,
                       struct scores *scores)
{
    struct itera_model *model = NULL;
    struct itera_tokenizer *tokenizer = NULL;
    char *own = model_own_text(path);
    int code = EXIT_OK;
    if (!r->data.n && !own) {
        command_error("%s: lies in no run that says which text is its own; name one with --data",
                      path);
        code = EXIT_FAILED;
    }
    if (code == EXIT_OK && itera_model_load_as(device, path, &r->load, &model))
        code = EXIT_FAILED;
    if (code == EXIT_OK && r->tokenizer &&
        (itera_tokenizer_open(r->tokenizer, &tokenizer) ||
         itera_model_set_tokenizer(model, tokenizer))) {
        itera_tokenizer_destroy(&tokenizer);
        code = EXIT_FAILED;
    }
    if (code == EXIT_OK && !itera_model_tokenizer(model)) {
        command_error("%s: has no tokenizer; name one with --tokenizer FILE", path);
        code = EXIT_FAILED;
    }
    const size_t texts = r->data.n ? r->data.n : 1;
    for (size_t i = 0; i < texts && code == EXIT_OK; i++) {
        const char *data = r->data.n ? r->data.item[i] : own;
        struct score *s = &scores->score[scores->n];
        s->model = path;
        s->data = strdup(data);
        s->foreign = own && strcmp(own, data) != 0;
        code = s->data ? score(r, model, data, s) : EXIT_FAILED;
        /* What was scored until it was stopped counts, too. */
        if (s->result.perplexity > 0)
            scores->n++;
        else
            free(s->data);
    }
    if (model)
        scores->architecture = itera_model_info(model)->architecture;
    free(own);
    itera_model_destroy(&model);
    return code;
}

static int run(struct request *r, const struct command_args *args)
{
    struct itera_device *device = NULL;
    if (device_open(&r->device, &device))
        return EXIT_FAILED;
    const size_t room = (size_t)args->n * (r->data.n ? r->data.n : 1);
    struct scores scores = {.score = calloc(room, sizeof *scores.score), .architecture = ""};
    int code = scores.score ? EXIT_OK : EXIT_FAILED;
    if (!scores.score)
        command_error("eval: out of memory");
    stop_catch();
    for (int i = 0; i < args->n && code == EXIT_OK; i++)
        code = score_model(r, device, args->positional[i], &scores);
    /* Of several, those before the one that failed were not for nothing. */
    const int said = report(r, &scores, room > 1, device);
    for (size_t i = 0; i < scores.n; i++)
        free(scores.score[i].data);
    free(scores.score);
    device_report_fallback(device);
    itera_device_close(&device);
    return code == EXIT_OK ? said : code;
}

int itera_command_eval(int argc, char **argv)
{
    struct request r = {0};
    int64_t window = 0, stride = 0, batch = 0, tokens = 0;
    const struct command_option options[] = {
        {"data", 0, OPTION_INPUTS, &r.data, "SRC",
         "text to predict: builtin:stories?valid, a file, a folder,\nor a comma list of these; "
         "given again, one more text\n(default: what the model's run set aside)"},
        DEVICE_OPTIONS(r.device),
        EXACT_OPTION(r.load.exact),
        PRECISION_OPTION(r.precision),
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
        {"tokenizer", 0, OPTION_INPUT, &r.tokenizer, "FILE", "for models that come without one"},
        {"csv", 0, OPTION_OUTPUT, &r.csv, "FILE", "write a line per model and text as CSV"},
        {"json", 0, OPTION_OPTIONAL, &r.json, "FILE", "write JSON to FILE, or to stdout"},
        {0}};
    const struct command_spec spec = {
        .name = "eval",
        .positional = "MODEL...",
        .summary = "Scores texts: nats and perplexity per token (end-of-text tokens included),\n"
                   "perplexity per word, bits per byte of the documents. Several models, or texts, "
                   "give\na table. Ctrl-C ends it with the figures of what was read.",
        .notes = "A word is a run without white space, and each newline is one (as WikiText "
                 "counts).\n\n"
                 "Examples:\n"
                 "  itera eval run                                # on what run did not train on\n"
                 "  itera eval big.safetensors small.safetensors --data test.txt --csv table.csv",
        .options = options,
        .min = 1,
        .max = -1};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    precision_take(r.precision, &r.load.exact, &r.load.half);
    r.eval = (struct itera_eval_options){.window = (int32_t)window,
                                         .stride = (int32_t)stride,
                                         .batch = (int32_t)batch,
                                         .tokens = (uint64_t)tokens};
    code = output_json_check(r.json.value);
    if (code == EXIT_OK && r.csv)
        code = output_file_check(r.csv, "CSV");
    if (code == EXIT_OK)
        code = run(&r, &args);
    options_free(&args);
    return code;
}
