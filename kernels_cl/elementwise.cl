/* Elementwise ops and sums over rows or columns: see host/ops/elementwise.c for their contracts. */
#include "args/elementwise.clh"
#include "itera.clh"
#include "math.clh"
#include "philox.clh"
#include "reduce.clh"

#define GROUP_LANES ITERA_GPU_LOCAL

/* A workgroup takes one tile of the matrix, a lane ELEMENTS of its elements: (row, col) and then
 * each further by (row_step, col_step). `across` tiles lie side by side; 1 << shift lanes do.
 * Neighbouring lanes read neighbouring elements, and all reads come before the first write, which
 * the compiler could not know to be elsewhere. */
#define TILE_ROW   (GROUP / p.across * p.tile_rows + (LANE >> p.shift))
#define TILE_COL   (GROUP % p.across * p.tile_cols + (LANE & ((1u << p.shift) - 1)))
#define AT(x, k)   (p.x##_at + (row + (k)*p.row_step) * p.x##_ld + col + (k)*p.col_step)
#define INSIDE(k)  (row + (k)*p.row_step < p.rows && col + (k)*p.col_step < p.cols)
#define READ(x, k) (INSIDE(k) ? x[AT(x, k)] : 0.0f)

/* y = result, an expression of v */
#define UNARY(result)                                                                              \
    uint row = TILE_ROW, col = TILE_COL;                                                           \
    float values[ELEMENTS];                                                                        \
    for (uint k = 0; k < ELEMENTS; k++)                                                            \
        values[k] = READ(x, k);                                                                    \
    for (uint k = 0; k < ELEMENTS; k++) {                                                          \
        float v = values[k];                                                                       \
        if (INSIDE(k))                                                                             \
            y[AT(y, k)] = (result);                                                                \
    }

kernel void scale(global const float *x, global float *y, const struct unary_args p)
{
    UNARY(p.factor * v);
}

kernel void neg_exp(global const float *x, global float *y, const struct unary_args p)
{
    UNARY(-exp(v));
}

kernel void silu(global const float *x, global float *y, const struct unary_args p)
{
    UNARY(silu_of(v));
}

kernel void gelu(global const float *x, global float *y, const struct unary_args p)
{
    UNARY(gelu_of(v));
}

kernel void softplus(global const float *x, global float *y, const struct unary_args p)
{
    UNARY(softplus_of(v));
}

/* y = result, an expression of u and v */
#define BINARY(result)                                                                             \
    uint row = TILE_ROW, col = TILE_COL;                                                           \
    float first[ELEMENTS], second[ELEMENTS];                                                       \
    for (uint k = 0; k < ELEMENTS; k++) {                                                          \
        first[k] = READ(a, k);                                                                     \
        second[k] = READ(b, k);                                                                    \
    }                                                                                              \
    for (uint k = 0; k < ELEMENTS; k++) {                                                          \
        float u = first[k], v = second[k];                                                         \
        if (INSIDE(k))                                                                             \
            y[AT(y, k)] = (result);                                                                \
    }

kernel void add(global const float *a, global const float *b, global float *y,
                const struct binary_args p)
{
    BINARY(u + v);
}

kernel void mul(global const float *a, global const float *b, global float *y,
                const struct binary_args p)
{
    BINARY(u * v);
}

kernel void penalize(global const float *a, global const float *b, global float *y,
                     const struct binary_args p)
{
    BINARY(u < 0.0f ? u * v : u / v);
}

kernel void silu_bwd(global const float *a, global const float *b, global float *y,
                     const struct binary_args p)
{
    BINARY(u * silu_slope(v));
}

kernel void gelu_bwd(global const float *a, global const float *b, global float *y,
                     const struct binary_args p)
{
    BINARY(u * gelu_slope(v));
}

kernel void softplus_bwd(global const float *a, global const float *b, global float *y,
                         const struct binary_args p)
{
    BINARY(u * softplus_slope_of_y(v));
}

kernel void silu_mul(global const float *a, global const float *b, global float *y,
                     const struct binary_args p)
{
    BINARY(u * silu_of(v));
}

kernel void fill(global uint *y, const struct fill_args p)
{
    uint row = TILE_ROW, col = TILE_COL;
    for (uint k = 0; k < ELEMENTS; k++)
        if (INSIDE(k))
            y[AT(y, k)] = p.bits;
}

/* Bits, not floats: whatever they mean, they stay. */
kernel void copy(global const uint *x, global uint *y, const struct copy_args p)
{
    uint row = TILE_ROW, col = TILE_COL, values[ELEMENTS];
    for (uint k = 0; k < ELEMENTS; k++)
        values[k] = INSIDE(k) ? x[AT(x, k)] : 0;
    for (uint k = 0; k < ELEMENTS; k++)
        if (INSIDE(k))
            y[AT(y, k)] = values[k];
}

kernel void silu_mul_bwd(global const float *dy, global const float *x, global const float *z,
                         global float *dx, global float *dz, const struct silu_mul_bwd_args p)
{
    uint row = TILE_ROW, col = TILE_COL;
    float grad[ELEMENTS], value[ELEMENTS], gate[ELEMENTS];
    for (uint k = 0; k < ELEMENTS; k++) {
        grad[k] = READ(dy, k);
        value[k] = READ(x, k);
        gate[k] = READ(z, k);
    }
    for (uint k = 0; k < ELEMENTS; k++) {
        if (!INSIDE(k))
            continue;
        dx[AT(dx, k)] = grad[k] * silu_of(gate[k]);
        dz[AT(dz, k)] = grad[k] * value[k] * silu_slope(gate[k]);
    }
}

kernel void skip_gate(global const float *c, global const float *x, global const float *d,
                      global const float *z, global float *y, const struct skip_gate_args p)
{
    uint row = TILE_ROW, col = TILE_COL;
    float sum[ELEMENTS], gate[ELEMENTS];
    for (uint k = 0; k < ELEMENTS; k++) {
        uint channel = col + k * p.col_step;
        float factor = channel < p.cols ? d[p.d_at + channel] : 0.0f;
        sum[k] = READ(c, k) + factor * READ(x, k);
        gate[k] = p.gated ? READ(z, k) : 0.0f;
    }
    for (uint k = 0; k < ELEMENTS; k++)
        if (INSIDE(k))
            y[AT(y, k)] = p.gated ? sum[k] * silu_of(gate[k]) : sum[k];
}

kernel void softplus_mean_bwd(global const float *dy, global const float *x, global float *dx,
                              const struct softplus_mean_bwd_args p)
{
    uint row = TILE_ROW, col = TILE_COL;
    float grad[ELEMENTS], value[ELEMENTS];
    for (uint k = 0; k < ELEMENTS; k++) {
        uint r = row + k * p.row_step;
        grad[k] = r < p.rows ? dy[p.dy_at + r * p.dy_ld] : 0.0f;
        value[k] = READ(x, k);
    }
    for (uint k = 0; k < ELEMENTS; k++)
        if (INSIDE(k))
            dx[AT(dx, k)] = grad[k] / (float)p.cols * sigmoid_of(value[k]);
}

/* A workgroup takes ELEMENTS times its lanes of consecutive elements. Each lane draws one block of
 * four numbers; they are handed out so that neighbours write neighbours. */
kernel void dropout(global const float *x, global const uint *rng, global float *y,
                    const struct dropout_args p)
{
    local uint drawn[ELEMENTS * GROUP_LANES];
    global const uint *r = rng + p.rng_at;
    uint4 block = philox((uint2)(r[0], r[1]), (uint2)(r[2], r[3] ^ p.stream), (uint2)(THREAD, 0));
    vstore4(block, LANE, drawn);
    barrier(CLK_LOCAL_MEM_FENCE);
    float values[ELEMENTS];
    uint row[ELEMENTS], col[ELEMENTS];
    for (uint k = 0; k < ELEMENTS; k++) {
        uint i = GROUP * ELEMENTS * LANES + k * LANES + LANE;
        row[k] = p.rows > 1 ? i / p.cols : (i < p.cols ? 0 : 1);
        col[k] = i - row[k] * p.cols;
        values[k] = row[k] < p.rows ? x[p.x_at + row[k] * p.x_ld + col[k]] : 0.0f;
    }
    for (uint k = 0; k < ELEMENTS; k++) {
        bool keep = philox_uniform(drawn[k * LANES + LANE]) >= p.p;
        if (row[k] < p.rows)
            y[p.y_at + row[k] * p.y_ld + col[k]] = keep ? values[k] * p.factor : 0.0f;
    }
}

/* A workgroup takes LANES / width rows, `width` lanes each. */
kernel void softplus_mean(global const float *x, global float *y, const struct softplus_mean_args p)
{
    local float buffer[GROUP_LANES];
    uint row = GROUP * (LANES / p.width) + LANE / p.width, lane = LANE % p.width;
    float sum = 0.0f;
    if (row < p.rows)
        for (uint c = lane; c < p.cols; c += p.width)
            sum += softplus_of(x[p.x_at + row * p.x_ld + c]);
    sum = row_sum(sum, buffer, p.width);
    if (row < p.rows && lane == 0)
        y[p.y_at + row * p.y_ld] = sum / (float)p.cols;
}

/* A workgroup takes 1 << shift columns of `block_rows` rows; `across` of them lie side by side. Its
 * lanes above each other share a column. */
#define BLOCK_INDEX (GROUP / p.across)
#define BLOCK_COL   ((GROUP % p.across << p.shift) + (LANE & ((1u << p.shift) - 1)))
#define BLOCK_ROW   (BLOCK_INDEX * p.block_rows + (LANE >> p.shift))
#define BLOCK_END   min(p.rows, (BLOCK_INDEX + 1) * p.block_rows)

/* The sum of column c over block b goes to y[b * y_block + c / wrap * y_outer + c % wrap * y_inner].
 * x_row: x's row stride, which may be scratch. */
kernel void column_sum(global const float *x, global float *y, const struct column_sum_args p)
{
    local float buffer[GROUP_LANES];
    uint col = BLOCK_COL, step = LANES >> p.shift;
    float sum = 0.0f;
    if (col < p.cols)
        for (uint r = BLOCK_ROW; r < BLOCK_END; r += step)
            sum += x[p.x_at + r * p.x_row + col];
    sum = stack_sum(sum, buffer, p.shift);
    if (col < p.cols && LANE >> p.shift == 0 && BLOCK_INDEX * p.block_rows < max(p.rows, 1u))
        y[p.y_at + BLOCK_INDEX * p.y_block + col / p.wrap * p.y_outer + col % p.wrap * p.y_inner] =
            sum;
}

/* sums: dd of each block of rows. */
kernel void skip_gate_bwd(global const float *dy, global const float *c, global const float *x,
                          global const float *d, global const float *z, global float *dc,
                          global float *dx, global float *sums, global float *dz,
                          const struct skip_gate_bwd_args p)
{
    local float buffer[GROUP_LANES];
    uint col = BLOCK_COL, step = LANES >> p.shift;
    float dd = 0.0f, factor = col < p.cols ? d[p.d_at + col] : 0.0f;
    if (col < p.cols)
        for (uint r = BLOCK_ROW; r < BLOCK_END; r += step) {
            float g = dy[p.dy_at + r * p.dy_ld + col], v = x[p.x_at + r * p.x_ld + col];
            if (p.gated) {
                float gate = z[p.z_at + r * p.z_ld + col];
                if (p.want_dz) {
                    float t = c[p.c_at + r * p.c_ld + col] + factor * v;
                    dz[p.dz_at + r * p.dz_ld + col] = g * t * silu_slope(gate);
                }
                g *= silu_of(gate);
            }
            dd += g * v;
            dc[p.dc_at + r * p.dc_ld + col] = g;
            dx[p.dx_at + r * p.dx_ld + col] = g * factor;
        }
    dd = stack_sum(dd, buffer, p.shift);
    if (col < p.cols && LANE >> p.shift == 0 && BLOCK_INDEX * p.block_rows < max(p.rows, 1u))
        sums[p.sums_at + BLOCK_INDEX * p.cols + col] = dd;
}
