/* The options of a command that runs on one device, and what it says of ops that the device lacks.
 */
#ifndef ITERA_TOOLS_DEVICE_REQUEST_H
#define ITERA_TOOLS_DEVICE_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "itera/device.h"

struct device_request {
    const char *id; /* NULL: auto */
    int64_t threads;
    const char *fallback;
};

/* Rows of a command_option table that fill `request`. */
#define DEVICE_OPTIONS(request)                                                                    \
    {"device",                                                                                     \
     'd',                                                                                          \
     OPTION_STRING,                                                                                \
     &(request).id,                                                                                \
     "D",                                                                                          \
     "device to run on: cpu, opencl:N, vulkan:N (default: auto,\nthe best there is; see itera "    \
     "devices)",                                                                                   \
     0,                                                                                            \
     0,                                                                                            \
     NULL,                                                                                         \
     NULL},                                                                                        \
        {"threads",                                                                                \
         't',                                                                                      \
         OPTION_INTEGER,                                                                           \
         &(request).threads,                                                                       \
         "N",                                                                                      \
         "CPU threads (default: one per processor)",                                               \
         1,                                                                                        \
         1024,                                                                                     \
         NULL,                                                                                     \
         NULL},                                                                                    \
        FALLBACK_OPTION(request)
#define FALLBACK_OPTION(request)                                                                   \
    {                                                                                              \
        "fallback", 0, OPTION_CHOICE, &(request).fallback, "POLICY",                               \
            "ops that the device lacks: report (they run on the CPU\nand are listed; the "         \
            "default) or refuse (an error)",                                                       \
            0, 0, "report|refuse", NULL                                                            \
    }

/* A row that sets `exact` of struct itera_load_options. */
#define EXACT_OPTION(exact)                                                                        \
    {                                                                                              \
        "exact", 0, OPTION_FLAG, &(exact), NULL,                                                   \
            "do not round activations: to int8 with q8 or q4 weights, to\nf16 on matrix units", 0, \
            0, NULL, NULL                                                                          \
    }

/* A row that sets what precision_take reads. */
#define PRECISION_OPTION(precision)                                                                \
    {                                                                                              \
        "precision", 0, OPTION_CHOICE, &(precision), "P",                                          \
            "of products on matrix units: f16 rounds activations and\nweights as they are read, "  \
            "f32 nothing (as --exact); default: f16\nwhere the weights are f16, q8 or q4",         \
            0, 0, "f32|f16", NULL                                                                  \
    }
/* Sets `exact` and `half` of the options of a model; NULL leaves them. */
void precision_take(const char *precision, bool *exact, bool *half);

/* "cpu x2", or only the id of a device that has no threads of ours. Returns out. */
enum { DEVICE_LABEL = 80 };
const char *device_label(const char *id, int threads, char *out, size_t size);

enum itera_status device_open(const struct device_request *request, struct itera_device **device);

/* The ops that ran on the CPU instead, as JSON strings; the caller owns the array. */
json_t *device_fallback_json(const struct itera_device *device);
/* Names them on stderr, if there are any. device may be NULL. */
void device_report_fallback(const struct itera_device *device);

#endif
