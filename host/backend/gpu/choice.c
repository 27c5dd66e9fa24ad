#include "backend/gpu/choice.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "backend/gpu/tuning_store.h"
#include "core/number.h"

long long itera_gpu_class(int64_t size)
{
    long long c = 1;
    while (c < size)
        c *= 2;
    return c;
}

int itera_gpu_choice(struct itera_gpu_lowering *l, const char *const *names, int count,
                     int fallback, const char *key_format, ...)
{
    int n = snprintf(l->choice_key, sizeof l->choice_key, "%s ", itera_gpu_op_name(l));
    va_list args;
    va_start(args, key_format);
    itera_format_args(l->choice_key + n, sizeof l->choice_key - (size_t)n, key_format, args);
    va_end(args);
    l->n_choices = count;
    l->choice = fallback;
    if (l->forced >= 0 && l->forced < count) {
        l->choice = l->forced;
    } else if (l->device->tuning) {
        const char *best = itera_gpu_tuning_find(l->device->tuning, l->choice_key);
        for (int i = 0; best && i < count; i++)
            if (!strcmp(names[i], best))
                l->choice = i;
    }
    l->choice_name = names[l->choice];
    return l->choice;
}
