/* What goes to a device, waiting for it, and what its errors mean. */
#include "backend/gpu/fault.h"
#include "backend/vulkan/device.h"
#include "core/clock.h"
#include "core/log.h"

/* After this a GPU is taken for hung. A software driver computes on the CPU: it may take long. */
static const double HUNG_SECONDS = 600;

enum itera_status itera_vulkan_fail(struct vulkan_device *d, const char *call, VkResult result)
{
    const struct itera_device_info *info = &d->gpu.base.info;
    const char *name = itera_vulkan_result_name(result);
    switch (result) {
    case VK_ERROR_DEVICE_LOST:
        d->lost = true;
        return itera_fail(ITERA_ERR_DEVICE,
                          "%s (%s): the device was lost (%s: %s); training resumes from its last "
                          "checkpoint on another device",
                          info->id, info->name, call, name);
    case VK_ERROR_OUT_OF_HOST_MEMORY:
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_TOO_MANY_OBJECTS:
    case VK_ERROR_OUT_OF_POOL_MEMORY:
        return itera_fail(ITERA_ERR_MEMORY,
                          "%s (%s): %s: %s; close other programs that use the device, or take a "
                          "smaller batch or model",
                          info->id, info->name, call, name);
    default:
        return itera_fail(ITERA_ERR_DEVICE,
                          "%s (%s): %s: %s; update the driver (%s), or use another device",
                          info->id, info->name, call, name, info->driver);
    }
}

enum itera_status itera_vulkan_wait(struct vulkan_device *d, VkFence fence)
{
    const uint64_t second = 1000000000;
    bool patient = d->gpu.traits.vendor == ITERA_GPU_SOFTWARE;
    double begin = itera_seconds();
    VkResult result;
    do {
        result = d->api.WaitForFences(d->handle, 1, &fence, VK_TRUE, 5 * second);
    } while (result == VK_TIMEOUT && (patient || itera_seconds() - begin < HUNG_SECONDS));
    if (result == VK_SUCCESS && itera_gpu_fault(ITERA_GPU_FAULT_LOST))
        result = VK_ERROR_DEVICE_LOST;
    if (result == VK_SUCCESS)
        return ITERA_OK;
    if (result != VK_TIMEOUT)
        return itera_vulkan_fail(d, "vkWaitForFences", result);
    d->lost = true;
    return itera_fail(ITERA_ERR_DEVICE,
                      "%s (%s): no answer for %.0f seconds; training resumes from its last "
                      "checkpoint on another device",
                      d->gpu.base.info.id, d->gpu.base.info.name, HUNG_SECONDS);
}

enum itera_status itera_vulkan_submit(struct vulkan_device *d, uint32_t n,
                                      const VkCommandBuffer *commands, VkFence fence)
{
    if (d->lost)
        return itera_vulkan_fail(d, "vkQueueSubmit", VK_ERROR_DEVICE_LOST);
    const VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                               .commandBufferCount = n,
                               .pCommandBuffers = commands};
    VkResult result = d->api.ResetFences(d->handle, 1, &fence);
    if (!result)
        result = d->api.QueueSubmit(d->queue, 1, &info, fence);
    return result ? itera_vulkan_fail(d, "vkQueueSubmit", result) : ITERA_OK;
}
