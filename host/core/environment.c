#include "core/environment.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/file.h"
#include "core/log.h"

static const char *value_of(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

const char *itera_environment_cpu_isa(void)
{
    return value_of("ITERA_CPU_ISA");
}

const char *itera_environment_kernel_directory(void)
{
    return value_of("ITERA_KERNEL_DIR");
}

enum itera_status itera_environment_cache_directory(char *out, size_t size)
{
    const char *own = value_of("ITERA_CACHE_DIR");
    const char *xdg = value_of("XDG_CACHE_HOME");
    const char *home = value_of("HOME");
    if (own)
        return itera_path_join(out, size, "", own);
    if (xdg && xdg[0] == '/')
        return itera_path_join(out, size, xdg, "itera");
    if (home)
        return itera_path_join(out, size, home, ".cache/itera");
    if (size)
        out[0] = '\0';
    return itera_fail(ITERA_ERR_UNSUPPORTED,
                      "no cache folder: none of ITERA_CACHE_DIR, XDG_CACHE_HOME and HOME is set");
}
