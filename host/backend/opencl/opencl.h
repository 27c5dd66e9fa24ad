/* What the files of the OpenCL backend share. */
#ifndef ITERA_BACKEND_OPENCL_OPENCL_H
#define ITERA_BACKEND_OPENCL_OPENCL_H

#include "backend/gpu/dispatch.h"
#include "backend/opencl/api.h"

/* A device that can be opened (devices.c). */
struct opencl_found {
    cl_platform_id platform;
    cl_device_id device;
    struct itera_device_info info;
    struct itera_gpu_traits traits;
    uint64_t max_buffer; /* bytes of one buffer */
    bool keeps_binaries; /* see opencl_device */
    bool nvidia;
};

/* Finds up to `capacity` usable devices, in the loader's order; those that will not do, and
 * platforms that fail, are left out, with a warning if `warn`. Returns how many there are. */
int opencl_find(struct opencl_found *found, int capacity, bool warn);

/* The kernel files: those built in, or those of ITERA_KERNEL_DIR (sources.c). */
struct opencl_source {
    char name[64]; /* "elementwise.cl", "args/elementwise.clh" */
    const char *text;
    size_t bytes;
    char *owned; /* text, when it was read from disk */
};
struct opencl_entry {
    char name[64]; /* of a kernel: what follows `kernel void ` at the beginning of a line */
    int file;
};
struct opencl_sources {
    struct opencl_source *files;
    int n;
    struct opencl_entry *kernels; /* by name */
    int n_kernels;
};
enum itera_status opencl_sources_open(struct opencl_sources *sources);
void opencl_sources_close(struct opencl_sources *sources);
/* The file that the kernel is in, or -1. */
int opencl_sources_find(const struct opencl_sources *sources, const char *kernel);
/* The file's text with its includes in their places, each once; to be freed. */
enum itera_status opencl_sources_resolve(const struct opencl_sources *sources, int file,
                                         char **text, size_t *bytes);
/* A hash of all files. */
uint64_t opencl_sources_hash(const struct opencl_sources *sources);

/* One .cl file built with one set of constants. */
struct opencl_program {
    int file;
    char options[512];
    cl_program program;
    /* The kernels that were asked for, and the work items that a group of each may have. */
    struct opencl_kernel {
        char name[64];
        size_t max_local;
    } * kernels;
    int n_kernels;
};

struct opencl_device {
    struct itera_gpu_device gpu;
    const struct opencl_api *cl;
    cl_device_id id;
    cl_context context;
    cl_command_queue queue;
    cl_command_queue profile_queue; /* made when it is first needed: timing every command costs */
    uint64_t max_buffer;
    struct itera_buffer *absent; /* what absent operands are bound to */
    struct opencl_sources sources;
    char identity[384]; /* platform, device and driver */
    struct opencl_program *programs;
    int n_programs, cap_programs;
    bool *broken; /* by file: it did not compile */
    bool nvidia;  /* NVIDIA's own driver */
    bool ptx_dot; /* traits.dot is the instruction of PTX, by inline assembly */
    /* Built programs go to the cache on disk. Not with PoCL, which keeps its kernels itself, and
     * each only once it runs, compiled for that size of group: asked for a binary it compiles all
     * kernels of the program for any size as well, which none is run with. */
    bool keeps_binaries;
};

struct opencl_buffer {
    struct itera_buffer base;
    cl_mem mem;
};

/* Fails with what the device, the call and the error are, and what to do about it. */
enum itera_status opencl_fail(const struct opencl_device *device, const char *call, cl_int error);
/* Whether an error says more than that a kernel cannot be had: a lost device, or full memory. */
bool opencl_is_failure(cl_int error);
/* opencl_fail for those, and for other errors the reason to leave the kernel's op to another device. */
enum itera_status opencl_refuse(const struct opencl_device *device, const char *call, cl_int error,
                                struct itera_reason *why);

/* programs.c */
/* Whether the compiler takes PTX with products of int8 by fours in inline assembly. */
bool opencl_takes_ptx(struct opencl_device *device);
bool opencl_has_kernel(struct itera_gpu_device *device, const char *kernel);
enum itera_status opencl_prepare(struct itera_gpu_device *device,
                                 const struct itera_gpu_dispatch *dispatch,
                                 struct itera_reason *why);
/* A kernel of the dispatch's name and constants, without arguments; builds its program if that has
 * not been done. */
enum itera_status opencl_kernel_create(struct opencl_device *device,
                                       const struct itera_gpu_dispatch *dispatch, cl_kernel *out);
void opencl_programs_close(struct opencl_device *device);

/* Builds the program of a dispatch once more, with one more option, for what the compiler says: to be
 * freed, NULL where it does not build. */
char *opencl_build_log(struct opencl_device *device, const struct itera_gpu_dispatch *dispatch,
                       const char *option);

/* statistics.c: the describe of struct itera_gpu_device. */
enum itera_status opencl_describe_kernel(struct itera_gpu_device *device,
                                         const struct itera_gpu_dispatch *dispatch,
                                         struct itera_kernel_info *info);
/* Takes from NVIDIA's log (-cl-nv-verbose) what it says of one kernel. */
void opencl_read_nvidia_log(const char *log, const char *kernel, struct itera_kernel_info *info);

/* execute.c */
enum itera_status opencl_compile(struct itera_device *device, const struct itera_program *program,
                                 const struct itera_binding *bindings, int n_bindings,
                                 const struct itera_compile_options *options,
                                 struct itera_compile_result *result,
                                 struct itera_executable **out);
void opencl_executable_destroy(struct itera_executable *executable);
enum itera_status opencl_run(struct itera_executable *executable);
/* Puts the program on the device's queue. */
enum itera_status opencl_enqueue(const struct itera_executable *executable);
/* Waits for all of the queue, so that nothing is left on it after an error, and returns the first. */
enum itera_status opencl_finish(const struct opencl_device *device, cl_command_queue queue,
                                enum itera_status status);
enum itera_status opencl_profile(struct itera_executable *executable, double *op_seconds);

/* job.c */
enum itera_status opencl_submit(struct itera_device *device, const struct itera_job *job,
                                struct itera_ticket **ticket);
enum itera_status opencl_collect(struct itera_ticket *ticket, void *data);

#endif
