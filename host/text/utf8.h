/* UTF-8 decoding for text that may be broken. */
#ifndef ITERA_TEXT_UTF8_H
#define ITERA_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum itera_utf8 {
    ITERA_UTF8_VALID,
    ITERA_UTF8_BROKEN,     /* not the start of a sequence, whatever follows */
    ITERA_UTF8_INCOMPLETE, /* a sequence that the end of the bytes cuts off */
};

/* Looks at the sequence at the start of `length` > 0 bytes and sets how many bytes it has: for one
 * that is not valid, the longest start of a valid one (at least 1), which is what one U+FFFD
 * replaces. `code` is set when it is valid. No overlong forms, no surrogates, none above U+10FFFF.
 * Source: The Unicode Standard 15.0, table 3-7 and section 3.9, "maximal subpart". */
enum itera_utf8 itera_utf8_next(const char *bytes, size_t length, uint32_t *code, size_t *used);

/* Writes 1 to 4 bytes; returns how many. */
size_t itera_utf8_put(uint32_t code, char out[4]);

bool itera_utf8_is_valid(const char *bytes, size_t length);

/* Length of the valid UTF-8 that the bytes start with. */
size_t itera_utf8_valid_prefix(const char *bytes, size_t length);

#endif
