/* Numbers as text, written and read in C's locale whatever locale the program has chosen: a decimal
 * comma would make invalid JSON, and files that another program cannot read. Library code that
 * prints or reads a fraction does it through here, messages included; the rest of stdio is for
 * integers and strings. */
#ifndef ITERA_CORE_NUMBER_H
#define ITERA_CORE_NUMBER_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

/* snprintf and vsnprintf in C's locale. */
__attribute__((format(printf, 3, 4))) int itera_format(char *out, size_t size, const char *format,
                                                       ...);
__attribute__((format(printf, 3, 0))) int itera_format_args(char *out, size_t size,
                                                            const char *format, va_list args);

/* fprintf in C's locale. */
__attribute__((format(printf, 2, 3))) int itera_print(FILE *out, const char *format, ...);

/* strtod in C's locale. */
double itera_read_number(const char *text, char **end);

/* Puts this thread into C's locale for a library that formats by itself, and back. */
struct itera_c_locale {
    void *before;
};

struct itera_c_locale itera_c_locale_enter(void);
void itera_c_locale_leave(struct itera_c_locale *saved);

#endif
