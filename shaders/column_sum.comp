#version 450
#extension GL_GOOGLE_include_directive : require
#include "elementwise.glsl"
#define LANE_BUFFER ITERA_GPU_LOCAL
#include "reduce.glsl"

ARGS(column_sum_args)
IN(1, x)
OUT(2, y)

// The sum of column c over block b goes to
// y[b * y_block + c / wrap * y_outer + c % wrap * y_inner].
// x_row: x's row stride, which may be scratch.
void main()
{
    uint col = BLOCK_COL, stride = LANES >> p.shift, block = BLOCK_INDEX;
    float sum = 0.0;
    if (col < p.cols)
        for (uint r = BLOCK_ROW; r < BLOCK_END; r += stride)
            sum += x.v[p.x_at + r * p.x_row + col];
    sum = stack_sum(sum, p.shift);
    if (col < p.cols && LANE >> p.shift == 0 && block * p.block_rows < max(p.rows, 1))
        y.v[p.y_at + block * p.y_block + col / p.wrap * p.y_outer + col % p.wrap * p.y_inner] = sum;
}
