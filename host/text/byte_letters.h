/* GPT-2's spelling of bytes as printable letters, in which vocabularies and merges are written: a
 * byte that is a printable Latin-1 character is that character, the others are U+0100 onwards in
 * order. Source: Radford et al. 2019, bytes_to_unicode of the published encoder. */
#ifndef ITERA_TEXT_BYTE_LETTERS_H
#define ITERA_TEXT_BYTE_LETTERS_H

#include <stdint.h>

static inline int itera_byte_is_letter(unsigned byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
}

static inline uint32_t itera_byte_letter(unsigned byte)
{
    if (itera_byte_is_letter(byte))
        return byte;
    if (byte <= 32)
        return 256 + byte;
    if (byte <= 160)
        return 256 + 33 + (byte - 127);
    return 256 + 67; /* 173, the soft hyphen */
}

/* The byte that a code point spells, or -1. */
static inline int itera_letter_byte(uint32_t code)
{
    if (code < 256)
        return itera_byte_is_letter(code) ? (int)code : -1;
    if (code <= 256 + 32)
        return (int)(code - 256);
    if (code <= 256 + 66)
        return (int)(code - 256 - 33 + 127);
    return code == 256 + 67 ? 173 : -1;
}

#endif
