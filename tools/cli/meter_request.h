/* The options of a command that measures energy, and its figures as JSON. */
#ifndef ITERA_TOOLS_METER_REQUEST_H
#define ITERA_TOOLS_METER_REQUEST_H

#include <jansson.h>

#include "itera/energy.h"

struct meter_request {
    double tdp;  /* watts; 0: no estimate */
    double rate; /* samples per second; 0: the library's choice */
};

/* Rows of a command_option table that fill `request`. */
#define METER_OPTIONS(request)                                                                     \
    {"tdp",                                                                                        \
     0,                                                                                            \
     OPTION_NUMBER,                                                                                \
     &(request).tdp,                                                                               \
     "WATTS",                                                                                      \
     "where no energy sensor can be read, estimate with this\npower; marked as not measured",      \
     0.001,                                                                                        \
     1e6,                                                                                          \
     NULL,                                                                                         \
     NULL},                                                                                        \
    {                                                                                              \
        "energy-rate", 0, OPTION_NUMBER, &(request).rate, "HZ",                                    \
            "how often sensors that show power, not energy, are read\n(default: 20)", 0.1, 1000,   \
            NULL, NULL                                                                             \
    }

/* Counters that do not move are found out, which takes a tenth of a second where there are any.
 * device: what the work runs on, or NULL. */
enum itera_status meter_open(const struct meter_request *request,
                             const struct itera_device_info *device, struct itera_meter **meter);

/* All of a figure; what is not known is null. */
json_t *meter_figure_json(const struct itera_energy_figure *figure);

/* What work on `tokens` tokens took, as the "energy" of a result: {"joules_per_token", "source",
 * "measured"} and the rest of figure[0], with the other scopes as "others"; JSON's null where
 * figure[0] has no joules (its reason says why). */
json_t *meter_energy_json(const struct itera_energy *energy, double tokens);

#endif
