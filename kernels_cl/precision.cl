/* Mixed precision: see host/ops/precision.c. Half precision is stored, never computed with. */
#include "args/precision.clh"
#include "itera.clh"

/* An invocation takes one element. */
kernel void cast_to_half(global const float *x, global half *y, const struct cast_args p)
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row < p.rows)
        vstore_half_rte(x[p.x_at + row * p.x_ld + col], p.y_at + THREAD, y);
}

kernel void cast_from_half(global const half *x, global float *y, const struct cast_args p)
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row < p.rows)
        y[p.y_at + row * p.y_ld + col] = vload_half(p.x_at + row * p.x_ld + col, x);
}

/* An invocation takes one element. */
kernel void unscale(global const float *x, global const float *scale, global float *y,
                    const struct unscale_args p)
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row < p.rows)
        y[p.y_at + row * p.y_ld + col] = x[p.x_at + row * p.x_ld + col] / scale[p.scale_at];
}

/* One invocation does it. */
kernel void loss_scale(global float *scale, global const float *norm,
                       const struct loss_scale_args p)
{
    if (THREAD != 0)
        return;
    float value = scale[p.scale_at], steps = scale[p.scale_at + 1] + 1.0f;
    if (norm[p.norm_at + 1] == 0.0f) {
        value = max(value * 0.5f, 1.0f);
        steps = 0.0f;
    } else if (steps >= (float)p.count) {
        value = min(value * 2.0f, 16777216.0f);
        steps = 0.0f;
    }
    scale[p.scale_at] = value;
    scale[p.scale_at + 1] = steps;
}
