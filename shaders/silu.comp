#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"

ARGS { T(x) T(y) uint rows, cols; } p;
IN(1, x)
OUT(2, y)

void main()
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row >= p.rows)
        return;
    float v = x.v[p.x_at + row * p.x_ld + col];
    y.v[p.y_at + row * p.y_ld + col] = v / (1.0 + exp(-v));
}
