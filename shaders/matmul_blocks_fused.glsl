// The fused products with weights in blocks, for shaders that include dot.glsl as they want it first.
#include "matmul_staged.glsl"
#include "matmul_blocks.glsl"
#define ROUND
#include "matmul_fused.glsl"

void multiply_staged(uint expert, uint col)
{
    multiply_chunks(Side(0, p.depth, 1, ROWS), 0, expert * p.cols, p.cols, p.depth, 0, col);
}
