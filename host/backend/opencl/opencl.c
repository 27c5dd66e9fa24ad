/* The OpenCL backend: devices, memory and copies. Kernels are in programs.c, runs in execute.c. */
#include "backend/opencl/opencl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/fault.h"
#include "backend/gpu/kernels.h"
#include "backend/gpu/lower.h"
#include "backend/gpu/tuning_measure.h"
#include "backend/gpu/tuning_store.h"
#include "core/log.h"

enum { MAX_FOUND = 32, ABSENT_BYTES = 256 };

/* What an error means, and what its user can do. After a kernel has crashed or been stopped by the
 * watchdog, drivers say that they are out of resources, or that the queue is not valid. */
static enum itera_status explain(const char *call, cl_int error, const char **advice)
{
    bool waits = !strcmp(call, "clFinish") || !strcmp(call, "clFlush") ||
                 !strcmp(call, "clEnqueueReadBuffer") || !strcmp(call, "clEnqueueWriteBuffer") ||
                 !strcmp(call, "clWaitForEvents");
    switch (error) {
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_OUT_OF_HOST_MEMORY:
        *advice = "it has no memory left: use a smaller batch or shorter sequences, or another "
                  "device";
        return ITERA_ERR_MEMORY;
    case CL_OUT_OF_RESOURCES:
    case CL_INVALID_COMMAND_QUEUE:
        if (!waits)
            break;
        __attribute__((fallthrough));
    case CL_DEVICE_NOT_AVAILABLE:
    case OPENCL_NVIDIA_FAULT:
        *advice =
            "the device was lost; training resumes from its last checkpoint on another device";
        return ITERA_ERR_DEVICE;
    default:
        break;
    }
    *advice = "update the device's driver, or use another device";
    return ITERA_ERR_DEVICE;
}

enum itera_status opencl_fail(const struct opencl_device *device, const char *call, cl_int error)
{
    const struct itera_device_info *info = &device->gpu.base.info;
    const char *advice;
    enum itera_status status = explain(call, error, &advice);
    return itera_fail(status, "%s (%s): %s failed with %s; %s", info->id, info->name, call,
                      opencl_error_name(error), advice);
}

bool opencl_is_failure(cl_int error)
{
    return error == CL_OUT_OF_HOST_MEMORY || error == CL_MEM_OBJECT_ALLOCATION_FAILURE ||
           error == CL_DEVICE_NOT_AVAILABLE || error == OPENCL_NVIDIA_FAULT;
}

enum itera_status opencl_refuse(const struct opencl_device *device, const char *call, cl_int error,
                                struct itera_reason *why)
{
    const struct itera_device_info *info = &device->gpu.base.info;
    if (opencl_is_failure(error))
        return opencl_fail(device, call, error);
    return itera_refuse(why, "%s (%s): %s failed with %s; update the device's driver", info->id,
                        info->name, call, opencl_error_name(error));
}

static enum itera_status opencl_list(struct itera_device_info *infos, int capacity, int *count)
{
    struct opencl_found found[MAX_FOUND];
    *count = opencl_find(found, capacity < MAX_FOUND ? capacity : MAX_FOUND, true);
    for (int i = 0; i < *count; i++)
        infos[i] = found[i].info;
    return ITERA_OK;
}

/* What drivers have to say beyond error codes. */
static void CL_CALLBACK on_message(const char *message, const void *data, size_t bytes, void *user)
{
    (void)data;
    (void)bytes;
    (void)user;
    itera_log(ITERA_LOG_DEBUG, "opencl: %s", message);
}

static enum itera_status open_queue(struct opencl_device *d, cl_platform_id platform)
{
    cl_int error;
    const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM,
                                                (cl_context_properties)platform, 0};
    d->context = d->cl->CreateContext(properties, 1, &d->id, on_message, NULL, &error);
    if (error)
        return opencl_fail(d, "clCreateContext", error);
    d->queue = d->cl->CreateCommandQueue(d->context, d->id, 0, &error);
    return error ? opencl_fail(d, "clCreateCommandQueue", error) : ITERA_OK;
}

static enum itera_status open_kernels(struct opencl_device *d)
{
    const struct itera_device_info *info = &d->gpu.base.info;
    enum itera_status status = opencl_sources_open(&d->sources);
    if (status)
        return status;
    d->broken = calloc((size_t)d->sources.n, sizeof *d->broken);
    if (!d->broken)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to open %s", info->id);
    snprintf(d->identity, sizeof d->identity, "opencl | %s | %s", info->driver, info->name);
    char tuning[sizeof d->identity + 32];
    snprintf(tuning, sizeof tuning, "%s | %016llx", d->identity,
             (unsigned long long)opencl_sources_hash(&d->sources));
    return itera_gpu_tuning_open(tuning, &d->gpu.tuning);
}

static void opencl_close(struct itera_device *base)
{
    struct opencl_device *d = (struct opencl_device *)base;
    itera_gpu_tuning_close(&d->gpu.tuning);
    itera_buffer_destroy(&d->absent);
    opencl_programs_close(d);
    opencl_sources_close(&d->sources);
    free(d->broken);
    if (d->profile_queue)
        d->cl->ReleaseCommandQueue(d->profile_queue);
    if (d->queue)
        d->cl->ReleaseCommandQueue(d->queue);
    if (d->context)
        d->cl->ReleaseContext(d->context);
    free(d);
}

static enum itera_status opencl_open(int index, const struct itera_device_options *options,
                                     struct itera_device **out)
{
    (void)options;
    struct opencl_found found[MAX_FOUND];
    int count = opencl_find(found, MAX_FOUND, false);
    if (index < 0 || index >= count)
        return itera_fail(ITERA_ERR_DEVICE, "there is no device opencl:%d (%d found)", index,
                          count);
    struct opencl_device *d = calloc(1, sizeof *d);
    if (!d)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to open opencl:%d", index);
    d->gpu.base.backend = &itera_backend_opencl;
    d->gpu.base.info = found[index].info;
    d->gpu.traits = found[index].traits;
    d->gpu.has_kernel = opencl_has_kernel;
    d->gpu.prepare = opencl_prepare;
    d->gpu.describe = opencl_describe_kernel;
    d->cl = opencl_load();
    d->id = found[index].device;
    d->max_buffer = found[index].max_buffer;
    d->keeps_binaries = found[index].keeps_binaries;
    d->nvidia = found[index].nvidia;
    enum itera_status status = open_queue(d, found[index].platform);
    if (!status && d->nvidia && !d->gpu.traits.dot)
        d->ptx_dot = d->gpu.traits.dot = d->gpu.traits.dot_fast = opencl_takes_ptx(d);
    if (!status)
        status = open_kernels(d);
    if (!status)
        status = itera_buffer_create(&d->gpu.base, ABSENT_BYTES, &d->absent);
    if (status) {
        opencl_close(&d->gpu.base);
        return status;
    }
    *out = &d->gpu.base;
    return ITERA_OK;
}

static void opencl_buffer_destroy(struct itera_buffer *base)
{
    struct opencl_buffer *buffer = (struct opencl_buffer *)base;
    if (buffer->mem)
        ((struct opencl_device *)base->device)->cl->ReleaseMemObject(buffer->mem);
    free(buffer);
}

static enum itera_status no_memory(const struct opencl_device *d, size_t bytes, const char *reason)
{
    const struct itera_device_info *info = &d->gpu.base.info;
    return itera_fail(ITERA_ERR_MEMORY,
                      "%s (%s): no memory for a buffer of %zu bytes (%s); use a smaller batch or "
                      "shorter sequences, or another device",
                      info->id, info->name, bytes, reason);
}

/* Makes the memory and writes zeros to all of it: drivers only promise memory until it is used. */
static cl_int create_zeroed(const struct opencl_device *d, size_t bytes, cl_mem *mem)
{
    static const cl_uint zero = 0;
    cl_int error = CL_SUCCESS;
    if (itera_gpu_fault(ITERA_GPU_FAULT_MEMORY))
        return CL_MEM_OBJECT_ALLOCATION_FAILURE;
    *mem = d->cl->CreateBuffer(d->context, CL_MEM_READ_WRITE, bytes, NULL, &error);
    if (error)
        *mem = NULL;
    if (!error)
        error =
            d->cl->EnqueueFillBuffer(d->queue, *mem, &zero, sizeof zero, 0, bytes, 0, NULL, NULL);
    if (!error)
        error = d->cl->Finish(d->queue);
    return error;
}

static enum itera_status opencl_buffer_create(struct itera_device *base, size_t bytes,
                                              struct itera_buffer **out)
{
    struct opencl_device *d = (struct opencl_device *)base;
    size_t rounded = bytes < 16 ? 16 : (bytes + 15) / 16 * 16;
    if (rounded < bytes || rounded > d->max_buffer) {
        char reason[96];
        snprintf(reason, sizeof reason, "the device takes %llu bytes in one buffer at most",
                 (unsigned long long)d->max_buffer);
        return no_memory(d, bytes, reason);
    }
    struct opencl_buffer *buffer = calloc(1, sizeof *buffer);
    if (!buffer)
        return no_memory(d, bytes, "the host has none");
    buffer->base = (struct itera_buffer){.device = base, .bytes = bytes};
    cl_int error = create_zeroed(d, rounded, &buffer->mem);
    if (!error) {
        *out = &buffer->base;
        return ITERA_OK;
    }
    opencl_buffer_destroy(&buffer->base);
    if (error == CL_MEM_OBJECT_ALLOCATION_FAILURE || error == CL_OUT_OF_HOST_MEMORY ||
        error == CL_OUT_OF_RESOURCES || error == CL_INVALID_BUFFER_SIZE)
        return no_memory(d, bytes, opencl_error_name(error));
    return opencl_fail(d, "clCreateBuffer", error);
}

static enum itera_status opencl_upload(struct itera_buffer *base, size_t offset, const void *data,
                                       size_t bytes)
{
    const struct opencl_buffer *buffer = (const struct opencl_buffer *)base;
    const struct opencl_device *d = (const struct opencl_device *)base->device;
    if (!bytes)
        return ITERA_OK;
    cl_int error = d->cl->EnqueueWriteBuffer(d->queue, buffer->mem, CL_TRUE, offset, bytes, data, 0,
                                             NULL, NULL);
    return error ? opencl_fail(d, "clEnqueueWriteBuffer", error) : ITERA_OK;
}

static enum itera_status opencl_download(struct itera_buffer *base, size_t offset, void *data,
                                         size_t bytes)
{
    const struct opencl_buffer *buffer = (const struct opencl_buffer *)base;
    const struct opencl_device *d = (const struct opencl_device *)base->device;
    if (!bytes)
        return ITERA_OK;
    cl_int error = d->cl->EnqueueReadBuffer(d->queue, buffer->mem, CL_TRUE, offset, bytes, data, 0,
                                            NULL, NULL);
    return error ? opencl_fail(d, "clEnqueueReadBuffer", error) : ITERA_OK;
}

const struct itera_backend itera_backend_opencl = {
    .name = "opencl",
    .list = opencl_list,
    .open = opencl_open,
    .close = opencl_close,
    .buffer_create = opencl_buffer_create,
    .buffer_destroy = opencl_buffer_destroy,
    .upload = opencl_upload,
    .download = opencl_download,
    .supports = itera_gpu_supports,
    .tune = itera_gpu_tune,
    .kernels = itera_gpu_kernels,
    .compile = opencl_compile,
    .executable_destroy = opencl_executable_destroy,
    .run = opencl_run,
    .submit = opencl_submit,
    .collect = opencl_collect,
    .profile = opencl_profile,
};
