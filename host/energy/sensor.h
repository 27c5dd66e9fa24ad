/* Sensors: what a kind implements, and how they are found and read. */
#ifndef ITERA_ENERGY_SENSOR_H
#define ITERA_ENERGY_SENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "itera/energy.h"

enum { SENSOR_WHY = sizeof((struct itera_sensor_info *)0)->reason };

/* Kinds extend it by putting it first in their own struct. */
struct itera_sensor {
    const struct itera_sensor_kind *kind;
    struct itera_sensor_info info;
    uint64_t range; /* microjoules after which a counter starts at 0 again; 0: it does not */
    bool required;  /* a sum over its scope that lacks it would be too small */
    int figure;     /* of the meter's, which it contributes to; -1: none */
};

struct itera_sensor_set {
    struct itera_sensor **item;
    int count, room;
    bool out_of_memory;
};

/* Where to look. */
struct itera_sensor_search {
    const char *sysfs;
    const char *nvml_name;
};

struct itera_sensor_kind {
    const char *name;
    const char *absent; /* the reason when find adds nothing */
    const char *help;   /* and what would help */
    /* Adds every sensor that is there, usable or not. */
    void (*find)(const struct itera_sensor_search *search, struct itera_sensor_set *set);
    /* A reading in microjoules (counters) or microwatts. Returns 0 or an errno with `why` set (in
     * SENSOR_WHY bytes). Called from the meter's thread too, but never by two at once. */
    int (*read)(struct itera_sensor *sensor, uint64_t *micro, char *why);
    void (*destroy)(struct itera_sensor *sensor); /* what find added to the base; may be NULL */
};

extern const struct itera_sensor_kind itera_sensor_rapl;
extern const struct itera_sensor_kind itera_sensor_nvml;
extern const struct itera_sensor_kind itera_sensor_hwmon;
extern const struct itera_sensor_kind itera_sensor_battery;

/* For find: a sensor of `size` bytes, zero but for its kind, in the set; NULL after noting that
 * memory ran out. */
struct itera_sensor *itera_sensor_add(struct itera_sensor_set *set,
                                      const struct itera_sensor_kind *kind, size_t size);
/* For find: marks it as there but not to be used. */
__attribute__((format(printf, 2, 3))) void itera_sensor_refuse(struct itera_sensor *sensor,
                                                               const char *format, ...);
/* For find: reads once, and refuses a sensor that cannot be read. info.fix holds what grants
 * permission to read it, and stays where that is what it lacks. */
void itera_sensor_try(struct itera_sensor *sensor);

/* All of all kinds, those absent included; see struct itera_meter_options for probe_seconds. */
enum itera_status itera_sensor_set_find(const struct itera_sensor_search *search,
                                        double probe_seconds, struct itera_sensor_set *set);
void itera_sensor_set_clear(struct itera_sensor_set *set);

/* Where to look, from options and environment. */
struct itera_sensor_search itera_sensor_search_of(const struct itera_meter_options *options);

#endif
