#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/number.h"

static _Thread_local char last_error[1024];
static _Thread_local int hushed, attempts;
static itera_log_fn *log_fn;
static void *log_user;

const char *itera_status_name(enum itera_status status)
{
    switch (status) {
    case ITERA_OK:
        return "ok";
    case ITERA_ERR_ARGUMENT:
        return "argument";
    case ITERA_ERR_MEMORY:
        return "memory";
    case ITERA_ERR_IO:
        return "io";
    case ITERA_ERR_FORMAT:
        return "format";
    case ITERA_ERR_SHAPE:
        return "shape";
    case ITERA_ERR_UNSUPPORTED:
        return "unsupported";
    case ITERA_ERR_DEVICE:
        return "device";
    case ITERA_ERR_LIMIT:
        return "limit";
    case ITERA_ERR_CANCELLED:
        return "cancelled";
    }
    return "unknown";
}

const char *itera_last_error(void)
{
    return last_error;
}

void itera_set_log(itera_log_fn *fn, void *user)
{
    log_fn = fn;
    log_user = user;
}

/* Formats into out. What is too long (a path of thousands of bytes) loses its middle: the reason
 * stands at the end. */
static void format_message(char *out, size_t size, const char *format, va_list args)
{
    char text[8192];
    static const char gap[] = " ... ";
    int printed = itera_format_args(text, sizeof text, format, args);
    size_t length = printed < 0 ? 0 : strlen(text);
    text[length] = '\0';
    if (length < size) {
        memcpy(out, text, length + 1);
        return;
    }
    size_t head = size / 2, tail = size - head - sizeof gap;
    memcpy(out, text, head);
    memcpy(out + head, gap, sizeof gap - 1);
    memcpy(out + head + sizeof gap - 1, text + length - tail, tail + 1);
}

enum itera_status itera_fail(enum itera_status status, const char *format, ...)
{
    /* Formatted aside first: an argument may be the previous last error. */
    char message[sizeof last_error];
    va_list args;
    va_start(args, format);
    format_message(message, sizeof message, format, args);
    va_end(args);
    snprintf(last_error, sizeof last_error, "%s", message);
    if (log_fn && hushed <= 0 && !attempts)
        log_fn(log_user, ITERA_LOG_ERROR, last_error);
    return status;
}

enum itera_status itera_refuse(struct itera_reason *why, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (why)
        format_message(why->text, sizeof why->text, format, args);
    va_end(args);
    return ITERA_ERR_UNSUPPORTED;
}

void itera_attempt_begin(struct itera_attempt *attempt)
{
    _Static_assert(sizeof attempt->before == sizeof last_error, "an attempt keeps a last error");
    memcpy(attempt->before, last_error, sizeof last_error);
    attempt->error[0] = last_error[0] = '\0';
    attempts++;
}

void itera_attempt_end(struct itera_attempt *attempt)
{
    memcpy(attempt->error, last_error, sizeof last_error);
    memcpy(last_error, attempt->before, sizeof last_error);
    attempts--;
}

void itera_log(enum itera_log_level level, const char *format, ...)
{
    if (!log_fn || hushed > 0)
        return;
    char message[1024];
    va_list args;
    va_start(args, format);
    format_message(message, sizeof message, format, args);
    va_end(args);
    log_fn(log_user, level, message);
}

void itera_log_hush(int change)
{
    hushed += change;
}
