#version 450
#extension GL_GOOGLE_include_directive : require
#include "elementwise.glsl"

ARGS(softplus_mean_bwd_args)
IN(1, dy)
IN(2, x)
OUT(3, dx)

void main()
{
    uint row = TILE_ROW, col = TILE_COL;
    float grad[ELEMENTS], value[ELEMENTS];
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++) {
        grad[k] = value[k] = 0.0;
        if (INSIDE(k)) {
            grad[k] = dy.v[p.dy_at + (row + k * p.row_step) * p.dy_ld];
            value[k] = x.v[AT(x, k)];
        }
    }
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++)
        if (INSIDE(k))
            dx.v[AT(dx, k)] = grad[k] / float(p.cols) * sigmoid_of(value[k]);
}
