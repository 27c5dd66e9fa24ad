#version 450
#extension GL_GOOGLE_include_directive : require
#include "matmul_staged.glsl"
#include "matmul_gemv.glsl"
#include "matmul_fused.glsl"

void multiply_staged(uint expert, uint col)
{
    Side few = Side(0, (p.depth + 3) / 4 * 4, 1, ROWS);
    Side many = Side(b_first(p.b_at) + expert * p.cols * p.b_ld, p.b_ld, 1, p.cols);
    multiply_lines(few, many, 0, col, 0, p.depth);
}
