/* The files of a model: how large they are, and what the run beside them says. */
#ifndef ITERA_TOOLS_MODEL_FILE_H
#define ITERA_TOOLS_MODEL_FILE_H

#include <stdint.h>

/* The bytes of a model's file, or of all weights in its directory (also that of an index.json); 0
 * where there is nothing. */
int64_t model_file_bytes(const char *path);

/* The text that the run which made a model was validated on, or trained on, where the model lies in
 * that run's directory or is it; the caller's to free. NULL: no run there says so. */
char *model_own_text(const char *path);

#endif
