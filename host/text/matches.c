#include "text/matches.h"

#include <stdlib.h>
#include <string.h>

#include "core/log.h"

enum itera_status itera_pattern_read(const json_t *json, const char *name,
                                     struct itera_pattern *out)
{
    *out = (struct itera_pattern){0};
    const json_t *regex = json_object_get(json, "Regex"), *text = json_object_get(json, "String");
    if (json_is_string(regex))
        return itera_regex_create(json_string_value(regex), json_string_length(regex), name,
                                  &out->regex);
    out->length = json_string_length(text);
    if (!json_is_string(text) || out->length == 0)
        return itera_fail(
            ITERA_ERR_FORMAT,
            "%s: \"pattern\" is neither {\"Regex\": ...} nor {\"String\": ...} with a "
            "text",
            name);
    out->text = malloc(out->length);
    if (!out->text)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for a pattern", name);
    memcpy(out->text, json_string_value(text), out->length);
    return ITERA_OK;
}

void itera_pattern_free(struct itera_pattern *pattern)
{
    itera_regex_destroy(&pattern->regex);
    free(pattern->text);
    *pattern = (struct itera_pattern){0};
}

/* The next match from *from on. An empty match does not come directly after another match, where it
 * would say nothing new; but that is remembered only from the match before, whatever lies between.
 * Source: find_iter of the Rust binding of Oniguruma, which that library uses. */
static enum itera_status next_match(const struct itera_pattern *pattern, const char *text,
                                    size_t length, size_t *from, bool *skip_empty,
                                    struct itera_budget *budget, bool *found, size_t *start,
                                    size_t *end)
{
    *found = false;
    while (*from <= length) {
        enum itera_status status =
            itera_regex_search(pattern->regex, text, length, *from, budget, found, start, end);
        if (status || !*found)
            return status;
        *from = *end;
        if (*end > *start) {
            *skip_empty = true;
            return ITERA_OK;
        }
        do
            ++*from;
        while (*from < length && ((unsigned char)text[*from] & 0xC0) == 0x80);
        if (!*skip_empty)
            return ITERA_OK;
        *skip_empty = *found = false;
    }
    return ITERA_OK;
}

enum itera_status itera_find_matches(const struct itera_pattern *pattern, const char *text,
                                     size_t length, struct itera_budget *budget, itera_match_fn *fn,
                                     void *user)
{
    size_t done = 0, from = 0, start = 0, end = 0;
    bool skip_empty = false, found = true;
    enum itera_status status = ITERA_OK;
    while (!status && length > 0) {
        if (pattern->regex) {
            status =
                next_match(pattern, text, length, &from, &skip_empty, budget, &found, &start, &end);
        } else {
            const char *at = memmem(text + from, length - from, pattern->text, pattern->length);
            found = at;
            start = at ? (size_t)(at - text) : length;
            end = from = start + pattern->length;
        }
        if (status || !found)
            break;
        if (start > done)
            status = fn(user, done, start, false);
        if (!status)
            status = fn(user, start, end, true);
        done = end;
    }
    if (!status && done < length)
        status = fn(user, done, length, false);
    return status;
}
