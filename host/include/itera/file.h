/* Files as the library writes them, and files that must not be written over. */
#ifndef ITERA_FILE_H
#define ITERA_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "itera/status.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Writes size bytes to path, by way of a temporary file in the same folder that is flushed to the
 * disk and renamed: at every moment the old content is there, or all of the new one. Links are
 * followed, permissions kept; a pipe or a device is written to as it is. ITERA_ERR_IO names path. */
ITERA_API enum itera_status itera_file_write(const char *path, const void *data, size_t size);

/* From now on this process does not write to the file at path, by whatever name it goes: a function
 * that is to save there fails with ITERA_ERR_IO before it writes. A path without a file is fine.
 * Each of these functions may be called from any thread. */
ITERA_API enum itera_status itera_file_keep(const char *path);
/* Whether the same holds for every file that the library opens to read: models, their parts,
 * tokenizers, texts, configurations. Not by default: a program may load, change and save a file. */
ITERA_API void itera_file_keep_read(bool keep);
/* ITERA_ERR_IO when path names a file that is kept, for programs that ask before hours of work. */
ITERA_API enum itera_status itera_file_check_output(const char *path);

#ifdef __cplusplus
}
#endif
#endif
