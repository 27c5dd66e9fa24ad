/* Pipelines: one per kernel, variant and constants; and what the driver made of them, on disk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/cache.h"
#include "backend/gpu/fault.h"
#include "backend/gpu/hash.h"
#include "backend/vulkan/device.h"
#include "core/clock.h"
#include "core/log.h"

/* While many programs are compiled one after the other, the cache is not rewritten for each. */
static const double SAVE_SECONDS = 2;

static const struct itera_vulkan_shader *find_shader(const char *name)
{
    for (int i = 0; itera_vulkan_shaders[i]; i++)
        if (!strcmp(itera_vulkan_shaders[i]->name, name))
            return itera_vulkan_shaders[i];
    return NULL;
}

bool itera_vulkan_has_kernel(struct itera_gpu_device *device, const char *kernel)
{
    const struct vulkan_device *d = (const struct vulkan_device *)device;
    const struct itera_vulkan_shader *shader = find_shader(kernel);
    return shader && itera_vulkan_can_run(&d->probe, shader, ITERA_VULKAN_DESCRIPTORS, NULL, NULL);
}

static void cache_name(const struct vulkan_device *d, char *out, size_t size)
{
    snprintf(out, size, "vulkan-%016llx.bin",
             (unsigned long long)itera_gpu_hash(0, d->identity, strlen(d->identity)));
}

/* Drivers must check this header too, and not all do. */
static bool cache_fits(const struct vulkan_device *d, const void *data, size_t bytes)
{
    const VkPhysicalDeviceProperties *p = &d->probe.properties;
    VkPipelineCacheHeaderVersionOne header;
    if (bytes < sizeof header)
        return false;
    memcpy(&header, data, sizeof header);
    return header.headerSize >= sizeof header && header.headerSize <= bytes &&
           header.headerVersion == VK_PIPELINE_CACHE_HEADER_VERSION_ONE &&
           header.vendorID == p->vendorID && header.deviceID == p->deviceID &&
           !memcmp(header.pipelineCacheUUID, p->pipelineCacheUUID, VK_UUID_SIZE);
}

enum itera_status itera_vulkan_pipelines_begin(struct vulkan_device *d)
{
    char name[64];
    void *data = NULL;
    size_t bytes = 0;
    cache_name(d, name, sizeof name);
    enum itera_status status = itera_gpu_cache_read(name, d->identity, &data, &bytes);
    if (status)
        return status;
    if (data && !cache_fits(d, data, bytes)) {
        itera_log(ITERA_LOG_DEBUG, "%s: the cached pipelines are another driver's",
                  d->gpu.base.info.id);
        bytes = 0;
    }
    const VkPipelineCacheCreateInfo empty = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    VkPipelineCacheCreateInfo info = empty;
    info.initialDataSize = bytes;
    info.pInitialData = bytes ? data : NULL;
    d->loaded_cache_bytes = bytes;
    VkResult result = d->api.CreatePipelineCache(d->handle, &info, NULL, &d->pipeline_cache);
    if (result && bytes) {
        d->loaded_cache_bytes = 0;
        result = d->api.CreatePipelineCache(d->handle, &empty, NULL, &d->pipeline_cache);
    }
    free(data);
    return result ? itera_vulkan_fail(d, "vkCreatePipelineCache", result) : ITERA_OK;
}

void itera_vulkan_cache_save(struct vulkan_device *d, bool now)
{
    if (!d->unsaved_pipelines || d->lost || (!now && itera_seconds() - d->saved_at < SAVE_SECONDS))
        return;
    size_t bytes = 0;
    if (d->api.GetPipelineCacheData(d->handle, d->pipeline_cache, &bytes, NULL) || !bytes)
        return;
    void *data = malloc(bytes);
    if (data && !d->api.GetPipelineCacheData(d->handle, d->pipeline_cache, &bytes, data)) {
        char name[64];
        cache_name(d, name, sizeof name);
        itera_gpu_cache_write(name, d->identity, data, bytes);
        d->unsaved_pipelines = 0;
        d->saved_at = itera_seconds();
    }
    free(data);
}

void itera_vulkan_pipelines_end(struct vulkan_device *d)
{
    if (d->pipeline_cache) {
        itera_vulkan_cache_save(d, true);
        d->api.DestroyPipelineCache(d->handle, d->pipeline_cache, NULL);
    }
    for (int i = 0; i < d->n_pipelines; i++)
        if (d->pipelines[i].handle)
            d->api.DestroyPipeline(d->handle, d->pipelines[i].handle, NULL);
    free(d->pipelines);
    for (int i = 0; i < VULKAN_LAYOUTS; i++) {
        if (d->layouts[i])
            d->api.DestroyPipelineLayout(d->handle, d->layouts[i], NULL);
        if (d->set_layouts[i])
            d->api.DestroyDescriptorSetLayout(d->handle, d->set_layouts[i], NULL);
    }
}

enum itera_status itera_vulkan_layout(struct vulkan_device *d, int n_bindings,
                                      enum itera_vulkan_variant variant, VkDescriptorSetLayout *set,
                                      VkPipelineLayout *layout)
{
    bool addresses = variant == ITERA_VULKAN_ADDRESSES;
    int index = addresses ? VULKAN_ADDRESS_LAYOUT : n_bindings;
    if (!d->layouts[index]) {
        VkDescriptorSetLayoutBinding binding[ITERA_GPU_MAX_BINDINGS + 1];
        uint32_t n = addresses ? 2 : (uint32_t)n_bindings + 1;
        for (uint32_t i = 0; i < n; i++)
            binding[i] = (VkDescriptorSetLayoutBinding){
                .binding = i,
                .descriptorType = i == 0 || addresses ? VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER
                                                      : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                .descriptorCount = 1,
                .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT};
        const VkDescriptorSetLayoutCreateInfo set_info = {
            .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
            .bindingCount = n,
            .pBindings = binding};
        VkResult result = VK_SUCCESS;
        if (!d->set_layouts[index])
            result = d->api.CreateDescriptorSetLayout(d->handle, &set_info, NULL,
                                                      &d->set_layouts[index]);
        const VkPipelineLayoutCreateInfo info = {.sType =
                                                     VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                                 .setLayoutCount = 1,
                                                 .pSetLayouts = &d->set_layouts[index]};
        if (!result)
            result = d->api.CreatePipelineLayout(d->handle, &info, NULL, &d->layouts[index]);
        if (result)
            return itera_vulkan_fail(d, "vkCreatePipelineLayout", result);
    }
    *set = d->set_layouts[index];
    *layout = d->layouts[index];
    return ITERA_OK;
}

/* The key of a dispatch's pipeline. */
static struct vulkan_pipeline key_of(const struct itera_gpu_dispatch *dispatch,
                                     enum itera_vulkan_variant variant)
{
    struct vulkan_pipeline key = {.shader = find_shader(dispatch->kernel),
                                  .variant = variant,
                                  .n_constants = dispatch->n_constants,
                                  .n_bindings =
                                      variant == ITERA_VULKAN_ADDRESSES ? 0 : dispatch->n_bindings};
    memcpy(key.local, dispatch->local, sizeof key.local);
    memcpy(key.constant, dispatch->constant, key.n_constants * sizeof *key.constant);
    uint64_t hash = itera_gpu_hash(0, dispatch->kernel, strlen(dispatch->kernel));
    hash = itera_gpu_hash(hash, &variant, sizeof variant);
    hash = itera_gpu_hash(hash, key.local, sizeof key.local);
    for (uint32_t i = 0; i < key.n_constants; i++) {
        hash = itera_gpu_hash(hash, &key.constant[i].id, sizeof key.constant[i].id);
        hash = itera_gpu_hash(hash, &key.constant[i].value, sizeof key.constant[i].value);
    }
    key.hash = hash;
    return key;
}

static bool same(const struct vulkan_pipeline *a, const struct vulkan_pipeline *b)
{
    if (a->hash != b->hash || a->shader != b->shader || a->variant != b->variant ||
        a->n_bindings != b->n_bindings || a->n_constants != b->n_constants ||
        memcmp(a->local, b->local, sizeof a->local) != 0)
        return false;
    for (uint32_t i = 0; i < a->n_constants; i++)
        if (a->constant[i].id != b->constant[i].id || a->constant[i].value != b->constant[i].value)
            return false;
    return true;
}

static VkResult create_pipeline(struct vulkan_device *d, const struct vulkan_pipeline *key,
                                VkPipelineLayout layout, uint32_t subgroup, VkPipelineCache cache,
                                VkPipelineCreateFlags flags, VkPipeline *out)
{
    uint32_t value[4 + ITERA_GPU_MAX_CONSTANTS];
    VkSpecializationMapEntry entry[4 + ITERA_GPU_MAX_CONSTANTS];
    uint32_t n = 3 + key->n_constants;
    for (uint32_t i = 0; i < n; i++) {
        value[i] = i < 3 ? key->local[i] : key->constant[i - 3].value;
        entry[i].constantID = i < 3 ? i : key->constant[i - 3].id;
    }
    if (d->gpu.base.lane_order) {
        value[n] = (uint32_t)d->gpu.base.lane_order;
        entry[n++].constantID = LANE_ORDER_ID;
    }
    for (uint32_t i = 0; i < n; i++) {
        entry[i].offset = i * (uint32_t)sizeof *value;
        entry[i].size = sizeof *value;
    }
    const VkSpecializationInfo constants = {
        .mapEntryCount = n, .pMapEntries = entry, .dataSize = n * sizeof *value, .pData = value};
    const struct itera_vulkan_module *words =
        itera_vulkan_module(&d->probe, key->shader, key->variant);
    const VkShaderModuleCreateInfo module_info = {.sType =
                                                      VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                                  .codeSize = words->bytes,
                                                  .pCode = words->words};
    const VkPipelineShaderStageRequiredSubgroupSizeCreateInfoEXT size = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO_EXT,
        .requiredSubgroupSize = subgroup};
    /* Modules that merely use subgroups where there are any take the size that the driver likes. */
    const bool any_size = words == &key->shader->subgroup_module[key->variant];
    const uint32_t most = any_size ? d->probe.subgroup_most : subgroup;
    VkPipelineShaderStageCreateFlags stage_flags = 0;
    if (subgroup && d->probe.subgroup_full && key->local[0] % most == 0)
        stage_flags |= VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT_EXT;
    if (any_size && d->probe.subgroup_required)
        stage_flags |= VK_PIPELINE_SHADER_STAGE_CREATE_ALLOW_VARYING_SUBGROUP_SIZE_BIT_EXT;
    VkShaderModule module;
    VkResult result = d->api.CreateShaderModule(d->handle, &module_info, NULL, &module);
    if (result)
        return result;
    const VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags = flags,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .pNext = subgroup && !any_size && d->probe.subgroup_required ? &size : NULL,
                  .flags = stage_flags,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main",
                  .pSpecializationInfo = &constants},
        .layout = layout};
    *out = VK_NULL_HANDLE;
    if (itera_gpu_fault(ITERA_GPU_FAULT_BUILD))
        result = VK_ERROR_UNKNOWN;
    else
        result = d->api.CreateComputePipelines(d->handle, cache, 1, &info, NULL, out);
    d->api.DestroyShaderModule(d->handle, module, NULL);
    return result;
}

/* Said once. */
static void warn_of_build(const struct vulkan_device *d, const char *kernel, VkResult result)
{
    itera_log(ITERA_LOG_WARNING,
              "%s: the driver (%s) does not compile kernel %s (%s); its op is not used",
              d->gpu.base.info.id, d->gpu.base.info.driver, kernel,
              itera_vulkan_result_name(result));
}

static enum itera_status refuse_build(const struct vulkan_device *d, const char *kernel,
                                      struct itera_reason *why)
{
    const struct itera_device_info *info = &d->gpu.base.info;
    return itera_refuse(
        why,
        "%s (%s): the driver (%s) does not compile kernel %s; update it, or leave the "
        "kernel's op to the CPU with ITERA_DISABLE_OPS",
        info->id, info->name, info->driver, kernel);
}

/* A descriptor is as large as what a dispatch gives: a shader would read beyond it. */
static enum itera_status check_words(const struct vulkan_device *d,
                                     const struct itera_gpu_dispatch *dispatch, uint32_t n_words)
{
    if (dispatch->n_words == n_words)
        return ITERA_OK;
    return itera_fail(ITERA_ERR_DEVICE,
                      "%s (%s): kernel %s takes %u words, and a dispatch gives it %u: the kernel "
                      "and its lowering differ",
                      d->gpu.base.info.id, d->gpu.base.info.name, dispatch->kernel, n_words,
                      dispatch->n_words);
}

VkResult itera_vulkan_pipeline_with(struct vulkan_device *d,
                                    const struct itera_gpu_dispatch *dispatch,
                                    VkPipelineCreateFlags flags, VkPipeline *out)
{
    struct vulkan_pipeline key = key_of(dispatch, ITERA_VULKAN_DESCRIPTORS);
    uint32_t subgroup = 0;
    VkDescriptorSetLayout set;
    VkPipelineLayout layout;
    if (!key.shader || !itera_vulkan_can_run(&d->probe, key.shader, key.variant, &subgroup, NULL) ||
        itera_vulkan_layout(d, dispatch->n_bindings, key.variant, &set, &layout))
        return VK_ERROR_UNKNOWN;
    return create_pipeline(d, &key, layout, subgroup, VK_NULL_HANDLE, flags, out);
}

/* Makes the pipeline of a key and keeps it, also when the driver refuses: it is not asked again. */
static enum itera_status add_pipeline(struct vulkan_device *d, struct vulkan_pipeline *key,
                                      const struct itera_gpu_dispatch *dispatch,
                                      struct itera_reason *why)
{
    const struct itera_device_info *info = &d->gpu.base.info;
    uint32_t subgroup = 0;
    if (!key->shader ||
        !itera_vulkan_can_run(&d->probe, key->shader, key->variant, &subgroup, NULL))
        return itera_refuse(why, "%s (%s): kernel %s does not work there", info->id, info->name,
                            dispatch->kernel);
    key->n_words = itera_vulkan_words(key->shader, key->variant);
    VkDescriptorSetLayout set;
    VkPipelineLayout layout;
    enum itera_status status = check_words(d, dispatch, key->n_words);
    if (!status)
        status = itera_vulkan_layout(d, dispatch->n_bindings, key->variant, &set, &layout);
    if (status)
        return status;
    if (d->n_pipelines == d->cap_pipelines) {
        int cap = d->cap_pipelines ? d->cap_pipelines * 2 : 64;
        struct vulkan_pipeline *grown = realloc(d->pipelines, (size_t)cap * sizeof *grown);
        if (!grown)
            return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for pipelines", info->id);
        d->pipelines = grown;
        d->cap_pipelines = cap;
    }
    VkResult result = create_pipeline(d, key, layout, subgroup, d->pipeline_cache, 0, &key->handle);
    if (result == VK_ERROR_DEVICE_LOST || result == VK_ERROR_OUT_OF_HOST_MEMORY ||
        result == VK_ERROR_OUT_OF_DEVICE_MEMORY)
        return itera_vulkan_fail(d, "vkCreateComputePipelines", result);
    if (result) {
        key->handle = VK_NULL_HANDLE;
        warn_of_build(d, dispatch->kernel, result);
    } else {
        d->unsaved_pipelines++;
    }
    d->pipelines[d->n_pipelines++] = *key;
    return ITERA_OK;
}

enum itera_status itera_vulkan_pipeline(struct vulkan_device *d,
                                        const struct itera_gpu_dispatch *dispatch,
                                        enum itera_vulkan_variant variant, VkPipeline *out,
                                        struct itera_reason *why)
{
    struct vulkan_pipeline key = key_of(dispatch, variant);
    int i = 0;
    while (i < d->n_pipelines && !same(&d->pipelines[i], &key))
        i++;
    enum itera_status status = i < d->n_pipelines
                                   ? check_words(d, dispatch, d->pipelines[i].n_words)
                                   : add_pipeline(d, &key, dispatch, why);
    if (status)
        return status;
    *out = d->pipelines[i].handle;
    return *out ? ITERA_OK : refuse_build(d, dispatch->kernel, why);
}

enum itera_status itera_vulkan_prepare(struct itera_gpu_device *device,
                                       const struct itera_gpu_dispatch *dispatch,
                                       struct itera_reason *why)
{
    struct vulkan_device *d = (struct vulkan_device *)device;
    enum itera_vulkan_variant variant =
        d->by_address ? ITERA_VULKAN_ADDRESSES : ITERA_VULKAN_DESCRIPTORS;
    for (int i = 0; i < dispatch->n_bindings; i++)
        if (dispatch->binding[i].bytes > d->probe.properties.limits.maxStorageBufferRange)
            variant = ITERA_VULKAN_ADDRESSES;
    VkPipeline pipeline;
    return itera_vulkan_pipeline(d, dispatch, variant, &pipeline, why);
}
