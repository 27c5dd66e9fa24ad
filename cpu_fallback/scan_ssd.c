/* The scalar reference of ssd_scan and its gradient; the contract is in host/ops/scan.c. */
#include <math.h>
#include <string.h>

#include "cpu_fallback/reference.h"
#include "ops/scan.h"

/* Scratch: the state of one head. */
static size_t ssd_scan_ref_scratch(const struct itera_call *call, int threads)
{
    (void)threads;
    return sizeof(double) * (size_t)(call->in[0].cols / call->attr->heads) *
           (size_t)(call->in[3].cols / call->attr->groups);
}

static void ssd_scan_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *x = &call->in[0], *dt = &call->in[1], *A = &call->in[2];
    const struct itera_arg *B = &call->in[3], *C = &call->in[4], *D = &call->in[5];
    const struct itera_arg *state = &call->in[6];
    const struct itera_arg *y = &call->out[0], *boundaries = &call->out[1];
    int64_t batch = x->dim[0], time = x->dim[1], heads = call->attr->heads;
    int64_t width = x->cols / heads, states = B->cols / call->attr->groups;
    int64_t chunk = itera_scan_chunk(call->attr), chunks = itera_scan_chunks(call->attr, time);
    double *h = (double *)call->scratch;

    if (team->rank != 0)
        return;
    for (int64_t ij = 0; ij < batch * heads; ij++) {
        int64_t i = ij / heads, j = ij % heads, group = j / (heads / call->attr->groups);
        for (int64_t p = 0; p < width; p++)
            for (int64_t n = 0; n < states; n++)
                h[p * states + n] = state->data ? at(state, ij * width + p, n) : 0.0;
        for (int64_t t = 0; t < time; t++) {
            int64_t row = i * time + t;
            double step = at(dt, row, j), e = exp(step * (double)itera_f32(A)[j]);
            for (int64_t p = 0; p < width; p++) {
                double input = at(x, row, j * width + p);
                double sum = D->data ? (double)itera_f32(D)[j] * input : 0.0;
                if (boundaries->data && t % chunk == 0) {
                    int64_t b_row = ((i * chunks + t / chunk) * heads + j) * width + p;
                    for (int64_t n = 0; n < states; n++)
                        itera_f32(boundaries)[b_row * boundaries->ld + n] =
                            (float)h[p * states + n];
                }
                for (int64_t n = 0; n < states; n++) {
                    double *v = &h[p * states + n];
                    *v = e * *v + step * at(B, row, group * states + n) * input;
                    sum += at(C, row, group * states + n) * *v;
                }
                itera_f32(y)[row * y->ld + j * width + p] = (float)sum;
            }
        }
        if (state->data)
            for (int64_t p = 0; p < width; p++)
                for (int64_t n = 0; n < states; n++)
                    itera_f32(state)[(ij * width + p) * state->ld + n] = (float)h[p * states + n];
    }
}

const struct itera_kernel itera_ssd_scan_ref = {.run = ssd_scan_ref,
                                                .scratch = ssd_scan_ref_scratch};

/* Scratch: the sums of dB and dC over heads and head channels; dA and dD; one head channel's flow
 * and its states before each step of a chunk; ddt, which is a sum over head channels. */
static size_t ssd_scan_bwd_ref_scratch(const struct itera_call *call, int threads)
{
    const struct itera_arg *dt = &call->in[2], *B = &call->in[4];
    int64_t chunk = itera_scan_chunk(call->attr), time = call->in[1].dim[1];
    int64_t states = B->cols / call->attr->groups, kept = chunk < time ? chunk : time;

    (void)threads;
    return sizeof(double) * ((size_t)(2 * B->rows) * (size_t)B->cols +
                             (size_t)(2 + dt->rows) * (size_t)call->attr->heads +
                             (size_t)(kept + 2) * (size_t)states);
}

static void ssd_scan_bwd_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dy = &call->in[0], *x = &call->in[1], *dt = &call->in[2];
    const struct itera_arg *A = &call->in[3], *B = &call->in[4], *C = &call->in[5];
    const struct itera_arg *D = &call->in[6], *boundaries = &call->in[7];
    const struct itera_arg *dx = &call->out[0], *ddt = &call->out[1], *dA = &call->out[2];
    const struct itera_arg *dB = &call->out[3], *dC = &call->out[4], *dD = &call->out[5];
    int64_t batch = x->dim[0], time = x->dim[1], heads = call->attr->heads;
    int64_t width = x->cols / heads, states = B->cols / call->attr->groups;
    int64_t chunk = itera_scan_chunk(call->attr), chunks = itera_scan_chunks(call->attr, time);
    double *sum_b = (double *)call->scratch;
    double *sum_c = sum_b + B->rows * B->cols;
    double *sum_a = sum_c + B->rows * B->cols;
    double *sum_d = sum_a + heads;
    double *sum_dt = sum_d + heads;
    double *flow = sum_dt + dt->rows * heads;
    double *before = flow + states;

    if (team->rank != 0)
        return;
    memset(sum_b, 0, (size_t)((char *)flow - (char *)sum_b));
    for (int64_t lane = 0; lane < batch * heads * width; lane++) {
        int64_t i = lane / (heads * width), col = lane % (heads * width), j = col / width;
        int64_t group = j / (heads / call->attr->groups), gn = group * states;
        double rate = itera_f32(A)[j], skip = D->data ? (double)itera_f32(D)[j] : 0.0;
        for (int64_t n = 0; n < states; n++)
            flow[n] = 0.0;
        for (int64_t k = chunks - 1; k >= 0; k--) {
            int64_t first = k * chunk, last = first + chunk < time ? first + chunk : time;
            for (int64_t n = 0; n < states; n++)
                before[n] = at(boundaries, (i * chunks + k) * heads * width + col, n);
            for (int64_t t = first; t < last; t++) {
                int64_t row = i * time + t;
                double step = at(dt, row, j), e = exp(step * rate);
                double *h = before + (t - first) * states;
                for (int64_t n = 0; n < states; n++)
                    h[states + n] = e * h[n] + step * at(B, row, gn + n) * at(x, row, col);
            }
            for (int64_t t = last - 1; t >= first; t--) {
                int64_t row = i * time + t;
                const double *h = before + (t - first) * states;
                double step = at(dt, row, j), e = exp(step * rate);
                double input = at(x, row, col), out = at(dy, row, col);
                double grad_x = skip * out, *grad_dt = &sum_dt[row * heads + j];
                sum_d[j] += out * input;
                for (int64_t n = 0; n < states; n++) {
                    double w = e * h[n], b = at(B, row, gn + n);
                    double g = at(C, row, gn + n) * out + flow[n];
                    sum_c[row * B->cols + gn + n] += out * h[states + n];
                    sum_b[row * B->cols + gn + n] += g * step * input;
                    sum_a[j] += g * step * w;
                    grad_x += g * step * b;
                    *grad_dt += g * (rate * w + b * input);
                    flow[n] = e * g;
                }
                itera_f32(dx)[row * dx->ld + col] = (float)grad_x;
            }
        }
    }
    for (int64_t row = 0; row < B->rows; row++) {
        for (int64_t n = 0; n < B->cols; n++) {
            itera_f32(dB)[row * dB->ld + n] = (float)sum_b[row * B->cols + n];
            itera_f32(dC)[row * dC->ld + n] = (float)sum_c[row * B->cols + n];
        }
        for (int64_t j = 0; j < heads; j++)
            itera_f32(ddt)[row * ddt->ld + j] = (float)sum_dt[row * heads + j];
    }
    for (int64_t j = 0; j < heads; j++) {
        itera_f32(dA)[j] = (float)sum_a[j];
        if (dD->data)
            itera_f32(dD)[j] = (float)sum_d[j];
    }
}

const struct itera_kernel itera_ssd_scan_bwd_ref = {.run = ssd_scan_bwd_ref,
                                                    .scratch = ssd_scan_bwd_ref_scratch};
