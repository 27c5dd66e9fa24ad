/* The Vulkan loader, opened at run time, and the functions that the backend calls. */
#ifndef ITERA_BACKEND_VULKAN_LOADER_H
#define ITERA_BACKEND_VULKAN_LOADER_H

#include <stdbool.h>

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

#define ITERA_VULKAN_INSTANCE_FUNCTIONS(X)                                                         \
    X(DestroyInstance)                                                                             \
    X(EnumeratePhysicalDevices)                                                                    \
    X(GetPhysicalDeviceProperties)                                                                 \
    X(GetPhysicalDeviceProperties2)                                                                \
    X(GetPhysicalDeviceFeatures2)                                                                  \
    X(GetPhysicalDeviceMemoryProperties2)                                                          \
    X(GetPhysicalDeviceQueueFamilyProperties)                                                      \
    X(EnumerateDeviceExtensionProperties)                                                          \
    X(CreateDevice)                                                                                \
    X(GetDeviceProcAddr)

#define ITERA_VULKAN_DEVICE_FUNCTIONS(X)                                                           \
    X(DestroyDevice)                                                                               \
    X(GetDeviceQueue)                                                                              \
    X(DeviceWaitIdle)                                                                              \
    X(AllocateMemory)                                                                              \
    X(FreeMemory)                                                                                  \
    X(MapMemory)                                                                                   \
    X(CreateBuffer)                                                                                \
    X(DestroyBuffer)                                                                               \
    X(GetBufferMemoryRequirements)                                                                 \
    X(BindBufferMemory)                                                                            \
    X(CreateDescriptorSetLayout)                                                                   \
    X(DestroyDescriptorSetLayout)                                                                  \
    X(CreateDescriptorPool)                                                                        \
    X(DestroyDescriptorPool)                                                                       \
    X(AllocateDescriptorSets)                                                                      \
    X(UpdateDescriptorSets)                                                                        \
    X(CreatePipelineLayout)                                                                        \
    X(DestroyPipelineLayout)                                                                       \
    X(CreatePipelineCache)                                                                         \
    X(DestroyPipelineCache)                                                                        \
    X(GetPipelineCacheData)                                                                        \
    X(CreateShaderModule)                                                                          \
    X(DestroyShaderModule)                                                                         \
    X(CreateComputePipelines)                                                                      \
    X(DestroyPipeline)                                                                             \
    X(CreateCommandPool)                                                                           \
    X(DestroyCommandPool)                                                                          \
    X(AllocateCommandBuffers)                                                                      \
    X(FreeCommandBuffers)                                                                          \
    X(BeginCommandBuffer)                                                                          \
    X(EndCommandBuffer)                                                                            \
    X(CmdBindPipeline)                                                                             \
    X(CmdBindDescriptorSets)                                                                       \
    X(CmdDispatch)                                                                                 \
    X(CmdPipelineBarrier)                                                                          \
    X(CmdCopyBuffer)                                                                               \
    X(CmdFillBuffer)                                                                               \
    X(CmdResetQueryPool)                                                                           \
    X(CmdWriteTimestamp)                                                                           \
    X(CreateQueryPool)                                                                             \
    X(DestroyQueryPool)                                                                            \
    X(GetQueryPoolResults)                                                                         \
    X(CreateFence)                                                                                 \
    X(DestroyFence)                                                                                \
    X(ResetFences)                                                                                 \
    X(WaitForFences)                                                                               \
    X(QueueSubmit)

#define ITERA_VULKAN_EXTENSION_FUNCTIONS(X)                                                        \
    X(GetBufferDeviceAddressKHR)                                                                   \
    X(GetPipelineExecutablePropertiesKHR)                                                          \
    X(GetPipelineExecutableStatisticsKHR)

/* Functions of the instance and device are never NULL; those of extensions may be. */
struct itera_vulkan_api {
#define X(name) PFN_vk##name name;
    ITERA_VULKAN_INSTANCE_FUNCTIONS(X)
    ITERA_VULKAN_DEVICE_FUNCTIONS(X)
    ITERA_VULKAN_EXTENSION_FUNCTIONS(X)
#undef X
    PFN_vkVoidFunction GetPhysicalDeviceCooperativeMatrixPropertiesKHR;
    PFN_vkGetInstanceProcAddr GetInstanceProcAddr;
    VkInstance instance;
};

/* Copies a table with the process's instance (Vulkan 1.1) and its functions. There is one instance,
 * made on first use and never destroyed: devices come and go quickly, drivers do not like to.
 * VK_ERROR_INITIALIZATION_FAILED when there is no loader or it is older. From any thread. */
VkResult itera_vulkan_instance(struct itera_vulkan_api *api);

/* Fills the device functions; false when one is missing. */
bool itera_vulkan_load_device(struct itera_vulkan_api *api, VkDevice device);

const char *itera_vulkan_result_name(VkResult result);

#endif
