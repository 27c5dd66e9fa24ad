/* The files that this process reads and must not replace. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/log.h"
#include "itera/file.h"

/* Paths and not inodes: the number of a file that was replaced and is gone is soon another's. */
static struct {
    pthread_mutex_t lock;
    char **path;
    size_t n, room;
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};
static atomic_bool keep_read;

/* With the folder that it is in now, which the process may leave. NULL: no memory. */
static char *absolute(const char *path)
{
    char *folder = *path == '/' ? NULL : getcwd(NULL, 0), *whole = NULL;
    if (*path == '/' || !folder)
        return strdup(path);
    if (asprintf(&whole, "%s/%s", folder, path) < 0)
        whole = NULL;
    free(folder);
    return whole;
}

static bool is_there(const char *path)
{
    for (size_t i = 0; i < kept.n; i++)
        if (strcmp(kept.path[i], path) == 0)
            return true;
    return false;
}

enum itera_status itera_file_keep(const char *path)
{
    char *whole = absolute(path);
    bool memory = whole != NULL;
    pthread_mutex_lock(&kept.lock);
    if (memory && !is_there(whole)) {
        if (kept.n == kept.room) {
            const size_t room = kept.room ? 2 * kept.room : 16;
            char **grown = realloc(kept.path, room * sizeof *grown);
            if (grown) {
                kept.path = grown;
                kept.room = room;
            }
        }
        memory = kept.n < kept.room;
        if (memory) {
            kept.path[kept.n++] = whole;
            whole = NULL;
        }
    }
    pthread_mutex_unlock(&kept.lock);
    free(whole);
    /* Without the lock: the program's log may come back here. */
    return memory ? ITERA_OK : itera_fail(ITERA_ERR_MEMORY, "%s: out of memory for its name", path);
}

void itera_file_keep_read(bool keep)
{
    atomic_store(&keep_read, keep);
}

enum itera_status itera_keep_opened(const char *path)
{
    return atomic_load(&keep_read) ? itera_file_keep(path) : ITERA_OK;
}

enum itera_status itera_file_check_output(const char *path)
{
    struct stat out, in;
    bool read = false;
    if (stat(path, &out) != 0 || !S_ISREG(out.st_mode))
        return ITERA_OK;
    pthread_mutex_lock(&kept.lock);
    for (size_t i = 0; i < kept.n && !read; i++)
        read = stat(kept.path[i], &in) == 0 && in.st_dev == out.st_dev && in.st_ino == out.st_ino;
    pthread_mutex_unlock(&kept.lock);
    return read ? itera_fail(ITERA_ERR_IO, "%s: is what is read; write to another file", path)
                : ITERA_OK;
}
