/* Scalar reference of the mixed precision ops (contracts: host/ops/precision.c). */
#include "cpu_fallback/reference.h"
#include "tensor/half.h"

REFERENCE(cast)
{
    const struct itera_arg *x = &call->in[0], *y = &call->out[0];
    if (team->rank)
        return;
    for (int64_t r = 0; r < y->rows; r++)
        for (int64_t c = 0; c < y->cols; c++) {
            float value = x->dtype == ITERA_F16
                              ? itera_f16_to_f32(((const uint16_t *)x->data)[r * x->ld + c])
                              : itera_f32(x)[r * x->ld + c];
            if (y->dtype == ITERA_F16)
                ((uint16_t *)y->data)[r * y->ld + c] = itera_f32_to_f16(value);
            else
                itera_f32(y)[r * y->ld + c] = value;
        }
}

REFERENCE(unscale)
{
    const struct itera_arg *y = &call->out[0];
    double scale = itera_f32(&call->in[1])[0];
    if (team->rank)
        return;
    for (int64_t r = 0; r < y->rows; r++)
        for (int64_t c = 0; c < y->cols; c++)
            put(y, r, c, at(&call->in[0], r, c) / scale);
}

REFERENCE(loss_scale)
{
    float *scale = itera_f32(&call->in[0]);
    if (team->rank)
        return;
    if (itera_f32(&call->in[1])[1] == 0.0f) {
        scale[0] = scale[0] > 2.0f ? scale[0] * 0.5f : 1.0f;
        scale[1] = 0.0f;
    } else if (++scale[1] >= (float)call->attr->count) {
        scale[0] = scale[0] < 0x1p23f ? scale[0] * 2.0f : 0x1p24f;
        scale[1] = 0.0f;
    }
}
