#version 450
#extension GL_GOOGLE_include_directive : require
#include "embedding.glsl"

ARGS(clear_args)
OUT(1, dtable)

// A workgroup clears 128 elements.
void main()
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row < p.rows)
        dtable.v[p.dtable_at + row * p.dtable_ld + col] = 0.0;
}
