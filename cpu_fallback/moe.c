/* Scalar reference of the mixture-of-experts ops. The contracts are in host/ops/moe.c. These also
 * run routing, sorting and balance in a decode step of one row, so they are light: no memory beyond
 * small arrays on the stack. */
#include <math.h>
#include <string.h>

#include "backend/cpu/kernel.h"
#include "cpu_fallback/moe.h"

/* ---- moe_route ------------------------------------------------------------------------------- */

static double max_of(const float *x, int64_t n)
{
    double max = x[0];
    for (int64_t i = 1; i < n; i++)
        max = x[i] > max || isnan(max) ? x[i] : max;
    return max;
}

/* p = softmax(x) */
static void softmax(const float *x, int64_t n, double *p)
{
    double max = max_of(x, n), sum = 0;
    for (int64_t i = 0; i < n; i++) {
        p[i] = exp(x[i] - max);
        sum += p[i];
    }
    for (int64_t i = 0; i < n; i++)
        p[i] /= sum;
}

static void moe_route_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *logits = &call->in[0], *index = &call->out[0], *weight = &call->out[1];
    int64_t experts = logits->cols, k = index->cols, begin, end;
    bool over_all = call->attr->softmax_first && !call->attr->renormalize;
    double p[ITERA_MOE_MAX_EXPERTS];
    itera_team_range(team, logits->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *x = itera_f32(logits) + r * logits->ld;
        int32_t *chosen = itera_i32(index) + r * index->ld;
        float *w = itera_f32(weight) + r * weight->ld;
        itera_moe_choose(x, experts, k, chosen);
        if (over_all) {
            softmax(x, experts, p);
            for (int64_t j = 0; j < k; j++)
                w[j] = (float)p[chosen[j]];
        } else {
            float selected[ITERA_MOE_MAX_EXPERTS];
            for (int64_t j = 0; j < k; j++)
                selected[j] = x[chosen[j]];
            softmax(selected, k, p);
            for (int64_t j = 0; j < k; j++)
                w[j] = (float)p[j];
        }
    }
}

const struct itera_kernel itera_moe_route_ref = {.run = moe_route_ref};

static void moe_route_bwd_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dweight = &call->in[0], *logits = &call->in[1], *index = &call->in[2];
    const struct itera_arg *weight = &call->in[3], *dlogits = &call->out[0];
    int64_t experts = logits->cols, k = index->cols, begin, end;
    bool over_all = call->attr->softmax_first && !call->attr->renormalize;
    double p[ITERA_MOE_MAX_EXPERTS], g[ITERA_MOE_MAX_EXPERTS];
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
            memset(g, 0, (size_t)experts * sizeof g[0]);
            for (int64_t j = 0; j < k; j++)
                g[itera_moe_clamp(chosen[j], experts)] += dw[j];
            for (int64_t e = 0; e < experts; e++)
                dx[e] = (float)(p[e] * (g[e] - mean));
        } else {
            memset(dx, 0, (size_t)experts * sizeof dx[0]);
            for (int64_t j = 0; j < k; j++)
                dx[itera_moe_clamp(chosen[j], experts)] = (float)(w[j] * (dw[j] - mean));
        }
    }
}

const struct itera_kernel itera_moe_route_bwd_ref = {.run = moe_route_bwd_ref};

/* ---- moe_sort -------------------------------------------------------------------------------- */

static void moe_sort_ref(const struct itera_call *call, struct itera_team *team)
{
    if (team->rank)
        return;
    const struct itera_arg *index = &call->in[0], *position = &call->out[2];
    int32_t *offsets = itera_i32(&call->out[0]), *order = itera_i32(&call->out[1]);
    int64_t rows = index->rows, k = index->cols, experts = call->attr->experts;
    int32_t next[ITERA_MOE_MAX_EXPERTS];
    memset(next, 0, (size_t)experts * sizeof next[0]);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < k; j++)
            next[itera_moe_clamp(itera_i32(index)[r * index->ld + j], experts)]++;
    int32_t sum = 0;
    for (int64_t e = 0; e < experts; e++) {
        int32_t count = next[e];
        offsets[e] = next[e] = sum;
        sum += count;
    }
    offsets[experts] = sum;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t j = 0; j < k; j++) {
            int32_t slot = next[itera_moe_clamp(itera_i32(index)[r * index->ld + j], experts)]++;
            order[slot] = (int32_t)(r * k + j);
            itera_i32(position)[r * position->ld + j] = slot;
        }
    }
}

const struct itera_kernel itera_moe_sort_ref = {.run = moe_sort_ref};

/* ---- moe_gather ------------------------------------------------------------------------------ */

static void moe_gather_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *x = &call->in[0], *y = &call->out[0];
    const int32_t *order = itera_i32(&call->in[1]);
    int64_t k = call->attr->top_k, begin, end;
    itera_team_range(team, y->rows, 1, &begin, &end);
    for (int64_t s = begin; s < end; s++) {
        int64_t r = itera_moe_clamp(order[s], y->rows) / k;
        memcpy(itera_f32(y) + s * y->ld, itera_f32(x) + r * x->ld, (size_t)y->cols * sizeof(float));
    }
}

const struct itera_kernel itera_moe_gather_ref = {.run = moe_gather_ref};

static void moe_gather_bwd_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dy = &call->in[0], *position = &call->in[1], *dx = &call->out[0];
    int64_t k = position->cols, begin, end;
    itera_team_range(team, dx->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int32_t *slots = itera_i32(position) + r * position->ld;
        for (int64_t c = 0; c < dx->cols; c++) {
            double sum = 0;
            for (int64_t j = 0; j < k; j++)
                sum += itera_f32(dy)[itera_moe_clamp(slots[j], dy->rows) * dy->ld + c];
            itera_f32(dx)[r * dx->ld + c] = (float)sum;
        }
    }
}

const struct itera_kernel itera_moe_gather_bwd_ref = {.run = moe_gather_bwd_ref};

/* ---- moe_combine ----------------------------------------------------------------------------- */

static void moe_combine_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *y = &call->in[0], *position = &call->in[1], *weight = &call->in[2];
    const struct itera_arg *residual = &call->in[3], *out = &call->out[0];
    int64_t k = position->cols, begin, end;
    itera_team_range(team, out->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int32_t *slots = itera_i32(position) + r * position->ld;
        const float *w = itera_f32(weight) + r * weight->ld;
        for (int64_t c = 0; c < out->cols; c++) {
            double sum = residual->data ? itera_f32(residual)[r * residual->ld + c] : 0;
            for (int64_t j = 0; j < k; j++)
                sum += (double)w[j] * itera_f32(y)[itera_moe_clamp(slots[j], y->rows) * y->ld + c];
            itera_f32(out)[r * out->ld + c] = (float)sum;
        }
    }
}

const struct itera_kernel itera_moe_combine_ref = {.run = moe_combine_ref};

static void moe_combine_bwd_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dout = &call->in[0], *y = &call->in[1], *position = &call->in[2];
    const struct itera_arg *weight = &call->in[3];
    const struct itera_arg *dy = &call->out[0], *dweight = &call->out[1];
    int64_t k = position->cols, begin, end;
    itera_team_range(team, dout->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *g = itera_f32(dout) + r * dout->ld;
        for (int64_t j = 0; j < k; j++) {
            int64_t slot = itera_moe_clamp(itera_i32(position)[r * position->ld + j], y->rows);
            const float *from = itera_f32(y) + slot * y->ld;
            float *to = itera_f32(dy) + slot * dy->ld;
            float w = itera_f32(weight)[r * weight->ld + j];
            double sum = 0;
            for (int64_t c = 0; c < y->cols; c++) {
                sum += (double)g[c] * from[c];
                to[c] = w * g[c];
            }
            itera_f32(dweight)[r * dweight->ld + j] = (float)sum;
        }
    }
}

const struct itera_kernel itera_moe_combine_bwd_ref = {.run = moe_combine_bwd_ref};

/* ---- moe_balance ----------------------------------------------------------------------------- */

/* mean[e] = mean over the rows of softmax(logits)[e] */
static void mean_probability(const struct itera_arg *logits, double *mean)
{
    double p[ITERA_MOE_MAX_EXPERTS];
    int64_t experts = logits->cols;
    memset(mean, 0, (size_t)experts * sizeof mean[0]);
    for (int64_t r = 0; r < logits->rows; r++) {
        softmax(itera_f32(logits) + r * logits->ld, experts, p);
        for (int64_t e = 0; e < experts; e++)
            mean[e] += p[e];
    }
    for (int64_t e = 0; e < experts; e++)
        mean[e] /= (double)logits->rows;
}

static void moe_balance_ref(const struct itera_call *call, struct itera_team *team)
{
    if (team->rank)
        return;
    double mean[ITERA_MOE_MAX_EXPERTS];
    mean_probability(&call->in[0], mean);
    itera_moe_balance_finish(call, mean);
}

const struct itera_kernel itera_moe_balance_ref = {.run = moe_balance_ref};

static void moe_balance_bwd_ref(const struct itera_call *call, struct itera_team *team)
{
    if (team->rank)
        return;
    const struct itera_arg *logits = &call->in[1], *dlogits = &call->out[0];
    int64_t experts = logits->cols;
    double mean[ITERA_MOE_MAX_EXPERTS], g[ITERA_MOE_MAX_EXPERTS], p[ITERA_MOE_MAX_EXPERTS];
    if (call->attr->kind == ITERA_BALANCE_VARIATION)
        mean_probability(logits, mean);
    itera_moe_balance_slope(call, mean, g);
    for (int64_t r = 0; r < logits->rows; r++) {
        softmax(itera_f32(logits) + r * logits->ld, experts, p);
        /* Differences of slopes, of which many are 0: g[e] less the mean of all would cancel. */
        for (int64_t e = 0; e < experts; e++) {
            double inner = 0;
            for (int64_t k = 0; k < experts; k++)
                inner += p[k] * (g[e] - g[k]);
            itera_f32(dlogits)[r * dlogits->ld + e] = (float)(p[e] * inner);
        }
    }
}

const struct itera_kernel itera_moe_balance_bwd_ref = {.run = moe_balance_bwd_ref};
