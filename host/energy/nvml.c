/* NVIDIA cards through NVML, which comes with the driver and is loaded at run time.
 * Source: NVIDIA, "NVML API Reference Guide": nvmlDeviceGetTotalEnergyConsumption (millijoules,
 * Volta and newer), nvmlDeviceGetPowerUsage (milliwatts; averaged over 1 s on Ampere and newer). */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "energy/sensor.h"
#include "energy/sysfs.h"

/* nvmlReturn_t */
enum { NVML_SUCCESS = 0, NVML_NOT_SUPPORTED = 3, NVML_NO_PERMISSION = 4, NVML_GPU_IS_LOST = 15 };

typedef struct nvmlDevice_st *nvml_device;

/* nvmlPciInfo_t */
struct nvml_pci_info {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
};

/* Shared by the sensors that came from it. */
struct nvml_library {
    void *handle;
    int users;
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_string)(int);
    int (*count)(unsigned *);
    int (*by_index)(unsigned, nvml_device *);
    int (*name)(nvml_device, char *, unsigned);
    int (*pci)(nvml_device, struct nvml_pci_info *);
    int (*energy)(nvml_device, unsigned long long *);
    int (*power)(nvml_device, unsigned *);
};

struct nvml_sensor {
    struct itera_sensor base;
    struct nvml_library *library;
    nvml_device device;
};

static void release(struct nvml_library *library)
{
    if (!library || --library->users > 0)
        return;
    library->shutdown();
    dlclose(library->handle);
    free(library);
}

/* The functions; false when one is missing. The energy counter is newer than the rest. */
static bool resolve(struct nvml_library *library)
{
    struct {
        const char *name;
        void *slot;
        bool optional;
    } functions[] = {
        {"nvmlInit_v2", &library->init, false},
        {"nvmlShutdown", &library->shutdown, false},
        {"nvmlErrorString", &library->error_string, false},
        {"nvmlDeviceGetCount_v2", &library->count, false},
        {"nvmlDeviceGetHandleByIndex_v2", &library->by_index, false},
        {"nvmlDeviceGetName", &library->name, false},
        {"nvmlDeviceGetPciInfo_v3", &library->pci, true},
        {"nvmlDeviceGetTotalEnergyConsumption", &library->energy, true},
        {"nvmlDeviceGetPowerUsage", &library->power, false},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *symbol = dlsym(library->handle, functions[i].name);
        if (!symbol && !functions[i].optional)
            return false;
        memcpy(functions[i].slot, &symbol, sizeof symbol);
    }
    return true;
}

static int failed(const struct nvml_library *library, int code, const char *call, char *why)
{
    snprintf(why, SENSOR_WHY, "%s: %s", call, library->error_string(code));
    return code == NVML_NO_PERMISSION ? EACCES : code == NVML_GPU_IS_LOST ? ENODEV : EIO;
}

static int read_energy(const struct nvml_sensor *sensor, uint64_t *micro, char *why)
{
    unsigned long long millijoules;
    int code = sensor->library->energy(sensor->device, &millijoules);
    if (code != NVML_SUCCESS)
        return failed(sensor->library, code, "nvmlDeviceGetTotalEnergyConsumption", why);
    *micro = 1000 * (uint64_t)millijoules;
    return 0;
}

static int nvml_read(struct itera_sensor *base, uint64_t *micro, char *why)
{
    const struct nvml_sensor *sensor = (const struct nvml_sensor *)base;
    if (base->info.counter)
        return read_energy(sensor, micro, why);
    unsigned milliwatts;
    int code = sensor->library->power(sensor->device, &milliwatts);
    if (code != NVML_SUCCESS)
        return failed(sensor->library, code, "nvmlDeviceGetPowerUsage", why);
    *micro = 1000 * (uint64_t)milliwatts;
    return 0;
}

static struct nvml_sensor *add_sensor(struct itera_sensor_set *set, const char *path)
{
    struct nvml_sensor *sensor =
        (struct nvml_sensor *)itera_sensor_add(set, &itera_sensor_nvml, sizeof *sensor);
    if (!sensor)
        return NULL;
    sensor->base.info.scope = ITERA_SCOPE_GPU;
    snprintf(sensor->base.info.name, sizeof sensor->base.info.name, "NVIDIA GPU");
    snprintf(sensor->base.info.path, sizeof sensor->base.info.path, "%s", path);
    return sensor;
}

/* Uses the counter where there is one, else power. */
static void choose_reading(struct nvml_sensor *sensor)
{
    struct itera_sensor_info *info = &sensor->base.info;
    unsigned long long millijoules;
    int code = sensor->library->energy ? sensor->library->energy(sensor->device, &millijoules)
                                       : NVML_NOT_SUPPORTED;
    info->counter = code != NVML_NOT_SUPPORTED;
    info->resolution = 1e-3;
    info->update_seconds = info->counter ? 0.1 : 1.0;
    snprintf(info->fix, sizeof info->fix,
             "allow the user to read the GPU (in a container: NVIDIA_DRIVER_CAPABILITIES must "
             "have \"utility\")");
    itera_sensor_try(&sensor->base);
}

static void add_card(struct nvml_library *library, unsigned index, const char *path,
                     struct itera_sensor_set *set)
{
    struct nvml_sensor *sensor = add_sensor(set, path);
    if (!sensor)
        return;
    struct itera_sensor_info *info = &sensor->base.info;
    char why[SENSOR_WHY];
    sensor->library = library;
    library->users++;
    int code = library->by_index(index, &sensor->device);
    if (code != NVML_SUCCESS) {
        failed(library, code, "nvmlDeviceGetHandleByIndex", why);
        itera_sensor_refuse(&sensor->base, "GPU %u: %.200s", index, why);
        return;
    }
    struct nvml_pci_info pci;
    library->name(sensor->device, info->name, sizeof info->name);
    if (library->pci && library->pci(sensor->device, &pci) == NVML_SUCCESS)
        snprintf(info->pci, sizeof info->pci, "%04x:%02x:%02x.0", pci.domain & 0xffff,
                 pci.bus & 0xff, pci.device & 0xff);
    choose_reading(sensor);
}

/* A card that the library could have read. */
static bool nvidia_on_bus(const char *sysfs, char *pci, size_t size)
{
    char bus[256], folder[256], path[256], vendor[16], class[16], **names;
    bool found = false;
    itera_sysfs_path(bus, sizeof bus, sysfs, "bus/pci/devices");
    int n = itera_sysfs_list(bus, "", &names);
    for (int i = 0; i < n && !found; i++) {
        itera_sysfs_path(folder, sizeof folder, bus, names[i]);
        itera_sysfs_path(path, sizeof path, folder, "vendor");
        found = !itera_sysfs_text(path, vendor, sizeof vendor) && !strcmp(vendor, "0x10de");
        itera_sysfs_path(path, sizeof path, folder, "class");
        found = found && !itera_sysfs_text(path, class, sizeof class) && !strncmp(class, "0x03", 4);
        if (found)
            snprintf(pci, size, "%.*s", (int)size - 1, names[i]);
    }
    if (n > 0)
        itera_sysfs_free(names, n);
    return found;
}

static void refuse_without_library(const struct itera_sensor_search *search,
                                   struct itera_sensor_set *set)
{
    char pci[16];
    if (!nvidia_on_bus(search->sysfs, pci, sizeof pci))
        return;
    struct nvml_sensor *sensor = add_sensor(set, search->nvml_name);
    if (!sensor)
        return;
    snprintf(sensor->base.info.pci, sizeof sensor->base.info.pci, "%s", pci);
    itera_sensor_refuse(&sensor->base, "%s cannot be loaded", search->nvml_name);
    snprintf(sensor->base.info.fix, sizeof sensor->base.info.fix,
             "install NVIDIA's driver with its management library (Debian: libnvidia-ml1)");
}

static void nvml_find(const struct itera_sensor_search *search, struct itera_sensor_set *set)
{
    if (!*search->nvml_name)
        return;
    void *handle = dlopen(search->nvml_name, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        refuse_without_library(search, set);
        return;
    }
    struct nvml_library *library = calloc(1, sizeof *library);
    if (!library) {
        set->out_of_memory = true;
        dlclose(handle);
        return;
    }
    library->handle = handle;
    int code = -1;
    bool resolved = resolve(library);
    if (!resolved || (code = library->init()) != NVML_SUCCESS) {
        struct nvml_sensor *sensor = add_sensor(set, search->nvml_name);
        if (sensor && !resolved)
            itera_sensor_refuse(&sensor->base, "%s is not NVML, or too old", search->nvml_name);
        else if (sensor)
            itera_sensor_refuse(&sensor->base, "nvmlInit: %s", library->error_string(code));
        dlclose(handle);
        free(library);
        return;
    }
    library->users = 1;
    unsigned count = 0;
    if (library->count(&count) == NVML_SUCCESS)
        for (unsigned i = 0; i < count; i++)
            add_card(library, i, search->nvml_name, set);
    release(library);
}

static void nvml_destroy(struct itera_sensor *sensor)
{
    release(((struct nvml_sensor *)sensor)->library);
}

const struct itera_sensor_kind itera_sensor_nvml = {
    .name = "nvml",
    .absent = "no NVIDIA card, or none that this container is given",
    .find = nvml_find,
    .read = nvml_read,
    .destroy = nvml_destroy,
};
