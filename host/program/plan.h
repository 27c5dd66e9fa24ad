/* The memory plan: every activation gets an offset in one arena by its lifetime. */
#ifndef ITERA_PROGRAM_PLAN_H
#define ITERA_PROGRAM_PLAN_H

#include "program/program.h"

struct itera_plan {
    int64_t *offset; /* bytes, per tensor id; -1 for bound tensors, unused ones and views */
    int64_t bytes;   /* of the whole arena */
};

/* `align` is a power of two. An op whose definition allows it writes over an input that dies there.
 * Destroy with itera_plan_destroy. */
enum itera_status itera_plan_create(const struct itera_program *p, int64_t align,
                                    struct itera_plan *out);
void itera_plan_destroy(struct itera_plan *plan);

#endif
