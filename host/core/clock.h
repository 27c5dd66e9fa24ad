/* The clock that everything is timed with. */
#ifndef ITERA_CORE_CLOCK_H
#define ITERA_CORE_CLOCK_H

#include <time.h>

/* Seconds since some moment in the past; never goes back. */
static inline double itera_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
