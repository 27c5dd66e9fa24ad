/* What the library says, in the words of the command. */
#ifndef ITERA_TOOLS_CLI_LIBRARY_MESSAGE_H
#define ITERA_TOOLS_CLI_LIBRARY_MESSAGE_H

#include <stddef.h>

/* Writes the message to out (size bytes, cut where it is longer) with the options of the command where
 * the library, which knows none, names fields: "replace it (overwrite)" is "replace it (--force)". */
void library_message(const char *message, char *out, size_t size);

#endif
