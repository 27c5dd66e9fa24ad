/* Which of several kernels computes an op. */
#ifndef ITERA_BACKEND_GPU_CHOICE_H
#define ITERA_BACKEND_GPU_CHOICE_H

#include "backend/gpu/dispatch.h"

/* One of several ways to compute an op: `names` (short, stable: they are kept in tuning files and
 * name the variants of parity checks) has `count` entries. `key` says what the choice depends on
 * (use itera_gpu_class for sizes). Returns the one being forced (by a parity check or a tuning
 * run), else the measured best for this device and key, else `fallback`. At most one choice an op.
 * A candidate that cannot serve the op is refused when it is forced. */
int itera_gpu_choice(struct itera_gpu_lowering *l, const char *const *names, int count,
                     int fallback, const char *key_format, ...)
    __attribute__((format(printf, 5, 6)));
/* A size's class: the next power of two. */
long long itera_gpu_class(int64_t size);

#endif
