/* A Vulkan layer that makes a device of which there is only the driver's compiler usable: RADV's null
 * device, or ANV over a drm shim that does nothing. It lends the device memory and an identity, and
 * answers for it where a real one would compute: what is recorded and submitted goes nowhere, fences
 * are always signalled. Kernels are compiled as for the real device and never run, so what a program
 * reads back is what it wrote there itself, or zeros.
 *
 *   ITERA_NULL_UNITS=N       compute units (a null device says 0)
 *   ITERA_NULL_VENDOR=0xN    another PCI vendor
 *   ITERA_NULL_WITHOUT=LIST  extensions that the device shall not have, separated by spaces
 *   ITERA_NULL_UNCOMPILED=1  kernels are not even compiled
 *
 * bench/gpu_lab/setup builds it, bench/gpu_lab/judge uses it. One instance and one device at a time. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <vulkan/vk_icd.h>
#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

static PFN_vkGetInstanceProcAddr next_instance_proc;
static PFN_vkGetDeviceProcAddr next_device_proc;
static VkInstance the_instance;
static VkDevice the_device;

/* What is asked of the driver before an answer is changed. */
#define INSTANCE_FUNCTIONS(X)                                                                      \
    X(GetPhysicalDeviceMemoryProperties2)                                                          \
    X(GetPhysicalDeviceProperties)                                                                 \
    X(GetPhysicalDeviceProperties2)                                                                \
    X(EnumerateDeviceExtensionProperties)
#define X(name) static PFN_vk##name next_##name;
INSTANCE_FUNCTIONS(X)
#undef X
static PFN_vkGetBufferMemoryRequirements next_GetBufferMemoryRequirements;

static const VkDeviceSize lent_bytes = (VkDeviceSize)16 << 30;

static const char *setting(const char *name)
{
    const char *text = getenv(name);
    return text ? text : "";
}

static uint32_t number(const char *name)
{
    return (uint32_t)strtoul(setting(name), NULL, 0);
}

/* ---- what the device says of itself ---- */

/* Memory that the host sees is the device's, as that of an integrated GPU: what is written stays
 * written, where a copy that a submission makes would not. */
static void VKAPI_CALL memory_properties(VkPhysicalDevice physical,
                                         VkPhysicalDeviceMemoryProperties2 *out)
{
    const VkMemoryPropertyFlags shared =
        VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
        VK_MEMORY_PROPERTY_HOST_COHERENT_BIT | VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    next_GetPhysicalDeviceMemoryProperties2(physical, out);
    VkPhysicalDeviceMemoryProperties *m = &out->memoryProperties;
    if (!m->memoryTypeCount || !m->memoryHeapCount)
        *m = (VkPhysicalDeviceMemoryProperties){
            .memoryTypeCount = 1, .memoryTypes = {{shared, 0}}, .memoryHeapCount = 1};
    for (uint32_t i = 0; i < m->memoryTypeCount; i++) {
        VkMemoryType *type = &m->memoryTypes[i];
        type->propertyFlags =
            type->propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT ? shared : 0;
    }
    for (uint32_t i = 0; i < m->memoryHeapCount; i++)
        m->memoryHeaps[i] = (VkMemoryHeap){lent_bytes, VK_MEMORY_HEAP_DEVICE_LOCAL_BIT};
    for (VkBaseOutStructure *s = out->pNext; s; s = s->pNext)
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT)
            for (uint32_t i = 0; i < m->memoryHeapCount; i++)
                ((VkPhysicalDeviceMemoryBudgetPropertiesEXT *)s)->heapBudget[i] = lent_bytes;
}

/* Without timestamps nothing is measured: a program takes its defaults. */
static void identify(VkPhysicalDeviceProperties *p)
{
    p->limits.timestampPeriod = 0;
    p->deviceType = VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU;
    if (number("ITERA_NULL_VENDOR"))
        p->vendorID = number("ITERA_NULL_VENDOR");
}

static void VKAPI_CALL properties(VkPhysicalDevice physical, VkPhysicalDeviceProperties *out)
{
    next_GetPhysicalDeviceProperties(physical, out);
    identify(out);
}

static void VKAPI_CALL properties2(VkPhysicalDevice physical, VkPhysicalDeviceProperties2 *out)
{
    next_GetPhysicalDeviceProperties2(physical, out);
    identify(&out->properties);
    for (VkBaseOutStructure *s = out->pNext; s; s = s->pNext)
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_PROPERTIES_AMD &&
            number("ITERA_NULL_UNITS")) {
            VkPhysicalDeviceShaderCorePropertiesAMD *core = (void *)s;
            core->shaderEngineCount = core->shaderArraysPerEngineCount = 1;
            core->computeUnitsPerShaderArray = number("ITERA_NULL_UNITS");
        }
}

/* Whether a word is in a list of words. */
static bool listed(const char *list, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == ' ') && (!at[length] || at[length] == ' '))
            return true;
    return false;
}

static VkResult VKAPI_CALL extensions(VkPhysicalDevice physical, const char *layer, uint32_t *n,
                                      VkExtensionProperties *out)
{
    uint32_t all = 0, kept = 0;
    VkResult result = next_EnumerateDeviceExtensionProperties(physical, layer, &all, NULL);
    VkExtensionProperties *list = calloc((size_t)all + 1, sizeof *list);
    if (!list)
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    if (!result)
        result = next_EnumerateDeviceExtensionProperties(physical, layer, &all, list);
    for (uint32_t i = 0; i < all && !result; i++)
        if (!listed(setting("ITERA_NULL_WITHOUT"), list[i].extensionName)) {
            if (out && kept == *n)
                result = VK_INCOMPLETE;
            else if (out)
                out[kept] = list[i];
            kept += !result;
        }
    *n = kept;
    free(list);
    return result;
}

/* ---- instance and device: the layer puts itself between loader and driver ---- */

/* The loader's link to the next in the chain. */
#define FIND_LINK(type, structure, info)                                                           \
    type *link = (type *)(uintptr_t)(info)->pNext;                                                 \
    while (link && (link->sType != (structure) || link->function != VK_LAYER_LINK_INFO))           \
        link = (type *)(uintptr_t)link->pNext;                                                     \
    if (!link)                                                                                     \
    return VK_ERROR_INITIALIZATION_FAILED

static VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo *info,
                                           const VkAllocationCallbacks *allocator, VkInstance *out)
{
    FIND_LINK(VkLayerInstanceCreateInfo, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO, info);
    next_instance_proc = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    PFN_vkCreateInstance create =
        (PFN_vkCreateInstance)next_instance_proc(NULL, "vkCreateInstance");
    VkResult result = create(info, allocator, out);
    if (result)
        return result;
    the_instance = *out;
#define X(name) next_##name = (PFN_vk##name)next_instance_proc(the_instance, "vk" #name);
    INSTANCE_FUNCTIONS(X)
#undef X
    return VK_SUCCESS;
}

static VkResult VKAPI_CALL create_device(VkPhysicalDevice physical, const VkDeviceCreateInfo *info,
                                         const VkAllocationCallbacks *allocator, VkDevice *out)
{
    FIND_LINK(VkLayerDeviceCreateInfo, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO, info);
    PFN_vkGetInstanceProcAddr instance_proc = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    next_device_proc = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    PFN_vkCreateDevice create = (PFN_vkCreateDevice)instance_proc(the_instance, "vkCreateDevice");
    VkResult result = create(physical, info, allocator, out);
    if (result)
        return result;
    the_device = *out;
    next_GetBufferMemoryRequirements = (PFN_vkGetBufferMemoryRequirements)next_device_proc(
        the_device, "vkGetBufferMemoryRequirements");
    return VK_SUCCESS;
}

/* ---- what the driver would do on the device ---- */

static void VKAPI_CALL requirements(VkDevice device, VkBuffer buffer, VkMemoryRequirements *out)
{
    next_GetBufferMemoryRequirements(device, buffer, out);
    if (!out->memoryTypeBits)
        out->memoryTypeBits = 1; /* that which was lent */
}

/* Does nothing, well: in the calling conventions of amd64, the only machine that the compilers are
 * for, a function may be called with arguments that it does not take. */
static VkResult VKAPI_CALL nothing(void)
{
    return VK_SUCCESS;
}

/* Makes an object that only functions here look at, so at nothing but its being one. */
static VkResult VKAPI_CALL create(VkDevice device, const void *info,
                                  const VkAllocationCallbacks *allocator, uint64_t *out)
{
    (void)device, (void)info, (void)allocator;
    *out = 1;
    return VK_SUCCESS;
}

/* The loader keeps a pointer in what it is given. */
static VkResult VKAPI_CALL allocate_commands(VkDevice device,
                                             const VkCommandBufferAllocateInfo *info,
                                             VkCommandBuffer *out)
{
    (void)device;
    for (uint32_t i = 0; i < info->commandBufferCount; i++) {
        VK_LOADER_DATA *commands = calloc(1, sizeof *commands);
        if (!commands)
            return VK_ERROR_OUT_OF_HOST_MEMORY;
        set_loader_magic_value(commands);
        out[i] = (VkCommandBuffer)commands;
    }
    return VK_SUCCESS;
}

static void VKAPI_CALL free_commands(VkDevice device, VkCommandPool pool, uint32_t n,
                                     const VkCommandBuffer *commands)
{
    (void)device, (void)pool;
    for (uint32_t i = 0; i < n; i++)
        free(commands[i]);
}

static VkResult VKAPI_CALL create_pipelines(VkDevice device, VkPipelineCache cache, uint32_t n,
                                            const VkComputePipelineCreateInfo *infos,
                                            const VkAllocationCallbacks *allocator, VkPipeline *out)
{
    (void)device, (void)cache, (void)infos, (void)allocator;
    for (uint32_t i = 0; i < n; i++)
        out[i] = (VkPipeline)(uintptr_t)1;
    return VK_SUCCESS;
}

struct entry {
    const char *name;
    PFN_vkVoidFunction function;
};

#define ENTRY(name, function)                                                                      \
    {                                                                                              \
        "vk" #name, (PFN_vkVoidFunction)(function)                                                 \
    }

static PFN_vkVoidFunction VKAPI_CALL device_proc(VkDevice device, const char *name);

static const struct entry entries[] = {
    ENTRY(GetDeviceProcAddr, device_proc),
    ENTRY(CreateInstance, create_instance),
    ENTRY(CreateDevice, create_device),
    ENTRY(GetPhysicalDeviceMemoryProperties2, memory_properties),
    ENTRY(GetPhysicalDeviceProperties, properties),
    ENTRY(GetPhysicalDeviceProperties2, properties2),
    ENTRY(EnumerateDeviceExtensionProperties, extensions),
    ENTRY(GetBufferMemoryRequirements, requirements),
    ENTRY(CreateFence, create),
    ENTRY(DestroyFence, nothing),
    ENTRY(ResetFences, nothing),
    ENTRY(WaitForFences, nothing),
    ENTRY(GetFenceStatus, nothing),
    ENTRY(CreateCommandPool, create),
    ENTRY(DestroyCommandPool, nothing),
    ENTRY(AllocateCommandBuffers, allocate_commands),
    ENTRY(FreeCommandBuffers, free_commands),
    ENTRY(BeginCommandBuffer, nothing),
    ENTRY(EndCommandBuffer, nothing),
    ENTRY(CmdBindPipeline, nothing),
    ENTRY(CmdBindDescriptorSets, nothing),
    ENTRY(CmdPushConstants, nothing),
    ENTRY(CmdDispatch, nothing),
    ENTRY(CmdPipelineBarrier, nothing),
    ENTRY(CmdCopyBuffer, nothing),
    ENTRY(CmdFillBuffer, nothing),
    ENTRY(QueueSubmit, nothing),
    ENTRY(QueueWaitIdle, nothing),
    ENTRY(DeviceWaitIdle, nothing),
};

static const struct entry uncompiled[] = {
    ENTRY(CreateComputePipelines, create_pipelines),
    ENTRY(DestroyPipeline, nothing),
    ENTRY(GetPipelineExecutablePropertiesKHR, nothing),
    ENTRY(GetPipelineExecutableStatisticsKHR, nothing),
};

static PFN_vkVoidFunction find(const char *name)
{
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
        if (!strcmp(entries[i].name, name))
            return entries[i].function;
    if (number("ITERA_NULL_UNCOMPILED"))
        for (size_t i = 0; i < sizeof uncompiled / sizeof *uncompiled; i++)
            if (!strcmp(uncompiled[i].name, name))
                return uncompiled[i].function;
    return NULL;
}

static PFN_vkVoidFunction VKAPI_CALL device_proc(VkDevice device, const char *name)
{
    PFN_vkVoidFunction function = find(name);
    return function ? function : next_device_proc(device, name);
}

static PFN_vkVoidFunction VKAPI_CALL instance_proc(VkInstance instance, const char *name)
{
    PFN_vkVoidFunction function = find(name);
    if (!function && next_instance_proc)
        function = next_instance_proc(instance, name);
    return function;
}

__attribute__((visibility("default"))) VkResult VKAPI_CALL
vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface *v)
{
    v->loaderLayerInterfaceVersion = 2;
    v->pfnGetInstanceProcAddr = instance_proc;
    v->pfnGetDeviceProcAddr = device_proc;
    v->pfnGetPhysicalDeviceProcAddr = NULL;
    return VK_SUCCESS;
}
