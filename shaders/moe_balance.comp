#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/moe.clh"
#define LANE_BUFFER ITERA_GPU_LOCAL
#include "reduce.glsl"

ARGS(balance_args)
IN(1, sum)
IN_INT(2, count)
OUT(3, loss)
OUT(4, load)

// One group computes the loss from the sums over all rows.
void main()
{
    float rows = float(p.rows), n = float(p.experts), center = 0, value = 0;
    for (uint e = LANE; e < p.experts; e += LANES) {
        float taken = float(count.v[p.count_at + e]) / (rows * float(p.k));
        float mean = sum.v[p.sum_at + e] / rows;
        load.v[p.load_at + e] = taken;
        center += mean;
        value += taken * mean;
    }
    if (p.kind != 0) {
        value = n * float(p.k) * group_sum(value);
    } else {
        center = group_sum(center) / n;
        float squares = 0;
        for (uint e = LANE; e < p.experts; e += LANES) {
            float deviation = sum.v[p.sum_at + e] / rows - center;
            squares += deviation * deviation;
        }
        float mean = 1.0 / n + center + 1e-6;
        squares = group_sum(squares);
        value = p.experts > 1 ? squares / (n - 1) / (mean * mean) : 0.0;
    }
    if (LANE == 0)
        loss.v[p.loss_at] = p.scale * value;
}
