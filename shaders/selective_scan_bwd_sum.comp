#version 450
#extension GL_GOOGLE_include_directive : require
#include "scan_selective_bwd.glsl"

ARGS(bwd_sum_args)
IN(1, x)
OUT(2, y)

shared float sums[SIZE];

// y = the sum of the rows of x (rows, cols), which is contiguous. The sums are a matrix of `width`
// columns that begins in column `first` of y. A workgroup takes SUM_COLS columns; SIZE / SUM_COLS
// lanes share one.
void main()
{
    uint col = GROUP * SUM_COLS + LANE % SUM_COLS;
    float sum = 0.0;

    for (uint row = LANE / SUM_COLS; row < p.rows && col < p.cols; row += SIZE / SUM_COLS)
        sum += x.v[p.x_at + row * p.cols + col];
    sums[LANE] = sum;
    barrier();
    if (LANE >= SUM_COLS || col >= p.cols)
        return;
    for (uint k = LANE + SUM_COLS; k < SIZE; k += SUM_COLS)
        sum += sums[k];
    y.v[p.y_at + col / p.width * p.y_ld + p.first + col % p.width] = sum;
}
