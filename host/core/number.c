#include "core/number.h"

#include <locale.h>
#include <pthread.h>
#include <stdlib.h>
#if defined(__APPLE__)
#include <xlocale.h>
#endif

static pthread_once_t once = PTHREAD_ONCE_INIT;
static locale_t c_locale;

static void make_locale(void)
{
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

/* The calling thread's own locale changes, never the process's: other threads of the program may be
 * formatting meanwhile. Where there is no memory for a locale, (locale_t)0 changes nothing. */
struct itera_c_locale itera_c_locale_enter(void)
{
    pthread_once(&once, make_locale);
    return (struct itera_c_locale){(void *)uselocale(c_locale)};
}

void itera_c_locale_leave(struct itera_c_locale *saved)
{
    uselocale((locale_t)saved->before);
}

int itera_format_args(char *out, size_t size, const char *format, va_list args)
{
    struct itera_c_locale saved = itera_c_locale_enter();
    int length = vsnprintf(out, size, format, args);
    itera_c_locale_leave(&saved);
    return length;
}

int itera_format(char *out, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = itera_format_args(out, size, format, args);
    va_end(args);
    return length;
}

int itera_print(FILE *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct itera_c_locale saved = itera_c_locale_enter();
    int length = vfprintf(out, format, args);
    itera_c_locale_leave(&saved);
    va_end(args);
    return length;
}

double itera_read_number(const char *text, char **end)
{
    struct itera_c_locale saved = itera_c_locale_enter();
    double number = strtod(text, end);
    itera_c_locale_leave(&saved);
    return number;
}
