/* linear_scan and its gradient; the contract is in host/ops/scan.c, the method in affine_scan.h. */
#include "cpu_fallback/simd/affine_scan.h"

static size_t linear_scan_scratch(const struct itera_call *call, int threads)
{
    const int64_t *dim = call->in[0].dim;

    return affine_scratch(call->attr, dim[0], dim[1], dim[2], threads);
}

static void linear_scan(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *a = &call->in[0], *b = &call->in[1], *h = &call->out[0];
    struct affine_op op = {
        .first = {.a = itera_f32(a),
                  .b = itera_f32(b),
                  .h = itera_f32(h),
                  .lda = a->ld,
                  .ldb = b->ld,
                  .ldh = h->ld},
        .state = &call->in[2],
        .batch = a->dim[0],
        .time = a->dim[1],
        .channels = a->dim[2],
    };

    affine_scan(&op, false, call, team);
}

const struct itera_kernel ITERA_SIMD(linear_scan) = {.run = linear_scan,
                                                     .scratch = linear_scan_scratch};

struct linear_bwd {
    const float *dh, *a, *h;
    float *da, *db;
    int64_t ld_dh, ld_a, ld_h, ld_da, ld_db;
};

ITERA_INLINE void linear_bwd_steps(const struct linear_bwd *s, int nv, int64_t time, int64_t lanes)
{
    vf flow[4];

#pragma GCC unroll 4
    for (int v = 0; v < nv; v++)
        flow[v] = vf_zero();
    for (int64_t t = time - 1; t >= 0; t--) {
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            int64_t c = v * VF_N, n = nv == 1 ? lanes : VF_N;
            vf g = vf_add(vf_load_part(s->dh + t * s->ld_dh + c, n), flow[v]);
            vf before = t > 0 ? vf_load_part(s->h + (t - 1) * s->ld_h + c, n) : vf_zero();
            flow[v] = vf_mul(vf_load_part(s->a + t * s->ld_a + c, n), g);
            vf_store_part(s->da + t * s->ld_da + c, vf_mul(g, before), n);
            vf_store_part(s->db + t * s->ld_db + c, g, n);
        }
    }
}

static void linear_scan_bwd(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *dh = &call->in[0], *a = &call->in[1], *h = &call->in[2];
    const struct itera_arg *da = &call->out[0], *db = &call->out[1];
    int64_t batch = a->dim[0], time = a->dim[1], channels = a->dim[2];
    int64_t vectors = ceil_div(channels, VF_N), item, end;

    itera_team_range(team, batch * vectors, 1, &item, &end);
    while (item < end) {
        int64_t row = item / vectors * time, c = item % vectors * VF_N;
        struct linear_bwd s = {
            .dh = itera_f32(dh) + row * dh->ld + c,
            .a = itera_f32(a) + row * a->ld + c,
            .h = itera_f32(h) + row * h->ld + c,
            .da = itera_f32(da) + row * da->ld + c,
            .db = itera_f32(db) + row * db->ld + c,
            .ld_dh = dh->ld,
            .ld_a = a->ld,
            .ld_h = h->ld,
            .ld_da = da->ld,
            .ld_db = db->ld,
        };
        if (item + 4 <= end && c + 4 * VF_N <= channels) {
            linear_bwd_steps(&s, 4, time, VF_N);
            item += 4;
        } else {
            linear_bwd_steps(&s, 1, time, channels - c);
            item++;
        }
    }
}

const struct itera_kernel ITERA_SIMD(linear_scan_bwd) = {.run = linear_scan_bwd};
