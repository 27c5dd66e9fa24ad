/* Asking a backend for its devices without loading its drivers into this process. */
#ifndef ITERA_BACKEND_PROBE_H
#define ITERA_BACKEND_PROBE_H

#include "backend/backend.h"

/* A driver that needs longer to say what it has is taken for one that hangs. */
#define ITERA_PROBE_SECONDS 20

/* As backend->list, but called in a child process, which hands on its result and its messages. A
 * driver that ends the child, or does not come to an end within `seconds`, is a warning and
 * ITERA_ERR_DEVICE; nothing of it is loaded here, and what it prints is dropped. */
enum itera_status itera_probe(const struct itera_backend *backend, double seconds,
                              struct itera_device_info *infos, int capacity, int *count);

#endif
