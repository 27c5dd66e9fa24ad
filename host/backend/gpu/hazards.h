/* Where dispatches have to wait for others. */
#ifndef ITERA_BACKEND_GPU_HAZARDS_H
#define ITERA_BACKEND_GPU_HAZARDS_H

#include "backend/gpu/dispatch.h"

/* Sets `barrier` of n dispatches, which run in this order and whose operands have their places. */
void itera_gpu_find_hazards(struct itera_gpu_dispatch *dispatches, int32_t n);

#endif
