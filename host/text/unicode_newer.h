/* Characters that Hugging Face's library knows less of than utf8proc does: its normal forms have the
 * tables of Unicode 9 and its marks those of Unicode 8. Found by asking its package (tokenizers 0.23)
 * for every character; tests/tokenizers_package.py compares texts of them. */
#ifndef ITERA_TEXT_UNICODE_NEWER_H
#define ITERA_TEXT_UNICODE_NEWER_H

#include <stdint.h>

enum itera_newer {
    ITERA_NEWER_MARK = 1,  /* no mark there */
    ITERA_NEWER_CLASS = 2, /* no combining class there, and composes with nothing */
    ITERA_NEWER_FORM = 4,  /* not decomposed there */
};

/* What the library does not know of a code point: of enum itera_newer. */
unsigned itera_unicode_newer(uint32_t code);

#endif
