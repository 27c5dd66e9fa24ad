/* Elementwise ops: see host/ops/elementwise.c for their contracts. A workgroup takes 128 columns of
 * a row. */
#include "itera.clh"

struct unary_args {
    T(x) T(y) uint rows, cols;
};

kernel void silu(global const float *x, global float *y, const struct unary_args p)
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row >= p.rows)
        return;
    float v = x[p.x_at + row * p.x_ld + col];
    y[p.y_at + row * p.y_ld + col] = v / (1.0f + exp(-v));
}
