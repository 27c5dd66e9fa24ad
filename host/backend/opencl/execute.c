/* Compiled programs: a kernel with its arguments set for every dispatch, run in order. */
#include <stdlib.h>
#include <string.h>

#include "args/matmul.clh"
#include "backend/gpu/fault.h"
#include "backend/gpu/plan.h"
#include "backend/opencl/opencl.h"
#include "core/log.h"

/* Kernels enqueued between flushes: the device begins while the host still enqueues. */
enum { FLUSH_EVERY = 64 };

/* One dispatch: a kernel, or a product by CLBlast. */
struct step {
    cl_kernel kernel; /* NULL: gemm */
    size_t global[3], local[3];
    struct opencl_gemm gemm;
    int32_t op;
};

struct opencl_executable {
    struct itera_executable base;
    struct itera_gpu_plan plan;
    struct step *steps;
    int32_t n_steps, n_ops;
};

/* Fills in where the operands begin. */
static enum itera_status place_operands(const struct opencl_device *d,
                                        struct itera_gpu_dispatch *dispatch)
{
    for (int i = 0; i < dispatch->n_bindings; i++) {
        const struct itera_gpu_binding *b = &dispatch->binding[i];
        uint64_t at = b->offset / b->element, end = at + b->bytes / b->element;
        if (end > (uint64_t)UINT32_MAX + 1)
            return itera_fail(ITERA_ERR_LIMIT,
                              "%s (%s): operand %d of kernel %s ends at element %llu of its "
                              "buffer, and kernels count to 2^32; use a smaller batch",
                              d->gpu.base.info.id, d->gpu.base.info.name, i, dispatch->kernel,
                              (unsigned long long)end);
        dispatch->word[b->word] = (uint32_t)at;
    }
    return ITERA_OK;
}

static cl_mem operand(const struct itera_gpu_dispatch *dispatch, int i)
{
    return ((const struct opencl_buffer *)dispatch->binding[i].buffer)->mem;
}

/* "clblast_gemm": a, b and y, then clblast_gemm_args. */
static void prepare_gemm(const struct itera_gpu_dispatch *dispatch, struct opencl_gemm *gemm)
{
    const uint32_t *w = dispatch->word;
    struct clblast_gemm_args p;
    memcpy(&p, w + 6, sizeof p);
    *gemm = (struct opencl_gemm){
        .a = operand(dispatch, 0),
        .b = operand(dispatch, 1),
        .y = operand(dispatch, 2),
        .a_at = w[0],
        .a_ld = w[1],
        .b_at = w[2],
        .b_ld = w[3],
        .y_at = w[4],
        .y_ld = w[5] ? w[5] : p.n, /* scratch is dense */
        .m = p.m,
        .n = p.n,
        .k = p.k,
        .trans_a = p.trans_a,
        .trans_b = p.trans_b,
        .accumulate = p.accumulate,
        .half = dispatch->binding[0].element == 2,
    };
}

static enum itera_status prepare(struct opencl_device *d, struct itera_gpu_dispatch *dispatch,
                                 struct step *step)
{
    step->op = dispatch->op;
    enum itera_status status = place_operands(d, dispatch);
    if (status)
        return status;
    if (!strcmp(dispatch->kernel, "clblast_gemm")) {
        prepare_gemm(dispatch, &step->gemm);
        return ITERA_OK;
    }
    for (int i = 0; i < 3; i++) {
        step->local[i] = dispatch->local[i];
        step->global[i] = (size_t)dispatch->groups[i] * dispatch->local[i];
    }
    status = opencl_kernel_create(d, dispatch, &step->kernel);
    cl_uint n = dispatch->n_bindings;
    for (cl_uint i = 0; !status && i <= n; i++) {
        cl_mem mem = i < n ? operand(dispatch, (int)i) : NULL;
        size_t bytes = i < n ? sizeof mem : dispatch->n_words * sizeof *dispatch->word;
        const void *value = i < n ? (const void *)&mem : dispatch->word;
        cl_int error = bytes ? d->cl->SetKernelArg(step->kernel, i, bytes, value) : CL_SUCCESS;
        if (error)
            status = itera_fail(ITERA_ERR_DEVICE,
                                "%s (%s): clSetKernelArg fails with %s for argument %u of kernel "
                                "%s (%zu bytes): the kernel and its lowering differ",
                                d->gpu.base.info.id, d->gpu.base.info.name,
                                opencl_error_name(error), i, dispatch->kernel, bytes);
    }
    return status;
}

void opencl_executable_destroy(struct itera_executable *base)
{
    struct opencl_executable *e = (struct opencl_executable *)base;
    const struct opencl_device *d = (const struct opencl_device *)base->device;
    for (int32_t i = 0; i < e->n_steps; i++)
        if (e->steps[i].kernel)
            d->cl->ReleaseKernel(e->steps[i].kernel);
    free(e->steps);
    itera_gpu_plan_destroy(&e->plan);
    free(e);
}

enum itera_status opencl_compile(struct itera_device *base, const struct itera_program *program,
                                 const struct itera_binding *bindings, int n_bindings,
                                 const struct itera_compile_options *options,
                                 struct itera_compile_result *result, struct itera_executable **out)
{
    struct opencl_device *d = (struct opencl_device *)base;
    struct opencl_executable *e = calloc(1, sizeof *e);
    if (!e)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for a program", base->info.id);
    e->base.device = base;
    e->n_ops = program->n_ops;
    enum itera_status status = itera_gpu_plan_create(&d->gpu, program, bindings, n_bindings,
                                                     d->absent, options, result, &e->plan);
    if (!status) {
        e->base.memory_bytes = (size_t)e->plan.memory_bytes;
        e->base.n_dispatches = e->plan.n;
        e->base.n_barriers = itera_gpu_plan_barriers(&e->plan);
        e->steps = calloc((size_t)e->plan.n + 1, sizeof *e->steps);
        if (!e->steps)
            status = itera_fail(ITERA_ERR_MEMORY, "%s: no memory for a program", base->info.id);
    }
    for (int32_t i = 0; !status && i < e->plan.n; i++) {
        e->n_steps = i + 1;
        status = prepare(d, &e->plan.dispatches[i], &e->steps[i]);
    }
    if (status) {
        opencl_executable_destroy(&e->base);
        return status;
    }
    *out = &e->base;
    return ITERA_OK;
}

static enum itera_status enqueue(const struct opencl_device *d, const struct step *step,
                                 cl_command_queue queue, cl_event *event)
{
    cl_int error = d->cl->EnqueueNDRangeKernel(queue, step->kernel, 3, NULL, step->global,
                                               step->local, 0, NULL, event);
    return error ? opencl_fail(d, "clEnqueueNDRangeKernel", error) : ITERA_OK;
}

static enum itera_status enqueue_gemm(const struct opencl_device *d, const struct step *step,
                                      cl_command_queue queue)
{
    int error = opencl_clblast_gemm(&step->gemm, queue);
    return error ? opencl_fail(d, "CLBlast's GEMM", error) : ITERA_OK;
}

enum itera_status opencl_finish(const struct opencl_device *d, cl_command_queue queue,
                                enum itera_status status)
{
    cl_int error = d->cl->Finish(queue);
    if (itera_gpu_fault(ITERA_GPU_FAULT_LOST))
        error = CL_DEVICE_NOT_AVAILABLE;
    return error && !status ? opencl_fail(d, "clFinish", error) : status;
}

enum itera_status opencl_enqueue(const struct itera_executable *base)
{
    const struct opencl_executable *e = (const struct opencl_executable *)base;
    const struct opencl_device *d = (const struct opencl_device *)base->device;
    enum itera_status status = ITERA_OK;
    for (int32_t i = 0; !status && i < e->n_steps; i++) {
        const struct step *step = &e->steps[i];
        status = step->kernel ? enqueue(d, step, d->queue, NULL) : enqueue_gemm(d, step, d->queue);
        if (i % FLUSH_EVERY == FLUSH_EVERY - 1)
            d->cl->Flush(d->queue);
    }
    d->cl->Flush(d->queue);
    return status;
}

enum itera_status opencl_run(struct itera_executable *base)
{
    const struct opencl_device *d = (const struct opencl_device *)base->device;
    return opencl_finish(d, d->queue, opencl_enqueue(base));
}

/* Of CLBlast, which runs several kernels, the time between two markers. */
static enum itera_status enqueue_timed(const struct opencl_device *d, const struct step *step,
                                       cl_event event[2])
{
    cl_command_queue queue = d->profile_queue;
    if (step->kernel)
        return enqueue(d, step, queue, &event[0]);
    cl_int error = d->cl->EnqueueMarkerWithWaitList(queue, 0, NULL, &event[0]);
    enum itera_status status = error ? ITERA_OK : enqueue_gemm(d, step, queue);
    if (!error && !status)
        error = d->cl->EnqueueMarkerWithWaitList(queue, 0, NULL, &event[1]);
    return error ? opencl_fail(d, "clEnqueueMarkerWithWaitList", error) : status;
}

static enum itera_status read_time(const struct opencl_device *d, const cl_event event[2],
                                   double *seconds)
{
    cl_ulong start = 0, end = 0;
    cl_int error = d->cl->GetEventProfilingInfo(
        event[0], event[1] ? CL_PROFILING_COMMAND_END : CL_PROFILING_COMMAND_START, sizeof start,
        &start, NULL);
    if (!error)
        error = d->cl->GetEventProfilingInfo(event[1] ? event[1] : event[0],
                                             CL_PROFILING_COMMAND_END, sizeof end, &end, NULL);
    if (error)
        return opencl_fail(d, "clGetEventProfilingInfo", error);
    *seconds += end > start ? (double)(end - start) * 1e-9 : 0;
    return ITERA_OK;
}

enum itera_status opencl_profile(struct itera_executable *base, double *op_seconds)
{
    const struct opencl_executable *e = (const struct opencl_executable *)base;
    struct opencl_device *d = (struct opencl_device *)base->device;
    cl_int error = CL_SUCCESS;
    if (!d->profile_queue)
        d->profile_queue =
            d->cl->CreateCommandQueue(d->context, d->id, CL_QUEUE_PROFILING_ENABLE, &error);
    if (error) {
        d->profile_queue = NULL;
        return opencl_fail(d, "clCreateCommandQueue", error);
    }
    cl_event(*events)[2] = calloc((size_t)e->n_steps + 1, sizeof *events);
    if (!events)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for a profile", base->device->info.id);
    /* The other queue may have jobs, which this one would not wait for. */
    enum itera_status status = opencl_finish(d, d->queue, ITERA_OK);
    for (int32_t i = 0; !status && i < e->n_steps; i++)
        status = enqueue_timed(d, &e->steps[i], events[i]);
    status = opencl_finish(d, d->profile_queue, status);
    memset(op_seconds, 0, (size_t)e->n_ops * sizeof *op_seconds);
    for (int32_t i = 0; i < e->n_steps; i++) {
        if (!status)
            status = read_time(d, events[i], &op_seconds[e->steps[i].op]);
        for (int k = 0; k < 2; k++)
            if (events[i][k])
                d->cl->ReleaseEvent(events[i][k]);
    }
    free(events);
    return status;
}
