/* What the scalar reference kernels are written with. */
#ifndef ITERA_CPU_REFERENCE_H
#define ITERA_CPU_REFERENCE_H

#include <math.h>

#include "backend/cpu/kernel.h"

/* The kernel itera_<op>_ref and the head of its function:
 * REFERENCE(silu) { ... call ... team ... } */
#define REFERENCE(op)                                                                              \
    static void op##_run(const struct itera_call *call, struct itera_team *team);                  \
    const struct itera_kernel itera_##op##_ref = {.run = op##_run};                                \
    static void op##_run(const struct itera_call *call, struct itera_team *team)

static inline double at(const struct itera_arg *arg, int64_t row, int64_t col)
{
    return itera_f32(arg)[row * arg->ld + col];
}

static inline void put(const struct itera_arg *arg, int64_t row, int64_t col, double value)
{
    itera_f32(arg)[row * arg->ld + col] = (float)value;
}

static inline double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

#endif
