/* Scalar reference of the optimiser ops (contracts: host/ops/optimizer.c). */
#include "cpu_fallback/reference.h"

#include <math.h>

REFERENCE(grad_norm)
{
    if (team->rank)
        return;
    const struct itera_arg *grad = &call->in[0];
    double sum = 0;
    bool finite = true;
    for (int64_t r = 0; r < grad->rows; r++)
        for (int64_t c = 0; c < grad->cols; c++) {
            double g = itera_f32(grad)[r * grad->ld + c];
            finite = finite && isfinite(g);
            sum += g * g;
        }
    itera_f32(&call->out[0])[0] = (float)sqrt(sum);
    itera_f32(&call->out[0])[1] = finite ? 1.0f : 0.0f;
}

REFERENCE(adamw)
{
    const struct itera_arg *param = &call->in[0];
    const float *hyper = itera_f32(&call->in[4]), *norm = itera_f32(&call->in[5]);
    if (team->rank || norm[1] == 0.0f)
        return;
    double lr = hyper[0], beta1 = hyper[1], beta2 = hyper[2], eps = hyper[3], bias1 = hyper[4];
    double bias2 = hyper[5], max_norm = hyper[6], scale = hyper[7];
    double clip = max_norm > 0 ? max_norm / (norm[0] * scale + 1e-6) : 1.0;
    if (clip < 1.0)
        scale *= clip;
    for (int64_t r = 0; r < param->rows; r++)
        for (int64_t c = 0; c < param->cols; c++) {
            float *p = itera_f32(param) + r * param->ld + c;
            float *m = itera_f32(&call->in[2]) + r * call->in[2].ld + c;
            float *v = itera_f32(&call->in[3]) + r * call->in[3].ld + c;
            double g = scale * itera_f32(&call->in[1])[r * call->in[1].ld + c];
            double m1 = beta1 * *m + (1.0 - beta1) * g, v1 = beta2 * *v + (1.0 - beta2) * g * g;
            *m = (float)m1;
            *v = (float)v1;
            double step = m1 / bias1 / (sqrt(v1 / bias2) + eps) + call->attr->p * *p;
            *p = (float)(*p - lr * step);
        }
}
