#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/moe.clh"
#include "moe_rows.glsl"

ARGS(gather_args)
IN_ROWS(1, x)
IN_INT(2, order)
OUT_ROWS(3, y)

// A group copies 4 LANES columns of y.
void main()
{
    uint quads = (p.cols + 3) / 4, slot = THREAD / quads, c = THREAD % quads * 4;
    if (slot >= p.slots)
        return;
    uint n = min(p.cols - c, 4), row = clamp_index(order.v[p.order_at + slot], p.slots) / p.k;
    vec4 v;
    LOAD4(x, row, c, n, v)
    STORE4(y, slot, c, n, v)
}
