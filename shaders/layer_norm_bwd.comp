#version 450
#extension GL_GOOGLE_include_directive : require
#define REDUCE_PAIRS
#include "norm.glsl"

ARGS(layer_norm_bwd_args)
IN(1, dy)
IN(2, x)
IN(3, weight)
IN(4, stats)
OUT(5, dx)
OUT(6, dweight)
OUT(7, dbias)

void held_slice()
{
    uint block = SLICE, cols = block < p.blocks ? p.cols : 0;
    float w[ITEMS], weight_sum[ITEMS], bias_sum[ITEMS];
    [[unroll]] for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        w[k] = c < cols ? weight.v[p.weight_at + c] : 0.0;
        weight_sum[k] = bias_sum[k] = 0.0;
    }
    for (uint first = 0; first < p.rows; first += p.blocks) {
        uint row = first + block, end = row < p.rows ? cols : 0;
        float mean = 0.0, rstd = 0.0, g[ITEMS], n[ITEMS];
        vec2 sums = vec2(0.0, 0.0);
        if (end > 0) {
            mean = stats.v[p.stats_at + row * p.stats_ld];
            rstd = stats.v[p.stats_at + row * p.stats_ld + 1];
        }
        [[unroll]] for (uint k = 0; k < ITEMS; k++) {
            uint c = COLUMN(k);
            bool inside = c < end;
            g[k] = inside ? dy.v[p.dy_at + row * p.dy_ld + c] : 0.0;
            n[k] = inside ? (x.v[p.x_at + row * p.x_ld + c] - mean) * rstd : 0.0;
            weight_sum[k] += g[k] * n[k];
            bias_sum[k] += g[k];
            g[k] *= w[k];
            sums += vec2(g[k], g[k] * n[k]);
        }
        sums = row_sum2(sums, p.width) / float(p.cols);
        [[unroll]] for (uint k = 0; k < ITEMS; k++) {
            uint c = COLUMN(k);
            if (c < end)
                dx.v[p.dx_at + row * p.dx_ld + c] = rstd * (g[k] - sums.x - n[k] * sums.y);
        }
    }
    [[unroll]] for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        if (c < cols) {
            dweight.v[p.dweight_at + block * p.cols + c] = weight_sum[k];
            dbias.v[p.dbias_at + block * p.cols + c] = bias_sum[k];
        }
    }
}

// The same of wide slices.
void wide_slice()
{
    uint block = SLICE, cols = block < p.blocks ? p.cols : 0;
    uint weight_to = p.dweight_at + block * p.cols, bias_to = p.dbias_at + block * p.cols;
    for (uint c = COLUMN(0); c < cols; c += p.width)
        dweight.v[weight_to + c] = dbias.v[bias_to + c] = 0.0;
    for (uint first = 0; first < p.rows; first += p.blocks) {
        uint row = first + block, end = row < p.rows ? cols : 0;
        float mean = 0.0, rstd = 0.0;
        vec2 sums = vec2(0.0, 0.0);
        if (end > 0) {
            mean = stats.v[p.stats_at + row * p.stats_ld];
            rstd = stats.v[p.stats_at + row * p.stats_ld + 1];
        }
        for (uint c = COLUMN(0); c < end; c += p.width) {
            float g = dy.v[p.dy_at + row * p.dy_ld + c] * weight.v[p.weight_at + c];
            sums += vec2(g, g * ((x.v[p.x_at + row * p.x_ld + c] - mean) * rstd));
        }
        sums = row_sum2(sums, p.width) / float(p.cols);
        for (uint c = COLUMN(0); c < end; c += p.width) {
            float g = dy.v[p.dy_at + row * p.dy_ld + c];
            float n = (x.v[p.x_at + row * p.x_ld + c] - mean) * rstd;
            dweight.v[weight_to + c] += g * n;
            dbias.v[bias_to + c] += g;
            dx.v[p.dx_at + row * p.dx_ld + c] =
                rstd * (g * weight.v[p.weight_at + c] - sums.x - n * sums.y);
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
