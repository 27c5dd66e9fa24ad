/* The OpenCL loader and CLBlast, found when the program runs: nothing is linked, so that the same
 * program works on machines that have neither. */
#ifndef ITERA_BACKEND_OPENCL_API_H
#define ITERA_BACKEND_OPENCL_API_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdbool.h>

/* Every OpenCL function that is used; opencl_load()->CreateBuffer is clCreateBuffer. */
#define OPENCL_FUNCTIONS(X)                                                                        \
    X(GetPlatformIDs)                                                                              \
    X(GetPlatformInfo)                                                                             \
    X(GetDeviceIDs)                                                                                \
    X(GetDeviceInfo)                                                                               \
    X(CreateContext)                                                                               \
    X(ReleaseContext)                                                                              \
    X(CreateCommandQueue)                                                                          \
    X(ReleaseCommandQueue)                                                                         \
    X(CreateBuffer)                                                                                \
    X(ReleaseMemObject)                                                                            \
    X(EnqueueFillBuffer)                                                                           \
    X(EnqueueReadBuffer)                                                                           \
    X(EnqueueWriteBuffer)                                                                          \
    X(EnqueueNDRangeKernel)                                                                        \
    X(EnqueueMarkerWithWaitList)                                                                   \
    X(WaitForEvents)                                                                               \
    X(Flush)                                                                                       \
    X(Finish)                                                                                      \
    X(CreateProgramWithSource)                                                                     \
    X(CreateProgramWithBinary)                                                                     \
    X(BuildProgram)                                                                                \
    X(GetProgramInfo)                                                                              \
    X(GetProgramBuildInfo)                                                                         \
    X(ReleaseProgram)                                                                              \
    X(CreateKernel)                                                                                \
    X(SetKernelArg)                                                                                \
    X(GetKernelWorkGroupInfo)                                                                      \
    X(ReleaseKernel)                                                                               \
    X(GetEventProfilingInfo)                                                                       \
    X(ReleaseEvent)

struct opencl_api {
#define OPENCL_MEMBER(name) __typeof__(cl##name) *name;
    OPENCL_FUNCTIONS(OPENCL_MEMBER)
#undef OPENCL_MEMBER
};

/* The loader's functions; NULL when there is no loader, or one of them is missing (said once in a
 * debug message). Loaded on the first call and kept; safe from any thread. */
const struct opencl_api *opencl_load(void);

/* Errors that are in no header: of the loader, and of a driver. */
enum { OPENCL_PLATFORM_NOT_FOUND = -1001, OPENCL_NVIDIA_FAULT = -9999 };

/* "CL_INVALID_VALUE"; never NULL. */
const char *opencl_error_name(cl_int error);

/* A row-major product: y = op(a) op(b) + (accumulate ? y : 0), op(a) being m x k. Offsets and
 * strides are in elements. */
struct opencl_gemm {
    cl_mem a, b, y;
    size_t a_at, a_ld, b_at, b_ld, y_at, y_ld, m, n, k;
    bool trans_a, trans_b, accumulate, half;
};

/* Whether CLBlast is here. It compiles its kernels on their first use, once in a process: it keeps
 * no cache on disk. */
bool opencl_clblast_load(void);
/* Enqueues the product; CLBlast must have been loaded. Returns an OpenCL error, or one of CLBlast's
 * own. */
int opencl_clblast_gemm(const struct opencl_gemm *gemm, cl_command_queue queue);

#endif
