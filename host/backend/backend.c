#include "backend/backend.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/probe.h"
#include "core/log.h"

/* In the order in which "auto" prefers their devices of one type. */
static const struct itera_backend *const backends[] = {
    &itera_backend_cpu,
#ifdef ITERA_HAVE_VULKAN
    &itera_backend_vulkan,
#endif
#ifdef ITERA_HAVE_OPENCL
    &itera_backend_opencl,
#endif
};
enum { BACKENDS = sizeof backends / sizeof *backends, MAX_DEVICES = 64 };

const char *itera_device_type_name(enum itera_device_type type)
{
    static const char *const names[] = {"cpu", "igpu", "gpu", "software"};
    return (unsigned)type < 4 ? names[type] : "?";
}

/* What this process knows of each backend's drivers. */
static struct {
    atomic_bool loaded; /* they are in this process, for a device was asked for by name */
    atomic_bool broken; /* a probe of them failed: not tried again */
} drivers[BACKENDS];

/* Drivers are code of others, which may crash, hang, start threads and change this process when it
 * is loaded: only a device that is wanted by its name, or was chosen, is worth that. */
static enum itera_status list_backend(int i, bool by_name, struct itera_device_info *infos,
                                      int capacity, int *count)
{
    *count = 0;
    if (backends[i] == &itera_backend_cpu)
        return backends[i]->list(infos, capacity, count);
    if (by_name)
        atomic_store(&drivers[i].loaded, true);
    if (atomic_load(&drivers[i].loaded))
        return backends[i]->list(infos, capacity, count);
    if (atomic_load(&drivers[i].broken))
        return ITERA_OK;
    enum itera_status status =
        itera_probe(backends[i], ITERA_PROBE_SECONDS, infos, capacity, count);
    if (status != ITERA_ERR_DEVICE)
        return status;
    atomic_store(&drivers[i].broken, true);
    return ITERA_OK;
}

/* Lists the devices of every backend, or of the one that the id names: drivers are not loaded for
 * nothing. */
static enum itera_status list(const char *id, struct itera_device_info **infos, int *count)
{
    *count = 0;
    *infos = calloc(MAX_DEVICES, sizeof **infos);
    if (!*infos)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to list the devices");
    for (int i = 0; i < BACKENDS; i++) {
        int n = 0;
        if (id && strncmp(id, backends[i]->name, strlen(backends[i]->name)) != 0)
            continue;
        enum itera_status status =
            list_backend(i, id != NULL, *infos + *count, MAX_DEVICES - *count, &n);
        if (status) {
            free(*infos);
            *infos = NULL;
            *count = 0;
            return status;
        }
        *count += n;
    }
    return ITERA_OK;
}

enum itera_status itera_devices(struct itera_device_info **infos, int *count)
{
    return list(NULL, infos, count);
}

/* A real GPU first, then an integrated one, then the CPU; software drivers only by name. */
static int preference(enum itera_device_type type)
{
    switch (type) {
    case ITERA_DEVICE_GPU:
        return 3;
    case ITERA_DEVICE_IGPU:
        return 2;
    case ITERA_DEVICE_CPU:
        return 1;
    case ITERA_DEVICE_SOFTWARE:
        break;
    }
    return 0;
}

static enum itera_status no_such_device(const char *id)
{
    struct itera_device_info *infos;
    int count;
    enum itera_status status = itera_devices(&infos, &count);
    if (status)
        return status;
    char known[512] = "";
    size_t used = 0;
    for (int i = 0; i < count && used + 40 < sizeof known; i++)
        used +=
            (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", infos[i].id);
    free(infos);
    return itera_fail(ITERA_ERR_DEVICE, "there is no device '%s' here; there is: %s", id, known);
}

enum itera_status itera_device_open(const char *id, const struct itera_device_options *options,
                                    struct itera_device **device)
{
    *device = NULL;
    struct itera_device_info *infos;
    int count;
    bool automatic = !id || !strcmp(id, "auto");
    enum itera_status status = list(automatic ? NULL : id, &infos, &count);
    if (status)
        return status;
    const struct itera_device_info *chosen = NULL;
    for (int i = 0; i < count; i++) {
        if (automatic) {
            if (!chosen || preference(infos[i].type) > preference(chosen->type))
                chosen = &infos[i];
        } else if (!strcmp(infos[i].id, id)) {
            chosen = &infos[i];
        }
    }
    if (!chosen)
        status = no_such_device(id);
    for (int i = 0; chosen && i < BACKENDS; i++) {
        if (strcmp(backends[i]->name, chosen->backend))
            continue;
        const char *colon = strchr(chosen->id, ':');
        struct itera_device_options defaults = {0};
        if (!options)
            options = &defaults;
        atomic_store(&drivers[i].loaded, true);
        status = backends[i]->open(colon ? atoi(colon + 1) : 0, options, device);
        if (!status) {
            (*device)->fallback = options->fallback;
            (*device)->host_threads = options->threads;
        }
    }
    free(infos);
    return status;
}

void itera_device_close(struct itera_device **device)
{
    if (*device) {
        itera_device_close(&(*device)->host);
        (*device)->backend->close(*device);
    }
    *device = NULL;
}

const struct itera_device_info *itera_device_info(const struct itera_device *device)
{
    return &device->info;
}

int itera_device_threads(const struct itera_device *device)
{
    return device->threads;
}

const char *itera_device_fallback_op(const struct itera_device *device, int index)
{
    for (int kind = 0; kind < ITERA_OP_COUNT; kind++)
        if (device->fell_back[kind] && index-- == 0)
            return itera_op_info((enum itera_op_kind)kind)->name;
    return NULL;
}

enum itera_status itera_buffer_create(struct itera_device *device, size_t bytes,
                                      struct itera_buffer **out)
{
    *out = NULL;
    enum itera_status status = device->backend->buffer_create(device, bytes, out);
    if (!status)
        device->allocated += (*out)->bytes;
    return status;
}

void itera_buffer_destroy(struct itera_buffer **buffer)
{
    if (*buffer) {
        (*buffer)->device->allocated -= (*buffer)->bytes;
        (*buffer)->device->backend->buffer_destroy(*buffer);
    }
    *buffer = NULL;
}

static enum itera_status check_range(const struct itera_buffer *buffer, size_t offset, size_t bytes)
{
    if (offset <= buffer->bytes && bytes <= buffer->bytes - offset)
        return ITERA_OK;
    return itera_fail(ITERA_ERR_ARGUMENT, "copy of %zu bytes at %zu in a buffer of %zu", bytes,
                      offset, buffer->bytes);
}

enum itera_status itera_buffer_upload(struct itera_buffer *buffer, size_t offset, const void *data,
                                      size_t bytes)
{
    enum itera_status status = check_range(buffer, offset, bytes);
    return status ? status : buffer->device->backend->upload(buffer, offset, data, bytes);
}

enum itera_status itera_buffer_download(struct itera_buffer *buffer, size_t offset, void *data,
                                        size_t bytes)
{
    enum itera_status status = check_range(buffer, offset, bytes);
    return status ? status : buffer->device->backend->download(buffer, offset, data, bytes);
}

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
