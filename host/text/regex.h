/* Regular expressions as Hugging Face's tokenizers have them: Oniguruma's, in its own syntax, over
 * UTF-8. What matching costs is bounded, because both the expression and the text may come from
 * someone who wishes us ill. */
#ifndef ITERA_TEXT_REGEX_H
#define ITERA_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "itera/status.h"

/* What a text may cost, in steps of some 10 ns: a fixed amount and more for every byte. Every text
 * has one budget, whatever the number of matches and of expressions. */
struct itera_budget {
    uint64_t steps;
};
#define ITERA_STEPS_PER_TEXT 4000000u
#define ITERA_STEPS_PER_BYTE 256u
struct itera_budget itera_budget_of(size_t length);

/* Takes steps away. ITERA_ERR_LIMIT when they are used up. */
enum itera_status itera_budget_take(struct itera_budget *budget, uint64_t steps);

/* A compiled expression with the memory of a match: for one thread at a time. */
struct itera_regex;

/* ITERA_ERR_FORMAT with what is wrong, ITERA_ERR_UNSUPPORTED for what cannot be bounded (references
 * to groups, recursion, huge counts). `name` is for messages. */
enum itera_status itera_regex_create(const char *pattern, size_t length, const char *name,
                                     struct itera_regex **out);
void itera_regex_destroy(struct itera_regex **regex);

/* Looks for the first match that starts at `from` or later in `text`, which is valid UTF-8; what is
 * before `from` is seen by look-behind. found: whether there is one, of text[*start, *end). */
enum itera_status itera_regex_search(struct itera_regex *regex, const char *text, size_t length,
                                     size_t from, struct itera_budget *budget, bool *found,
                                     size_t *start, size_t *end);

/* Classes of characters; the Unicode version is Oniguruma's. */
enum itera_class {
    ITERA_CLASS_LETTER = 1, /* L */
    ITERA_CLASS_NUMBER = 2, /* N */
    ITERA_CLASS_SPACE = 4,  /* White_Space */
    ITERA_CLASS_WORD = 8,   /* Alphabetic, M, Nd, Pc or Join_Control: \w of Rust's expressions */
    ITERA_CLASS_PUNCTUATION = 16, /* P, and ASCII's symbols */
    ITERA_CLASS_MARK = 32,        /* M */
};
/* The classes of a code point, ORed; and those of all of them, up to U+10FFFF. */
unsigned itera_classes(uint32_t code);
const unsigned char *itera_class_table(void);

#endif
