/* What is known of a GPU beyond what the backends' users see. */
#ifndef ITERA_BACKEND_GPU_TRAITS_H
#define ITERA_BACKEND_GPU_TRAITS_H

#include "backend/backend.h"

enum itera_gpu_vendor {
    ITERA_GPU_OTHER,
    ITERA_GPU_NVIDIA,
    ITERA_GPU_AMD,
    ITERA_GPU_INTEL,
    ITERA_GPU_SOFTWARE, /* PoCL, lavapipe: few, wide cores; shared memory is plain memory */
};

/* A shape of cooperative matrices: (m, k) . (k, n), of f16 with f32 accumulation. */
struct itera_gpu_matrix {
    uint32_t m, n, k;
    uint32_t subgroup; /* size that kernels with such matrices have */
};

/* What lowering may know of a device. */
struct itera_gpu_traits {
    enum itera_gpu_vendor vendor;
    uint32_t max_local;     /* invocations in a workgroup; at least 128, or it is not opened */
    uint32_t shared_bytes;  /* shared (local) memory of a workgroup; at least 16384 */
    uint32_t compute_units; /* 0: unknown (software) */
    uint32_t
        most_tile; /* of products, above which its compiler runs out of registers, half of it with
                           integers; 0: no limit */
    uint32_t subgroup;              /* size, when kernels may use subgroup arithmetic; else 0 */
    uint64_t max_operand_bytes;     /* of one operand, as the device addresses it */
    bool half_storage;              /* f16 in buffers (OpenCL has it by vload_half always) */
    bool half_math;                 /* f16 arithmetic */
    bool dot;                       /* int8 products by fours: kernels <name>_dot, or with DOT */
    bool dot_fast;                  /* in hardware */
    bool clblast;                   /* the backend can run "clblast_gemm" */
    struct itera_gpu_matrix matrix; /* the largest shape of sides 8 and 16; else zeros */
};

struct itera_gpu_dispatch;
struct itera_gpu_tuning;

/* A GPU backend's device: put first in its own struct. */
struct itera_gpu_device {
    struct itera_device base;
    struct itera_gpu_traits traits;
    struct itera_gpu_tuning *tuning; /* opened by the backend with itera_gpu_tuning_open; may be
                                        NULL: the defaults */
    bool untimed;                    /* it cannot time its kernels: what was not measured keeps the
                                        defaults */
    /* Whether the backend has a kernel of this name (and can make it for this device). */
    bool (*has_kernel)(struct itera_gpu_device *device, const char *kernel);
    /* Makes the dispatch's kernel ready for this device, so that an op whose kernel the driver does
     * not compile, or not for so large a workgroup, is known before a program is put together: it is
     * refused (itera_refuse). NULL: has_kernel says it all. */
    enum itera_status (*prepare)(struct itera_gpu_device *device,
                                 const struct itera_gpu_dispatch *dispatch,
                                 struct itera_reason *why);
    /* Fills in what the driver made of the kernel of a dispatch that has been prepared: the numbers and
     * statistics of *info, which are -1 and "" before. What the driver does not tell stays so. */
    enum itera_status (*describe)(struct itera_gpu_device *device,
                                  const struct itera_gpu_dispatch *dispatch,
                                  struct itera_kernel_info *info);
};

#endif
