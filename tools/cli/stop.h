/* Signals that ask a command to come to an end: it finishes what it is at, and saves. */
#ifndef ITERA_TOOLS_STOP_H
#define ITERA_TOOLS_STOP_H

#include <stdbool.h>

/* From now on the first SIGINT, SIGTERM or SIGHUP sets what stop_asked returns; a second SIGINT or
 * SIGTERM ends the process at once. A SIGHUP that the process was started to ignore (nohup) stays
 * ignored. */
void stop_catch(void);
bool stop_asked(void);

#endif
