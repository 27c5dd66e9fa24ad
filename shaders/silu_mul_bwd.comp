#version 450
#extension GL_GOOGLE_include_directive : require
#include "elementwise.glsl"

ARGS(silu_mul_bwd_args)
IN(1, dy)
IN(2, x)
IN(3, z)
OUT(4, dx)
OUT(5, dz)

void main()
{
    uint row = TILE_ROW, col = TILE_COL;
    float grad[ELEMENTS], value[ELEMENTS], gate[ELEMENTS];
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++) {
        grad[k] = value[k] = gate[k] = 0.0;
        if (INSIDE(k)) {
            grad[k] = dy.v[AT(dy, k)];
            value[k] = x.v[AT(x, k)];
            gate[k] = z.v[AT(z, k)];
        }
    }
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++)
        if (INSIDE(k)) {
            dx.v[AT(dx, k)] = grad[k] * silu_of(gate[k]);
            dz.v[AT(dz, k)] = grad[k] * value[k] * silu_slope(gate[k]);
        }
}
