/* The environment variables that the library honours. Nothing else in it calls getenv, so that
 * this header is their complete list. An empty value counts as unset. */
#ifndef ITERA_CORE_ENVIRONMENT_H
#define ITERA_CORE_ENVIRONMENT_H

#include <stdbool.h>
#include <stddef.h>

/* ITERA_CPU_ISA: the instruction set that the CPU backend must use (a level of backend/cpu/isa.h:
 * "ref", "avx2", ...), or NULL when the best one is to be taken. Not checked here: the backend knows
 * what it has. The string belongs to the environment. */
const char *itera_environment_cpu_isa(void);

/* ITERA_CACHE_DIR, else $XDG_CACHE_HOME/itera, else $HOME/.cache/itera, in `out`: the folder of
 * compiled kernels and tuning data. False when there is none of them, or it does not fit. */
bool itera_environment_cache_dir(char *out, size_t size);

/* ITERA_KERNEL_DIR: a folder with the .cl and .clh files that the OpenCL backend is to use instead
 * of those built in, or NULL. For work on kernels. */
const char *itera_environment_kernel_dir(void);

/* ITERA_FAULT: device faults to simulate, for tests (backend/gpu/fault.h); or NULL. */
const char *itera_environment_fault(void);

/* ITERA_DISABLE_OPS: a comma list of globs over op names that GPU devices must leave to the CPU (a
 * driver that gets one wrong), and over kinds of chains (backend/gpu/chain.h) whose ops they must
 * compute one by one; or NULL. */
const char *itera_environment_disabled_ops(void);

/* ITERA_SYSFS: where sysfs is mounted, for energy sensors (containers, tests); or NULL. */
const char *itera_environment_sysfs(void);

/* ITERA_NVML: the file of NVIDIA's management library; or NULL. */
const char *itera_environment_nvml(void);

#endif
