#version 450
#extension GL_GOOGLE_include_directive : require
#include "elementwise.glsl"

ARGS(skip_gate_args)
IN(1, c)
IN(2, x)
IN(3, d)
IN(4, z)
OUT(5, y)

void main()
{
    uint row = TILE_ROW, col = TILE_COL;
    float sum[ELEMENTS], gate[ELEMENTS];
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++) {
        sum[k] = gate[k] = 0.0;
        if (INSIDE(k)) {
            sum[k] = c.v[AT(c, k)] + d.v[p.d_at + col + k * p.col_step] * x.v[AT(x, k)];
            if (p.gated != 0)
                gate[k] = z.v[AT(z, k)];
        }
    }
    [[unroll]] for (uint k = 0; k < ELEMENTS; k++)
        if (INSIDE(k))
            y.v[AT(y, k)] = p.gated != 0 ? sum[k] * silu_of(gate[k]) : sum[k];
}
