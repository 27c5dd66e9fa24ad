#include "backend/program_bindings.h"

#include <stdlib.h>

#include "core/log.h"

void itera_bind(struct itera_bindings *b, int32_t tensor, struct itera_buffer *buffer,
                size_t offset)
{
    if (b->status)
        return;
    if (b->n == b->cap) {
        int wider = b->cap ? b->cap * 2 : 64;
        struct itera_binding *moved = realloc(b->list, (size_t)wider * sizeof *moved);
        if (!moved) {
            b->status = itera_fail(ITERA_ERR_MEMORY, "no memory to bind a program");
            return;
        }
        b->list = moved;
        b->cap = wider;
    }
    b->list[b->n++] = (struct itera_binding){tensor, buffer, offset};
}

void itera_bindings_free(struct itera_bindings *b)
{
    free(b->list);
    *b = (struct itera_bindings){0};
}
