#include "core/environment.h"

#include <stdio.h>
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

bool itera_environment_cache_dir(char *out, size_t size)
{
    static const struct {
        const char *variable, *folder;
    } places[] = {{"ITERA_CACHE_DIR", ""}, {"XDG_CACHE_HOME", "/itera"}, {"HOME", "/.cache/itera"}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *root = value_of(places[i].variable);
        if (!root)
            continue;
        int n = snprintf(out, size, "%s%s", root, places[i].folder);
        return n > 0 && (size_t)n < size;
    }
    return false;
}

const char *itera_environment_kernel_dir(void)
{
    return value_of("ITERA_KERNEL_DIR");
}

const char *itera_environment_fault(void)
{
    return value_of("ITERA_FAULT");
}

const char *itera_environment_disabled_ops(void)
{
    return value_of("ITERA_DISABLE_OPS");
}

const char *itera_environment_sysfs(void)
{
    return value_of("ITERA_SYSFS");
}

const char *itera_environment_nvml(void)
{
    return value_of("ITERA_NVML");
}
