/* The embedded shaders: SPIR-V made from shaders/ by cmake/vulkan.cmake. */
#ifndef ITERA_BACKEND_VULKAN_SHADER_H
#define ITERA_BACKEND_VULKAN_SHADER_H

#include <stddef.h>
#include <stdint.h>

/* How a shader gets its operands. */
enum itera_vulkan_variant {
    ITERA_VULKAN_DESCRIPTORS, /* storage buffers from binding 1 on */
    ITERA_VULKAN_ADDRESSES,   /* binding 1 is a uniform block of their addresses */
    ITERA_VULKAN_VARIANTS
};

struct itera_vulkan_module {
    const uint32_t *words;
    size_t bytes;
};

struct itera_vulkan_shader {
    const char *name;
    struct itera_vulkan_module module[ITERA_VULKAN_VARIANTS];
    /* The same with subgroup arithmetic (ITERA_SUBGROUPS), for devices that have it; no words where the
     * shader has no use for it. */
    struct itera_vulkan_module subgroup_module[ITERA_VULKAN_VARIANTS];
};

extern const struct itera_vulkan_shader *const itera_vulkan_shaders[]; /* ends with NULL */

#endif
