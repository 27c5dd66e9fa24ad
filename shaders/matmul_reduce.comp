#version 450
#extension GL_GOOGLE_include_directive : require
#include "itera.glsl"
#include "args/matmul.clh"
#include "math.glsl"

// Adds up the partial sums of p.slices slices in their order, and finishes the product: an
// invocation makes an element of y.
ARGS(reduce_args)
IN(1, part)
IN(2, bias)
IN(3, residual)
OUT(4, y)
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
    store(p.y_at + m * p.y_ld + n, activate(sum + bias_at(n), p.act) + residual_at(m, n));
}
