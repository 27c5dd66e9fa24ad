/* What the driver made of a kernel: by clGetKernelWorkGroupInfo, and on NVIDIA by the compiler's log. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/kernels.h"
#include "backend/opencl/opencl.h"

/* cl_intel_required_subgroup_size: cl_ulong, bytes. Other drivers do not know it. */
enum { KERNEL_SPILL_MEMORY_INTEL = 0x4109 };

void opencl_read_nvidia_log(const char *log, const char *kernel, struct itera_kernel_info *info)
{
    char entry[96];
    snprintf(entry, sizeof entry, "Compiling entry function '%s'", kernel);
    const char *at = strstr(log, entry);
    const char *end = at ? strstr(at + 1, "Compiling entry function") : NULL;
    long stack, stores, loads, registers;
    bool spills = false, used = false;
    for (; at && (!end || at < end) && !(spills && used); at = strchr(at, '\n')) {
        at += *at == '\n';
        const char *bytes = at + strcspn(at, "0123456789\n");
        if (!spills && sscanf(bytes, "%ld bytes stack frame, %ld bytes spill stores, %ld", &stack,
                              &stores, &loads) == 3) {
            itera_gpu_statistic(info, "Local Memory Size", stack);
            itera_gpu_statistic(info, "Spill stores", stores);
            itera_gpu_statistic(info, "Spill loads", loads);
            spills = true;
        }
        const char *word = strstr(at, "Used ");
        const char *line = strchr(at, '\n');
        if (!used && word && (!line || word < line) && sscanf(word, "Used %ld", &registers) == 1) {
            itera_gpu_statistic(info, "Register Count", registers);
            used = true;
        }
    }
}

static void ask(const struct opencl_device *d, cl_kernel kernel, cl_uint what, const char *name,
                struct itera_kernel_info *info)
{
    cl_ulong value = 0;
    if (!d->cl->GetKernelWorkGroupInfo(kernel, d->id, what, sizeof value, &value, NULL) &&
        value <= INT64_MAX)
        itera_gpu_statistic(info, name, (int64_t)value);
}

enum itera_status opencl_describe_kernel(struct itera_gpu_device *device,
                                         const struct itera_gpu_dispatch *dispatch,
                                         struct itera_kernel_info *info)
{
    struct opencl_device *d = (struct opencl_device *)device;
    if (!strcmp(dispatch->kernel, "clblast_gemm"))
        return ITERA_OK; /* a library's, made when it runs */
    cl_kernel kernel;
    enum itera_status status = opencl_kernel_create(d, dispatch, &kernel);
    if (status)
        return status;
    size_t multiple = 0;
    if (!d->cl->GetKernelWorkGroupInfo(kernel, d->id, CL_KERNEL_PREFERRED_WORK_GROUP_SIZE_MULTIPLE,
                                       sizeof multiple, &multiple, NULL) &&
        multiple && multiple <= 1024)
        info->subgroup = (int)multiple;
    ask(d, kernel, CL_KERNEL_LOCAL_MEM_SIZE, "Local memory", info);
    ask(d, kernel, CL_KERNEL_PRIVATE_MEM_SIZE, "Private memory", info);
    ask(d, kernel, KERNEL_SPILL_MEMORY_INTEL, "Spill memory", info);
    d->cl->ReleaseKernel(kernel);
    char *log = d->gpu.traits.vendor == ITERA_GPU_NVIDIA
                    ? opencl_build_log(d, dispatch, "-cl-nv-verbose")
                    : NULL;
    if (log)
        opencl_read_nvidia_log(log, dispatch->kernel, info);
    free(log);
    return ITERA_OK;
}
