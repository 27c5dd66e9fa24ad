/* Names for what is cached. */
#ifndef ITERA_BACKEND_GPU_HASH_H
#define ITERA_BACKEND_GPU_HASH_H

#include <stddef.h>
#include <stdint.h>

/* FNV-1a, for file names and identities; start with seed 0. */
uint64_t itera_gpu_hash(uint64_t seed, const void *data, size_t bytes);

#endif
