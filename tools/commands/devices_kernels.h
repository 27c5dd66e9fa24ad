/* itera devices --kernels: see devices.c. */
#ifndef ITERA_TOOLS_DEVICES_KERNELS_H
#define ITERA_TOOLS_DEVICES_KERNELS_H

#include "cli/options.h"
#include "itera/kernels.h"

/* Prints, or writes as JSON, what the drivers of these devices (NULL or "all" among the ids: of all but
 * the CPU) made of their kernels. Returns the exit code. */
int devices_kernels_run(const struct itera_device_info *infos, int count,
                        const struct option_names *ids, const struct itera_kernel_options *options,
                        const struct option_optional *json);

#endif
