/* Rewriting text before it is cut: "normalizer" of a tokenizer.json. */
#ifndef ITERA_TEXT_NORMALIZE_H
#define ITERA_TEXT_NORMALIZE_H

#include <jansson.h>
#include <stddef.h>

#include "itera/status.h"
#include "text/regex.h"

/* For one thread at a time. */
struct itera_normalizer;

/* NULL where the JSON is null. Errors: ITERA_ERR_UNSUPPORTED, naming what is not known;
 * ITERA_ERR_FORMAT. `name` is for messages. */
enum itera_status itera_normalizer_create(const json_t *json, const char *name,
                                          struct itera_normalizer **out);
void itera_normalizer_destroy(struct itera_normalizer **normalizer);

/* Rewrites valid UTF-8. The result belongs to the normalizer and is valid until the next call; it
 * may be the text itself. */
enum itera_status itera_normalize(struct itera_normalizer *normalizer, const char *text,
                                  size_t length, struct itera_budget *budget, const char **out,
                                  size_t *out_length);

#endif
