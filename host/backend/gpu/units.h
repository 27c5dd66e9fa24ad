/* How many compute units a GPU has. */
#ifndef ITERA_BACKEND_GPU_UNITS_H
#define ITERA_BACKEND_GPU_UNITS_H

#include "backend/gpu/traits.h"

/* What is known of a device when it is opened. */
struct itera_gpu_identity {
    enum itera_gpu_vendor vendor;
    uint32_t pci_device; /* 0: unknown */
    const char *name;    /* as the driver gives it */
    uint32_t reported;   /* units, as the driver counts them; 0: it does not say */
};

/* Units that have shared memory of their own: AMD's CUs, NVIDIA's SMs, Intel's Xe cores (of older ones
 * subslices). Where a driver counts others, they are converted; where it says nothing, a table of
 * devices does, else what is usual for the vendor. 0 only for software. */
uint32_t itera_gpu_units(const struct itera_gpu_identity *identity);

#endif
