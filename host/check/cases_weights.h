/* Cases with narrow weights, which follow an op's other cases; false when there is none of `index`,
 * which counts from 0. */
#ifndef ITERA_CHECK_CASES_WEIGHTS_H
#define ITERA_CHECK_CASES_WEIGHTS_H

#include "check/case.h"

bool itera_case_matmul_weights(struct itera_case *c, int index);
bool itera_case_grouped_weights(struct itera_case *c, int index);

#endif
