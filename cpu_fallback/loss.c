/* Scalar reference of the losses (contracts: host/ops/loss.c). */
#include "cpu_fallback/reference.h"

#include <math.h>

/* The target of row r; -1 for an ignored row. */
static int64_t target_of(const struct itera_arg *targets, int64_t r, int64_t classes)
{
    int32_t t = itera_i32(targets)[r / targets->cols * targets->ld + r % targets->cols];
    return t >= 0 && t < classes ? t : -1;
}

/* ln sum exp(x[r, :] / temperature) */
static double log_sum_exp(const struct itera_arg *x, int64_t r, double temperature)
{
    double max = -INFINITY, sum = 0;
    for (int64_t v = 0; v < x->cols; v++)
        max = at(x, r, v) > max ? at(x, r, v) : max;
    if (max == -INFINITY)
        max = 0;
    for (int64_t v = 0; v < x->cols; v++)
        sum += exp((at(x, r, v) - max) / temperature);
    return max / temperature + log(sum);
}

REFERENCE(cross_entropy)
{
    if (team->rank)
        return;
    const struct itera_arg *logits = &call->in[0];
    double sum = 0;
    int64_t counted = 0;
    for (int64_t r = 0; r < logits->rows; r++) {
        double lse = log_sum_exp(logits, r, 1.0);
        int64_t target = target_of(&call->in[1], r, logits->cols);
        put(&call->out[1], 0, r, lse);
        if (target >= 0) {
            sum += lse - at(logits, r, target);
            counted++;
        }
    }
    put(&call->out[0], 0, 0, counted ? sum / (double)counted : 0.0);
}

REFERENCE(cross_entropy_bwd)
{
    if (team->rank)
        return;
    const struct itera_arg *logits = &call->in[1], *targets = &call->in[2];
    int64_t counted = 0;
    for (int64_t r = 0; r < logits->rows; r++)
        counted += target_of(targets, r, logits->cols) >= 0;
    double g = at(&call->in[0], 0, 0) / (double)(counted ? counted : 1);
    for (int64_t r = 0; r < logits->rows; r++) {
        int64_t target = target_of(targets, r, logits->cols);
        double lse = at(&call->in[3], 0, r);
        for (int64_t v = 0; v < logits->cols; v++) {
            double x = at(logits, r, v) - lse;
            double d = v == target ? expm1(x) : exp(x);
            put(&call->out[0], r, v, target < 0 ? 0.0 : d * g);
        }
    }
}

REFERENCE(kl_loss)
{
    if (team->rank)
        return;
    const struct itera_arg *student = &call->in[0], *teacher = &call->in[1];
    double temperature = call->attr->scale, sum = 0;
    for (int64_t r = 0; r < student->rows; r++) {
        double lse_s = log_sum_exp(student, r, temperature);
        double lse_t = log_sum_exp(teacher, r, temperature);
        for (int64_t v = 0; v < student->cols; v++) {
            double log_p = at(teacher, r, v) / temperature - lse_t;
            double log_q = at(student, r, v) / temperature - lse_s;
            sum += exp(log_p) * (log_p - log_q);
        }
    }
    double rows = (double)(student->rows ? student->rows : 1);
    put(&call->out[0], 0, 0, temperature * temperature * sum / rows);
}

REFERENCE(kl_loss_bwd)
{
    if (team->rank)
        return;
    const struct itera_arg *student = &call->in[1], *teacher = &call->in[2];
    double temperature = call->attr->scale;
    double g = at(&call->in[0], 0, 0) * temperature / (double)student->rows;
    for (int64_t r = 0; r < student->rows; r++) {
        double lse_s = log_sum_exp(student, r, temperature);
        double lse_t = log_sum_exp(teacher, r, temperature);
        for (int64_t v = 0; v < student->cols; v++) {
            double p = exp(at(teacher, r, v) / temperature - lse_t);
            double q = exp(at(student, r, v) / temperature - lse_s);
            put(&call->out[0], r, v, g * (q - p));
        }
    }
}
