/* To be preloaded: lets the call number FAULT_AT (from 1) that changes files go wrong, as FAULT_MODE
 * says: "kill" ends the process before it, "eio" and "enospc" fail it and all that write after it,
 * "short" writes half of what it was given. FAULT_COUNT names a file for the number of such calls.
 * tests/faults.sh uses it. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long at, count;
static const char *mode = "";

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("FAULT_AT");
    at = text ? strtol(text, NULL, 10) : 0;
    if (getenv("FAULT_MODE"))
        mode = getenv("FAULT_MODE");
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("FAULT_COUNT");
    FILE *f = path ? fopen(path, "w") : NULL;
    if (f) {
        fprintf(f, "%ld\n", count);
        fclose(f);
    }
}

static void *next(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (!f)
        abort();
    return f;
}

/* Counts a call; true when it must fail, with errno set. A full disk still lets files be renamed
 * and removed. */
static bool fails(bool takes_space)
{
    pthread_mutex_lock(&lock);
    const long number = ++count;
    pthread_mutex_unlock(&lock);
    if (!at || number < at)
        return false;
    if (number == at && !strcmp(mode, "kill"))
        kill(getpid(), SIGKILL);
    if (!strcmp(mode, "eio") && number == at) {
        errno = EIO;
        return true;
    }
    if (!strcmp(mode, "enospc") && takes_space) {
        errno = ENOSPC;
        return true;
    }
    return false;
}

static mode_t mode_of(int flags, va_list list)
{
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, mode_t) : 0;
}

static bool changes(int flags)
{
    return flags & O_CREAT || (flags & O_ACCMODE) != O_RDONLY;
}

int open(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    if (!real)
        real = next("open");
    va_list list;
    va_start(list, flags);
    const mode_t bits = mode_of(flags, list);
    va_end(list);
    return changes(flags) && fails(flags & O_CREAT) ? -1 : real(path, flags, bits);
}

int open64(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    if (!real)
        real = next("open64");
    va_list list;
    va_start(list, flags);
    const mode_t bits = mode_of(flags, list);
    va_end(list);
    return changes(flags) && fails(flags & O_CREAT) ? -1 : real(path, flags, bits);
}

int openat(int folder, const char *path, int flags, ...)
{
    static int (*real)(int, const char *, int, ...);
    if (!real)
        real = next("openat");
    va_list list;
    va_start(list, flags);
    const mode_t bits = mode_of(flags, list);
    va_end(list);
    return changes(flags) && fails(flags & O_CREAT) ? -1 : real(folder, path, flags, bits);
}

ssize_t write(int fd, const void *data, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (!real)
        real = next("write");
    if (fd <= 2) /* what it says */
        return real(fd, data, size);
    if (fails(true))
        return -1;
    return real(fd, data, count == at && !strcmp(mode, "short") && size > 1 ? size / 2 : size);
}

int fsync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = next("fsync");
    return fails(true) ? -1 : real(fd);
}

int rename(const char *from, const char *to)
{
    static int (*real)(const char *, const char *);
    if (!real)
        real = next("rename");
    return fails(false) ? -1 : real(from, to);
}

int mkdir(const char *path, mode_t bits)
{
    static int (*real)(const char *, mode_t);
    if (!real)
        real = next("mkdir");
    return fails(true) ? -1 : real(path, bits);
}

int unlink(const char *path)
{
    static int (*real)(const char *);
    if (!real)
        real = next("unlink");
    return fails(false) ? -1 : real(path);
}

int unlinkat(int folder, const char *path, int flags)
{
    static int (*real)(int, const char *, int);
    if (!real)
        real = next("unlinkat");
    return fails(false) ? -1 : real(folder, path, flags);
}

int rmdir(const char *path)
{
    static int (*real)(const char *);
    if (!real)
        real = next("rmdir");
    return fails(false) ? -1 : real(path);
}
