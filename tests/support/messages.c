#include <stdio.h>
#include <string.h>

#include "itera/status.h"
#include "tests/support/test.h"

char logged[16384];

static void on_log(void *user, enum itera_log_level level, const char *message)
{
    (void)user;
    const size_t used = strlen(logged);
    snprintf(logged + used, sizeof logged - used, "<%d> %s\n", level, message);
}

void log_begin(void)
{
    log_clear();
    itera_set_log(on_log, NULL);
}

void log_clear(void)
{
    logged[0] = '\0';
}

int logged_times(const char *text)
{
    int n = 0;
    for (const char *at = logged; (at = strstr(at, text)); at++)
        n++;
    return n;
}

void assert_says_at(const char *file, int line, const char *const *words)
{
    for (; *words; words++)
        if (!strstr(itera_last_error(), *words)) {
            print_error("'%s' does not say '%s'\n", itera_last_error(), *words);
            _fail(file, line);
        }
}
