/* Programs that a device cannot run by itself. Runs of ops that it has are compiled for it as they
 * are; every other op is a program of its own on the CPU, with copies of its operands: they are
 * downloaded before it, and what it wrote is uploaded after. Activations live in one buffer of the
 * device, so that all parts see them. */
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "core/clock.h"
#include "core/log.h"
#include "program/plan.h"

/* A CPU operand: where it lives on the device, and its copy. */
struct mirror {
    struct itera_buffer *device, *host;
    size_t offset, bytes;
    bool written;
};

struct part {
    struct itera_program program; /* a window on the ops of the whole one */
    struct itera_executable *executable;
    struct mirror *mirrors; /* NULL: the part runs on the device */
    int n_mirrors;
    void *staging; /* as large as the largest mirror */
};

struct mixed_executable {
    struct itera_executable base;
    struct itera_tensor *tensors; /* the program's, with activations bound to `memory` */
    struct itera_binding *bindings;
    int n_bindings;
    struct itera_buffer *memory;
    struct part *parts;
    int32_t n_parts;
};

static const struct itera_backend mixed_backend;

static void destroy_part(struct part *part)
{
    if (part->executable)
        part->executable->device->backend->executable_destroy(part->executable);
    for (int i = 0; i < part->n_mirrors; i++)
        itera_buffer_destroy(&part->mirrors[i].host);
    free(part->mirrors);
    free(part->staging);
}

static void mixed_destroy(struct itera_executable *base)
{
    struct mixed_executable *e = (struct mixed_executable *)base;
    for (int32_t i = 0; i < e->n_parts; i++)
        destroy_part(&e->parts[i]);
    itera_buffer_destroy(&e->memory);
    free(e->parts);
    free(e->bindings);
    free(e->tensors);
    free(e);
}

/* Gives every activation a place in e->memory, and binds it there. */
static enum itera_status bind_activations(struct mixed_executable *e, const struct itera_program *p)
{
    struct itera_plan plan = {0};
    enum itera_status status = itera_plan_create(p, 256, NULL, &plan);
    if (!status && plan.bytes)
        status = itera_buffer_create(e->base.device, (size_t)plan.bytes, &e->memory);
    for (int32_t t = 0; t < p->n_tensors && !status; t++) {
        if (plan.offset[t] < 0)
            continue;
        e->bindings[e->n_bindings++] = (struct itera_binding){t, e->memory, (size_t)plan.offset[t]};
        e->tensors[t].kind = ITERA_BOUND;
    }
    e->base.memory_bytes = (size_t)plan.bytes;
    itera_plan_destroy(&plan);
    return status;
}

static const struct itera_binding *find_binding(const struct mixed_executable *e, int32_t base)
{
    for (int i = 0; i < e->n_bindings; i++)
        if (e->bindings[i].tensor == base)
            return &e->bindings[i];
    return NULL;
}

static enum itera_status add_mirror(struct mixed_executable *e, struct part *part, int32_t base,
                                    struct itera_binding *host)
{
    const struct itera_binding *home = find_binding(e, base);
    const struct itera_shape *s = &e->tensors[base].shape;
    struct mirror *m = &part->mirrors[part->n_mirrors];
    *m = (struct mirror){.device = home->buffer, .offset = home->offset};
    m->bytes = itera_dtype_bytes(e->tensors[base].dtype, itera_shape_span(s));
    enum itera_status status = itera_buffer_create(e->base.device->host, m->bytes, &m->host);
    if (!status)
        *host = (struct itera_binding){base, m->host, 0};
    part->n_mirrors += !status;
    return status;
}

/* How the whole program is compiled, for its parts. */
struct request {
    const struct itera_compile_options *options;
    struct itera_compile_result *result;
};

/* One op on the CPU. */
static enum itera_status compile_on_host(struct mixed_executable *e, const struct request *request,
                                         struct part *part)
{
    enum { OPERANDS = ITERA_MAX_IN + ITERA_MAX_OUT };
    struct itera_device *host = e->base.device->host;
    const struct itera_op *op = part->program.ops;
    const struct itera_op_info *info = itera_op_info(op->kind);
    struct itera_binding bindings[OPERANDS];
    enum itera_status status = ITERA_OK;
    size_t largest = 0;
    part->mirrors = calloc(OPERANDS, sizeof *part->mirrors);
    if (!part->mirrors)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to compile a program");
    for (int k = 0; k < OPERANDS && !status; k++) {
        int32_t id = k < ITERA_MAX_IN ? op->in[k] : op->out[k - ITERA_MAX_IN];
        if (id < 0)
            continue;
        bool written = k >= ITERA_MAX_IN || (info->written_in >> k & 1);
        int32_t base = e->tensors[id].base;
        int i = 0;
        while (i < part->n_mirrors && bindings[i].tensor != base)
            i++;
        if (i == part->n_mirrors)
            status = add_mirror(e, part, base, &bindings[i]);
        if (status)
            break;
        part->mirrors[i].written |= written;
        if (part->mirrors[i].bytes > largest)
            largest = part->mirrors[i].bytes;
    }
    if (!status && !(part->staging = malloc(largest + 1)))
        status = itera_fail(ITERA_ERR_MEMORY, "no memory to compile a program");
    if (!status)
        status = host->backend->compile(host, &part->program, bindings, part->n_mirrors,
                                        request->options, request->result, &part->executable);
    return status;
}

static enum itera_status compile_part(struct mixed_executable *e, const struct itera_program *p,
                                      int32_t first, int32_t n, bool on_host,
                                      const struct request *request)
{
    struct itera_device *device = e->base.device;
    struct part *part = &e->parts[e->n_parts++];
    part->program = *p;
    part->program.tensors = e->tensors;
    part->program.ops = p->ops + first;
    part->program.n_ops = n;
    enum itera_status status =
        on_host ? compile_on_host(e, request, part)
                : device->backend->compile(device, &part->program, e->bindings, e->n_bindings,
                                           request->options, request->result, &part->executable);
    if (!status)
        e->base.memory_bytes += part->executable->memory_bytes;
    return status;
}

static enum itera_status lacks(struct itera_device *device, const struct itera_program *p,
                               int32_t op, bool *lacks)
{
    enum itera_status status = itera_supports(device, p, &p->ops[op], NULL);
    *lacks = status != ITERA_OK;
    return status == ITERA_ERR_UNSUPPORTED ? ITERA_OK : status;
}

enum itera_status itera_fallback_compile(struct itera_device *device, const struct itera_program *p,
                                         const struct itera_binding *bindings, int n_bindings,
                                         const struct itera_compile_options *options,
                                         struct itera_compile_result *result,
                                         struct itera_executable **out)
{
    const struct request request = {options, result};
    enum itera_status status = ITERA_OK;
    if (!device->host)
        status = itera_device_open(
            "cpu", &(struct itera_device_options){.threads = device->host_threads}, &device->host);
    if (status)
        return status;
    size_t n_tensors = (size_t)p->n_tensors;
    struct mixed_executable *e = calloc(1, sizeof *e);
    if (e) {
        e->base = (struct itera_executable){.device = device, .runner = &mixed_backend};
        e->tensors = malloc((n_tensors + 1) * sizeof *e->tensors);
        e->bindings = calloc((size_t)n_bindings + n_tensors + 1, sizeof *e->bindings);
        e->parts = calloc((size_t)p->n_ops + 1, sizeof *e->parts);
    }
    if (!e || !e->tensors || !e->bindings || !e->parts) {
        if (e)
            mixed_destroy(&e->base);
        return itera_fail(ITERA_ERR_MEMORY, "no memory to compile a program");
    }
    memcpy(e->tensors, p->tensors, n_tensors * sizeof *e->tensors);
    memcpy(e->bindings, bindings, (size_t)n_bindings * sizeof *bindings);
    e->n_bindings = n_bindings;
    status = bind_activations(e, p);
    for (int32_t t = 0; t < p->n_tensors; t++) /* views are what their bases are */
        e->tensors[t].kind = e->tensors[e->tensors[t].base].kind;
    for (int32_t i = 0, n; i < p->n_ops && !status; i += n) {
        bool on_host, next;
        status = lacks(device, p, i, &on_host);
        for (n = 1, next = on_host; !status && !next && i + n < p->n_ops; n += !next)
            status = lacks(device, p, i + n, &next);
        if (!status)
            status = compile_part(e, p, i, n, on_host, &request);
    }
    if (status) {
        mixed_destroy(&e->base);
        return status;
    }
    *out = &e->base;
    return ITERA_OK;
}

/* Copies a mirror between device and host. */
static enum itera_status copy(const struct part *part, const struct mirror *m, bool to_host)
{
    if (!m->bytes)
        return ITERA_OK;
    enum itera_status status =
        to_host ? itera_buffer_download(m->device, m->offset, part->staging, m->bytes)
                : itera_buffer_download(m->host, 0, part->staging, m->bytes);
    if (status)
        return status;
    return to_host ? itera_buffer_upload(m->host, 0, part->staging, m->bytes)
                   : itera_buffer_upload(m->device, m->offset, part->staging, m->bytes);
}

static enum itera_status run_part(const struct part *part)
{
    enum itera_status status = ITERA_OK;
    /* What is written is fetched too: the op may leave some of it as it was. */
    for (int i = 0; i < part->n_mirrors && !status; i++)
        status = copy(part, &part->mirrors[i], true);
    if (!status)
        status = part->executable->device->backend->run(part->executable);
    for (int i = 0; i < part->n_mirrors && !status; i++)
        if (part->mirrors[i].written)
            status = copy(part, &part->mirrors[i], false);
    return status;
}

static enum itera_status mixed_run(struct itera_executable *base)
{
    struct mixed_executable *e = (struct mixed_executable *)base;
    enum itera_status status = ITERA_OK;
    for (int32_t i = 0; i < e->n_parts && !status; i++)
        status = run_part(&e->parts[i]);
    return status;
}

/* An op on the CPU is charged with its copies. */
static enum itera_status mixed_profile(struct itera_executable *base, double *op_seconds)
{
    struct mixed_executable *e = (struct mixed_executable *)base;
    enum itera_status status = ITERA_OK;
    for (int32_t i = 0; i < e->n_parts && !status; i++) {
        struct part *part = &e->parts[i];
        if (part->mirrors) {
            double start = itera_seconds();
            status = run_part(part);
            *op_seconds = itera_seconds() - start;
        } else {
            status = part->executable->device->backend->profile(part->executable, op_seconds);
        }
        op_seconds += part->program.n_ops;
    }
    return status;
}

static const struct itera_backend mixed_backend = {
    .name = "mixed",
    .executable_destroy = mixed_destroy,
    .run = mixed_run,
    .profile = mixed_profile,
};
