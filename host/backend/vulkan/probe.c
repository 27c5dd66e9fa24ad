/* Physical devices: properties, limits, features, and what shaders ask of them. */
#include "backend/vulkan/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An extension, by its place in this list. Those from EXT_DRIVER on only bring properties. */
enum {
    EXT_STORAGE8,
    EXT_FLOAT16_INT8,
    EXT_ADDRESS,
    EXT_SUBGROUP_SIZE,
    EXT_DOT,
    EXT_MEMORY_MODEL,
    EXT_MATRIX,
    EXT_STATISTICS,
    EXT_MEMORY_BUDGET,
    EXT_PORTABILITY,
    EXT_DRIVER,
    EXT_NV_SM,
    EXT_AMD_CORE,
    EXT_PCI,
    EXTENSIONS
};
static const char *const extension_names[EXTENSIONS] = {
    [EXT_STORAGE8] = "VK_KHR_8bit_storage",
    [EXT_FLOAT16_INT8] = "VK_KHR_shader_float16_int8",
    [EXT_ADDRESS] = "VK_KHR_buffer_device_address",
    [EXT_SUBGROUP_SIZE] = "VK_EXT_subgroup_size_control",
    [EXT_DOT] = "VK_KHR_shader_integer_dot_product",
    [EXT_MEMORY_MODEL] = "VK_KHR_vulkan_memory_model",
    [EXT_MATRIX] = "VK_KHR_cooperative_matrix",
    [EXT_STATISTICS] = "VK_KHR_pipeline_executable_properties",
    [EXT_MEMORY_BUDGET] = "VK_EXT_memory_budget",
    [EXT_PORTABILITY] = "VK_KHR_portability_subset",
    [EXT_DRIVER] = "VK_KHR_driver_properties",
    [EXT_NV_SM] = "VK_NV_shader_sm_builtins",
    [EXT_AMD_CORE] = "VK_AMD_shader_core_properties",
    [EXT_PCI] = "VK_EXT_pci_bus_info",
};

static const char *const feature_names[ITERA_VULKAN_FEATURES] = {
    [ITERA_VULKAN_STORAGE16] = "16-bit-storage",
    [ITERA_VULKAN_STORAGE8] = "8-bit-storage",
    [ITERA_VULKAN_FLOAT16] = "float16",
    [ITERA_VULKAN_INT8] = "int8",
    [ITERA_VULKAN_INT16] = "int16",
    [ITERA_VULKAN_INT64] = "int64",
    [ITERA_VULKAN_SUBGROUP] = "subgroup-arithmetic",
    [ITERA_VULKAN_SUBGROUP_VOTE] = "subgroup-vote",
    [ITERA_VULKAN_SUBGROUP_BALLOT] = "subgroup-ballot",
    [ITERA_VULKAN_SUBGROUP_SHUFFLE] = "subgroup-shuffle",
    [ITERA_VULKAN_SUBGROUP_SHUFFLE_RELATIVE] = "subgroup-shuffle-relative",
    [ITERA_VULKAN_SUBGROUP_CLUSTERED] = "subgroup-clustered",
    [ITERA_VULKAN_DOT] = "integer-dot-product",
    [ITERA_VULKAN_MEMORY_MODEL] = "memory-model",
    [ITERA_VULKAN_COOPERATIVE_MATRIX] = "cooperative-matrix",
    [ITERA_VULKAN_ADDRESS] = "buffer-device-address",
    [ITERA_VULKAN_TIMESTAMPS] = "timestamps",
    [ITERA_VULKAN_MEMORY_BUDGET] = "memory-budget",
};

static bool has_extension(const struct itera_vulkan_probe *probe, int extension)
{
    for (uint32_t i = 0; i < probe->n_extensions; i++)
        if (probe->extensions[i] == extension_names[extension])
            return true;
    return false;
}

static void find_extensions(const struct itera_vulkan_api *api, struct itera_vulkan_probe *probe)
{
    uint32_t n = 0;
    if (api->EnumerateDeviceExtensionProperties(probe->physical, NULL, &n, NULL) || !n)
        return;
    VkExtensionProperties *list = calloc(n, sizeof *list);
    if (list && api->EnumerateDeviceExtensionProperties(probe->physical, NULL, &n, list) >= 0)
        for (int e = 0; e < EXTENSIONS; e++)
            for (uint32_t i = 0; i < n; i++)
                if (!strcmp(list[i].extensionName, extension_names[e])) {
                    probe->extensions[probe->n_extensions++] = extension_names[e];
                    break;
                }
    free(list);
}

void *itera_vulkan_chain_link(const struct itera_vulkan_probe *probe,
                              struct itera_vulkan_chain *chain)
{
    void *next = NULL;
#define LINK(present, member, type)                                                                \
    chain->member.sType = type;                                                                    \
    if (present) {                                                                                 \
        chain->member.pNext = next;                                                                \
        next = &chain->member;                                                                     \
    }
#ifdef VK_KHR_cooperative_matrix
    LINK(has_extension(probe, EXT_MATRIX), matrix,
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR)
#endif
    LINK(has_extension(probe, EXT_STATISTICS), statistics,
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR)
    LINK(has_extension(probe, EXT_MEMORY_MODEL), model,
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES_KHR)
    LINK(has_extension(probe, EXT_DOT), dot,
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES_KHR)
    LINK(has_extension(probe, EXT_SUBGROUP_SIZE), subgroup,
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES_EXT)
    LINK(has_extension(probe, EXT_ADDRESS), address,
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES_KHR)
    LINK(has_extension(probe, EXT_FLOAT16_INT8), float16,
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES_KHR)
    LINK(has_extension(probe, EXT_STORAGE8), storage8,
         VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_8BIT_STORAGE_FEATURES_KHR)
    LINK(true, storage16, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES)
    LINK(true, core, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2)
#undef LINK
    return next;
}

bool itera_vulkan_without_statistics(struct itera_vulkan_probe *probe)
{
    bool had = false;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < probe->n_extensions; i++) {
        bool is = probe->extensions[i] == extension_names[EXT_STATISTICS];
        if (!is)
            probe->extensions[kept++] = probe->extensions[i];
        had |= is;
    }
    probe->n_extensions = kept;
    probe->chain.statistics.pipelineExecutableInfo = VK_FALSE;
    return had;
}

/* Of what the device reports, keeps on what the backend has a use for: other features cost speed
 * (bounds checks) or force paths in the driver. */
static void query_features(const struct itera_vulkan_api *api, struct itera_vulkan_probe *probe)
{
    struct itera_vulkan_chain *chain = &probe->chain;
    api->GetPhysicalDeviceFeatures2(probe->physical, itera_vulkan_chain_link(probe, chain));
    VkPhysicalDeviceFeatures core = {.shaderInt16 = chain->core.features.shaderInt16,
                                     .shaderInt64 = chain->core.features.shaderInt64};
    chain->core.features = core;
    chain->storage16.storagePushConstant16 = chain->storage16.storageInputOutput16 = VK_FALSE;
    chain->storage8.storagePushConstant8 = VK_FALSE;
    chain->address.bufferDeviceAddressCaptureReplay = VK_FALSE;
    chain->address.bufferDeviceAddressMultiDevice = VK_FALSE;
    chain->model.vulkanMemoryModelAvailabilityVisibilityChains = VK_FALSE;
    bool *has = probe->features;
    has[ITERA_VULKAN_STORAGE16] = chain->storage16.storageBuffer16BitAccess &&
                                  chain->storage16.uniformAndStorageBuffer16BitAccess;
    has[ITERA_VULKAN_STORAGE8] = chain->storage8.storageBuffer8BitAccess &&
                                 chain->storage8.uniformAndStorageBuffer8BitAccess;
    has[ITERA_VULKAN_FLOAT16] = chain->float16.shaderFloat16;
    has[ITERA_VULKAN_INT8] = chain->float16.shaderInt8;
    has[ITERA_VULKAN_INT16] = core.shaderInt16;
    has[ITERA_VULKAN_INT64] = core.shaderInt64;
    has[ITERA_VULKAN_DOT] = chain->dot.shaderIntegerDotProduct;
    has[ITERA_VULKAN_MEMORY_MODEL] = chain->model.vulkanMemoryModel;
    has[ITERA_VULKAN_ADDRESS] = chain->address.bufferDeviceAddress;
    has[ITERA_VULKAN_MEMORY_BUDGET] = has_extension(probe, EXT_MEMORY_BUDGET);
}

/* Kernels with subgroups are written for a size that lowering knows: it must be fixed, or the
 * device must let pipelines ask for it. */
static void find_subgroups(struct itera_vulkan_probe *probe,
                           const VkPhysicalDeviceSubgroupProperties *subgroup,
                           const VkPhysicalDeviceSubgroupSizeControlPropertiesEXT *size)
{
    const VkSubgroupFeatureFlags need =
        VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_ARITHMETIC_BIT;
    const VkSubgroupFeatureFlags operations = subgroup->supportedOperations;
    bool control = has_extension(probe, EXT_SUBGROUP_SIZE);
    bool fixed = control && size->minSubgroupSize == size->maxSubgroupSize;
    bool on_demand = control && probe->chain.subgroup.subgroupSizeControl &&
                     probe->chain.subgroup.computeFullSubgroups &&
                     (size->requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT);
    if (!(subgroup->supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) || (operations & need) != need ||
        !(fixed || on_demand) || subgroup->subgroupSize < 2)
        return;
    probe->subgroup = subgroup->subgroupSize;
    probe->subgroup_required = !fixed;
    probe->subgroup_least = size->minSubgroupSize;
    probe->subgroup_most = size->maxSubgroupSize;
    probe->subgroup_full = probe->chain.subgroup.computeFullSubgroups;
    bool *has = probe->features;
    has[ITERA_VULKAN_SUBGROUP] = true;
    has[ITERA_VULKAN_SUBGROUP_VOTE] = operations & VK_SUBGROUP_FEATURE_VOTE_BIT;
    has[ITERA_VULKAN_SUBGROUP_BALLOT] = operations & VK_SUBGROUP_FEATURE_BALLOT_BIT;
    has[ITERA_VULKAN_SUBGROUP_SHUFFLE] = operations & VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
    has[ITERA_VULKAN_SUBGROUP_SHUFFLE_RELATIVE] =
        operations & VK_SUBGROUP_FEATURE_SHUFFLE_RELATIVE_BIT;
    has[ITERA_VULKAN_SUBGROUP_CLUSTERED] = operations & VK_SUBGROUP_FEATURE_CLUSTERED_BIT;
}

static void version_text(uint32_t vendor, uint32_t version, char *out, size_t size)
{
    if (vendor == 0x10de) /* NVIDIA packs it in its own way */
        snprintf(out, size, "%u.%u.%u", version >> 22, version >> 14 & 255, version >> 6 & 255);
    else
        snprintf(out, size, "%u.%u.%u", VK_API_VERSION_MAJOR(version),
                 VK_API_VERSION_MINOR(version), VK_API_VERSION_PATCH(version));
}

static void query_properties(const struct itera_vulkan_api *api, struct itera_vulkan_probe *probe)
{
    VkPhysicalDeviceSubgroupProperties subgroup = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES};
    probe->id = (VkPhysicalDeviceIDProperties){
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES, .pNext = &subgroup};
    VkPhysicalDeviceProperties2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                       .pNext = &probe->id};
    VkPhysicalDeviceSubgroupSizeControlPropertiesEXT size = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES_EXT};
    VkPhysicalDeviceDriverPropertiesKHR driver = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES_KHR};
    VkPhysicalDeviceShaderSMBuiltinsPropertiesNV sm = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SM_BUILTINS_PROPERTIES_NV};
    VkPhysicalDeviceShaderCorePropertiesAMD core = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_PROPERTIES_AMD};
    VkPhysicalDevicePCIBusInfoPropertiesEXT pci = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PCI_BUS_INFO_PROPERTIES_EXT};
    VkPhysicalDeviceShaderIntegerDotProductPropertiesKHR dot = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES_KHR};
#define LINK(extension, member)                                                                    \
    if (has_extension(probe, extension)) {                                                         \
        member.pNext = all.pNext;                                                                  \
        all.pNext = &member;                                                                       \
    }
    LINK(EXT_SUBGROUP_SIZE, size)
    LINK(EXT_DOT, dot)
    LINK(EXT_DRIVER, driver)
    LINK(EXT_NV_SM, sm)
    LINK(EXT_AMD_CORE, core)
    LINK(EXT_PCI, pci)
#undef LINK
    api->GetPhysicalDeviceProperties2(probe->physical, &all);
    probe->id.pNext = NULL;
    if (has_extension(probe, EXT_PCI))
        snprintf(probe->pci, sizeof probe->pci, "%04x:%02x:%02x.%x", pci.pciDomain & 0xffff,
                 pci.pciBus & 0xff, pci.pciDevice & 0x1f, pci.pciFunction & 7);
    probe->dot_fast =
        probe->features[ITERA_VULKAN_DOT] && dot.integerDotProduct4x8BitPackedSignedAccelerated;
    probe->compute_units = sm.shaderSMCount
                               ? sm.shaderSMCount
                               : core.shaderEngineCount * core.shaderArraysPerEngineCount *
                                     core.computeUnitsPerShaderArray;
    char version[48];
    version_text(probe->properties.vendorID, probe->properties.driverVersion, version,
                 sizeof version);
    if (driver.driverName[0])
        snprintf(probe->driver, sizeof probe->driver, "%.48s %.64s", driver.driverName,
                 driver.driverInfo[0] ? driver.driverInfo : version);
    else
        snprintf(probe->driver, sizeof probe->driver, "%s", version);
    find_subgroups(probe, &subgroup, &size);
}

/* A family for compute alone where there is one: it does not share its queue with the screen. */
static bool find_queue(const struct itera_vulkan_api *api, struct itera_vulkan_probe *probe)
{
    uint32_t n = 0;
    api->GetPhysicalDeviceQueueFamilyProperties(probe->physical, &n, NULL);
    VkQueueFamilyProperties *families = calloc((size_t)n + 1, sizeof *families);
    if (!families)
        return false;
    api->GetPhysicalDeviceQueueFamilyProperties(probe->physical, &n, families);
    int best = -1;
    for (uint32_t i = 0; i < n; i++) {
        VkQueueFlags flags = families[i].queueFlags;
        if (!(flags & VK_QUEUE_COMPUTE_BIT) || !families[i].queueCount)
            continue;
        int score =
            (families[i].timestampValidBits ? 2 : 0) + (flags & VK_QUEUE_GRAPHICS_BIT ? 0 : 1);
        if (score <= best)
            continue;
        best = score;
        probe->queue_family = i;
        probe->timestamp_bits = families[i].timestampValidBits;
    }
    free(families);
    probe->features[ITERA_VULKAN_TIMESTAMPS] =
        probe->timestamp_bits && probe->properties.limits.timestampPeriod > 0;
    return best >= 0;
}

#ifdef VK_KHR_cooperative_matrix
static bool matrix_side(uint32_t side)
{
    return side == 8 || side == 16;
}

static bool matrix_serves(const VkCooperativeMatrixPropertiesKHR *p)
{
    return matrix_side(p->MSize) && matrix_side(p->NSize) && matrix_side(p->KSize) &&
           p->AType == VK_COMPONENT_TYPE_FLOAT16_KHR && p->BType == VK_COMPONENT_TYPE_FLOAT16_KHR &&
           p->CType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
           p->ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR && p->scope == VK_SCOPE_SUBGROUP_KHR;
}

/* Where pipelines may ask for a size, Intel's matrix units work as wide as their matrices are: with more
 * lanes than columns, all else that a lane keeps takes twice the registers. */
static uint32_t matrix_subgroup(const struct itera_vulkan_probe *probe, uint32_t columns)
{
    const bool may =
        probe->subgroup_required && columns >= probe->subgroup_least && columns <= probe->subgroup;
    const uint32_t intel = 0x8086;
    return probe->properties.vendorID == intel && may ? columns : probe->subgroup;
}
#endif

/* The largest of the shapes that the kernels can be made for. */
static void find_matrix(const struct itera_vulkan_api *api, struct itera_vulkan_probe *probe)
{
#ifdef VK_KHR_cooperative_matrix
    PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR query =
        (PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)
            api->GetPhysicalDeviceCooperativeMatrixPropertiesKHR;
    uint32_t n = 0;
    if (!query || !probe->chain.matrix.cooperativeMatrix || !probe->subgroup ||
        query(probe->physical, &n, NULL) || !n)
        return;
    VkCooperativeMatrixPropertiesKHR *list = calloc(n, sizeof *list);
    for (uint32_t i = 0; list && i < n; i++)
        list[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
    if (list && query(probe->physical, &n, list) >= 0)
        for (uint32_t i = 0; i < n; i++) {
            const struct itera_gpu_matrix *best = &probe->matrix;
            const VkCooperativeMatrixPropertiesKHR *p = &list[i];
            if (matrix_serves(p) && p->MSize * p->NSize * p->KSize > best->m * best->n * best->k)
                probe->matrix = (struct itera_gpu_matrix){p->MSize, p->NSize, p->KSize,
                                                          matrix_subgroup(probe, p->NSize)};
        }
    probe->features[ITERA_VULKAN_COOPERATIVE_MATRIX] = probe->matrix.m > 0;
    free(list);
#else
    (void)api;
    (void)probe;
#endif
}

/* The limits that kernels count on without asking. */
static void check_limits(struct itera_vulkan_probe *probe)
{
    const VkPhysicalDeviceLimits *l = &probe->properties.limits;
    if (l->maxComputeWorkGroupInvocations < ITERA_GPU_LOCAL ||
        l->maxComputeWorkGroupSize[0] < ITERA_GPU_LOCAL)
        snprintf(probe->lacking, sizeof probe->lacking, "workgroups of %d invocations (it has %u)",
                 ITERA_GPU_LOCAL, l->maxComputeWorkGroupInvocations);
    else if (l->maxComputeSharedMemorySize < 16384)
        snprintf(probe->lacking, sizeof probe->lacking, "16384 bytes of shared memory (it has %u)",
                 l->maxComputeSharedMemorySize);
    else if (l->maxPerStageDescriptorStorageBuffers < ITERA_GPU_MAX_BINDINGS ||
             l->maxDescriptorSetStorageBuffers < ITERA_GPU_MAX_BINDINGS ||
             l->maxPerStageResources < ITERA_GPU_MAX_BINDINGS + 1)
        snprintf(probe->lacking, sizeof probe->lacking,
                 "%d storage buffers in a shader (it has %u)", ITERA_GPU_MAX_BINDINGS,
                 l->maxPerStageDescriptorStorageBuffers);
}

void itera_vulkan_probe_device(const struct itera_vulkan_api *api, VkPhysicalDevice physical,
                               struct itera_vulkan_probe *probe)
{
    *probe = (struct itera_vulkan_probe){.physical = physical};
    api->GetPhysicalDeviceProperties(physical, &probe->properties);
    if (probe->properties.apiVersion < VK_API_VERSION_1_1) {
        snprintf(probe->lacking, sizeof probe->lacking, "Vulkan 1.1 (it has %u.%u)",
                 VK_API_VERSION_MAJOR(probe->properties.apiVersion),
                 VK_API_VERSION_MINOR(probe->properties.apiVersion));
        return;
    }
    VkPhysicalDeviceMemoryProperties2 memory = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    api->GetPhysicalDeviceMemoryProperties2(physical, &memory);
    probe->memory = memory.memoryProperties;
    find_extensions(api, probe);
    query_features(api, probe);
    query_properties(api, probe);
    find_matrix(api, probe);
    check_limits(probe);
    if (!find_queue(api, probe) && !probe->lacking[0])
        snprintf(probe->lacking, sizeof probe->lacking, "a queue for compute");
}

uint64_t itera_vulkan_device_memory(const struct itera_vulkan_probe *probe)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < probe->memory.memoryHeapCount; i++)
        if ((probe->memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) &&
            probe->memory.memoryHeaps[i].size > most)
            most = probe->memory.memoryHeaps[i].size;
    return most;
}

/* SPIR-V capabilities by number, and what stands for them here. */
static const struct {
    uint32_t capability;
    enum itera_vulkan_feature feature;
} needs[] = {
    {9, ITERA_VULKAN_FLOAT16},
    {11, ITERA_VULKAN_INT64},
    {22, ITERA_VULKAN_INT16},
    {39, ITERA_VULKAN_INT8},
    {61, ITERA_VULKAN_SUBGROUP}, /* GroupNonUniform */
    {62, ITERA_VULKAN_SUBGROUP_VOTE},
    {63, ITERA_VULKAN_SUBGROUP}, /* GroupNonUniformArithmetic */
    {64, ITERA_VULKAN_SUBGROUP_BALLOT},
    {65, ITERA_VULKAN_SUBGROUP_SHUFFLE},
    {66, ITERA_VULKAN_SUBGROUP_SHUFFLE_RELATIVE},
    {67, ITERA_VULKAN_SUBGROUP_CLUSTERED},
    {4433, ITERA_VULKAN_STORAGE16},
    {4434, ITERA_VULKAN_STORAGE16},
    {4448, ITERA_VULKAN_STORAGE8},
    {4449, ITERA_VULKAN_STORAGE8},
    {5345, ITERA_VULKAN_MEMORY_MODEL},
    {5347, ITERA_VULKAN_ADDRESS},
    {6016, ITERA_VULKAN_DOT}, /* DotProductInputAll */
    {6017, ITERA_VULKAN_DOT}, /* DotProductInput4x8Bit */
    {6018, ITERA_VULKAN_DOT}, /* DotProductInput4x8BitPacked */
    {6019, ITERA_VULKAN_DOT}, /* DotProduct */
    {6022, ITERA_VULKAN_COOPERATIVE_MATRIX},
};

enum { HEADER = 5 }; /* words of a SPIR-V module before its instructions */

/* Every OpCapability stands at a module's beginning. */
static bool module_runs(const struct itera_vulkan_probe *probe, const uint32_t *word,
                        uint32_t *subgroup, bool *used)
{
    enum { OP_CAPABILITY = 17, SHADER = 1 };
    if (subgroup)
        *subgroup = 0;
    for (size_t i = HEADER; (word[i] & 0xffff) == OP_CAPABILITY; i += 2) {
        uint32_t capability = word[i + 1];
        size_t n = 0;
        while (n < sizeof needs / sizeof *needs && needs[n].capability != capability)
            n++;
        if (n == sizeof needs / sizeof *needs) {
            if (capability > SHADER)
                return false;
            continue;
        }
        if (!probe->features[needs[n].feature])
            return false;
        if (used)
            used[needs[n].feature] = true;
        if (subgroup && needs[n].feature == ITERA_VULKAN_COOPERATIVE_MATRIX)
            *subgroup = probe->matrix.subgroup;
        else if (subgroup && needs[n].feature == ITERA_VULKAN_SUBGROUP && !*subgroup)
            *subgroup = probe->subgroup;
    }
    return true;
}

const struct itera_vulkan_module *itera_vulkan_module(const struct itera_vulkan_probe *probe,
                                                      const struct itera_vulkan_shader *shader,
                                                      enum itera_vulkan_variant variant)
{
    const struct itera_vulkan_module *module = &shader->subgroup_module[variant];
    if (!probe->plain && module->words && module_runs(probe, module->words, NULL, NULL))
        return module;
    return &shader->module[variant];
}

bool itera_vulkan_can_run(const struct itera_vulkan_probe *probe,
                          const struct itera_vulkan_shader *shader,
                          enum itera_vulkan_variant variant, uint32_t *subgroup, bool *used)
{
    return module_runs(probe, itera_vulkan_module(probe, shader, variant)->words, subgroup, used);
}

/* The first instruction from word `at` on with this code, and with `id` as operand `place` of it (1 is
 * the first); its place in the module, or the module's length. */
static size_t find_instruction(const uint32_t *word, size_t n, size_t at, uint32_t code,
                               uint32_t place, uint32_t id)
{
    while (at < n && ((word[at] & 0xffff) != code || word[at + place] != id))
        at += word[at] >> 16 ? word[at] >> 16 : n - at;
    return at < n ? at : n;
}

enum {
    OP_TYPE_STRUCT = 30,
    OP_TYPE_POINTER = 32,
    OP_VARIABLE = 59,
    OP_DECORATE = 71,
    BINDING = 33
};

/* Scalars in a type. */
static uint32_t count_scalars(const uint32_t *word, size_t n, uint32_t type)
{
    size_t at = find_instruction(word, n, HEADER, OP_TYPE_STRUCT, 1, type);
    if (at == n)
        return 1;
    uint32_t count = 0;
    for (uint32_t i = 2; i < word[at] >> 16; i++)
        count += count_scalars(word, n, word[at + i]);
    return count;
}

uint32_t itera_vulkan_words(const struct itera_vulkan_shader *shader,
                            enum itera_vulkan_variant variant)
{
    const uint32_t *word = shader->module[variant].words;
    const size_t n = shader->module[variant].bytes / sizeof *word;
    for (size_t at = HEADER; at < n; at += word[at] >> 16) {
        at = find_instruction(word, n, at, OP_DECORATE, 2, BINDING);
        if (at == n)
            return 0;
        if (word[at + 3] != 0)
            continue;
        size_t variable = find_instruction(word, n, HEADER, OP_VARIABLE, 2, word[at + 1]);
        size_t pointer = variable == n ? n
                                       : find_instruction(word, n, HEADER, OP_TYPE_POINTER, 1,
                                                          word[variable + 1]);
        return pointer == n ? 0 : count_scalars(word, n, word[pointer + 3]);
    }
    return 0;
}

static enum itera_device_type device_type(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return ITERA_DEVICE_IGPU;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return ITERA_DEVICE_SOFTWARE;
    default:
        return ITERA_DEVICE_GPU;
    }
}

void itera_vulkan_describe(const struct itera_vulkan_probe *probe, int index,
                           struct itera_device_info *info)
{
    *info = (struct itera_device_info){.backend = "vulkan",
                                       .type = device_type(probe->properties.deviceType),
                                       .memory_bytes = itera_vulkan_device_memory(probe)};
    snprintf(info->id, sizeof info->id, "vulkan:%d", index);
    snprintf(info->name, sizeof info->name, "%.127s", probe->properties.deviceName);
    snprintf(info->driver, sizeof info->driver, "%s", probe->driver);
    memcpy(info->pci, probe->pci, sizeof info->pci);
    bool used[ITERA_VULKAN_FEATURES] = {[ITERA_VULKAN_ADDRESS] = true,
                                        [ITERA_VULKAN_TIMESTAMPS] = true,
                                        [ITERA_VULKAN_MEMORY_BUDGET] = true};
    for (int i = 0; itera_vulkan_shaders[i]; i++) {
        bool wants[ITERA_VULKAN_FEATURES] = {false};
        if (itera_vulkan_can_run(probe, itera_vulkan_shaders[i], ITERA_VULKAN_DESCRIPTORS, NULL,
                                 wants))
            for (int f = 0; f < ITERA_VULKAN_FEATURES; f++)
                used[f] |= wants[f];
    }
    for (int f = 0; f < ITERA_VULKAN_FEATURES; f++) {
        if (!probe->features[f] || info->n_features == ITERA_MAX_FEATURES)
            continue;
        int n = info->n_features++;
        snprintf(info->features[n].name, sizeof info->features[n].name, "%s", feature_names[f]);
        info->features[n].used = used[f];
    }
}
