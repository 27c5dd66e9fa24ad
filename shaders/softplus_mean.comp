#version 450
#extension GL_GOOGLE_include_directive : require
#include "elementwise.glsl"
#define LANE_BUFFER ITERA_GPU_LOCAL
#include "reduce.glsl"

ARGS(softplus_mean_args)
IN(1, x)
OUT(2, y)

// A workgroup takes LANES / width rows, `width` lanes each.
void main()
{
    uint row = GROUP * (LANES / p.width) + LANE / p.width, lane = LANE % p.width;
    float sum = 0.0;
    if (row < p.rows)
        for (uint c = lane; c < p.cols; c += p.width)
            sum += softplus_of(x.v[p.x_at + row * p.x_ld + c]);
    sum = row_sum(sum, p.width);
    if (row < p.rows && lane == 0)
        y.v[p.y_at + row * p.y_ld] = sum / float(p.cols);
}
