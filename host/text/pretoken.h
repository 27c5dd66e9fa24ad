/* Cutting text into the pieces inside which a tokenizer works. */
#ifndef ITERA_TEXT_PRETOKEN_H
#define ITERA_TEXT_PRETOKEN_H

#include <stdbool.h>
#include <stddef.h>

#include "itera/status.h"

/* A compiled pre-tokenizer expression with its match block: for one thread at a time. */
struct itera_splitter;

/* `pattern` is a regular expression of `length` bytes, or NULL for GPT-2's. Text between two
 * matches is a piece too. Errors: ITERA_ERR_FORMAT with the place where the expression is wrong. */
enum itera_status itera_splitter_create(const char *pattern, size_t length, const char *name,
                                        struct itera_splitter **out);
void itera_splitter_destroy(struct itera_splitter **splitter);

typedef enum itera_status itera_piece_fn(void *user, const char *piece, size_t length);

/* Calls `fn` for each piece in order; together they are the text. A byte that is not part of valid
 * UTF-8 is a piece of its own. Stops at the first error, its own or that of `fn`. */
enum itera_status itera_split(struct itera_splitter *splitter, const char *text, size_t length,
                              itera_piece_fn *fn, void *user);

/* Length of the word piece at the start of `length` > 0 bytes, for word tokenizers. A piece is
 *   a newline, with one space before it if there is one, or
 *   a word, with one space before it if there is one, or
 *   another single white space byte.
 * A word is a run without ASCII white space or, with `punctuation`, a run of letters, digits, bytes
 * above 127 and inner apostrophes and hyphens, or a run of one and the same other byte. */
size_t itera_word_piece(const char *text, size_t length, bool punctuation);

#endif
