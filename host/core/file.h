/* Files: read-only maps, atomic replacement, directory helpers. Paths are UTF-8 and not changed.
 * Every error names the path and the operating system's reason. */
#ifndef ITERA_CORE_FILE_H
#define ITERA_CORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "itera/status.h"

/* A whole file, to be read: in memory up to ITERA_MAP_SMALL bytes, else mapped. data is NULL when
 * size is 0. */
struct itera_map {
    const uint8_t *data;
    size_t size;
    bool mapped;
};
#define ITERA_MAP_SMALL (4 << 20)

/* A large file installs a handler of SIGBUS for the whole process, which hands on to the one before
 * it what does not concern these maps: what another process cuts off a mapped file reads as zeros. */
enum itera_status itera_map_open(const char *path, struct itera_map *map);
void itera_map_close(struct itera_map *map); /* NULL-safe, leaves *map empty */
/* To be called when a file was read, before anything is made of it: ITERA_ERR_IO when it was
 * truncated since it was opened. The second asks for all files that are open; a writer does so when
 * it commits. */
enum itera_status itera_map_check(const struct itera_map *map);
enum itera_status itera_map_check_all(void);

/* Writes path by way of a temporary file in the same folder: open, append any number of times,
 * commit (fsync, rename, fsync of the folder). Until commit succeeds, what was at path stays; abort
 * or a failed append removes the temporary file; those that killed processes left are removed when
 * the same file is written again. Every error (a full disk, too) names path. */
struct itera_writer;
enum itera_status itera_writer_open(const char *path, struct itera_writer **out);
/* The same for a file that only the user may read and write (core/private.h): what is there is replaced
 * when it is a regular file of the user's, and else it is an error; no link is followed. It may have
 * been read: itera_writer_open refuses what is kept (itera/file.h). */
enum itera_status itera_writer_open_private(const char *path, struct itera_writer **out);
enum itera_status itera_writer_append(struct itera_writer *writer, const void *data, size_t size);
enum itera_status itera_writer_commit(struct itera_writer **writer); /* destroys the writer */
void itera_writer_abort(struct itera_writer **writer);

/* path is opened to be read: to be kept, where the process asked for that. */
enum itera_status itera_keep_opened(const char *path);

bool itera_is_directory(const char *path);
bool itera_file_exists(const char *path);
enum itera_status
itera_make_directory(const char *path);                /* with parents; an existing one is fine */
enum itera_status itera_remove_tree(const char *path); /* a missing one is fine */
/* fsyncs every file in `from` and the folder, then makes it appear at `to`, replacing what is
 * there so that at every moment either the old or the new directory is complete and findable:
 * renames `to` to `to`.old, `from` to `to`, then removes `to`.old. Readers fall back to `to`.old.
 */
enum itera_status itera_replace_directory(const char *from, const char *to);

/* "a/b" in a static-size buffer; ITERA_ERR_LIMIT when it does not fit. */
enum itera_status itera_path_join(char *out, size_t size, const char *a, const char *b);

#endif
