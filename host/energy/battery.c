/* Batteries: what they deliver while they alone feed the machine.
 * Source: Linux, Documentation/ABI/testing/sysfs-class-power (microwatts, microvolts, microamperes). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "energy/sensor.h"
#include "energy/sysfs.h"

enum { MAX_BATTERIES = 4 };

/* All batteries together: a machine with two drains them in turn, and may change over in mid-run. */
struct battery_sensor {
    struct itera_sensor base;
    int count;
    char folder[MAX_BATTERIES][256];
};

static int magnitude(const char *folder, const char *file, uint64_t *value, char *why)
{
    char path[300];
    int64_t number; /* some drivers show what flows out as negative */
    itera_sysfs_path(path, sizeof path, folder, file);
    int error = itera_sysfs_number(path, &number, why);
    if (!error)
        *value = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    return error;
}

static int battery_power(const char *folder, uint64_t *micro, char *why)
{
    uint64_t volts, amperes;
    int error = magnitude(folder, "power_now", micro, why);
    if (!error && *micro > 0)
        return 0;
    char unused[SENSOR_WHY];
    if (!magnitude(folder, "voltage_now", &volts, unused) &&
        !magnitude(folder, "current_now", &amperes, unused)) {
        *micro = (uint64_t)((double)volts * (double)amperes * 1e-6 + 0.5);
        error = 0;
    }
    if (error == ENOENT)
        snprintf(why, SENSOR_WHY, "%.180s shows neither power nor voltage and current", folder);
    if (!error && *micro == 0) {
        snprintf(why, SENSOR_WHY, "%.180s shows 0 W while discharging", folder);
        error = ENODATA;
    }
    return error;
}

static int battery_read(struct itera_sensor *sensor, uint64_t *micro, char *why)
{
    const struct battery_sensor *battery = (const struct battery_sensor *)sensor;
    char path[300], status[32] = "";
    bool any = false;
    *micro = 0;
    for (int i = 0; i < battery->count; i++) {
        uint64_t power;
        itera_sysfs_path(path, sizeof path, battery->folder[i], "status");
        int error = itera_sysfs_text(path, status, sizeof status);
        if (error) {
            snprintf(why, SENSOR_WHY, "%.200s: %s", path, strerror(error));
            return error;
        }
        if (!strcmp(status, "Charging")) {
            any = false;
            break;
        }
        if (strcmp(status, "Discharging") != 0)
            continue; /* full, or waiting for its turn */
        error = battery_power(battery->folder[i], &power, why);
        if (error)
            return error;
        *micro += power;
        any = true;
    }
    if (any)
        return 0;
    snprintf(why, SENSOR_WHY,
             "its status is \"%s\": a battery shows what the machine takes only "
             "while it discharges",
             status);
    return ENODATA;
}

/* A battery of this machine: not that of a mouse (scope Device), not an empty bay. */
static bool is_system_battery(const char *folder)
{
    char path[300], text[32];
    itera_sysfs_path(path, sizeof path, folder, "type");
    if (itera_sysfs_text(path, text, sizeof text) || strcmp(text, "Battery") != 0)
        return false;
    itera_sysfs_path(path, sizeof path, folder, "scope");
    if (!itera_sysfs_text(path, text, sizeof text) && !strcmp(text, "Device"))
        return false;
    itera_sysfs_path(path, sizeof path, folder, "present");
    return itera_sysfs_text(path, text, sizeof text) || strcmp(text, "0") != 0;
}

static void battery_find(const struct itera_sensor_search *search, struct itera_sensor_set *set)
{
    char supplies[256], folder[256], **names;
    struct battery_sensor *battery = NULL;
    itera_sysfs_path(supplies, sizeof supplies, search->sysfs, "class/power_supply");
    int n = itera_sysfs_list(supplies, "", &names);
    set->out_of_memory |= n < 0;
    for (int i = 0; i < n && !set->out_of_memory; i++) {
        itera_sysfs_path(folder, sizeof folder, supplies, names[i]);
        if (!is_system_battery(folder) || (battery && battery->count == MAX_BATTERIES))
            continue;
        if (!battery) {
            battery = (struct battery_sensor *)itera_sensor_add(set, &itera_sensor_battery,
                                                                sizeof *battery);
            if (!battery)
                break;
        }
        struct itera_sensor_info *info = &battery->base.info;
        size_t used = strlen(info->name);
        snprintf(info->name + used, sizeof info->name - used, "%s%.20s", used ? " + " : "",
                 names[i]);
        if (battery->count == 0)
            snprintf(info->path, sizeof info->path, "%s", folder);
        snprintf(battery->folder[battery->count++], sizeof folder, "%s", folder);
    }
    if (n > 0)
        itera_sysfs_free(names, n);
    if (!battery)
        return;
    struct itera_sensor_info *info = &battery->base.info;
    info->scope = ITERA_SCOPE_MACHINE;
    info->resolution = 1e-3;  /* ACPI's unit */
    info->update_seconds = 5; /* the embedded controller's choice; few are slower */
    snprintf(info->fix, sizeof info->fix, "sudo chmod a+r %.200s/power_now", info->path);
    itera_sensor_try(&battery->base);
    if (info->state == ITERA_SENSOR_UNUSABLE && !*info->fix)
        snprintf(info->fix, sizeof info->fix, "unplug the charger while measuring");
}

const struct itera_sensor_kind itera_sensor_battery = {
    .name = "battery",
    .absent = "no battery of the machine in class/power_supply",
    .find = battery_find,
    .read = battery_read,
};
