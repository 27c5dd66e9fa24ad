#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "moe_rows.glsl"

ARGS {
    T(y) T(position) T(weight) T(residual) T(result) uint rows, cols, k, has_residual;
} p;
IN_ROWS(1, y)
IN_INT(2, position)
IN(3, weight)
IN_ROWS(4, residual)
OUT_ROWS(5, result)

// A group computes 4 LANES columns of result, adding the k rows of each in their order.
void main()
{
    uint quads = (p.cols + 3) / 4, row = THREAD / quads, c = THREAD % quads * 4;
    if (row >= p.rows)
        return;
    uint n = min(p.cols - c, 4);
    vec4 sum = vec4(0);
    if (p.has_residual != 0)
        LOAD4(residual, row, c, n, sum)
    for (uint j = 0; j < p.k; j++) {
        uint slot = clamp_index(position.v[p.position_at + row * p.position_ld + j], p.rows * p.k);
        vec4 v;
        LOAD4(y, slot, c, n, v)
        sum = fma(vec4(weight.v[p.weight_at + row * p.weight_ld + j]), v, sum);
    }
    STORE4(result, row, c, n, sum)
}
