/* The files that this process reads and must not replace. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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

static bool is_there(const char *path)
{
    for (size_t i = 0; i < kept.n; i++)
        if (strcmp(kept.path[i], path) == 0)
            return true;
    return false;
}

enum itera_status itera_file_keep(const char *path)
{
    enum itera_status status = ITERA_OK;
    pthread_mutex_lock(&kept.lock);
    if (!is_there(path)) {
        if (kept.n == kept.room) {
            const size_t room = kept.room ? 2 * kept.room : 16;
            char **grown = realloc(kept.path, room * sizeof *grown);
            if (grown) {
                kept.path = grown;
                kept.room = room;
            }
        }
        char *copy = kept.n < kept.room ? strdup(path) : NULL;
        if (copy)
            kept.path[kept.n++] = copy;
        else
            status = itera_fail(ITERA_ERR_MEMORY, "%s: out of memory for its name", path);
    }
    pthread_mutex_unlock(&kept.lock);
    return status;
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
    enum itera_status status = ITERA_OK;
    if (stat(path, &out) != 0 || !S_ISREG(out.st_mode))
        return ITERA_OK;
    pthread_mutex_lock(&kept.lock);
    for (size_t i = 0; i < kept.n && !status; i++)
        if (stat(kept.path[i], &in) == 0 && in.st_dev == out.st_dev && in.st_ino == out.st_ino)
            status = itera_fail(ITERA_ERR_IO, "%s: is what is read; write to another file", path);
    pthread_mutex_unlock(&kept.lock);
    return status;
}
