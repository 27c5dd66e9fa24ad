/* The scalar reference of linear_scan and its gradient; the contract is in host/ops/scan.c. */
#include "backend/cpu/kernel.h"

static void linear_scan_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *a = &call->in[0], *b = &call->in[1], *state = &call->in[2];
    const struct itera_arg *h = &call->out[0];
    int64_t batch = a->dim[0], time = a->dim[1], channels = a->dim[2];

    if (team->rank != 0)
        return;
    for (int64_t i = 0; i < batch; i++) {
        for (int64_t c = 0; c < channels; c++) {
            double value = state->data ? itera_f32(state)[i * state->ld + c] : 0.0;
            for (int64_t t = 0; t < time; t++) {
                int64_t row = i * time + t;
                value = (double)itera_f32(a)[row * a->ld + c] * value +
                        (double)itera_f32(b)[row * b->ld + c];
                itera_f32(h)[row * h->ld + c] = (float)value;
            }
            if (state->data)
                itera_f32(state)[i * state->ld + c] = (float)value;
        }
    }
}

const struct itera_kernel itera_linear_scan_ref = {.run = linear_scan_ref};

static void linear_scan_bwd_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dh = &call->in[0], *a = &call->in[1], *h = &call->in[2];
    const struct itera_arg *da = &call->out[0], *db = &call->out[1];
    int64_t batch = a->dim[0], time = a->dim[1], channels = a->dim[2];

    if (team->rank != 0)
        return;
    for (int64_t i = 0; i < batch; i++) {
        for (int64_t c = 0; c < channels; c++) {
            double flow = 0.0; /* a[t+1] g[t+1] */
            for (int64_t t = time - 1; t >= 0; t--) {
                int64_t row = i * time + t;
                double before = t > 0 ? itera_f32(h)[(row - 1) * h->ld + c] : 0.0;
                double g = (double)itera_f32(dh)[row * dh->ld + c] + flow;
                flow = (double)itera_f32(a)[row * a->ld + c] * g;
                itera_f32(da)[row * da->ld + c] = (float)(g * before);
                itera_f32(db)[row * db->ld + c] = (float)g;
            }
        }
    }
}

const struct itera_kernel itera_linear_scan_bwd_ref = {.run = linear_scan_bwd_ref};
