#version 450
#extension GL_GOOGLE_include_directive : require
#include "loss.glsl"

ARGS(kl_loss_mean_args)
IN(1, losses)
OUT(2, loss)

// One workgroup takes the mean over the rows.
void main()
{
    float sum = 0.0;
    for (uint r = LANE; r < p.rows; r += LANES)
        sum += losses.v[p.losses_at + r];
    sum = group_sum(sum);
    if (LANE == 0)
        loss.v[p.loss_at] = p.rows > 0 ? p.factor * sum / float(p.rows) : 0.0;
}
