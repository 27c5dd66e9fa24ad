/* Kernels: what a device's driver made of them. No kernel is run.
 *
 * The interface serves the itera command and changes with it: a version that keeps the rest of the
 * library's interface may change this header in any way. */
#ifndef ITERA_KERNELS_H
#define ITERA_KERNELS_H

#include <stdint.h>

#include "itera/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One kernel, compiled with one set of constants for one size of workgroup. Numbers that the driver
 * does not tell are -1. */
struct itera_kernel_info {
    char name[48];       /* "matmul_tile" */
    char constants[320]; /* "A_TYPE=0 TILE=64", or "" */
    char op[32];         /* an op that it computes, or a part of it */
    char used_by[96];    /* presets whose programs take it with the device's choices; "" if none */
    int lanes;           /* of a workgroup */
    int subgroup;        /* lanes that run as one */
    int waves; /* subgroups that a processor holds at a time, by registers and shared memory */
    int64_t registers; /* of a lane; where drivers count otherwise, what they call so */
    int64_t spills; /* registers, instructions or bytes, as drivers count them: 0 is what matters */
    int64_t scratch_bytes; /* memory in place of registers, of a lane or subgroup */
    int64_t shared_bytes;  /* of a workgroup */
    int64_t code_bytes;
    char statistics[640]; /* all that the driver says, "VGPRs 24, SGPRs 32", or "" */
};

struct itera_kernel_list {
    struct itera_kernel_info *items;
    int n, cap;
};

/* Zero-initialise and set what matters. */
struct itera_kernel_options {
    const char *const *presets; /* whose training, prefill and decoding is looked at */
    int n_presets;
    const char *const *dtypes; /* of the presets' weights: "f32", "f16", "q8", "q4" */
    int n_dtypes;              /* 0: f32 */
    const char *ops;           /* comma list of globs over op names; NULL: all */
    /* Also every kernel that a parity case could take (itera_check_ops), in all ways in which the
     * device can compute it. */
    int every;
};

/* Progress goes from 0 to 1; a non-zero return stops (ITERA_ERR_CANCELLED). */
typedef int itera_kernels_fn(void *user, double progress);

/* Has the device's driver compile kernels, and appends to the list what it says of each. A device
 * without compiled kernels (the CPU) has none. fn may be NULL. free(list->items) afterwards, also
 * after an error. Errors: ITERA_ERR_ARGUMENT for an unknown preset or type, or where no op that is
 * looked at matches; ITERA_ERR_MEMORY;
 * ITERA_ERR_CANCELLED; those of the device. */
ITERA_API enum itera_status itera_kernels(struct itera_device *device,
                                          const struct itera_kernel_options *options,
                                          itera_kernels_fn *fn, void *user,
                                          struct itera_kernel_list *list);

#ifdef __cplusplus
}
#endif
#endif
