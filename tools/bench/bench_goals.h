/* itera bench goals: the work that this project holds itself against, beside what others reached. */
#ifndef ITERA_TOOLS_BENCH_GOALS_H
#define ITERA_TOOLS_BENCH_GOALS_H

#include "bench/bench_parts.h"

/* Measures all rows of the goals on the CPU, into b->runs. b->s is changed meanwhile. */
enum itera_status bench_goals_measure(struct bench *b);
/* The table of a result that has these rows: printed, or with a file written between its lines
 * "<!-- goals -->" and "<!-- /goals -->", atomically. Returns EXIT_OK, or EXIT_FAILED after printing
 * why. */
int bench_goals_write(const json_t *result, const char *file);

#endif
