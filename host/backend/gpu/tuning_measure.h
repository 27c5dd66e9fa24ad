/* Measuring which of several kernels is the fastest on a device. */
#ifndef ITERA_BACKEND_GPU_TUNING_MEASURE_H
#define ITERA_BACKEND_GPU_TUNING_MEASURE_H

#include "backend/backend.h"

/* The backend table's `tune` for every GPU backend. Takes up to about a second an op and class. A
 * device that cannot time its kernels keeps the defaults, and is not asked again. */
enum itera_status itera_gpu_tune(struct itera_device *device, const struct itera_program *program);

#endif
