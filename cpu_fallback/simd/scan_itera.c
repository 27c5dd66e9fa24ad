/* itera_scan and its gradient; the contract is in host/ops/scan.c, the method in affine_scan.h. */
#include "cpu_fallback/simd/affine_scan.h"

static size_t itera_scan_scratch(const struct itera_call *call, int threads)
{
    const int64_t *dim = call->in[2].dim;

    return affine_scratch(call->attr, dim[0], dim[1], dim[2], threads);
}

static void itera_scan(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *d = &call->in[0], *A = &call->in[1], *u = &call->in[2];
    const struct itera_arg *h = &call->out[0];
    struct affine_op op = {
        .first = {.d = itera_f32(d),
                  .rate = itera_f32(A),
                  .b = itera_f32(u),
                  .h = itera_f32(h),
                  .ldd = d->ld,
                  .ldb = u->ld,
                  .ldh = h->ld},
        .state = &call->in[3],
        .batch = u->dim[0],
        .time = u->dim[1],
        .channels = u->dim[2],
    };

    affine_scan(&op, true, call, team);
}

const struct itera_kernel ITERA_SIMD(itera_scan) = {.run = itera_scan,
                                                    .scratch = itera_scan_scratch};

/* Scratch: per thread the flow e[t+1] g[t+1] and a sum of dA, both of padded states. */
static size_t itera_scan_bwd_scratch(const struct itera_call *call, int threads)
{
    return 2 * sizeof(float) * (size_t)threads *
           (size_t)(ceil_div(call->in[3].dim[2], VF_N) * VF_N);
}

/* Threads take sequences: N is small, and dd is a sum over it. */
static void itera_scan_bwd(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dh = &call->in[0], *d = &call->in[1], *A = &call->in[2];
    const struct itera_arg *u = &call->in[3], *h = &call->in[4];
    const struct itera_arg *dd = &call->out[0], *dA = &call->out[1], *du = &call->out[2];
    int64_t time = u->dim[1], states = u->dim[2], padded = ceil_div(states, VF_N) * VF_N;
    float *sums = (float *)call->scratch, *sum_a = sums + team->rank * padded;
    float *flow = sums + (team->size + team->rank) * padded;
    int64_t begin, end;

    for (int64_t n = 0; n < padded; n += VF_N)
        vf_store(sum_a + n, vf_zero());
    itera_team_range(team, u->dim[0], 1, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        for (int64_t n = 0; n < padded; n += VF_N)
            vf_store(flow + n, vf_zero());
        for (int64_t t = time - 1; t >= 0; t--) {
            int64_t row = i * time + t;
            vf step = vf_set(itera_f32(d)[row * d->ld]), sum_d = vf_zero();
            for (int64_t n = 0; n < states; n += VF_N) {
                int64_t lanes = states - n;
                vf rate = vf_load_part(itera_f32(A) + n, lanes);
                vf e = vf_exp2_decay(vf_mul(vf_mul(step, vf_set(LOG2_E)), rate));
                vf before =
                    t > 0 ? vf_load_part(itera_f32(h) + (row - 1) * h->ld + n, lanes) : vf_zero();
                vf g = vf_add(vf_load_part(itera_f32(dh) + row * dh->ld + n, lanes),
                              vf_load(flow + n));
                vf w = vf_mul(e, before);
                vf gw = vf_mul(g, w);
                sum_d = vf_fma(g, vf_load_part(itera_f32(u) + row * u->ld + n, lanes), sum_d);
                sum_d = vf_fma(gw, rate, sum_d);
                vf_store(sum_a + n, vf_fma(gw, step, vf_load(sum_a + n)));
                vf_store_part(itera_f32(du) + row * du->ld + n, vf_mul(step, g), lanes);
                vf_store(flow + n, vf_mul(e, g));
            }
            itera_f32(dd)[row * dd->ld] = vf_sum(sum_d);
        }
    }
    itera_team_barrier(team);
    if (team->rank != 0)
        return;
    for (int64_t n = 0; n < states; n += VF_N) {
        vf sum = vf_load(sums + n);
        for (int rank = 1; rank < team->size; rank++)
            sum = vf_add(sum, vf_load(sums + rank * padded + n));
        vf_store_part(itera_f32(dA) + n, sum, states - n);
    }
}

const struct itera_kernel ITERA_SIMD(itera_scan_bwd) = {.run = itera_scan_bwd,
                                                        .scratch = itera_scan_bwd_scratch};
