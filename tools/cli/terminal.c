#include "cli/terminal.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "itera/tokenizer.h"

static const char replacement[] = "\xEF\xBF\xBD";

/* How many bytes of the control character begin at `at`, which is valid UTF-8 that ends with a NUL;
 * 0 when it is another. */
static size_t control(const unsigned char *at)
{
    if (at[0] < 0x20 || at[0] == 0x7f)
        return 1;
    if (at[0] == 0xc2 && at[1] < 0xa0)
        return 2; /* U+0080 to U+009F */
    if (at[0] == 0xd8 && at[1] == 0x9c)
        return 2; /* U+061C, Arabic letter mark */
    if (at[0] == 0xe2 && at[1] == 0x80)
        /* U+200E, U+200F: marks; U+2028 to U+202E: separators, embeddings and overrides */
        return at[2] == 0x8e || at[2] == 0x8f || (at[2] >= 0xa8 && at[2] <= 0xae) ? 3 : 0;
    if (at[0] == 0xe2 && at[1] == 0x81)
        return at[2] >= 0xa6 && at[2] <= 0xaf ? 3
                                              : 0; /* U+2066 to U+206F: isolates, old controls */
    return 0;
}

/* The same of text that is valid UTF-8, of `size` bytes and a NUL. */
static size_t defuse(const char *text, size_t size, bool lines, char *out)
{
    const unsigned char *at = (const unsigned char *)text, *end = at + size;
    char *to = out;
    while (at < end) {
        const size_t length = *at == '\t' || (lines && *at == '\n') ? 0 : control(at);
        if (length == 0) {
            *to++ = (char)*at++;
            continue;
        }
        if (length == 1) {
            *to++ = '\xE2';
            *to++ = '\x90';
            *to++ = (char)(*at == 0x7f ? 0xa1 : 0x80 + *at);
        } else {
            memcpy(to, replacement, 3);
            to += 3;
        }
        at += length;
    }
    *to = '\0';
    return (size_t)(to - out);
}

enum { CHUNK = 256 };

/* At most CHUNK bytes of a stream, the last of it or not, to TERMINAL_ROOM(CHUNK) bytes of `out`. */
static size_t filter(struct itera_utf8_stream *stream, const char *text, size_t size, bool last,
                     bool lines, char *out)
{
    char valid[ITERA_UTF8_ROOM(CHUNK) + ITERA_UTF8_ROOM(0) + 1];
    size_t length = itera_utf8_stream_push(stream, text, size, valid);
    if (last)
        length += itera_utf8_stream_finish(stream, valid + length);
    valid[length] = '\0';
    return defuse(valid, length, lines, out);
}

size_t terminal_harmless(const char *text, size_t size, bool lines, char *out)
{
    struct itera_utf8_stream stream = {0};
    size_t used = 0;
    do {
        const size_t n = size < CHUNK ? size : CHUNK;
        size -= n;
        used += filter(&stream, text, n, size == 0, lines, out + used);
        text += n;
    } while (size);
    return used;
}

/* ---- stdout ---------------------------------------------------------------------------------- */

static struct {
    bool guarded;
    atomic_bool in_line;
    struct itera_utf8_stream stream;
} shown;

bool terminal_messages(void)
{
    return isatty(STDERR_FILENO);
}

#if defined(__GLIBC__)
static bool write_all(const char *text, size_t size)
{
    while (size) {
        ssize_t done = write(STDOUT_FILENO, text, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        text += done;
        size -= (size_t)done;
    }
    return true;
}

static ssize_t write_harmless(void *cookie, const char *text, size_t size)
{
    (void)cookie;
    char out[TERMINAL_ROOM(CHUNK)];
    for (size_t at = 0; at < size;) {
        const size_t n = size - at < CHUNK ? size - at : CHUNK;
        const size_t length = filter(&shown.stream, text + at, n, false, true, out);
        if (!write_all(out, length))
            return at ? (ssize_t)at : 0; /* what stdio takes for an error, with errno */
        if (length)
            atomic_store(&shown.in_line, out[length - 1] != '\n');
        at += n;
    }
    return (ssize_t)size;
}

static int close_harmless(void *cookie)
{
    (void)cookie;
    char out[ITERA_UTF8_ROOM(0)];
    const size_t length = itera_utf8_stream_finish(&shown.stream, out);
    return write_all(out, length) ? 0 : -1;
}

void terminal_guard_stdout(void)
{
    if (!isatty(STDOUT_FILENO))
        return;
    FILE *guard = fopencookie(
        NULL, "w", (cookie_io_functions_t){.write = write_harmless, .close = close_harmless});
    if (!guard)
        return;
    setvbuf(guard, NULL, _IOLBF, BUFSIZ);
    stdout = guard;
    shown.guarded = true;
}
#else
void terminal_guard_stdout(void)
{
}
#endif

void terminal_end_line(void)
{
    if (!shown.guarded || !terminal_messages())
        return;
    fflush(stdout);
    if (atomic_load(&shown.in_line)) {
        fputc('\n', stdout);
        fflush(stdout);
    }
}
