/* Jobs: uploads, programs and a copy back that the host does not wait for. The device's queue keeps
 * their order, and that of all that is asked of the device otherwise. */
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/fault.h"
#include "backend/opencl/opencl.h"
#include "core/log.h"

struct ticket {
    struct itera_ticket base;
    cl_event done;
    uint8_t *memory; /* what is copied back, then what the uploads are read from */
};

static void destroy(const struct opencl_device *d, struct ticket *t)
{
    if (t->done)
        d->cl->ReleaseEvent(t->done);
    free(t->memory);
    free(t);
}

static enum itera_status enqueue(const struct opencl_device *d, const struct itera_job *job,
                                 struct ticket *t)
{
    size_t at = job->bytes;
    cl_int error = CL_SUCCESS;
    for (int i = 0; i < job->n_uploads; i++) {
        const size_t bytes = job->upload[i].bytes;
        const struct opencl_buffer *to = (const struct opencl_buffer *)job->upload[i].buffer;
        memcpy(t->memory + at, job->upload[i].data, bytes);
        error = d->cl->EnqueueWriteBuffer(d->queue, to->mem, CL_FALSE, job->upload[i].offset, bytes,
                                          t->memory + at, 0, NULL, NULL);
        if (error)
            return opencl_fail(d, "clEnqueueWriteBuffer", error);
        at += bytes;
    }
    for (int i = 0; i < job->n_runs; i++) {
        const enum itera_status status = opencl_enqueue(job->run[i]);
        if (status)
            return status;
    }
    if (job->bytes) {
        const struct opencl_buffer *from = (const struct opencl_buffer *)job->from;
        error = d->cl->EnqueueReadBuffer(d->queue, from->mem, CL_FALSE, job->offset, job->bytes,
                                         t->memory, 0, NULL, &t->done);
    } else {
        error = d->cl->EnqueueMarkerWithWaitList(d->queue, 0, NULL, &t->done);
    }
    if (error)
        return opencl_fail(d, "clEnqueueReadBuffer", error);
    d->cl->Flush(d->queue);
    return ITERA_OK;
}

enum itera_status opencl_submit(struct itera_device *device, const struct itera_job *job,
                                struct itera_ticket **ticket)
{
    const struct opencl_device *d = (const struct opencl_device *)device;
    size_t bytes = job->bytes;
    for (int i = 0; i < job->n_uploads; i++)
        bytes += job->upload[i].bytes;
    struct ticket *t = calloc(1, sizeof *t);
    if (t)
        t->memory = malloc(bytes + 1);
    if (!t || !t->memory) {
        free(t);
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory to queue a run", device->info.id);
    }
    enum itera_status status = enqueue(d, job, t);
    if (status) {
        status = opencl_finish(d, d->queue, status);
        destroy(d, t);
        return status;
    }
    *ticket = &t->base;
    return ITERA_OK;
}

enum itera_status opencl_collect(struct itera_ticket *base, void *data)
{
    struct ticket *t = (struct ticket *)base;
    const struct opencl_device *d = (const struct opencl_device *)base->device;
    cl_int error = d->cl->WaitForEvents(1, &t->done);
    if (itera_gpu_fault(ITERA_GPU_FAULT_LOST))
        error = CL_DEVICE_NOT_AVAILABLE;
    enum itera_status status = ITERA_OK;
    if (data && error)
        status = opencl_fail(d, "clWaitForEvents", error);
    else if (data)
        memcpy(data, t->memory, base->bytes);
    if (error) /* its memory may still be written to */
        d->cl->Finish(d->queue);
    destroy(d, t);
    return status;
}
