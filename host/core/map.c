/* Files to read. A mapped page beyond the end of a file that another process cut meanwhile is a
 * SIGBUS: small files are read into memory, large ones are mapped under a handler that puts pages
 * of zeros there and makes a note of it, for itera_map_check. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/log.h"

enum { MAX_GUARDED = 4096 };

/* A mapped file. The handler reads `start`, `end` and writes `cut`; the rest is under the lock. */
static struct guarded {
    _Atomic uintptr_t start; /* 0: not in use */
    _Atomic uintptr_t end;   /* of its last page */
    atomic_bool cut;
    char *path;
    dev_t device;
    ino_t inode;
    off_t size;
} guarded[MAX_GUARDED];
static atomic_int guarded_used; /* those beyond were never in use */
static pthread_mutex_t guarded_lock = PTHREAD_MUTEX_INITIALIZER;

static struct sigaction before;
static uintptr_t page_bytes;

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    const int error = errno;
    const uintptr_t at = (uintptr_t)info->si_addr;
    const int n = atomic_load(&guarded_used);
    for (int i = 0; i < n && info->si_code > 0; i++) {
        const uintptr_t start = atomic_load(&guarded[i].start), end = atomic_load(&guarded[i].end);
        if (!start || at < start || at >= end)
            continue;
        const uintptr_t page = at - at % page_bytes;
        atomic_store(&guarded[i].cut, true);
        if (mmap((void *)page, end - page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                 0) != MAP_FAILED) {
            errno = error;
            return;
        }
    }
    errno = error;
    if (before.sa_flags & SA_SIGINFO)
        before.sa_sigaction(number, info, context);
    else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
        before.sa_handler(number);
    else
        signal(number, SIG_DFL); /* the access is tried again, and ends the process */
}

/* Under the lock. Again for every file, for the process may have set a handler since. */
static bool install(void)
{
    struct sigaction now, action = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    action.sa_sigaction = on_bus_error;
    sigemptyset(&action.sa_mask);
    page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (sigaction(SIGBUS, NULL, &now) != 0)
        return false;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_bus_error)
        return true;
    before = now;
    return sigaction(SIGBUS, &action, NULL) == 0;
}

static enum itera_status fail_errno(const char *path, const char *what)
{
    int error = errno;
    enum itera_status status = error == ENOMEM ? ITERA_ERR_MEMORY : ITERA_ERR_IO;
    return itera_fail(status, "%s: %s: %s", path, what, strerror(error));
}

static enum itera_status fail_cut(const char *path)
{
    return itera_fail(ITERA_ERR_IO,
                      "%s: was truncated, or its disk failed, while it was read; restore it and "
                      "try again",
                      path);
}

static enum itera_status guard(const char *path, const struct stat *st, void *data)
{
    char *copy = strdup(path);
    if (!copy)
        return itera_fail(ITERA_ERR_MEMORY, "%s: out of memory", path);
    pthread_mutex_lock(&guarded_lock);
    bool installed = install();
    int i = 0, n = atomic_load(&guarded_used);
    while (i < n && atomic_load(&guarded[i].start))
        i++;
    if (installed && i < MAX_GUARDED) {
        struct guarded *g = &guarded[i];
        const uintptr_t start = (uintptr_t)data, size = (uintptr_t)st->st_size;
        g->path = copy;
        g->device = st->st_dev;
        g->inode = st->st_ino;
        g->size = st->st_size;
        atomic_store(&g->cut, false);
        atomic_store(&g->end, start + (size + page_bytes - 1) / page_bytes * page_bytes);
        atomic_store(&g->start, start);
        if (i == n)
            atomic_store(&guarded_used, n + 1);
    }
    pthread_mutex_unlock(&guarded_lock);
    if (installed && i < MAX_GUARDED)
        return ITERA_OK;
    free(copy);
    if (!installed)
        return itera_fail(ITERA_ERR_IO, "%s: cannot be mapped: no handler for SIGBUS", path);
    return itera_fail(ITERA_ERR_LIMIT, "%s: more than %d large files are open", path, MAX_GUARDED);
}

/* Under the lock: whether what was mapped is no longer all there. A page that the end of the file
 * now lies in reads as zeros without a signal, so that its size is asked for, too; under its name
 * may be another file by now, and then this one is complete. */
static bool is_cut(struct guarded *g)
{
    struct stat st;
    if (!atomic_load(&g->cut) && stat(g->path, &st) == 0 && st.st_dev == g->device &&
        st.st_ino == g->inode && st.st_size < g->size)
        atomic_store(&g->cut, true);
    return atomic_load(&g->cut);
}

/* Of the map that begins at data, or of all when that is NULL. */
static enum itera_status check(const void *data)
{
    enum itera_status status = ITERA_OK;
    pthread_mutex_lock(&guarded_lock);
    for (int i = 0; i < atomic_load(&guarded_used) && !status; i++) {
        const uintptr_t start = atomic_load(&guarded[i].start);
        if (start && (!data || start == (uintptr_t)data) && is_cut(&guarded[i]))
            status = fail_cut(guarded[i].path);
    }
    pthread_mutex_unlock(&guarded_lock);
    return status;
}

enum itera_status itera_map_check(const struct itera_map *map)
{
    return map->mapped ? check(map->data) : ITERA_OK;
}

enum itera_status itera_map_check_all(void)
{
    return check(NULL);
}

static enum itera_status read_small(const char *path, int fd, size_t size, struct itera_map *map)
{
    /* As in a map, tensors that are aligned in the file are so in memory. */
    uint8_t *data = aligned_alloc(64, (size + 63) / 64 * 64);
    if (!data)
        return itera_fail(ITERA_ERR_MEMORY, "%s: out of memory for %zu bytes", path, size);
    for (size_t used = 0; used < size;) {
        ssize_t done = read(fd, data + used, size - used);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            enum itera_status status = done < 0 ? fail_errno(path, "cannot read") : fail_cut(path);
            free(data);
            return status;
        }
        used += (size_t)done;
    }
    map->data = data;
    map->size = size;
    return ITERA_OK;
}

static enum itera_status map_large(const char *path, int fd, const struct stat *st,
                                   struct itera_map *map)
{
    const size_t size = (size_t)st->st_size;
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return fail_errno(path, "cannot map");
    enum itera_status status = guard(path, st, data);
    if (status) {
        munmap(data, size);
        return status;
    }
    *map = (struct itera_map){.data = data, .size = size, .mapped = true};
    return ITERA_OK;
}

enum itera_status itera_map_open(const char *path, struct itera_map *map)
{
    *map = (struct itera_map){0};
    if (!*path)
        return itera_fail(ITERA_ERR_IO, "the name of a file to read is empty");
    /* O_NONBLOCK: opening a pipe by mistake must fail below, not wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fail_errno(path, "cannot open for reading");

    enum itera_status status = ITERA_OK;
    struct stat st;
    if (fstat(fd, &st) != 0)
        status = fail_errno(path, "cannot read the size");
    else if (S_ISDIR(st.st_mode))
        status = itera_fail(ITERA_ERR_IO, "%s: is a directory; expected a file", path);
    else if (!S_ISREG(st.st_mode))
        status =
            itera_fail(ITERA_ERR_IO, "%s: is not a regular file; copy it to a file first", path);
    else if ((uintmax_t)st.st_size > SIZE_MAX / 2)
        status = itera_fail(ITERA_ERR_LIMIT, "%s: %jd bytes do not fit in this address space", path,
                            (intmax_t)st.st_size);
    else if (st.st_size > ITERA_MAP_SMALL)
        status = map_large(path, fd, &st, map);
    else if (st.st_size > 0)
        status = read_small(path, fd, (size_t)st.st_size, map);
    close(fd);
    if (!status && (status = itera_keep_opened(path)))
        itera_map_close(map);
    return status;
}

void itera_map_close(struct itera_map *map)
{
    if (!map)
        return;
    if (map->mapped) {
        pthread_mutex_lock(&guarded_lock);
        for (int i = 0; i < atomic_load(&guarded_used); i++)
            if (atomic_load(&guarded[i].start) == (uintptr_t)map->data) {
                atomic_store(&guarded[i].start, 0);
                free(guarded[i].path);
                guarded[i].path = NULL;
            }
        pthread_mutex_unlock(&guarded_lock);
        munmap((void *)map->data, map->size);
    } else {
        free((void *)map->data);
    }
    *map = (struct itera_map){0};
}
