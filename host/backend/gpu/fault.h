/* Failures that drivers do not have to have for tests to see what becomes of them. */
#ifndef ITERA_BACKEND_GPU_FAULT_H
#define ITERA_BACKEND_GPU_FAULT_H

#include <stdbool.h>

/* Faults for tests, set by ITERA_FAULT: a comma list of <kind>:<n>, "the n-th time (1 is the
 * first), and every time after it". Kinds: "memory" (a device allocation fails), "lost" (a submit
 * or wait says that the device is lost), "build" (a kernel does not compile), "list" (the driver
 * fails while its devices are listed); and for paths that a device would not take by itself, looked
 * at when it is opened: "staging" (Vulkan: buffers are reached by copies alone), "addresses"
 * (Vulkan: kernels get every operand by its address), "barriers" (Vulkan: none between kernels, which
 * is wrong, and which validation must notice), "plain" (Vulkan: no integer dot products). */
enum itera_gpu_fault {
    ITERA_GPU_FAULT_MEMORY,
    ITERA_GPU_FAULT_LOST,
    ITERA_GPU_FAULT_BUILD,
    ITERA_GPU_FAULT_LIST,
    ITERA_GPU_FAULT_STAGING,
    ITERA_GPU_FAULT_ADDRESSES,
    ITERA_GPU_FAULT_BARRIERS,
    ITERA_GPU_FAULT_PLAIN,
    ITERA_GPU_FAULTS
};
bool itera_gpu_fault(enum itera_gpu_fault kind); /* whether it is to fail now */

#endif
