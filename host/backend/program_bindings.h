/* What a program's bound tensors lie in, put together one by one. */
#ifndef ITERA_BACKEND_PROGRAM_BINDINGS_H
#define ITERA_BACKEND_PROGRAM_BINDINGS_H

#include "backend/backend.h"

/* Bindings under construction. */
struct itera_bindings {
    struct itera_binding *list;
    int n, cap;
    enum itera_status status; /* the first error; later calls do nothing */
};
void itera_bind(struct itera_bindings *b, int32_t tensor, struct itera_buffer *buffer,
                size_t offset);
void itera_bindings_free(struct itera_bindings *b);

#endif
