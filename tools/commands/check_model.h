/* itera check MODEL: see check.c. */
#ifndef ITERA_TOOLS_CHECK_MODEL_H
#define ITERA_TOOLS_CHECK_MODEL_H

#include "cli/options.h"
#include "itera/check.h"

/* expected: a file of expected values, or NULL to compare with the scalar reference. Returns the
 * exit code. */
int check_model_run(const char *model, const char *expected,
                    const struct itera_check_options *options, const struct option_optional *json);

#endif
