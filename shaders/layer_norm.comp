#version 450
#extension GL_GOOGLE_include_directive : require
#include "norm.glsl"

ARGS(layer_norm_args)
IN(1, x)
IN(2, weight)
IN(3, bias)
OUT(4, y)
OUT(5, stats)

void main()
{
    uint row = SLICE, end = row < p.rows ? p.cols : 0;
    float v[ITEMS], sum = 0.0, square = 0.0;
    [[unroll]] for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        v[k] = c < end ? x.v[p.x_at + row * p.x_ld + c] : 0.0;
        sum += v[k];
    }
    float mean = row_sum(sum, p.width) / float(p.cols);
    [[unroll]] for (uint k = 0; k < ITEMS; k++) {
        v[k] -= mean;
        square += COLUMN(k) < end ? v[k] * v[k] : 0.0;
    }
    float variance = row_sum(square, p.width) / float(p.cols);
    float rstd = 1.0 / sqrt(variance + p.eps);
    [[unroll]] for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        if (c < end)
            y.v[p.y_at + row * p.y_ld + c] =
                v[k] * rstd * weight.v[p.weight_at + c] + bias.v[p.bias_at + c];
    }
    if (p.save != 0 && row < p.rows && LANE % p.width == 0) {
        stats.v[p.stats_at + row * p.stats_ld] = mean;
        stats.v[p.stats_at + row * p.stats_ld + 1] = rstd;
    }
}
