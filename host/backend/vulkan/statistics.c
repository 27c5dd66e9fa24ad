/* What the driver made of a kernel, by VK_KHR_pipeline_executable_properties. */
#include <stdlib.h>

#include "backend/gpu/kernels.h"
#include "backend/vulkan/device.h"

enum { MAX_STATISTICS = 64 };

static int64_t number_of(const VkPipelineExecutableStatisticKHR *s)
{
    switch (s->format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR:
        return s->value.b32;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR:
        return s->value.i64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR:
        return s->value.f64 > -9e18 && s->value.f64 < 9e18 ? (int64_t)s->value.f64 : 0;
    default:
        return s->value.u64 < INT64_MAX ? (int64_t)s->value.u64 : INT64_MAX;
    }
}

static void read_statistics(struct vulkan_device *d, VkPipeline pipeline, uint32_t executable,
                            struct itera_kernel_info *info)
{
    const VkPipelineExecutableInfoKHR which = {.sType =
                                                   VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
                                               .pipeline = pipeline,
                                               .executableIndex = executable};
    VkPipelineExecutableStatisticKHR list[MAX_STATISTICS];
    uint32_t n = MAX_STATISTICS;
    for (int i = 0; i < MAX_STATISTICS; i++)
        list[i] = (VkPipelineExecutableStatisticKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR};
    if (d->api.GetPipelineExecutableStatisticsKHR(d->handle, &which, &n, list) < 0)
        return;
    for (uint32_t i = 0; i < n; i++) {
        list[i].name[sizeof list[i].name - 1] = '\0';
        itera_gpu_statistic(info, list[i].name, number_of(&list[i]));
    }
}

/* A driver may list an executable for each width that it compiled for (ANV): the last is the widest
 * that it kept. */
static void read_executables(struct vulkan_device *d, VkPipeline pipeline,
                             struct itera_kernel_info *info)
{
    const VkPipelineInfoKHR which = {.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR,
                                     .pipeline = pipeline};
    uint32_t n = 0;
    if (d->api.GetPipelineExecutablePropertiesKHR(d->handle, &which, &n, NULL) < 0 || !n)
        return;
    VkPipelineExecutablePropertiesKHR *list = calloc(n, sizeof *list);
    for (uint32_t i = 0; list && i < n; i++)
        list[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR;
    if (list && d->api.GetPipelineExecutablePropertiesKHR(d->handle, &which, &n, list) >= 0 && n) {
        if (list[n - 1].subgroupSize)
            info->subgroup = (int)list[n - 1].subgroupSize;
        read_statistics(d, pipeline, n - 1, info);
    }
    free(list);
}

enum itera_status itera_vulkan_describe_kernel(struct itera_gpu_device *device,
                                               const struct itera_gpu_dispatch *dispatch,
                                               struct itera_kernel_info *info)
{
    struct vulkan_device *d = (struct vulkan_device *)device;
    VkPipeline pipeline = VK_NULL_HANDLE;
    if (!d->probe.chain.statistics.pipelineExecutableInfo ||
        !d->api.GetPipelineExecutablePropertiesKHR || !d->api.GetPipelineExecutableStatisticsKHR)
        return ITERA_OK;
    VkResult result = itera_vulkan_pipeline_with(
        d, dispatch, VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR, &pipeline);
    if (result == VK_ERROR_DEVICE_LOST || result == VK_ERROR_OUT_OF_HOST_MEMORY ||
        result == VK_ERROR_OUT_OF_DEVICE_MEMORY)
        return itera_vulkan_fail(d, "vkCreateComputePipelines", result);
    if (result)
        return ITERA_OK; /* what it is not told here, it compiled before */
    read_executables(d, pipeline, info);
    d->api.DestroyPipeline(d->handle, pipeline, NULL);
    return ITERA_OK;
}
