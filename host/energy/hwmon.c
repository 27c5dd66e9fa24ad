/* Graphics cards whose drivers show energy or power through hwmon.
 * Source: Linux, Documentation/hwmon/sysfs-interface.rst (units: microjoules, microwatts) and
 * Documentation/ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon; for amdgpu Documentation/gpu/amdgpu. */
#include <stdio.h>
#include <string.h>

#include "energy/sensor.h"
#include "energy/sysfs.h"

/* In order of preference per driver: what covers more of the card first. */
static const struct {
    const char *driver, *file;
    bool counter;
    double resolution, update_seconds;
} readings[] = {
    {"xe", "energy1_input", true, 1.0 / 16384, 1e-3}, /* the card */
    {"xe", "energy2_input", true, 1.0 / 16384, 1e-3}, /* its package */
    {"i915", "energy1_input", true, 1.0 / 16384, 1e-3},
    /* The firmware's own filter differs by generation: what is claimed here is on the safe side. */
    {"amdgpu", "power1_average", false, 1.0, 1.0},
    {"amdgpu", "power1_input", false, 1.0, 0.1},
};
enum { READINGS = sizeof readings / sizeof *readings };

static int hwmon_read(struct itera_sensor *sensor, uint64_t *micro, char *why)
{
    return itera_sysfs_counter(sensor->info.path, micro, why);
}

static void add_card(const char *folder, int reading, struct itera_sensor_set *set)
{
    struct itera_sensor *sensor = itera_sensor_add(set, &itera_sensor_hwmon, sizeof *sensor);
    if (!sensor)
        return;
    struct itera_sensor_info *info = &sensor->info;
    const char *driver = readings[reading].driver;
    snprintf(info->kind, sizeof info->kind, "%s", driver);
    itera_sysfs_pci(folder, info->pci, sizeof info->pci);
    if (*info->pci)
        snprintf(info->name, sizeof info->name, "card at %s", info->pci);
    else
        snprintf(info->name, sizeof info->name, "card");
    itera_sysfs_path(info->path, sizeof info->path, folder, readings[reading].file);
    info->scope = ITERA_SCOPE_GPU;
    info->counter = readings[reading].counter;
    info->resolution = readings[reading].resolution;
    info->update_seconds = readings[reading].update_seconds;
    snprintf(info->fix, sizeof info->fix, "sudo chmod a+r %.230s", info->path);
    itera_sensor_try(sensor);
}

static void hwmon_find(const struct itera_sensor_search *search, struct itera_sensor_set *set)
{
    char hwmon[256], folder[256], path[256], driver[32], **names;
    itera_sysfs_path(hwmon, sizeof hwmon, search->sysfs, "class/hwmon");
    int n = itera_sysfs_list(hwmon, "hwmon", &names);
    set->out_of_memory |= n < 0;
    for (int i = 0; i < n; i++) {
        itera_sysfs_path(folder, sizeof folder, hwmon, names[i]);
        itera_sysfs_path(path, sizeof path, folder, "name");
        if (itera_sysfs_text(path, driver, sizeof driver))
            continue;
        for (int r = 0; r < READINGS; r++)
            if (!strcmp(driver, readings[r].driver) &&
                itera_sysfs_exists(folder, readings[r].file)) {
                add_card(folder, r, set);
                break;
            }
    }
    if (n > 0)
        itera_sysfs_free(names, n);
}

const struct itera_sensor_kind itera_sensor_hwmon = {
    .name = "hwmon",
    .absent = "no amdgpu, xe or i915 card with a power or energy sensor in class/hwmon",
    .find = hwmon_find,
    .read = hwmon_read,
};
