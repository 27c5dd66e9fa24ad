#include "text/bytemap.h"

#include <stdlib.h>
#include <string.h>

/* Eight bytes a round, multiply and fold: the keys are short and the table is not exposed to
 * chosen collisions beyond what a slow file costs its own reader. */
static uint32_t hash_bytes(const char *key, size_t length)
{
    uint64_t hash = 0x9E3779B97F4A7C15u ^ length;
    while (length >= 8) {
        uint64_t word;
        memcpy(&word, key, 8);
        hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
        hash ^= hash >> 32;
        key += 8;
        length -= 8;
    }
    uint64_t tail = 0;
    for (size_t i = 0; i < length; i++)
        tail |= (uint64_t)(unsigned char)key[i] << 8 * i;
    hash = (hash ^ tail) * 0xD6E8FEB86659FD93u;
    hash ^= hash >> 32;
    hash *= 0xD6E8FEB86659FD93u;
    return (uint32_t)(hash >> 32);
}

/* The slot of the key, or the free slot where it belongs. */
static size_t find_slot(const struct itera_bytemap *map, const char *key, size_t length,
                        uint32_t hash)
{
    size_t mask = map->slot_count - 1;
    for (size_t slot = hash & mask;; slot = (slot + 1) & mask) {
        if (map->slots[slot] == 0)
            return slot;
        const struct itera_bytemap_entry *entry = &map->entries[map->slots[slot] - 1];
        if (entry->hash == hash && entry->length == length &&
            memcmp(map->keys + entry->offset, key, length) == 0)
            return slot;
    }
}

static bool grow_slots(struct itera_bytemap *map)
{
    size_t slot_count = map->slot_count ? map->slot_count * 2 : 64;
    uint32_t *slots = calloc(slot_count, sizeof *slots);
    if (!slots)
        return false;
    for (size_t i = 0; i < map->count; i++) {
        size_t slot = map->entries[i].hash & (slot_count - 1);
        while (slots[slot])
            slot = (slot + 1) & (slot_count - 1);
        slots[slot] = (uint32_t)i + 1;
    }
    free(map->slots);
    map->slots = slots;
    map->slot_count = slot_count;
    return true;
}

static bool reserve(struct itera_bytemap *map, size_t length)
{
    if (map->count >= UINT32_MAX - 1 || length > UINT32_MAX)
        return false;
    if (2 * (map->count + 1) > map->slot_count && !grow_slots(map))
        return false;
    if (map->count == map->entry_capacity) {
        size_t capacity = map->entry_capacity ? map->entry_capacity * 2 : 32;
        void *entries = realloc(map->entries, capacity * sizeof *map->entries);
        if (!entries)
            return false;
        map->entries = entries;
        map->entry_capacity = capacity;
    }
    if (!map->keys || map->key_bytes + length > map->key_capacity) {
        size_t capacity = 2 * map->key_capacity + length + 256;
        char *keys = realloc(map->keys, capacity);
        if (!keys)
            return false;
        map->keys = keys;
        map->key_capacity = capacity;
    }
    return true;
}

uint64_t *itera_bytemap_find(const struct itera_bytemap *map, const char *key, size_t length)
{
    if (map->count == 0)
        return NULL;
    size_t slot = find_slot(map, key, length, hash_bytes(key, length));
    return map->slots[slot] ? &map->entries[map->slots[slot] - 1].value : NULL;
}

uint64_t *itera_bytemap_insert(struct itera_bytemap *map, const char *key, size_t length,
                               uint64_t value, bool *added)
{
    if (added)
        *added = false;
    if (!reserve(map, length))
        return NULL;
    uint32_t hash = hash_bytes(key, length);
    size_t slot = find_slot(map, key, length, hash);
    if (map->slots[slot])
        return &map->entries[map->slots[slot] - 1].value;
    struct itera_bytemap_entry *entry = &map->entries[map->count++];
    *entry = (struct itera_bytemap_entry){map->key_bytes, (uint32_t)length, hash, value};
    if (length)
        memcpy(map->keys + map->key_bytes, key, length);
    map->key_bytes += length;
    map->slots[slot] = (uint32_t)map->count;
    if (added)
        *added = true;
    return &entry->value;
}

void itera_bytemap_clear(struct itera_bytemap *map)
{
    map->count = 0;
    map->key_bytes = 0;
    if (map->slots)
        memset(map->slots, 0, map->slot_count * sizeof *map->slots);
}

void itera_bytemap_free(struct itera_bytemap *map)
{
    free(map->entries);
    free(map->slots);
    free(map->keys);
    *map = (struct itera_bytemap){0};
}
