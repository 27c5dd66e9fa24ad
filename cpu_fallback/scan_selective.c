/* The scalar reference of selective_scan and its gradient; the contract is in host/ops/scan.c. */
#include <math.h>

#include "cpu_fallback/reference.h"
#include "ops/scan.h"

static void selective_scan_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *x = &call->in[0], *dt = &call->in[1], *A = &call->in[2];
    const struct itera_arg *B = &call->in[3], *C = &call->in[4], *D = &call->in[5];
    const struct itera_arg *z = &call->in[6], *state = &call->in[7];
    const struct itera_arg *y = &call->out[0], *boundaries = &call->out[1];
    int64_t batch = x->dim[0], time = x->dim[1], channels = x->dim[2], states = A->cols;
    int64_t chunk = itera_scan_chunk(call->attr), chunks = itera_scan_chunks(call->attr, time);
    double h[ITERA_SCAN_MAX_STATES];

    if (team->rank != 0)
        return;
    for (int64_t i = 0; i < batch; i++) {
        for (int64_t c = 0; c < channels; c++) {
            int64_t state_row = i * channels + c;
            for (int64_t n = 0; n < states; n++)
                h[n] = state->data ? at(state, state_row, n) : 0.0;
            for (int64_t t = 0; t < time; t++) {
                int64_t row = i * time + t;
                double step = at(dt, row, c), input = at(x, row, c);
                double sum = D->data ? (double)itera_f32(D)[c] * input : 0.0;
                if (boundaries->data && t % chunk == 0) {
                    int64_t b_row = (i * chunks + t / chunk) * channels + c;
                    for (int64_t n = 0; n < states; n++)
                        itera_f32(boundaries)[b_row * boundaries->ld + n] = (float)h[n];
                }
                for (int64_t n = 0; n < states; n++) {
                    h[n] = exp(step * at(A, c, n)) * h[n] + step * at(B, row, n) * input;
                    sum += at(C, row, n) * h[n];
                }
                if (z->data) {
                    double gate = at(z, row, c);
                    sum *= gate / (1.0 + exp(-gate));
                }
                itera_f32(y)[row * y->ld + c] = (float)sum;
            }
            if (state->data)
                for (int64_t n = 0; n < states; n++)
                    itera_f32(state)[state_row * state->ld + n] = (float)h[n];
        }
    }
}

const struct itera_kernel itera_selective_scan_ref = {.run = selective_scan_ref};

/* Scratch: the sums of dB and dC over channels, and one channel's states before each step of a
 * chunk. */
static size_t selective_scan_bwd_ref_scratch(const struct itera_call *call, int threads)
{
    int64_t chunk = itera_scan_chunk(call->attr), time = call->in[1].dim[1];
    int64_t kept = chunk < time ? chunk : time;

    (void)threads;
    return sizeof(double) * (size_t)(2 * call->in[4].rows + kept + 1) * (size_t)call->in[4].cols;
}

static void selective_scan_bwd_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dy = &call->in[0], *x = &call->in[1], *dt = &call->in[2];
    const struct itera_arg *A = &call->in[3], *B = &call->in[4], *C = &call->in[5];
    const struct itera_arg *D = &call->in[6], *z = &call->in[7], *boundaries = &call->in[8];
    const struct itera_arg *dx = &call->out[0], *ddt = &call->out[1], *dA = &call->out[2];
    const struct itera_arg *dB = &call->out[3], *dC = &call->out[4], *dD = &call->out[5];
    const struct itera_arg *dz = &call->out[6];
    int64_t batch = x->dim[0], time = x->dim[1], channels = x->dim[2], states = A->cols;
    int64_t chunk = itera_scan_chunk(call->attr), chunks = itera_scan_chunks(call->attr, time);
    double *sum_b = (double *)call->scratch;
    double *sum_c = sum_b + B->rows * states;
    double *before = sum_c + B->rows * states; /* [step in chunk][n], and one past the chunk */
    double flow[ITERA_SCAN_MAX_STATES], sum_a[ITERA_SCAN_MAX_STATES];

    if (team->rank != 0)
        return;
    for (int64_t i = 0; i < 2 * B->rows * states; i++)
        sum_b[i] = 0.0; /* and sum_c */
    for (int64_t c = 0; c < channels; c++) {
        double sum_d = 0.0, skip = D->data ? (double)itera_f32(D)[c] : 0.0;
        for (int64_t n = 0; n < states; n++)
            sum_a[n] = 0.0;
        for (int64_t i = 0; i < batch; i++) {
            for (int64_t n = 0; n < states; n++)
                flow[n] = 0.0;
            for (int64_t k = chunks - 1; k >= 0; k--) {
                int64_t first = k * chunk, last = first + chunk < time ? first + chunk : time;
                for (int64_t n = 0; n < states; n++)
                    before[n] = at(boundaries, (i * chunks + k) * channels + c, n);
                for (int64_t t = first; t < last; t++) {
                    int64_t row = i * time + t;
                    double step = at(dt, row, c), *h = before + (t - first) * states;
                    for (int64_t n = 0; n < states; n++)
                        h[states + n] =
                            exp(step * at(A, c, n)) * h[n] + step * at(B, row, n) * at(x, row, c);
                }
                for (int64_t t = last - 1; t >= first; t--) {
                    int64_t row = i * time + t;
                    const double *h = before + (t - first) * states;
                    double step = at(dt, row, c), input = at(x, row, c), out = at(dy, row, c);
                    double grad_x, grad_dt = 0.0;
                    if (z->data) {
                        double gate = at(z, row, c), sigmoid = 1.0 / (1.0 + exp(-gate));
                        double sum = skip * input;
                        for (int64_t n = 0; n < states; n++)
                            sum += at(C, row, n) * h[states + n];
                        if (dz->data)
                            itera_f32(dz)[row * dz->ld + c] =
                                (float)(out * sum * sigmoid * (1.0 + gate * (1.0 - sigmoid)));
                        out *= gate * sigmoid;
                    }
                    grad_x = out * skip;
                    sum_d += out * input;
                    for (int64_t n = 0; n < states; n++) {
                        double e = exp(step * at(A, c, n)), w = e * h[n], b = at(B, row, n);
                        double g = at(C, row, n) * out + flow[n];
                        sum_c[row * states + n] += out * h[states + n];
                        sum_b[row * states + n] += g * step * input;
                        sum_a[n] += g * step * w;
                        grad_x += g * step * b;
                        grad_dt += g * (at(A, c, n) * w + b * input);
                        flow[n] = e * g;
                    }
                    itera_f32(dx)[row * dx->ld + c] = (float)grad_x;
                    itera_f32(ddt)[row * ddt->ld + c] = (float)grad_dt;
                }
            }
        }
        for (int64_t n = 0; n < states; n++)
            itera_f32(dA)[c * dA->ld + n] = (float)sum_a[n];
        if (dD->data)
            itera_f32(dD)[c] = (float)sum_d;
    }
    for (int64_t row = 0; row < B->rows; row++) {
        for (int64_t n = 0; n < states; n++) {
            itera_f32(dB)[row * dB->ld + n] = (float)sum_b[row * states + n];
            itera_f32(dC)[row * dC->ld + n] = (float)sum_c[row * states + n];
        }
    }
}

const struct itera_kernel itera_selective_scan_bwd_ref = {
    .run = selective_scan_bwd_ref, .scratch = selective_scan_bwd_ref_scratch};
