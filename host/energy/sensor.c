#include "energy/sensor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "core/environment.h"
#include "core/log.h"
#include "core/number.h"

static const struct itera_sensor_kind *const kinds[] = {
    &itera_sensor_rapl,
    &itera_sensor_nvml,
    &itera_sensor_hwmon,
    &itera_sensor_battery,
};
enum { KINDS = sizeof kinds / sizeof *kinds };

const char *itera_energy_scope_name(enum itera_energy_scope scope)
{
    static const char *const names[] = {"package", "gpu", "platform", "whole machine"};
    return (size_t)scope < sizeof names / sizeof *names ? names[scope] : "unknown";
}

const char *itera_sensor_state_name(enum itera_sensor_state state)
{
    static const char *const names[] = {"usable", "unusable", "absent"};
    return (size_t)state < sizeof names / sizeof *names ? names[state] : "unknown";
}

struct itera_sensor *itera_sensor_add(struct itera_sensor_set *set,
                                      const struct itera_sensor_kind *kind, size_t size)
{
    if (set->count == set->room) {
        int room = set->room ? 2 * set->room : 16;
        struct itera_sensor **grown = realloc(set->item, (size_t)room * sizeof *grown);
        if (!grown) {
            set->out_of_memory = true;
            return NULL;
        }
        set->item = grown;
        set->room = room;
    }
    struct itera_sensor *sensor = calloc(1, size);
    if (!sensor) {
        set->out_of_memory = true;
        return NULL;
    }
    sensor->kind = kind;
    snprintf(sensor->info.kind, sizeof sensor->info.kind, "%s", kind->name);
    set->item[set->count++] = sensor;
    return sensor;
}

void itera_sensor_refuse(struct itera_sensor *sensor, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    itera_format_args(sensor->info.reason, sizeof sensor->info.reason, format, args);
    va_end(args);
    sensor->info.state = ITERA_SENSOR_UNUSABLE;
}

void itera_sensor_try(struct itera_sensor *sensor)
{
    uint64_t micro;
    char why[SENSOR_WHY] = "";
    int error = sensor->kind->read(sensor, &micro, why);
    if (error)
        itera_sensor_refuse(sensor, "%s", why);
    if (error != EACCES && error != EPERM)
        sensor->info.fix[0] = '\0';
}

/* Reads a counter; true when it need not be watched any more: it moved, or failed. */
static bool settled(struct itera_sensor *sensor, uint64_t first, double waited, double limit)
{
    struct itera_sensor_info *info = &sensor->info;
    char why[SENSOR_WHY] = "";
    uint64_t now;
    if (info->state != ITERA_SENSOR_USABLE || !info->counter)
        return true;
    if (sensor->kind->read(sensor, &now, why)) {
        itera_sensor_refuse(sensor, "%s", why);
        return true;
    }
    if (now != first)
        return true;
    if (waited < (3 * info->update_seconds > limit ? 3 * info->update_seconds : limit))
        return false;
    itera_sensor_refuse(sensor, "the counter does not move: it stood at %.6f J for %.2g s",
                        (double)first * 1e-6, waited);
    snprintf(info->fix, sizeof info->fix,
             "none here: virtual machines and some firmware show counters that nothing feeds");
    return true;
}

/* Waits until all counters moved, and refuses those that do not. */
static void probe(struct itera_sensor_set *set, double limit)
{
    uint64_t *first = calloc((size_t)set->count + 1, sizeof *first);
    if (!first) {
        set->out_of_memory = true;
        return;
    }
    char why[SENSOR_WHY];
    for (int i = 0; i < set->count; i++)
        if (set->item[i]->info.state == ITERA_SENSOR_USABLE)
            set->item[i]->kind->read(set->item[i], &first[i], why);
    double start = itera_seconds();
    for (bool waiting = true; waiting;) {
        waiting = false;
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
        double waited = itera_seconds() - start;
        for (int i = 0; i < set->count; i++)
            waiting |= !settled(set->item[i], first[i], waited, limit);
    }
    free(first);
}

/* Stands for a kind of which there is none. */
static const struct itera_sensor_kind kind_absent = {.name = "absent"};

static void add_absent(const struct itera_sensor_kind *kind, struct itera_sensor_set *set)
{
    struct itera_sensor *sensor = itera_sensor_add(set, &kind_absent, sizeof *sensor);
    if (!sensor)
        return;
    snprintf(sensor->info.kind, sizeof sensor->info.kind, "%s", kind->name);
    itera_sensor_refuse(sensor, "%s", kind->absent);
    snprintf(sensor->info.fix, sizeof sensor->info.fix, "%s", kind->help ? kind->help : "");
    sensor->info.state = ITERA_SENSOR_ABSENT;
}

enum itera_status itera_sensor_set_find(const struct itera_sensor_search *search,
                                        double probe_seconds, struct itera_sensor_set *set)
{
    *set = (struct itera_sensor_set){0};
    for (int i = 0; i < KINDS && !set->out_of_memory; i++) {
        int before = set->count;
        kinds[i]->find(search, set);
        if (set->count == before)
            add_absent(kinds[i], set);
    }
    if (probe_seconds > 0 && !set->out_of_memory)
        probe(set, probe_seconds);
    if (set->out_of_memory) {
        itera_sensor_set_clear(set);
        return itera_fail(ITERA_ERR_MEMORY, "out of memory while looking for energy sensors");
    }
    return ITERA_OK;
}

void itera_sensor_set_clear(struct itera_sensor_set *set)
{
    for (int i = 0; i < set->count; i++) {
        if (set->item[i]->kind->destroy)
            set->item[i]->kind->destroy(set->item[i]);
        free(set->item[i]);
    }
    free(set->item);
    *set = (struct itera_sensor_set){0};
}

struct itera_sensor_search itera_sensor_search_of(const struct itera_meter_options *options)
{
    const char *sysfs = options && options->sysfs ? options->sysfs : itera_environment_sysfs();
    const char *nvml =
        options && options->nvml_name ? options->nvml_name : itera_environment_nvml();
    return (struct itera_sensor_search){.sysfs = sysfs ? sysfs : "/sys",
                                        .nvml_name = nvml ? nvml : "libnvidia-ml.so.1"};
}

enum itera_status itera_sensors(const struct itera_meter_options *options,
                                struct itera_sensor_info **infos, int *count)
{
    *infos = NULL;
    *count = 0;
    struct itera_sensor_search search = itera_sensor_search_of(options);
    struct itera_sensor_set set;
    enum itera_status status =
        itera_sensor_set_find(&search, options ? options->probe_seconds : 0, &set);
    if (status)
        return status;
    *infos = malloc((size_t)set.count * sizeof **infos);
    if (*infos) {
        for (int i = 0; i < set.count; i++)
            (*infos)[i] = set.item[i]->info;
        *count = set.count;
    } else {
        status = itera_fail(ITERA_ERR_MEMORY, "out of memory for a list of energy sensors");
    }
    itera_sensor_set_clear(&set);
    return status;
}
