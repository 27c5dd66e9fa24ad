/* Scalar reference of the normalisations (contracts: host/ops/norm.c). */
#include "cpu_fallback/reference.h"

#include <math.h>

REFERENCE(layer_norm)
{
    if (team->rank)
        return;
    const struct itera_arg *x = &call->in[0], *weight = &call->in[1], *bias = &call->in[2];
    double n = (double)x->cols;
    for (int64_t r = 0; r < x->rows; r++) {
        double mean = 0, variance = 0;
        for (int64_t c = 0; c < x->cols; c++)
            mean += at(x, r, c) / n;
        for (int64_t c = 0; c < x->cols; c++)
            variance += (at(x, r, c) - mean) * (at(x, r, c) - mean) / n;
        double rstd = 1.0 / sqrt(variance + call->attr->eps);
        for (int64_t c = 0; c < x->cols; c++)
            put(&call->out[0], r, c,
                (at(x, r, c) - mean) * rstd * at(weight, 0, c) + at(bias, 0, c));
        if (call->out[1].data) {
            put(&call->out[1], r, 0, mean);
            put(&call->out[1], r, 1, rstd);
        }
    }
}

/* Sums over rows run with the column outside, so that they need no storage but a double. */
REFERENCE(layer_norm_bwd)
{
    if (team->rank)
        return;
    const struct itera_arg *dy = &call->in[0], *x = &call->in[1], *weight = &call->in[2];
    const struct itera_arg *stats = &call->in[3];
    double n = (double)x->cols;
    for (int64_t c = 0; c < x->cols; c++) {
        double dweight = 0, dbias = 0;
        for (int64_t r = 0; r < x->rows; r++) {
            dweight += at(dy, r, c) * (at(x, r, c) - at(stats, r, 0)) * at(stats, r, 1);
            dbias += at(dy, r, c);
        }
        put(&call->out[1], 0, c, dweight);
        put(&call->out[2], 0, c, dbias);
    }
    for (int64_t r = 0; r < x->rows; r++) {
        double mean = at(stats, r, 0), rstd = at(stats, r, 1), g_mean = 0, gn_mean = 0;
        for (int64_t c = 0; c < x->cols; c++) {
            double g = at(dy, r, c) * at(weight, 0, c);
            g_mean += g / n;
            gn_mean += g * (at(x, r, c) - mean) * rstd / n;
        }
        for (int64_t c = 0; c < x->cols; c++) {
            double g = at(dy, r, c) * at(weight, 0, c), normal = (at(x, r, c) - mean) * rstd;
            put(&call->out[0], r, c, rstd * (g - g_mean - normal * gn_mean));
        }
    }
}

REFERENCE(rms_norm)
{
    if (team->rank)
        return;
    const struct itera_arg *x = &call->in[0], *weight = &call->in[1];
    for (int64_t r = 0; r < x->rows; r++) {
        double square = 0;
        for (int64_t c = 0; c < x->cols; c++)
            square += at(x, r, c) * at(x, r, c) / (double)x->cols;
        double rstd = 1.0 / sqrt(square + call->attr->eps);
        for (int64_t c = 0; c < x->cols; c++)
            put(&call->out[0], r, c, at(x, r, c) * rstd * at(weight, 0, c));
        if (call->out[1].data)
            put(&call->out[1], r, 0, rstd);
    }
}

REFERENCE(rms_norm_bwd)
{
    if (team->rank)
        return;
    const struct itera_arg *dy = &call->in[0], *x = &call->in[1], *weight = &call->in[2];
    const struct itera_arg *rstds = &call->in[3];
    for (int64_t c = 0; c < x->cols; c++) {
        double dweight = 0;
        for (int64_t r = 0; r < x->rows; r++)
            dweight += at(dy, r, c) * at(x, r, c) * at(rstds, r, 0);
        put(&call->out[1], 0, c, dweight);
    }
    for (int64_t r = 0; r < x->rows; r++) {
        double rstd = at(rstds, r, 0), gn_mean = 0;
        for (int64_t c = 0; c < x->cols; c++)
            gn_mean += at(dy, r, c) * at(weight, 0, c) * at(x, r, c) * rstd / (double)x->cols;
        for (int64_t c = 0; c < x->cols; c++)
            put(&call->out[0], r, c,
                rstd * (at(dy, r, c) * at(weight, 0, c) - at(x, r, c) * rstd * gn_mean));
    }
}

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

REFERENCE(gated_rms_norm)
{
    if (team->rank)
        return;
    const struct itera_arg *x = &call->in[0], *z = &call->in[1], *weight = &call->in[2];
    int64_t groups = call->attr->groups ? call->attr->groups : 1, width = x->cols / groups;
    for (int64_t r = 0; r < x->rows; r++)
        for (int64_t k = 0; k < groups; k++) {
            int64_t first = k * width, end = first + width;
            double square = 0;
            for (int64_t c = first; c < end; c++) {
                double g = at(x, r, c) * silu(at(z, r, c));
                square += g * g / (double)width;
            }
            double rstd = 1.0 / sqrt(square + call->attr->eps);
            for (int64_t c = first; c < end; c++) {
                double g = at(x, r, c) * silu(at(z, r, c));
                put(&call->out[0], r, c, g * rstd * at(weight, 0, c));
            }
            if (call->out[1].data)
                put(&call->out[1], r, k, rstd);
        }
}

REFERENCE(gated_rms_norm_bwd)
{
    if (team->rank)
        return;
    const struct itera_arg *dy = &call->in[0], *x = &call->in[1], *z = &call->in[2];
    const struct itera_arg *weight = &call->in[3], *rstds = &call->in[4];
    int64_t groups = call->attr->groups ? call->attr->groups : 1, width = x->cols / groups;
    for (int64_t c = 0; c < x->cols; c++) {
        double dweight = 0;
        for (int64_t r = 0; r < x->rows; r++)
            dweight += at(dy, r, c) * at(x, r, c) * silu(at(z, r, c)) * at(rstds, r, c / width);
        put(&call->out[2], 0, c, dweight);
    }
    for (int64_t r = 0; r < x->rows; r++)
        for (int64_t k = 0; k < groups; k++) {
            int64_t first = k * width, end = first + width;
            double rstd = at(rstds, r, k), gn_mean = 0;
            for (int64_t c = first; c < end; c++) {
                double normal = at(x, r, c) * silu(at(z, r, c)) * rstd;
                gn_mean += at(dy, r, c) * at(weight, 0, c) * normal / (double)width;
            }
            for (int64_t c = first; c < end; c++) {
                double zc = at(z, r, c), s = sigmoid(zc), xc = at(x, r, c);
                double normal = xc * silu(zc) * rstd;
                double dg = rstd * (at(dy, r, c) * at(weight, 0, c) - normal * gn_mean);
                put(&call->out[0], r, c, dg * silu(zc));
                put(&call->out[1], r, c, dg * xc * s * (1.0 + zc * (1.0 - s)));
            }
        }
}
