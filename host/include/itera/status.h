/* Status codes, the last error, and the log callback. */
#ifndef ITERA_STATUS_H
#define ITERA_STATUS_H

#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Every fallible function returns one of these: 0 is success, negative an error. The sentence that
 * says what failed, where, and what to do is in itera_last_error() and goes to the log callback. */
enum itera_status {
    ITERA_OK = 0,
    ITERA_ERR_ARGUMENT = -1,    /* a caller's argument is out of its documented range */
    ITERA_ERR_MEMORY = -2,      /* host or device memory ran out */
    ITERA_ERR_IO = -3,          /* the operating system refused a read, write or map */
    ITERA_ERR_FORMAT = -4,      /* a file's content is not what its format promises */
    ITERA_ERR_SHAPE = -5,       /* tensors do not fit each other or the op's contract */
    ITERA_ERR_UNSUPPORTED = -6, /* a valid request that this build, device or op cannot serve */
    ITERA_ERR_DEVICE = -7,      /* a device is missing, lost, or failed */
    ITERA_ERR_LIMIT = -8,       /* a documented limit would be exceeded */
    ITERA_ERR_CANCELLED = -9,   /* a callback asked to stop */
};

/* Lower-case name of a status ("ok", "format"), never NULL. */
ITERA_API const char *itera_status_name(enum itera_status status);

/* The message of the last error on this thread; "" when there was none. What a call tried and could
 * do without is none, such as a kernel that the CPU stands in for. Valid until the next failing call
 * on the same thread. */
ITERA_API const char *itera_last_error(void);

enum itera_log_level { ITERA_LOG_ERROR, ITERA_LOG_WARNING, ITERA_LOG_INFO, ITERA_LOG_DEBUG };

/* Receives one line without newline. May be called from any thread. Numbers are as in C's locale,
 * here as in every file that the library writes and reads, whatever the program's setlocale chose. */
typedef void itera_log_fn(void *user, enum itera_log_level level, const char *message);

/* Installs the process's log callback; NULL (the default) drops messages. Not to be called while
 * another thread is inside the library. */
ITERA_API void itera_set_log(itera_log_fn *fn, void *user);

#ifdef __cplusplus
}
#endif
#endif
