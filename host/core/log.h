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

/* Why something cannot be had, for questions to which "no" is an answer and no error. */
struct itera_reason {
    char text[1024];
};

/* Gives the reason (`why` may be NULL) and returns ITERA_ERR_UNSUPPORTED. Unlike itera_fail it logs
 * nothing and leaves the last error as it was. */
__attribute__((format(printf, 2, 3))) enum itera_status itera_refuse(struct itera_reason *why,
                                                                     const char *format, ...);

/* What may fail without its caller failing, such as a cache or a measurement. Between begin and end
 * no error of this thread is logged; end gives back the last error that was there before, and keeps
 * the one of the meantime in `error`, "" where there was none. Other messages are logged as ever.
 * Attempts nest. */
struct itera_attempt {
    char before[1024], error[1024];
};
void itera_attempt_begin(struct itera_attempt *attempt);
void itera_attempt_end(struct itera_attempt *attempt);

/* While the sum of `change` is above 0, nothing that this thread does is logged (errors are still
 * stored): for parity checks, which report every failure in their own way and make a device compile
 * and measure thousands of programs. */
void itera_log_hush(int change);

#endif
