#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/precision.clh"
#include "half.glsl"

ARGS(cast_args)
IN_UINT(1, x)
OUT(2, y)

// An invocation takes one element.
void main()
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row >= p.rows)
        return;
    uint i = p.x_at + row * p.x_ld + col;
    y.v[p.y_at + row * p.y_ld + col] = from_half((x.v[i / 2u] >> (16u * (i & 1u))) & 0xffffu);
}
