#include "energy/figures.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool usable(const struct itera_sensor *sensor)
{
    return sensor->info.state == ITERA_SENSOR_USABLE;
}

/* "rapl package-0: why; what helps" */
static void explain(const struct itera_sensor_info *info, char *out, size_t size)
{
    int n = snprintf(out, size, "%s%s%.60s: %s", info->kind, *info->name ? " " : "", info->name,
                     info->reason);
    if (*info->fix && n > 0 && (size_t)n < size)
        snprintf(out + n, size - (size_t)n, " (%s)", info->fix);
}

static void explain_package(const struct itera_sensor_set *set, char *out, size_t size)
{
    const struct itera_sensor *worst = NULL;
    for (int i = 0; i < set->count; i++) {
        const struct itera_sensor *sensor = set->item[i];
        bool required = sensor->required && !usable(sensor);
        if (strcmp(sensor->info.kind, "rapl") == 0 && !usable(sensor) &&
            (!worst || (required && !worst->required)))
            worst = sensor;
    }
    if (worst)
        explain(&worst->info, out, size);
    else
        snprintf(out, size, "rapl shows no processor package");
}

/* The package's sum holds all of its zones or is no sum. */
static bool package_complete(const struct itera_sensor_set *set)
{
    int zones = 0;
    for (int i = 0; i < set->count; i++) {
        if (!set->item[i]->required)
            continue;
        if (!usable(set->item[i]))
            return false;
        zones++;
    }
    return zones > 0;
}

/* What a driver of hwmon, or NVML, has cards of. */
static bool vendor_fits(const char *kind, const char *device_name)
{
    static const struct {
        const char *kind, *word;
    } words[] = {{"nvml", "NVIDIA"}, {"nvml", "GeForce"}, {"nvml", "Tesla"},
                 {"nvml", "Quadro"}, {"amdgpu", "AMD"},   {"amdgpu", "Radeon"},
                 {"amdgpu", "gfx"},  {"xe", "Intel"},     {"i915", "Intel"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(kind, words[i].kind) && strcasestr(device_name, words[i].word))
            return true;
    return false;
}

enum gpu_match { MATCH_PCI, MATCH_NAME, MATCH_VENDOR, MATCHES };

static bool gpu_fits(const struct itera_sensor *sensor, const struct itera_device_info *device,
                     enum gpu_match match)
{
    const struct itera_sensor_info *info = &sensor->info;
    if (info->scope != ITERA_SCOPE_GPU || info->state == ITERA_SENSOR_ABSENT)
        return false;
    switch (match) {
    case MATCH_PCI:
        return *info->pci && !strcmp(info->pci, device->pci);
    case MATCH_NAME:
        return !strcmp(info->name, device->name);
    default:
        return vendor_fits(info->kind, device->name);
    }
}

/* The sensor of a GPU device, by the best of address, name and vendor that says which; NULL with
 * the reason. */
static struct itera_sensor *find_gpu(const struct itera_sensor_set *set,
                                     const struct itera_device_info *device, char *why, size_t size)
{
    for (int match = MATCH_PCI; match < MATCHES; match++) {
        struct itera_sensor *found = NULL;
        int count = 0;
        for (int i = 0; i < set->count; i++)
            if (gpu_fits(set->item[i], device, (enum gpu_match)match)) {
                found = found && usable(found) ? found : set->item[i];
                count++;
            }
        if (count > 1 && match != MATCH_PCI) {
            snprintf(why, size,
                     "%d sensors could be that of %.100s, whose driver does not say its "
                     "PCI address",
                     count, device->name);
            return NULL;
        }
        if (found && usable(found))
            return found;
        if (found) {
            explain(&found->info, why, size);
            return NULL;
        }
    }
    snprintf(why, size, "no sensor of %.100s was found (NVML, amdgpu, xe, i915)", device->name);
    return NULL;
}

/* Adds a sensor's name to a figure's source: "rapl package-0", "rapl package-0 + dram". */
static void add_source(struct itera_figure_sensors *chosen, const struct itera_sensor_info *info)
{
    size_t used = strlen(chosen->source);
    if (strstr(chosen->source, info->name))
        return; /* the memory of a second package */
    if (used)
        snprintf(chosen->source + used, sizeof chosen->source - used, " + %s", info->name);
    else
        snprintf(chosen->source, sizeof chosen->source, "%s %s", info->kind, info->name);
}

struct assignment {
    struct itera_sensor_set *set;
    struct itera_figure_sensors *chosen;
    int count;
};

/* A figure of `scope`: of all its sensors, or of `only`. */
static void add_figure(struct assignment *p, enum itera_energy_scope scope,
                       const struct itera_sensor *only)
{
    if (p->count == ITERA_ENERGY_FIGURES)
        return;
    struct itera_figure_sensors *chosen = &p->chosen[p->count];
    *chosen = (struct itera_figure_sensors){.scope = scope};
    for (int i = 0; i < p->set->count; i++) {
        struct itera_sensor *sensor = p->set->item[i];
        if (!usable(sensor) || sensor->info.scope != scope || sensor->figure >= 0 ||
            (only && sensor != only))
            continue;
        sensor->figure = p->count;
        chosen->sensors++;
        add_source(chosen, &sensor->info);
    }
    if (chosen->sensors)
        p->count++;
}

static void add_missing(struct assignment *p, enum itera_energy_scope scope, const char *reason)
{
    struct itera_figure_sensors *chosen = &p->chosen[p->count++];
    *chosen = (struct itera_figure_sensors){.scope = scope};
    snprintf(chosen->reason, sizeof chosen->reason, "%s", reason);
}

int itera_figures_assign(struct itera_sensor_set *set, const struct itera_device_info *device,
                         struct itera_figure_sensors *chosen)
{
    struct assignment p = {.set = set, .chosen = chosen};
    bool discrete = device && device->type == ITERA_DEVICE_GPU;
    bool graphics = discrete || (device && device->type == ITERA_DEVICE_IGPU);
    bool package = package_complete(set);
    char why[sizeof chosen->reason] = "";
    for (int i = 0; i < set->count; i++)
        set->item[i]->figure = -1;

    const struct itera_sensor *gpu = graphics ? find_gpu(set, device, why, sizeof why) : NULL;
    /* A processor's own graphics are inside its package. */
    if (gpu && (discrete || !package))
        add_figure(&p, ITERA_SCOPE_GPU, gpu);
    if (!discrete) {
        if (package)
            add_figure(&p, ITERA_SCOPE_PACKAGE, NULL);
        add_figure(&p, ITERA_SCOPE_PLATFORM, NULL);
    }
    add_figure(&p, ITERA_SCOPE_MACHINE, NULL);
    if (p.count == 0) {
        if (!discrete)
            explain_package(set, why, sizeof why);
        add_missing(&p, discrete ? ITERA_SCOPE_GPU : ITERA_SCOPE_PACKAGE, why);
    }
    /* The other scopes of a GPU's run; without a device, all GPUs. */
    if (discrete && package)
        add_figure(&p, ITERA_SCOPE_PACKAGE, NULL);
    if (discrete)
        add_figure(&p, ITERA_SCOPE_PLATFORM, NULL);
    if (gpu && gpu->figure < 0)
        add_figure(&p, ITERA_SCOPE_GPU, gpu);
    for (int i = 0; i < set->count && !device; i++)
        if (set->item[i]->info.scope == ITERA_SCOPE_GPU && usable(set->item[i]))
            add_figure(&p, ITERA_SCOPE_GPU, set->item[i]);
    return p.count;
}
