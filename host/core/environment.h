/* The environment variables that the library honours. Nothing else in it calls getenv, so that
 * this header is their complete list. An empty value counts as unset. */
#ifndef ITERA_CORE_ENVIRONMENT_H
#define ITERA_CORE_ENVIRONMENT_H

#include <stddef.h>

#include "itera/status.h"

/* ITERA_CPU_ISA: the instruction set that the CPU backend must use ("ref", "avx2", "avx512",
 * "neon"), or NULL when the best one is to be taken. Not checked here: the backend knows what
 * it has. The string belongs to the environment. */
const char *itera_environment_cpu_isa(void);

/* ITERA_KERNEL_DIR: a folder to read device kernels from instead of the embedded ones, or NULL. */
const char *itera_environment_kernel_directory(void);

/* Where tuning data and compiled kernels are kept: ITERA_CACHE_DIR, or else itera/ in
 * XDG_CACHE_HOME (when absolute, as its specification asks) or in .cache of HOME. The folder need
 * not exist yet. Errors: ITERA_ERR_UNSUPPORTED when none of them is set; ITERA_ERR_LIMIT when the
 * path does not fit in size bytes. */
enum itera_status itera_environment_cache_directory(char *out, size_t size);

#endif
