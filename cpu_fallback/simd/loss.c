/* Losses over vectors (contracts: host/ops/loss.c). A row is walked in blocks that fit the
 * first-level cache: the maximum of a block, then its exponentials, so that memory is read once. */
#include <math.h>

#include "cpu_fallback/simd/span.h"

enum { BLOCK = 1024 };

/* sum over v of exp((x[v] - max) scale) */
struct row_sum {
    float max;
    double sum;
};

static inline float block_max(const float *x, int64_t n)
{
    vf low = vf_set(-INFINITY);
    vf m0 = low, m1 = low, m2 = low, m3 = low;
    int64_t i = 0;
    for (; i + 4 * VF_N <= n; i += 4 * VF_N) {
        m0 = vf_max(m0, vf_load(x + i));
        m1 = vf_max(m1, vf_load(x + i + VF_N));
        m2 = vf_max(m2, vf_load(x + i + 2 * VF_N));
        m3 = vf_max(m3, vf_load(x + i + 3 * VF_N));
    }
    for (; i + VF_N <= n; i += VF_N)
        m0 = vf_max(m0, vf_load(x + i));
    if (i < n)
        m1 = vf_max(m1, vf_load_or(x + i, n - i, low));
    return vf_hmax(vf_max(vf_max(m0, m1), vf_max(m2, m3)));
}

static inline float block_exp(const float *x, int64_t n, float max, float scale)
{
    vf m = vf_set(max), s = vf_set(scale), low = vf_set(-INFINITY);
    vf s0 = vf_zero(), s1 = vf_zero();
    int64_t i = 0;
    for (; i + 2 * VF_N <= n; i += 2 * VF_N) {
        s0 = vf_add(s0, vf_exp(vf_mul(vf_sub(vf_load(x + i), m), s)));
        s1 = vf_add(s1, vf_exp(vf_mul(vf_sub(vf_load(x + i + VF_N), m), s)));
    }
    for (; i + VF_N <= n; i += VF_N)
        s0 = vf_add(s0, vf_exp(vf_mul(vf_sub(vf_load(x + i), m), s)));
    if (i < n)
        s1 = vf_add(s1, vf_exp(vf_mul(vf_sub(vf_load_or(x + i, n - i, low), m), s)));
    return vf_sum(vf_add(s0, s1));
}

static struct row_sum row_exp(const float *x, int64_t n, float scale)
{
    struct row_sum row = {-INFINITY, 0};
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t count = n - i < BLOCK ? n - i : BLOCK;
        float max = block_max(x + i, count);
        if (max > row.max) {
            if (row.sum != 0)
                row.sum *= exp(((double)row.max - max) * scale);
            row.max = max;
        }
        /* A block of -inf alone adds nothing; with a NaN in it, the sum must become one. */
        float center = row.max == -INFINITY ? 0.0f : row.max;
        row.sum += block_exp(x + i, count, center, scale);
    }
    if (row.max == -INFINITY)
        row.max = 0;
    return row;
}

static double log_sum(struct row_sum row, double scale)
{
    return (double)row.max * scale + log(row.sum);
}

/* The target of row r; -1 for an ignored row. */
static inline int64_t target_of(const struct itera_arg *targets, int64_t r, int64_t classes)
{
    int32_t t = itera_id(targets, r);
    return t >= 0 && t < classes ? t : -1;
}

/* One double a row, summed by rank 0 in the order of rows. */
static size_t row_losses_bytes(const struct itera_call *call, int threads)
{
    (void)threads;
    return (size_t)call->in[0].rows * sizeof(double);
}

static void cross_entropy_run(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *logits = &call->in[0], *targets = &call->in[1];
    float *lse = itera_f32(&call->out[1]);
    double *losses = call->scratch;
    int64_t begin, end, classes = logits->cols;
    itera_share(team, logits->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *x = itera_row(logits, r);
        double row = log_sum(row_exp(x, classes, 1.0f), 1.0);
        int64_t target = target_of(targets, r, classes);
        lse[r] = (float)row;
        losses[r] = target >= 0 ? row - x[target] : 0.0;
    }
    if (team->size > 1)
        itera_team_barrier(team);
    if (team->rank)
        return;
    double sum = 0;
    int64_t counted = 0;
    for (int64_t r = 0; r < logits->rows; r++) {
        counted += target_of(targets, r, classes) >= 0;
        sum += losses[r];
    }
    *itera_f32(&call->out[0]) = counted ? (float)(sum / (double)counted) : 0.0f;
}
const struct itera_kernel ITERA_SIMD(cross_entropy) = {.run = cross_entropy_run,
                                                       .scratch = row_losses_bytes};

static void cross_entropy_bwd_run(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *logits = &call->in[1], *targets = &call->in[2];
    const float *lse = itera_f32(&call->in[3]);
    int64_t begin, end, counted = 0, classes = logits->cols;
    for (int64_t r = 0; r < logits->rows; r++)
        counted += target_of(targets, r, classes) >= 0;
    double g = (double)*itera_f32(&call->in[0]) / (double)(counted ? counted : 1);
    vf gv = vf_set((float)g);
    itera_share(team, logits->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *x = itera_row(logits, r);
        float *d = itera_row(&call->out[0], r);
        int64_t target = target_of(targets, r, classes), i = 0;
        if (target < 0) {
            memset(d, 0, (size_t)classes * sizeof *d);
            continue;
        }
        /* taken before d, which may be x, is written; expm1 keeps what is left near p = 1 */
        float at_target = (float)(expm1((double)x[target] - lse[r]) * g);
        vf l = vf_set(lse[r]);
        for (; i + 2 * VF_N <= classes; i += 2 * VF_N) {
            vf e0 = vf_exp(vf_sub(vf_load(x + i), l));
            vf e1 = vf_exp(vf_sub(vf_load(x + i + VF_N), l));
            vf_store(d + i, vf_mul(e0, gv));
            vf_store(d + i + VF_N, vf_mul(e1, gv));
        }
        for (; i + VF_N <= classes; i += VF_N)
            vf_store(d + i, vf_mul(vf_exp(vf_sub(vf_load(x + i), l)), gv));
        if (i < classes) {
            vf e = vf_exp(vf_sub(vf_load_n(x + i, classes - i), l));
            vf_store_n(d + i, vf_mul(e, gv), classes - i);
        }
        d[target] = at_target;
    }
}
const struct itera_kernel ITERA_SIMD(cross_entropy_bwd) = {.run = cross_entropy_bwd_run};

/* sum += e (t - s) with e = exp((t - max) scale) */
ITERA_INLINE vf kl_step(const float *t, const float *s, vf max, vf scale, vf sum, int64_t n)
{
    /* absent lanes: t - s = 0 */
    vf tv = itera_get(t, n);
    vf e = vf_exp(vf_mul(vf_sub(tv, max), scale));
    return vf_fma(e, vf_sub(tv, itera_get(s, n)), sum);
}

/* sum_v exp((t - max) scale) (t - s) */
static double kl_difference(const float *t, const float *s, int64_t n, float max, float scale)
{
    vf m = vf_set(max), k = vf_set(scale);
    double total = 0;
    for (int64_t first = 0; first < n; first += BLOCK) {
        int64_t end = n - first < BLOCK ? n : first + BLOCK, i = first;
        vf sum = vf_zero();
        for (; i + VF_N <= end; i += VF_N)
            sum = kl_step(t + i, s + i, m, k, sum, VF_N);
        if (i < end)
            sum = kl_step(t + i, s + i, m, k, sum, end - i);
        total += vf_sum(sum);
    }
    return total;
}

/* With p = exp((t - max_t) / T) / sum_t, sum_v p (ln p - ln q) is
 * sum_v p (t - s) / T - lse_t + lse_s. */
static void kl_loss_run(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *student = &call->in[0], *teacher = &call->in[1];
    double *losses = call->scratch, temperature = call->attr->scale, scale = 1.0 / temperature;
    int64_t begin, end, classes = student->cols;
    itera_share(team, student->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *s = itera_row(student, r), *t = itera_row(teacher, r);
        struct row_sum rs = row_exp(s, classes, (float)scale);
        struct row_sum rt = row_exp(t, classes, (float)scale);
        double difference = kl_difference(t, s, classes, rt.max, (float)scale) / rt.sum;
        losses[r] = difference * scale - log_sum(rt, scale) + log_sum(rs, scale);
    }
    if (team->size > 1)
        itera_team_barrier(team);
    if (team->rank)
        return;
    double sum = 0;
    for (int64_t r = 0; r < student->rows; r++)
        sum += losses[r];
    double rows = (double)(student->rows ? student->rows : 1);
    *itera_f32(&call->out[0]) = (float)(temperature * temperature * sum / rows);
}
const struct itera_kernel ITERA_SIMD(kl_loss) = {.run = kl_loss_run, .scratch = row_losses_bytes};

struct kl_back {
    vf scale, max_s, max_t, factor_s, factor_t;
};

ITERA_INLINE void kl_back_step(const struct kl_back *k, const float *s, const float *t, float *d,
                               int64_t n)
{
    vf q = vf_exp(vf_mul(vf_sub(itera_get(s, n), k->max_s), k->scale));
    vf p = vf_exp(vf_mul(vf_sub(itera_get(t, n), k->max_t), k->scale));
    itera_put(d, vf_fnma(p, k->factor_t, vf_mul(q, k->factor_s)), n);
}

static void kl_loss_bwd_run(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *student = &call->in[1], *teacher = &call->in[2];
    float scale = 1.0f / call->attr->scale;
    double g = (double)*itera_f32(&call->in[0]) * call->attr->scale / (double)student->rows;
    int64_t begin, end, classes = student->cols;
    itera_share(team, student->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *s = itera_row(student, r), *t = itera_row(teacher, r);
        float *d = itera_row(&call->out[0], r);
        struct row_sum rs = row_exp(s, classes, scale), rt = row_exp(t, classes, scale);
        struct kl_back k = {
            .scale = vf_set(scale),
            .max_s = vf_set(rs.max),
            .max_t = vf_set(rt.max),
            .factor_s = vf_set((float)(g / rs.sum)),
            .factor_t = vf_set((float)(g / rt.sum)),
        };
        int64_t i = 0;
        for (; i + VF_N <= classes; i += VF_N)
            kl_back_step(&k, s + i, t + i, d + i, VF_N);
        if (i < classes)
            kl_back_step(&k, s + i, t + i, d + i, classes - i);
    }
}
const struct itera_kernel ITERA_SIMD(kl_loss_bwd) = {.run = kl_loss_bwd_run};
