/* From a program to something that a device runs: bindings are checked, what the device lacks is refused
 * or left to the CPU, and the rest is the backend's. */
#include "backend/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"

enum itera_status itera_supports(struct itera_device *device, const struct itera_program *program,
                                 const struct itera_op *op, struct itera_reason *why)
{
    return device->backend->supports(device, program, op, why);
}

static enum itera_status check_bindings(const struct itera_device *device,
                                        const struct itera_program *p,
                                        const struct itera_binding *bindings, int n)
{
    enum itera_status status = ITERA_OK;
    uint8_t *bound = calloc((size_t)p->n_tensors + 1, 1);
    if (!bound)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to compile a program");
    for (int i = 0; i < n && !status; i++) {
        const struct itera_binding *b = &bindings[i];
        if (b->tensor < 0 || b->tensor >= p->n_tensors || !b->buffer ||
            p->tensors[b->tensor].kind != ITERA_BOUND || p->tensors[b->tensor].base != b->tensor) {
            status = itera_fail(ITERA_ERR_ARGUMENT, "binding %d names no bound tensor", i);
            break;
        }
        const struct itera_tensor *t = &p->tensors[b->tensor];
        size_t bytes = itera_dtype_bytes(t->dtype, itera_shape_span(&t->shape));
        if (bound[b->tensor]++)
            status = itera_fail(ITERA_ERR_ARGUMENT, "tensor %s is bound twice", t->name);
        else if (b->buffer->device != device || b->offset % 4 || b->offset > b->buffer->bytes ||
                 bytes > b->buffer->bytes - b->offset)
            status = itera_fail(ITERA_ERR_ARGUMENT,
                                "tensor %s (%zu bytes at %zu) does not fit its buffer of %zu bytes",
                                t->name, bytes, b->offset, b->buffer->bytes);
    }
    for (int32_t t = 0; t < p->n_tensors && !status; t++)
        if (p->tensors[t].kind == ITERA_BOUND && p->tensors[t].base == t && !bound[t])
            status = itera_fail(ITERA_ERR_ARGUMENT, "tensor %s is not bound to a buffer",
                                p->tensors[t].name);
    free(bound);
    return status;
}

/* The ops of a program that a device lacks. */
struct missing {
    bool kind[ITERA_OP_COUNT];
    int n;                     /* kinds */
    struct itera_reason first; /* why the first of them */
};

/* Finds what the device lacks, and says so of each kind once, unless that is to be an error. */
static enum itera_status find_missing(struct itera_device *device, const struct itera_program *p,
                                      struct missing *missing)
{
    for (int32_t i = 0; i < p->n_ops; i++) {
        enum itera_op_kind kind = p->ops[i].kind;
        struct itera_reason why;
        if (missing->kind[kind])
            continue;
        enum itera_status status = itera_supports(device, p, &p->ops[i], &why);
        if (!status)
            continue;
        if (status != ITERA_ERR_UNSUPPORTED)
            return status;
        if (missing->n++ == 0)
            missing->first = why;
        if (device->fallback == ITERA_FALLBACK_REPORT && !device->fell_back[kind])
            itera_log(ITERA_LOG_WARNING, "%s: %s runs on the CPU (%.120s)", device->info.id,
                      itera_op_info(kind)->name, why.text);
        missing->kind[kind] = true;
    }
    return ITERA_OK;
}

static enum itera_status refuse(const struct itera_device *device, const struct missing *missing)
{
    char names[256] = "";
    size_t used = 0;
    for (int kind = 0; kind < ITERA_OP_COUNT && used < sizeof names; kind++)
        if (missing->kind[kind])
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "",
                                     itera_op_info((enum itera_op_kind)kind)->name);
    return itera_fail(ITERA_ERR_UNSUPPORTED,
                      "%s cannot compute %s (%.255s); with the fallback policy \"report\" the CPU "
                      "does",
                      device->info.id, names, missing->first.text);
}

/* A device is tuned for what it meets; software drivers only when they are asked to be. */
static bool tunes_itself(const struct itera_device *device,
                         const struct itera_compile_options *options)
{
    return device->backend->tune && device->info.type != ITERA_DEVICE_SOFTWARE &&
           !options->force_choice;
}

enum itera_status itera_compile(struct itera_device *device, const struct itera_program *program,
                                const struct itera_binding *bindings, int n_bindings,
                                const struct itera_compile_options *options,
                                struct itera_compile_result *result, struct itera_executable **out)
{
    static const struct itera_compile_options defaults;
    struct itera_compile_result unused;
    if (!options)
        options = &defaults;
    if (!result)
        result = &unused;
    *result = (struct itera_compile_result){0};
    *out = NULL;
    if (program->status)
        return program->status;
    enum itera_status status = check_bindings(device, program, bindings, n_bindings);
    if (status)
        return status;
    struct missing missing = {.n = 0};
    const size_t before = device->allocated;
    status = find_missing(device, program, &missing);
    if (!status && missing.n && device->fallback == ITERA_FALLBACK_REFUSE)
        status = refuse(device, &missing);
    if (!status && tunes_itself(device, options))
        status = device->backend->tune(device, program);
    if (status)
        return status;
    if (missing.n) {
        for (int kind = 0; kind < ITERA_OP_COUNT; kind++)
            device->fell_back[kind] |= missing.kind[kind];
        status =
            itera_fallback_compile(device, program, bindings, n_bindings, options, result, out);
    } else {
        status =
            device->backend->compile(device, program, bindings, n_bindings, options, result, out);
        if (!status)
            (*out)->runner = device->backend;
    }
    if (!status) { /* some of its memory may be buffers, which were counted already */
        const size_t buffers = device->allocated - before, own = (*out)->memory_bytes;
        (*out)->counted_bytes = own > buffers ? own - buffers : 0;
        device->allocated += (*out)->counted_bytes;
    }
    return status;
}

void itera_executable_destroy(struct itera_executable **executable)
{
    if (*executable) {
        (*executable)->device->allocated -= (*executable)->counted_bytes;
        (*executable)->runner->executable_destroy(*executable);
    }
    *executable = NULL;
}

enum itera_status itera_run(struct itera_executable *executable)
{
    return executable->runner->run(executable);
}

enum itera_status itera_profile(struct itera_executable *executable, double *op_seconds)
{
    return executable->runner->profile(executable, op_seconds);
}

bool itera_can_submit(const struct itera_executable *executable)
{
    return executable->runner->submit != NULL;
}

/* A job that was done at once. */
struct done_ticket {
    struct itera_ticket base;
    uint8_t data[];
};

static enum itera_status run_job(const struct itera_job *job, void *data)
{
    enum itera_status status = ITERA_OK;
    for (int i = 0; i < job->n_uploads && !status; i++)
        status = itera_buffer_upload(job->upload[i].buffer, job->upload[i].offset,
                                     job->upload[i].data, job->upload[i].bytes);
    for (int i = 0; i < job->n_runs && !status; i++)
        status = itera_run(job->run[i]);
    return status || !job->bytes ? status
                                 : itera_buffer_download(job->from, job->offset, data, job->bytes);
}

enum itera_status itera_submit(const struct itera_job *job, struct itera_ticket **ticket)
{
    struct itera_device *device = job->run[0]->device;
    bool queued = true;
    for (int i = 0; i < job->n_runs; i++)
        queued = queued && itera_can_submit(job->run[i]);
    *ticket = NULL;
    enum itera_status status;
    if (queued) {
        status = device->backend->submit(device, job, ticket);
    } else {
        struct done_ticket *done = malloc(sizeof *done + job->bytes);
        status = done ? run_job(job, done->data)
                      : itera_fail(ITERA_ERR_MEMORY, "%s: no memory for a run", device->info.id);
        if (status)
            free(done);
        else
            *ticket = &done->base;
    }
    if (!status)
        **ticket = (struct itera_ticket){.device = device, .bytes = job->bytes, .done = !queued};
    return status;
}

enum itera_status itera_collect(struct itera_ticket **ticket, void *data)
{
    struct itera_ticket *t = *ticket;
    *ticket = NULL;
    if (!t)
        return ITERA_OK;
    if (!t->done)
        return t->device->backend->collect(t, data);
    if (data)
        memcpy(data, ((struct done_ticket *)t)->data, t->bytes);
    free(t);
    return ITERA_OK;
}
