#version 450
#extension GL_GOOGLE_include_directive : require
#include "norm.glsl"

ARGS(gated_rms_norm_args)
IN(1, x)
IN(2, z)
IN(3, weight)
OUT(4, y)
OUT(5, rstd)

// cols: of one group of channels
void main()
{
    uint row = SLICE / p.groups, part = SLICE % p.groups, start = part * p.cols;
    uint end = row < p.rows ? p.cols : 0;
    float v[ITEMS], square = 0.0;
    [[unroll]] for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        v[k] = c < end ? x.v[p.x_at + row * p.x_ld + start + c] *
                             silu_of(z.v[p.z_at + row * p.z_ld + start + c])
                       : 0.0;
        square += v[k] * v[k];
    }
    float r = 1.0 / sqrt(row_sum(square, p.width) / float(p.cols) + p.eps);
    [[unroll]] for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        if (c < end)
            y.v[p.y_at + row * p.y_ld + start + c] = v[k] * r * weight.v[p.weight_at + start + c];
    }
    if (p.save != 0 && row < p.rows && LANE % p.width == 0)
        rstd.v[p.rstd_at + row * p.rstd_ld + part] = r;
}
