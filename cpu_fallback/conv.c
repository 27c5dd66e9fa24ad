/* The scalar reference of causal_conv1d and its gradient; the contract is in host/ops/conv.c. */
#include <math.h>

#include "backend/cpu/kernel.h"

#define MAX_TAPS 16

/* x[t] of one sequence and channel, also for -K < t < 0. */
static double input_at(const struct itera_arg *x, const struct itera_arg *state, int64_t seq,
                       int64_t t, int64_t c, int64_t taps)
{
    int64_t time = x->dim[1];

    if (t >= 0)
        return itera_f32(x)[(seq * time + t) * x->ld + c];
    if (state && state->data)
        return itera_f32(state)[(seq * x->dim[2] + c) * state->ld + taps - 1 + t];
    return 0.0;
}

static double convolve(const struct itera_arg *x, const struct itera_arg *weight,
                       const struct itera_arg *bias, const struct itera_arg *state, int64_t seq,
                       int64_t t, int64_t c)
{
    int64_t taps = weight->cols;
    double sum = bias->data ? (double)itera_f32(bias)[c] : 0.0;

    for (int64_t k = 0; k < taps; k++)
        sum += (double)itera_f32(weight)[c * weight->ld + k] *
               input_at(x, state, seq, t - taps + 1 + k, c, taps);
    return sum;
}

static void causal_conv1d_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *x = &call->in[0], *weight = &call->in[1], *bias = &call->in[2];
    const struct itera_arg *state = &call->in[3], *y = &call->out[0];
    int64_t batch = x->dim[0], time = x->dim[1], channels = x->dim[2], taps = weight->cols;
    float kept[MAX_TAPS];

    if (team->rank != 0)
        return;
    for (int64_t i = 0; i < batch; i++) {
        for (int64_t c = 0; c < channels; c++) {
            for (int64_t t = 0; t < time; t++) {
                double sum = convolve(x, weight, bias, state, i, t, c);
                if (call->attr->act == ITERA_ACT_SILU)
                    sum /= 1.0 + exp(-sum);
                itera_f32(y)[(i * time + t) * y->ld + c] = (float)sum;
            }
            if (!state->data)
                continue;
            for (int64_t k = 0; k < taps - 1; k++)
                kept[k] = (float)input_at(x, state, i, time - taps + 1 + k, c, taps);
            for (int64_t k = 0; k < taps - 1; k++)
                itera_f32(state)[(i * channels + c) * state->ld + k] = kept[k];
        }
    }
}

const struct itera_kernel itera_causal_conv1d_ref = {.run = causal_conv1d_ref};

/* Scratch: one channel's g of one sequence. */
static size_t causal_conv1d_bwd_ref_scratch(const struct itera_call *call, int threads)
{
    (void)threads;
    return sizeof(double) * (size_t)call->in[1].dim[1];
}

static void causal_conv1d_bwd_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dy = &call->in[0], *x = &call->in[1], *weight = &call->in[2];
    const struct itera_arg *bias = &call->in[3];
    const struct itera_arg *dx = &call->out[0], *dweight = &call->out[1], *dbias = &call->out[2];
    int64_t batch = x->dim[0], time = x->dim[1], channels = x->dim[2], taps = weight->cols;
    double *g = (double *)call->scratch, sum_w[MAX_TAPS];

    if (team->rank != 0)
        return;
    for (int64_t c = 0; c < channels; c++) {
        double sum_b = 0.0;
        for (int64_t k = 0; k < taps; k++)
            sum_w[k] = 0.0;
        for (int64_t i = 0; i < batch; i++) {
            for (int64_t t = 0; t < time; t++) {
                g[t] = itera_f32(dy)[(i * time + t) * dy->ld + c];
                if (call->attr->act == ITERA_ACT_SILU) {
                    double before = convolve(x, weight, bias, NULL, i, t, c);
                    double sigmoid = 1.0 / (1.0 + exp(-before));
                    g[t] *= sigmoid * (1.0 + before * (1.0 - sigmoid));
                }
                sum_b += g[t];
                for (int64_t k = 0; k < taps; k++)
                    sum_w[k] += g[t] * input_at(x, NULL, i, t - taps + 1 + k, c, taps);
            }
            for (int64_t t = 0; t < time; t++) {
                double sum = 0.0;
                for (int64_t k = 0; k < taps; k++)
                    if (t + taps - 1 - k < time)
                        sum += (double)itera_f32(weight)[c * weight->ld + k] * g[t + taps - 1 - k];
                itera_f32(dx)[(i * time + t) * dx->ld + c] = (float)sum;
            }
        }
        for (int64_t k = 0; k < taps; k++)
            itera_f32(dweight)[c * dweight->ld + k] = (float)sum_w[k];
        if (dbias->data)
            itera_f32(dbias)[c] = (float)sum_b;
    }
}

const struct itera_kernel itera_causal_conv1d_bwd_ref = {.run = causal_conv1d_bwd_ref,
                                                         .scratch = causal_conv1d_bwd_ref_scratch};
