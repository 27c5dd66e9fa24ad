#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/precision.clh"

ARGS(unscale_args)
IN(1, x)
IN(2, scale)
OUT(3, y)

// An invocation takes one element.
void main()
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row < p.rows)
        y.v[p.y_at + row * p.y_ld + col] =
            x.v[p.x_at + row * p.x_ld + col] / scale.v[p.scale_at];
}
