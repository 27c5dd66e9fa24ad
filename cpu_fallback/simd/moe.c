/* Fast mixture-of-experts ops. Contracts: host/ops/moe.c. What chooses (moe_route's order,
 * moe_sort) is the reference's own code, so that every level routes alike. */
#include <string.h>

#include "cpu_fallback/moe.h"
#include "cpu_fallback/simd/kernel.h"

#define STRIP 4 /* vectors of a row at a time */

/* ---- softmax over experts ----------------------------------------------------------------------
 * A row of up to 256 logits; p is padded to whole vectors with zeros. */

#define PADDED_EXPERTS ITERA_MOE_MAX_EXPERTS /* a multiple of VF_N */

static inline void softmax(const float *x, int64_t n, float *p)
{
    if (n <= 2) { /* a choice of one or two; NaN and infinities go the same way as below */
        float second = n == 2 ? x[1] : x[0], high = x[0] > second ? x[0] : second;
        float e0 = expf(x[0] - high), e1 = n == 2 ? expf(second - high) : 0;
        vf_store(p, vf_zero());
        p[0] = e0 / (e0 + e1);
        p[1] = e1 / (e0 + e1);
        return;
    }
    if (n <= VF_N) { /* a row is one vector, its unused lanes -INFINITY */
        static const float lane[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        vf lowest = vf_set(-INFINITY);
        vf v = vf_select(vf_lt(vf_load(lane), vf_set((float)n)), vf_load_n(x, n), lowest);
        vf e = vf_exp(vf_sub(v, vf_set(vf_hmax(vf_max(v, lowest)))));
        vf_store(p, vf_div(e, vf_set(vf_sum(e))));
        return;
    }
    vf top = vf_set(-INFINITY), sum = vf_zero();
    int64_t i = 0;
    for (; i + VF_N <= n; i += VF_N)
        top = vf_max(vf_load(x + i), top);
    float max = vf_hmax(top);
    for (int64_t j = i; j < n; j++)
        max = x[j] > max ? x[j] : max;
    vf shift = vf_set(max);
    for (i = 0; i + VF_N <= n; i += VF_N) {
        vf e = vf_exp(vf_sub(vf_load(x + i), shift));
        vf_store(p + i, e);
        sum = vf_add(sum, e);
    }
    float total = vf_sum(sum);
    if (i < n) {
        vf_store(p + i, vf_exp(vf_sub(vf_load_n(x + i, n - i), shift)));
        for (int64_t j = i; j < n; j++)
            total += p[j];
        for (int64_t j = n; j < i + VF_N; j++)
            p[j] = 0;
    }
    vf scale = vf_div(vf_set(1.0f), vf_set(total));
    for (i = 0; i < n; i += VF_N)
        vf_store(p + i, vf_mul(scale, vf_load(p + i)));
}

/* ---- moe_route ------------------------------------------------------------------------------- */

/* The two largest, the common case, in one pass; false if a NaN is in the way. n >= 2. */
static inline bool choose_two(const float *x, int64_t n, int32_t *chosen)
{
    int64_t a = x[1] > x[0], b = 1 - a;
    float first = x[a], second = x[b];
    bool ordered = first >= second;
    for (int64_t e = 2; e < n; e++) {
        float v = x[e];
        ordered &= v == v;
        if (v > first) {
            b = a;
            second = first;
            a = e;
            first = v;
        } else if (v > second) {
            b = e;
            second = v;
        }
    }
    chosen[0] = (int32_t)a;
    chosen[1] = (int32_t)b;
    return ordered;
}

static void moe_route(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *logits = &call->in[0], *index = &call->out[0], *weight = &call->out[1];
    int64_t experts = logits->cols, k = index->cols, begin, end;
    bool over_all = call->attr->softmax_first && !call->attr->renormalize;
    float p[PADDED_EXPERTS], selected[PADDED_EXPERTS];
    itera_team_range(team, logits->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *x = itera_f32(logits) + r * logits->ld;
        int32_t *chosen = itera_i32(index) + r * index->ld;
        float *w = itera_f32(weight) + r * weight->ld;
        if (k != 2 || !choose_two(x, experts, chosen))
            itera_moe_choose(x, experts, k, chosen);
        if (over_all) {
            softmax(x, experts, p);
            for (int64_t j = 0; j < k; j++)
                w[j] = p[chosen[j]];
        } else {
            for (int64_t j = 0; j < k; j++)
                selected[j] = x[chosen[j]];
            softmax(selected, k, p);
            for (int64_t j = 0; j < k; j++)
                w[j] = p[j];
        }
    }
}

const struct itera_kernel ITERA_SIMD(moe_route) = {.run = moe_route};

static void moe_route_bwd(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dweight = &call->in[0], *logits = &call->in[1], *index = &call->in[2];
    const struct itera_arg *weight = &call->in[3], *dlogits = &call->out[0];
    int64_t experts = logits->cols, k = index->cols, begin, end;
    bool over_all = call->attr->softmax_first && !call->attr->renormalize;
    float p[PADDED_EXPERTS];
    itera_team_range(team, logits->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int32_t *chosen = itera_i32(index) + r * index->ld;
        const float *w = itera_f32(weight) + r * weight->ld;
        const float *dw = itera_f32(dweight) + r * dweight->ld;
        float *dx = itera_f32(dlogits) + r * dlogits->ld;
        double mean = 0;
        for (int64_t j = 0; j < k; j++)
            mean += (double)w[j] * dw[j];
        if (over_all) {
            softmax(itera_f32(logits) + r * logits->ld, experts, p);
            for (int64_t e = 0; e < experts; e++)
                dx[e] = -(float)mean * p[e];
            for (int64_t j = 0; j < k; j++) {
                int64_t e = itera_moe_clamp(chosen[j], experts);
                dx[e] = (float)(p[e] * (dw[j] - mean));
            }
        } else {
            for (int64_t e = 0; e < experts; e++)
                dx[e] = 0;
            for (int64_t j = 0; j < k; j++)
                dx[itera_moe_clamp(chosen[j], experts)] = (float)(w[j] * (dw[j] - mean));
        }
    }
}

const struct itera_kernel ITERA_SIMD(moe_route_bwd) = {.run = moe_route_bwd};

/* ---- moe_gather ------------------------------------------------------------------------------ */

static inline void copy_row(const float *from, float *to, int64_t n)
{
    int64_t c = 0;
    for (; c + VF_N <= n; c += VF_N)
        vf_store(to + c, vf_load(from + c));
    if (c < n)
        vf_store_n(to + c, vf_load_n(from + c, n - c), n - c);
}

static void moe_gather(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *x = &call->in[0], *y = &call->out[0];
    const int32_t *order = itera_i32(&call->in[1]);
    int64_t k = call->attr->top_k, begin, end;
    itera_team_range(team, y->rows, 1, &begin, &end);
    for (int64_t s = begin; s < end; s++) {
        int64_t r = itera_moe_clamp(order[s], y->rows) / k;
        copy_row(itera_f32(x) + r * x->ld, itera_f32(y) + s * y->ld, y->cols);
    }
}

const struct itera_kernel ITERA_SIMD(moe_gather) = {.run = moe_gather};

/* out = base + sum_j w[j] rows[slots[j]], over `vectors` vectors or `tail` elements of one; base
 * and w may be NULL (0 and all 1). */
static inline __attribute__((always_inline)) void
sum_strip(int vectors, int64_t tail, const float *base, const float *w,
          const struct itera_arg *rows, const int32_t *slots, int64_t k, int64_t c, float *out)
{
    vf sum[STRIP];
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) {
        if (tail)
            sum[i] = base ? vf_load_n(base + c, tail) : vf_zero();
        else
            sum[i] = base ? vf_load(base + c + i * VF_N) : vf_zero();
    }
    for (int64_t j = 0; j < k; j++) {
        const float *row = itera_f32(rows) + itera_moe_clamp(slots[j], rows->rows) * rows->ld + c;
        vf factor = vf_set(w ? w[j] : 1.0f);
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++)
            sum[i] = vf_fma(factor, tail ? vf_load_n(row, tail) : vf_load(row + i * VF_N), sum[i]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) {
        if (tail)
            vf_store_n(out + c, sum[i], tail);
        else
            vf_store(out + c + i * VF_N, sum[i]);
    }
}

static inline void sum_rows(const float *base, const float *w, const struct itera_arg *rows,
                            const int32_t *slots, int64_t k, int64_t n, float *out)
{
    int64_t c = 0;
    for (; c + STRIP * VF_N <= n; c += STRIP * VF_N)
        sum_strip(STRIP, 0, base, w, rows, slots, k, c, out);
    for (; c + VF_N <= n; c += VF_N)
        sum_strip(1, 0, base, w, rows, slots, k, c, out);
    if (c < n)
        sum_strip(1, n - c, base, w, rows, slots, k, c, out);
}

static void moe_gather_bwd(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dy = &call->in[0], *position = &call->in[1], *dx = &call->out[0];
    int64_t begin, end;
    itera_team_range(team, dx->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++)
        sum_rows(NULL, NULL, dy, itera_i32(position) + r * position->ld, position->cols, dx->cols,
                 itera_f32(dx) + r * dx->ld);
}

const struct itera_kernel ITERA_SIMD(moe_gather_bwd) = {.run = moe_gather_bwd};

/* ---- moe_combine ----------------------------------------------------------------------------- */

static void moe_combine(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *y = &call->in[0], *position = &call->in[1], *weight = &call->in[2];
    const struct itera_arg *residual = &call->in[3], *out = &call->out[0];
    int64_t begin, end;
    itera_team_range(team, out->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++)
        sum_rows(residual->data ? itera_f32(residual) + r * residual->ld : NULL,
                 itera_f32(weight) + r * weight->ld, y, itera_i32(position) + r * position->ld,
                 position->cols, out->cols, itera_f32(out) + r * out->ld);
}

const struct itera_kernel ITERA_SIMD(moe_combine) = {.run = moe_combine};

/* to = w g; returns g . from */
static inline float scale_and_dot(const float *g, const float *from, float w, int64_t n, float *to)
{
    vf factor = vf_set(w), s0 = vf_zero(), s1 = vf_zero();
    int64_t c = 0;
    for (; c + 2 * VF_N <= n; c += 2 * VF_N) {
        vf g0 = vf_load(g + c), g1 = vf_load(g + c + VF_N);
        s0 = vf_fma(g0, vf_load(from + c), s0);
        s1 = vf_fma(g1, vf_load(from + c + VF_N), s1);
        vf_store(to + c, vf_mul(factor, g0));
        vf_store(to + c + VF_N, vf_mul(factor, g1));
    }
    for (; c < n; c += VF_N) {
        int64_t m = n - c < VF_N ? n - c : VF_N;
        vf g0 = vf_load_n(g + c, m);
        s0 = vf_fma(g0, vf_load_n(from + c, m), s0);
        vf_store_n(to + c, vf_mul(factor, g0), m);
    }
    return vf_sum(vf_add(s0, s1));
}

static void moe_combine_bwd(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dout = &call->in[0], *y = &call->in[1], *position = &call->in[2];
    const struct itera_arg *weight = &call->in[3];
    const struct itera_arg *dy = &call->out[0], *dweight = &call->out[1];
    int64_t k = position->cols, begin, end;
    itera_team_range(team, dout->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        for (int64_t j = 0; j < k; j++) {
            int64_t slot = itera_moe_clamp(itera_i32(position)[r * position->ld + j], y->rows);
            itera_f32(dweight)[r * dweight->ld + j] = scale_and_dot(
                itera_f32(dout) + r * dout->ld, itera_f32(y) + slot * y->ld,
                itera_f32(weight)[r * weight->ld + j], y->cols, itera_f32(dy) + slot * dy->ld);
        }
    }
}

const struct itera_kernel ITERA_SIMD(moe_combine_bwd) = {.run = moe_combine_bwd};

/* ---- moe_balance -------------------------------------------------------------------------------
 * Mean probabilities are summed per thread and then, in the order of threads, over threads. */

static size_t balance_scratch(const struct itera_call *call, int threads)
{
    (void)call;
    return (size_t)threads * ITERA_MOE_MAX_EXPERTS * sizeof(double);
}

/* mean[e] = mean over the rows of softmax(logits)[e], given to every thread */
static void mean_probability(const struct itera_call *call, const struct itera_arg *logits,
                             struct itera_team *team, double *mean)
{
    int64_t experts = logits->cols, begin, end;
    double *sums = call->scratch, *own = sums + team->rank * ITERA_MOE_MAX_EXPERTS;
    float p[PADDED_EXPERTS];
    memset(own, 0, (size_t)experts * sizeof own[0]);
    itera_team_range(team, logits->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        softmax(itera_f32(logits) + r * logits->ld, experts, p);
        for (int64_t e = 0; e < experts; e++)
            own[e] += p[e];
    }
    if (team->size > 1)
        itera_team_barrier(team);
    for (int64_t e = 0; e < experts; e++) {
        double sum = 0;
        for (int i = 0; i < team->size; i++)
            sum += sums[i * ITERA_MOE_MAX_EXPERTS + e];
        mean[e] = sum / (double)logits->rows;
    }
}

static void moe_balance(const struct itera_call *call, struct itera_team *team)
{
    double mean[ITERA_MOE_MAX_EXPERTS];
    mean_probability(call, &call->in[0], team, mean);
    if (team->rank == 0)
        itera_moe_balance_finish(call, mean);
}

const struct itera_kernel ITERA_SIMD(moe_balance) = {.run = moe_balance,
                                                     .scratch = balance_scratch};

static void moe_balance_bwd(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *logits = &call->in[1], *dlogits = &call->out[0];
    int64_t experts = logits->cols, begin, end;
    double mean[ITERA_MOE_MAX_EXPERTS], slope[ITERA_MOE_MAX_EXPERTS];
    float p[PADDED_EXPERTS], g[PADDED_EXPERTS];
    if (call->attr->kind == ITERA_BALANCE_VARIATION)
        mean_probability(call, logits, team, mean);
    itera_moe_balance_slope(call, mean, slope);
    for (int64_t e = 0; e < experts; e++)
        g[e] = (float)slope[e];
    for (int64_t e = experts; e % VF_N; e++)
        g[e] = 0;
    itera_team_range(team, logits->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        float *dx = itera_f32(dlogits) + r * dlogits->ld;
        softmax(itera_f32(logits) + r * logits->ld, experts, p);
        /* Slopes less that of the likeliest: what it takes from the others' sum does not cancel. */
        int64_t likeliest = 0;
        for (int64_t e = 1; e < experts; e++)
            likeliest = p[e] > p[likeliest] ? e : likeliest;
        vf sum = vf_zero(), base = vf_set(g[likeliest]);
        for (int64_t e = 0; e < experts; e += VF_N)
            sum = vf_fma(vf_load(p + e), vf_sub(vf_load(g + e), base), sum);
        vf inner = vf_set(vf_sum(sum));
        for (int64_t e = 0; e < experts; e += VF_N)
            vf_store_n(dx + e, vf_mul(vf_load(p + e), vf_sub(vf_sub(vf_load(g + e), base), inner)),
                       experts - e < VF_N ? experts - e : VF_N);
    }
}

const struct itera_kernel ITERA_SIMD(moe_balance_bwd) = {.run = moe_balance_bwd,
                                                         .scratch = balance_scratch};
