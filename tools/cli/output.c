#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/options.h"
#include "itera/file.h"
#include "itera/model.h"

struct table {
    int columns;
    char align[16];
    char **cell; /* the titles, then row by row */
    size_t cells, room;
    bool failed;
};

static void add_cell(struct table *table, const char *text)
{
    if (table->cells == table->room) {
        size_t room = table->room ? 2 * table->room : 64;
        char **grown = realloc(table->cell, room * sizeof *grown);
        if (!grown) {
            table->failed = true;
            return;
        }
        table->cell = grown;
        table->room = room;
    }
    char *copy = strdup(text);
    if (copy)
        table->cell[table->cells++] = copy;
    else
        table->failed = true;
}

struct table *table_create(int columns, const char *const *titles, const char *align)
{
    struct table *table = calloc(1, sizeof *table);
    if (!table)
        return NULL;
    table->columns = columns;
    snprintf(table->align, sizeof table->align, "%s", align);
    for (int i = 0; i < columns; i++)
        add_cell(table, titles[i]);
    return table;
}

void table_cell(struct table *table, const char *format, ...)
{
    if (!table || table->failed)
        return;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    add_cell(table, text);
}

/* Code points: what a terminal shows in a column each, in all that we print. */
static size_t width(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void table_print(const struct table *table)
{
    if (!table || table->failed) {
        command_error("out of memory while printing a table");
        return;
    }
    size_t columns = (size_t)table->columns, widest[16] = {0};
    for (size_t i = 0; i < table->cells; i++) {
        size_t w = width(table->cell[i]);
        if (w > widest[i % columns])
            widest[i % columns] = w;
    }
    for (size_t i = 0; i < table->cells; i++) {
        size_t column = i % columns;
        int pad = (int)(widest[column] - width(table->cell[i]));
        bool last = column + 1 == columns;
        if (table->align[column] == 'r')
            printf("%*s%s", pad, "", table->cell[i]);
        else
            printf("%s%*s", table->cell[i], last ? 0 : pad, "");
        fputs(last ? "\n" : "  ", stdout);
    }
}

void table_destroy(struct table **table)
{
    if (!table || !*table)
        return;
    for (size_t i = 0; i < (*table)->cells; i++)
        free((*table)->cell[i]);
    free((*table)->cell);
    free(*table);
    *table = NULL;
}

json_t *output_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *output_path(const char *path)
{
    json_t *string = path ? json_string(path) : json_null();
    char *copy = string ? NULL : strdup(path);
    for (char *c = copy; c && *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    if (copy)
        string = json_string(copy);
    free(copy);
    return string;
}

json_t *output_string(const char *text)
{
    const size_t length = text ? strlen(text) : 0;
    json_t *string = text ? json_string(text) : json_null();
    for (size_t cut = 1; !string && cut <= 3 && cut < length; cut++) {
        if ((unsigned char)text[length - cut] < 0x80)
            break;
        string = json_stringn(text, length - cut);
    }
    return string ? string : output_path(text);
}

enum { JSON_STYLE = JSON_INDENT(2) | JSON_REAL_PRECISION(9) };

int output_file_check(const char *file, const char *what)
{
    char target[PATH_MAX], folder[PATH_MAX];
    struct stat info;
    int reason = 0;
    const bool there = stat(file, &info) == 0;
    /* A link stays one: what it leads to is replaced, in its own folder. */
    const char *path = there && realpath(file, target) ? target : file, *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s",
             slash == path ? 1 /* the root */
             : slash       ? (int)(slash - path)
                           : 1,
             slash ? path : ".");
    if (*file == '\0')
        reason = ENOENT;
    else if (strlen(file) + 32 > PATH_MAX)
        reason = ENAMETOOLONG;
    else if (there && S_ISDIR(info.st_mode))
        reason = EISDIR;
    /* What is no plain file (a pipe, /dev/stdout) is written to as it is. */
    else if (access(there && !S_ISREG(info.st_mode) ? file : folder, W_OK) != 0)
        reason = errno;
    if (!reason)
        return EXIT_OK;
    command_error("%s: cannot write %s: %s", *file ? file : "an empty name", what,
                  strerror(reason));
    return EXIT_FAILED;
}

int output_model_check(const char *file, bool force)
{
    struct stat info;
    int code = output_file_check(file, "a model");
    if (code == EXIT_OK && !force && stat(file, &info) == 0 && S_ISREG(info.st_mode) &&
        info.st_size > 0) {
        command_error("%s: is there already; --force replaces it", file);
        code = EXIT_FAILED;
    }
    return code;
}

static bool is_stdout(const char *file)
{
    return !file || !strcmp(file, "-");
}

bool output_on_stdout(const struct option_optional *json)
{
    return json->given && is_stdout(json->value);
}

int output_json_check(const char *file)
{
    if (is_stdout(file))
        return EXIT_OK;
    if (*file)
        return output_file_check(file, "JSON");
    command_error("--json: cannot write JSON: %s", strerror(ENOENT));
    return EXIT_FAILED;
}

const char *output_grouped(int64_t n, char *out, size_t size)
{
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)n);
    size_t used = 0;
    for (int i = 0; i < length && used + 2 < size; i++) {
        if (i && (length - i) % 3 == 0)
            out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = 0;
    return out;
}

const char *output_size(int64_t bytes, char *out, size_t size)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    while (value >= 1024 && unit < 4) {
        value /= 1024;
        unit++;
    }
    snprintf(out, size, unit ? "%.2f %s" : "%.0f %s", value, units[unit]);
    return out;
}

int output_text(const char *file, const char *text)
{
    return itera_file_write(file, text, strlen(text)) ? EXIT_FAILED : EXIT_OK;
}

int output_json(const json_t *root, const char *file)
{
    const bool to_stdout = is_stdout(file);
    char *text = root ? json_dumps(root, JSON_STYLE) : NULL, *line = NULL;
    int code = EXIT_FAILED;
    if (!text || asprintf(&line, "%s\n", text) < 0) {
        command_error("%s: cannot write JSON: no memory, or a text in it that is no UTF-8",
                      to_stdout ? "stdout" : file);
    } else if (to_stdout) { /* what is lost on the way is an error of output_finish() */
        fputs(line, stdout);
        code = EXIT_OK;
    } else {
        code = output_text(file, line);
    }
    free(text);
    free(line);
    return code;
}

const char *output_presets(void)
{
    static char text[512];
    size_t used = (size_t)snprintf(text, sizeof text, "Presets:"), column = used;
    const char *name;
    for (size_t i = 0; (name = itera_preset_name(i)); i++) {
        size_t length = strlen(name);
        if (used + length + 4 > sizeof text)
            break;
        bool wrap = column + length + 2 > 78;
        column = (wrap ? 0 : column) + length + 2;
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s%s", i ? "," : "",
                                 wrap ? "\n" : " ", name);
    }
    return text;
}

bool output_arrives(void)
{
    return fflush(stdout) == 0 && !ferror(stdout);
}

int output_finish(int code)
{
    errno = 0;
    bool good = fflush(stdout) == 0 && !ferror(stdout);
    int reason = errno;
    /* Some file systems report a full disk only when the file is closed. */
    if (good && fclose(stdout) != 0) {
        reason = errno;
        good = false;
    }
    if (good || reason == EPIPE)
        return code;
    /* An error that an earlier flush met leaves no reason here; a closed pipe shows when tried. */
    if (reason == 0) {
        char newline = '\n';
        if (write(STDOUT_FILENO, &newline, 0) < 0 && errno == EPIPE)
            return code;
        struct stat info;
        if (fstat(STDOUT_FILENO, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode)))
            return code;
    }
    command_error("writing to stdout failed: %s", reason ? strerror(reason) : "output was lost");
    return code == EXIT_OK ? EXIT_FAILED : code;
}
