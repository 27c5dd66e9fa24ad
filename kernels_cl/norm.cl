/* Normalisations: see host/ops/norm.c for their contracts.
 *
 * A workgroup takes LANES / width slices, `width` lanes each; a slice is a row, or one group of
 * channels of a row. A lane holds ITEMS elements of it, each `width` further, from the only reading
 * on. In the gradients a slice goes through every blocks-th row, sums what belongs to the weights on
 * the way, and leaves one row of sums; slices of more than USUAL_ITEMS a lane, which would not fit into
 * registers, are read twice there, and sums kept where they are left (WIDE_SLICES). */
#include "args/norm.clh"
#include "itera.clh"
#include "math.clh"
#include "reduce.clh"

#ifndef GROUP_LANES
#define GROUP_LANES ITERA_GPU_LOCAL
#endif
#ifndef ITEMS
#define ITEMS USUAL_ITEMS
#endif

#define SLICE     (GROUP * (LANES / p.width) + LANE / p.width)
#define COLUMN(k) (LANE % p.width + (k)*p.width)

#define WIDE_SLICES (ITEMS > USUAL_ITEMS)

kernel void layer_norm(global const float *x, global const float *weight, global const float *bias,
                       global float *y, global float *stats, const struct layer_norm_args p)
{
    local float buffer[GROUP_LANES];
    uint row = SLICE, end = row < p.rows ? p.cols : 0;
    float v[ITEMS], sum = 0.0f, square = 0.0f;
#pragma unroll
    for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        v[k] = c < end ? x[p.x_at + row * p.x_ld + c] : 0.0f;
        sum += v[k];
    }
    float mean = row_sum(sum, buffer, p.width) / (float)p.cols;
#pragma unroll
    for (uint k = 0; k < ITEMS; k++) {
        v[k] -= mean;
        square += COLUMN(k) < end ? v[k] * v[k] : 0.0f;
    }
    float variance = row_sum(square, buffer, p.width) / (float)p.cols;
    float rstd = 1.0f / sqrt(variance + p.eps);
#pragma unroll
    for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        if (c < end)
            y[p.y_at + row * p.y_ld + c] =
                v[k] * rstd * weight[p.weight_at + c] + bias[p.bias_at + c];
    }
    if (p.save && row < p.rows && LANE % p.width == 0) {
        stats[p.stats_at + row * p.stats_ld] = mean;
        stats[p.stats_at + row * p.stats_ld + 1] = rstd;
    }
}

kernel void layer_norm_bwd(global const float *dy, global const float *x,
                           global const float *weight, global const float *stats, global float *dx,
                           global float *dweight, global float *dbias,
                           const struct layer_norm_bwd_args p)
{
    local float2 buffer[GROUP_LANES];
#if WIDE_SLICES
    uint block = SLICE, cols = block < p.blocks ? p.cols : 0;
    uint weight_to = p.dweight_at + block * p.cols, bias_to = p.dbias_at + block * p.cols;
    for (uint c = COLUMN(0); c < cols; c += p.width)
        dweight[weight_to + c] = dbias[bias_to + c] = 0.0f;
    for (uint first = 0; first < p.rows; first += p.blocks) {
        uint row = first + block, end = row < p.rows ? cols : 0;
        float mean = 0.0f, rstd = 0.0f;
        float2 sums = (float2)(0.0f, 0.0f);
        if (end > 0) {
            mean = stats[p.stats_at + row * p.stats_ld];
            rstd = stats[p.stats_at + row * p.stats_ld + 1];
        }
        for (uint c = COLUMN(0); c < end; c += p.width) {
            float g = dy[p.dy_at + row * p.dy_ld + c] * weight[p.weight_at + c];
            sums += (float2)(g, g * ((x[p.x_at + row * p.x_ld + c] - mean) * rstd));
        }
        sums = row_sum2(sums, buffer, p.width) / (float)p.cols;
        for (uint c = COLUMN(0); c < end; c += p.width) {
            float g = dy[p.dy_at + row * p.dy_ld + c];
            float n = (x[p.x_at + row * p.x_ld + c] - mean) * rstd;
            dweight[weight_to + c] += g * n;
            dbias[bias_to + c] += g;
            dx[p.dx_at + row * p.dx_ld + c] =
                rstd * (g * weight[p.weight_at + c] - sums.x - n * sums.y);
        }
    }
#else
    uint block = SLICE, cols = block < p.blocks ? p.cols : 0;
    float w[ITEMS], weight_sum[ITEMS], bias_sum[ITEMS];
#pragma unroll
    for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        w[k] = c < cols ? weight[p.weight_at + c] : 0.0f;
        weight_sum[k] = bias_sum[k] = 0.0f;
    }
    for (uint first = 0; first < p.rows; first += p.blocks) {
        uint row = first + block, end = row < p.rows ? cols : 0;
        float mean = 0.0f, rstd = 0.0f, g[ITEMS], n[ITEMS];
        float2 sums = (float2)(0.0f, 0.0f);
        if (end > 0) {
            mean = stats[p.stats_at + row * p.stats_ld];
            rstd = stats[p.stats_at + row * p.stats_ld + 1];
        }
#pragma unroll
        for (uint k = 0; k < ITEMS; k++) {
            uint c = COLUMN(k);
            bool inside = c < end;
            g[k] = inside ? dy[p.dy_at + row * p.dy_ld + c] : 0.0f;
            n[k] = inside ? (x[p.x_at + row * p.x_ld + c] - mean) * rstd : 0.0f;
            weight_sum[k] += g[k] * n[k];
            bias_sum[k] += g[k];
            g[k] *= w[k];
            sums += (float2)(g[k], g[k] * n[k]);
        }
        sums = row_sum2(sums, buffer, p.width) / (float)p.cols;
#pragma unroll
        for (uint k = 0; k < ITEMS; k++) {
            uint c = COLUMN(k);
            if (c < end)
                dx[p.dx_at + row * p.dx_ld + c] = rstd * (g[k] - sums.x - n[k] * sums.y);
        }
    }
#pragma unroll
    for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        if (c < cols) {
            dweight[p.dweight_at + block * p.cols + c] = weight_sum[k];
            dbias[p.dbias_at + block * p.cols + c] = bias_sum[k];
        }
    }
#endif
}

kernel void rms_norm(global const float *x, global const float *weight, global float *y,
                     global float *rstd, const struct rms_norm_args p)
{
    local float buffer[GROUP_LANES];
    uint row = SLICE, end = row < p.rows ? p.cols : 0;
    float v[ITEMS], square = 0.0f;
#pragma unroll
    for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        v[k] = c < end ? x[p.x_at + row * p.x_ld + c] : 0.0f;
        square += v[k] * v[k];
    }
    float r = 1.0f / sqrt(row_sum(square, buffer, p.width) / (float)p.cols + p.eps);
#pragma unroll
    for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        if (c < end)
            y[p.y_at + row * p.y_ld + c] = v[k] * r * weight[p.weight_at + c];
    }
    if (p.save && row < p.rows && LANE % p.width == 0)
        rstd[p.rstd_at + row * p.rstd_ld] = r;
}

kernel void rms_norm_bwd(global const float *dy, global const float *x, global const float *weight,
                         global const float *rstd, global float *dx, global float *dweight,
                         const struct rms_norm_bwd_args p)
{
    local float buffer[GROUP_LANES];
#if WIDE_SLICES
    uint block = SLICE, cols = block < p.blocks ? p.cols : 0, to = p.dweight_at + block * p.cols;
    for (uint c = COLUMN(0); c < cols; c += p.width)
        dweight[to + c] = 0.0f;
    for (uint first = 0; first < p.rows; first += p.blocks) {
        uint row = first + block, end = row < p.rows ? cols : 0;
        float r = end > 0 ? rstd[p.rstd_at + row * p.rstd_ld] : 0.0f, sum = 0.0f;
        for (uint c = COLUMN(0); c < end; c += p.width)
            sum += dy[p.dy_at + row * p.dy_ld + c] * weight[p.weight_at + c] *
                   (x[p.x_at + row * p.x_ld + c] * r);
        sum = row_sum(sum, buffer, p.width) / (float)p.cols;
        for (uint c = COLUMN(0); c < end; c += p.width) {
            float g = dy[p.dy_at + row * p.dy_ld + c], n = x[p.x_at + row * p.x_ld + c] * r;
            dweight[to + c] += g * n;
            dx[p.dx_at + row * p.dx_ld + c] = r * (g * weight[p.weight_at + c] - n * sum);
        }
    }
#else
    uint block = SLICE, cols = block < p.blocks ? p.cols : 0;
    float w[ITEMS], weight_sum[ITEMS];
#pragma unroll
    for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        w[k] = c < cols ? weight[p.weight_at + c] : 0.0f;
        weight_sum[k] = 0.0f;
    }
    for (uint first = 0; first < p.rows; first += p.blocks) {
        uint row = first + block, end = row < p.rows ? cols : 0;
        float r = end > 0 ? rstd[p.rstd_at + row * p.rstd_ld] : 0.0f, sum = 0.0f;
        float g[ITEMS], n[ITEMS];
#pragma unroll
        for (uint k = 0; k < ITEMS; k++) {
            uint c = COLUMN(k);
            bool inside = c < end;
            g[k] = inside ? dy[p.dy_at + row * p.dy_ld + c] : 0.0f;
            n[k] = inside ? x[p.x_at + row * p.x_ld + c] * r : 0.0f;
            weight_sum[k] += g[k] * n[k];
            g[k] *= w[k];
            sum += g[k] * n[k];
        }
        sum = row_sum(sum, buffer, p.width) / (float)p.cols;
#pragma unroll
        for (uint k = 0; k < ITEMS; k++) {
            uint c = COLUMN(k);
            if (c < end)
                dx[p.dx_at + row * p.dx_ld + c] = r * (g[k] - n[k] * sum);
        }
    }
#pragma unroll
    for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        if (c < cols)
            dweight[p.dweight_at + block * p.cols + c] = weight_sum[k];
    }
#endif
}

/* cols: of one group of channels */
kernel void gated_rms_norm(global const float *x, global const float *z, global const float *weight,
                           global float *y, global float *rstd, const struct gated_rms_norm_args p)
{
    local float buffer[GROUP_LANES];
    uint row = SLICE / p.groups, part = SLICE % p.groups, start = part * p.cols;
    uint end = row < p.rows ? p.cols : 0;
    float v[ITEMS], square = 0.0f;
#pragma unroll
    for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        v[k] = c < end ? x[p.x_at + row * p.x_ld + start + c] *
                             silu_of(z[p.z_at + row * p.z_ld + start + c])
                       : 0.0f;
        square += v[k] * v[k];
    }
    float r = 1.0f / sqrt(row_sum(square, buffer, p.width) / (float)p.cols + p.eps);
#pragma unroll
    for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        if (c < end)
            y[p.y_at + row * p.y_ld + start + c] = v[k] * r * weight[p.weight_at + start + c];
    }
    if (p.save && row < p.rows && LANE % p.width == 0)
        rstd[p.rstd_at + row * p.rstd_ld + part] = r;
}

kernel void gated_rms_norm_bwd(global const float *dy, global const float *x, global const float *z,
                               global const float *weight, global const float *rstd,
                               global float *dx, global float *dz, global float *dweight,
                               const struct gated_rms_norm_bwd_args p)
{
    local float buffer[GROUP_LANES];
#if WIDE_SLICES
    uint block = SLICE / p.groups, part = SLICE % p.groups, start = part * p.cols;
    uint cols = block < p.blocks ? p.cols : 0;
    uint to = p.dweight_at + block * p.groups * p.cols + start;
    for (uint c = COLUMN(0); c < cols; c += p.width)
        dweight[to + c] = 0.0f;
    for (uint first = 0; first < p.rows; first += p.blocks) {
        uint row = first + block, end = row < p.rows ? cols : 0;
        uint dy_row = p.dy_at + row * p.dy_ld + start, x_row = p.x_at + row * p.x_ld + start;
        uint z_row = p.z_at + row * p.z_ld + start;
        float r = end > 0 ? rstd[p.rstd_at + row * p.rstd_ld + part] : 0.0f, sum = 0.0f;
        for (uint c = COLUMN(0); c < end; c += p.width)
            sum += dy[dy_row + c] * weight[p.weight_at + start + c] *
                   (x[x_row + c] * silu_of(z[z_row + c]) * r);
        sum = row_sum(sum, buffer, p.width) / (float)p.cols;
        for (uint c = COLUMN(0); c < end; c += p.width) {
            float g = dy[dy_row + c], value = x[x_row + c], gate = z[z_row + c];
            float open = silu_of(gate);
            float d = r * (g * weight[p.weight_at + start + c] - value * open * r * sum);
            dweight[to + c] += g * (value * open * r);
            dx[p.dx_at + row * p.dx_ld + start + c] = d * open;
            dz[p.dz_at + row * p.dz_ld + start + c] = d * value * silu_slope(gate);
        }
    }
#else
    uint block = SLICE / p.groups, part = SLICE % p.groups, start = part * p.cols;
    uint cols = block < p.blocks ? p.cols : 0;
    float w[ITEMS], weight_sum[ITEMS];
#pragma unroll
    for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        w[k] = c < cols ? weight[p.weight_at + start + c] : 0.0f;
        weight_sum[k] = 0.0f;
    }
    for (uint first = 0; first < p.rows; first += p.blocks) {
        uint row = first + block, end = row < p.rows ? cols : 0;
        float r = end > 0 ? rstd[p.rstd_at + row * p.rstd_ld + part] : 0.0f, sum = 0.0f;
        float g[ITEMS], value[ITEMS], gate[ITEMS];
#pragma unroll
        for (uint k = 0; k < ITEMS; k++) {
            uint c = COLUMN(k);
            bool inside = c < end;
            g[k] = inside ? dy[p.dy_at + row * p.dy_ld + start + c] : 0.0f;
            value[k] = inside ? x[p.x_at + row * p.x_ld + start + c] : 0.0f;
            gate[k] = inside ? z[p.z_at + row * p.z_ld + start + c] : 0.0f;
            float n = value[k] * silu_of(gate[k]) * r;
            weight_sum[k] += g[k] * n;
            g[k] *= w[k];
            sum += g[k] * n;
        }
        sum = row_sum(sum, buffer, p.width) / (float)p.cols;
#pragma unroll
        for (uint k = 0; k < ITEMS; k++) {
            uint c = COLUMN(k);
            if (c >= end)
                continue;
            float open = silu_of(gate[k]);
            float d = r * (g[k] - value[k] * open * r * sum);
            dx[p.dx_at + row * p.dx_ld + start + c] = d * open;
            dz[p.dz_at + row * p.dz_ld + start + c] = d * value[k] * silu_slope(gate[k]);
        }
    }
#pragma unroll
    for (uint k = 0; k < ITEMS; k++) {
        uint c = COLUMN(k);
        if (c < cols)
            dweight[p.dweight_at + block * p.groups * p.cols + start + c] = weight_sum[k];
    }
#endif
}
