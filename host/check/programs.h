/* The programs of the parity cases, for those who ask a device about them and run none. */
#ifndef ITERA_CHECK_PROGRAMS_H
#define ITERA_CHECK_PROGRAMS_H

#include <stdbool.h>

#include "itera/status.h"
#include "ops/op.h"
#include "program/program.h"

/* Called with the program of a case: forward, and again with its gradient, where it has one. An error
 * ends the walk. */
typedef enum itera_status itera_check_program_fn(void *user, const struct itera_program *program);

/* Builds the cases of an op, `most` of them (0: all), and hands their programs to fn. */
enum itera_status itera_check_programs(enum itera_op_kind kind, int most,
                                       itera_check_program_fn *fn, void *user);

#endif
