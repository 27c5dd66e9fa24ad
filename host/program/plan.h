/* The memory plan: every activation gets an offset in one arena by its lifetime. */
#ifndef ITERA_PROGRAM_PLAN_H
#define ITERA_PROGRAM_PLAN_H

#include "program/program.h"

struct itera_plan {
    int64_t *offset; /* bytes, per tensor id; -1 for bound tensors, unused ones and views */
    int64_t bytes;   /* of the whole arena */
};

/* Ops that a backend computes together, later than they stand (backend/gpu/chain.h). */
struct itera_plan_chains {
    const bool *member;   /* per op: it is one of these */
    const int32_t *until; /* per op: the op in whose place it is last computed */
    const bool *unmade;   /* per tensor: there is no need of it */
};

/* `align` is a power of two; `chains` may be NULL. An op whose definition allows it writes over an input that dies there.
 * Destroy with itera_plan_destroy. */
enum itera_status itera_plan_create(const struct itera_program *p, int64_t align,
                                    const struct itera_plan_chains *chains, struct itera_plan *out);
void itera_plan_destroy(struct itera_plan *plan);

#endif
