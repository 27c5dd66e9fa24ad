/* Copies between host and device. Mapped buffers are plain memory; others go through staging
 * memory, in two lanes: the host copies to or from one while the device works on the other. */
#include <stdlib.h>
#include <string.h>

#include "backend/vulkan/device.h"

static const uint64_t LANE_BYTES = (uint64_t)8 << 20;
/* Reading more than this past the caches takes longer than a copy and a wait. */
static const size_t SLOW_READ = 4096;

static enum itera_status begin(struct vulkan_device *d)
{
    if (d->staging)
        return ITERA_OK;
    enum itera_status status = itera_vulkan_mapped_create(d, (size_t)(VULKAN_LANES * LANE_BYTES),
                                                          d->staging_type, &d->staging);
    if (status)
        return status;
    const VkCommandBufferAllocateInfo info = {.sType =
                                                  VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                              .commandPool = d->command_pool,
                                              .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                              .commandBufferCount = 1};
    const VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    for (int i = 0; i < VULKAN_LANES; i++) {
        struct vulkan_lane *lane = &d->lanes[i];
        VkResult result = d->api.AllocateCommandBuffers(d->handle, &info, &lane->commands);
        if (!result)
            result = d->api.CreateFence(d->handle, &fence, NULL, &lane->fence);
        if (result) {
            itera_vulkan_transfer_end(d);
            return itera_vulkan_fail(d, "vkCreateFence", result);
        }
        lane->offset = (uint64_t)i * LANE_BYTES;
        lane->mapped = d->staging->mapped + lane->offset;
    }
    return ITERA_OK;
}

void itera_vulkan_transfer_end(struct vulkan_device *d)
{
    if (!d->staging)
        return;
    for (int i = 0; i < VULKAN_LANES; i++) {
        struct vulkan_lane *lane = &d->lanes[i];
        if (lane->fence)
            d->api.DestroyFence(d->handle, lane->fence, NULL);
        if (lane->commands)
            d->api.FreeCommandBuffers(d->handle, d->command_pool, 1, &lane->commands);
        *lane = (struct vulkan_lane){0};
    }
    itera_vulkan_buffer_destroy(&d->staging->base);
    d->staging = NULL;
}

/* Waits for what the lane is doing, and hands out what it has read. */
static enum itera_status finish(struct vulkan_device *d, struct vulkan_lane *lane)
{
    if (!lane->busy)
        return ITERA_OK;
    lane->busy = false;
    enum itera_status status = itera_vulkan_wait(d, lane->fence);
    if (!status && lane->to)
        memcpy(lane->to, lane->mapped, lane->bytes);
    return status;
}

/* All lanes, even after an error: nothing may be under way when the caller goes on. */
static enum itera_status finish_all(struct vulkan_device *d, enum itera_status status)
{
    for (int i = 0; i < VULKAN_LANES; i++) {
        enum itera_status one = finish(d, &d->lanes[i]);
        status = status ? status : one;
    }
    return status;
}

enum itera_status itera_vulkan_record_copies(struct vulkan_device *d, VkCommandBuffer commands,
                                             const struct vulkan_copy *copies, int n)
{
    const VkCommandBufferBeginInfo begin_info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    const VkMemoryBarrier before = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask =
            VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT | VK_ACCESS_HOST_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT};
    const VkMemoryBarrier after = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                                   .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
                                   .dstAccessMask = VK_ACCESS_HOST_READ_BIT |
                                                    VK_ACCESS_SHADER_READ_BIT |
                                                    VK_ACCESS_SHADER_WRITE_BIT};
    const VkPipelineStageFlags shader = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                               transfer = VK_PIPELINE_STAGE_TRANSFER_BIT,
                               host = VK_PIPELINE_STAGE_HOST_BIT;
    VkResult result = d->api.BeginCommandBuffer(commands, &begin_info);
    if (result)
        return itera_vulkan_fail(d, "vkBeginCommandBuffer", result);
    d->api.CmdPipelineBarrier(commands, shader | transfer | host, transfer, 0, 1, &before, 0, NULL,
                              0, NULL);
    for (int i = 0; i < n; i++) {
        if (copies[i].from)
            d->api.CmdCopyBuffer(commands, copies[i].from, copies[i].to, 1, &copies[i].region);
        else
            d->api.CmdFillBuffer(commands, copies[i].to, 0, VK_WHOLE_SIZE, 0);
    }
    d->api.CmdPipelineBarrier(commands, transfer, shader | host, 0, 1, &after, 0, NULL, 0, NULL);
    result = d->api.EndCommandBuffer(commands);
    return result ? itera_vulkan_fail(d, "vkEndCommandBuffer", result) : ITERA_OK;
}

static enum itera_status submit(struct vulkan_device *d, struct vulkan_lane *lane,
                                const struct vulkan_copy *copy)
{
    enum itera_status status = itera_vulkan_record_copies(d, lane->commands, copy, 1);
    if (!status)
        status = itera_vulkan_submit(d, 1, &lane->commands, lane->fence);
    lane->busy = !status;
    return status;
}

enum itera_status itera_vulkan_zero(struct vulkan_buffer *b)
{
    struct vulkan_device *d = (struct vulkan_device *)b->base.device;
    enum itera_status status = begin(d);
    d->lanes[0].to = NULL;
    if (!status)
        status = submit(d, &d->lanes[0], &(struct vulkan_copy){.to = b->handle});
    return finish_all(d, status);
}

enum itera_status itera_vulkan_upload(struct itera_buffer *base, size_t offset, const void *data,
                                      size_t bytes)
{
    struct vulkan_buffer *b = (struct vulkan_buffer *)base;
    struct vulkan_device *d = (struct vulkan_device *)base->device;
    if (!bytes)
        return ITERA_OK;
    if (b->mapped) {
        const enum itera_status drained = itera_vulkan_drain(d);
        if (!drained)
            memcpy(b->mapped + offset, data, bytes);
        return drained;
    }
    enum itera_status status = begin(d);
    for (size_t done = 0, n = 0; done < bytes && !status; n++) {
        struct vulkan_lane *lane = &d->lanes[n % VULKAN_LANES];
        size_t part = bytes - done < LANE_BYTES ? bytes - done : (size_t)LANE_BYTES;
        status = finish(d, lane);
        if (status)
            break;
        lane->to = NULL;
        memcpy(lane->mapped, (const uint8_t *)data + done, part);
        status = submit(d, lane,
                        &(struct vulkan_copy){
                            d->staging->handle, b->handle, {lane->offset, offset + done, part}});
        done += part;
    }
    return finish_all(d, status);
}

enum itera_status itera_vulkan_download(struct itera_buffer *base, size_t offset, void *data,
                                        size_t bytes)
{
    struct vulkan_buffer *b = (struct vulkan_buffer *)base;
    struct vulkan_device *d = (struct vulkan_device *)base->device;
    if (!bytes)
        return ITERA_OK;
    if (b->mapped && !(b->slow_reads && bytes > SLOW_READ)) {
        const enum itera_status drained = itera_vulkan_drain(d);
        if (!drained)
            memcpy(data, b->mapped + offset, bytes);
        return drained;
    }
    enum itera_status status = begin(d);
    for (size_t done = 0, n = 0; done < bytes && !status; n++) {
        struct vulkan_lane *lane = &d->lanes[n % VULKAN_LANES];
        size_t part = bytes - done < LANE_BYTES ? bytes - done : (size_t)LANE_BYTES;
        status = finish(d, lane);
        if (status)
            break;
        lane->to = (uint8_t *)data + done;
        lane->bytes = part;
        status = submit(d, lane,
                        &(struct vulkan_copy){
                            b->handle, d->staging->handle, {offset + done, lane->offset, part}});
        done += part;
    }
    return finish_all(d, status);
}
