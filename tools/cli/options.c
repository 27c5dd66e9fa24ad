#include "cli/options.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/command.h"
#include "cli/help.h"

/* Lists are kept in a chain of blocks, freed together. */
struct block {
    struct block *next;
};

static void *keep(struct command_args *args, size_t bytes)
{
    struct block *block = calloc(1, sizeof *block + bytes);
    if (!block)
        return NULL;
    block->next = args->memory;
    args->memory = block;
    return block + 1;
}

void options_free(struct command_args *args)
{
    for (struct block *block = args->memory, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    *args = (struct command_args){0};
}

int options_usage(const struct command_spec *spec, const char *format, ...)
{
    char message[512];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    command_error("%s: %s (`itera %s --help` lists the options)", spec->name, message, spec->name);
    return EXIT_USAGE;
}

/* Edit distance with swaps of neighbours (optimal string alignment); words longer than the rows
 * are no typing slips of any name we have. */
static int edit_distance(const char *a, const char *b)
{
    enum { ROOM = 40 };
    size_t n = strlen(a), m = strlen(b);
    if (n >= ROOM || m >= ROOM)
        return ROOM;
    int rows[3][ROOM];
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = (int)j;
    int *before = rows[2], *last = rows[0], *now = rows[1];
    for (size_t i = 1; i <= n; i++) {
        now[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        int *free_row = before;
        before = last;
        last = now;
        now = free_row;
    }
    return last[m];
}

const char *options_closest(const char *word, const char *const *words, int n)
{
    const char *best = NULL;
    int limit = strlen(word) < 4 ? 1 : 2, best_distance = limit + 1;
    for (int i = 0; i < n; i++) {
        int distance = edit_distance(word, words[i]);
        /* An abbreviation is as good as one slip. */
        if (distance > 1 && strlen(word) >= 2 && strncmp(word, words[i], strlen(word)) == 0)
            distance = 1;
        if (distance < best_distance) {
            best_distance = distance;
            best = words[i];
        }
    }
    return best;
}

static bool out_of_range(const struct command_option *option, double value)
{
    return option->min != option->max && !(value >= option->min && value <= option->max);
}

static int range_error(const struct command_spec *spec, const struct command_option *option,
                       const char *text)
{
    if (option->kind == OPTION_NUMBER)
        return options_usage(spec, "--%s takes a number from %.15g to %.15g, not '%s'",
                             option->name, option->min, option->max, text);
    return options_usage(spec, "--%s takes %s from %.0f to %.0f, not '%s'", option->name,
                         option->kind == OPTION_INTEGERS ? "whole numbers" : "a whole number",
                         option->min, option->max, text);
}

/* The integer that all of `text` spells. */
static bool read_integer(const char *text, int64_t *value)
{
    char *end;
    if (*text == '\0' || strchr(" \t\n\v\f\r", *text))
        return false;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    *value = parsed;
    return errno == 0 && *end == '\0';
}

static bool read_number(const char *text, double *value)
{
    char *end;
    if (*text == '\0' || strchr(" \t\n\v\f\r", *text))
        return false;
    *value = strtod(text, &end);
    return *end == '\0' && isfinite(*value);
}

static bool is_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);
    for (const char *at = choices; *at;) {
        size_t width = strcspn(at, "|");
        if (width == length && memcmp(at, text, width) == 0)
            return true;
        at += width + (at[width] == '|');
    }
    return false;
}

static int choice_error(const struct command_spec *spec, const struct command_option *option,
                        const char *text)
{
    return options_usage(spec, "--%s is one of %s, not '%s'", option->name, option->choices, text);
}

/* Splits "a,b,c" into pieces of a kept copy; an empty piece is an error. */
static int split(const struct command_spec *spec, const struct command_option *option,
                 const char *text, struct command_args *args, char ***items, size_t *n)
{
    size_t count = 1;
    for (const char *at = text; *at; at++)
        count += *at == ',';
    char *copy = keep(args, strlen(text) + 1);
    char **list = keep(args, count * sizeof *list);
    if (!copy || !list)
        return options_usage(spec, "out of memory");
    strcpy(copy, text);
    for (size_t i = 0; i < count; i++) {
        char *comma = strchr(copy, ',');
        if (comma)
            *comma = '\0';
        if (*copy == '\0')
            return options_usage(spec, "--%s takes a list like %s, not '%s'", option->name,
                                 option->kind == OPTION_INTEGERS ? "1,2,8" : "a,b", text);
        list[i] = copy;
        copy = comma ? comma + 1 : copy;
    }
    *items = list;
    *n = count;
    return -1;
}

static int set_integers(const struct command_spec *spec, const struct command_option *option,
                        const char *text, struct command_args *args)
{
    struct option_integers *list = option->value;
    char **items = NULL;
    size_t n = 0;
    int code = split(spec, option, text, args, &items, &n);
    if (code >= 0)
        return code;
    int64_t *values = keep(args, n * sizeof *values);
    if (!values)
        return options_usage(spec, "out of memory");
    for (size_t i = 0; i < n; i++) {
        if (!read_integer(items[i], &values[i]))
            return options_usage(spec, "--%s takes whole numbers like 1,2,8; '%s' is none",
                                 option->name, items[i]);
        if (out_of_range(option, (double)values[i]))
            return range_error(spec, option, items[i]);
    }
    *list = (struct option_integers){n, values};
    return -1;
}

static int set_names(const struct command_spec *spec, const struct command_option *option,
                     const char *text, struct command_args *args)
{
    struct option_names *list = option->value;
    char **items = NULL;
    size_t n = 0;
    int code = split(spec, option, text, args, &items, &n);
    if (code >= 0)
        return code;
    for (size_t i = 0; option->choices && i < n; i++)
        if (!is_choice(option->choices, items[i]))
            return choice_error(spec, option, items[i]);
    if (option->kind == OPTION_EACH && list->n) {
        const char **all = keep(args, (list->n + n) * sizeof *all);
        if (!all)
            return options_usage(spec, "out of memory");
        memcpy(all, list->item, list->n * sizeof *all);
        memcpy(all + list->n, items, n * sizeof *all);
        *list = (struct option_names){list->n + n, all};
        return -1;
    }
    *list = (struct option_names){n, (const char *const *)items};
    return -1;
}

/* One more of what may be given several times; commas belong to it. */
static int add_name(const struct command_spec *spec, struct option_names *list, const char *text,
                    struct command_args *args)
{
    const char **all = keep(args, (list->n + 1) * sizeof *all);
    if (!all)
        return options_usage(spec, "out of memory");
    if (list->n)
        memcpy(all, list->item, list->n * sizeof *all);
    all[list->n] = text;
    *list = (struct option_names){list->n + 1, all};
    return -1;
}

/* Sets the option's value from text (NULL for a flag, or an optional value that is absent). */
static int set_value(const struct command_spec *spec, const struct command_option *option,
                     const char *text, struct command_args *args)
{
    if (option->given)
        *option->given = true;
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)option->value = true;
        return -1;
    case OPTION_STRING:
    case OPTION_INPUT:
    case OPTION_OUTPUT:
    case OPTION_FOLDER:
    case OPTION_SETTINGS:
        *(const char **)option->value = text;
        return -1;
    case OPTION_INPUTS:
        return add_name(spec, option->value, text, args);
    case OPTION_CHOICE:
        if (!is_choice(option->choices, text))
            return choice_error(spec, option, text);
        *(const char **)option->value = text;
        return -1;
    case OPTION_INTEGER: {
        int64_t value;
        if (!read_integer(text, &value))
            return options_usage(spec, "--%s takes a whole number, not '%s'", option->name, text);
        if (out_of_range(option, (double)value))
            return range_error(spec, option, text);
        *(int64_t *)option->value = value;
        return -1;
    }
    case OPTION_NUMBER: {
        double value;
        if (!read_number(text, &value))
            return options_usage(spec, "--%s takes a number, not '%s'", option->name, text);
        if (out_of_range(option, value))
            return range_error(spec, option, text);
        *(double *)option->value = value;
        return -1;
    }
    case OPTION_OPTIONAL:
        *(struct option_optional *)option->value = (struct option_optional){true, text};
        return -1;
    case OPTION_INTEGERS:
        return set_integers(spec, option, text, args);
    case OPTION_NAMES:
    case OPTION_EACH:
        return set_names(spec, option, text, args);
    }
    return -1;
}

static const struct command_option *find_option(const struct command_spec *spec, const char *name,
                                                size_t length)
{
    for (const struct command_option *option = spec->options; option->name; option++)
        if (strlen(option->name) == length && memcmp(option->name, name, length) == 0)
            return option;
    return NULL;
}

/* ---- files of options ------------------------------------------------------------------------ */

/* The value as it would stand on the command line, kept; NULL for what no option takes. */
static const char *value_text(const json_t *value, struct command_args *args)
{
    char number[64] = "";
    size_t room = 1;
    const json_t *item;
    size_t i;
    if (json_is_integer(value))
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(number, sizeof number, "%.17g", json_real_value(value));
    const char *text = json_is_string(value) ? json_string_value(value) : *number ? number : NULL;
    if (text) {
        char *copy = keep(args, strlen(text) + 1);
        return copy ? strcpy(copy, text) : NULL;
    }
    if (!json_is_array(value) || !json_array_size(value))
        return NULL;
    json_array_foreach(value, i, item)
    {
        text = json_is_array(item) ? NULL : value_text(item, args);
        if (!text)
            return NULL;
        room += strlen(text) + 1;
    }
    char *list = keep(args, room), *to = list;
    json_array_foreach(value, i, item)
    {
        text = value_text(item, args);
        if (!list || !text)
            return NULL;
        to = stpcpy(stpcpy(to, i ? "," : ""), text);
    }
    return list;
}

static int take_setting(const struct command_spec *spec, const char *file, const char *name,
                        const json_t *value, struct command_args *args)
{
    const struct command_option *option = find_option(spec, name, strlen(name));
    if (json_is_null(value))
        return -1;
    if (!option || option->kind == OPTION_SETTINGS)
        return options_usage(spec, "%s: there is no option '%.60s'", file, name);
    const bool flag = option->kind == OPTION_FLAG || option->kind == OPTION_OPTIONAL;
    if (flag && json_is_boolean(value))
        return json_is_true(value) ? set_value(spec, option, NULL, args) : -1;
    const char *text = option->kind == OPTION_FLAG ? NULL : value_text(value, args);
    if (!text)
        return options_usage(spec, "%s: \"%s\" is %s", file, name,
                             option->kind == OPTION_FLAG ? "true or false"
                                                         : "a string, a number or a list of them");
    return set_value(spec, option, text, args);
}

/* Before the command line is read, which then has the last word. */
static int take_settings(const struct command_spec *spec, int argc, char **argv,
                         struct command_args *args)
{
    const struct command_option *row = spec->options;
    while (row->name && row->kind != OPTION_SETTINGS)
        row++;
    const char *file = NULL;
    char joined[64];
    snprintf(joined, sizeof joined, "--%s=", row->name ? row->name : "");
    for (int i = 1; row->name && i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], joined, strlen(joined)) == 0)
            file = argv[i] + strlen(joined);
        else if (strncmp(argv[i], joined, strlen(joined) - 1) == 0 && i + 1 < argc &&
                 strlen(argv[i]) == strlen(joined) - 1)
            file = argv[i + 1];
    }
    if (!file)
        return -1;
    json_error_t error;
    json_t *root = json_load_file(file, JSON_REJECT_DUPLICATES, &error);
    int code = -1;
    if (!json_is_object(root)) {
        command_error("%s: %s", file, root ? "is no JSON object of options" : error.text);
        code = EXIT_FAILED;
    }
    for (void *at = json_object_iter(root); at && code < 0; at = json_object_iter_next(root, at))
        code = take_setting(spec, file, json_object_iter_key(at), json_object_iter_value(at), args);
    json_decref(root);
    return code;
}

static json_t *option_json(const struct command_option *option)
{
    double number;
    switch (option->kind) {
    case OPTION_STRING:
    case OPTION_INPUT:
    case OPTION_CHOICE:
        return *(const char *const *)option->value
                   ? json_string(*(const char *const *)option->value)
                   : NULL;
    case OPTION_INTEGER:
        number = (double)*(const int64_t *)option->value;
        return out_of_range(option, number)
                   ? NULL
                   : json_integer((json_int_t) * (const int64_t *)option->value);
    case OPTION_NUMBER:
        number = *(const double *)option->value;
        return out_of_range(option, number) ? NULL : json_real(number);
    default:
        return NULL; /* what is written where, and how it is shown */
    }
}

json_t *options_to_json(const struct command_option *options)
{
    json_t *root = json_object();
    for (const struct command_option *option = options; root && option->name; option++) {
        json_t *value = option_json(option);
        if (value)
            json_object_set_new(root, option->name, value);
    }
    return root;
}

/* Whether an argument behind `--json` is the file to write: not an option, not something that is
 * there already and is no JSON (`itera check --json MODEL` must not overwrite the model). */
static bool is_optional_value(const char *text)
{
    if (!text || text[0] == '\0')
        return false;
    if (text[0] == '-')
        return text[1] == '\0';
    size_t length = strlen(text);
    if (length > 12 && strcmp(text + length - 12, ".safetensors") == 0)
        return false;
    struct stat info;
    if (stat(text, &info) != 0)
        return true;
    if (S_ISDIR(info.st_mode))
        return false;
    if (!S_ISREG(info.st_mode) || info.st_size == 0)
        return true;
    FILE *file = fopen(text, "rb");
    int first = file ? getc(file) : EOF;
    if (file)
        fclose(file);
    return first == '{' || first == '[' || first == EOF;
}

static const struct command_option *find_letter(const struct command_spec *spec, char letter)
{
    for (const struct command_option *option = spec->options; option->name; option++)
        if (option->letter && option->letter == letter)
            return option;
    return NULL;
}

static int unknown_option(const struct command_spec *spec, const char *text)
{
    enum { ROOM = 64 };
    const char *names[ROOM];
    int n = 0;
    for (const struct command_option *option = spec->options; option->name && n < ROOM; option++)
        names[n++] = option->name;
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(text + 1, "="), text + 1);
    const char *near = text[1] == '-' ? options_closest(word + 1, names, n) : NULL;
    if (near)
        return options_usage(spec, "there is no option '%s'; did you mean '--%s'?", text, near);
    return options_usage(spec, "there is no option '%s'", text);
}

/* What parsing remembers of an optional value that stood in an argument of its own: it is given
 * back as a positional argument if one is missing in the end. */
struct loan {
    const struct command_option *option;
    char *text;
    int position; /* among the positional arguments */
};

/* Parses the option at argv[i]; *used counts further arguments taken. */
static int parse_option(const struct command_spec *spec, int i, int argc, char **argv,
                        struct command_args *args, struct loan *loan, int *used)
{
    char *text = argv[i];
    const struct command_option *option;
    const char *value = NULL;
    if (text[1] == '-') {
        const char *name = text + 2;
        size_t length = strcspn(name, "=");
        option = find_option(spec, name, length);
        if (name[length] == '=')
            value = name + length + 1;
    } else {
        option = find_letter(spec, text[1]);
        if (text[2] != '\0')
            value = text + 2 + (text[2] == '=');
    }
    if (!option)
        return unknown_option(spec, text);
    if (option->kind == OPTION_FLAG) {
        if (value)
            return options_usage(spec, "--%s takes no value", option->name);
    } else if (!value && option->kind == OPTION_OPTIONAL) {
        if (i + 1 < argc && is_optional_value(argv[i + 1])) {
            value = argv[i + 1];
            *loan = (struct loan){option, argv[i + 1], args->n};
            *used = 1;
        }
    } else if (!value) {
        if (i + 1 >= argc)
            return options_usage(spec, "--%s needs a value (%s)", option->name,
                                 option->argument ? option->argument : "VALUE");
        value = argv[i + 1];
        *used = 1;
    }
    return set_value(spec, option, value, args);
}

static int check_positionals(const struct command_spec *spec, struct command_args *args,
                             const struct loan *loan)
{
    if (args->n == spec->min - 1 && loan->option) {
        memmove(args->positional + loan->position + 1, args->positional + loan->position,
                (size_t)(args->n - loan->position) * sizeof *args->positional);
        args->positional[loan->position] = loan->text;
        args->n++;
        *(struct option_optional *)loan->option->value = (struct option_optional){true, NULL};
    }
    if (args->n < spec->min)
        return options_usage(spec, "%s is missing",
                             spec->min == 1 && spec->positional ? spec->positional : "an argument");
    if (spec->max >= 0 && args->n > spec->max)
        return options_usage(spec, "unexpected argument '%s'", args->positional[spec->max]);
    /* Mostly a shell variable that is not set. */
    const bool named = spec->positional && !strchr(spec->positional, ' ');
    const char *what = named ? spec->positional : "an argument";
    const int length = (int)strcspn(what, ".");
    for (int i = 0; i < args->n; i++)
        if (args->positional[i][0] == '\0')
            return options_usage(spec, "%.*s is empty", length, what);
    return -1;
}

int options_parse(const struct command_spec *spec, int argc, char **argv, struct command_args *args)
{
    *args = (struct command_args){0};
    args->positional = keep(args, ((size_t)argc + 1) * sizeof *args->positional);
    if (!args->positional)
        return options_usage(spec, "out of memory");
    struct loan loan = {0};
    bool options_over = false;
    int code = take_settings(spec, argc, argv, args);
    for (int i = 1; i < argc && code < 0; i++) {
        char *text = argv[i];
        if (options_over || text[0] != '-' || text[1] == '\0') {
            args->positional[args->n++] = text;
        } else if (strcmp(text, "--") == 0) {
            options_over = true;
        } else if (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0) {
            help_print(spec);
            code = EXIT_OK;
        } else {
            int used = 0;
            code = parse_option(spec, i, argc, argv, args, &loan, &used);
            i += used;
        }
    }
    if (code < 0)
        code = check_positionals(spec, args, &loan);
    if (code < 0 && options_check_files(spec, args) != EXIT_OK)
        code = EXIT_FAILED;
    if (code >= 0)
        options_free(args);
    return code;
}
