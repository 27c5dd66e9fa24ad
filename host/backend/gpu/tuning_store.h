/* What was measured of a device's kernels, kept on disk. */
#ifndef ITERA_BACKEND_GPU_TUNING_STORE_H
#define ITERA_BACKEND_GPU_TUNING_STORE_H

#include "itera/status.h"

/* Measured choices, kept in the cache folder as JSON, one file per device, driver and kernel
 * sources (`identity` names them). A missing, broken or foreign file is an empty one. */
struct itera_gpu_tuning;
enum itera_status itera_gpu_tuning_open(const char *identity, struct itera_gpu_tuning **out);
void itera_gpu_tuning_close(struct itera_gpu_tuning **tuning);
/* The name of the best candidate, or NULL. */
const char *itera_gpu_tuning_find(const struct itera_gpu_tuning *tuning, const char *key);
enum itera_status itera_gpu_tuning_set(struct itera_gpu_tuning *tuning, const char *key,
                                       const char *name, double seconds);
void itera_gpu_tuning_clear(struct itera_gpu_tuning *tuning); /* on disk too, when it is saved */
/* Writes what was set since it was opened, merged with what other processes wrote meanwhile. */
enum itera_status itera_gpu_tuning_save(struct itera_gpu_tuning *tuning);

#endif
