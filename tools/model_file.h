/* The files of a model: how large they are, and what must not be written over. */
#ifndef ITERA_TOOLS_MODEL_FILE_H
#define ITERA_TOOLS_MODEL_FILE_H

#include <stdint.h>

/* The bytes of a model's file, or of all weights in its directory (also that of an index.json); 0
 * where there is nothing. */
int64_t model_file_bytes(const char *path);

/* Whether a model can be written to `out`, which is not to be a file of `model`, by whatever name;
 * made: "quantised", in the message. Returns EXIT_OK, or EXIT_FAILED after a printed error. */
int model_file_check_out(const char *out, const char *model, const char *made);

#endif
