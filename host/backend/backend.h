/* The backend interface: the few functions that a backend implements, and the front end that the
 * rest of the library calls (it validates; backends may trust their arguments). Nothing here knows
 * any op: a new op never edits a backend's device code. */
#ifndef ITERA_BACKEND_BACKEND_H
#define ITERA_BACKEND_BACKEND_H

#include "core/log.h"
#include "itera/kernels.h"
#include "program/program.h"

/* Memory of a device. Backends extend it by putting it first in their own struct. */
struct itera_buffer {
    struct itera_device *device;
    size_t bytes;
};

/* Where a bound tensor lives: element 0 at `offset` bytes of buffer. */
struct itera_binding {
    int32_t tensor;
    struct itera_buffer *buffer;
    size_t offset; /* bytes, a multiple of 4 */
};

/* How a program is compiled. Zeros, and NULL for the struct, are what runs want. */
struct itera_compile_options {
    /* Parity checks: even the smallest op is shared by all threads, and program memory is full of
     * NaN at first. */
    bool checking;
    /* GPU devices, for parity checks and tuning: every op that can be computed in several ways takes
     * way force_choice - 1 where that serves it; 0: the best. */
    int force_choice;
    /* GPU devices, for parity checks: every op by itself, none of them in chains. */
    bool apart;
};

/* What compiling a program found, also where it failed. */
struct itera_compile_result {
    int n_choices;        /* the most ways that an op has on the device; 0: none has a choice */
    char choice_name[32]; /* of the way that was forced, "" when no op could take it */
    bool half;            /* an op rounds operands to f16 (attr.half) */
    int n_chains;         /* of ops that are computed together */
};

/* A program compiled for a device with its buffers bound. */
struct itera_executable {
    struct itera_device *device;
    const struct itera_backend *runner; /* set by itera_compile: whose run, profile and
                                           executable_destroy are called */
    size_t memory_bytes;                /* of the program's own memory: activations and scratch */
    int32_t n_dispatches,
        n_barriers;       /* of one run on a GPU: what is launched, and how often it waits
                                         for what was launched before; 0 on the CPU */
    size_t counted_bytes; /* of these in the device's `allocated`: set by itera_compile */
};

/* What is queued at once, and runs in this order: uploads, programs of one device, one copy back. */
enum { ITERA_JOB_UPLOADS = 4, ITERA_JOB_RUNS = 3 };
struct itera_job {
    struct {
        struct itera_buffer *buffer;
        size_t offset, bytes;
        const void *data; /* copied before itera_submit returns */
    } upload[ITERA_JOB_UPLOADS];
    struct itera_executable *run[ITERA_JOB_RUNS]; /* at least one */
    int n_uploads, n_runs;
    struct itera_buffer *from; /* what is copied back; NULL: nothing */
    size_t offset, bytes;
};
/* A job that was queued. Backends extend it by putting it first in their own struct. */
struct itera_ticket {
    struct itera_device *device;
    size_t bytes; /* that come back */
    bool done;    /* before it was given out, by the front end */
};

struct itera_backend {
    const char *name;
    /* Appends what there is to infos (capacity entries), and counts it. A missing driver is no
     * error: *count stays 0. */
    enum itera_status (*list)(struct itera_device_info *infos, int capacity, int *count);
    enum itera_status (*open)(int index, const struct itera_device_options *options,
                              struct itera_device **out);
    void (*close)(struct itera_device *device);
    enum itera_status (*buffer_create)(struct itera_device *device, size_t bytes,
                                       struct itera_buffer **out);
    void (*buffer_destroy)(struct itera_buffer *buffer);
    /* Synchronous: on return the host memory may be reused, the device's content is there. */
    enum itera_status (*upload)(struct itera_buffer *buffer, size_t offset, const void *data,
                                size_t bytes);
    enum itera_status (*download)(struct itera_buffer *buffer, size_t offset, void *data,
                                  size_t bytes);
    /* See itera_supports. */
    enum itera_status (*supports)(struct itera_device *device, const struct itera_program *program,
                                  const struct itera_op *op, struct itera_reason *why);
    /* The program, and every bound buffer, must outlive the executable. Options and result are not
     * NULL; what is found is added to the result, of which the program may be a part. */
    enum itera_status (*compile)(struct itera_device *device, const struct itera_program *program,
                                 const struct itera_binding *bindings, int n_bindings,
                                 const struct itera_compile_options *options,
                                 struct itera_compile_result *result,
                                 struct itera_executable **out);
    void (*executable_destroy)(struct itera_executable *executable);
    /* Runs to completion. */
    enum itera_status (*run)(struct itera_executable *executable);
    /* See itera_submit, itera_collect; NULL where runs cannot be queued. What else is asked of the
     * device waits for the jobs that are queued. Of a job that cannot be queued, nothing is left on the
     * queue; a part of it may have run. */
    enum itera_status (*submit)(struct itera_device *device, const struct itera_job *job,
                                struct itera_ticket **ticket);
    enum itera_status (*collect)(struct itera_ticket *ticket, void *data);
    /* Runs once and gives the seconds of each op (n_ops of the program). */
    enum itera_status (*profile)(struct itera_executable *executable, double *op_seconds);
    /* Measures, for each op of the program that the device can compute in several ways and that was
     * not measured yet, which way is the fastest, and keeps that. With program NULL, forgets what
     * was measured. A backend without such choices has NULL here. */
    enum itera_status (*tune)(struct itera_device *device, const struct itera_program *program);
    /* Adds to the list the kernels that the ops of a program take, each once, with what the driver
     * made of them: those of the device's choice, or with `every_way` those of all ways. used_by: the
     * preset that the program is of; NULL: none. Ops that the device lacks are left out. NULL where
     * kernels are not compiled. */
    enum itera_status (*kernels)(struct itera_device *device, const struct itera_program *program,
                                 const char *ops, bool every_way, const char *used_by,
                                 struct itera_kernel_list *list);
};

struct itera_call;

/* The base of a backend's device struct. */
struct itera_device {
    const struct itera_backend *backend;
    struct itera_device_info info;
    int threads;
    int host_threads; /* as threads, of `host` */
    enum itera_fallback fallback;
    struct itera_device *host; /* the CPU, opened when an op first falls back to it */
    bool fell_back[ITERA_OP_COUNT];
    size_t allocated; /* bytes of buffers and of executables that are alive */
    /* The CPU with one thread, for parity checks: called with what each op has just computed. */
    void (*after_op)(void *user, const struct itera_call *call);
    void *after_op_user;
    /* GPU devices, for parity checks: how lanes are numbered in kernels, of enum itera_check_lanes. A
     * device keeps its kernels, so that this is set once, before the first program. */
    int lane_order;
};

/* Compiles a program of which the device has not all ops: the others run on the CPU, on copies of
 * their operands. backend/fallback.c. */
enum itera_status itera_fallback_compile(struct itera_device *device,
                                         const struct itera_program *program,
                                         const struct itera_binding *bindings, int n_bindings,
                                         const struct itera_compile_options *options,
                                         struct itera_compile_result *result,
                                         struct itera_executable **out);

extern const struct itera_backend itera_backend_cpu;
extern const struct itera_backend itera_backend_vulkan; /* ITERA_HAVE_VULKAN */
extern const struct itera_backend itera_backend_opencl; /* ITERA_HAVE_OPENCL */

enum itera_status itera_buffer_create(struct itera_device *device, size_t bytes,
                                      struct itera_buffer **out); /* content is zero */
void itera_buffer_destroy(struct itera_buffer **buffer);
enum itera_status itera_buffer_upload(struct itera_buffer *buffer, size_t offset, const void *data,
                                      size_t bytes);
enum itera_status itera_buffer_download(struct itera_buffer *buffer, size_t offset, void *data,
                                        size_t bytes);

/* Whether the device has a kernel for the op with these operands: ITERA_OK, or ITERA_ERR_UNSUPPORTED
 * with the reason in `why` (which may be NULL). That is an answer, and no error was reported; any other
 * status is a failure as of any call. */
enum itera_status itera_supports(struct itera_device *device, const struct itera_program *program,
                                 const struct itera_op *op, struct itera_reason *why);
/* Every ITERA_BOUND tensor that is not a view must be bound once and fit its buffer. Options may be
 * NULL, and so may the result. */
enum itera_status itera_compile(struct itera_device *device, const struct itera_program *program,
                                const struct itera_binding *bindings, int n_bindings,
                                const struct itera_compile_options *options,
                                struct itera_compile_result *result, struct itera_executable **out);
void itera_executable_destroy(struct itera_executable **executable);
enum itera_status itera_run(struct itera_executable *executable);
enum itera_status itera_profile(struct itera_executable *executable, double *op_seconds);

/* Whether jobs of this program are queued: it runs on one device, which takes work ahead. Others are
 * done when itera_submit returns. */
bool itera_can_submit(const struct itera_executable *executable);
/* Queues a job behind what was queued before, and returns while the device works. Each ticket is
 * collected once, before the executables and buffers of its job are destroyed. */
enum itera_status itera_submit(const struct itera_job *job, struct itera_ticket **ticket);
/* Waits for the job, hands out what it copied back, and ends the ticket, also after an error. With data
 * NULL the job is forgotten, and so is its error. *ticket may be NULL: nothing. */
enum itera_status itera_collect(struct itera_ticket **ticket, void *data);

#endif
