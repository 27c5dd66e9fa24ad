#version 450
#extension GL_GOOGLE_include_directive : require
#include "loss.glsl"

ARGS(cross_entropy_bwd_scale_args)
IN(1, dloss)
IN_INT(2, targets)
OUT(3, scale)

// One workgroup divides dloss by the number of rows that count.
void main()
{
    float counted = 0.0;
    for (uint r = LANE; r < p.rows; r += LANES)
        if (TARGET(r) < p.cols)
            counted += 1.0;
    counted = group_sum(counted);
    if (LANE == 0)
        scale.v[p.scale_at] = dloss.v[p.dloss_at] / max(counted, 1.0);
}
