/* Normalisations over vectors (contracts: host/ops/norm.c). A row is read two or three times, from
 * the first-level cache after the first; threads share rows. */
#include <math.h>

#include "cpu_fallback/simd/span.h"

/* sum of x */
static inline float row_sum(const float *x, int64_t cols)
{
    vf s0 = vf_zero(), s1 = vf_zero(), s2 = vf_zero(), s3 = vf_zero();
    int64_t i = 0;
    for (; i + 4 * VF_N <= cols; i += 4 * VF_N) {
        s0 = vf_add(s0, vf_load(x + i));
        s1 = vf_add(s1, vf_load(x + i + VF_N));
        s2 = vf_add(s2, vf_load(x + i + 2 * VF_N));
        s3 = vf_add(s3, vf_load(x + i + 3 * VF_N));
    }
    for (; i + VF_N <= cols; i += VF_N)
        s0 = vf_add(s0, vf_load(x + i));
    if (i < cols)
        s1 = vf_add(s1, vf_load_n(x + i, cols - i));
    return vf_sum(vf_add(vf_add(s0, s1), vf_add(s2, s3)));
}

/* sum of (x - center)^2 */
static inline float row_squares(const float *x, vf center, int64_t cols)
{
    vf s0 = vf_zero(), s1 = vf_zero(), s2 = vf_zero(), s3 = vf_zero();
    int64_t i = 0;
    for (; i + 4 * VF_N <= cols; i += 4 * VF_N) {
        vf x0 = vf_sub(vf_load(x + i), center), x1 = vf_sub(vf_load(x + i + VF_N), center);
        vf x2 = vf_sub(vf_load(x + i + 2 * VF_N), center);
        vf x3 = vf_sub(vf_load(x + i + 3 * VF_N), center);
        s0 = vf_fma(x0, x0, s0);
        s1 = vf_fma(x1, x1, s1);
        s2 = vf_fma(x2, x2, s2);
        s3 = vf_fma(x3, x3, s3);
    }
    for (; i + VF_N <= cols; i += VF_N) {
        vf x0 = vf_sub(vf_load(x + i), center);
        s0 = vf_fma(x0, x0, s0);
    }
    if (i < cols) {
        vf x1 = vf_sub(vf_load_or(x + i, cols - i, center), center);
        s1 = vf_fma(x1, x1, s1);
    }
    return vf_sum(vf_add(vf_add(s0, s1), vf_add(s2, s3)));
}

static inline float inverse_root(float sum, int64_t count, float eps)
{
    return 1.0f / sqrtf(sum / (float)count + eps);
}

static void layer_norm_run(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *stats = &call->out[1];
    const float *weight = itera_f32(&call->in[1]), *bias = itera_f32(&call->in[2]);
    int64_t begin, end, cols = call->in[0].cols;
    itera_share(team, call->in[0].rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *x = itera_row(&call->in[0], r);
        float *y = itera_row(&call->out[0], r);
        float mean = row_sum(x, cols) / (float)cols;
        vf m = vf_set(mean);
        float rstd = inverse_root(row_squares(x, m, cols), cols, call->attr->eps);
        vf s = vf_set(rstd);
        int64_t i = 0;
        for (; i + VF_N <= cols; i += VF_N) {
            vf n = vf_mul(vf_sub(vf_load(x + i), m), s);
            vf_store(y + i, vf_fma(n, vf_load(weight + i), vf_load(bias + i)));
        }
        if (i < cols) {
            int64_t k = cols - i;
            vf n = vf_mul(vf_sub(vf_load_n(x + i, k), m), s);
            vf_store_n(y + i, vf_fma(n, vf_load_n(weight + i, k), vf_load_n(bias + i, k)), k);
        }
        if (stats->data) {
            itera_row(stats, r)[0] = mean;
            itera_row(stats, r)[1] = rstd;
        }
    }
}
const struct itera_kernel ITERA_SIMD(layer_norm) = {.run = layer_norm_run};

static void rms_norm_run(const struct itera_call *call, struct itera_team *team)
{
    const float *weight = itera_f32(&call->in[1]);
    int64_t begin, end, cols = call->in[0].cols;
    itera_share(team, call->in[0].rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *x = itera_row(&call->in[0], r);
        float *y = itera_row(&call->out[0], r);
        float rstd = inverse_root(row_squares(x, vf_zero(), cols), cols, call->attr->eps);
        vf s = vf_set(rstd);
        int64_t i = 0;
        for (; i + VF_N <= cols; i += VF_N)
            vf_store(y + i, vf_mul(vf_mul(vf_load(x + i), s), vf_load(weight + i)));
        if (i < cols) {
            int64_t k = cols - i;
            vf n = vf_mul(vf_load_n(x + i, k), s);
            vf_store_n(y + i, vf_mul(n, vf_load_n(weight + i, k)), k);
        }
        if (call->out[1].data)
            *itera_row(&call->out[1], r) = rstd;
    }
}
const struct itera_kernel ITERA_SIMD(rms_norm) = {.run = rms_norm_run};

/* One row of layer_norm_bwd or, with mean 0 and no dbias, of rms_norm_bwd. */
struct norm_back {
    const float *dy, *x, *weight;
    float *dx, *dweight, *dbias;
    vf mean, rstd;
};

/* g += dy w; gn += dy w n */
ITERA_INLINE void norm_back_sums(const struct norm_back *p, bool centered, int64_t i, int64_t n,
                                 vf *g, vf *gn)
{
    vf x = n == VF_N ? vf_load(p->x + i) : vf_load_or(p->x + i, n, p->mean);
    vf normal = vf_mul(centered ? vf_sub(x, p->mean) : x, p->rstd);
    vf scaled = vf_mul(itera_get(p->dy + i, n), itera_get(p->weight + i, n));
    if (centered)
        *g = vf_add(*g, scaled);
    *gn = vf_fma(scaled, normal, *gn);
}

ITERA_INLINE void norm_back_write(const struct norm_back *p, bool centered, vf g_mean, vf gn_mean,
                                  int64_t i, int64_t n)
{
    vf x = itera_get(p->x + i, n), dy = itera_get(p->dy + i, n);
    vf normal = vf_mul(centered ? vf_sub(x, p->mean) : x, p->rstd);
    vf scaled = vf_mul(dy, itera_get(p->weight + i, n));
    if (centered)
        scaled = vf_sub(scaled, g_mean);
    itera_put(p->dweight + i, vf_fma(dy, normal, itera_get(p->dweight + i, n)), n);
    if (centered)
        itera_put(p->dbias + i, vf_add(dy, itera_get(p->dbias + i, n)), n);
    itera_put(p->dx + i, vf_mul(vf_fnma(normal, gn_mean, scaled), p->rstd), n);
}

ITERA_INLINE void norm_back_row(const struct norm_back *p, bool centered, int64_t cols)
{
    vf g0 = vf_zero(), g1 = vf_zero(), gn0 = vf_zero(), gn1 = vf_zero();
    int64_t i = 0;
    for (; i + 2 * VF_N <= cols; i += 2 * VF_N) {
        norm_back_sums(p, centered, i, VF_N, &g0, &gn0);
        norm_back_sums(p, centered, i + VF_N, VF_N, &g1, &gn1);
    }
    for (; i + VF_N <= cols; i += VF_N)
        norm_back_sums(p, centered, i, VF_N, &g0, &gn0);
    if (i < cols)
        norm_back_sums(p, centered, i, cols - i, &g1, &gn1);
    float inverse = 1.0f / (float)cols;
    vf g_mean = vf_set(centered ? vf_sum(vf_add(g0, g1)) * inverse : 0.0f);
    vf gn_mean = vf_set(vf_sum(vf_add(gn0, gn1)) * inverse);
    for (i = 0; i + VF_N <= cols; i += VF_N)
        norm_back_write(p, centered, g_mean, gn_mean, i, VF_N);
    if (i < cols)
        norm_back_write(p, centered, g_mean, gn_mean, i, cols - i);
}

ITERA_INLINE void norm_back_rows(const struct itera_call *call, struct itera_team *team,
                                 bool centered)
{
    struct norm_back p = {.weight = itera_f32(&call->in[2]), .mean = vf_zero()};
    p.dweight = itera_partials(call, team, &call->out[1], 0);
    if (centered)
        p.dbias = itera_partials(call, team, &call->out[2], 1);
    int64_t begin, end;
    itera_share(team, call->in[1].rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *stats = itera_row(&call->in[3], r);
        p.dy = itera_row(&call->in[0], r);
        p.x = itera_row(&call->in[1], r);
        p.dx = itera_row(&call->out[0], r);
        if (centered)
            p.mean = vf_set(stats[0]);
        p.rstd = vf_set(stats[centered ? 1 : 0]);
        norm_back_row(&p, centered, call->in[1].cols);
    }
    if (team->size > 1)
        itera_team_barrier(team);
    itera_partials_finish(call, team, &call->out[1], 0);
    if (centered)
        itera_partials_finish(call, team, &call->out[2], 1);
}

static size_t layer_norm_bwd_scratch(const struct itera_call *call, int threads)
{
    return itera_partials_bytes(call->out[1].cols, 2, threads);
}
static void layer_norm_bwd_run(const struct itera_call *call, struct itera_team *team)
{
    norm_back_rows(call, team, true);
}
const struct itera_kernel ITERA_SIMD(layer_norm_bwd) = {.run = layer_norm_bwd_run,
                                                        .scratch = layer_norm_bwd_scratch};

static size_t rms_norm_bwd_scratch(const struct itera_call *call, int threads)
{
    return itera_partials_bytes(call->out[1].cols, 1, threads);
}
static void rms_norm_bwd_run(const struct itera_call *call, struct itera_team *team)
{
    norm_back_rows(call, team, false);
}
const struct itera_kernel ITERA_SIMD(rms_norm_bwd) = {.run = rms_norm_bwd_run,
                                                      .scratch = rms_norm_bwd_scratch};

/* y = x silu(z), and the sum of its squares; the second pass only scales y. */
static inline float gate_squares(const float *x, const float *z, float *y, int64_t cols)
{
    vf s0 = vf_zero(), s1 = vf_zero();
    int64_t i = 0;
    for (; i + 2 * VF_N <= cols; i += 2 * VF_N) {
        vf g0 = vf_mul(vf_load(x + i), vf_silu(vf_load(z + i)));
        vf g1 = vf_mul(vf_load(x + i + VF_N), vf_silu(vf_load(z + i + VF_N)));
        s0 = vf_fma(g0, g0, s0);
        s1 = vf_fma(g1, g1, s1);
        vf_store(y + i, g0);
        vf_store(y + i + VF_N, g1);
    }
    for (; i < cols; i += VF_N) {
        int64_t n = cols - i < VF_N ? cols - i : VF_N;
        vf g = vf_mul(vf_load_n(x + i, n), vf_silu(vf_load_n(z + i, n)));
        s0 = vf_fma(g, g, s0);
        vf_store_n(y + i, g, n);
    }
    return vf_sum(vf_add(s0, s1));
}

static void gated_rms_norm_run(const struct itera_call *call, struct itera_team *team)
{
    int64_t begin, end, cols = call->in[0].cols;
    int64_t groups = call->attr->groups ? call->attr->groups : 1, width = cols / groups;
    itera_share(team, call->in[0].rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++)
        for (int64_t k = 0; k < groups; k++) {
            const float *x = itera_row(&call->in[0], r) + k * width;
            const float *z = itera_row(&call->in[1], r) + k * width;
            const float *weight = itera_f32(&call->in[2]) + k * width;
            float *y = itera_row(&call->out[0], r) + k * width;
            float rstd = inverse_root(gate_squares(x, z, y, width), width, call->attr->eps);
            vf s = vf_set(rstd);
            int64_t i = 0;
            for (; i + VF_N <= width; i += VF_N)
                vf_store(y + i, vf_mul(vf_mul(vf_load(y + i), s), vf_load(weight + i)));
            if (i < width) {
                int64_t n = width - i;
                vf g = vf_mul(vf_load_n(y + i, n), s);
                vf_store_n(y + i, vf_mul(g, vf_load_n(weight + i, n)), n);
            }
            if (call->out[1].data)
                itera_row(&call->out[1], r)[k] = rstd;
        }
}
const struct itera_kernel ITERA_SIMD(gated_rms_norm) = {.run = gated_rms_norm_run};

/* One group of one row. The first pass leaves sigmoid(z) in dz for the second. */
struct gated_back {
    const float *dy, *x, *z, *weight;
    float *dx, *dz, *dweight;
    vf rstd;
};

ITERA_INLINE vf gated_back_sum(const struct gated_back *p, int64_t i, int64_t n, vf sum)
{
    vf z = itera_get(p->z + i, n), s = vf_sigmoid(z);
    vf normal = vf_mul(vf_mul(itera_get(p->x + i, n), vf_mul(z, s)), p->rstd);
    itera_put(p->dz + i, s, n);
    return vf_fma(vf_mul(itera_get(p->dy + i, n), itera_get(p->weight + i, n)), normal, sum);
}

ITERA_INLINE void gated_back_write(const struct gated_back *p, vf gn_mean, int64_t i, int64_t n)
{
    vf z = itera_get(p->z + i, n), s = itera_get(p->dz + i, n), x = itera_get(p->x + i, n);
    vf dy = itera_get(p->dy + i, n), silu = vf_mul(z, s);
    vf normal = vf_mul(vf_mul(x, silu), p->rstd);
    vf dg = vf_fnma(normal, gn_mean, vf_mul(dy, itera_get(p->weight + i, n)));
    dg = vf_mul(dg, p->rstd);
    itera_put(p->dweight + i, vf_fma(dy, normal, itera_get(p->dweight + i, n)), n);
    itera_put(p->dx + i, vf_mul(dg, silu), n);
    itera_put(p->dz + i, vf_mul(vf_mul(dg, x), vf_silu_slope(z, s)), n);
}

static void gated_back_group(const struct gated_back *p, int64_t width)
{
    vf sum0 = vf_zero(), sum1 = vf_zero();
    int64_t i = 0;
    for (; i + 2 * VF_N <= width; i += 2 * VF_N) {
        sum0 = gated_back_sum(p, i, VF_N, sum0);
        sum1 = gated_back_sum(p, i + VF_N, VF_N, sum1);
    }
    for (; i + VF_N <= width; i += VF_N)
        sum0 = gated_back_sum(p, i, VF_N, sum0);
    if (i < width)
        sum1 = gated_back_sum(p, i, width - i, sum1);
    vf gn_mean = vf_set(vf_sum(vf_add(sum0, sum1)) / (float)width);
    for (i = 0; i + VF_N <= width; i += VF_N)
        gated_back_write(p, gn_mean, i, VF_N);
    if (i < width)
        gated_back_write(p, gn_mean, i, width - i);
}

static size_t gated_rms_norm_bwd_scratch(const struct itera_call *call, int threads)
{
    return itera_partials_bytes(call->out[2].cols, 1, threads);
}

static void gated_rms_norm_bwd_run(const struct itera_call *call, struct itera_team *team)
{
    int64_t begin, end, cols = call->in[1].cols;
    int64_t groups = call->attr->groups ? call->attr->groups : 1, width = cols / groups;
    float *dweight = itera_partials(call, team, &call->out[2], 0);
    itera_share(team, call->in[1].rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++)
        for (int64_t k = 0; k < groups; k++) {
            struct gated_back p = {
                .dy = itera_row(&call->in[0], r) + k * width,
                .x = itera_row(&call->in[1], r) + k * width,
                .z = itera_row(&call->in[2], r) + k * width,
                .weight = itera_f32(&call->in[3]) + k * width,
                .dx = itera_row(&call->out[0], r) + k * width,
                .dz = itera_row(&call->out[1], r) + k * width,
                .dweight = dweight + k * width,
                .rstd = vf_set(itera_row(&call->in[4], r)[k]),
            };
            gated_back_group(&p, width);
        }
    if (team->size > 1)
        itera_team_barrier(team);
    itera_partials_finish(call, team, &call->out[2], 0);
}
const struct itera_kernel ITERA_SIMD(gated_rms_norm_bwd) = {.run = gated_rms_norm_bwd_run,
                                                            .scratch = gated_rms_norm_bwd_scratch};
