/* Device memory: blocks that many buffers share, and the buffers. A device allows few allocations
 * (4096 is usual) and each is slow, while a model has a thousand parameters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/gpu/fault.h"
#include "backend/vulkan/device.h"
#include "core/log.h"
#include "core/number.h"

enum { GRAIN = 256, SMALL = 65536 };
static const uint64_t BLOCK = (uint64_t)64 << 20;

struct range {
    uint64_t offset, bytes;
};

struct vulkan_block {
    struct vulkan_block *next;
    VkDeviceMemory handle;
    int type;
    bool own; /* of one buffer alone */
    uint64_t bytes;
    uint8_t *mapped;
    struct range *free; /* by offset; neighbours never touch */
    int n_free, cap_free, live;
};

static const VkMemoryPropertyFlags LOCAL = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
                                   MAPPED = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                            VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
                                   CACHED = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;

static const VkMemoryType *memory_type(const struct vulkan_device *d, int type)
{
    return &d->probe.memory.memoryTypes[type];
}

static uint64_t heap_bytes(const struct vulkan_device *d, int type)
{
    return d->probe.memory.memoryHeaps[memory_type(d, type)->heapIndex].size;
}

/* Of the types in `allowed` that have `need`, the one with the most of what is wanted, the least of
 * what is not, and then the largest heap; -1 when there is none. Types with properties other than
 * those known here belong to features that are not on. */
static int find_type(const struct vulkan_device *d, uint32_t allowed, VkMemoryPropertyFlags need,
                     VkMemoryPropertyFlags want, VkMemoryPropertyFlags avoid)
{
    int best = -1, best_score = 0;
    for (int i = 0; i < (int)d->probe.memory.memoryTypeCount; i++) {
        VkMemoryPropertyFlags flags = memory_type(d, i)->propertyFlags;
        if (!(allowed & 1u << i) || (flags & need) != need || (flags & ~(LOCAL | MAPPED | CACHED)))
            continue;
        int score = (flags & want ? 2 : 0) + (flags & avoid ? 0 : 1);
        if (best < 0 || score > best_score ||
            (score == best_score && heap_bytes(d, i) > heap_bytes(d, best))) {
            best = i;
            best_score = score;
        }
    }
    return best;
}

static VkResult create_handle(const struct vulkan_device *d, uint64_t bytes, VkBuffer *out)
{
    VkBufferUsageFlags usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
                               VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT |
                               VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    if (d->probe.features[ITERA_VULKAN_ADDRESS])
        usage |= VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT_KHR;
    const VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                     .size = bytes,
                                     .usage = usage,
                                     .sharingMode = VK_SHARING_MODE_EXCLUSIVE};
    *out = VK_NULL_HANDLE;
    return d->api.CreateBuffer(d->handle, &info, NULL, out);
}

enum itera_status itera_vulkan_choose_memory(struct vulkan_device *d)
{
    VkBuffer any;
    VkMemoryRequirements needs;
    VkResult result = create_handle(d, GRAIN, &any);
    if (result)
        return itera_vulkan_fail(d, "vkCreateBuffer", result);
    d->api.GetBufferMemoryRequirements(d->handle, any, &needs);
    d->api.DestroyBuffer(d->handle, any, NULL);
    uint32_t allowed = needs.memoryTypeBits;
    VkPhysicalDeviceType type = d->probe.properties.deviceType;
    int both = find_type(d, allowed, LOCAL | MAPPED, CACHED, 0);
    d->unified = both >= 0 && (type == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU ||
                               type == VK_PHYSICAL_DEVICE_TYPE_CPU);
    d->local_type = find_type(d, allowed, LOCAL, 0, VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT);
    d->system_type = find_type(d, allowed, MAPPED, 0, LOCAL);
    d->staging_type = find_type(d, allowed, MAPPED, CACHED, LOCAL);
    d->mapped_type = both >= 0 ? both : d->system_type;
    if (d->local_type < 0)
        d->local_type = find_type(d, allowed, 0, 0, 0);
    if (d->local_type >= 0 && d->system_type >= 0)
        return ITERA_OK;
    return itera_fail(ITERA_ERR_DEVICE, "%s (%s): it has no memory for buffers; update the driver",
                      d->gpu.base.info.id, d->gpu.base.info.name);
}

static void block_destroy(struct vulkan_device *d, struct vulkan_block *block)
{
    struct vulkan_block **at = &d->blocks;
    while (*at != block)
        at = &(*at)->next;
    *at = block->next;
    d->api.FreeMemory(d->handle, block->handle, NULL); /* unmaps it, too */
    d->allocated -= block->bytes;
    free(block->free);
    free(block);
}

static VkResult block_create(struct vulkan_device *d, int type, uint64_t bytes, bool own,
                             struct vulkan_block **out)
{
    *out = NULL;
    struct vulkan_block *block = calloc(1, sizeof *block);
    struct range *ranges = calloc(4, sizeof *ranges);
    if (!block || !ranges) {
        free(block);
        free(ranges);
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    }
    const VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                             .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT_KHR};
    const VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                       .pNext =
                                           d->probe.features[ITERA_VULKAN_ADDRESS] ? &flags : NULL,
                                       .allocationSize = bytes,
                                       .memoryTypeIndex = (uint32_t)type};
    *block = (struct vulkan_block){
        .type = type, .own = own, .bytes = bytes, .free = ranges, .n_free = 1, .cap_free = 4};
    ranges[0] = (struct range){0, bytes};
    VkResult result = d->api.AllocateMemory(d->handle, &info, NULL, &block->handle);
    if (!result && (memory_type(d, type)->propertyFlags & MAPPED) == MAPPED) {
        void *mapped;
        result = d->api.MapMemory(d->handle, block->handle, 0, VK_WHOLE_SIZE, 0, &mapped);
        if (result)
            d->api.FreeMemory(d->handle, block->handle, NULL);
        else
            block->mapped = mapped;
    }
    if (result) {
        free(block->free);
        free(block);
        return result;
    }
    block->next = d->blocks;
    d->blocks = block;
    d->allocated += bytes;
    *out = block;
    return VK_SUCCESS;
}

/* Takes bytes out of the first free range that holds them; there is room for the one range more
 * that this may leave and for the one that giving it back may add. */
static bool block_take(struct vulkan_block *block, uint64_t bytes, uint64_t align,
                       struct vulkan_memory *out)
{
    if (block->live + 3 > block->cap_free) {
        int cap = block->cap_free * 2;
        struct range *grown = realloc(block->free, (size_t)cap * sizeof *grown);
        if (!grown)
            return false;
        block->free = grown;
        block->cap_free = cap;
    }
    for (int i = 0; i < block->n_free; i++) {
        struct range *r = &block->free[i];
        uint64_t begin = (r->offset + align - 1) / align * align, end = r->offset + r->bytes;
        if (begin + bytes > end)
            continue;
        struct range before = {r->offset, begin - r->offset};
        struct range after = {begin + bytes, end - begin - bytes};
        int pieces = (before.bytes != 0) + (after.bytes != 0);
        memmove(r + pieces, r + 1, (size_t)(block->n_free - i - 1) * sizeof *r);
        if (before.bytes)
            *r++ = before;
        if (after.bytes)
            *r = after;
        block->n_free += pieces - 1;
        block->live++;
        *out = (struct vulkan_memory){block, begin, bytes};
        return true;
    }
    return false;
}

static void block_give(struct vulkan_block *block, uint64_t offset, uint64_t bytes)
{
    int i = 0;
    while (i < block->n_free && block->free[i].offset < offset)
        i++;
    struct range *r = &block->free[i];
    memmove(r + 1, r, (size_t)(block->n_free - i) * sizeof *r);
    *r = (struct range){offset, bytes};
    block->n_free++;
    block->live--;
    if (i + 1 < block->n_free && r->offset + r->bytes == r[1].offset) {
        r->bytes += r[1].bytes;
        memmove(r + 1, r + 2, (size_t)(block->n_free - i - 2) * sizeof *r);
        block->n_free--;
    }
    if (i > 0 && r[-1].offset + r[-1].bytes == r->offset) {
        r[-1].bytes += r->bytes;
        memmove(r, r + 1, (size_t)(block->n_free - i - 1) * sizeof *r);
        block->n_free--;
    }
}

static VkResult memory_take(struct vulkan_device *d, int type, uint64_t bytes, uint64_t align,
                            struct vulkan_memory *out)
{
    struct vulkan_block *block;
    VkResult result;
    uint64_t shared = heap_bytes(d, type) / 8 < BLOCK ? heap_bytes(d, type) / 8 : BLOCK;
    bytes = (bytes + GRAIN - 1) / GRAIN * GRAIN;
    align = align < GRAIN ? GRAIN : align;
    if (bytes > heap_bytes(d, type))
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    /* A software driver may promise more than there is, and the process dies when it is used. */
    if (d->gpu.traits.vendor == ITERA_GPU_SOFTWARE &&
        d->allocated + bytes > (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGE_SIZE))
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    bool own = bytes > shared / 4;
    for (block = own ? NULL : d->blocks; block; block = block->next)
        if (block->type == type && !block->own && block_take(block, bytes, align, out))
            return VK_SUCCESS;
    result = block_create(d, type, own ? bytes : shared, own, &block);
    if (!result && !block_take(block, bytes, align, out)) {
        block_destroy(d, block);
        result = VK_ERROR_OUT_OF_HOST_MEMORY;
    }
    return result;
}

/* Blocks with nothing in them go, but for one of each type. */
static void memory_give(struct vulkan_device *d, struct vulkan_memory memory)
{
    struct vulkan_block *block = memory.block;
    if (!block)
        return;
    block_give(block, memory.offset, memory.bytes);
    bool spare = false;
    for (const struct vulkan_block *b = d->blocks; b; b = b->next)
        spare |= b != block && b->type == block->type && !b->own && !b->live;
    if (!block->live && (block->own || spare))
        block_destroy(d, block);
}

void itera_vulkan_memory_end(struct vulkan_device *d)
{
    while (d->blocks)
        block_destroy(d, d->blocks);
}

int itera_vulkan_blocks(const struct vulkan_device *d)
{
    int n = 0;
    for (const struct vulkan_block *b = d->blocks; b; b = b->next)
        n++;
    return n;
}

/* How much of the type's heap the driver would still give; false when it does not say. */
static bool free_bytes(const struct vulkan_device *d, int type, uint64_t *out)
{
    if (!d->probe.features[ITERA_VULKAN_MEMORY_BUDGET])
        return false;
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 memory = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2, .pNext = &budget};
    d->api.GetPhysicalDeviceMemoryProperties2(d->probe.physical, &memory);
    uint32_t heap = memory_type(d, type)->heapIndex;
    *out = budget.heapBudget[heap] > budget.heapUsage[heap]
               ? budget.heapBudget[heap] - budget.heapUsage[heap]
               : 0;
    return true;
}

static enum itera_status fail_memory(struct vulkan_device *d, uint64_t bytes, int type,
                                     VkResult result)
{
    if (result == VK_ERROR_DEVICE_LOST)
        return itera_vulkan_fail(d, "vkAllocateMemory", result);
    const double mib = 1.0 / (1 << 20);
    char left[48] = "";
    uint64_t free;
    if (free_bytes(d, type, &free))
        itera_format(left, sizeof left, ", %.1f MiB of them free", (double)free * mib);
    return itera_fail(ITERA_ERR_MEMORY,
                      "%s (%s): no memory for a buffer of %.1f MiB (%s; the device has %.1f MiB%s, "
                      "and %.1f MiB are used here); close other programs that use the device, or "
                      "take a smaller batch or model",
                      d->gpu.base.info.id, d->gpu.base.info.name, (double)bytes * mib,
                      itera_vulkan_result_name(result), (double)heap_bytes(d, type) * mib, left,
                      (double)d->allocated * mib);
}

/* A buffer with memory of the type, content undefined. */
static VkResult create(struct vulkan_device *d, size_t bytes, int type, struct vulkan_buffer *b)
{
    VkMemoryRequirements needs;
    *b = (struct vulkan_buffer){.base = {.device = &d->gpu.base, .bytes = bytes},
                                .handle_bytes = bytes < 16 ? 16 : ((uint64_t)bytes + 15) / 16 * 16};
    /* Some drivers take any size for a buffer and wrap around later. */
    if (b->handle_bytes < bytes || b->handle_bytes > heap_bytes(d, type))
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    VkResult result = create_handle(d, b->handle_bytes, &b->handle);
    if (result)
        return result;
    d->api.GetBufferMemoryRequirements(d->handle, b->handle, &needs);
    result = needs.memoryTypeBits & 1u << type
                 ? memory_take(d, type, needs.size, needs.alignment, &b->memory)
                 : VK_ERROR_OUT_OF_DEVICE_MEMORY;
    if (!result)
        result = d->api.BindBufferMemory(d->handle, b->handle, b->memory.block->handle,
                                         b->memory.offset);
    if (result) {
        memory_give(d, b->memory);
        d->api.DestroyBuffer(d->handle, b->handle, NULL);
        return result;
    }
    if (b->memory.block->mapped)
        b->mapped = b->memory.block->mapped + b->memory.offset;
    b->slow_reads = !(memory_type(d, type)->propertyFlags & CACHED);
    if (d->probe.features[ITERA_VULKAN_ADDRESS]) {
        const VkBufferDeviceAddressInfoKHR info = {
            .sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO_KHR, .buffer = b->handle};
        b->address = d->api.GetBufferDeviceAddressKHR(d->handle, &info);
    }
    return VK_SUCCESS;
}

enum itera_status itera_vulkan_mapped_create(struct vulkan_device *d, size_t bytes, int type,
                                             struct vulkan_buffer **out)
{
    *out = NULL;
    struct vulkan_buffer *b = malloc(sizeof *b);
    VkResult result = b ? create(d, bytes, type, b) : VK_ERROR_OUT_OF_HOST_MEMORY;
    if (!result) {
        *out = b;
        return ITERA_OK;
    }
    free(b);
    return fail_memory(d, bytes, type, result);
}

/* A zeroed buffer, mapped or in the device's own memory. */
static enum itera_status create_zeroed(struct vulkan_device *d, size_t bytes, bool mapped,
                                       struct itera_buffer **out)
{
    int type = mapped ? d->mapped_type : d->local_type;
    struct vulkan_buffer *b = malloc(sizeof *b);
    VkResult result = b ? VK_SUCCESS : VK_ERROR_OUT_OF_HOST_MEMORY;
    if (d->lost)
        result = VK_ERROR_DEVICE_LOST;
    else if (itera_gpu_fault(ITERA_GPU_FAULT_MEMORY))
        result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    if (!result)
        result = create(d, bytes, type, b);
    /* What the host sees of a GPU's memory may be little: then small buffers live in the host's. */
    if (result == VK_ERROR_OUT_OF_DEVICE_MEMORY && b && mapped && !d->unified &&
        type != d->system_type && !itera_gpu_fault(ITERA_GPU_FAULT_MEMORY))
        result = create(d, bytes, d->system_type, b);
    if (result) {
        free(b);
        return fail_memory(d, bytes, type, result);
    }
    if (!mapped)
        b->mapped = NULL; /* it may be by chance */
    enum itera_status status = ITERA_OK;
    if (b->mapped)
        memset(b->mapped, 0, b->handle_bytes);
    else
        status = itera_vulkan_zero(b);
    if (status) {
        itera_vulkan_buffer_destroy(&b->base);
        return status;
    }
    *out = &b->base;
    return ITERA_OK;
}

/* Small buffers are mapped, so that tokens, losses and counters are read with no submission; on a
 * device whose memory is the host's, all are. */
enum itera_status itera_vulkan_buffer_create(struct itera_device *base, size_t bytes,
                                             struct itera_buffer **out)
{
    struct vulkan_device *d = (struct vulkan_device *)base;
    return create_zeroed(d, bytes, !d->staged && (d->unified || bytes <= SMALL), out);
}

enum itera_status itera_vulkan_local_create(struct vulkan_device *d, size_t bytes,
                                            struct itera_buffer **out)
{
    return create_zeroed(d, bytes, !d->staged && d->unified, out);
}

void itera_vulkan_buffer_destroy(struct itera_buffer *base)
{
    struct vulkan_buffer *b = (struct vulkan_buffer *)base;
    struct vulkan_device *d = (struct vulkan_device *)base->device;
    (void)itera_vulkan_drain(d); /* a lost device: nothing is under way any more */
    d->api.DestroyBuffer(d->handle, b->handle, NULL);
    memory_give(d, b->memory);
    free(b);
}
