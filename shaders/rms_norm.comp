#version 450
#extension GL_GOOGLE_include_directive : require
#include "norm.glsl"

ARGS(rms_norm_args)
IN(1, x)
IN(2, weight)
OUT(3, y)
OUT(4, rstd)

void main()
{
    uint row = SLICE, end = row < p.rows ? p.cols : 0;
    float v[ITEMS], square = 0.0;
    [[unroll]] for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        v[k] = c < end ? x.v[p.x_at + row * p.x_ld + c] : 0.0;
        square += v[k] * v[k];
    }
    float r = 1.0 / sqrt(row_sum(square, p.width) / float(p.cols) + p.eps);
    [[unroll]] for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        if (c < end)
            y.v[p.y_at + row * p.y_ld + c] = v[k] * r * weight.v[p.weight_at + c];
    }
    if (p.save != 0 && row < p.rows && LANE % p.width == 0)
        rstd.v[p.rstd_at + row * p.rstd_ld] = r;
}
