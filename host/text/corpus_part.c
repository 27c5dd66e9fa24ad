/* The names of parts of a text, and where a part of a document begins. */
#include "text/corpus_part.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"

static const char *const part_names[] = {
    [ITERA_CORPUS_TRAIN] = "?train", [ITERA_CORPUS_VALID] = "?valid"};

bool itera_corpus_is_builtin(const char *source)
{
    return strncmp(source, "builtin:", 8) == 0;
}

static bool is_there(const char *path)
{
    return itera_file_exists(path) || itera_is_directory(path);
}

enum itera_corpus_part itera_corpus_part_of(const char *source, size_t *length)
{
    *length = strlen(source);
    for (int part = ITERA_CORPUS_TRAIN; part <= ITERA_CORPUS_VALID && !is_there(source); part++) {
        const size_t end = strlen(part_names[part]);
        if (*length <= end || strcmp(source + *length - end, part_names[part]) != 0)
            continue;
        *length -= end;
        return (enum itera_corpus_part)part;
    }
    return ITERA_CORPUS_ALL;
}

bool itera_corpus_is_single(const char *source)
{
    size_t length;
    if (!strchr(source, ',') || is_there(source))
        return true;
    if (itera_corpus_part_of(source, &length) == ITERA_CORPUS_ALL)
        return false;
    char *path = strndup(source, length);
    const bool single = path && is_there(path);
    free(path);
    return single;
}

char *itera_corpus_name_part(const char *source, enum itera_corpus_part part)
{
    const char *end = part_names[part];
    const bool single = itera_corpus_is_single(source);
    size_t parts = 1;
    for (const char *at = source; !single && *at; at++)
        parts += *at == ',';
    /* Each part becomes longer by no more than the name of the part. */
    char *list = strdup(source), *rest = list;
    char *out = list ? malloc(strlen(source) + parts * strlen(end) + 1) : NULL, *to = out;
    for (char *at; out && (at = single ? rest : strsep(&rest, ","));) {
        rest = single ? NULL : rest;
        if (!*at)
            continue;
        if (to != out)
            *to++ = ',';
        to = stpcpy(to, at);
        if (!itera_corpus_is_builtin(at))
            to = stpcpy(to, end);
        else if (part == ITERA_CORPUS_VALID) {
            *to++ = strchr(at, '?') ? '&' : '?';
            to = stpcpy(to, end + 1);
        }
    }
    if (out)
        *to = '\0';
    free(list);
    return out;
}

size_t itera_corpus_tail(const char *text, size_t length)
{
    const size_t from = length - length / ITERA_CORPUS_SHARE;
    size_t at = from;
    while (at + 1 < length && text[at - 1] != '\n')
        at++;
    if (at + 1 >= length)
        for (at = from; at + 1 < length && !itera_is_space(text[at - 1]);)
            at++;
    if (at + 1 >= length)
        for (at = from; at < length && ((unsigned char)text[at] & 0xc0) == 0x80;)
            at++;
    return at;
}
