#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/moe.clh"
#include "moe_rows.glsl"

ARGS(gather_bwd_args)
IN_ROWS(1, dy)
IN_INT(2, position)
OUT_ROWS(3, dx)

// A group computes 4 LANES columns of dx, adding the k rows of each in their order.
void main()
{
    uint quads = (p.cols + 3) / 4, row = THREAD / quads, c = THREAD % quads * 4;
    if (row >= p.rows)
        return;
    uint n = min(p.cols - c, 4);
    vec4 sum = vec4(0);
    for (uint j = 0; j < p.k; j++) {
        uint slot = clamp_index(position.v[p.position_at + row * p.position_ld + j], p.rows * p.k);
        vec4 v;
        LOAD4(dy, slot, c, n, v)
        sum += v;
    }
    STORE4(dx, row, c, n, sum)
}
