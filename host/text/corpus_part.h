/* A part of a text that is set aside for validation: FILE?valid, and FILE?train for the rest. */
#ifndef ITERA_TEXT_CORPUS_PART_H
#define ITERA_TEXT_CORPUS_PART_H

#include <stdbool.h>
#include <stddef.h>

enum itera_corpus_part { ITERA_CORPUS_ALL, ITERA_CORPUS_TRAIN, ITERA_CORPUS_VALID };

/* One document of so many, or one byte, is set aside. */
enum { ITERA_CORPUS_SHARE = 20 };

static inline bool itera_is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

bool itera_corpus_is_builtin(const char *source);
/* Whether the source is one file or folder, whatever commas it has in its name. */
bool itera_corpus_is_single(const char *source);
/* Which part of a file or folder the source asks for; *length: of its name without that. */
enum itera_corpus_part itera_corpus_part_of(const char *source, size_t *length);
/* The source of a part (TRAIN or VALID) of all that a source names; NULL without memory, else the
 * caller's to free. */
char *itera_corpus_name_part(const char *source, enum itera_corpus_part part);
/* Where the last of ITERA_CORPUS_SHARE parts of a document begins: at a line, or else a word, or
 * else a character. */
size_t itera_corpus_tail(const char *text, size_t length);

#endif
