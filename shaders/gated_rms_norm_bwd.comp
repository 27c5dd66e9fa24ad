#version 450
#extension GL_GOOGLE_include_directive : require
#include "norm.glsl"

ARGS(gated_rms_norm_bwd_args)
IN(1, dy)
IN(2, x)
IN(3, z)
IN(4, weight)
IN(5, rstd)
OUT(6, dx)
OUT(7, dz)
OUT(8, dweight)

void held_slice()
{
    uint block = SLICE / p.groups, part = SLICE % p.groups, start = part * p.cols;
    uint cols = block < p.blocks ? p.cols : 0;
    float w[ITEMS], weight_sum[ITEMS];
    [[unroll]] for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        w[k] = c < cols ? weight.v[p.weight_at + start + c] : 0.0;
        weight_sum[k] = 0.0;
    }
    for (uint first = 0; first < p.rows; first += p.blocks) {
        uint row = first + block, end = row < p.rows ? cols : 0;
        float r = end > 0 ? rstd.v[p.rstd_at + row * p.rstd_ld + part] : 0.0, sum = 0.0;
        float g[ITEMS], value[ITEMS], gate[ITEMS];
        [[unroll]] for (uint k = 0; k < ITEMS; k++) {
            uint c = COLUMN(k);
            bool inside = c < end;
            g[k] = inside ? dy.v[p.dy_at + row * p.dy_ld + start + c] : 0.0;
            value[k] = inside ? x.v[p.x_at + row * p.x_ld + start + c] : 0.0;
            gate[k] = inside ? z.v[p.z_at + row * p.z_ld + start + c] : 0.0;
            float n = value[k] * silu_of(gate[k]) * r;
            weight_sum[k] += g[k] * n;
            g[k] *= w[k];
            sum += g[k] * n;
        }
        sum = row_sum(sum, p.width) / float(p.cols);
        [[unroll]] for (uint k = 0; k < ITEMS; k++) {
            uint c = COLUMN(k);
            if (c >= end)
                continue;
            float open = silu_of(gate[k]);
            float d = r * (g[k] - value[k] * open * r * sum);
            dx.v[p.dx_at + row * p.dx_ld + start + c] = d * open;
            dz.v[p.dz_at + row * p.dz_ld + start + c] = d * value[k] * silu_slope(gate[k]);
        }
    }
    [[unroll]] for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        if (c < cols)
            dweight.v[p.dweight_at + block * p.groups * p.cols + start + c] = weight_sum[k];
    }
}

// The same of wide slices.
void wide_slice()
{
    uint block = SLICE / p.groups, part = SLICE % p.groups, start = part * p.cols;
    uint cols = block < p.blocks ? p.cols : 0;
    uint to = p.dweight_at + block * p.groups * p.cols + start;
    for (uint c = COLUMN(0); c < cols; c += p.width)
        dweight.v[to + c] = 0.0;
    for (uint first = 0; first < p.rows; first += p.blocks) {
        uint row = first + block, end = row < p.rows ? cols : 0;
        uint dy_row = p.dy_at + row * p.dy_ld + start, x_row = p.x_at + row * p.x_ld + start;
        uint z_row = p.z_at + row * p.z_ld + start;
        float r = end > 0 ? rstd.v[p.rstd_at + row * p.rstd_ld + part] : 0.0, sum = 0.0;
        for (uint c = COLUMN(0); c < end; c += p.width)
            sum += dy.v[dy_row + c] * weight.v[p.weight_at + start + c] *
                   (x.v[x_row + c] * silu_of(z.v[z_row + c]) * r);
        sum = row_sum(sum, p.width) / float(p.cols);
        for (uint c = COLUMN(0); c < end; c += p.width) {
            float g = dy.v[dy_row + c], value = x.v[x_row + c], gate = z.v[z_row + c];
            float open = silu_of(gate);
            float d = r * (g * weight.v[p.weight_at + start + c] - value * open * r * sum);
            dweight.v[to + c] += g * (value * open * r);
            dx.v[p.dx_at + row * p.dx_ld + start + c] = d * open;
            dz.v[p.dz_at + row * p.dz_ld + start + c] = d * value * silu_slope(gate);
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
