/* Cases of chains of ops that GPU devices compute together (backend/gpu/chain.h). A case is a whole
 * program: its last op's outputs are compared, and what any op of it writes in place. */
#ifndef ITERA_CHECK_CASES_CHAINS_H
#define ITERA_CHECK_CASES_CHAINS_H

#include "check/case.h"

struct itera_chain_cases {
    const char *name; /* of the chain */
    itera_case_fn *build;
};

extern const struct itera_chain_cases itera_chain_cases[];
extern const int itera_n_chain_cases;

#endif
