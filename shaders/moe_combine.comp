#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/moe.clh"
#include "moe_rows.glsl"

ARGS(combine_args)
IN_ROWS(1, y)
IN_INT(2, position)
IN(3, weight)
IN_ROWS(4, residual)
OUT_ROWS(5, result)

// The upper half of a number's bits: products of halves are exact.
vec4 upper(vec4 v)
{
    return uintBitsToFloat(floatBitsToUint(v) & 0xfffff000u);
}

// A group computes 4 LANES columns of result, adding the k rows of each in their order. Terms may
// cancel, and not every device has a fused product: `rest` is what sum lost, and where one of them
// is not finite `plain` says what the result is.
void main()
{
    uint quads = (p.cols + 3) / 4, row = THREAD / quads, c = THREAD % quads * 4;
    if (row >= p.rows)
        return;
    uint n = min(p.cols - c, 4);
    precise vec4 sum = vec4(0), rest = vec4(0);
    if (p.has_residual != 0)
        LOAD4(residual, row, c, n, sum)
    vec4 plain = sum;
    for (uint j = 0; j < p.k; j++) {
        uint slot = clamp_index(position.v[p.position_at + row * p.position_ld + j], p.rows * p.k);
        vec4 v, w = vec4(weight.v[p.weight_at + row * p.weight_ld + j]);
        LOAD4(y, slot, c, n, v)
        plain += w * v;
        precise vec4 high = upper(w) * upper(v), next = sum + high, part = next - sum;
        rest += (sum - (next - part)) + (high - part);
        rest += upper(w) * (v - upper(v)) + (w - upper(w)) * v;
        sum = next;
    }
    precise vec4 total = sum + rest;
    bvec4 finite = lessThan(floatBitsToUint(total) & 0x7fffffffu, uvec4(0x7f800000u));
    total = mix(plain, total, finite);
    STORE4(result, row, c, n, total)
}
