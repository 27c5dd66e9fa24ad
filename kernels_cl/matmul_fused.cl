/* Products of few rows with what comes before and after them: see matmul_fused.clh. */
#include "args/matmul.clh"
#include "matmul_staged.clh" /* before the products */

#define INTEGER 0
#include "matmul.clh"
#include "matmul_fused.clh"

#ifdef K_LANES
#define MULTIPLY(expert, col)                                                                      \
    {                                                                                              \
        struct side few = side_of(0, (p.depth + 3) / 4 * 4, 1, ROWS);                              \
        struct side many = side_of(b_first(p.b_at) + (expert)*p.cols * p.b_ld, p.b_ld, 1, p.cols); \
        many.scales = p.scales;                                                                    \
        multiply_lines(parts, (local const float *)rows, few, b + b_words(p.b_at), many, 0, col,   \
                       0, p.depth);                                                                \
    }

WORKGROUP(GEMV_LANES)
kernel void matmul_gemv_fused(FUSED_OPERANDS)
{
    FUSED_BODY
}
#endif
