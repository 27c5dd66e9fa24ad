#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/moe.clh"
#define LANE_BUFFER LOCAL
#include "moe_rows.glsl"
#include "reduce.glsl"

ARGS(combine_bwd_args)
IN_ROWS(1, dout)
IN_ROWS(2, y)
IN_INT(3, position)
IN(4, weight)
OUT_ROWS(5, dy)
OUT(6, dweight)

// p.width lanes take an assignment: a row of dy, and a dot product for dweight.
void main()
{
    uint pair = GROUP * (LANES / p.width) + LANE / p.width, lane = LANE % p.width;
    uint row = pair / p.k, j = pair % p.k;
    float sum = 0;
    if (row < p.rows) {
        uint slot = clamp_index(position.v[p.position_at + row * p.position_ld + j], p.rows * p.k);
        float w = weight.v[p.weight_at + row * p.weight_ld + j];
        for (uint c = 4 * lane; c < p.cols; c += 4 * p.width) {
            uint n = min(p.cols - c, 4);
            vec4 g, from;
            LOAD4(dout, row, c, n, g)
            LOAD4(y, slot, c, n, from)
            STORE4(dy, slot, c, n, (w * g))
            sum += dot(g, from);
        }
    }
    sum = row_sum(sum, p.width);
    if (row < p.rows && lane == 0)
        dweight.v[p.dweight_at + row * p.dweight_ld + j] = sum;
}
