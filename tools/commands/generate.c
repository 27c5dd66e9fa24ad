/* itera generate: text from a model, as it comes. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/stop.h"
#include "commands/generate.h"

/* Prompts are read whole; this is beyond any use. */
enum { MAX_PROMPT = 64 << 20, CHECK_EVERY = 64 };

struct generation {
    const struct generate_request *request;
    const struct itera_tokenizer *tokenizer;
    struct itera_session *session;
    int32_t vocab;
    FILE *text; /* where the text goes as it comes; NULL: nowhere */
    bool terminal;
    char last;      /* byte of the text */
    double flushed; /* when */
    struct itera_utf8_stream stream;
    struct itera_tokens prompt, generated;
    char *collected; /* the generated text, for JSON */
    size_t length, capacity;
    float *logits;
    double prefill_seconds, decode_seconds;
    uint64_t prefilled; /* tokens that prefill_seconds is of */
    int64_t decoded;    /* tokens that decode_seconds is of */
    const char *stopped;
};

/* ---- prompt ---------------------------------------------------------------------------------- */

static char *read_all(FILE *file, const char *name, size_t *length)
{
    size_t capacity = 1 << 16, used = 0;
    char *text = malloc(capacity);
    while (text) {
        used += fread(text + used, 1, capacity - used, file);
        if (used < capacity)
            break;
        if (capacity >= MAX_PROMPT) {
            command_error("%s: a prompt of more than %d MiB", name, MAX_PROMPT >> 20);
            free(text);
            return NULL;
        }
        capacity *= 2;
        char *grown = realloc(text, capacity);
        if (!grown)
            free(text);
        text = grown;
    }
    if (!text) {
        command_error("%s: no memory for the prompt", name);
        return NULL;
    }
    if (ferror(file)) {
        command_error("%s: cannot read: %s", name, strerror(errno));
        free(text);
        return NULL;
    }
    *length = used;
    return text;
}

/* The prompt's bytes; NULL after an error, which has been printed. */
char *generate_prompt(const struct generate_request *r, size_t *length)
{
    *length = 0;
    const char *path = r->prompts ? r->prompts : r->prompt_file;
    if ((r->prompt && !strcmp(r->prompt, "-")) || (r->prompts && !strcmp(path, "-")))
        return read_all(stdin, "stdin", length);
    if (path) {
        FILE *file = fopen(path, "rb");
        if (!file) {
            command_error("%s: cannot open: %s", path, strerror(errno));
            return NULL;
        }
        char *text = read_all(file, path, length);
        fclose(file);
        return text;
    }
    const char *given = r->prompt ? r->prompt : "";
    *length = strlen(given);
    return strdup(given);
}

/* ---- text ------------------------------------------------------------------------------------ */

static bool collect(struct generation *g, const char *bytes, size_t length)
{
    if (!g->request->json.given || !length)
        return true;
    if (g->length + length > g->capacity) {
        size_t capacity = (g->length + length) * 2 + 256;
        char *grown = realloc(g->collected, capacity);
        if (!grown) {
            command_error("generate: out of memory");
            return false;
        }
        g->collected = grown;
        g->capacity = capacity;
    }
    memcpy(g->collected + g->length, bytes, length);
    g->length += length;
    return true;
}

/* On a terminal every token shows at once; a pipe or file gets them ten times a second. */
static void show(struct generation *g, const char *bytes, size_t length, bool last)
{
    if (!g->text)
        return;
    fwrite(bytes, 1, length, g->text);
    if (length)
        g->last = bytes[length - 1];
    double time = g->terminal ? 0 : progress_seconds();
    if (g->terminal || last || time - g->flushed > 0.1) {
        fflush(g->text);
        g->flushed = time;
    }
}

static bool emit(struct generation *g, const char *bytes, size_t length)
{
    char small[ITERA_UTF8_ROOM(256)];
    size_t room = ITERA_UTF8_ROOM(length);
    char *out = room <= sizeof small ? small : malloc(room);
    if (!out) {
        command_error("generate: out of memory");
        return false;
    }
    size_t n = itera_utf8_stream_push(&g->stream, bytes, length, out);
    show(g, out, n, false);
    bool good = collect(g, out, n);
    if (out != small)
        free(out);
    return good;
}

static bool emit_token(struct generation *g, int32_t id)
{
    const char *bytes;
    size_t length;
    if (itera_tokenizer_decode(g->tokenizer, id, ITERA_TEXT_SPECIAL, &bytes, &length))
        return false;
    return emit(g, bytes, length);
}

static bool emit_end(struct generation *g)
{
    char out[ITERA_UTF8_ROOM(0)];
    size_t n = itera_utf8_stream_finish(&g->stream, out);
    show(g, out, n, true);
    return collect(g, out, n);
}

/* ---- generation ------------------------------------------------------------------------------ */

static bool keep(struct itera_tokens *tokens, int32_t id)
{
    if (tokens->count == tokens->capacity) {
        size_t capacity = tokens->capacity ? tokens->capacity * 2 : 256;
        int32_t *grown = realloc(tokens->ids, capacity * sizeof *grown);
        if (!grown) {
            command_error("generate: out of memory");
            return false;
        }
        tokens->ids = grown;
        tokens->capacity = capacity;
    }
    tokens->ids[tokens->count++] = id;
    return true;
}

/* Weights are finite when a model loads, but what it computes may still overflow. */
static bool finite_logits(struct generation *g)
{
    if (itera_session_logits(g->session, g->logits))
        return false;
    for (int32_t i = 0; i < g->vocab; i++) {
        if (isfinite(g->logits[i]))
            continue;
        command_error("the model's logits are not finite after %llu tokens: its weights are "
                      "broken, or too large",
                      (unsigned long long)itera_session_tokens_read(g->session));
        return false;
    }
    return true;
}

static int on_prefill(void *user, size_t done, size_t total)
{
    (void)user;
    if (done == total)
        progress_finish(0);
    else
        progress_update((double)done, NULL);
    return done < total && stop_asked();
}

static bool run(struct generation *g)
{
    const struct generate_request *r = g->request;
    if (itera_session_warm(g->session, g->prompt.count ? g->prompt.count : 1))
        return false;
    double begin = progress_seconds();
    progress_start("prompt", "tok", (double)g->prompt.count);
    const enum itera_status read =
        itera_session_prefill(g->session, g->prompt.ids, g->prompt.count);
    progress_finish(0);
    if (read == ITERA_ERR_CANCELLED) {
        g->stopped = "interrupted";
        g->prefilled = itera_session_tokens_run(g->session);
        return emit_end(g);
    }
    if (read)
        return false;
    g->prefill_seconds = progress_seconds() - begin;
    /* Of a prompt longer than its window, the model sees the end alone. */
    g->prefilled = itera_session_tokens_run(g->session);
    if (!finite_logits(g))
        return false;
    g->stopped = "length";
    begin = progress_seconds();
    double spent_before = 0;
    for (int64_t i = 0; i < r->count && !stop_asked(); i++) {
        int32_t id;
        /* Not past the next look at the logits, which are those of the last token asked for. */
        if (i % CHECK_EVERY == 0 &&
            itera_session_run_ahead(
                g->session, (uint64_t)(r->count - i < CHECK_EVERY ? r->count - i : CHECK_EVERY)))
            return false;
        if (itera_session_next(g->session, &id))
            return false;
        /* The first token comes from the prompt's logits; the others cost a step each. */
        if (i == 0)
            spent_before = progress_seconds() - begin;
        else
            g->decoded++;
        if (!r->ignore_eot && itera_tokenizer_is_end(g->tokenizer, id)) {
            g->stopped = "end-of-text";
            break;
        }
        if (!keep(&g->generated, id) || !emit_token(g, id))
            return false;
        if (i % CHECK_EVERY == CHECK_EVERY - 1 && !finite_logits(g))
            return false;
        if (i % CHECK_EVERY == 0 && g->text && !output_arrives())
            break; /* nobody reads any more */
    }
    g->decode_seconds = progress_seconds() - begin - spent_before;
    if (stop_asked())
        g->stopped = "interrupted";
    return emit_end(g);
}

static double rate(double n, double seconds)
{
    return seconds > 0 ? n / seconds : 0;
}

static void print_rates(const struct generation *g)
{
    char part[48] = "";
    double decode = rate((double)g->decoded, g->decode_seconds);
    if (g->prefilled < g->prompt.count)
        snprintf(part, sizeof part, "the last %llu of ", (unsigned long long)g->prefilled);
    progress_line("prefill: %s%zu tokens, %.0f tokens/s; decode: %lld tokens, %.0f tokens/s, "
                  "%.4g ms/token; stopped: %s",
                  part, g->prompt.count ? g->prompt.count : 1,
                  rate((double)g->prefilled, g->prefill_seconds), (long long)g->decoded, decode,
                  decode > 0 ? 1e3 / decode : 0.0, g->stopped);
}

static json_t *id_list(const struct itera_tokens *tokens)
{
    json_t *list = json_array();
    for (size_t i = 0; i < tokens->count; i++)
        json_array_append_new(list, json_integer(tokens->ids[i]));
    return list;
}

static int write_json(const struct generation *g, const struct itera_device *device,
                      const char *prompt, size_t prompt_length)
{
    const struct generate_request *r = g->request;
    size_t read = g->prompt.count ? g->prompt.count : 1;
    double decode = rate((double)g->decoded, g->decode_seconds);
    /* A prompt that is not UTF-8 cannot be a JSON string. */
    json_t *text = json_stringn(prompt, prompt_length);
    json_t *root = json_pack(
        "{s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:s, s:o, s:o, s:o, s:s, s:I, s:o}", "prompt",
        text ? text : json_null(), "text", json_stringn(g->length ? g->collected : "", g->length),
        "prompt_ids", id_list(&g->prompt), "ids", id_list(&g->generated), "prompt_tokens",
        (json_int_t)read, "prefill_tokens", (json_int_t)g->prefilled, "tokens",
        (json_int_t)g->generated.count, "stopped", g->stopped, "prefill_tokens_per_second",
        output_number(rate((double)g->prefilled, g->prefill_seconds)), "decode_tokens_per_second",
        output_number(decode), "milliseconds_per_token",
        output_number(decode > 0 ? 1e3 / decode : 0), "device", itera_device_info(device)->id,
        "seed", (json_int_t)r->seed, "fallback_ops", device_fallback_json(device));
    int code = output_json(root, r->json.value);
    json_decref(root);
    return code;
}

struct itera_sampling generate_sampling(const struct generate_request *r, uint64_t index)
{
    return (struct itera_sampling){.temperature = (float)r->temperature,
                                   .top_k = (int32_t)r->top_k,
                                   .top_p = (float)r->top_p,
                                   .min_p = (float)r->min_p,
                                   .presence = (float)r->presence,
                                   .frequency = (float)r->frequency,
                                   .repetition = (float)r->repetition,
                                   .seed = (uint64_t)r->seed + index};
}

static int generate(struct itera_model *model, const struct itera_device *device,
                    const struct generate_request *r)
{
    struct generation g = {.request = r, .stopped = ""};
    size_t length = 0;
    char *prompt = NULL;
    int code = EXIT_FAILED;
    if (!output_on_stdout(&r->json))
        g.text = stdout;
    g.terminal = isatty(STDOUT_FILENO);
    g.vocab = itera_model_info(model)->vocab;
    g.tokenizer = itera_model_tokenizer(model);
    if (!g.tokenizer) {
        command_error("the model has no tokenizer; name one with --tokenizer FILE");
        return EXIT_FAILED;
    }
    const struct itera_session_options options = {.positions = (int32_t)r->positions,
                                                  .progress = on_prefill};
    const struct itera_sampling sampling = generate_sampling(r, 0);
    g.logits = malloc((size_t)g.vocab * sizeof *g.logits);
    prompt = generate_prompt(r, &length);
    if (!g.logits)
        command_error("generate: out of memory");
    if (g.logits && prompt &&
        !itera_tokenizer_encode(g.tokenizer, prompt, length, r->special ? ITERA_TEXT_SPECIAL : 0,
                                &g.prompt) &&
        !itera_session_create(model, &options, &g.session) &&
        !itera_session_set_sampling(g.session, 0, &sampling)) {
        stop_catch();
        /* What there is to say meanwhile is said after the text. */
        progress_hold(g.text != NULL);
        if (!r->no_echo)
            show(&g, prompt, length, false);
        bool good = run(&g);
        /* A terminal's next line, and a pipe's or file's last one. */
        if (g.text && (g.terminal || g.last != '\n'))
            show(&g, "\n", 1, true);
        progress_hold(false);
        if (good)
            print_rates(&g);
        code = good ? EXIT_OK : EXIT_FAILED;
        if (good && r->json.given)
            code = write_json(&g, device, prompt, length);
    }
    itera_session_destroy(&g.session);
    itera_tokens_free(&g.prompt);
    itera_tokens_free(&g.generated);
    free(g.collected);
    free(g.logits);
    free(prompt);
    return code;
}

int itera_command_generate(int argc, char **argv)
{
    struct generate_request r = {
        .count = 256, .samples = 1, .batch = 16, .temperature = 0.8, .top_p = 1, .seed = 0};
    const struct command_option options[] = {
        {"prompt", 'p', OPTION_STRING, &r.prompt, "TEXT",
         "what to go on from; - reads it from stdin (default: nothing,\nwhich stands for "
         "end-of-text)"},
        {"prompt-file", 'f', OPTION_INPUT, &r.prompt_file, "FILE", "read the prompt from a file"},
        {"prompts", 0, OPTION_INPUT, &r.prompts, "FILE",
         "a prompt in each line, - for stdin: all are continued,\nseveral at once, and come out in "
         "their order"},
        {"samples", 0, OPTION_INTEGER, &r.samples, "N",
         "so many texts of each prompt, with the seeds that follow\n(default: 1)", 1, 1e6},
        {"batch", 'b', OPTION_INTEGER, &r.batch, "B",
         "texts that --prompts and --samples compute at once\n(default: 16)", 1, 4096},
        {"tokens", 'n', OPTION_INTEGER, &r.count, "N", "tokens to generate (default: 256)", 0,
         1e15},
        {"temp", 0, OPTION_NUMBER, &r.temperature, "X",
         "temperature; 0 always takes the most likely token\n(default: 0.8)", 0, 1e6},
        {"top-k", 0, OPTION_INTEGER, &r.top_k, "K", "only the K most likely tokens (default: all)",
         0, 1e9},
        {"top-p", 0, OPTION_NUMBER, &r.top_p, "P",
         "only the most likely tokens that together have\nprobability P (default: 1, all)", 0, 1},
        {"min-p", 0, OPTION_NUMBER, &r.min_p, "P",
         "only tokens at least P times as likely as the most\nlikely (default: 0, all)", 0, 1},
        {"presence", 0, OPTION_NUMBER, &r.presence, "X",
         "taken off the logits of tokens that were generated\nbefore, once (default: 0)", -1e6,
         1e6},
        {"frequency", 0, OPTION_NUMBER, &r.frequency, "X", "the same each time (default: 0)", -1e6,
         1e6},
        {"repetition", 0, OPTION_NUMBER, &r.repetition, "X",
         "divides the logits of the same tokens, or multiplies\nthem below 0 (default: 1)", 0,
         1000},
        {"seed", 's', OPTION_INTEGER, &r.seed, "N", "of the random choices (default: 0)", 0, 9e15},
        DEVICE_OPTIONS(r.device),
        EXACT_OPTION(r.load.exact),
        PRECISION_OPTION(r.precision),
        {"tokenizer", 0, OPTION_INPUT, &r.tokenizer, "FILE", "for a model that comes without one"},
        {"positions", 0, OPTION_INTEGER, &r.positions, "N",
         "models with learned positions: use at most N of them", 1, 1e9},
        {"special", 0, OPTION_FLAG, &r.special, NULL,
         "<|endoftext|> and the like in the prompt are tokens"},
        {"ignore-eot", 0, OPTION_FLAG, &r.ignore_eot, NULL, "go on after end-of-text"},
        {"no-echo", 0, OPTION_FLAG, &r.no_echo, NULL, "print the new text without the prompt"},
        {"json", 0, OPTION_OPTIONAL, &r.json, "FILE", "write JSON to FILE, or to stdout"},
        {0}};
    const struct command_spec spec = {
        .name = "generate",
        .positional = "MODEL",
        .summary = "Continues a prompt. The text goes to stdout as it comes, rates to stderr.",
        .notes = "Ctrl-C ends the text early. MODEL is a safetensors file or a directory.",
        .options = options,
        .min = 1,
        .max = 1};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    precision_take(r.precision, &r.load.exact, &r.load.half);
    if (!!r.prompt + !!r.prompt_file + !!r.prompts > 1) {
        options_free(&args);
        return options_usage(&spec, "--prompt, --prompt-file and --prompts exclude each other");
    }
    if (output_json_check(r.json.value) != EXIT_OK) {
        options_free(&args);
        return EXIT_FAILED;
    }
    struct itera_device *device = NULL;
    struct itera_model *model = NULL;
    code = EXIT_FAILED;
    if (!device_open(&r.device, &device) &&
        !itera_model_load_as(device, args.positional[0], &r.load, &model)) {
        struct itera_tokenizer *tokenizer = NULL;
        bool ready = true;
        if (r.tokenizer)
            ready = !itera_tokenizer_open(r.tokenizer, &tokenizer) &&
                    !itera_model_set_tokenizer(model, tokenizer);
        if (ready)
            code = r.prompts || r.samples > 1 ? generate_many(model, device, &r)
                                              : generate(model, device, &r);
        else
            itera_tokenizer_destroy(&tokenizer);
    }
    itera_model_destroy(&model);
    device_report_fallback(device);
    itera_device_close(&device);
    options_free(&args);
    return code;
}
