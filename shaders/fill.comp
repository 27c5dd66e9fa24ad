#version 450
#extension GL_GOOGLE_include_directive : require
#include "elementwise.glsl"

ARGS(fill_args)
OUT_UINT(1, y)

void main()
{
    uint row = TILE_ROW, col = TILE_COL;
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++)
        if (INSIDE(k))
            y.v[AT(y, k)] = p.bits;
}
