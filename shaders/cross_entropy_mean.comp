#version 450
#extension GL_GOOGLE_include_directive : require
#define REDUCE_PAIRS
#include "loss.glsl"

ARGS(cross_entropy_mean_args)
IN(1, losses)
IN_INT(2, targets)
OUT(3, loss)

// One workgroup takes the mean over the rows that count.
void main()
{
    vec2 sum = vec2(0.0);
    for (uint r = LANE; r < p.rows; r += LANES)
        if (TARGET(r) < p.cols)
            sum += vec2(losses.v[p.losses_at + r], 1.0);
    sum = row_sum2(sum, LANES);
    if (LANE == 0)
        loss.v[p.loss_at] = sum.y > 0.0 ? sum.x / sum.y : 0.0;
}
