/* One step of a mixer of few rows: the scans with what comes before and after them. Contracts:
 * host/ops/scan.c; docs/kernels.md says what chains are. */
#include "any_weight.clh"
#include "args/scan_selective.clh"
#include "args/step.clh"
#include "itera.clh"
#include "math.clh"
#include "reduce.clh"

#define WORKGROUP(lanes) __attribute__((reqd_work_group_size(lanes, 1, 1)))

#ifndef W_TYPE
#define W_TYPE 0
#endif
#ifndef C_TYPE
#define C_TYPE 0
#endif

/* Element (row, k) of a matrix of weights. */
#define WEIGHT_AT(TYPE, x, at, ld, scales, row, k)                                                 \
    any_weight(TYPE, x, (TYPE) >= 4 ? (at) : (at) + (row) * (ld), scales,                          \
               (TYPE) >= 4 ? (row) * (ld) + (k) : (k))

#ifdef SPLIT
#define SIZE   ITERA_GPU_LOCAL
#define WIDE   (SIZE / SPLIT)
#define SLOTS  (SPLIT * STATES)
#define LOG2_E 1.442695041f

/* row = x, normalised where there is a weight: RMS over its `count` elements. */
INLINE void load_row(local float *row, global const float *x, uint count, bool has_norm,
                     global const float *norm, float eps, local float *buffer)
{
    float square = 0.0f;
    for (uint k = LANE; k < count; k += SIZE) {
        row[k] = x[k];
        square += row[k] * row[k];
    }
    /* The sum is taken in any case: PoCL loses workgroups behind barriers that are reached on condition. */
    float r = 1.0f / sqrt(group_sum(square, buffer) / (float)count + eps);
    for (uint k = LANE; k < count && has_norm; k += SIZE)
        row[k] *= r * norm[k];
}

/* The sum of the SPLIT lanes of channel c, which begins with another lane in each. */
static inline float sum_of_channel(local const float *part, uint c)
{
    float sum = 0.0f;
    for (uint i = 0; i < SPLIT; i++)
        sum += part[c * SPLIT + (i + c * SPLIT / 32) % SPLIT];
    return sum;
}

/* selective_scan of one step, with what its dt, B and C are made of: dt = act(low.wT + bias), and norms of
 * low, B and C. A workgroup takes WIDE channels of a sequence. */
WORKGROUP(SIZE)
kernel void selective_scan_step(global const float *x, global const float *low,
                                global const uint *w, global const float *bias,
                                global const float *A, global const float *B, global const float *C,
                                global const float *D, global const float *z, global float *state,
                                global const float *low_norm, global const float *b_norm,
                                global const float *c_norm, global float *y,
                                const struct selective_scan_step_args p)
{
    local float row_low[RANK], row_b[SLOTS], row_c[SLOTS], part[SIZE];
    const uint blocks = (p.channels + WIDE - 1) / WIDE;
    const bool idle = GROUP >= p.batch * blocks; /* the grid may be larger */
    const uint group = idle ? 0 : GROUP, i = group / blocks, first = group % blocks * WIDE;
    const uint channel = LANE / SPLIT, lane = LANE % SPLIT, c = first + channel;
    const bool own = !idle && c < p.channels, has_state = p.has & HAS_STATE;
    load_row(row_low, low + p.low_at + i * p.low_ld, p.rank, p.has & HAS_LOW_NORM,
             low_norm + p.low_norm_at, p.low_eps, part);
    load_row(row_b, B + p.B_at + i * p.B_ld, p.states, p.has & HAS_B_NORM, b_norm + p.b_norm_at,
             p.b_eps, part);
    load_row(row_c, C + p.C_at + i * p.C_ld, p.states, p.has & HAS_C_NORM, c_norm + p.c_norm_at,
             p.c_eps, part);
    barrier(CLK_LOCAL_MEM_FENCE);

    float sum = 0.0f;
    for (uint k = lane; k < p.rank && own; k += SPLIT)
        sum += row_low[k] * WEIGHT_AT(W_TYPE, w, p.w_at, p.w_ld, p.scales, c, k);
    part[LANE] = sum;
    barrier(CLK_LOCAL_MEM_FENCE);
    float dt = sum_of_channel(part, channel);
    if (p.has & HAS_BIAS && own)
        dt += bias[p.bias_at + c];
    dt = activate(dt, p.act);
    const float input = own ? x[p.x_at + i * p.x_ld + c] : 0.0f, u = dt * input;
    barrier(CLK_LOCAL_MEM_FENCE); /* the parts have been read */

    sum = 0.0f;
    const uint state_row = p.state_at + (i * p.channels + c) * p.state_ld;
    for (uint s = 0; s < STATES; s++) {
        const uint n = s * SPLIT + lane;
        if (!own || n >= p.states)
            continue;
        float h = has_state ? state[state_row + n] : 0.0f;
        h = exp2(dt * (A[p.A_at + c * p.A_ld + n] * LOG2_E)) * h + u * row_b[n];
        sum += row_c[n] * h;
        if (has_state)
            state[state_row + n] = h;
    }
    part[LANE] = sum;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (!own || lane != 0)
        return;
    sum = sum_of_channel(part, channel);
    if (p.has & HAS_D)
        sum += D[p.D_at + c] * input;
    if (p.has & HAS_Z)
        sum *= silu_of(z[p.z_at + i * p.z_ld + c]);
    y[p.y_at + i * p.y_ld + c] = sum;
}
#endif

/* One step of itera_scan, with what its input is made of and what becomes of it:
 *   h = exp(m A) h + m u, m = mean of softplus(delta), u = source.bT if the kernel makes it
 *   y = (h.cT + d x) SiLU(z)
 * A workgroup takes a sequence. */
WORKGROUP(ITERA_GPU_LOCAL)
kernel void itera_scan_step(global const float *delta, global const float *A, global const float *u,
                            global const uint *b, global const float *source, global const uint *c,
                            global const float *x, global const float *d, global const float *z,
                            global float *state, global float *y,
                            const struct itera_scan_step_args p)
{
    local float row_h[STEP_STATES], buffer[ITERA_GPU_LOCAL];
    const uint i = GROUP;
    float sum = 0.0f;
    for (uint k = LANE; k < p.width; k += LANES)
        sum += softplus_of(delta[p.delta_at + i * p.delta_ld + k]);
    const float mean = group_sum(sum, buffer) / (float)p.width;

    const uint width = p.lanes, n = LANE / width;
    sum = 0.0f;
    for (uint k = LANE % width; n < p.states && k < p.depth;
         k += width) /* depth is 0 where u is given */
        sum += source[p.source_at + i * p.source_ld + k] *
               WEIGHT_AT(W_TYPE, b, p.b_at, p.b_ld, p.b_scales, n, k);
    sum = row_sum(sum, buffer, width);
    if (n < p.states && LANE % width == 0) {
        if (!p.makes_u)
            sum = u[p.u_at + i * p.u_ld + n];
        const uint at = p.state_at + i * p.state_ld + n;
        float h = p.has & HAS_STATE ? state[at] : 0.0f;
        h = exp(mean * A[p.A_at + n]) * h + mean * sum;
        if (p.has & HAS_STATE)
            state[at] = h;
        row_h[n] = h;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint k = LANE; k < p.channels; k += LANES) {
        sum = 0.0f;
        for (uint s = 0; s < p.states; s++)
            sum += row_h[s] * WEIGHT_AT(C_TYPE, c, p.c_at, p.c_ld, p.c_scales, k, s);
        sum += d[p.d_at + k] * x[p.x_at + i * p.x_ld + k];
        if (p.has & HAS_Z)
            sum *= silu_of(z[p.z_at + i * p.z_ld + k]);
        y[p.y_at + i * p.y_ld + k] = sum;
    }
}
