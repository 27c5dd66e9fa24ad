#include "core/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/number.h"

#define DEFAULT_BLOCK ((size_t)64 * 1024)
#define MAX_ALIGN     ((size_t)4096)

/* The usable bytes follow the header. */
struct block {
    struct block *next;
    size_t size; /* usable bytes */
    size_t used;
};

struct itera_arena {
    struct block *head; /* the block that is bumped; full ones hang behind it */
    size_t block_size;
};

static struct block *new_block(size_t size)
{
    if (size > SIZE_MAX / 2 - sizeof(struct block))
        return NULL;
    struct block *block = malloc(sizeof *block + size);
    if (!block)
        return NULL;
    block->next = NULL;
    block->size = size;
    block->used = 0;
    return block;
}

struct itera_arena *itera_arena_create(size_t block_size)
{
    struct itera_arena *arena = calloc(1, sizeof *arena);
    if (!arena)
        return NULL;
    arena->block_size = block_size ? block_size : DEFAULT_BLOCK;
    arena->head = new_block(arena->block_size);
    if (!arena->head) {
        free(arena);
        return NULL;
    }
    return arena;
}

void itera_arena_destroy(struct itera_arena **arena)
{
    if (!arena || !*arena)
        return;
    for (struct block *block = (*arena)->head; block;) {
        struct block *next = block->next;
        free(block);
        block = next;
    }
    free(*arena);
    *arena = NULL;
}

static void *take(struct block *block, size_t size, size_t align)
{
    uintptr_t base = (uintptr_t)(block + 1);
    size_t start = (size_t)(((base + block->used + align - 1) & ~(uintptr_t)(align - 1)) - base);
    if (start > block->size || size > block->size - start)
        return NULL;
    block->used = start + size;
    return (unsigned char *)(block + 1) + start;
}

void *itera_arena_alloc(struct itera_arena *arena, size_t size, size_t align)
{
    if (align == 0)
        align = ITERA_ALIGN_SMALL;
    if (!arena || align > MAX_ALIGN || (align & (align - 1)) || size > SIZE_MAX / 4)
        return NULL;
    void *data = take(arena->head, size, align);
    if (data)
        return data;

    size_t need = size + align;
    struct block *block = new_block(need > arena->block_size ? need : arena->block_size);
    if (!block)
        return NULL;
    if (need > arena->block_size / 2) {
        /* A large one goes behind the current block, whose rest is still good for small ones. */
        block->next = arena->head->next;
        arena->head->next = block;
    } else {
        block->next = arena->head;
        arena->head = block;
    }
    return take(block, size, align);
}

void *itera_arena_calloc(struct itera_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    void *data = itera_arena_alloc(arena, bytes, ITERA_ALIGN_SMALL);
    if (data)
        memset(data, 0, bytes);
    return data;
}

char *itera_arena_strndup(struct itera_arena *arena, const char *text, size_t length)
{
    if (length == SIZE_MAX)
        return NULL;
    char *copy = itera_arena_alloc(arena, length + 1, 1);
    if (!copy)
        return NULL;
    if (length)
        memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

char *itera_arena_strdup(struct itera_arena *arena, const char *text)
{
    return itera_arena_strndup(arena, text, strlen(text));
}

__attribute__((format(printf, 2, 0))) static char *format_into(struct itera_arena *arena,
                                                               const char *format, va_list args)
{
    va_list copy;
    va_copy(copy, args);
    int length = itera_format_args(NULL, 0, format, copy);
    va_end(copy);
    if (length < 0)
        return NULL;
    char *text = itera_arena_alloc(arena, (size_t)length + 1, 1);
    if (text)
        itera_format_args(text, (size_t)length + 1, format, args);
    return text;
}

char *itera_arena_printf(struct itera_arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = format_into(arena, format, args);
    va_end(args);
    return text;
}
