/* itera ledger: what models cost and what they are worth, side by side. */
#include "commands/ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/device_request.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "cli/output.h"

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

static int run(struct ledger *l, const struct itera_load_options *load,
               const struct option_optional *json, const char *html)
{
    if (ledger_measure(l, load))
        return EXIT_FAILED;
    for (int i = 0; i < l->n; i++)
        if (l->entries[i].unknown)
            command_note("%llu tokens of the text are unknown to %s; its quality "
                         "does not compare with other tokenizers",
                         (unsigned long long)l->entries[i].unknown, l->entries[i].name);
    if (!output_on_stdout(json))
        ledger_print(l);
    int code = html ? ledger_report(l, html) : EXIT_OK;
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
    struct itera_load_options load = {0};
    const char *precision = NULL;
    double seconds = 0.5;
    const struct command_option options[] = {
        {"data", 0, OPTION_INPUT, &l.data, "SRC",
         "held-out text for the quality: builtin:stories?valid, a\nfile, a folder, or a comma "
         "list"},
        DEVICE_OPTIONS(request),
        {"prompt", 0, OPTION_INTEGER, &l.prompt, "N", "tokens of the prefill (default: 128)", 1,
         1 << 20},
        {"rounds", 0, OPTION_INTEGER, &l.rounds, "N",
         "times that each model is measured, in turns (default: 5)", 1, LEDGER_ROUNDS},
        {"seconds", 0, OPTION_NUMBER, &seconds, "S", "of each measurement of speed (default: 0.5)",
         0.01, 600},
        {"window", 'w', OPTION_INTEGER, &l.window, "N",
         "tokens that a model sees at once for its quality (default:\nits learned positions, or "
         "1024)",
         1, 1 << 20},
        {"max-tokens", 0, OPTION_INTEGER, &l.tokens, "N",
         "stop the quality after about N tokens (default: all)", 1, 9e15},
        EXACT_OPTION(load.exact),
        PRECISION_OPTION(precision),
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
    precision_take(precision, &load.exact, &load.half);
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
        code = run(&l, &load, &json, html);
    }
    for (int i = 0; i < l.n && l.entries; i++)
        itera_model_destroy(&l.entries[i].model);
    free(l.entries);
    device_report_fallback(l.device);
    itera_device_close(&l.device);
    options_free(&args);
    return code;
}
