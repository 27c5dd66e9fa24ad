/* The same with weights in blocks: see matmul_fused.clh. */
#include "args/matmul.clh"
#include "matmul_staged.clh" /* before the products */

#include "matmul_blocks.clh"
#include "matmul_fused.clh"

#ifdef K_LANES
#define MULTIPLY(expert, col)                                                                      \
    multiply_chunks(parts, (local const few_type *)rows, sums, side_of(0, p.depth, 1, ROWS),       \
                    b + p.b_at, p.scales, p.b_at % 4 == 0, (expert)*p.cols, p.cols, p.depth, 0,    \
                    col)

WORKGROUP(GEMV_LANES)
kernel void matmul_blocks_fused(FUSED_OPERANDS)
{
    FUSED_BODY
}
#endif
