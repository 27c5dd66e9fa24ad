/* From a program to all its dispatches and their memory. */
#ifndef ITERA_BACKEND_GPU_PLAN_H
#define ITERA_BACKEND_GPU_PLAN_H

#include "backend/gpu/dispatch.h"

/* A whole program as dispatches, with its memory. */
struct itera_gpu_plan {
    struct itera_gpu_dispatch *dispatches;
    int32_t n;
    struct itera_buffer *memory; /* activations, then scratch; NULL when there is none */
    uint64_t memory_bytes;
};

/* Lowers the program, makes its memory with the backend's buffer_create, resolves every binding,
 * and finds the hazards. `absent` is bound for absent operands (any buffer of the device). */
enum itera_status
itera_gpu_plan_create(struct itera_gpu_device *device, const struct itera_program *program,
                      const struct itera_binding *bindings, int n_bindings,
                      struct itera_buffer *absent, const struct itera_compile_options *options,
                      struct itera_compile_result *result, struct itera_gpu_plan *out);
/* How many of its dispatches wait for what is before them. */
int32_t itera_gpu_plan_barriers(const struct itera_gpu_plan *plan);
void itera_gpu_plan_destroy(struct itera_gpu_plan *plan); /* leaves it empty */

#endif
