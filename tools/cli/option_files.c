/* What a command line reads outlives what it writes. The library refuses to write over a file that
 * it has read; here all that the options name is looked at before hours of work. */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/command.h"
#include "cli/options.h"
#include "itera/file.h"

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), n = strlen(end);
    return length >= n && !strcmp(text + length - n, end);
}

static int keep_file(const char *path)
{
    return itera_file_keep(path) ? EXIT_FAILED : EXIT_OK;
}

static int keep_in(const char *folder, const char *name)
{
    char path[PATH_MAX];
    const int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    return length < 0 || (size_t)length >= sizeof path ? EXIT_OK : keep_file(path);
}

/* What lies around a model or a tokenizer and is read with it. */
static int keep_parts(const char *folder)
{
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json",
                                        "vocab.json", "merges.txt"};
    int code = EXIT_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && code == EXIT_OK; i++)
        code = keep_in(folder, names[i]);
    return code;
}

static int keep_all(const char *folder, const char *end)
{
    int code = EXIT_OK;
    DIR *entries = opendir(folder);
    for (struct dirent *entry; code == EXIT_OK && entries && (entry = readdir(entries));)
        if (ends_with(entry->d_name, end))
            code = keep_in(folder, entry->d_name);
    if (entries)
        closedir(entries);
    return code;
}

/* A model or texts. */
static int keep_folder(const char *folder)
{
    char weights[PATH_MAX];
    struct stat info;
    const int length = snprintf(weights, sizeof weights, "%s/model.safetensors", folder);
    const bool whole = length > 0 && (size_t)length < sizeof weights && stat(weights, &info) == 0;
    int code = whole ? keep_file(weights) : keep_all(folder, ".safetensors");
    if (code == EXIT_OK)
        code = keep_all(folder, ".txt");
    return code == EXIT_OK ? keep_parts(folder) : code;
}

static int keep_source(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        /* A part of a text is called FILE?train or FILE?valid. */
        char whole[PATH_MAX];
        const bool part = ends_with(path, "?train") || ends_with(path, "?valid");
        const int length = snprintf(whole, sizeof whole, "%s", path);
        if (!part || length >= (int)sizeof whole)
            return EXIT_OK;
        whole[length - 6] = '\0';
        return keep_source(whole);
    }
    if (S_ISDIR(info.st_mode))
        return keep_folder(path);
    int code = keep_file(path);
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1,
             slash ? path : ".");
    const bool index = ends_with(path, "index.json");
    if (code == EXIT_OK && (index || ends_with(path, ".safetensors") ||
                            ends_with(path, "vocab.json") || ends_with(path, "merges.txt")))
        code = keep_parts(folder);
    return code == EXIT_OK && index ? keep_all(folder, ".safetensors") : code;
}

/* A file, a folder, or a comma list of them, as corpora are. */
static int keep_input(const char *text)
{
    struct stat info;
    if (!strchr(text, ',') || stat(text, &info) == 0)
        return keep_source(text);
    char *list = strdup(text), *rest = list;
    int code = list ? EXIT_OK : EXIT_FAILED;
    if (!list)
        command_error("%s: out of memory", text);
    for (char *part; code == EXIT_OK && (part = strsep(&rest, ","));)
        if (*part)
            code = keep_source(part);
    free(list);
    return code;
}

/* The outputs so far, with links resolved. */
struct outputs {
    char path[32][PATH_MAX];
    int n;
};

/* Where a file would be written; false for what is not replaced (a pipe, a device). */
static bool resolve(const char *file, char out[PATH_MAX])
{
    struct stat info;
    if (stat(file, &info) == 0)
        return S_ISREG(info.st_mode) && realpath(file, out);
    char folder[PATH_MAX];
    const char *slash = strrchr(file, '/');
    const int length = slash ? (int)(slash - file) + 1 : 1;
    if (length >= PATH_MAX)
        return false;
    snprintf(folder, sizeof folder, "%.*s", length, slash ? file : ".");
    if (!realpath(folder, out))
        return false;
    const size_t used = strlen(out);
    const int rest = snprintf(out + used, PATH_MAX - used, "/%s", slash ? slash + 1 : file);
    return rest > 0 && (size_t)rest < PATH_MAX - used;
}

static int add_output(struct outputs *outputs, const char *file)
{
    const int most = (int)(sizeof outputs->path / sizeof *outputs->path);
    if (!file || !*file || strcmp(file, "-") == 0)
        return EXIT_OK;
    if (itera_file_check_output(file))
        return EXIT_FAILED;
    if (outputs->n == most || !resolve(file, outputs->path[outputs->n]))
        return EXIT_OK;
    for (int i = 0; i < outputs->n; i++)
        if (strcmp(outputs->path[i], outputs->path[outputs->n]) == 0) {
            command_error("%s: would be written twice; give each output a file of its own", file);
            return EXIT_FAILED;
        }
    outputs->n++;
    return EXIT_OK;
}

/* A run's directory. */
static int add_folder(struct outputs *outputs, const char *folder)
{
    static const char *const names[] = {"model.safetensors", "train.jsonl", "distill.json",
                                        "options.json"};
    int code = EXIT_OK;
    for (size_t i = 0; folder && i < sizeof names / sizeof *names && code == EXIT_OK; i++) {
        char path[PATH_MAX];
        const int length = snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (length > 0 && (size_t)length < sizeof path)
            code = add_output(outputs, path);
    }
    return code;
}

static const char *text_of(const struct command_option *option)
{
    return *(const char *const *)option->value;
}

int options_check_files(const struct command_spec *spec, const struct command_args *args)
{
    int code = EXIT_OK;
    for (int i = 0; i < args->n && code == EXIT_OK; i++)
        code = keep_input(args->positional[i]);
    for (const struct command_option *o = spec->options; o->name && code == EXIT_OK; o++) {
        const struct option_names *list = o->value;
        if (o->kind == OPTION_INPUT && text_of(o))
            code = keep_input(text_of(o));
        for (size_t i = 0; o->kind == OPTION_INPUTS && i < list->n && code == EXIT_OK; i++)
            code = keep_input(list->item[i]);
    }
    struct outputs *outputs = code == EXIT_OK ? calloc(1, sizeof *outputs) : NULL;
    if (code == EXIT_OK && !outputs) {
        command_error("%s: out of memory", spec->name);
        code = EXIT_FAILED;
    }
    for (const struct command_option *o = spec->options; o->name && code == EXIT_OK; o++) {
        if (o->kind == OPTION_OUTPUT)
            code = add_output(outputs, text_of(o));
        else if (o->kind == OPTION_OPTIONAL)
            code = add_output(outputs, ((struct option_optional *)o->value)->value);
        else if (o->kind == OPTION_FOLDER)
            code = add_folder(outputs, text_of(o));
    }
    free(outputs);
    return code;
}
