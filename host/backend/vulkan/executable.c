/* Programs: descriptor sets and words are written and commands recorded once; a run is one submit. */
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/plan.h"
#include "backend/vulkan/device.h"
#include "core/log.h"

/* What the device needs of one dispatch, beside the plan's. */
struct step {
    VkPipeline pipeline;
    VkPipelineLayout layout;
    VkDescriptorSetLayout set_layout;
    VkDescriptorSet set;
    enum itera_vulkan_variant variant;
    uint64_t words, addresses; /* offsets in the executable's uniform buffer */
};

struct vulkan_executable {
    struct itera_executable base;
    struct itera_gpu_plan plan;
    struct step *steps;
    struct itera_buffer *uniforms;
    VkDescriptorPool pool;
    VkCommandBuffer commands;
    VkFence fence;
    int32_t n_ops;
    /* Made by the first profile: */
    VkCommandBuffer profile_commands;
    VkQueryPool queries;
    uint64_t *ticks; /* one more than there are dispatches */
};

enum { ADDRESS_BYTES = ITERA_GPU_MAX_BINDINGS * 16 }; /* of uvec4: shaders/itera.glsl */

static uint64_t align_up(uint64_t x, uint64_t to)
{
    return (x + to - 1) / to * to;
}

/* Where a binding's descriptor begins. Buffers begin aligned, so that this is never before 0. Kernels
 * take it that 16 bytes from there on are one aligned access; a device may ask for less. */
static uint64_t binding_begin(const struct vulkan_device *d, const struct itera_gpu_binding *b)
{
    uint64_t align = d->probe.properties.limits.minStorageBufferOffsetAlignment;
    align = align < 16 ? 16 : align;
    return b->offset / align * align;
}

static uint64_t binding_range(const struct vulkan_device *d, const struct itera_gpu_binding *b)
{
    const struct vulkan_buffer *buffer = (const struct vulkan_buffer *)b->buffer;
    uint64_t begin = binding_begin(d, b), end = align_up(b->offset + b->bytes, 16);
    /* Kernels may read f16 and bytes in pairs and fours: whole 16 bytes are within reach. */
    if (end > buffer->handle_bytes)
        end = buffer->handle_bytes;
    return end - begin;
}

static enum itera_vulkan_variant choose_variant(const struct vulkan_device *d,
                                                const struct itera_gpu_dispatch *dispatch)
{
    for (int i = 0; i < dispatch->n_bindings; i++)
        if (binding_range(d, &dispatch->binding[i]) >
            d->probe.properties.limits.maxStorageBufferRange)
            return ITERA_VULKAN_ADDRESSES;
    return d->by_address ? ITERA_VULKAN_ADDRESSES : ITERA_VULKAN_DESCRIPTORS;
}

/* Dispatches that run side by side get different memory for their absent operands: no kernel touches
 * it, but a driver or validation layer may judge by what a kernel's code could do. */
static void spread_absent(const struct vulkan_device *d, struct itera_gpu_plan *plan)
{
    for (int32_t i = 0; i < plan->n; i++)
        for (int k = 0; k < plan->dispatches[i].n_bindings; k++)
            if (plan->dispatches[i].binding[k].buffer == d->absent)
                plan->dispatches[i].binding[k].offset =
                    (uint64_t)(i % VULKAN_ABSENT) * VULKAN_ABSENT_BYTES;
}

/* Variants and pipelines, and where in the uniform buffer each dispatch has its words. */
static enum itera_status make_steps(struct vulkan_device *d, struct vulkan_executable *e,
                                    uint64_t *uniform_bytes)
{
    uint64_t align = d->probe.properties.limits.minUniformBufferOffsetAlignment, at = 0;
    enum itera_status status = ITERA_OK;
    struct itera_reason why;
    align = align < 16 ? 16 : align;
    for (int32_t i = 0; i < e->plan.n && !status; i++) {
        struct step *step = &e->steps[i];
        const struct itera_gpu_dispatch *dispatch = &e->plan.dispatches[i];
        step->variant = choose_variant(d, dispatch);
        step->words = at;
        at += align_up(dispatch->n_words ? dispatch->n_words * 4u : 4u, align);
        step->addresses = at;
        if (step->variant == ITERA_VULKAN_ADDRESSES)
            at += align_up(ADDRESS_BYTES, align);
        status = itera_vulkan_pipeline(d, dispatch, step->variant, &step->pipeline, &why);
        if (status == ITERA_ERR_UNSUPPORTED)
            status = itera_fail(status, "%s", why.text);
        if (!status)
            status = itera_vulkan_layout(d, dispatch->n_bindings, step->variant, &step->set_layout,
                                         &step->layout);
    }
    *uniform_bytes = at;
    return status;
}

static enum itera_status write_uniforms(struct vulkan_device *d, struct vulkan_executable *e,
                                        uint64_t bytes)
{
    uint8_t *data = calloc(1, (size_t)bytes + 1);
    if (!data)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to compile a program");
    for (int32_t i = 0; i < e->plan.n; i++) {
        struct itera_gpu_dispatch *dispatch = &e->plan.dispatches[i];
        uint64_t address[ITERA_GPU_MAX_BINDINGS];
        for (int k = 0; k < dispatch->n_bindings; k++) {
            const struct itera_gpu_binding *b = &dispatch->binding[k];
            uint64_t begin = binding_begin(d, b);
            dispatch->word[b->word] = (uint32_t)((b->offset - begin) / b->element);
            address[k] = ((const struct vulkan_buffer *)b->buffer)->address + begin;
        }
        memcpy(data + e->steps[i].words, dispatch->word, dispatch->n_words * 4u);
        if (e->steps[i].variant == ITERA_VULKAN_ADDRESSES)
            for (int k = 0; k < dispatch->n_bindings; k++)
                memcpy(data + e->steps[i].addresses + 16 * k, &address[k], sizeof *address);
    }
    enum itera_status status = itera_vulkan_local_create(d, (size_t)bytes, &e->uniforms);
    if (!status)
        status = itera_vulkan_upload(e->uniforms, 0, data, (size_t)bytes);
    free(data);
    return status;
}

static enum itera_status make_sets(struct vulkan_device *d, struct vulkan_executable *e)
{
    VkDescriptorPoolSize sizes[2] = {{VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER, 0},
                                     {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 0}};
    for (int32_t i = 0; i < e->plan.n; i++) {
        bool addresses = e->steps[i].variant == ITERA_VULKAN_ADDRESSES;
        sizes[0].descriptorCount += addresses ? 2 : 1;
        sizes[1].descriptorCount += addresses ? 0 : e->plan.dispatches[i].n_bindings;
    }
    const VkDescriptorPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                             .maxSets = (uint32_t)e->plan.n,
                                             .poolSizeCount = sizes[1].descriptorCount ? 2 : 1,
                                             .pPoolSizes = sizes};
    VkResult result = d->api.CreateDescriptorPool(d->handle, &pool, NULL, &e->pool);
    for (int32_t i = 0; i < e->plan.n && !result; i++) {
        const VkDescriptorSetAllocateInfo info = {
            .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
            .descriptorPool = e->pool,
            .descriptorSetCount = 1,
            .pSetLayouts = &e->steps[i].set_layout};
        result = d->api.AllocateDescriptorSets(d->handle, &info, &e->steps[i].set);
    }
    return result ? itera_vulkan_fail(d, "vkAllocateDescriptorSets", result) : ITERA_OK;
}

static void write_set(struct vulkan_device *d, const struct vulkan_executable *e, int32_t index)
{
    const struct step *step = &e->steps[index];
    const struct itera_gpu_dispatch *dispatch = &e->plan.dispatches[index];
    const VkBuffer uniforms = ((const struct vulkan_buffer *)e->uniforms)->handle;
    VkDescriptorBufferInfo info[ITERA_GPU_MAX_BINDINGS + 1];
    VkWriteDescriptorSet write[ITERA_GPU_MAX_BINDINGS + 1];
    bool addresses = step->variant == ITERA_VULKAN_ADDRESSES;
    uint32_t n = addresses ? 2 : dispatch->n_bindings + 1u;
    info[0] = (VkDescriptorBufferInfo){
        uniforms, step->words, dispatch->n_words ? align_up(dispatch->n_words * 4u, 16) : 16};
    if (addresses)
        info[1] = (VkDescriptorBufferInfo){uniforms, step->addresses, ADDRESS_BYTES};
    for (uint32_t i = 1; i < n && !addresses; i++) {
        const struct itera_gpu_binding *b = &dispatch->binding[i - 1];
        info[i] = (VkDescriptorBufferInfo){((const struct vulkan_buffer *)b->buffer)->handle,
                                           binding_begin(d, b), binding_range(d, b)};
    }
    for (uint32_t i = 0; i < n; i++)
        write[i] = (VkWriteDescriptorSet){.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                          .dstSet = step->set,
                                          .dstBinding = i,
                                          .descriptorCount = 1,
                                          .descriptorType = i == 0 || addresses
                                                                ? VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER
                                                                : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                          .pBufferInfo = &info[i]};
    d->api.UpdateDescriptorSets(d->handle, n, write, 0, NULL);
}

static VkResult begin_commands(struct vulkan_device *d, VkCommandBuffer *out)
{
    const VkCommandBufferAllocateInfo allocate = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = d->command_pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1};
    const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                            .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT};
    VkResult result = d->api.AllocateCommandBuffers(d->handle, &allocate, out);
    return result ? result : d->api.BeginCommandBuffer(*out, &begin);
}

static void barrier(struct vulkan_device *d, VkCommandBuffer commands,
                    VkPipelineStageFlags from_stage, VkAccessFlags from,
                    VkPipelineStageFlags to_stage, VkAccessFlags to)
{
    const VkMemoryBarrier memory = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = from, .dstAccessMask = to};
    d->api.CmdPipelineBarrier(commands, from_stage, to_stage, 0, 1, &memory, 0, NULL, 0, NULL);
}

/* After whatever the host, copies and runs did before this submission. */
static void open_barrier(struct vulkan_device *d, VkCommandBuffer commands)
{
    barrier(d, commands,
            VK_PIPELINE_STAGE_HOST_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT |
                VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
            VK_ACCESS_HOST_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT | VK_ACCESS_SHADER_WRITE_BIT,
            VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
            VK_ACCESS_UNIFORM_READ_BIT | VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
}

static void dispatch_barrier(struct vulkan_device *d, VkCommandBuffer commands)
{
    barrier(d, commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
            VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
            VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
}

static void close_barrier(struct vulkan_device *d, VkCommandBuffer commands)
{
    barrier(d, commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
            VK_PIPELINE_STAGE_HOST_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
            VK_ACCESS_HOST_READ_BIT | VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT);
}

static void record_step(struct vulkan_device *d, const struct vulkan_executable *e, int32_t i,
                        VkCommandBuffer commands)
{
    const struct step *step = &e->steps[i];
    const uint32_t *groups = e->plan.dispatches[i].groups;
    if (i == 0 || step->pipeline != step[-1].pipeline)
        d->api.CmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, step->pipeline);
    d->api.CmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, step->layout, 0, 1,
                                 &step->set, 0, NULL);
    d->api.CmdDispatch(commands, groups[0], groups[1], groups[2]);
}

static enum itera_status record(struct vulkan_device *d, struct vulkan_executable *e)
{
    const VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VkResult result = d->api.CreateFence(d->handle, &fence, NULL, &e->fence);
    if (!result)
        result = begin_commands(d, &e->commands);
    if (result)
        return itera_vulkan_fail(d, "vkBeginCommandBuffer", result);
    open_barrier(d, e->commands);
    for (int32_t i = 0; i < e->plan.n; i++) {
        if (e->plan.dispatches[i].barrier && !d->no_barriers)
            dispatch_barrier(d, e->commands);
        record_step(d, e, i, e->commands);
    }
    close_barrier(d, e->commands);
    result = d->api.EndCommandBuffer(e->commands);
    return result ? itera_vulkan_fail(d, "vkEndCommandBuffer", result) : ITERA_OK;
}

enum itera_status itera_vulkan_compile(struct itera_device *base,
                                       const struct itera_program *program,
                                       const struct itera_binding *bindings, int n_bindings,
                                       const struct itera_compile_options *options,
                                       struct itera_compile_result *result,
                                       struct itera_executable **out)
{
    struct vulkan_device *d = (struct vulkan_device *)base;
    uint64_t uniform_bytes;
    if (d->lost)
        return itera_vulkan_fail(d, "compile", VK_ERROR_DEVICE_LOST);
    struct vulkan_executable *e = calloc(1, sizeof *e);
    if (!e)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to compile a program");
    e->base.device = base;
    e->n_ops = program->n_ops;
    enum itera_status status = itera_gpu_plan_create(&d->gpu, program, bindings, n_bindings,
                                                     d->absent, options, result, &e->plan);
    if (status)
        goto fail;
    spread_absent(d, &e->plan);
    e->base.memory_bytes = (size_t)e->plan.memory_bytes;
    e->base.n_dispatches = e->plan.n;
    e->base.n_barriers = itera_gpu_plan_barriers(&e->plan);
    e->steps = calloc((size_t)e->plan.n + 1, sizeof *e->steps);
    if (!e->steps) {
        status = itera_fail(ITERA_ERR_MEMORY, "no memory to compile a program");
        goto fail;
    }
    status = make_steps(d, e, &uniform_bytes);
    if (!status && e->plan.n) {
        status = write_uniforms(d, e, uniform_bytes);
        if (!status)
            status = make_sets(d, e);
    }
    if (status)
        goto fail;
    for (int32_t i = 0; i < e->plan.n; i++)
        write_set(d, e, i);
    status = record(d, e);
    if (status)
        goto fail;
    itera_vulkan_cache_save(d, false);
    *out = &e->base;
    return ITERA_OK;
fail:
    itera_vulkan_executable_destroy(&e->base);
    return status;
}

void itera_vulkan_executable_destroy(struct itera_executable *base)
{
    struct vulkan_executable *e = (struct vulkan_executable *)base;
    struct vulkan_device *d = (struct vulkan_device *)base->device;
    (void)itera_vulkan_drain(d); /* a lost device: nothing is under way any more */
    if (e->commands)
        d->api.FreeCommandBuffers(d->handle, d->command_pool, 1, &e->commands);
    if (e->profile_commands)
        d->api.FreeCommandBuffers(d->handle, d->command_pool, 1, &e->profile_commands);
    if (e->queries)
        d->api.DestroyQueryPool(d->handle, e->queries, NULL);
    if (e->fence)
        d->api.DestroyFence(d->handle, e->fence, NULL);
    if (e->pool)
        d->api.DestroyDescriptorPool(d->handle, e->pool, NULL);
    if (e->uniforms)
        itera_vulkan_buffer_destroy(e->uniforms);
    itera_gpu_plan_destroy(&e->plan);
    free(e->steps);
    free(e->ticks);
    free(e);
}

VkCommandBuffer itera_vulkan_commands(const struct itera_executable *base)
{
    return ((const struct vulkan_executable *)base)->commands;
}

enum itera_status itera_vulkan_run(struct itera_executable *base)
{
    struct vulkan_executable *e = (struct vulkan_executable *)base;
    struct vulkan_device *d = (struct vulkan_device *)base->device;
    enum itera_status status = itera_vulkan_submit(d, 1, &e->commands, e->fence);
    return status ? status : itera_vulkan_wait(d, e->fence);
}

/* The same commands with a timestamp after each dispatch, each alone on the device. */
static enum itera_status record_profile(struct vulkan_device *d, struct vulkan_executable *e)
{
    const VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                        .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                        .queryCount = (uint32_t)e->plan.n + 1};
    e->ticks = calloc((size_t)e->plan.n + 1, sizeof *e->ticks);
    VkResult result = e->ticks ? d->api.CreateQueryPool(d->handle, &info, NULL, &e->queries)
                               : VK_ERROR_OUT_OF_HOST_MEMORY;
    if (!result)
        result = begin_commands(d, &e->profile_commands);
    if (!result) {
        VkCommandBuffer commands = e->profile_commands;
        const VkPipelineStageFlagBits stage = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT;
        d->api.CmdResetQueryPool(commands, e->queries, 0, info.queryCount);
        open_barrier(d, commands);
        d->api.CmdWriteTimestamp(commands, stage, e->queries, 0);
        for (int32_t i = 0; i < e->plan.n; i++) {
            dispatch_barrier(d, commands);
            record_step(d, e, i, commands);
            d->api.CmdWriteTimestamp(commands, stage, e->queries, (uint32_t)i + 1);
        }
        close_barrier(d, commands);
        result = d->api.EndCommandBuffer(commands);
    }
    if (!result)
        return ITERA_OK;
    if (e->profile_commands)
        d->api.FreeCommandBuffers(d->handle, d->command_pool, 1, &e->profile_commands);
    if (e->queries)
        d->api.DestroyQueryPool(d->handle, e->queries, NULL);
    free(e->ticks);
    e->profile_commands = VK_NULL_HANDLE;
    e->queries = VK_NULL_HANDLE;
    e->ticks = NULL;
    return itera_vulkan_fail(d, "vkCreateQueryPool", result);
}

enum itera_status itera_vulkan_profile(struct itera_executable *base, double *op_seconds)
{
    struct vulkan_executable *e = (struct vulkan_executable *)base;
    struct vulkan_device *d = (struct vulkan_device *)base->device;
    if (!d->probe.features[ITERA_VULKAN_TIMESTAMPS])
        return itera_fail(ITERA_ERR_UNSUPPORTED,
                          "%s (%s): its queue has no timestamps; time whole runs instead",
                          d->gpu.base.info.id, d->gpu.base.info.name);
    enum itera_status status = e->profile_commands ? ITERA_OK : record_profile(d, e);
    if (!status)
        status = itera_vulkan_submit(d, 1, &e->profile_commands, e->fence);
    if (!status)
        status = itera_vulkan_wait(d, e->fence);
    if (status)
        return status;
    VkResult result = d->api.GetQueryPoolResults(d->handle, e->queries, 0, (uint32_t)e->plan.n + 1,
                                                 ((size_t)e->plan.n + 1) * sizeof *e->ticks,
                                                 e->ticks, sizeof *e->ticks,
                                                 VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT);
    if (result)
        return itera_vulkan_fail(d, "vkGetQueryPoolResults", result);
    uint32_t bits = d->probe.timestamp_bits;
    uint64_t mask = bits >= 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1;
    double tick = 1e-9 * (double)d->probe.properties.limits.timestampPeriod;
    for (int32_t i = 0; i < e->n_ops; i++)
        op_seconds[i] = 0;
    for (int32_t i = 0; i < e->plan.n; i++)
        op_seconds[e->plan.dispatches[i].op] +=
            tick * (double)((e->ticks[i + 1] - e->ticks[i]) & mask);
    return ITERA_OK;
}
