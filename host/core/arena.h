/* A bump arena: many small allocations, one destroy. Not thread-safe: one owner at a time. */
#ifndef ITERA_CORE_ARENA_H
#define ITERA_CORE_ARENA_H

#include <stddef.h>

struct itera_arena;

/* Alignments that fit a vector register (SSE, NEON) and a cache line or AVX-512 register. */
enum { ITERA_ALIGN_SMALL = 16, ITERA_ALIGN_LINE = 64 };

/* Blocks are taken from malloc block_size bytes at a time (0: 64 KiB); a larger allocation gets a
 * block of its own. NULL when memory ran out. */
struct itera_arena *itera_arena_create(size_t block_size);
void itera_arena_destroy(struct itera_arena **arena); /* NULL-safe, nulls *arena */

/* All of these return memory that lives until the arena is destroyed or reset, or NULL when memory
 * ran out or a size overflows; the arena stays usable after a NULL. No error is reported: the
 * caller knows what it was allocating for. A size of 0 gives a valid pointer that must not be read.
 */

/* Uninitialised bytes; align is a power of two up to 4096, or 0 for 16. */
void *itera_arena_alloc(struct itera_arena *arena, size_t size, size_t align);
/* count * size zeroed bytes, aligned to 16. */
void *itera_arena_calloc(struct itera_arena *arena, size_t count, size_t size);
char *itera_arena_strdup(struct itera_arena *arena, const char *text);
/* Copies length bytes and ends them with a NUL. */
char *itera_arena_strndup(struct itera_arena *arena, const char *text, size_t length);
__attribute__((format(printf, 2, 3))) char *itera_arena_printf(struct itera_arena *arena,
                                                               const char *format, ...);

#endif
