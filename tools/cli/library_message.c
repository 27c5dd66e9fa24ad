#include "cli/library_message.h"

#include <stdio.h>
#include <string.h>

/* The words around a field tell it from a path in which there is such a word. */
static const struct {
    const char *field, *option;
} spoken[] = {
    {"replace it (overwrite)", "replace it (--force)"},
    {"go on with it (resume)", "go on with it (--resume)"},
    {"run from its model (init)", "run from its model (--init)"},
    {"or less (seq)", "or less (--seq)"},
    {"use fewer (threads)", "use fewer (--threads)"},
    {"(ITERA_CPU_ISA, or isa)", "(ITERA_CPU_ISA, or --isa)"},
};

void library_message(const char *message, char *out, size_t size)
{
    size_t used = 0;
    while (*message && used + 1 < size) {
        size_t i = 0, n = sizeof spoken / sizeof *spoken;
        while (i < n && strncmp(message, spoken[i].field, strlen(spoken[i].field)) != 0)
            i++;
        if (i == n) {
            out[used++] = *message++;
            continue;
        }
        message += strlen(spoken[i].field);
        snprintf(out + used, size - used, "%s", spoken[i].option);
        used += strlen(out + used);
    }
    out[used] = '\0';
}
