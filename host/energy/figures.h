/* Which sensors make up which figure. */
#ifndef ITERA_ENERGY_FIGURES_H
#define ITERA_ENERGY_FIGURES_H

#include "energy/sensor.h"

/* A figure to be: the sensors of the set whose `figure` is its index. */
struct itera_figure_sensors {
    enum itera_energy_scope scope;
    int sensors; /* 0: none could be used, reason says why */
    char source[sizeof((struct itera_energy_figure *)0)->source];
    char reason[sizeof((struct itera_energy_figure *)0)->reason];
};

/* Sets `figure` of every sensor, and what each figure is made of: chosen[0] is what work on `device`
 * (may be NULL) is charged with. chosen has room for ITERA_ENERGY_FIGURES. Returns their number. */
int itera_figures_assign(struct itera_sensor_set *set, const struct itera_device_info *device,
                         struct itera_figure_sensors *chosen);

#endif
