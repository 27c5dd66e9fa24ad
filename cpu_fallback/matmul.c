/* Scalar reference of the matmul family: the specification, in double. */
#include <math.h>

#include "backend/cpu/kernel.h"
#include "cpu_fallback/weight.h"

static double activate(double x, uint8_t act)
{
    switch (act) {
    case ITERA_ACT_SILU:
        return x / (1.0 + exp(-x));
    case ITERA_ACT_GELU:
        return 0.5 * x * (1.0 + erf(x * 0.70710678118654752440));
    case ITERA_ACT_SOFTPLUS:
        return (x > 0.0 ? x : 0.0) + log1p(exp(-fabs(x)));
    default:
        return x;
    }
}

/* Element i of the storage of an operand. */
static double element(const struct itera_arg *x, int64_t i)
{
    return (double)itera_weight(x, i);
}

/* sum over i of x[x_at + i x_step] y[y_at + i y_step] */
static double dot(const struct itera_arg *x, int64_t x_at, int64_t x_step,
                  const struct itera_arg *y, int64_t y_at, int64_t y_step, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += element(x, x_at + i * x_step) * element(y, y_at + i * y_step);
    return sum;
}

static void matmul_run(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *a = &call->in[0], *b = &call->in[1], *y = &call->out[0];
    const float *bias = call->in[2].data, *residual = call->in[3].data;
    const struct itera_attr *attr = call->attr;
    const int64_t k = attr->trans_a ? a->rows : a->cols;
    const int64_t a_row = attr->trans_a ? 1 : a->ld, a_col = attr->trans_a ? a->ld : 1;
    const int64_t b_col = attr->trans_b ? b->ld : 1, b_row = attr->trans_b ? 1 : b->ld;
    int64_t begin, end;
    itera_team_range(team, y->rows, 1, &begin, &end);
    for (int64_t m = begin; m < end; m++)
        for (int64_t n = 0; n < y->cols; n++) {
            float *out = itera_f32(y) + m * y->ld + n;
            double v = dot(a, m * a_row, a_col, b, n * b_col, b_row, k);
            if (attr->accumulate) {
                *out = (float)(*out + v);
                continue;
            }
            if (bias)
                v += bias[n];
            v = activate(v, attr->act);
            if (residual)
                v += residual[m * call->in[3].ld + n];
            *out = (float)v;
        }
}

const struct itera_kernel itera_matmul_ref = {matmul_run, NULL};

static void grouped_matmul_run(const struct itera_call *call, struct itera_team *team)
{
    if (team->rank != 0)
        return;
    const struct itera_arg *a = &call->in[0], *b = &call->in[1], *y = &call->out[0];
    const int32_t *offsets = itera_i32(&call->in[2]);
    const int64_t experts = call->in[2].cols - 1, rows = a->rows;
    const struct itera_attr *attr = call->attr;
    int64_t begin = 0;
    for (int64_t e = -1; e <= experts; e++) {
        /* Turn -1 is the rows before the first expert, turn `experts` those after the last. */
        int64_t end = e < experts ? offsets[e + 1] : rows;
        end = end < begin ? begin : end > rows ? rows : end;
        const bool nobody = e < 0 || e == experts;
        if (attr->trans_a && !nobody) {
            for (int64_t m = 0; m < a->cols; m++)
                for (int64_t n = 0; n < b->cols; n++)
                    itera_f32(y)[(e * a->cols + m) * y->ld + n] = (float)dot(
                        a, begin * a->ld + m, a->ld, b, begin * b->ld + n, b->ld, end - begin);
        } else if (!attr->trans_a) {
            const int64_t step = b->rows / experts; /* rows of b per expert */
            const int64_t w = e * step * b->ld;
            for (int64_t m = begin; m < end; m++)
                for (int64_t n = 0; n < y->cols; n++) {
                    float *out = itera_f32(y) + m * y->ld + n;
                    const int64_t x = m * a->ld;
                    if (nobody)
                        *out = 0.0f;
                    else if (attr->trans_b)
                        *out =
                            (float)activate(dot(a, x, 1, b, w + n * b->ld, 1, a->cols), attr->act);
                    else
                        *out = (float)activate(dot(a, x, 1, b, w + n, b->ld, a->cols), attr->act);
                }
        }
        begin = end;
    }
}

const struct itera_kernel itera_grouped_matmul_ref = {grouped_matmul_run, NULL};
