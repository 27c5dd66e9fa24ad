#include "backend/gpu/fault.h"

#include <stdlib.h>
#include <string.h>

#include "core/environment.h"

bool itera_gpu_fault(enum itera_gpu_fault kind)
{
    static const char *const names[ITERA_GPU_FAULTS] = {
        "memory", "lost", "build", "list", "staging", "addresses", "barriers", "plain"};
    static int seen[ITERA_GPU_FAULTS]; /* tests only: devices are opened by one thread there */
    const char *at = itera_environment_fault();
    if (!at)
        return false;
    size_t length = strlen(names[kind]);
    for (; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, names[kind], length) && at[length] == ':')
            return ++seen[kind] >= atoi(at + length + 1);
    return false;
}
