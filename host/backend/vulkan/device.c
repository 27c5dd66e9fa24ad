/* The Vulkan backend: devices, and its table. */
#include "backend/vulkan/device.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/fault.h"
#include "backend/gpu/hash.h"
#include "backend/gpu/kernels.h"
#include "backend/gpu/lower.h"
#include "backend/gpu/tuning_measure.h"
#include "backend/gpu/tuning_store.h"
#include "backend/gpu/units.h"
#include "core/log.h"

/* The physical devices of an instance; *devices is malloc'ed. */
static VkResult enumerate(const struct itera_vulkan_api *api, VkPhysicalDevice **devices,
                          uint32_t *n)
{
    VkResult result;
    *devices = NULL;
    if (itera_gpu_fault(ITERA_GPU_FAULT_LIST))
        return VK_ERROR_INITIALIZATION_FAILED;
    do {
        free(*devices);
        *devices = NULL;
        result = api->EnumeratePhysicalDevices(api->instance, n, NULL);
        if (result)
            return result;
        *devices = calloc((size_t)*n + 1, sizeof **devices);
        if (!*devices)
            return VK_ERROR_OUT_OF_HOST_MEMORY;
        result = api->EnumeratePhysicalDevices(api->instance, n, *devices);
    } while (result == VK_INCOMPLETE);
    return result;
}

static enum itera_status vulkan_list(struct itera_device_info *infos, int capacity, int *count)
{
    *count = 0;
    struct itera_vulkan_api api;
    VkResult result = itera_vulkan_instance(&api);
    if (result) {
        itera_log(ITERA_LOG_DEBUG, "vulkan: no instance: %s", itera_vulkan_result_name(result));
        return ITERA_OK;
    }
    VkPhysicalDevice *devices;
    uint32_t n = 0;
    result = enumerate(&api, &devices, &n);
    if (result) {
        itera_log(ITERA_LOG_WARNING, "vulkan: devices cannot be listed: %s",
                  itera_vulkan_result_name(result));
        n = 0;
    }
    static atomic_bool warned; /* every opening of a device lists them all */
    bool warn = n && !atomic_exchange(&warned, true);
    struct itera_vulkan_probe *probe = n ? malloc(sizeof *probe) : NULL;
    for (uint32_t i = 0; probe && i < n && *count < capacity; i++) {
        itera_vulkan_probe_device(&api, devices[i], probe);
        if (!probe->lacking[0])
            itera_vulkan_describe(probe, (int)i, &infos[(*count)++]);
        else if (warn)
            itera_log(ITERA_LOG_WARNING, "vulkan:%u (%s) is left out: kernels need %s", i,
                      probe->properties.deviceName, probe->lacking);
    }
    free(probe);
    free(devices);
    return ITERA_OK;
}

static enum itera_gpu_vendor vendor(const struct itera_vulkan_probe *probe)
{
    if (probe->properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU)
        return ITERA_GPU_SOFTWARE;
    switch (probe->properties.vendorID) {
    case 0x10de:
        return ITERA_GPU_NVIDIA;
    case 0x1002:
        return ITERA_GPU_AMD;
    case 0x8086:
        return ITERA_GPU_INTEL;
    default:
        return ITERA_GPU_OTHER;
    }
}

static void set_traits(struct vulkan_device *d)
{
    const struct itera_vulkan_probe *probe = &d->probe;
    const VkPhysicalDeviceLimits *limits = &probe->properties.limits;
    const uint64_t with_addresses = (uint64_t)16 << 30;
    const bool *has = probe->features;
    uint32_t side = limits->maxComputeWorkGroupSize[0];
    d->gpu.traits = (struct itera_gpu_traits){
        .vendor = vendor(probe),
        .max_local = limits->maxComputeWorkGroupInvocations < side
                         ? limits->maxComputeWorkGroupInvocations
                         : side,
        .shared_bytes = limits->maxComputeSharedMemorySize,
        .compute_units = itera_gpu_units(
            &(const struct itera_gpu_identity){.vendor = vendor(probe),
                                               .pci_device = probe->properties.deviceID,
                                               .name = probe->properties.deviceName,
                                               .reported = probe->compute_units}),
        .subgroup = probe->subgroup,
        .max_operand_bytes =
            has[ITERA_VULKAN_ADDRESS] ? with_addresses : limits->maxStorageBufferRange,
        .half_storage = has[ITERA_VULKAN_STORAGE16],
        .half_math = has[ITERA_VULKAN_FLOAT16],
        .dot = has[ITERA_VULKAN_DOT] && !itera_gpu_fault(ITERA_GPU_FAULT_PLAIN),
        .dot_fast = probe->dot_fast,
        .matrix = probe->matrix};
}

/* Device, driver and shaders: what tuning and compiled pipelines depend on. */
static void set_identity(struct vulkan_device *d)
{
    const VkPhysicalDeviceProperties *p = &d->probe.properties;
    uint64_t shaders = 0, uuid = itera_gpu_hash(0, d->probe.id.deviceUUID, VK_UUID_SIZE);
    for (int i = 0; itera_vulkan_shaders[i]; i++)
        for (int v = 0; v < ITERA_VULKAN_VARIANTS; v++) {
            const struct itera_vulkan_module *module =
                itera_vulkan_module(&d->probe, itera_vulkan_shaders[i], v);
            shaders = itera_gpu_hash(shaders, module->words, module->bytes);
        }
    snprintf(d->identity, sizeof d->identity, "vulkan %04x:%04x %.64s, %.64s, %016llx, %016llx",
             p->vendorID, p->deviceID, p->deviceName, d->probe.driver, (unsigned long long)uuid,
             (unsigned long long)shaders);
}

static VkResult create_logical(struct vulkan_device *d)
{
    struct itera_vulkan_chain chain = d->probe.chain;
    const float priority = 1;
    const VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                           .queueFamilyIndex = d->probe.queue_family,
                                           .queueCount = 1,
                                           .pQueuePriorities = &priority};
    const VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                     .pNext = itera_vulkan_chain_link(&d->probe, &chain),
                                     .queueCreateInfoCount = 1,
                                     .pQueueCreateInfos = &queue,
                                     .enabledExtensionCount = d->probe.n_extensions,
                                     .ppEnabledExtensionNames = d->probe.extensions};
    VkResult result = d->api.CreateDevice(d->probe.physical, &info, NULL, &d->handle);
    if (result)
        d->handle = VK_NULL_HANDLE;
    return result;
}

static VkResult create_device(struct vulkan_device *d)
{
    VkResult result = create_logical(d);
    /* A layer that looks at kernels enables the same, and drivers refuse what they are given twice. */
    if (result && itera_vulkan_without_statistics(&d->probe))
        result = create_logical(d);
    if (result)
        return result;
    if (!itera_vulkan_load_device(&d->api, d->handle))
        return VK_ERROR_INITIALIZATION_FAILED;
    if (!d->api.GetBufferDeviceAddressKHR)
        d->probe.features[ITERA_VULKAN_ADDRESS] = false;
    d->api.GetDeviceQueue(d->handle, d->probe.queue_family, 0, &d->queue);
    const VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                          .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                          .queueFamilyIndex = d->probe.queue_family};
    return d->api.CreateCommandPool(d->handle, &pool, NULL, &d->command_pool);
}

static void vulkan_close(struct itera_device *base)
{
    struct vulkan_device *d = (struct vulkan_device *)base;
    if (d->command_pool) {
        d->api.DeviceWaitIdle(d->handle);
        itera_vulkan_pipelines_end(d);
        if (d->absent)
            itera_vulkan_buffer_destroy(d->absent);
        itera_vulkan_jobs_end(d);
        itera_vulkan_transfer_end(d);
        itera_vulkan_memory_end(d);
        d->api.DestroyCommandPool(d->handle, d->command_pool, NULL);
    }
    if (d->handle && d->api.DestroyDevice)
        d->api.DestroyDevice(d->handle, NULL);
    if (d->gpu.tuning)
        itera_gpu_tuning_close(&d->gpu.tuning);
    free(d);
}

static enum itera_status vulkan_open(int index, const struct itera_device_options *options,
                                     struct itera_device **out)
{
    (void)options;
    struct vulkan_device *d = calloc(1, sizeof *d);
    if (!d)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to open vulkan:%d", index);
    struct itera_device_info *info = &d->gpu.base.info;
    snprintf(info->id, sizeof info->id, "vulkan:%d", index);
    snprintf(info->name, sizeof info->name, "not identified yet");
    snprintf(info->driver, sizeof info->driver, "not identified yet");
    d->gpu.base.backend = &itera_backend_vulkan;
    d->gpu.has_kernel = itera_vulkan_has_kernel;
    d->gpu.prepare = itera_vulkan_prepare;
    d->gpu.describe = itera_vulkan_describe_kernel;
    VkPhysicalDevice *devices = NULL;
    uint32_t n = 0;
    enum itera_status status = ITERA_OK;
    VkResult result = itera_vulkan_instance(&d->api);
    const char *call = "vkCreateInstance";
    if (!result) {
        call = "vkEnumeratePhysicalDevices";
        result = enumerate(&d->api, &devices, &n);
    }
    if (!result && (index < 0 || (uint32_t)index >= n))
        status = itera_fail(ITERA_ERR_DEVICE, "there is no device vulkan:%d any more", index);
    if (!result && !status) {
        itera_vulkan_probe_device(&d->api, devices[index], &d->probe);
        itera_vulkan_describe(&d->probe, index, info);
        call = "vkCreateDevice";
        result = create_device(d);
    }
    free(devices);
    if (result)
        status = itera_vulkan_fail(d, call, result);
    if (status)
        goto fail;
    d->probe.plain = itera_gpu_fault(ITERA_GPU_FAULT_PLAIN);
    set_traits(d);
    set_identity(d);
    d->staged = itera_gpu_fault(ITERA_GPU_FAULT_STAGING);
    d->by_address =
        d->probe.features[ITERA_VULKAN_ADDRESS] && itera_gpu_fault(ITERA_GPU_FAULT_ADDRESSES);
    d->no_barriers = itera_gpu_fault(ITERA_GPU_FAULT_BARRIERS);
    status = itera_vulkan_choose_memory(d);
    if (!status)
        status = itera_vulkan_pipelines_begin(d);
    if (!status)
        status = itera_gpu_tuning_open(d->identity, &d->gpu.tuning);
    if (!status)
        status = itera_vulkan_buffer_create(&d->gpu.base, VULKAN_ABSENT * VULKAN_ABSENT_BYTES,
                                            &d->absent);
    if (status)
        goto fail;
    *out = &d->gpu.base;
    return ITERA_OK;
fail:
    vulkan_close(&d->gpu.base);
    return status;
}

const struct itera_backend itera_backend_vulkan = {
    .name = "vulkan",
    .list = vulkan_list,
    .open = vulkan_open,
    .close = vulkan_close,
    .buffer_create = itera_vulkan_buffer_create,
    .buffer_destroy = itera_vulkan_buffer_destroy,
    .upload = itera_vulkan_upload,
    .download = itera_vulkan_download,
    .supports = itera_gpu_supports,
    .tune = itera_gpu_tune,
    .kernels = itera_gpu_kernels,
    .compile = itera_vulkan_compile,
    .executable_destroy = itera_vulkan_executable_destroy,
    .run = itera_vulkan_run,
    .submit = itera_vulkan_submit_job,
    .collect = itera_vulkan_collect,
    .profile = itera_vulkan_profile,
};
