/* Scalar reference of the elementwise ops (contracts: host/ops/elementwise.c). Double throughout;
 * rank 0 does all. */
#include "cpu_fallback/reference.h"

#include <math.h>
#include <string.h>

#include "core/rng.h"

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

static double silu_slope(double x)
{
    double s = sigmoid(x);
    return s * (1.0 + x * (1.0 - s));
}

static double softplus(double x)
{
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}

static double normal_cdf(double x)
{
    return 0.5 * erfc(-x / sqrt(2.0));
}

static double gelu(double x)
{
    return x * normal_cdf(x);
}

static double gelu_slope(double x)
{
    return normal_cdf(x) + x * exp(-0.5 * x * x) / sqrt(2.0 * 3.14159265358979323846);
}

typedef double unary_fn(double x);
typedef double binary_fn(double a, double b);

static void unary(const struct itera_call *call, struct itera_team *team, unary_fn *fn)
{
    if (team->rank)
        return;
    const struct itera_arg *y = &call->out[0];
    for (int64_t r = 0; r < y->rows; r++)
        for (int64_t c = 0; c < y->cols; c++)
            put(y, r, c, fn(at(&call->in[0], r, c)));
}

static void binary(const struct itera_call *call, struct itera_team *team, binary_fn *fn)
{
    if (team->rank)
        return;
    const struct itera_arg *y = &call->out[0];
    for (int64_t r = 0; r < y->rows; r++)
        for (int64_t c = 0; c < y->cols; c++)
            put(y, r, c, fn(at(&call->in[0], r, c), at(&call->in[1], r, c)));
}

static double neg_exp(double x)
{
    return -exp(x);
}
static double sum2(double a, double b)
{
    return a + b;
}
static double product2(double a, double b)
{
    return a * b;
}
static double penalized(double x, double factor)
{
    return x < 0 ? x * factor : x / factor;
}
static double silu_back(double dy, double x)
{
    return dy * silu_slope(x);
}
static double gelu_back(double dy, double x)
{
    return dy * gelu_slope(x);
}
static double softplus_back(double dy, double y)
{
    return dy * -expm1(-y);
}
static double gate(double x, double z)
{
    return x * silu(z);
}

REFERENCE(fill)
{
    if (team->rank)
        return;
    const struct itera_arg *y = &call->out[0];
    for (int64_t r = 0; r < y->rows; r++)
        for (int64_t c = 0; c < y->cols; c++)
            put(y, r, c, call->attr->scale);
}

REFERENCE(copy)
{
    if (team->rank)
        return;
    const struct itera_arg *x = &call->in[0], *y = &call->out[0];
    for (int64_t r = 0; r < y->rows; r++)
        memmove(itera_i32(y) + r * y->ld, itera_i32(x) + r * x->ld, (size_t)y->cols * 4);
}

REFERENCE(scale)
{
    if (team->rank)
        return;
    const struct itera_arg *y = &call->out[0];
    for (int64_t r = 0; r < y->rows; r++)
        for (int64_t c = 0; c < y->cols; c++)
            put(y, r, c, (double)call->attr->scale * at(&call->in[0], r, c));
}

REFERENCE(add)
{
    binary(call, team, sum2);
}

REFERENCE(mul)
{
    binary(call, team, product2);
}

REFERENCE(penalize)
{
    binary(call, team, penalized);
}

REFERENCE(neg_exp)
{
    unary(call, team, neg_exp);
}

REFERENCE(silu)
{
    unary(call, team, silu);
}

REFERENCE(silu_bwd)
{
    binary(call, team, silu_back);
}

REFERENCE(gelu)
{
    unary(call, team, gelu);
}

REFERENCE(gelu_bwd)
{
    binary(call, team, gelu_back);
}

REFERENCE(softplus)
{
    unary(call, team, softplus);
}

REFERENCE(softplus_bwd)
{
    binary(call, team, softplus_back);
}

REFERENCE(silu_mul)
{
    binary(call, team, gate);
}

REFERENCE(silu_mul_bwd)
{
    if (team->rank)
        return;
    const struct itera_arg *x = &call->in[1];
    for (int64_t r = 0; r < x->rows; r++)
        for (int64_t c = 0; c < x->cols; c++) {
            double dy = at(&call->in[0], r, c), z = at(&call->in[2], r, c);
            double dz = dy * at(x, r, c) * silu_slope(z);
            put(&call->out[0], r, c, dy * silu(z));
            put(&call->out[1], r, c, dz);
        }
}

REFERENCE(skip_gate)
{
    if (team->rank)
        return;
    const struct itera_arg *y = &call->out[0], *z = &call->in[3];
    for (int64_t r = 0; r < y->rows; r++)
        for (int64_t c = 0; c < y->cols; c++) {
            double t = at(&call->in[0], r, c) + at(&call->in[2], 0, c) * at(&call->in[1], r, c);
            put(y, r, c, z->data ? t * silu(at(z, r, c)) : t);
        }
}

REFERENCE(skip_gate_bwd)
{
    if (team->rank)
        return;
    const struct itera_arg *x = &call->in[2], *z = &call->in[4];
    const struct itera_arg *dz = &call->out[3];
    for (int64_t c = 0; c < x->cols; c++) {
        double d = at(&call->in[3], 0, c), dd = 0;
        for (int64_t r = 0; r < x->rows; r++) {
            double dy = at(&call->in[0], r, c);
            double t = at(&call->in[1], r, c) + d * at(x, r, c);
            double g = z->data ? dy * silu(at(z, r, c)) : dy;
            dd += g * at(x, r, c);
            put(&call->out[0], r, c, g);
            put(&call->out[1], r, c, g * d);
            if (z->data && dz->data)
                put(dz, r, c, dy * t * silu_slope(at(z, r, c)));
        }
        put(&call->out[2], 0, c, dd);
    }
}

REFERENCE(softplus_mean)
{
    if (team->rank)
        return;
    const struct itera_arg *x = &call->in[0];
    for (int64_t r = 0; r < x->rows; r++) {
        double sum = 0;
        for (int64_t c = 0; c < x->cols; c++)
            sum += softplus(at(x, r, c));
        put(&call->out[0], r, 0, sum / (double)x->cols);
    }
}

REFERENCE(softplus_mean_bwd)
{
    if (team->rank)
        return;
    const struct itera_arg *x = &call->in[1];
    for (int64_t r = 0; r < x->rows; r++)
        for (int64_t c = 0; c < x->cols; c++)
            put(&call->out[0], r, c,
                at(&call->in[0], r, 0) / (double)x->cols * sigmoid(at(x, r, c)));
}

REFERENCE(dropout)
{
    if (team->rank)
        return;
    const struct itera_arg *x = &call->in[0];
    const uint32_t *rng = call->in[1].data;
    uint64_t seed = rng[0] | (uint64_t)rng[1] << 32, step = rng[2] | (uint64_t)rng[3] << 32;
    uint64_t stream = (uint64_t)(uint32_t)call->attr->stream << 32 ^ step;
    double p = call->attr->p;
    for (int64_t r = 0; r < x->rows; r++)
        for (int64_t c = 0; c < x->cols; c++) {
            uint32_t value = itera_rng_at(seed, stream, (uint64_t)(r * x->cols + c));
            bool keep = (double)(value >> 8) * 0x1p-24 >= p;
            put(&call->out[0], r, c, keep ? at(x, r, c) / (1.0 - p) : 0.0);
        }
}

REFERENCE(column_sum)
{
    if (team->rank)
        return;
    const struct itera_arg *x = &call->in[0];
    for (int64_t c = 0; c < x->cols; c++) {
        double sum = 0;
        for (int64_t r = 0; r < x->rows; r++)
            sum += at(x, r, c);
        put(&call->out[0], 0, c, sum);
    }
}
