/* Which devices there are, and opening one of them. */
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

uint64_t itera_device_allocated(const struct itera_device *device)
{
    return device->allocated;
}

const char *itera_device_fallback_op(const struct itera_device *device, int index)
{
    for (int kind = 0; kind < ITERA_OP_COUNT; kind++)
        if (device->fell_back[kind] && index-- == 0)
            return itera_op_info((enum itera_op_kind)kind)->name;
    return NULL;
}
