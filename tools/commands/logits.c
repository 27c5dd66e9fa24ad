/* itera logits: the logits of a sequence of token ids, for comparison with other programs. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/device_request.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "itera/eval.h"

enum { MAX_TOKENS = 1 << 22 };

/* Ids separated by commas or white space; brackets around them are skipped, so that JSON lists
 * read too. Returns a malloc'd list, or NULL after printing why. */
static int32_t *parse_ids(const char *text, const char *source, int64_t *count)
{
    int64_t capacity = 256, n = 0;
    int32_t *ids = malloc((size_t)capacity * sizeof *ids);
    for (const char *p = text; ids;) {
        while (*p && (isspace((unsigned char)*p) || strchr(",[]", *p)))
            p++;
        if (!*p) {
            if (n)
                break;
            command_error("%s: no token ids", source);
            goto fail;
        }
        char *end;
        errno = 0;
        long long value = strtoll(p, &end, 10);
        if (end == p || (*end && !isspace((unsigned char)*end) && !strchr(",[]", *end))) {
            command_error("%s: '%.20s' is no token id; expected numbers like 1,2,3", source, p);
            goto fail;
        }
        if (errno || value < 0 || value > INT32_MAX) {
            command_error("%s: token id %.20s is out of range", source, p);
            goto fail;
        }
        if (n == MAX_TOKENS) {
            command_error("%s: more than %d token ids", source, MAX_TOKENS);
            goto fail;
        }
        if (n == capacity) {
            capacity *= 2;
            int32_t *grown = realloc(ids, (size_t)capacity * sizeof *ids);
            if (!grown) {
                command_error("%s: no memory for the token ids", source);
                goto fail;
            }
            ids = grown;
        }
        ids[n++] = (int32_t)value;
        p = end;
    }
    *count = n;
    return ids;
fail:
    free(ids);
    return NULL;
}

static char *read_text(const char *path)
{
    FILE *file = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    if (!file) {
        command_error("%s: cannot open: %s", path, strerror(errno));
        return NULL;
    }
    size_t capacity = 1 << 16, used = 0;
    char *text = malloc(capacity);
    while (text && capacity < (size_t)1 << 27) {
        used += fread(text + used, 1, capacity - 1 - used, file);
        if (used < capacity - 1)
            break;
        char *grown = realloc(text, capacity *= 2);
        if (!grown)
            free(text);
        text = grown;
    }
    if (!text)
        command_error("%s: no memory to read it", path);
    else if (ferror(file)) {
        command_error("%s: cannot read: %s", path, strerror(errno));
        free(text);
        text = NULL;
    }
    if (text)
        text[used] = 0;
    if (file != stdin)
        fclose(file);
    return text;
}

static int write_logits(struct itera_model *model, const int32_t *ids, int64_t count,
                        const char *out)
{
    int64_t vocab = itera_model_info(model)->vocab;
    float *logits = malloc((size_t)count * (size_t)vocab * sizeof *logits);
    if (!logits) {
        command_error("no memory for %lld x %lld logits", (long long)count, (long long)vocab);
        return EXIT_FAILED;
    }
    enum itera_status status = itera_logits(model, ids, 1, count, logits);
    if (!status) {
        int64_t broken = 0;
        for (int64_t i = 0; i < count * vocab; i++)
            broken += !isfinite(logits[i]);
        if (broken)
            progress_line("itera: warning: %lld of %lld logits are not finite", (long long)broken,
                          (long long)(count * vocab));
        status = itera_logits_save(logits, count, vocab, out);
    }
    if (!status)
        progress_line("%s: logits (%lld, %lld) f32", out, (long long)count, (long long)vocab);
    free(logits);
    return status ? EXIT_FAILED : EXIT_OK;
}

int itera_command_logits(int argc, char **argv)
{
    const char *tokens = NULL, *tokens_file = NULL, *out = NULL;
    struct device_request request = {0};
    struct itera_load_options load = {0};
    const char *precision = NULL;
    const struct command_option options[] = {
        {"tokens", 0, OPTION_STRING, &tokens, "IDS", "token ids: 1,2,3"},
        {"tokens-file", 0, OPTION_INPUT, &tokens_file, "FILE",
         "read the ids from a file (- is stdin)"},
        {"output", 'o', OPTION_OUTPUT, &out, "FILE",
         "safetensors file to write: tensor `logits` (T, V) f32"},
        DEVICE_OPTIONS(request),
        EXACT_OPTION(load.exact),
        PRECISION_OPTION(precision),
        {0}};
    const struct command_spec spec = {
        .name = "logits",
        .positional = "MODEL",
        .summary = "Writes the logits of every position of one sequence of token ids.",
        .options = options,
        .min = 1,
        .max = 1};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    precision_take(precision, &load.exact, &load.half);
    code = EXIT_USAGE;
    if (!tokens == !tokens_file)
        options_usage(&spec, "one of --tokens and --tokens-file is needed");
    else if (!out)
        options_usage(&spec, "-o FILE is needed");
    else
        code = EXIT_FAILED;
    char *text = NULL;
    int32_t *ids = NULL;
    int64_t count = 0;
    if (code == EXIT_FAILED && tokens_file)
        text = read_text(tokens_file);
    if (code == EXIT_FAILED && (tokens || text))
        ids = parse_ids(tokens ? tokens : text, tokens ? "--tokens" : tokens_file, &count);
    if (tokens && !ids)
        code = EXIT_USAGE;
    struct itera_device *device = NULL;
    struct itera_model *model = NULL;
    if (ids && !device_open(&request, &device) &&
        !itera_model_load_as(device, args.positional[0], &load, &model))
        code = write_logits(model, ids, count, out);
    itera_model_destroy(&model);
    device_report_fallback(device);
    itera_device_close(&device);
    free(ids);
    free(text);
    options_free(&args);
    return code;
}
