/* Mixed precision: which products of a program are computed from f16 operands. */
#ifndef ITERA_PROGRAM_PRECISION_H
#define ITERA_PROGRAM_PRECISION_H

#include "program/program.h"

/* Rewrites a differentiated program so that matmul and grouped_matmul read f16 copies of their
 * operands, cast once for all products that share them; sums stay f32, and so do the routers, whose
 * choices must not depend on rounding, and every other op. An f32 activation that only products
 * read then lives no longer than its cast. Bound tensors (weights) stay f32 and are cast once a
 * run. Source: Micikevicius et al. 2018, "Mixed precision training". */
enum itera_status itera_lower_precision(struct itera_program *p);

#endif
