/* itera ledger: what models cost and what they are worth, side by side. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/device_request.h"
#include "cli/meter_request.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "itera/bench.h"
#include "itera/describe.h"
#include "itera/eval.h"
#include "itera/session.h"
#include "report/bench_charts.h"
#include "report/report.h"

enum { MAX_ROUNDS = 100 };

struct entry {
    const char *path;
    char name[128]; /* the part of the path that tells it from the others */
    struct itera_model *model;
    int64_t file_bytes, parameters, bytes; /* on disk; weights in memory */
    int64_t dtype_bytes[ITERA_WEIGHT_DTYPES];
    double flops;         /* per token */
    uint64_t peak_memory; /* weights and the largest program */
    double word_perplexity, bits_per_byte;
    uint64_t unknown;
    double prefill[MAX_ROUNDS], decode[MAX_ROUNDS]; /* tokens/s of each round, then sorted */
    int n_prefill, n_decode;
    struct itera_energy energy; /* of decoding energy_tokens */
    double energy_tokens;
};

struct ledger {
    struct entry *entries;
    int n;
    struct itera_device *device;
    const char *data;
    int64_t prompt, rounds, window, tokens;
    double seconds;
    struct meter_request request;
    struct itera_meter *meter;
    int64_t round;
};

static double median(double *values, int n)
{
    if (!n)
        return (double)NAN;
    for (int i = 1; i < n; i++) /* a few values */
        for (int k = i; k > 0 && values[k - 1] > values[k]; k--) {
            double swap = values[k];
            values[k] = values[k - 1];
            values[k - 1] = swap;
        }
    return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

/* Drops the folders that all paths begin with, and the file name where all have the same. */
static void shorten_names(struct ledger *l)
{
    const char *first = l->entries[0].path, *slash = strrchr(first, '/');
    size_t common = strlen(first);
    bool same_file = slash != NULL;
    for (int i = 1; i < l->n; i++) {
        const char *path = l->entries[i].path, *end = strrchr(path, '/');
        same_file = same_file && end && !strcmp(end, slash);
        for (size_t k = 0; k < common; k++)
            if (path[k] != first[k])
                common = k;
    }
    while (common && first[common - 1] != '/')
        common--;
    for (int i = 0; i < l->n; i++) {
        const char *path = l->entries[i].path + (l->n > 1 ? common : 0);
        size_t length = strlen(path) - (l->n > 1 && same_file ? strlen(slash) : 0);
        snprintf(l->entries[i].name, sizeof l->entries[i].name, "%.*s", (int)length, path);
    }
}

static enum itera_status load(struct ledger *l, struct entry *e, bool exact)
{
    const struct itera_load_options options = {.exact = exact};
    struct itera_description *d = NULL;
    enum itera_status status = itera_model_load_as(l->device, e->path, &options, &e->model);
    if (!status)
        status = itera_describe_model(e->model, &d);
    if (!status) {
        e->file_bytes = model_file_bytes(e->path);
        e->parameters = d->parameters;
        e->bytes = d->bytes;
        e->flops = d->flops_per_token;
        memcpy(e->dtype_bytes, d->dtype_bytes, sizeof e->dtype_bytes);
    }
    itera_description_destroy(&d);
    return status;
}

static int on_eval(void *user, uint64_t done, uint64_t total, double nll)
{
    const struct entry *e = user;
    if (done == total || done < 2)
        return 0;
    progress_set_total((double)total);
    progress_update((double)done, "%.40s nll %.4f", e->name, nll);
    return 0;
}

static enum itera_status evaluate(struct ledger *l, struct entry *e,
                                  const struct itera_corpus *corpus)
{
    const struct itera_tokenizer *tokenizer = itera_model_tokenizer(e->model);
    struct itera_dataset *dataset = NULL;
    struct itera_eval_result r;
    int64_t limit = itera_model_info(e->model)->max_positions;
    int64_t window = limit && l->window > limit ? limit : l->window;
    const struct itera_eval_options options = {
        .window = (int32_t)window, .tokens = (uint64_t)l->tokens, .progress = on_eval, .user = e};
    if (!tokenizer) {
        command_error("%s has no tokenizer, so that it cannot read %s", e->path, l->data);
        return ITERA_ERR_ARGUMENT;
    }
    enum itera_status status = itera_dataset_create(corpus, tokenizer, &dataset);
    if (!status) {
        size_t count;
        itera_dataset_tokens(dataset, &count);
        progress_start("eval", "tok", (double)count);
        status = itera_evaluate(e->model, dataset, &options, &r);
        progress_finish(0);
        e->unknown = itera_dataset_unknown(dataset);
    }
    if (!status) {
        e->word_perplexity = r.word_perplexity;
        e->bits_per_byte = r.bits_per_byte;
        progress_line("%s: %.4f bits per byte", e->name, r.bits_per_byte);
    }
    itera_dataset_destroy(&dataset);
    return status;
}

static void keep_row(struct entry *e, const struct itera_bench_row *row)
{
    double rate = (double)row->tokens / row->p50;
    if (!strcmp(row->phase, "prefill"))
        e->prefill[e->n_prefill++] = rate;
    else
        e->decode[e->n_decode++] = rate;
    e->peak_memory = row->peak_bytes > e->peak_memory ? row->peak_bytes : e->peak_memory;
}

static int on_progress(void *user, double done, const struct itera_bench_task *task)
{
    const struct ledger *l = user;
    (void)task;
    progress_update((double)l->round + done, NULL);
    return 0;
}

/* The models take turns, so that a machine that slows down slows all of them. */
static enum itera_status measure_round(struct ledger *l, struct itera_bench_task **tasks)
{
    enum { DECODE = 64 };
    const struct itera_bench_options options = {
        .seconds = l->seconds, .progress = on_progress, .user = l};
    const struct itera_bench_peaks no_peaks = {0};
    enum itera_status status = ITERA_OK;
    for (int i = 0; i < 2 * l->n && !status; i++) {
        struct entry *e = &l->entries[i / 2];
        int64_t limit = itera_model_info(e->model)->max_positions;
        int64_t prompt = limit && l->prompt > limit ? limit : l->prompt;
        status = itera_bench_task_model(e->model, e->name, NULL,
                                        i % 2 ? ITERA_BENCH_DECODE : ITERA_BENCH_PREFILL, 1,
                                        i % 2 ? DECODE : prompt, &tasks[i]);
    }
    if (!status)
        status = itera_bench_measure(tasks, 2 * l->n, &options);
    for (int i = 0; i < 2 * l->n; i++) {
        if (!status)
            keep_row(&l->entries[i / 2], itera_bench_task_row(tasks[i], &no_peaks));
        itera_bench_task_destroy(&tasks[i]);
    }
    return status;
}

static enum itera_status measure(struct ledger *l)
{
    struct itera_bench_task **tasks = calloc(2 * (size_t)l->n, sizeof *tasks);
    enum itera_status status = ITERA_OK;
    if (!tasks) {
        command_error("no memory for %d models", l->n);
        return ITERA_ERR_MEMORY;
    }
    progress_start("speed", "rounds", (double)l->rounds);
    for (l->round = 0; l->round < l->rounds && !status; l->round++)
        status = measure_round(l, tasks);
    progress_finish(0);
    free(tasks);
    return status;
}

/* Decodes for `seconds` under the meter. */
static enum itera_status decode_metered(struct ledger *l, struct entry *e, double seconds)
{
    struct itera_session *session = NULL;
    int32_t token = 0;
    enum itera_status status = itera_session_create(e->model, NULL, &session);
    if (!status)
        status = itera_session_prefill(session, &token, 1);
    if (!status)
        status = itera_session_next(session, &token); /* compiles */
    if (!status)
        status = itera_meter_begin(l->meter);
    e->energy_tokens = 0;
    for (double begin = progress_seconds(); !status && progress_seconds() - begin < seconds;
         e->energy_tokens++)
        status = itera_session_next(session, &token);
    if (!status)
        status = itera_meter_end(l->meter, &e->energy);
    itera_session_destroy(&session);
    return status;
}

/* What a token takes, above what the machine takes at rest. Where there is no sensor a short look
 * says why. */
static enum itera_status measure_energy(struct ledger *l)
{
    enum { IDLE_SECONDS = 2, LOOK = 3 };
    enum itera_status status = meter_open(&l->request, itera_device_info(l->device), &l->meter);
    if (!status)
        status = decode_metered(l, &l->entries[0], 0.01);
    const struct itera_energy_figure *figure = l->entries[0].energy.figure;
    const bool readable = !status && !isnan(figure->joules);
    if (readable && figure->measured)
        status = itera_meter_measure_idle(l->meter, IDLE_SECONDS);
    for (int i = 0; i < l->n && !status; i++)
        status = decode_metered(l, &l->entries[i], readable ? LOOK * l->seconds : 0.01);
    itera_meter_close(&l->meter);
    return status;
}

/* ---- results --------------------------------------------------------------------------------- */

enum { COLUMNS = 12 };
static const char *const titles[COLUMNS] = {"model",     "bytes",   "smaller",   "parameters",
                                            "MFLOP/tok", "memory",  "prefill/s", "decode/s",
                                            "faster",    "J/token", "word ppl",  "bits/byte"};
static const char ALIGN[] = "lrrrrrrrrrrr";

/* The cells of one row, COLUMNS of them. */
static void row_cells(const struct ledger *l, int i, char cells[COLUMNS][64])
{
    struct entry *e = &l->entries[i], *base = &l->entries[0];
    char text[64];
    double decode = median(e->decode, e->n_decode), slow = median(base->decode, base->n_decode);
    snprintf(cells[0], 64, "%.60s", e->name);
    snprintf(cells[1], 64, "%s", output_size(e->file_bytes, text, sizeof text));
    snprintf(cells[2], 64, "%.2fx", (double)base->file_bytes / (double)e->file_bytes);
    snprintf(cells[3], 64, "%s", output_grouped(e->parameters, text, sizeof text));
    snprintf(cells[4], 64, "%.3f", e->flops * 1e-6);
    snprintf(cells[5], 64, "%s", output_size((int64_t)e->peak_memory, text, sizeof text));
    snprintf(cells[6], 64, "%.0f", median(e->prefill, e->n_prefill));
    snprintf(cells[7], 64, "%.0f", decode);
    snprintf(cells[8], 64, "%.2fx", decode / slow);
    snprintf(cells[9], 64, "-");
    const struct itera_energy_figure *energy = e->energy.figure;
    if (!isnan(energy->joules))
        snprintf(cells[9], 64, "%.3g%s", energy->joules / e->energy_tokens,
                 energy->measured ? "" : " est.");
    snprintf(cells[10], 64, "%.3f", e->word_perplexity);
    snprintf(cells[11], 64, "%.4f", e->bits_per_byte);
}

static void print_ledger(const struct ledger *l)
{
    struct table *table = table_create(COLUMNS, titles, ALIGN);
    for (int i = 0; i < l->n; i++) {
        char cells[COLUMNS][64];
        row_cells(l, i, cells);
        for (int c = 0; c < COLUMNS; c++)
            table_cell(table, "%s", cells[c]);
    }
    table_print(table);
    table_destroy(&table);
    const struct itera_energy_figure *energy = l->entries[0].energy.figure;
    if (isnan(energy->joules))
        printf("\nJ/token: not measured: %s\n", energy->reason);
    else
        printf("\nJ/token: %s (%s)\n", energy->source, itera_energy_scope_name(energy->scope));
    printf("\"smaller\" and \"faster\" (decode) are relative to the first; quality is on %s.\n",
           l->data);
}

static json_t *ratios(const struct entry *e, const struct entry *base)
{
    struct entry a = *e, b = *base;
    json_t *root = json_object();
    json_object_set_new(root, "bytes", output_number((double)a.file_bytes / (double)b.file_bytes));
    json_object_set_new(root, "parameters",
                        output_number((double)a.parameters / (double)b.parameters));
    json_object_set_new(root, "flops_per_token", output_number(a.flops / b.flops));
    json_object_set_new(root, "peak_memory_bytes",
                        output_number((double)a.peak_memory / (double)b.peak_memory));
    json_object_set_new(
        root, "prefill_tokens_per_second",
        output_number(median(a.prefill, a.n_prefill) / median(b.prefill, b.n_prefill)));
    json_object_set_new(root, "decode_tokens_per_second",
                        output_number(median(a.decode, a.n_decode) / median(b.decode, b.n_decode)));
    json_object_set_new(root, "word_perplexity",
                        output_number(a.word_perplexity / b.word_perplexity));
    json_object_set_new(root, "bits_per_byte", output_number(a.bits_per_byte / b.bits_per_byte));
    return root;
}

static json_t *entry_json(const struct ledger *l, struct entry *e)
{
    json_t *types = json_object();
    for (int k = 0; k < ITERA_WEIGHT_DTYPES; k++)
        if (e->dtype_bytes[k])
            json_object_set_new(types, itera_weight_dtype_name(k),
                                json_integer((json_int_t)e->dtype_bytes[k]));
    json_t *root = json_pack(
        "{s:o, s:s, s:I, s:I, s:I, s:o, s:I}", "model", output_string(e->name), "architecture",
        itera_model_info(e->model)->architecture, "bytes_on_disk", (json_int_t)e->file_bytes,
        "parameters", (json_int_t)e->parameters, "bytes", (json_int_t)e->bytes, "bytes_by_dtype",
        types, "peak_memory_bytes", (json_int_t)e->peak_memory);
    json_object_set_new(root, "flops_per_token", output_number(e->flops));
    json_object_set_new(root, "prefill_tokens_per_second",
                        output_number(median(e->prefill, e->n_prefill)));
    json_object_set_new(root, "decode_tokens_per_second",
                        output_number(median(e->decode, e->n_decode)));
    json_object_set_new(root, "energy", meter_energy_json(&e->energy, e->energy_tokens));
    json_object_set_new(root, "word_perplexity", output_number(e->word_perplexity));
    json_object_set_new(root, "bits_per_byte", output_number(e->bits_per_byte));
    json_object_set_new(root, "unknown_tokens", json_integer((json_int_t)e->unknown));
    json_object_set_new(root, "ratios", ratios(e, &l->entries[0]));
    return root;
}

static json_t *ledger_json(const struct ledger *l)
{
    json_t *models = json_array();
    for (int i = 0; i < l->n; i++)
        json_array_append_new(models, entry_json(l, &l->entries[i]));
    json_t *root =
        json_pack("{s:o, s:s, s:i, s:I, s:I, s:o, s:o}", "data", output_path(l->data), "device",
                  itera_device_info(l->device)->id, "threads", itera_device_threads(l->device),
                  "prompt", (json_int_t)l->prompt, "rounds", (json_int_t)l->rounds, "fallback_ops",
                  device_fallback_json(l->device), "models", models);
    const struct itera_energy_figure *energy = l->entries[0].energy.figure;
    if (isnan(energy->joules))
        json_object_set_new(root, "energy_reason", output_string(energy->reason));
    return root;
}

static int write_report(const struct ledger *l, const char *file)
{
    char subtitle[512];
    snprintf(subtitle, sizeof subtitle, "%s on %s (%s); quality on %.200s, prompts of %lld tokens",
             "itera ledger", itera_device_info(l->device)->name, itera_device_info(l->device)->id,
             l->data, (long long)l->prompt);
    struct report *report = report_create("What models cost and what they are worth", subtitle);
    const char **pointers = calloc((size_t)l->n * COLUMNS, sizeof *pointers);
    char(*cells)[COLUMNS][64] = calloc((size_t)l->n, sizeof *cells);
    if (pointers && cells) {
        for (int i = 0; i < l->n; i++) {
            row_cells(l, i, cells[i]);
            for (int c = 0; c < COLUMNS; c++)
                pointers[i * COLUMNS + c] = cells[i][c];
        }
        json_t *root = ledger_json(l);
        report_chart(report, "Quality against size, each model a point", chart_quality(root));
        json_decref(root);
        report_table(report,
                     "Smaller and faster are relative to the first model; speeds are medians of "
                     "rounds in which the models took turns",
                     COLUMNS, titles, ALIGN, l->n, pointers);
    }
    int code = pointers && cells ? report_write(report, file) : EXIT_FAILED;
    report_destroy(&report);
    free(pointers);
    free(cells);
    return code;
}

static int run(struct ledger *l, bool exact, const struct option_optional *json, const char *html)
{
    struct itera_corpus *corpus = NULL;
    enum itera_status status = itera_corpus_open(l->data, &corpus);
    for (int i = 0; i < l->n && !status; i++)
        status = load(l, &l->entries[i], exact);
    for (int i = 0; i < l->n && !status; i++)
        status = evaluate(l, &l->entries[i], corpus);
    itera_corpus_destroy(&corpus);
    if (!status)
        status = measure(l);
    if (!status)
        status = measure_energy(l);
    if (status)
        return EXIT_FAILED;
    for (int i = 0; i < l->n; i++)
        if (l->entries[i].unknown)
            command_note("%llu tokens of the text are unknown to %s; its quality "
                         "does not compare with other tokenizers",
                         (unsigned long long)l->entries[i].unknown, l->entries[i].name);
    if (!output_on_stdout(json))
        print_ledger(l);
    int code = html ? write_report(l, html) : EXIT_OK;
    if (code == EXIT_OK && json->given) {
        json_t *root = ledger_json(l);
        code = output_json(root, json->value);
        json_decref(root);
    }
    return code;
}

int itera_command_ledger(int argc, char **argv)
{
    struct ledger l = {.prompt = 128, .rounds = 5};
    struct device_request request = {0};
    struct option_optional json = {0};
    const char *html = NULL;
    bool exact = false;
    double seconds = 0.5;
    const struct command_option options[] = {
        {"data", 0, OPTION_INPUT, &l.data, "SRC",
         "held-out text for the quality: builtin:stories?valid, a\nfile, a folder, or a comma "
         "list"},
        DEVICE_OPTIONS(request),
        {"prompt", 0, OPTION_INTEGER, &l.prompt, "N", "tokens of the prefill (default: 128)", 1,
         1 << 20},
        {"rounds", 0, OPTION_INTEGER, &l.rounds, "N",
         "times that each model is measured, in turns (default: 5)", 1, MAX_ROUNDS},
        {"seconds", 0, OPTION_NUMBER, &seconds, "S", "of each measurement of speed (default: 0.5)",
         0.01, 600},
        {"window", 'w', OPTION_INTEGER, &l.window, "N",
         "tokens that a model sees at once for its quality (default:\nits learned positions, or "
         "1024)",
         1, 1 << 20},
        {"max-tokens", 0, OPTION_INTEGER, &l.tokens, "N",
         "stop the quality after about N tokens (default: all)", 1, 9e15},
        EXACT_OPTION(exact),
        METER_OPTIONS(l.request),
        {"html", 0, OPTION_OUTPUT, &html, "FILE",
         "write a report with the plot of quality against size"},
        {"json", 0, OPTION_OPTIONAL, &json, "FILE", "write JSON to FILE, or to stdout"},
        {0}};
    const struct command_spec spec = {
        .name = "ledger",
        .positional = "MODEL...",
        .summary = "Compares models with the first one: bytes on disk, parameters, work, memory, "
                   "speed,\nand how well they predict a text. A model is a file or a directory.",
        .options = options,
        .notes = "memory: weights and the largest program's activations and state. prefill/s and "
                 "decode/s:\ntokens per second, medians over the rounds.\n\nExample: itera ledger "
                 "big.safetensors small.q4.safetensors --data valid.txt --html ledger.html",
        .min = 1,
        .max = -1};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    if (!l.data) {
        options_free(&args);
        return options_usage(&spec, "--data SRC is needed: text that the models were not trained "
                                    "on");
    }
    code = EXIT_FAILED;
    l.seconds = seconds;
    l.n = args.n;
    l.entries = calloc((size_t)args.n, sizeof *l.entries);
    if (!l.entries) {
        command_error("no memory for %d models", args.n);
    } else if (output_json_check(json.value) == EXIT_OK &&
               (!html || output_file_check(html, "the report") == EXIT_OK) &&
               !device_open(&request, &l.device)) {
        for (int i = 0; i < args.n; i++)
            l.entries[i].path = args.positional[i];
        shorten_names(&l);
        code = run(&l, exact, &json, html);
    }
    for (int i = 0; i < l.n && l.entries; i++)
        itera_model_destroy(&l.entries[i].model);
    free(l.entries);
    device_report_fallback(l.device);
    itera_device_close(&l.device);
    options_free(&args);
    return code;
}
