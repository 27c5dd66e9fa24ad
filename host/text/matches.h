/* Matches of a pattern in a text, and what they cut it into. As Hugging Face's library has them. */
#ifndef ITERA_TEXT_MATCHES_H
#define ITERA_TEXT_MATCHES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "itera/status.h"
#include "text/regex.h"

/* What to look for: an expression, or a text. */
struct itera_pattern {
    struct itera_regex *regex;
    char *text; /* where `regex` is NULL */
    size_t length;
};

/* Reads {"Regex": ...} or {"String": ...}. */
enum itera_status itera_pattern_read(const json_t *json, const char *name,
                                     struct itera_pattern *out);
void itera_pattern_free(struct itera_pattern *pattern);

/* Called for the matches of a text and for what is between them, in order; together they are the
 * text. A match may be empty. */
typedef enum itera_status itera_match_fn(void *user, size_t start, size_t end, bool match);

enum itera_status itera_find_matches(const struct itera_pattern *pattern, const char *text,
                                     size_t length, struct itera_budget *budget, itera_match_fn *fn,
                                     void *user);

#endif
