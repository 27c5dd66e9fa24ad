/* The loader is not linked: a machine without it still runs everything else. */
#include "backend/vulkan/loader.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"

/* Opened once and never closed: drivers do not expect to be unloaded. */
static PFN_vkGetInstanceProcAddr get_instance_proc_addr;

static void open_loader(void)
{
    static const char *const names[] = {"libvulkan.so.1", "libvulkan.so"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        itera_log(ITERA_LOG_DEBUG, "vulkan: no loader: %s", dlerror());
        return;
    }
    void *symbol = dlsym(library, "vkGetInstanceProcAddr");
    memcpy(&get_instance_proc_addr, &symbol, sizeof symbol); /* ISO C has no cast for this */
}

/* The instance extension that lists drivers which are not fully conformant (portability). */
static bool has_portability(PFN_vkEnumerateInstanceExtensionProperties enumerate)
{
    uint32_t n = 0;
    if (!enumerate || enumerate(NULL, &n, NULL) || !n)
        return false;
    VkExtensionProperties *list = calloc(n, sizeof *list);
    bool found = false;
    if (list && enumerate(NULL, &n, list) >= 0)
        for (uint32_t i = 0; i < n; i++)
            found |= !strcmp(list[i].extensionName, "VK_KHR_portability_enumeration");
    free(list);
    return found;
}

static VkResult create_instance(struct itera_vulkan_api *api)
{
    if (!get_instance_proc_addr)
        open_loader();
    if (!get_instance_proc_addr)
        return VK_ERROR_INITIALIZATION_FAILED;
    *api = (struct itera_vulkan_api){.GetInstanceProcAddr = get_instance_proc_addr};
    PFN_vkCreateInstance create =
        (PFN_vkCreateInstance)get_instance_proc_addr(NULL, "vkCreateInstance");
    PFN_vkEnumerateInstanceVersion version =
        (PFN_vkEnumerateInstanceVersion)get_instance_proc_addr(NULL, "vkEnumerateInstanceVersion");
    uint32_t loader_version = VK_API_VERSION_1_0;
    if (!create || !version || version(&loader_version) || loader_version < VK_API_VERSION_1_1) {
        itera_log(ITERA_LOG_DEBUG, "vulkan: the loader is older than Vulkan 1.1");
        return VK_ERROR_INITIALIZATION_FAILED;
    }
    bool portability =
        has_portability((PFN_vkEnumerateInstanceExtensionProperties)get_instance_proc_addr(
            NULL, "vkEnumerateInstanceExtensionProperties"));
    static const char *const extensions[] = {"VK_KHR_portability_enumeration"};
    const VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                           .pApplicationName = "itera",
                                           .pEngineName = "itera",
                                           .apiVersion = VK_API_VERSION_1_1};
    const VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .flags = portability ? 1u : 0u, /* VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR */
        .pApplicationInfo = &application,
        .enabledExtensionCount = portability,
        .ppEnabledExtensionNames = extensions};
    VkResult result = create(&info, NULL, &api->instance);
    if (result) {
        api->instance = VK_NULL_HANDLE;
        return result;
    }
    bool complete = true;
#define X(name)                                                                                    \
    api->name = (PFN_vk##name)get_instance_proc_addr(api->instance, "vk" #name);                   \
    complete &= api->name != NULL;
    ITERA_VULKAN_INSTANCE_FUNCTIONS(X)
#undef X
    api->GetPhysicalDeviceCooperativeMatrixPropertiesKHR =
        get_instance_proc_addr(api->instance, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    if (complete)
        return VK_SUCCESS;
    if (api->DestroyInstance)
        api->DestroyInstance(api->instance, NULL);
    return VK_ERROR_INITIALIZATION_FAILED;
}

VkResult itera_vulkan_instance(struct itera_vulkan_api *api)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static struct itera_vulkan_api shared;
    pthread_mutex_lock(&mutex);
    VkResult result = shared.instance ? VK_SUCCESS : create_instance(&shared);
    if (result)
        shared.instance = VK_NULL_HANDLE;
    *api = shared;
    pthread_mutex_unlock(&mutex);
    return result;
}

bool itera_vulkan_load_device(struct itera_vulkan_api *api, VkDevice device)
{
    bool complete = true;
#define X(name)                                                                                    \
    api->name = (PFN_vk##name)api->GetDeviceProcAddr(device, "vk" #name);                          \
    complete &= api->name != NULL;
    ITERA_VULKAN_DEVICE_FUNCTIONS(X)
#undef X
#define X(name) api->name = (PFN_vk##name)api->GetDeviceProcAddr(device, "vk" #name);
    ITERA_VULKAN_EXTENSION_FUNCTIONS(X)
#undef X
    return complete;
}

const char *itera_vulkan_result_name(VkResult result)
{
#define NAME(r)                                                                                    \
    case r:                                                                                        \
        return #r;
    switch (result) {
        NAME(VK_SUCCESS)
        NAME(VK_NOT_READY)
        NAME(VK_TIMEOUT)
        NAME(VK_INCOMPLETE)
        NAME(VK_ERROR_OUT_OF_HOST_MEMORY)
        NAME(VK_ERROR_OUT_OF_DEVICE_MEMORY)
        NAME(VK_ERROR_INITIALIZATION_FAILED)
        NAME(VK_ERROR_DEVICE_LOST)
        NAME(VK_ERROR_MEMORY_MAP_FAILED)
        NAME(VK_ERROR_LAYER_NOT_PRESENT)
        NAME(VK_ERROR_EXTENSION_NOT_PRESENT)
        NAME(VK_ERROR_FEATURE_NOT_PRESENT)
        NAME(VK_ERROR_INCOMPATIBLE_DRIVER)
        NAME(VK_ERROR_TOO_MANY_OBJECTS)
        NAME(VK_ERROR_FRAGMENTED_POOL)
        NAME(VK_ERROR_OUT_OF_POOL_MEMORY)
        NAME(VK_ERROR_INVALID_EXTERNAL_HANDLE)
        NAME(VK_ERROR_INVALID_SHADER_NV)
        NAME(VK_ERROR_UNKNOWN)
    default:
        return "an unknown VkResult";
    }
#undef NAME
}
