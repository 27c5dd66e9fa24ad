/* Energy: which sensors this machine has, and what a stretch of work took. Readings come from
 * counters and meters of the hardware and are never guessed; docs/energy.md says what each of them
 * covers and how wrong it can be.
 *
 * All numbers are in joules, watts and seconds. NAN stands for what is not known. */
#ifndef ITERA_ENERGY_H
#define ITERA_ENERGY_H

#include "itera/device.h"
#include "itera/status.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a sensor measures. */
enum itera_energy_scope {
    ITERA_SCOPE_PACKAGE,  /* all processor packages, with their memory where it has a counter */
    ITERA_SCOPE_GPU,      /* one graphics card */
    ITERA_SCOPE_PLATFORM, /* what the firmware calls the platform (RAPL's psys) */
    ITERA_SCOPE_MACHINE,  /* everything that a battery feeds, the screen included */
};
/* "package", "gpu", "platform", "whole machine". */
ITERA_API const char *itera_energy_scope_name(enum itera_energy_scope scope);

enum itera_sensor_state {
    ITERA_SENSOR_USABLE,
    ITERA_SENSOR_UNUSABLE, /* it is there: `reason` says why it cannot be read, `fix` what helps */
    ITERA_SENSOR_ABSENT,   /* none of this kind; `reason` says where it was looked for */
};
ITERA_API const char *itera_sensor_state_name(enum itera_sensor_state state);

struct itera_sensor_info {
    char kind[16]; /* "rapl", "nvml", "amdgpu", "xe", "i915", "battery" */
    char name[96]; /* "package-0", "NVIDIA H100 80GB HBM3" */
    enum itera_energy_scope scope;
    enum itera_sensor_state state;
    int counter;           /* 1: counts energy; 0: shows power, which is sampled and integrated */
    double resolution;     /* the smallest step: joules of a counter, watts of a power sensor */
    double update_seconds; /* how old a reading can be */
    char pci[16];          /* "0000:65:00.0", or "" */
    char path[256];        /* the file, or the library, that is read */
    char reason[256];      /* "" when usable */
    char fix[256];         /* a command or advice; "" when there is none */
};

/* Zero-initialise and set what matters. Strings need live only for the call. */
struct itera_meter_options {
    /* What the work runs on: a discrete GPU is charged with its own sensor, everything else with
     * the processor packages. NULL: the packages, and every sensor of a GPU beside them. */
    const struct itera_device_info *device;
    double sample_hz;      /* how often power sensors are read; 0: 20; 0.1 to 1000 */
    double tdp_watts;      /* where no sensor can be used, take this power; 0: do not estimate */
    double probe_seconds;  /* watch counters for about so long, and take those that do not move for
                              unusable; 0: do not wait. A live RAPL counter moves in 1 ms */
    const char *sysfs;     /* NULL: ITERA_SYSFS, else "/sys" */
    const char *nvml_name; /* file name of the NVML library; NULL: ITERA_NVML, else
                              "libnvidia-ml.so.1"; "" to do without */
};

/* Everything that was found, usable or not, and an entry for each kind that was not found. *infos
 * is an array to free with free(). Of the options, device, sample_hz and tdp_watts do not matter;
 * options may be NULL.
 * Errors: ITERA_ERR_MEMORY. */
ITERA_API enum itera_status itera_sensors(const struct itera_meter_options *options,
                                          struct itera_sensor_info **infos, int *count);

#define ITERA_ENERGY_FIGURES 16

/* The energy of one scope. Where joules is NAN, `reason` says why. */
struct itera_energy_figure {
    enum itera_energy_scope scope;
    int measured;             /* 1: by a sensor; 0: joules is seconds times tdp_watts, or NAN */
    char source[160];         /* "rapl package-0 + dram", "tdp 65 W", or "" */
    double joules;            /* in total */
    double watts;             /* joules over seconds */
    double error_joules;      /* bound on what reading adds: steps and age of the readings, and for
                             integrated power the change between samples. Not the sensor's own
                             calibration. NAN for an estimate */
    double idle_watts;        /* from itera_meter_measure_idle, else NAN */
    double above_idle_joules; /* joules - idle_watts * seconds; NAN without idle_watts. May
                                       fall below 0 by its error */
    double above_idle_error_joules; /* its bound */
    double resolution; /* step of the sensors together: joules where counted, else watts */
    double update_seconds;
    double sample_hz; /* of integrated power; 0 for counters */
    int samples;      /* readings taken of each sensor, begin and end included */
    char reason[512];
};

struct itera_energy {
    double seconds; /* from the return of itera_meter_begin to the call of itera_meter_end */
    int n_figures;  /* at least 1 */
    /* figure[0] is what the work is charged with. The others are further scopes, which may include
     * it (a battery feeds the packages too): they are not to be added up. */
    struct itera_energy_figure figure[ITERA_ENERGY_FIGURES];
};

/* A meter belongs to one thread. It has a thread of its own while a run is measured. */
struct itera_meter;

/* A machine without sensors is no error: figure[0] then is an estimate from tdp_watts, or NAN with
 * the reason. options may be NULL.
 * Errors: ITERA_ERR_ARGUMENT for options out of range; ITERA_ERR_MEMORY. */
ITERA_API enum itera_status itera_meter_open(const struct itera_meter_options *options,
                                             struct itera_meter **meter);
ITERA_API void
itera_meter_close(struct itera_meter **meter); /* NULL-safe; ends a run that was begun */

/* Measures for so long what the machine takes when it does nothing: the caller sees to that. From
 * then on figures have idle_watts; those of a scope that failed meanwhile stay without.
 * Errors: ITERA_ERR_ARGUMENT unless 0 < seconds <= 3600, or when a run was begun. */
ITERA_API enum itera_status itera_meter_measure_idle(struct itera_meter *meter, double seconds);

/* A run costs a few small file reads at each end, and a thread that sleeps between samples.
 * begin: ITERA_ERR_ARGUMENT when one was begun already; ITERA_ERR_LIMIT when no thread could be had.
 * end: ITERA_ERR_ARGUMENT when none was begun. A sensor that failed meanwhile is no error: its
 * figure is NAN, with the reason. */
ITERA_API enum itera_status itera_meter_begin(struct itera_meter *meter);
ITERA_API enum itera_status itera_meter_end(struct itera_meter *meter, struct itera_energy *energy);

#ifdef __cplusplus
}
#endif
#endif
