/* What the reference and the fast kernels of the mixture of experts share: everything that decides
 * (which expert, which slot) rather than computes, so that all levels decide alike. */
#ifndef ITERA_CPU_MOE_H
#define ITERA_CPU_MOE_H

#include <math.h>
#include <string.h>

#include "backend/cpu/kernel.h"

#define ITERA_MOE_MAX_EXPERTS 256 /* as the shape rules promise */

/* An untrusted index, brought into [0, n). */
static inline int64_t itera_moe_clamp(int64_t index, int64_t n)
{
    return index < 0 ? 0 : index < n ? index : n - 1;
}

/* The k largest of n values in falling order, the lower index first among equals, NaN last. */
static inline void itera_moe_choose(const float *x, int64_t n, int64_t k, int32_t *chosen)
{
    uint64_t taken[ITERA_MOE_MAX_EXPERTS / 64] = {0};
    for (int64_t j = 0; j < k; j++) {
        int64_t best = -1;
        for (int64_t e = 0; e < n; e++) {
            if (taken[e >> 6] >> (e & 63) & 1)
                continue;
            if (best < 0 || x[e] > x[best] || (isnan(x[best]) && !isnan(x[e])))
                best = e;
        }
        taken[best >> 6] |= (uint64_t)1 << (best & 63);
        chosen[j] = (int32_t)best;
    }
}

/* moe_balance from mean[e], the mean probabilities: writes loss and load. */
static inline void itera_moe_balance_finish(const struct itera_call *call, const double *mean)
{
    const struct itera_arg *logits = &call->in[0], *index = &call->in[1];
    float *loss = itera_f32(&call->out[0]), *load = itera_f32(&call->out[1]);
    int64_t experts = logits->cols, k = index->cols;
    double n = (double)experts, assignments = (double)(index->rows * k);
    int32_t count[ITERA_MOE_MAX_EXPERTS];
    memset(count, 0, (size_t)experts * sizeof count[0]);
    for (int64_t r = 0; r < index->rows; r++)
        for (int64_t j = 0; j < k; j++)
            count[itera_moe_clamp(itera_i32(index)[r * index->ld + j], experts)]++;
    double value = 0;
    if (call->attr->kind == ITERA_BALANCE_SWITCH) {
        for (int64_t e = 0; e < experts; e++)
            value += (double)k * count[e] / assignments * mean[e];
        value *= n;
    } else if (experts > 1) {
        double center = 0, squares = 0;
        for (int64_t e = 0; e < experts; e++)
            center += mean[e] / n;
        for (int64_t e = 0; e < experts; e++)
            squares += (mean[e] - center) * (mean[e] - center);
        value = squares / (n - 1) / ((center + 1e-6) * (center + 1e-6));
    }
    *loss = (float)(call->attr->scale * value);
    for (int64_t e = 0; e < experts; e++)
        load[e] = (float)(count[e] / assignments);
}

/* moe_balance_bwd: g[e] of its contract, divided by the number of rows, up to a constant (which
 * changes nothing): equal loads give exact zeros, not rounding errors. mean is read for VARIATION
 * only. */
static inline void itera_moe_balance_slope(const struct itera_call *call, const double *mean,
                                           double *g)
{
    const struct itera_arg *logits = &call->in[1];
    const float *load = itera_f32(&call->in[2]);
    int64_t experts = logits->cols;
    double n = (double)experts;
    double factor = (double)itera_f32(&call->in[0])[0] * call->attr->scale / (double)logits->rows;
    for (int64_t e = 0; e < experts; e++) {
        if (call->attr->kind == ITERA_BALANCE_SWITCH)
            g[e] = factor * n * call->attr->top_k * ((double)load[e] - load[0]);
        else if (experts > 1)
            g[e] = factor * 2 * (mean[e] - 1 / n) / ((n - 1) * (1 / n + 1e-6) * (1 / n + 1e-6));
        else
            g[e] = 0;
    }
}

#endif
