/* Files that only the user's own runs write: what another user put there, or could have changed, is
 * never read, and no pipe, device or link is opened in its place. */
#ifndef ITERA_CORE_PRIVATE_H
#define ITERA_CORE_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "itera/status.h"

/* Why a file is not one of the user's own, NULL when it is: regular, of the user or of root, and
 * not writable by others. The second also wants that others cannot read it, and that it is not
 * root's, unless the user is. */
const char *itera_private_defect(const struct stat *st);
const char *itera_secret_defect(const struct stat *st);

/* A whole file of the user's own, in *data (malloc'ed, *bytes and a NUL); none is no error:
 * *data is NULL. A symbolic link is not followed, and nothing waits for a pipe's other end.
 * Errors: ITERA_ERR_IO; ITERA_ERR_LIMIT above `limit` bytes; ITERA_ERR_MEMORY. */
enum itera_status itera_private_read(const char *path, size_t limit, void **data, size_t *bytes);

/* The random key in `folder`/key, made when there is none (the folder has to be there). Only the
 * user can read the file: what is signed with the key comes from a run of the user's. */
enum { ITERA_PRIVATE_KEY = 16 };
enum itera_status itera_private_key(const char *folder, uint8_t key[ITERA_PRIVATE_KEY]);

#endif
