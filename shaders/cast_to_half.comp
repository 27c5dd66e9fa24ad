#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/precision.clh"
#include "half.glsl"

ARGS(cast_args)
IN(1, x)
OUT_UINT(2, y)

float element(uint i)
{
    return i < p.rows * p.cols ? x.v[p.x_at + i / p.cols * p.x_ld + i % p.cols] : 0.0;
}

// An invocation takes two elements: a word of y, which is contiguous and begins at a word. Memory
// ends at a word, too, so that the last may be written whole.
void main()
{
    uint i = THREAD * 2u;
    if (i < p.rows * p.cols)
        y.v[p.y_at / 2u + THREAD] = to_half(element(i)) | (to_half(element(i + 1u)) << 16);
}
