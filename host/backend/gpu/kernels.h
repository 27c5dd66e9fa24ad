/* What a device's driver made of the kernels that a program takes. */
#ifndef ITERA_BACKEND_GPU_KERNELS_H
#define ITERA_BACKEND_GPU_KERNELS_H

#include "backend/gpu/dispatch.h"

/* The backend table's `kernels` for every GPU backend. */
enum itera_status itera_gpu_kernels(struct itera_device *device,
                                    const struct itera_program *program, const char *ops,
                                    bool every_way, const char *used_by,
                                    struct itera_kernel_list *list);

/* Adds a number that a driver tells under some name of its own ("Spilled VGPRs", "Register Count") to
 * the statistics, and takes it for the number of *info that it stands for, if any. */
void itera_gpu_statistic(struct itera_kernel_info *info, const char *name, int64_t value);

#endif
