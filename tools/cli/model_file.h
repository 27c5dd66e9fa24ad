/* The files of a model: how large they are. */
#ifndef ITERA_TOOLS_MODEL_FILE_H
#define ITERA_TOOLS_MODEL_FILE_H

#include <stdint.h>

/* The bytes of a model's file, or of all weights in its directory (also that of an index.json); 0
 * where there is nothing. */
int64_t model_file_bytes(const char *path);

#endif
