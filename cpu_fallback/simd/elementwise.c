/* Elementwise ops over vectors (contracts: host/ops/elementwise.c). */
#include "core/rng.h"
#include "cpu_fallback/simd/span.h"

FAST(fill)
{
    const struct itera_arg *y = &call->out[0];
    float value = y->dtype == ITERA_F32 ? call->attr->scale : 0.0f;
    struct itera_area a = itera_area(team, y, itera_plain(y));
    for (int64_t r = a.row; r < a.rows_end; r++) {
        float *p = itera_row(y, r) + a.col;
        if (value == 0.0f && !__builtin_signbit(value)) {
            memset(p, 0, (size_t)a.cols * sizeof *p);
            continue;
        }
        int64_t i = 0;
        for (; i + VF_N <= a.cols; i += VF_N)
            vf_store(p + i, vf_set(value));
        vf_store_n(p + i, vf_set(value), a.cols - i);
    }
}

FAST(copy)
{
    const struct itera_arg *x = &call->in[0], *y = &call->out[0];
    if (x->data == y->data)
        return;
    struct itera_area a = itera_area(team, y, itera_plain(x) && itera_plain(y));
    for (int64_t r = a.row; r < a.rows_end; r++)
        memcpy(itera_row(y, r) + a.col, itera_row(x, r) + a.col, (size_t)a.cols * sizeof(float));
}

static inline vf neg_exp_one(vf x, vf s)
{
    (void)s;
    return vf_neg(vf_exp(x));
}
static inline vf silu_one(vf x, vf s)
{
    (void)s;
    return vf_silu(x);
}
static inline vf gelu_one(vf x, vf s)
{
    (void)s;
    return vf_gelu(x);
}
static inline vf softplus_one(vf x, vf s)
{
    (void)s;
    return vf_softplus(x);
}
static inline vf silu_back(vf dy, vf x)
{
    return vf_mul(dy, vf_silu_slope(x, vf_sigmoid(x)));
}
static inline vf gelu_back(vf dy, vf x)
{
    return vf_mul(dy, vf_gelu_slope(x));
}
static inline vf softplus_back(vf dy, vf y)
{
    return vf_mul(dy, vf_neg(vf_expm1_neg(vf_neg(y))));
}
static inline vf gate(vf x, vf z)
{
    return vf_mul(x, vf_silu(z));
}

static inline vf penalized(vf x, vf factor)
{
    return vf_select(vf_lt(x, vf_zero()), vf_mul(x, factor), vf_div(x, factor));
}

FAST(scale)
{
    itera_map1(call, team, vf_mul, vf_set(call->attr->scale));
}

FAST(add)
{
    itera_map2(call, team, vf_add);
}

FAST(mul)
{
    itera_map2(call, team, vf_mul);
}

FAST(penalize)
{
    itera_map2(call, team, penalized);
}

FAST(neg_exp)
{
    itera_map1(call, team, neg_exp_one, vf_zero());
}

FAST(silu)
{
    itera_map1(call, team, silu_one, vf_zero());
}

FAST(silu_bwd)
{
    itera_map2(call, team, silu_back);
}

FAST(gelu)
{
    itera_map1(call, team, gelu_one, vf_zero());
}

FAST(gelu_bwd)
{
    itera_map2(call, team, gelu_back);
}

FAST(softplus)
{
    itera_map1(call, team, softplus_one, vf_zero());
}

FAST(softplus_bwd)
{
    itera_map2(call, team, softplus_back);
}

FAST(silu_mul)
{
    itera_map2(call, team, gate);
}

ITERA_INLINE void silu_mul_bwd_step(const float *dy, const float *x, const float *z, float *dx,
                                    float *dz, int64_t n)
{
    vf g = itera_get(dy, n), zv = itera_get(z, n);
    vf s = vf_sigmoid(zv);
    vf dzv = vf_mul(vf_mul(g, itera_get(x, n)), vf_silu_slope(zv, s));
    itera_put(dx, vf_mul(g, vf_mul(zv, s)), n);
    itera_put(dz, dzv, n);
}

FAST(silu_mul_bwd)
{
    const struct itera_arg *dya = &call->in[0], *xa = &call->in[1], *za = &call->in[2];
    const struct itera_arg *dxa = &call->out[0], *dza = &call->out[1];
    bool plain = itera_plain(dya) && itera_plain(xa) && itera_plain(za) && itera_plain(dxa) &&
                 itera_plain(dza);
    struct itera_area a = itera_area(team, dxa, plain);
    for (int64_t r = a.row; r < a.rows_end; r++) {
        const float *dy = itera_row(dya, r) + a.col, *x = itera_row(xa, r) + a.col;
        const float *z = itera_row(za, r) + a.col;
        float *dx = itera_row(dxa, r) + a.col, *dz = itera_row(dza, r) + a.col;
        int64_t i = 0;
        for (; i + VF_N <= a.cols; i += VF_N)
            silu_mul_bwd_step(dy + i, x + i, z + i, dx + i, dz + i, VF_N);
        if (i < a.cols)
            silu_mul_bwd_step(dy + i, x + i, z + i, dx + i, dz + i, a.cols - i);
    }
}

ITERA_INLINE void skip_gate_step(const float *c, const float *x, const float *d, const float *z,
                                 float *y, int64_t n)
{
    vf t = vf_fma(itera_get(d, n), itera_get(x, n), itera_get(c, n));
    itera_put(y, z ? vf_mul(t, vf_silu(itera_get(z, n))) : t, n);
}

ITERA_INLINE void skip_gate_rows(const struct itera_call *call, const struct itera_area *a,
                                 bool gated)
{
    const float *d = itera_f32(&call->in[2]);
    for (int64_t r = a->row; r < a->rows_end; r++) {
        const float *c = itera_row(&call->in[0], r), *x = itera_row(&call->in[1], r);
        const float *z = gated ? itera_row(&call->in[3], r) : NULL;
        float *y = itera_row(&call->out[0], r);
        int64_t i = a->col, end = a->col + a->cols;
        for (; i + VF_N <= end; i += VF_N)
            skip_gate_step(c + i, x + i, d + i, gated ? z + i : NULL, y + i, VF_N);
        if (i < end)
            skip_gate_step(c + i, x + i, d + i, gated ? z + i : NULL, y + i, end - i);
    }
}

FAST(skip_gate)
{
    const struct itera_arg *y = &call->out[0];
    struct itera_area a = itera_area(team, y, y->rows == 1);
    if (call->in[3].data)
        skip_gate_rows(call, &a, true);
    else
        skip_gate_rows(call, &a, false);
}

/* The rows of one thread at one place. dz may be NULL, z too (then dz is). */
struct skip_gate_back {
    const float *dy, *c, *x, *d, *z;
    float *dc, *dx, *dz, *dd;
};

ITERA_INLINE void skip_gate_bwd_step(const struct skip_gate_back *p, int64_t i, int64_t n)
{
    vf g = itera_get(p->dy + i, n), x = itera_get(p->x + i, n), d = itera_get(p->d + i, n);
    if (p->z) {
        vf z = itera_get(p->z + i, n), s = vf_sigmoid(z);
        if (p->dz) {
            vf t = vf_fma(d, x, itera_get(p->c + i, n));
            itera_put(p->dz + i, vf_mul(vf_mul(g, t), vf_silu_slope(z, s)), n);
        }
        g = vf_mul(g, vf_mul(z, s));
    }
    itera_put(p->dc + i, g, n);
    itera_put(p->dx + i, vf_mul(g, d), n);
    itera_put(p->dd + i, vf_fma(g, x, itera_get(p->dd + i, n)), n);
}

static size_t skip_gate_bwd_scratch(const struct itera_call *call, int threads)
{
    return itera_partials_bytes(call->out[2].cols, 1, threads);
}

static void skip_gate_bwd_run(const struct itera_call *call, struct itera_team *team)
{
    struct skip_gate_back p = {.d = itera_f32(&call->in[3])};
    p.dd = itera_partials(call, team, &call->out[2], 0);
    int64_t begin, end, cols = call->in[2].cols;
    itera_share(team, call->in[2].rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        p.dy = itera_row(&call->in[0], r);
        p.c = itera_row(&call->in[1], r);
        p.x = itera_row(&call->in[2], r);
        p.z = call->in[4].data ? itera_row(&call->in[4], r) : NULL;
        p.dc = itera_row(&call->out[0], r);
        p.dx = itera_row(&call->out[1], r);
        p.dz = p.z && call->out[3].data ? itera_row(&call->out[3], r) : NULL;
        int64_t i = 0;
        for (; i + VF_N <= cols; i += VF_N)
            skip_gate_bwd_step(&p, i, VF_N);
        if (i < cols)
            skip_gate_bwd_step(&p, i, cols - i);
    }
    if (team->size > 1)
        itera_team_barrier(team);
    itera_partials_finish(call, team, &call->out[2], 0);
}
const struct itera_kernel ITERA_SIMD(skip_gate_bwd) = {.run = skip_gate_bwd_run,
                                                       .scratch = skip_gate_bwd_scratch};

FAST(softplus_mean)
{
    const struct itera_arg *xa = &call->in[0];
    int64_t begin, end, cols = xa->cols;
    itera_share(team, xa->rows, 4, &begin, &end);
    float inverse = 1.0f / (float)cols;
    for (int64_t r = begin; r < end; r++) {
        const float *x = itera_row(xa, r);
        vf s0 = vf_zero(), s1 = vf_zero();
        int64_t i = 0;
        for (; i + 2 * VF_N <= cols; i += 2 * VF_N) {
            s0 = vf_add(s0, vf_softplus(vf_load(x + i)));
            s1 = vf_add(s1, vf_softplus(vf_load(x + i + VF_N)));
        }
        for (; i + VF_N <= cols; i += VF_N)
            s0 = vf_add(s0, vf_softplus(vf_load(x + i)));
        if (i < cols) /* softplus(-200) is 0: absent lanes add nothing */
            s1 = vf_add(s1, vf_softplus(vf_load_or(x + i, cols - i, vf_set(-200.0f))));
        *itera_row(&call->out[0], r) = vf_sum(vf_add(s0, s1)) * inverse;
    }
}

FAST(softplus_mean_bwd)
{
    const struct itera_arg *xa = &call->in[1];
    int64_t begin, end, cols = xa->cols;
    itera_share(team, xa->rows, 1, &begin, &end);
    float inverse = 1.0f / (float)cols;
    for (int64_t r = begin; r < end; r++) {
        const float *x = itera_row(xa, r);
        float *dx = itera_row(&call->out[0], r);
        vf g = vf_set(*itera_row(&call->in[0], r) * inverse);
        int64_t i = 0;
        for (; i + VF_N <= cols; i += VF_N)
            vf_store(dx + i, vf_mul(g, vf_sigmoid(vf_load(x + i))));
        if (i < cols)
            vf_store_n(dx + i, vf_mul(g, vf_sigmoid(vf_load_n(x + i, cols - i))), cols - i);
    }
}

/* Philox blocks in the 64-bit lanes: a group is VF_N / 2 blocks, so 2 VF_N values. */
#define GROUP (2 * VF_N)

struct drop {
    uint64_t seed;
    vi stream_low, stream_high;
    vi lanes; /* which block of the group a lane computes */
    vf limit; /* p 2^24 */
    vf keep;  /* 1 / (1 - p) */
};

/* The factors of the elements [first, first + GROUP), first a multiple of GROUP: those of
 * itera_rng_at, a block of four values in each lane. */
static inline void drop_factors(const struct drop *d, int64_t first, vf *low, vf *high)
{
    vi block = vi_add64(vi_set64((uint64_t)first / 4), d->lanes);
    vi c0 = block, c1 = vi_shr64(block, 32), c2 = d->stream_low, c3 = d->stream_high;
    uint32_t k0 = (uint32_t)d->seed, k1 = (uint32_t)(d->seed >> 32);
    vi m0 = vi_set64(0xD2511F53u), m1 = vi_set64(0xCD9E8D57u);
    /* Only the low 32 bits of a lane count; whatever the high ones gather is never multiplied. */
    for (int round = 0; round < 10; round++) {
        vi p0 = vi_mul_low(m0, c0), p1 = vi_mul_low(m1, c2);
        c0 = vi_xor(vi_xor(vi_shr64(p1, 32), c1), vi_set64(k0));
        c2 = vi_xor(vi_xor(vi_shr64(p0, 32), c3), vi_set64(k1));
        c1 = p1;
        c3 = p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    vi mask = vi_set64(0xffffffffu);
    vi v01 = vi_or(vi_and(c0, mask), vi_shl64(c1, 32));
    vi v23 = vi_or(vi_and(c2, mask), vi_shl64(c3, 32));
    vf u0 = vi_to_vf(vi_shr(vi_even64(v01, v23), 8));
    vf u1 = vi_to_vf(vi_shr(vi_odd64(v01, v23), 8));
    *low = vf_select(vf_lt(u0, d->limit), vf_zero(), d->keep);
    *high = vf_select(vf_lt(u1, d->limit), vf_zero(), d->keep);
}

static inline vf drop_apply(vf x, vf factor)
{
    /* not x * 0: a dropped infinity is 0 */
    return vf_select(vf_eq(factor, vf_zero()), vf_zero(), vf_mul(x, factor));
}

/* n elements of which the first has index `index`. */
static void drop_span(const struct drop *d, const float *x, float *y, int64_t n, int64_t index)
{
    int64_t i = 0;
    while (i < n) {
        int64_t skip = (index + i) % GROUP, count = GROUP - skip;
        vf f0, f1;
        drop_factors(d, index + i - skip, &f0, &f1);
        if (skip == 0 && n - i >= GROUP) {
            vf x0 = vf_load(x + i), x1 = vf_load(x + i + VF_N);
            vf_store(y + i, drop_apply(x0, f0));
            vf_store(y + i + VF_N, drop_apply(x1, f1));
        } else {
            float factors[GROUP];
            vf_store(factors, f0);
            vf_store(factors + VF_N, f1);
            count = count < n - i ? count : n - i;
            for (int64_t k = 0; k < count; k++)
                y[i + k] = factors[skip + k] != 0.0f ? x[i + k] * factors[skip + k] : 0.0f;
        }
        i += count;
    }
}

FAST(dropout)
{
    const struct itera_arg *xa = &call->in[0], *ya = &call->out[0];
    const uint32_t *rng = call->in[1].data;
    uint64_t step = rng[2] | (uint64_t)rng[3] << 32;
    uint64_t stream = (uint64_t)(uint32_t)call->attr->stream << 32 ^ step;
    /* Even lanes of v01, v23 come first when they are interleaved. */
    uint64_t lanes[VF_N / 2];
    for (int i = 0; i < VF_N / 2; i++)
        lanes[i] = (uint64_t)(i / 2 + (i & 1) * VF_N / 4);
    struct drop d = {
        .seed = rng[0] | (uint64_t)rng[1] << 32,
        .stream_low = vi_set64((uint32_t)stream),
        .stream_high = vi_set64(stream >> 32),
        .lanes = vi_load64(lanes),
        .limit = vf_set(call->attr->p * 0x1p24f),
        .keep = vf_set((float)(1.0 / (1.0 - (double)call->attr->p))),
    };
    struct itera_area a = itera_area(team, ya, itera_plain(xa) && itera_plain(ya));
    for (int64_t r = a.row; r < a.rows_end; r++)
        drop_span(&d, itera_row(xa, r) + a.col, itera_row(ya, r) + a.col, a.cols,
                  r * xa->cols + a.col);
}

/* Threads share columns, so that the order of each sum does not depend on their number; blocks of
 * rows keep it short. */
FAST(column_sum)
{
    enum { ROWS = 128 };
    const struct itera_arg *xa = &call->in[0];
    float *y = itera_f32(&call->out[0]);
    int64_t begin, end, ld = xa->ld;
    itera_share(team, xa->cols, 16, &begin, &end);
    for (int64_t c = begin; c < end; c += 4 * VF_N) {
        vf total[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
        int64_t n[4];
        for (int k = 0; k < 4; k++) {
            int64_t left = end - c - k * VF_N;
            n[k] = left < 0 ? 0 : left < VF_N ? left : VF_N;
        }
        for (int64_t r0 = 0; r0 < xa->rows; r0 += ROWS) {
            int64_t r1 = r0 + ROWS < xa->rows ? r0 + ROWS : xa->rows;
            const float *x = itera_row(xa, r0) + c;
            vf s[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
            if (n[3] == VF_N) {
                for (int64_t r = r0; r < r1; r++, x += ld)
                    for (int k = 0; k < 4; k++)
                        s[k] = vf_add(s[k], vf_load(x + k * VF_N));
            } else {
                for (int64_t r = r0; r < r1; r++, x += ld)
                    for (int k = 0; k < 4 && n[k]; k++)
                        s[k] = vf_add(s[k], vf_load_n(x + k * VF_N, n[k]));
            }
            for (int k = 0; k < 4; k++)
                total[k] = vf_add(total[k], s[k]);
        }
        for (int k = 0; k < 4 && n[k]; k++)
            vf_store_n(y + c + k * VF_N, total[k], n[k]);
    }
}
