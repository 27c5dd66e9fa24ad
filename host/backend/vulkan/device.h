/* The Vulkan backend's own structs, and what its files call of each other. */
#ifndef ITERA_BACKEND_VULKAN_DEVICE_H
#define ITERA_BACKEND_VULKAN_DEVICE_H

#include "backend/vulkan/probe.h"

struct vulkan_block; /* memory.c: a piece of device memory that buffers share */

/* Where an allocation came from. */
struct vulkan_memory {
    struct vulkan_block *block;
    uint64_t offset, bytes;
};

struct vulkan_buffer {
    struct itera_buffer base;
    VkBuffer handle;
    VkDeviceAddress address; /* 0 unless the device has addresses */
    uint64_t handle_bytes;   /* base.bytes, rounded up; what descriptors may reach */
    uint8_t *mapped;         /* NULL: reached by transfers only */
    bool slow_reads;         /* the host reads it past its caches */
    struct vulkan_memory memory;
};

/* One half of the staging memory, with all it takes to copy through it. */
struct vulkan_lane {
    VkCommandBuffer commands;
    VkFence fence;
    uint8_t *mapped;
    uint64_t offset; /* in the staging buffer */
    void *to;        /* where what it reads is to go; NULL when it writes */
    size_t bytes;
    bool busy;
};

enum { VULKAN_LANES = 2 };

struct vulkan_ticket; /* job.c */

struct vulkan_pipeline {
    uint64_t hash;
    const struct itera_vulkan_shader *shader;
    enum itera_vulkan_variant variant;
    uint32_t local[3], n_constants;
    struct itera_gpu_constant constant[ITERA_GPU_MAX_CONSTANTS];
    uint32_t n_bindings;
    uint32_t n_words; /* of the shader's arguments */
    VkPipeline handle;
};

/* Layouts by number of operands; the last is that of the address variant. */
enum { VULKAN_LAYOUTS = ITERA_GPU_MAX_BINDINGS + 2, VULKAN_ADDRESS_LAYOUT = VULKAN_LAYOUTS - 1 };

enum { VULKAN_ABSENT = 256, VULKAN_ABSENT_BYTES = 256 };

struct vulkan_device {
    struct itera_gpu_device gpu;
    struct itera_vulkan_api api;
    struct itera_vulkan_probe probe;
    VkDevice handle;
    VkQueue queue;
    VkCommandPool command_pool;
    bool lost;

    /* memory.c */
    struct vulkan_block *blocks;
    int local_type, mapped_type, system_type, staging_type; /* memory types */
    bool unified;     /* every buffer can be mapped with nothing lost */
    bool staged;      /* for tests: none is */
    bool by_address;  /* for tests: operands are never descriptors */
    bool no_barriers; /* for tests of validation: programs have races */
    uint64_t allocated;

    /* transfer.c */
    struct vulkan_buffer *staging;
    struct vulkan_lane lanes[VULKAN_LANES];

    /* job.c */
    struct vulkan_ticket *queued; /* in their order, those that are not known to be done */
    struct vulkan_ticket *spare;  /* to be used again */

    /* pipeline.c */
    VkDescriptorSetLayout set_layouts[VULKAN_LAYOUTS];
    VkPipelineLayout layouts[VULKAN_LAYOUTS];
    VkPipelineCache pipeline_cache;
    struct vulkan_pipeline *pipelines;
    int n_pipelines, cap_pipelines;
    int unsaved_pipelines;
    size_t loaded_cache_bytes; /* what the cache on disk gave; 0: nothing */
    double saved_at;
    char identity[256];

    struct itera_buffer *absent; /* bound for absent operands: VULKAN_ABSENT slots of 256 bytes */
};

/* queue.c. One message for a failed call: device, call, result, and what to do. A lost device is
 * remembered. */
enum itera_status itera_vulkan_fail(struct vulkan_device *d, const char *call, VkResult result);
/* Submits n command buffers at once; `fence` is signalled when they, and all before them, are done. */
enum itera_status itera_vulkan_submit(struct vulkan_device *d, uint32_t n,
                                      const VkCommandBuffer *commands, VkFence fence);
enum itera_status itera_vulkan_wait(struct vulkan_device *d, VkFence fence);

/* memory.c */
enum itera_status itera_vulkan_choose_memory(struct vulkan_device *d);
enum itera_status itera_vulkan_buffer_create(struct itera_device *device, size_t bytes,
                                             struct itera_buffer **out);
void itera_vulkan_buffer_destroy(struct itera_buffer *buffer);
/* The same in the device's own memory, also when it is small. */
enum itera_status itera_vulkan_local_create(struct vulkan_device *d, size_t bytes,
                                            struct itera_buffer **out);
/* Mapped memory of a type, not zeroed: for staging. */
enum itera_status itera_vulkan_mapped_create(struct vulkan_device *d, size_t bytes, int type,
                                             struct vulkan_buffer **out);
void itera_vulkan_memory_end(struct vulkan_device *d); /* frees what blocks are left */
/* Memory blocks that are held, for tests. */
int itera_vulkan_blocks(const struct vulkan_device *d);

/* transfer.c */
void itera_vulkan_transfer_end(struct vulkan_device *d);
struct vulkan_copy {
    VkBuffer from; /* null: all of `to` becomes zero */
    VkBuffer to;
    VkBufferCopy region;
};
/* Records copies as a whole command buffer: after all writes so far, and before anything that the host
 * or later submissions do. */
enum itera_status itera_vulkan_record_copies(struct vulkan_device *d, VkCommandBuffer commands,
                                             const struct vulkan_copy *copies, int n);
enum itera_status itera_vulkan_upload(struct itera_buffer *buffer, size_t offset, const void *data,
                                      size_t bytes);
enum itera_status itera_vulkan_download(struct itera_buffer *buffer, size_t offset, void *data,
                                        size_t bytes);
enum itera_status itera_vulkan_zero(struct vulkan_buffer *buffer);

/* job.c */
enum itera_status itera_vulkan_submit_job(struct itera_device *device, const struct itera_job *job,
                                          struct itera_ticket **ticket);
enum itera_status itera_vulkan_collect(struct itera_ticket *ticket, void *data);
/* Waits for all jobs, before the host touches memory that they may. */
enum itera_status itera_vulkan_drain(struct vulkan_device *d);
void itera_vulkan_jobs_end(struct vulkan_device *d);

/* pipeline.c */
enum itera_status itera_vulkan_pipelines_begin(struct vulkan_device *d);
void itera_vulkan_pipelines_end(struct vulkan_device *d);
bool itera_vulkan_has_kernel(struct itera_gpu_device *device, const char *kernel);
/* The pipeline of a dispatch, made if need be; refused where the driver does not make it. */
enum itera_status itera_vulkan_pipeline(struct vulkan_device *d,
                                        const struct itera_gpu_dispatch *dispatch,
                                        enum itera_vulkan_variant variant, VkPipeline *out,
                                        struct itera_reason *why);
/* One more pipeline of a dispatch, made with these flags and without the cache; the caller's. */
VkResult itera_vulkan_pipeline_with(struct vulkan_device *d,
                                    const struct itera_gpu_dispatch *dispatch,
                                    VkPipelineCreateFlags flags, VkPipeline *out);
/* Makes the dispatch's pipeline before its operands have their places. */
enum itera_status itera_vulkan_prepare(struct itera_gpu_device *device,
                                       const struct itera_gpu_dispatch *dispatch,
                                       struct itera_reason *why);
enum itera_status itera_vulkan_layout(struct vulkan_device *d, int n_bindings,
                                      enum itera_vulkan_variant variant, VkDescriptorSetLayout *set,
                                      VkPipelineLayout *layout);
/* Writes the pipelines made since they were last written to the cache on disk. */
void itera_vulkan_cache_save(struct vulkan_device *d, bool now);

/* statistics.c: the describe of struct itera_gpu_device. */
enum itera_status itera_vulkan_describe_kernel(struct itera_gpu_device *device,
                                               const struct itera_gpu_dispatch *dispatch,
                                               struct itera_kernel_info *info);

/* executable.c */
enum itera_status itera_vulkan_compile(struct itera_device *device,
                                       const struct itera_program *program,
                                       const struct itera_binding *bindings, int n_bindings,
                                       const struct itera_compile_options *options,
                                       struct itera_compile_result *result,
                                       struct itera_executable **out);
void itera_vulkan_executable_destroy(struct itera_executable *executable);
/* What a run submits; may be under way more than once. */
VkCommandBuffer itera_vulkan_commands(const struct itera_executable *executable);
enum itera_status itera_vulkan_run(struct itera_executable *executable);
enum itera_status itera_vulkan_profile(struct itera_executable *executable, double *op_seconds);

#endif
