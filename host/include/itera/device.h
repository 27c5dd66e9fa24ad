/* Devices: what the machine offers to compute with. */
#ifndef ITERA_DEVICE_H
#define ITERA_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "itera/status.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

struct itera_device;

enum itera_device_type {
    ITERA_DEVICE_CPU,
    ITERA_DEVICE_IGPU,
    ITERA_DEVICE_GPU,
    ITERA_DEVICE_SOFTWARE, /* a driver that runs a GPU's interface on the CPU */
};
ITERA_API const char *itera_device_type_name(enum itera_device_type type);

#define ITERA_MAX_FEATURES 24

struct itera_device_info {
    char id[32]; /* "cpu", "opencl:0", "vulkan:1" */
    char backend[16];
    char name[128];
    char driver[128];
    enum itera_device_type type;
    uint64_t memory_bytes;
    char pci[16]; /* "0000:65:00.0"; "" where it has no such address or the driver does not say */
    /* What the device reports and the backend uses, or could use if `used` is 0. */
    struct {
        char name[32];
        int used;
    } features[ITERA_MAX_FEATURES];
    int n_features;
};

/* What happens to ops that a device has no kernel for. */
enum itera_fallback {
    ITERA_FALLBACK_REPORT, /* they run on the CPU; itera_device_fallback_op names them */
    ITERA_FALLBACK_REFUSE, /* compiling fails, naming them */
};

/* Zero-initialise and set what matters. */
struct itera_device_options {
    enum itera_fallback fallback;
    int threads;     /* CPU: threads of the team, also for what a GPU leaves to the CPU; 0: one per
                        available processor */
    const char *isa; /* CPU: "ref", "avx2", "avx512", "avx512vnni", "neon", "neondot"; NULL:
                        ITERA_CPU_ISA, else the best */
};

/* Lists every usable device; *infos is an array to free with free(). The CPU is always there.
 * Drivers that this process has not loaded for a device of theirs are asked in a child process,
 * which ends before this returns; one that crashes or hangs there (20 seconds) is a warning, and
 * the devices of its backend are left out from then on.
 * Errors: ITERA_ERR_MEMORY; ITERA_ERR_ARGUMENT and ITERA_ERR_UNSUPPORTED for a level in
 * ITERA_CPU_ISA that is unknown or not here. */
ITERA_API enum itera_status itera_devices(struct itera_device_info **infos, int *count);

/* Opens a device by id; NULL or "auto": the best there is, found as itera_devices does, so that only
 * the drivers of the chosen one are loaded. The caller owns *device and closes it
 * after everything created from it. A device may be used by one thread at a time, along with all
 * that was created from it; several devices by several threads. options may be NULL.
 * Errors: ITERA_ERR_DEVICE when there is no such device (the message lists those that are);
 * ITERA_ERR_ARGUMENT for bad options; ITERA_ERR_UNSUPPORTED for a level that the CPU lacks. */
ITERA_API enum itera_status itera_device_open(const char *id,
                                              const struct itera_device_options *options,
                                              struct itera_device **device);
ITERA_API void itera_device_close(struct itera_device **device);
ITERA_API const struct itera_device_info *itera_device_info(const struct itera_device *device);
/* CPU: the team's size; 0 for others. */
ITERA_API int itera_device_threads(const struct itera_device *device);
/* Bytes of the buffers and programs that are alive on the device. */
ITERA_API uint64_t itera_device_allocated(const struct itera_device *device);
/* The names of the ops that ran, or are to run, on the CPU instead of the device, since it was
 * opened: NULL at the end of the list. The strings are constants. */
ITERA_API const char *itera_device_fallback_op(const struct itera_device *device, int index);

#ifdef __cplusplus
}
#endif
#endif
