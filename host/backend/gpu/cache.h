/* Files that spare compiling. */
#ifndef ITERA_BACKEND_GPU_CACHE_H
#define ITERA_BACKEND_GPU_CACHE_H

#include <stddef.h>

#include "itera/status.h"

/* The cache on disk: files in itera_environment_cache_dir(), written by atomic replacement, so
 * that processes may share it. Each begins with a header that carries `identity` (device, driver,
 * kernel source hash) and a checksum with a key that only the user can read; a file that does not
 * match is as good as none, and a broken one, or one that others may have written (core/private.h),
 * is also reported as a warning. *data is malloc'ed. Reading nothing is no error: *data is
 * NULL. Writing fails quietly but for a debug message: a cache must not stop anybody. */
enum itera_status itera_gpu_cache_read(const char *name, const char *identity, void **data,
                                       size_t *bytes);
void itera_gpu_cache_write(const char *name, const char *identity, const void *data, size_t bytes);

#endif
