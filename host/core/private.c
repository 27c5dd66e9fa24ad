#include "core/private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/file.h"
#include "core/log.h"

struct key_file {
    char magic[16];
    uint8_t key[ITERA_PRIVATE_KEY];
};
static const char key_magic[16] = "itera-key 1\n";

static enum itera_status fail_errno(const char *path, const char *what)
{
    int error = errno;
    return itera_fail(error == ENOMEM ? ITERA_ERR_MEMORY : ITERA_ERR_IO, "%s: %s: %s", path, what,
                      strerror(error));
}

const char *itera_private_defect(const struct stat *st)
{
    if (S_ISLNK(st->st_mode))
        return "is a symbolic link";
    if (!S_ISREG(st->st_mode))
        return "is not a regular file";
    if (st->st_uid != geteuid() && st->st_uid != 0)
        return "belongs to another user";
    return st->st_mode & (S_IWGRP | S_IWOTH) ? "can be written by others" : NULL;
}

const char *itera_secret_defect(const struct stat *st)
{
    const char *why = itera_private_defect(st);
    if (!why && st->st_uid != geteuid())
        why = "belongs to another user";
    if (!why && st->st_mode & (S_IRWXG | S_IRWXO))
        why = "can be read by others";
    return why;
}

/* The open file, or -1 with errno. */
static int open_plain(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

static bool read_all(int fd, uint8_t *data, size_t size)
{
    for (size_t used = 0; used < size;) {
        ssize_t done = read(fd, data + used, size - used);
        if (done < 0 && errno == EINTR)
            continue;
        if (done == 0)
            errno = EIO; /* it was cut meanwhile */
        if (done <= 0)
            return false;
        used += (size_t)done;
    }
    return true;
}

static enum itera_status refuse(const char *path, const char *why)
{
    return itera_fail(ITERA_ERR_IO, "%s %s; remove it", path, why);
}

enum itera_status itera_private_read(const char *path, size_t limit, void **data, size_t *bytes)
{
    *data = NULL;
    *bytes = 0;
    int fd = open_plain(path);
    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return ITERA_OK;
        return errno == ELOOP ? refuse(path, "is a symbolic link")
                              : fail_errno(path, "cannot open for reading");
    }
    struct stat st;
    enum itera_status status = ITERA_OK;
    uint8_t *content = NULL;
    const char *why = NULL;
    if (fstat(fd, &st) != 0)
        status = fail_errno(path, "cannot read the size");
    else if ((why = itera_private_defect(&st)))
        status = refuse(path, why);
    else if ((uintmax_t)st.st_size > limit)
        status = itera_fail(ITERA_ERR_LIMIT, "%s: %jd bytes, expected at most %zu", path,
                            (intmax_t)st.st_size, limit);
    else if (!(content = malloc((size_t)st.st_size + 1)))
        status = itera_fail(ITERA_ERR_MEMORY, "%s: out of memory for %jd bytes", path,
                            (intmax_t)st.st_size);
    else if (!read_all(fd, content, (size_t)st.st_size))
        status = fail_errno(path, "cannot read");
    close(fd);
    if (status) {
        free(content);
        return status;
    }
    content[st.st_size] = '\0';
    *data = content;
    *bytes = (size_t)st.st_size;
    return ITERA_OK;
}

/* Reads the key; *usable is false when there is none, or half of one: another process is writing
 * it, or was killed in the middle. */
static enum itera_status read_key(const char *path, uint8_t *key, bool *usable)
{
    struct key_file file;
    struct stat st;
    *usable = false;
    int fd = open_plain(path);
    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return ITERA_OK;
        return errno == ELOOP ? refuse(path, "is a symbolic link")
                              : fail_errno(path, "cannot open for reading");
    }
    enum itera_status status = ITERA_OK;
    const char *why = NULL;
    if (fstat(fd, &st) != 0)
        status = fail_errno(path, "cannot read the size");
    else if ((why = itera_secret_defect(&st)))
        status = refuse(path, why);
    else if (st.st_size == sizeof file && read_all(fd, (uint8_t *)&file, sizeof file) &&
             !memcmp(file.magic, key_magic, sizeof key_magic))
        *usable = true;
    close(fd);
    if (*usable)
        memcpy(key, file.key, sizeof file.key);
    return status;
}

/* Of several processes at once, one makes the file. */
static enum itera_status make_key(const char *path)
{
    struct key_file file;
    memcpy(file.magic, key_magic, sizeof key_magic);
    if (getentropy(file.key, sizeof file.key) != 0)
        return fail_errno(path, "no random numbers for it");
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return errno == EEXIST ? ITERA_OK : fail_errno(path, "cannot create");
    enum itera_status status = ITERA_OK;
    if (write(fd, &file, sizeof file) != (ssize_t)sizeof file || fsync(fd) != 0) {
        status = fail_errno(path, "cannot write");
        unlink(path);
    }
    close(fd);
    return status;
}

enum itera_status itera_private_key(const char *folder, uint8_t key[ITERA_PRIVATE_KEY])
{
    enum { WAITS = 50 };
    char path[1024];
    bool usable = false;
    enum itera_status status = itera_path_join(path, sizeof path, folder, "key");
    for (int i = 0; !status && !usable && i < 2 * WAITS; i++) {
        status = make_key(path);
        if (!status)
            status = read_key(path, key, &usable);
        if (status || usable)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        if (i == WAITS)
            unlink(path); /* the user's own, as read_key saw, and nobody completes it */
    }
    if (!status && !usable)
        status = itera_fail(ITERA_ERR_IO, "%s: is no key; remove it", path);
    return status;
}
