#include "backend/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "core/clock.h"
#include "core/log.h"
#include "core/number.h"

/* What the child writes: messages as they come, then the result. */
enum { PROBE_MESSAGE, PROBE_RESULT };
struct probe_record {
    int kind;
    int value; /* of a message its level, of a result the status */
    int count; /* bytes of text, or devices, that follow */
};

static int child_pipe = -1;

static void send_bytes(const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        ssize_t done = write(child_pipe, at, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            _exit(1);
        at += done;
        size -= (size_t)done;
    }
}

static void send_message(void *user, enum itera_log_level level, const char *message)
{
    (void)user;
    struct probe_record record = {PROBE_MESSAGE, (int)level, (int)strlen(message)};
    send_bytes(&record, sizeof record);
    send_bytes(message, strlen(message));
}

/* The child: no messages of drivers, no core file, and none of the parent's ways with signals. */
static void probe_in_child(const struct itera_backend *backend, struct itera_device_info *infos,
                           int capacity, pid_t parent)
{
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
#else
    (void)parent;
#endif
    static const int ends[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGPIPE};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        signal(ends[i], SIG_DFL);
    /* A keyboard's interrupt reaches the child too: what it means is for the parent to say. */
    static const int asks[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++)
        signal(asks[i], SIG_IGN);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3 && null >= 0; fd++)
        if (fd != child_pipe)
            dup2(null, fd);
    itera_set_log(send_message, NULL);
    int count = 0;
    enum itera_status status = backend->list(infos, capacity, &count);
    struct probe_record record = {PROBE_RESULT, (int)status, status ? 0 : count};
    send_bytes(&record, sizeof record);
    send_bytes(infos, (size_t)record.count * sizeof *infos);
    _exit(0); /* no exit handlers: neither the parent's nor those of drivers */
}

enum receive { RECEIVED, ENDED, LATE, GARBLED };

static enum receive receive(int fd, void *data, size_t size, double deadline)
{
    char *at = data;
    while (size > 0) {
        double left = deadline - itera_seconds();
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int n = left > 0 ? poll(&ready, 1, (int)(left * 1000) + 1) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            return LATE;
        ssize_t done = n < 0 ? 0 : read(fd, at, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return ENDED;
        at += done;
        size -= (size_t)done;
    }
    return RECEIVED;
}

/* Reads all that the child says. A record that makes no sense is the work of a broken driver. */
static enum receive read_result(int fd, double deadline, struct itera_device_info *infos,
                                int capacity, int *count, enum itera_status *status)
{
    char error[1024] = "the devices cannot be listed";
    for (;;) {
        struct probe_record record;
        enum receive got = receive(fd, &record, sizeof record, deadline);
        if (got != RECEIVED)
            return got;
        if (record.kind == PROBE_RESULT) {
            if (record.count < 0 || record.count > capacity)
                return GARBLED;
            got = receive(fd, infos, (size_t)record.count * sizeof *infos, deadline);
            *count = got == RECEIVED ? record.count : 0;
            *status = ITERA_OK;
            if (got == RECEIVED && record.value)
                *status = itera_fail((enum itera_status)record.value, "%s", error);
            return got;
        }
        char text[2048];
        if (record.kind != PROBE_MESSAGE || record.count < 0 || (size_t)record.count >= sizeof text)
            return GARBLED;
        got = receive(fd, text, (size_t)record.count, deadline);
        if (got != RECEIVED)
            return got;
        text[record.count] = '\0';
        if (record.value == ITERA_LOG_ERROR)
            snprintf(error, sizeof error, "%.1000s", text); /* logged with the result */
        else
            itera_log((enum itera_log_level)record.value, "%s", text);
    }
}

static enum itera_status warn_broken(const struct itera_backend *backend, const char *how)
{
    itera_log(ITERA_LOG_WARNING,
              "%s: no devices, for a driver %s when asked what it has (%s:0 by name tries it here)",
              backend->name, how, backend->name);
    return ITERA_ERR_DEVICE;
}

enum itera_status itera_probe(const struct itera_backend *backend, double seconds,
                              struct itera_device_info *infos, int capacity, int *count)
{
    *count = 0;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return warn_broken(backend, "cannot be given a pipe to answer by");
    const double deadline = itera_seconds() + seconds;
    const pid_t parent = getpid();
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        child_pipe = ends[1];
        probe_in_child(backend, infos, capacity, parent);
    }
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return warn_broken(backend, "cannot be given a process of its own");
    }
    enum itera_status status = ITERA_OK;
    enum receive got = read_result(ends[0], deadline, infos, capacity, count, &status);
    close(ends[0]);
    if (got != ENDED)
        kill(child, SIGKILL); /* what it had to say is said */
    int state = 0;
    pid_t waited;
    while ((waited = waitpid(child, &state, 0)) < 0 && errno == EINTR)
        ;
    if (got == RECEIVED)
        return status;
    char how[96] = "ended the process";
    if (got == LATE)
        itera_format(how, sizeof how, "gave no answer in %.3g seconds", seconds);
    else if (got == GARBLED)
        snprintf(how, sizeof how, "gave an answer that makes no sense");
    else if (waited == child && WIFSIGNALED(state)) /* else the host reaps all children itself */
        snprintf(how, sizeof how, "crashed (%s)", strsignal(WTERMSIG(state)));
    return warn_broken(backend, how);
}
