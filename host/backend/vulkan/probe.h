/* What a physical device is and has, before it is opened. */
#ifndef ITERA_BACKEND_VULKAN_PROBE_H
#define ITERA_BACKEND_VULKAN_PROBE_H

#include "backend/gpu/dispatch.h"
#include "backend/vulkan/loader.h"
#include "backend/vulkan/shader.h"

enum itera_vulkan_feature {
    ITERA_VULKAN_STORAGE16,
    ITERA_VULKAN_STORAGE8,
    ITERA_VULKAN_FLOAT16,
    ITERA_VULKAN_INT8,
    ITERA_VULKAN_INT16,
    ITERA_VULKAN_INT64,
    ITERA_VULKAN_SUBGROUP, /* arithmetic, in compute, of a size that is known */
    ITERA_VULKAN_SUBGROUP_VOTE,
    ITERA_VULKAN_SUBGROUP_BALLOT,
    ITERA_VULKAN_SUBGROUP_SHUFFLE,
    ITERA_VULKAN_SUBGROUP_SHUFFLE_RELATIVE,
    ITERA_VULKAN_SUBGROUP_CLUSTERED,
    ITERA_VULKAN_DOT,
    ITERA_VULKAN_MEMORY_MODEL,
    ITERA_VULKAN_COOPERATIVE_MATRIX, /* of f16 with f32 accumulation, in subgroups */
    ITERA_VULKAN_ADDRESS,
    ITERA_VULKAN_TIMESTAMPS,
    ITERA_VULKAN_MEMORY_BUDGET,
    ITERA_VULKAN_FEATURES
};

/* The feature structs of Vulkan 1.1 and of extensions: filled by a query, handed to vkCreateDevice
 * as they are. */
struct itera_vulkan_chain {
    VkPhysicalDeviceFeatures2 core;
    VkPhysicalDevice16BitStorageFeatures storage16;
    VkPhysicalDevice8BitStorageFeaturesKHR storage8;
    VkPhysicalDeviceShaderFloat16Int8FeaturesKHR float16;
    VkPhysicalDeviceBufferDeviceAddressFeaturesKHR address;
    VkPhysicalDeviceSubgroupSizeControlFeaturesEXT subgroup;
    VkPhysicalDeviceShaderIntegerDotProductFeaturesKHR dot;
    VkPhysicalDeviceVulkanMemoryModelFeaturesKHR model;
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR statistics;
#ifdef VK_KHR_cooperative_matrix
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix;
#endif
};

#define ITERA_VULKAN_MAX_EXTENSIONS 16

struct itera_vulkan_probe {
    VkPhysicalDevice physical;
    VkPhysicalDeviceProperties properties;
    VkPhysicalDeviceMemoryProperties memory;
    VkPhysicalDeviceIDProperties id;
    char driver[128];
    char pci[16];      /* address, or "" */
    char lacking[160]; /* what it would need to be used, or "" */
    uint32_t queue_family, timestamp_bits;
    uint32_t compute_units;         /* 0: unknown */
    uint32_t subgroup;              /* size; 0 without ITERA_VULKAN_SUBGROUP */
    bool dot_fast;                  /* integer dot products of packed words in hardware */
    uint32_t subgroup_least;        /* smallest size that pipelines may ask for */
    uint32_t subgroup_most;         /* the largest that a driver may choose */
    bool subgroup_required;         /* pipelines must ask for a size, or allow any */
    bool subgroup_full;             /* pipelines can ask for full subgroups */
    bool plain;                     /* for tests: no module with subgroup arithmetic */
    struct itera_gpu_matrix matrix; /* zeros without ITERA_VULKAN_COOPERATIVE_MATRIX */
    bool features[ITERA_VULKAN_FEATURES];
    struct itera_vulkan_chain chain;                     /* not linked: itera_vulkan_chain_link */
    const char *extensions[ITERA_VULKAN_MAX_EXTENSIONS]; /* to be enabled; literals */
    uint32_t n_extensions;
};

void itera_vulkan_probe_device(const struct itera_vulkan_api *api, VkPhysicalDevice physical,
                               struct itera_vulkan_probe *probe);
/* Links the structs that this device knows, and returns the first. */
void *itera_vulkan_chain_link(const struct itera_vulkan_probe *probe,
                              struct itera_vulkan_chain *chain);
/* Leaves out the extension that tells what became of kernels, which nothing else needs: false where it
 * was not to be enabled. */
bool itera_vulkan_without_statistics(struct itera_vulkan_probe *probe);
/* The largest heap of the device's own memory, in bytes. */
uint64_t itera_vulkan_device_memory(const struct itera_vulkan_probe *probe);

/* What the device runs of a shader: the module with subgroup arithmetic where there is one and the device
 * has what it declares, else the plain one. */
const struct itera_vulkan_module *itera_vulkan_module(const struct itera_vulkan_probe *probe,
                                                      const struct itera_vulkan_shader *shader,
                                                      enum itera_vulkan_variant variant);

/* Whether the device can do all that this module declares. *subgroup is the size of subgroups with which it
 * must run, 0 where its result does not depend on that (may be NULL). *used gathers the features that
 * it needs (may be NULL). */
bool itera_vulkan_can_run(const struct itera_vulkan_probe *probe,
                          const struct itera_vulkan_shader *shader,
                          enum itera_vulkan_variant variant, uint32_t *subgroup, bool *used);

/* The words of a shader's arguments: the numbers in its block at binding 0; 0 if it has none. */
uint32_t itera_vulkan_words(const struct itera_vulkan_shader *shader,
                            enum itera_vulkan_variant variant);

void itera_vulkan_describe(const struct itera_vulkan_probe *probe, int index,
                           struct itera_device_info *info);

#endif
