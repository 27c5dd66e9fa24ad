/* The mixed precision ops over vectors (contracts: host/ops/precision.c). */
#include "cpu_fallback/simd/span.h"
#include "tensor/half.h"

static void to_half(const float *x, uint16_t *y, int64_t n)
{
    int64_t i = 0;
    for (; i + VF_N <= n; i += VF_N)
        vf_store_half(y + i, vf_load(x + i));
    for (; i < n; i++)
        y[i] = itera_f32_to_f16(x[i]);
}

static void from_half(const uint16_t *x, float *y, int64_t n)
{
    int64_t i = 0;
    for (; i + VF_N <= n; i += VF_N)
        vf_store(y + i, vf_load_half(x + i));
    for (; i < n; i++)
        y[i] = itera_f16_to_f32(x[i]);
}

FAST(cast)
{
    const struct itera_arg *x = &call->in[0], *y = &call->out[0];
    struct itera_area a = itera_area(team, y, itera_plain(x) && itera_plain(y));
    for (int64_t r = a.row; r < a.rows_end; r++) {
        int64_t from = r * x->ld + a.col, to = r * y->ld + a.col;
        if (y->dtype == ITERA_F16)
            to_half(itera_f32(x) + from, (uint16_t *)y->data + to, a.cols);
        else
            from_half((const uint16_t *)x->data + from, itera_f32(y) + to, a.cols);
    }
}

FAST(unscale)
{
    const struct itera_arg *x = &call->in[0], *y = &call->out[0];
    vf scale = vf_set(itera_f32(&call->in[1])[0]);
    struct itera_area a = itera_area(team, y, itera_plain(x) && itera_plain(y));
    for (int64_t r = a.row; r < a.rows_end; r++) {
        const float *from = itera_row(x, r) + a.col;
        float *to = itera_row(y, r) + a.col;
        int64_t i = 0;
        for (; i + VF_N <= a.cols; i += VF_N)
            vf_store(to + i, vf_div(vf_load(from + i), scale));
        if (i < a.cols)
            vf_store_n(to + i, vf_div(vf_load_n(from + i, a.cols - i), scale), a.cols - i);
    }
}
