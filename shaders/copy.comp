#version 450
#extension GL_GOOGLE_include_directive : require
#include "elementwise.glsl"

ARGS(copy_args)
// Bits, not floats: whatever they mean, they stay.
IN_INT(1, x)
OUT_INT(2, y)

void main()
{
    uint row = TILE_ROW, col = TILE_COL;
    int values[ELEMENTS];
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++) {
        values[k] = 0;
        if (INSIDE(k))
            values[k] = x.v[AT(x, k)];
    }
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++)
        if (INSIDE(k))
            y.v[AT(y, k)] = values[k];
}
