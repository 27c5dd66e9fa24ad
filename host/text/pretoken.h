/* Cutting text into the pieces inside which a tokenizer works. */
#ifndef ITERA_TEXT_PRETOKEN_H
#define ITERA_TEXT_PRETOKEN_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "itera/status.h"
#include "text/regex.h"

typedef enum itera_status itera_piece_fn(void *user, const char *piece, size_t length);

/* The pieces that GPT-2's expression cuts, which together are the text:
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * A byte that is not part of valid UTF-8 is a piece of its own. Stops at the first error of `fn`.
 * Source: Radford et al. 2019, the encoder published with GPT-2. */
enum itera_status itera_split_gpt2(const char *text, size_t length, itera_piece_fn *fn, void *user);

/* A chain of pre-tokenizers that ends in pieces of bytes: for one thread at a time. */
struct itera_pretokenizer;

/* Reads "pre_tokenizer" of a tokenizer.json. Errors: ITERA_ERR_UNSUPPORTED, naming what is not
 * known or does not make bytes; ITERA_ERR_FORMAT. `name` is for messages. */
enum itera_status itera_pretokenizer_create(const json_t *json, const char *name,
                                            struct itera_pretokenizer **out);
void itera_pretokenizer_destroy(struct itera_pretokenizer **pretokenizer);

/* Calls `fn` for each piece of valid UTF-8 in order. Not all of the text need come back: some
 * pre-tokenizers drop or insert characters. Stops at the first error, its own or that of `fn`. */
enum itera_status itera_pretokenize(struct itera_pretokenizer *pretokenizer, const char *text,
                                    size_t length, struct itera_budget *budget, itera_piece_fn *fn,
                                    void *user);

/* Length of the word piece at the start of `length` > 0 bytes, for word tokenizers. A piece is
 *   a newline, with one space before it if there is one, or
 *   a word, with one space before it if there is one, or
 *   another single white space byte.
 * A word is a run without ASCII white space or, with `punctuation`, a run of letters, digits, bytes
 * above 127 and inner apostrophes and hyphens, or a run of one and the same other byte. */
size_t itera_word_piece(const char *text, size_t length, bool punctuation);

#endif
