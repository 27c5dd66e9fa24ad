#include "backend/gpu/hazards.h"

#include <stdbool.h>

/* Whether two operands, one of them written, may touch the same memory. */
static bool conflict(const struct itera_gpu_binding *a, const struct itera_gpu_binding *b)
{
    if (!((a->access | b->access) & ITERA_GPU_WRITE) || a->buffer != b->buffer)
        return false;
    if (a->offset >= b->offset + b->bytes || b->offset >= a->offset + a->bytes)
        return false;
    /* Other columns of one matrix: the halves of a projection, for example. */
    bool columns = a->base >= 0 && a->base == b->base && a->ld == b->ld && a->element == b->element;
    return !(columns &&
             (a->first_col + a->cols <= b->first_col || b->first_col + b->cols <= a->first_col));
}

static bool depends(const struct itera_gpu_dispatch *d, const struct itera_gpu_dispatch *earlier)
{
    for (int i = 0; i < d->n_bindings; i++)
        for (int j = 0; j < earlier->n_bindings; j++)
            if (conflict(&d->binding[i], &earlier->binding[j]))
                return true;
    return false;
}

/* A barrier goes before a dispatch that depends on any since the last barrier. */
void itera_gpu_find_hazards(struct itera_gpu_dispatch *d, int32_t n)
{
    int32_t since = 0;
    for (int32_t i = 0; i < n; i++) {
        for (int32_t j = since; j < i && !d[i].barrier; j++)
            d[i].barrier = depends(&d[i], &d[j]);
        if (d[i].barrier)
            since = i;
    }
}
