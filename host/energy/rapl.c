/* RAPL through powercap: energy counters of processor packages, their memory, and the platform.
 * Source: Linux, Documentation/power/powercap/powercap.rst; Intel SDM volume 3, "Platform Specific
 * Power Management Support" (units, update period of about 1 ms). AMD's packages show up under the
 * same names. */
#include <stdio.h>
#include <string.h>

#include "energy/sensor.h"
#include "energy/sysfs.h"

/* What most processors count in: 2^-14 J. A few count in 2^-16 J. */
#define RAPL_STEP   (1.0 / 16384)
#define RAPL_UPDATE 1e-3

static int rapl_read(struct itera_sensor *sensor, uint64_t *micro, char *why)
{
    return itera_sysfs_counter(sensor->info.path, micro, why);
}

/* Whether the set has the zone of this name already: some processors show a package twice, through
 * its registers and through memory (intel-rapl-mmio). */
static const struct itera_sensor *same_zone(const struct itera_sensor_set *set, const char *name)
{
    for (int i = 0; i < set->count; i++)
        if (set->item[i]->kind == &itera_sensor_rapl && !strcmp(set->item[i]->info.name, name))
            return set->item[i];
    return NULL;
}

/* core and uncore are parts of a package, and not listed. */
static bool zone_scope(const char *name, enum itera_energy_scope *scope)
{
    bool package = !strncmp(name, "package", 7);
    *scope = !strcmp(name, "psys") ? ITERA_SCOPE_PLATFORM : ITERA_SCOPE_PACKAGE;
    return package || !strcmp(name, "dram") || *scope == ITERA_SCOPE_PLATFORM;
}

static void add_zone(const char *powercap, const char *folder, bool mmio,
                     struct itera_sensor_set *set)
{
    char path[256], name[64], why[SENSOR_WHY];
    enum itera_energy_scope scope;
    itera_sysfs_path(path, sizeof path, folder, "name");
    if (itera_sysfs_text(path, name, sizeof name) || !zone_scope(name, &scope) ||
        !itera_sysfs_exists(folder, "energy_uj"))
        return;
    const struct itera_sensor *same = mmio ? same_zone(set, name) : NULL;
    struct itera_sensor *sensor = itera_sensor_add(set, &itera_sensor_rapl, sizeof *sensor);
    if (!sensor)
        return;
    struct itera_sensor_info *info = &sensor->info;
    snprintf(info->name, sizeof info->name, "%s", name);
    itera_sysfs_path(info->path, sizeof info->path, folder, "energy_uj");
    info->scope = scope;
    info->counter = 1;
    info->resolution = RAPL_STEP;
    info->update_seconds = RAPL_UPDATE;
    if (same) {
        itera_sensor_refuse(sensor, "the same energy as %s", same->info.path);
        return;
    }
    sensor->required = scope == ITERA_SCOPE_PACKAGE && strcmp(name, "dram") != 0;
    itera_sysfs_path(path, sizeof path, folder, "max_energy_range_uj");
    if (itera_sysfs_counter(path, &sensor->range, why))
        sensor->range = 0; /* then a counter that goes back is an error */
    snprintf(info->fix, sizeof info->fix, "sudo chmod a+r %.180s/intel-rapl:*/energy_uj", powercap);
    itera_sensor_try(sensor);
}

/* Zones inside a zone stand beside it too in /sys/class/powercap; where they do not, they are
 * looked for inside. */
static void add_zones(const char *powercap, const char *inside, const char *prefix,
                      struct itera_sensor_set *set)
{
    char folder[256], **names;
    int n = itera_sysfs_list(inside, prefix, &names);
    set->out_of_memory |= n < 0;
    for (int i = 0; i < n; i++) {
        if (inside != powercap && itera_sysfs_exists(powercap, names[i]))
            continue;
        itera_sysfs_path(folder, sizeof folder, inside, names[i]);
        add_zone(powercap, folder, strstr(prefix, "mmio") != NULL, set);
        if (inside == powercap)
            add_zones(powercap, folder, prefix, set);
    }
    if (n > 0)
        itera_sysfs_free(names, n);
}

static void rapl_find(const struct itera_sensor_search *search, struct itera_sensor_set *set)
{
    char powercap[256];
    itera_sysfs_path(powercap, sizeof powercap, search->sysfs, "class/powercap");
    add_zones(powercap, powercap, "intel-rapl:", set);
    add_zones(powercap, powercap, "intel-rapl-mmio:", set);
}

const struct itera_sensor_kind itera_sensor_rapl = {
    .name = "rapl",
    .absent = "no intel-rapl zone in class/powercap: a virtual machine, a container, or a kernel "
              "or processor without RAPL",
    .help = "on the machine itself: sudo modprobe intel_rapl_msr",
    .find = rapl_find,
    .read = rapl_read,
};
