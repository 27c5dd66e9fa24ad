/* Jobs: uploads, programs and a copy back that the host does not wait for, as one submission. Its copies
 * go through mapped memory of its own, so that the next job may write where this one is read. */
#include <stdlib.h>
#include <string.h>

#include "backend/vulkan/device.h"
#include "core/log.h"

struct vulkan_ticket {
    struct itera_ticket base;
    struct vulkan_ticket *next; /* among those that are queued, or spare */
    VkCommandBuffer before, after;
    VkFence fence;
    struct vulkan_buffer *staging; /* what is copied back, then what is uploaded */
    bool queued;
    enum itera_status status; /* of waiting for it */
};

static const size_t LEAST_STAGING = 4096;

static void destroy(struct vulkan_device *d, struct vulkan_ticket *t)
{
    VkCommandBuffer commands[2] = {t->before, t->after};
    if (commands[0])
        d->api.FreeCommandBuffers(d->handle, d->command_pool, 2, commands);
    if (t->fence)
        d->api.DestroyFence(d->handle, t->fence, NULL);
    if (t->staging)
        itera_vulkan_buffer_destroy(&t->staging->base);
    free(t);
}

void itera_vulkan_jobs_end(struct vulkan_device *d)
{
    while (d->spare) {
        struct vulkan_ticket *t = d->spare;
        d->spare = t->next;
        destroy(d, t);
    }
}

/* A ticket with so many bytes of staging memory; one that was used before if there is any. */
static enum itera_status take(struct vulkan_device *d, size_t bytes, struct vulkan_ticket **out)
{
    enum itera_status status = ITERA_OK;
    struct vulkan_ticket *t = d->spare;
    if (t)
        d->spare = t->next;
    else if (!(t = calloc(1, sizeof *t)))
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory to queue a run", d->gpu.base.info.id);
    if (!t->before) {
        VkCommandBuffer commands[2];
        const VkCommandBufferAllocateInfo info = {
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = d->command_pool,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 2};
        const VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
        VkResult result = d->api.AllocateCommandBuffers(d->handle, &info, commands);
        if (!result) {
            t->before = commands[0];
            t->after = commands[1];
            result = d->api.CreateFence(d->handle, &fence, NULL, &t->fence);
        }
        if (result)
            status = itera_vulkan_fail(d, "vkCreateFence", result);
    }
    if (!status && t->staging && t->staging->base.bytes < bytes) {
        itera_vulkan_buffer_destroy(&t->staging->base);
        t->staging = NULL;
    }
    if (!status && !t->staging)
        status = itera_vulkan_mapped_create(d, bytes < LEAST_STAGING ? LEAST_STAGING : bytes,
                                            d->staging_type, &t->staging);
    if (status) {
        destroy(d, t);
        return status;
    }
    *out = t;
    return ITERA_OK;
}

static enum itera_status record(struct vulkan_device *d, const struct itera_job *job,
                                struct vulkan_ticket *t)
{
    struct vulkan_copy uploads[ITERA_JOB_UPLOADS];
    enum itera_status status = ITERA_OK;
    size_t at = job->bytes;
    for (int i = 0; i < job->n_uploads; i++) {
        const size_t bytes = job->upload[i].bytes;
        memcpy(t->staging->mapped + at, job->upload[i].data, bytes);
        uploads[i] =
            (struct vulkan_copy){t->staging->handle,
                                 ((const struct vulkan_buffer *)job->upload[i].buffer)->handle,
                                 {at, job->upload[i].offset, bytes}};
        at += bytes;
    }
    if (job->n_uploads)
        status = itera_vulkan_record_copies(d, t->before, uploads, job->n_uploads);
    if (!status && job->bytes) {
        const struct vulkan_copy back = {((const struct vulkan_buffer *)job->from)->handle,
                                         t->staging->handle,
                                         {job->offset, 0, job->bytes}};
        status = itera_vulkan_record_copies(d, t->after, &back, 1);
    }
    return status;
}

static enum itera_status submit(struct vulkan_device *d, const struct itera_job *job,
                                struct vulkan_ticket *t)
{
    VkCommandBuffer commands[ITERA_JOB_RUNS + 2];
    uint32_t n = 0;
    if (job->n_uploads)
        commands[n++] = t->before;
    for (int i = 0; i < job->n_runs; i++)
        commands[n++] = itera_vulkan_commands(job->run[i]);
    if (job->bytes)
        commands[n++] = t->after;
    return itera_vulkan_submit(d, n, commands, t->fence);
}

enum itera_status itera_vulkan_submit_job(struct itera_device *device, const struct itera_job *job,
                                          struct itera_ticket **ticket)
{
    struct vulkan_device *d = (struct vulkan_device *)device;
    size_t bytes = job->bytes;
    for (int i = 0; i < job->n_uploads; i++)
        bytes += job->upload[i].bytes;
    struct vulkan_ticket *t = NULL;
    enum itera_status status = take(d, bytes, &t);
    if (status)
        return status;
    status = record(d, job, t);
    if (!status)
        status = submit(d, job, t);
    if (status) {
        destroy(d, t);
        return status;
    }
    struct vulkan_ticket **end = &d->queued;
    while (*end)
        end = &(*end)->next;
    *end = t;
    t->next = NULL;
    t->queued = true;
    t->status = ITERA_OK;
    *ticket = &t->base;
    return ITERA_OK;
}

/* Waits for the job that was queued first. */
static void finish_first(struct vulkan_device *d)
{
    struct vulkan_ticket *t = d->queued;
    d->queued = t->next;
    t->queued = false;
    if (!d->lost) {
        t->status = itera_vulkan_wait(d, t->fence);
        d->lost |= t->status != ITERA_OK; /* whatever it was, the job may be under way for ever */
        return;
    }
    /* The first job that was waited for has told. Drivers signal what a lost device will not do. */
    d->api.WaitForFences(d->handle, 1, &t->fence, VK_TRUE, 5000000000);
    t->status = ITERA_ERR_DEVICE;
}

enum itera_status itera_vulkan_drain(struct vulkan_device *d)
{
    enum itera_status status = ITERA_OK;
    while (d->queued) {
        const struct vulkan_ticket *t = d->queued;
        finish_first(d);
        status = status ? status : t->status;
    }
    return status;
}

enum itera_status itera_vulkan_collect(struct itera_ticket *base, void *data)
{
    struct vulkan_ticket *t = (struct vulkan_ticket *)base;
    struct vulkan_device *d = (struct vulkan_device *)base->device;
    while (t->queued)
        finish_first(d);
    const enum itera_status status = t->status;
    if (!status && data)
        memcpy(data, t->staging->mapped, base->bytes);
    if (d->lost) { /* it may never be done */
        destroy(d, t);
        return status;
    }
    t->next = d->spare;
    d->spare = t;
    return status;
}
