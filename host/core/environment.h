/* The environment variables that the library honours. Nothing else in it calls getenv, so that
 * this header is their complete list. An empty value counts as unset. */
#ifndef ITERA_CORE_ENVIRONMENT_H
#define ITERA_CORE_ENVIRONMENT_H

/* ITERA_CPU_ISA: the instruction set that the CPU backend must use ("ref", "avx2", "avx512",
 * "neon"), or NULL when the best one is to be taken. Not checked here: the backend knows what
 * it has. The string belongs to the environment. */
const char *itera_environment_cpu_isa(void);

#endif
