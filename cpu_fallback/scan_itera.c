/* The scalar reference of itera_scan and its gradient; the contract is in host/ops/scan.c. */
#include <math.h>

#include "backend/cpu/kernel.h"

static void itera_scan_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *d = &call->in[0], *A = &call->in[1], *u = &call->in[2];
    const struct itera_arg *state = &call->in[3], *h = &call->out[0];
    int64_t batch = u->dim[0], time = u->dim[1], states = u->dim[2];

    if (team->rank != 0)
        return;
    for (int64_t i = 0; i < batch; i++) {
        for (int64_t n = 0; n < states; n++) {
            double value = state->data ? itera_f32(state)[i * state->ld + n] : 0.0;
            for (int64_t t = 0; t < time; t++) {
                int64_t row = i * time + t;
                double step = itera_f32(d)[row * d->ld];
                value = exp(step * itera_f32(A)[n]) * value +
                        step * (double)itera_f32(u)[row * u->ld + n];
                itera_f32(h)[row * h->ld + n] = (float)value;
            }
            if (state->data)
                itera_f32(state)[i * state->ld + n] = (float)value;
        }
    }
}

const struct itera_kernel itera_itera_scan_ref = {.run = itera_scan_ref};

/* dd is summed over n within one step: the flow of every n is kept in scratch. */
static size_t itera_scan_bwd_ref_scratch(const struct itera_call *call, int threads)
{
    (void)threads;
    return 2 * sizeof(double) * (size_t)call->in[3].dim[2];
}

static void itera_scan_bwd_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dh = &call->in[0], *d = &call->in[1], *A = &call->in[2];
    const struct itera_arg *u = &call->in[3], *h = &call->in[4];
    const struct itera_arg *dd = &call->out[0], *dA = &call->out[1], *du = &call->out[2];
    int64_t batch = u->dim[0], time = u->dim[1], states = u->dim[2];
    double *flow = (double *)call->scratch; /* e[t+1] g[t+1] */
    double *sum_a = flow + states;

    if (team->rank != 0)
        return;
    for (int64_t n = 0; n < states; n++)
        sum_a[n] = 0.0;
    for (int64_t i = 0; i < batch; i++) {
        for (int64_t n = 0; n < states; n++)
            flow[n] = 0.0;
        for (int64_t t = time - 1; t >= 0; t--) {
            int64_t row = i * time + t;
            double step = itera_f32(d)[row * d->ld], sum_d = 0.0;
            for (int64_t n = 0; n < states; n++) {
                double rate = itera_f32(A)[n], e = exp(step * rate);
                double before = t > 0 ? itera_f32(h)[(row - 1) * h->ld + n] : 0.0;
                double g = (double)itera_f32(dh)[row * dh->ld + n] + flow[n];
                sum_d += g * ((double)itera_f32(u)[row * u->ld + n] + rate * e * before);
                sum_a[n] += g * step * e * before;
                itera_f32(du)[row * du->ld + n] = (float)(step * g);
                flow[n] = e * g;
            }
            itera_f32(dd)[row * dd->ld] = (float)sum_d;
        }
    }
    for (int64_t n = 0; n < states; n++)
        itera_f32(dA)[n] = (float)sum_a[n];
}

const struct itera_kernel itera_itera_scan_bwd_ref = {.run = itera_scan_bwd_ref,
                                                      .scratch = itera_scan_bwd_ref_scratch};
