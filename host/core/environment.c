#include "core/environment.h"

#include <stdlib.h>

static const char *value_of(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

const char *itera_environment_cpu_isa(void)
{
    return value_of("ITERA_CPU_ISA");
}
