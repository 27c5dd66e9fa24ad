#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/private.h"
#include "itera/file.h"

/* Small appends are gathered: a safetensors writer sends many tensors of a few bytes. */
#define WRITE_BUFFER ((size_t)256 * 1024)

struct itera_writer {
    int fd;
    bool direct;     /* the target is a device or pipe: written in place, nothing to rename */
    bool failed;     /* an append failed: the temporary file is gone already */
    char *path;      /* as the caller gave it, for messages */
    char *target;    /* path with symbolic links resolved: what rename replaces */
    char *temporary; /* beside target; NULL when direct */
    size_t used;     /* bytes waiting in buffer */
    unsigned char buffer[WRITE_BUFFER];
};

static enum itera_status fail_errno(const char *path, const char *what)
{
    int error = errno;
    enum itera_status status = error == ENOMEM ? ITERA_ERR_MEMORY : ITERA_ERR_IO;
    return itera_fail(status, "%s: %s: %s", path, what, strerror(error));
}

/* The folder that holds path, in a new string ("." for a bare name). */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    if (slash == path)
        return strdup("/");
    return strndup(path, (size_t)(slash - path));
}

static enum itera_status sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(path, "cannot open the folder");
    enum itera_status status = ITERA_OK;
    /* Some file systems cannot fsync a folder and say EINVAL; there is nothing more to do there. */
    if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP)
        status = fail_errno(path, "cannot fsync the folder");
    close(fd);
    return status;
}

static enum itera_status sync_parent(const char *path)
{
    char *parent = parent_of(path);
    if (!parent)
        return itera_fail(ITERA_ERR_MEMORY, "%s: out of memory", path);
    enum itera_status status = sync_directory(parent);
    free(parent);
    return status;
}

static void writer_free(struct itera_writer *writer)
{
    if (!writer)
        return;
    if (writer->fd >= 0)
        close(writer->fd);
    free(writer->path);
    free(writer->target);
    free(writer->temporary);
    free(writer);
}

/* The process that made the temporary file `name` of the file called base; 0: it is none. */
static long maker_of(const char *name, const char *base)
{
    const size_t length = strlen(base);
    if (strncmp(name, base, length) != 0 || strncmp(name + length, ".tmp.", 5) != 0)
        return 0;
    const char *pid = name + length + 5, *serial = pid + strspn(pid, "0123456789");
    if (serial == pid || *serial != '.' || !serial[1] ||
        serial[1 + strspn(serial + 1, "0123456789")])
        return 0;
    errno = 0;
    const long value = strtol(pid, NULL, 10);
    return errno || value > INT_MAX ? 0 : value;
}

/* A writer holds its temporary file's lock for as long as the file is there, and the lock goes with
 * the process: in containers many processes have the same number, and some file systems keep locks
 * from the machine next door, so that the number and the lock must both say that it is gone. */
static void remove_if_left(int folder, const char *name, long maker)
{
    if (maker != (long)getpid() && (kill((pid_t)maker, 0) == 0 || errno != ESRCH))
        return;
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st, now;
    if (fd < 0)
        return;
    /* Another may have removed it before the lock was ours, and made its own file of that name. */
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
        flock(fd, LOCK_EX | LOCK_NB) == 0 &&
        fstatat(folder, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_dev == st.st_dev &&
        now.st_ino == st.st_ino)
        unlinkat(folder, name, 0);
    close(fd);
}

/* Removes the temporary files of this target that killed processes left. What cannot be removed is
 * in nobody's way. */
static void remove_left(const char *target)
{
    const char *slash = strrchr(target, '/'), *base = slash ? slash + 1 : target;
    char *parent = parent_of(target);
    DIR *folder = parent ? opendir(parent) : NULL;
    free(parent);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        const long maker = maker_of(entry->d_name, base);
        if (maker > 0)
            remove_if_left(dirfd(folder), entry->d_name, maker);
    }
    closedir(folder);
}

/* Creates a file that did not exist beside the target, and locks it. The process id and a counter
 * make names unique among live writers. */
static int create_temporary(struct itera_writer *writer, bool private)
{
    static atomic_uint serial;
    for (int attempt = 0; attempt < 1000; attempt++) {
        unsigned number = atomic_fetch_add(&serial, 1);
        free(writer->temporary);
        if (asprintf(&writer->temporary, "%s.tmp.%ld.%u", writer->target, (long)getpid(), number) <
            0) {
            writer->temporary = NULL;
            errno = ENOMEM;
            return -1;
        }
        int fd =
            open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, private ? 0600 : 0666);
        if (fd < 0 && errno != EEXIST)
            return fd;
        struct stat st;
        /* Without its name it was taken for one that was left, in the moment before the lock. */
        if (fd >= 0 && (flock(fd, LOCK_EX) != 0 || fstat(fd, &st) != 0 || st.st_nlink > 0))
            return fd;
        if (fd >= 0)
            close(fd);
    }
    return -1;
}

static enum itera_status open_writer(const char *path, bool private, struct itera_writer **out)
{
    *out = NULL;
    if (!*path)
        return itera_fail(ITERA_ERR_IO, "the name of a file to write is empty");
    enum itera_status status = ITERA_OK;
    struct itera_writer *writer = malloc(sizeof *writer);
    if (!writer)
        return itera_fail(ITERA_ERR_MEMORY, "%s: out of memory for a writer", path);
    memset(writer, 0, offsetof(struct itera_writer, buffer));
    writer->fd = -1;
    writer->path = strdup(path);
    if (!writer->path) {
        status = itera_fail(ITERA_ERR_MEMORY, "%s: out of memory for a writer", path);
        goto fail;
    }

    struct stat st;
    bool exists = (private ? lstat(path, &st) : stat(path, &st)) == 0;
    if (private && exists && (!S_ISREG(st.st_mode) || st.st_uid != geteuid())) {
        const char *why = itera_private_defect(&st);
        status = itera_fail(ITERA_ERR_IO, "%s %s; remove it", path, why ? why : "is root's");
        goto fail;
    }
    if (exists && S_ISDIR(st.st_mode)) {
        status = itera_fail(ITERA_ERR_IO, "%s: is a directory; expected the name of a file", path);
        goto fail;
    }
    if (exists && !S_ISREG(st.st_mode)) {
        /* /dev/null and pipes: a rename would replace the device itself. */
        writer->direct = true;
        writer->fd = open(path, O_WRONLY | O_CLOEXEC);
        if (writer->fd < 0) {
            status = fail_errno(path, "cannot open for writing");
            goto fail;
        }
        *out = writer;
        return ITERA_OK;
    }

    writer->target = exists && !private ? realpath(path, NULL) : strdup(path);
    if (!writer->target) {
        status = fail_errno(path, "cannot resolve");
        goto fail;
    }
    remove_left(writer->target);
    writer->fd = create_temporary(writer, private);
    if (writer->fd < 0) {
        status = fail_errno(path, "cannot create a temporary file beside it");
        goto fail;
    }
    if ((private || exists) && fchmod(writer->fd, private ? 0600 : st.st_mode & 0777) != 0) {
        status = fail_errno(path, "cannot set the file's permissions");
        unlink(writer->temporary);
        goto fail;
    }
    *out = writer;
    return ITERA_OK;

fail:
    writer_free(writer);
    return status;
}

enum itera_status itera_writer_open(const char *path, struct itera_writer **out)
{
    *out = NULL;
    enum itera_status status = itera_file_check_output(path);
    return status ? status : open_writer(path, false, out);
}

enum itera_status itera_writer_open_private(const char *path, struct itera_writer **out)
{
    return open_writer(path, true, out);
}

/* Closes and removes the temporary file; the message names what the user asked for. */
static enum itera_status writer_fail(struct itera_writer *writer, const char *what)
{
    enum itera_status status = fail_errno(writer->path, what);
    if (writer->fd >= 0)
        close(writer->fd);
    writer->fd = -1;
    if (writer->temporary)
        unlink(writer->temporary);
    writer->failed = true;
    return status;
}

static enum itera_status write_all(struct itera_writer *writer, const unsigned char *data,
                                   size_t size)
{
    while (size > 0) {
        ssize_t done = write(writer->fd, data, size < INT_MAX ? size : INT_MAX);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            if (done == 0)
                errno = ENOSPC;
            return writer_fail(writer, writer->direct ? "cannot write"
                                                      : "cannot write; what was there is kept");
        }
        data += done;
        size -= (size_t)done;
    }
    return ITERA_OK;
}

static enum itera_status flush(struct itera_writer *writer)
{
    size_t used = writer->used;
    writer->used = 0;
    return write_all(writer, writer->buffer, used);
}

enum itera_status itera_writer_append(struct itera_writer *writer, const void *data, size_t size)
{
    if (writer->failed)
        return itera_fail(ITERA_ERR_IO, "%s: an earlier write failed", writer->path);
    if (size == 0)
        return ITERA_OK;
    if (size > WRITE_BUFFER - writer->used) {
        enum itera_status status = flush(writer);
        if (status)
            return status;
        if (size >= WRITE_BUFFER)
            return write_all(writer, data, size);
    }
    memcpy(writer->buffer + writer->used, data, size);
    writer->used += size;
    return ITERA_OK;
}

enum itera_status itera_writer_commit(struct itera_writer **pointer)
{
    struct itera_writer *writer = *pointer;
    *pointer = NULL;
    enum itera_status status;
    if (writer->failed) {
        status = itera_fail(ITERA_ERR_IO, "%s: not saved, a write failed", writer->path);
        goto done;
    }
    status = flush(writer);
    /* What was read from a file that broke off meanwhile is not worth what it would replace. */
    if (!status)
        status = itera_map_check_all();
    if (status) {
        if (writer->temporary && !writer->failed)
            unlink(writer->temporary);
        goto done;
    }
    if (!writer->direct && fsync(writer->fd) != 0) {
        status = writer_fail(writer, "cannot fsync; what was there is kept");
        goto done;
    }
    if (writer->direct) {
        const int closed = close(writer->fd);
        writer->fd = -1;
        if (closed != 0)
            status = writer_fail(writer, "cannot close");
        goto done;
    }
    /* The lock lasts until the temporary name is gone; after fsync, close has nothing to report. */
    if (rename(writer->temporary, writer->target) != 0) {
        status = writer_fail(writer, "cannot rename the temporary file over it");
        goto done;
    }
    status = sync_parent(writer->target);
done:
    writer_free(writer);
    return status;
}

void itera_writer_abort(struct itera_writer **pointer)
{
    if (!pointer || !*pointer)
        return;
    struct itera_writer *writer = *pointer;
    *pointer = NULL;
    if (writer->temporary && !writer->failed)
        unlink(writer->temporary);
    writer_free(writer);
}

enum itera_status itera_file_write(const char *path, const void *data, size_t size)
{
    struct itera_writer *writer = NULL;
    enum itera_status status = itera_writer_open(path, &writer);
    if (!status)
        status = itera_writer_append(writer, data, size);
    if (!status)
        return itera_writer_commit(&writer);
    itera_writer_abort(&writer);
    return status;
}

bool itera_is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool itera_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

enum itera_status itera_make_directory(const char *path)
{
    if (!*path)
        return itera_fail(ITERA_ERR_IO, "the name of a directory to write to is empty");
    char *copy = strdup(path);
    if (!copy)
        return itera_fail(ITERA_ERR_MEMORY, "%s: out of memory", path);
    enum itera_status status = ITERA_OK;
    for (char *end = copy; status == ITERA_OK;) {
        end += strspn(end, "/");
        end += strcspn(end, "/");
        char kept = *end;
        *end = '\0';
        int reason = *copy && mkdir(copy, 0777) != 0 ? errno : 0;
        if (reason && !itera_is_directory(copy)) {
            errno = reason == EEXIST ? ENOTDIR : reason;
            status = fail_errno(copy, "cannot make the directory");
        }
        *end = kept;
        if (!kept)
            break;
    }
    if (status == ITERA_OK && !itera_is_directory(path))
        status = itera_fail(ITERA_ERR_IO, "%s: is not a directory", path);
    free(copy);
    return status;
}

/* Opens the folder name inside parent for reading its entries, never through a symbolic link. */
static DIR *open_folder(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return NULL;
    DIR *folder = fdopendir(fd);
    if (!folder)
        close(fd);
    return folder;
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Deeper trees than this are not ours; the bound keeps recursion and open descriptors small. */
#define MAX_DEPTH 64

static enum itera_status remove_entry(int parent, const char *name, const char *root, int depth)
{
    struct stat st;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? ITERA_OK : fail_errno(root, "cannot remove");
    if (!S_ISDIR(st.st_mode)) {
        if (unlinkat(parent, name, 0) != 0 && errno != ENOENT)
            return fail_errno(root, "cannot remove a file in it");
        return ITERA_OK;
    }
    if (depth == MAX_DEPTH)
        return itera_fail(ITERA_ERR_LIMIT, "%s: folders are nested more than %d deep", root,
                          MAX_DEPTH);
    DIR *folder = open_folder(parent, name);
    if (!folder)
        return fail_errno(root, "cannot open a folder in it");
    enum itera_status status = ITERA_OK;
    struct dirent *entry;
    while (status == ITERA_OK && (errno = 0, entry = readdir(folder)) != NULL)
        if (!is_dots(entry->d_name))
            status = remove_entry(dirfd(folder), entry->d_name, root, depth + 1);
    if (status == ITERA_OK && errno != 0)
        status = fail_errno(root, "cannot list a folder in it");
    closedir(folder);
    if (status == ITERA_OK && unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        status = fail_errno(root, "cannot remove a folder");
    return status;
}

enum itera_status itera_remove_tree(const char *path)
{
    return remove_entry(AT_FDCWD, path, path, 0);
}

static enum itera_status sync_tree(int parent, const char *name, const char *root, int depth)
{
    if (depth == MAX_DEPTH)
        return itera_fail(ITERA_ERR_LIMIT, "%s: folders are nested more than %d deep", root,
                          MAX_DEPTH);
    DIR *folder = open_folder(parent, name);
    if (!folder)
        return fail_errno(root, "cannot open the folder");
    enum itera_status status = ITERA_OK;
    struct dirent *entry;
    while (status == ITERA_OK && (errno = 0, entry = readdir(folder)) != NULL) {
        if (is_dots(entry->d_name))
            continue;
        struct stat st;
        if (fstatat(dirfd(folder), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            status = fail_errno(root, "cannot read an entry");
        } else if (S_ISDIR(st.st_mode)) {
            status = sync_tree(dirfd(folder), entry->d_name, root, depth + 1);
        } else if (S_ISREG(st.st_mode)) {
            int fd = openat(dirfd(folder), entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
            if (fd < 0 || fsync(fd) != 0)
                status = fail_errno(root, "cannot fsync a file in it");
            if (fd >= 0)
                close(fd);
        }
    }
    if (status == ITERA_OK && errno != 0)
        status = fail_errno(root, "cannot list the folder");
    if (status == ITERA_OK && fsync(dirfd(folder)) != 0 && errno != EINVAL && errno != ENOTSUP)
        status = fail_errno(root, "cannot fsync the folder");
    closedir(folder);
    return status;
}

/* A copy without trailing slashes, so that ".old" lands beside and not inside. */
static char *trimmed(const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    return strndup(path, length);
}

enum itera_status itera_replace_directory(const char *from_path, const char *to_path)
{
    enum itera_status status = ITERA_OK;
    char *old = NULL;
    char *from = trimmed(from_path);
    char *to = trimmed(to_path);
    if (!from || !to || asprintf(&old, "%s.old", to) < 0) {
        old = NULL;
        status = itera_fail(ITERA_ERR_MEMORY, "%s: out of memory", to_path);
        goto done;
    }
    struct stat st;
    bool exists = lstat(to, &st) == 0;
    if (exists && !S_ISDIR(st.st_mode)) {
        status = itera_fail(ITERA_ERR_IO, "%s: is in the way; expected a directory", to);
        goto done;
    }
    status = sync_tree(AT_FDCWD, from, from, 0);
    if (status)
        goto done;

    if (exists) {
        /* What a killed process left under .old is older than `to`, which is complete. */
        status = itera_remove_tree(old);
        if (status)
            goto done;
        if (rename(to, old) != 0) {
            status = fail_errno(to, "cannot set aside as .old");
            goto done;
        }
    }
    if (rename(from, to) != 0) {
        status = fail_errno(to, "cannot rename the new directory into place");
        if (exists && rename(old, to) != 0)
            itera_log(ITERA_LOG_WARNING, "%s: the previous content is in %s", to, old);
        goto done;
    }
    /* The new name must be on disk before the only other copy goes. */
    status = sync_parent(to);
    if (status == ITERA_OK)
        status = itera_remove_tree(old);
done:
    free(from);
    free(to);
    free(old);
    return status;
}

enum itera_status itera_path_join(char *out, size_t size, const char *a, const char *b)
{
    size_t length = strlen(a);
    const char *separator = length == 0 || a[length - 1] == '/' ? "" : "/";
    int written = snprintf(out, size, "%s%s%s", a, separator, b);
    if (written < 0 || (size_t)written >= size) {
        if (size)
            out[0] = '\0';
        return itera_fail(ITERA_ERR_LIMIT, "%s%s%s: the path is longer than %zu bytes", a,
                          separator, b, size ? size - 1 : 0);
    }
    return ITERA_OK;
}
