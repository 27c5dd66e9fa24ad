/* How library code reports errors and messages. It never prints and never exits. */
#ifndef ITERA_CORE_LOG_H
#define ITERA_CORE_LOG_H

#include "itera/status.h"

/* Stores the formatted message as this thread's last error, logs it at error level, and returns
 * `status`, so that a failing function ends with `return itera_fail(...)`. */
__attribute__((format(printf, 2, 3))) enum itera_status itera_fail(enum itera_status status,
                                                                   const char *format, ...);

__attribute__((format(printf, 2, 3))) void itera_log(enum itera_log_level level, const char *format,
                                                     ...);

/* While the sum of `change` is above 0, nothing that this thread does is logged (errors are still
 * stored): for callers that try things and report failures in their own way. */
void itera_log_hush(int change);

#endif
