/* itera tokenize: the token ids of texts. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "itera/model.h"
#include "itera/tokenizer.h"

struct request {
    const char *file;
    bool null, special, pieces, count;
    struct option_optional json;
    json_t *texts; /* where JSON is asked for: {"tokens", "ids"} of each text */
};

static bool ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && !strcmp(text + a - b, end);
}

/* Of a tokenizer's file or directory, "byte", or a model with a tokenizer. */
static struct itera_tokenizer *open_tokenizer(const char *source)
{
    struct itera_tokenizer *tokenizer = NULL;
    if (!ends_with(source, ".safetensors")) {
        if (itera_tokenizer_create(source, NULL, &tokenizer))
            return NULL;
        return tokenizer;
    }
    if (!itera_model_open_tokenizer(source, &tokenizer) && !tokenizer)
        command_error("%s: the model has no tokenizer", source);
    return tokenizer;
}

static char *read_all(const char *path, size_t *length)
{
    FILE *file = path && strcmp(path, "-") ? fopen(path, "rb") : stdin;
    const char *name = file == stdin ? "stdin" : path;
    if (!file) {
        command_error("%s: cannot open: %s", name, strerror(errno));
        return NULL;
    }
    size_t capacity = 1 << 16;
    char *text = malloc(capacity);
    *length = 0;
    while (text) {
        *length += fread(text + *length, 1, capacity - *length, file);
        if (*length < capacity)
            break;
        char *grown = realloc(text, capacity *= 2);
        if (!grown)
            free(text);
        text = grown;
    }
    if (!text) {
        command_error("%s: no memory to read it", name);
    } else if (ferror(file)) {
        command_error("%s: cannot read: %s", name, strerror(errno));
        free(text);
        text = NULL;
    }
    if (file != stdin)
        fclose(file);
    return text;
}

/* A token as text that shows all it has: what is not a printable character as \xNN. */
static void print_piece(const char *bytes, size_t length)
{
    struct itera_utf8_stream stream = {0};
    char room[ITERA_UTF8_ROOM(1)];
    bool whole = true;
    for (size_t i = 0; i < length && whole; i++) {
        size_t n = itera_utf8_stream_push(&stream, bytes + i, 1, room);
        whole = n != 3 || memcmp(room, "\xEF\xBF\xBD", 3) != 0;
    }
    whole &= stream.count == 0;
    putchar('"');
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)bytes[i];
        /* The controls of Latin-1 are two bytes, the first of which is 0xC2. */
        bool control = c < 0x20 || c == 0x7F ||
                       (c == 0xC2 && i + 1 < length && (unsigned char)bytes[i + 1] < 0xA0);
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c == '\n')
            fputs("\\n", stdout);
        else if (control || (c >= 0x80 && !whole))
            printf("\\x%02X", c);
        else
            putchar(c);
    }
    putchar('"');
}

static bool add_json(const struct request *r, const struct itera_tokens *tokens)
{
    json_t *ids = json_array();
    bool good = ids;
    for (size_t i = 0; i < tokens->count && good; i++)
        good = json_array_append_new(ids, json_integer(tokens->ids[i])) == 0;
    json_t *text = json_pack("{s:I, s:o}", "tokens", (json_int_t)tokens->count, "ids", ids);
    good = json_array_append_new(r->texts, text) == 0 && good;
    if (!good)
        command_error("tokenize: no memory for the JSON");
    return good;
}

static bool print_text(const struct itera_tokenizer *tokenizer, const struct request *r,
                       const char *text, size_t length)
{
    struct itera_tokens tokens = {0};
    unsigned flags = r->special ? ITERA_TEXT_SPECIAL : ITERA_TEXT_PLAIN;
    bool good = !itera_tokenizer_encode(tokenizer, text, length, flags, &tokens);
    bool ids = !r->count && !r->texts;
    if (good && r->texts)
        good = add_json(r, &tokens);
    else if (good && r->count)
        printf("%zu\n", tokens.count);
    for (size_t i = 0; i < tokens.count && good && ids; i++) {
        const char *bytes;
        size_t size;
        if (!r->pieces) {
            printf("%s%d", i ? " " : "", (int)tokens.ids[i]);
            continue;
        }
        good = !itera_tokenizer_decode(tokenizer, tokens.ids[i], ITERA_TEXT_SPECIAL, &bytes, &size);
        printf("%d\t", (int)tokens.ids[i]);
        print_piece(bytes, good ? size : 0);
        putchar('\n');
    }
    if (good && ids && !r->pieces)
        putchar('\n');
    itera_tokens_free(&tokens);
    return good;
}

static bool print_all(const struct itera_tokenizer *tokenizer, const struct request *r,
                      const char *text, size_t length)
{
    if (!r->null)
        return print_text(tokenizer, r, text, length);
    bool good = true;
    for (size_t at = 0; at < length && good && output_arrives();) {
        const char *end = memchr(text + at, 0, length - at);
        size_t size = end ? (size_t)(end - (text + at)) : length - at;
        good = print_text(tokenizer, r, text + at, size);
        at += size + 1;
    }
    return good;
}

static int run(struct request *r, const char *source, const char *given)
{
    int code = EXIT_FAILED;
    struct itera_tokenizer *tokenizer = open_tokenizer(source);
    size_t length = given ? strlen(given) : 0;
    char *text = !tokenizer ? NULL : given ? strdup(given) : read_all(r->file, &length);
    if (r->json.given)
        r->texts = json_array();
    if (text && print_all(tokenizer, r, text, length))
        code = EXIT_OK;
    if (code == EXIT_OK && r->json.given) {
        json_t *root = json_pack("{s:O}", "texts", r->texts);
        code = output_json(root, r->json.value);
        json_decref(root);
    }
    json_decref(r->texts);
    free(text);
    itera_tokenizer_destroy(&tokenizer);
    return code;
}

int itera_command_tokenize(int argc, char **argv)
{
    struct request r = {0};
    const struct command_option options[] = {
        {"file", 'f', OPTION_INPUT, &r.file, "FILE",
         "read the text from FILE instead of the arguments; - is stdin"},
        {"null", '0', OPTION_FLAG, &r.null, NULL,
         "zero bytes separate texts: a line of ids for each of them"},
        {"special", 0, OPTION_FLAG, &r.special, NULL,
         "<|endoftext|> and the like in a text are tokens"},
        {"pieces", 0, OPTION_FLAG, &r.pieces, NULL,
         "a line for each token: its id and what it stands for"},
        {"count", 0, OPTION_FLAG, &r.count, NULL, "print how many tokens there are, not which"},
        {"json", 0, OPTION_OPTIONAL, &r.json, "FILE", "write JSON to FILE, or to stdout"},
        {0}};
    const struct command_spec spec = {
        .name = "tokenize",
        .positional = "TOKENIZER [TEXT]",
        .summary = "Prints the token ids of a text.",
        .notes =
            "TOKENIZER is a tokenizer.json, a directory with one, a vocab.json beside its\n"
            "merges.txt, a model file (safetensors) with a tokenizer, or byte. Without TEXT and\n"
            "--file the text comes from stdin.",
        .options = options,
        .min = 1,
        .max = 2};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    const char *given = args.n > 1 ? args.positional[1] : NULL;
    if (given && r.file)
        code = options_usage(&spec, "TEXT and --file exclude each other");
    else if (r.pieces && (r.count || r.null || r.json.given))
        code = options_usage(&spec, "--pieces goes with none of --count, --null and --json");
    else if (output_json_check(r.json.value) != EXIT_OK)
        code = EXIT_FAILED;
    else
        code = run(&r, args.positional[0], given);
    options_free(&args);
    return code;
}
