#version 450
#extension GL_GOOGLE_include_directive : require
#include "norm.glsl"

ARGS(rms_norm_bwd_args)
IN(1, dy)
IN(2, x)
IN(3, weight)
IN(4, rstd)
OUT(5, dx)
OUT(6, dweight)

void held_slice()
{
    uint block = SLICE, cols = block < p.blocks ? p.cols : 0;
    float w[ITEMS], weight_sum[ITEMS];
    [[unroll]] for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        w[k] = c < cols ? weight.v[p.weight_at + c] : 0.0;
        weight_sum[k] = 0.0;
    }
    for (uint first = 0; first < p.rows; first += p.blocks) {
        uint row = first + block, end = row < p.rows ? cols : 0;
        float r = end > 0 ? rstd.v[p.rstd_at + row * p.rstd_ld] : 0.0, sum = 0.0;
        float g[ITEMS], n[ITEMS];
        [[unroll]] for (uint k = 0; k < ITEMS; k++) {
            uint c = COLUMN(k);
            bool inside = c < end;
            g[k] = inside ? dy.v[p.dy_at + row * p.dy_ld + c] : 0.0;
            n[k] = inside ? x.v[p.x_at + row * p.x_ld + c] * r : 0.0;
            weight_sum[k] += g[k] * n[k];
            g[k] *= w[k];
            sum += g[k] * n[k];
        }
        sum = row_sum(sum, p.width) / float(p.cols);
        [[unroll]] for (uint k = 0; k < ITEMS; k++) {
            uint c = COLUMN(k);
            if (c < end)
                dx.v[p.dx_at + row * p.dx_ld + c] = r * (g[k] - n[k] * sum);
        }
    }
    [[unroll]] for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        if (c < cols)
            dweight.v[p.dweight_at + block * p.cols + c] = weight_sum[k];
    }
}

// The same of wide slices.
void wide_slice()
{
    uint block = SLICE, cols = block < p.blocks ? p.cols : 0, to = p.dweight_at + block * p.cols;
    for (uint c = COLUMN(0); c < cols; c += p.width)
        dweight.v[to + c] = 0.0;
    for (uint first = 0; first < p.rows; first += p.blocks) {
        uint row = first + block, end = row < p.rows ? cols : 0;
        float r = end > 0 ? rstd.v[p.rstd_at + row * p.rstd_ld] : 0.0, sum = 0.0;
        for (uint c = COLUMN(0); c < end; c += p.width)
            sum += dy.v[p.dy_at + row * p.dy_ld + c] * weight.v[p.weight_at + c] *
                   (x.v[p.x_at + row * p.x_ld + c] * r);
        sum = row_sum(sum, p.width) / float(p.cols);
        for (uint c = COLUMN(0); c < end; c += p.width) {
            float g = dy.v[p.dy_at + row * p.dy_ld + c], n = x.v[p.x_at + row * p.x_ld + c] * r;
            dweight.v[to + c] += g * n;
            dx.v[p.dx_at + row * p.dx_ld + c] = r * (g * weight.v[p.weight_at + c] - n * sum);
        }
    }
}

void main()
{
    if (WIDE_SLICES)
        wide_slice();
    else
        held_slice();
}
