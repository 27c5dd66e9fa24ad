/* Optimiser ops over vectors (contracts: host/ops/optimizer.c). */
#include <math.h>

#include "cpu_fallback/simd/span.h"

/* Elements whose squares one sum takes: fixed, so that the result does not depend on threads. */
enum { CHUNK = 16384 };

/* The matrix as the chunks see it: one row where it is plain. */
static void chunks_of(const struct itera_arg *grad, int64_t *rows, int64_t *cols, int64_t *per_row)
{
    bool plain = itera_plain(grad);
    *rows = plain ? 1 : grad->rows;
    *cols = plain ? grad->rows * grad->cols : grad->cols;
    *per_row = (*cols + CHUNK - 1) / CHUNK;
}

static size_t grad_norm_scratch(const struct itera_call *call, int threads)
{
    (void)threads;
    int64_t rows, cols, per_row;
    chunks_of(&call->in[0], &rows, &cols, &per_row);
    return (size_t)(rows * per_row) * sizeof(double);
}

static double squares(const float *x, int64_t n)
{
    vd s0 = vd_zero(), s1 = vd_zero(), s2 = vd_zero(), s3 = vd_zero();
    int64_t i = 0;
    for (; i + 2 * VF_N <= n; i += 2 * VF_N) {
        vf a = vf_load(x + i), b = vf_load(x + i + VF_N);
        vd a0 = vf_low_vd(a), a1 = vf_high_vd(a), b0 = vf_low_vd(b), b1 = vf_high_vd(b);
        s0 = vd_fma(a0, a0, s0);
        s1 = vd_fma(a1, a1, s1);
        s2 = vd_fma(b0, b0, s2);
        s3 = vd_fma(b1, b1, s3);
    }
    double sum = vd_sum(vd_add(vd_add(s0, s1), vd_add(s2, s3)));
    for (; i < n; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

static void grad_norm_run(const struct itera_call *call, struct itera_team *team)
{
    double *sums = call->scratch;
    int64_t rows, cols, per_row, begin, end;
    chunks_of(&call->in[0], &rows, &cols, &per_row);
    itera_share(team, rows * per_row, 1, &begin, &end);
    for (int64_t k = begin; k < end; k++) {
        int64_t row = k / per_row, first = (k - row * per_row) * CHUNK;
        int64_t count = cols - first < CHUNK ? cols - first : CHUNK;
        sums[k] = squares(itera_row(&call->in[0], row) + first, count);
    }
    if (team->size > 1)
        itera_team_barrier(team);
    if (team->rank)
        return;
    double sum = 0;
    for (int64_t k = 0; k < rows * per_row; k++)
        sum += sums[k];
    /* The square of a finite float is far from overflowing a double: the sum is finite exactly when
     * every element is. */
    itera_f32(&call->out[0])[0] = (float)sqrt(sum);
    itera_f32(&call->out[0])[1] = isfinite(sum) ? 1.0f : 0.0f;
}
const struct itera_kernel ITERA_SIMD(grad_norm) = {.run = grad_norm_run,
                                                   .scratch = grad_norm_scratch};

struct adamw {
    vf scale, beta1, beta2, rest1, rest2; /* rest = 1 - beta */
    vf rate;                              /* lr / bias1 */
    vf inverse2;                          /* 1 / bias2 */
    vf eps;
    vf decay; /* lr decay */
};

ITERA_INLINE void adamw_step(const struct adamw *a, float *p, const float *grad, float *m, float *v,
                             int64_t n)
{
    vf g = vf_mul(itera_get(grad, n), a->scale);
    vf m1 = vf_fma(itera_get(m, n), a->beta1, vf_mul(g, a->rest1));
    vf v1 = vf_fma(itera_get(v, n), a->beta2, vf_mul(vf_mul(g, g), a->rest2));
    vf root = vf_add(vf_sqrt(vf_mul(v1, a->inverse2)), a->eps);
    itera_put(m, m1, n);
    itera_put(v, v1, n);
    /* not p (1 - lr decay): that factor would round the decay away */
    vf x = itera_get(p, n);
    vf step = vf_fma(a->rate, vf_div(m1, root), vf_mul(x, a->decay));
    itera_put(p, vf_sub(x, step), n);
}

static void adamw_run(const struct itera_call *call, struct itera_team *team)
{
    const float *hyper = itera_f32(&call->in[4]), *norm = itera_f32(&call->in[5]);
    if (norm[1] == 0.0f)
        return;
    double lr = hyper[0], beta1 = hyper[1], beta2 = hyper[2], scale = hyper[7];
    double clip = hyper[6] > 0 ? hyper[6] / (norm[0] * scale + 1e-6) : 1.0;
    if (clip < 1.0)
        scale *= clip;
    struct adamw a = {
        .scale = vf_set((float)scale),
        .beta1 = vf_set(hyper[1]),
        .beta2 = vf_set(hyper[2]),
        .rest1 = vf_set((float)(1.0 - beta1)),
        .rest2 = vf_set((float)(1.0 - beta2)),
        .rate = vf_set((float)(lr / hyper[4])),
        .inverse2 = vf_set((float)(1.0 / hyper[5])),
        .eps = vf_set(hyper[3]),
        .decay = vf_set((float)(lr * call->attr->p)),
    };
    bool plain = true;
    for (int i = 0; i < 4; i++)
        plain = plain && itera_plain(&call->in[i]);
    struct itera_area area = itera_area(team, &call->in[0], plain);
    for (int64_t r = area.row; r < area.rows_end; r++) {
        float *p = itera_row(&call->in[0], r) + area.col;
        const float *grad = itera_row(&call->in[1], r) + area.col;
        float *m = itera_row(&call->in[2], r) + area.col,
              *v = itera_row(&call->in[3], r) + area.col;
        int64_t i = 0;
        for (; i + VF_N <= area.cols; i += VF_N)
            adamw_step(&a, p + i, grad + i, m + i, v + i, VF_N);
        if (i < area.cols)
            adamw_step(&a, p + i, grad + i, m + i, v + i, area.cols - i);
    }
}
const struct itera_kernel ITERA_SIMD(adamw) = {.run = adamw_run};
