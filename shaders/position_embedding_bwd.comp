#version 450
#extension GL_GOOGLE_include_directive : require
#include "embedding.glsl"

ARGS(position_bwd_args)
IN(1, dy)
OUT(2, dtable)

// A workgroup sums 128 elements of the table over the batch.
void main()
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row >= p.positions)
        return;
    float sum = 0.0;
    for (uint b = 0; row < p.steps && b < p.batch; b++)
        sum += dy.v[p.dy_at + (b * p.steps + row) * p.dy_ld + col];
    dtable.v[p.dtable_at + row * p.dtable_ld + col] = sum;
}
