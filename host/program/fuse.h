/* Fusion passes over a program's op list. */
#ifndef ITERA_PROGRAM_FUSE_H
#define ITERA_PROGRAM_FUSE_H

#include "program/program.h"

/* Before differentiation: patterns whose fused op has a gradient rule of its own.
 *   causal_conv1d, silu            -> causal_conv1d with act
 *   selective_scan, silu_mul       -> selective_scan with z
 *   matmul, softplus               -> matmul with act (its gradient needs the output only) */
enum itera_status itera_fuse_forward(struct itera_program *p);

/* After differentiation, when every use of a tensor is known:
 *   matmul, silu | gelu            -> matmul with act
 *   matmul, add                    -> matmul with residual
 *   grouped_matmul, silu | gelu    -> grouped_matmul with act
 *   moe_combine, add               -> moe_combine with residual */
enum itera_status itera_fuse_epilogues(struct itera_program *p);

#endif
