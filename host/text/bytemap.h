/* A hash map from byte strings to 64-bit values, keeping its keys in one growing block and its
 * entries in insertion order. */
#ifndef ITERA_TEXT_BYTEMAP_H
#define ITERA_TEXT_BYTEMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct itera_bytemap_entry {
    size_t offset; /* of the key in keys */
    uint32_t length;
    uint32_t hash;
    uint64_t value;
};

/* {0} is an empty map. */
struct itera_bytemap {
    struct itera_bytemap_entry *entries;
    uint32_t *slots; /* entry index + 1, 0 is free */
    char *keys;
    size_t count, entry_capacity, slot_count, key_bytes, key_capacity;
};

/* The value of a key, or NULL. The pointer is valid until the next insertion. */
uint64_t *itera_bytemap_find(const struct itera_bytemap *map, const char *key, size_t length);

/* The same, inserting the key with `value` when it is new. NULL when memory runs out or a key is
 * longer than 2^32 - 1 bytes. `added` may be NULL. */
uint64_t *itera_bytemap_insert(struct itera_bytemap *map, const char *key, size_t length,
                               uint64_t value, bool *added);

void itera_bytemap_clear(struct itera_bytemap *map); /* forgets all, keeps the memory */
void itera_bytemap_free(struct itera_bytemap *map);

#endif
