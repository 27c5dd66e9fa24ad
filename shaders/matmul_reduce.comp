#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "math.glsl"

// Adds up the partial sums of `slices` slices, laid out (slices, rows, cols), in their order, and finishes the product:
// an invocation makes an element of y.
layout(constant_id = 5) const uint ACT = 0;
ARGS {
    T(part) T(bias) T(residual) T(y)
    uint rows, cols, has_bias, has_residual, accumulate, slices;
} p;
IN(1, part)
IN(2, bias)
IN(3, residual)
INOUT(4, y)
#include "matmul_finish.glsl"

void main()
{
    uint m = THREAD / p.cols, n = THREAD % p.cols;
    if (m >= p.rows)
        return;
    uint at = p.part_at + m * p.cols + n;
    float sum = 0.0;
    for (uint s = 0; s < p.slices; s++)
        sum += part.v[at + s * p.rows * p.cols];
    store_result(m, n, sum);
}
