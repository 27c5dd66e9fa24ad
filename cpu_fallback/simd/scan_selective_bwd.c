/* The gradient of selective_scan; the contract is in host/ops/scan.c.
 *
 * Work items are a block of VF_N channels and a sequence. Chunks are taken from the last to the
 * first; within a chunk, four states n at a time go forward from the chunk's boundary, keeping the
 * decay e and w = e h[t-1] of every step, and then backward. Four at a time, because the rows of dB
 * and dC are sums over channels, that is over lanes, which are cheapest to form four together.
 * Sums over items go to one partial result a thread, added up in the order of threads. */
#include "cpu_fallback/simd/scan_selective.h"

struct selective_bwd {
    const struct itera_call *call;
    int64_t batch, time, channels, states, padded, chunk, chunks, vectors, kept;
    /* partial sums of this thread */
    float *sum_a;         /* [vector][n][lane] */
    float *sum_d;         /* [vector][lane] */
    float *sum_b, *sum_c; /* [row][n] */
    /* [n][lane] */
    float *rate, *start, *flow;
    /* [step of the chunk][lane] */
    float *dt, *in, *out, *skip, *g_b, *g_w;
    /* [step of the chunk][4][lane] */
    float *e, *w;
    /* [step of the chunk][n], used when rows of B and C cannot be read four at a time */
    float *b_rows, *c_rows;
};

/* Places one thread's fields from base, if any; returns their number of floats. */
static size_t layout(struct selective_bwd *s, const struct itera_call *call, float *base)
{
    const struct itera_arg *x = &call->in[1];
    int64_t at = 0, rows, lanes;

    s->call = call;
    s->batch = x->dim[0];
    s->time = x->dim[1];
    s->channels = x->dim[2];
    s->states = call->in[3].cols;
    s->padded = ceil_div(s->states, 4) * 4;
    s->chunk = itera_scan_chunk(call->attr);
    s->chunks = itera_scan_chunks(call->attr, s->time);
    s->vectors = ceil_div(s->channels, VF_N);
    s->kept = min_i64(s->chunk, s->time);
    rows = s->batch * s->time * s->padded;
    lanes = s->padded * VF_N;
#define PLACE(field, floats)                                                                       \
    if (base)                                                                                      \
        s->field = base + at;                                                                      \
    at += ceil_div(floats, 16) * 16
    PLACE(sum_a, s->vectors * lanes);
    PLACE(sum_d, s->vectors * VF_N);
    PLACE(sum_b, rows);
    PLACE(sum_c, rows);
    PLACE(rate, lanes);
    PLACE(start, lanes);
    PLACE(flow, lanes);
    PLACE(dt, s->kept * VF_N);
    PLACE(in, s->kept * VF_N);
    PLACE(out, s->kept * VF_N);
    PLACE(skip, s->kept * VF_N);
    PLACE(g_b, s->kept * VF_N);
    PLACE(g_w, s->kept * VF_N);
    PLACE(e, s->kept * 4 * VF_N);
    PLACE(w, s->kept * 4 * VF_N);
    PLACE(b_rows, s->kept * s->padded);
    PLACE(c_rows, s->kept * s->padded);
#undef PLACE
    return (size_t)at;
}

static size_t selective_scan_bwd_scratch(const struct itera_call *call, int threads)
{
    struct selective_bwd s;

    return sizeof(float) * (size_t)threads * layout(&s, call, NULL);
}

/* The rows of B or C of a chunk: in place when groups of four can be read there. */
static const float *padded_rows(const struct selective_bwd *s, const struct itera_arg *arg,
                                int64_t row, int64_t steps, float *copy, int64_t *ld)
{
    const float *from = itera_f32(arg) + row * arg->ld;

    *ld = arg->ld;
    if (s->padded == s->states)
        return from;
    *ld = s->padded;
    for (int64_t t = 0; t < steps; t++)
        for (int64_t n = 0; n < s->padded; n++)
            copy[t * s->padded + n] = n < s->states ? from[t * arg->ld + n] : 0.0f;
    return copy;
}

/* States n to n + 3 through a chunk: forward from `start`, then backward from `flow`. */
ITERA_INLINE void four_states(const struct selective_bwd *s, bool gated, int64_t n, int64_t steps,
                              const float *b_row, int64_t ld_b, const float *c_row, int64_t ld_c,
                              float *sum_a, float *sum_b, float *sum_c)
{
    vf h[4], a[4], flow[4], grad_a[4];

#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        h[j] = vf_load(s->start + (n + j) * VF_N);
        a[j] = vf_load(s->rate + (n + j) * VF_N);
    }
    for (int64_t t = 0; t < steps; t++) {
        vf dt = vf_load(s->dt + t * VF_N), in = vf_load(s->in + t * VF_N);
        vf skip = gated ? vf_load(s->skip + t * VF_N) : vf_zero();
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            vf e = vf_exp2_decay(vf_mul(dt, a[j])), w = vf_mul(e, h[j]);
            vf_store(s->e + (t * 4 + j) * VF_N, e);
            vf_store(s->w + (t * 4 + j) * VF_N, w);
            h[j] = vf_fma(in, vf_set(b_row[t * ld_b + n + j]), w);
            if (gated)
                skip = vf_fma(vf_set(c_row[t * ld_c + n + j]), h[j], skip);
        }
        if (gated)
            vf_store(s->skip + t * VF_N, skip);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        flow[j] = vf_load(s->flow + (n + j) * VF_N);
        grad_a[j] = vf_load(sum_a + (n + j) * VF_N);
    }
    for (int64_t t = steps - 1; t >= 0; t--) {
        vf dt = vf_load(s->dt + t * VF_N), in = vf_load(s->in + t * VF_N);
        vf out = vf_load(s->out + t * VF_N), g_b = vf_load(s->g_b + t * VF_N);
        vf g_w = vf_load(s->g_w + t * VF_N), grad_b[4], grad_c[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            vf b = vf_set(b_row[t * ld_b + n + j]), w = vf_load(s->w + (t * 4 + j) * VF_N);
            vf g = vf_fma(out, vf_set(c_row[t * ld_c + n + j]), flow[j]);
            vf gw = vf_mul(g, w);
            grad_b[j] = vf_mul(g, in);
            grad_c[j] = vf_mul(out, vf_fma(in, b, w));
            grad_a[j] = vf_fma(gw, dt, grad_a[j]);
            g_b = vf_fma(g, b, g_b);
            g_w = vf_fma(gw, a[j], g_w);
            flow[j] = vf_mul(vf_load(s->e + (t * 4 + j) * VF_N), g);
        }
        vf_store(s->g_b + t * VF_N, g_b);
        vf_store(s->g_w + t * VF_N, g_w);
        vf_add_sums4(sum_b + t * s->padded + n, grad_b[0], grad_b[1], grad_b[2], grad_b[3]);
        vf_add_sums4(sum_c + t * s->padded + n, grad_c[0], grad_c[1], grad_c[2], grad_c[3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        vf_store(s->flow + (n + j) * VF_N, flow[j]);
        vf_store(sum_a + (n + j) * VF_N, grad_a[j]);
    }
}

/* Chunk k of sequence i, channels from c. */
static void one_chunk(const struct selective_bwd *s, int64_t i, int64_t k, int64_t c)
{
    const struct itera_arg *in = s->call->in, *result = s->call->out;
    const float *D = itera_f32(&in[6]), *z = itera_f32(&in[7]);
    float *dz = itera_f32(&result[6]);
    int64_t row = i * s->time + k * s->chunk, steps = min_i64(s->chunk, s->time - k * s->chunk);
    int64_t lanes = s->channels - c, ld_b, ld_c;
    int64_t boundary = (i * s->chunks + k) * s->channels + c;
    const float *b_row = padded_rows(s, &in[4], row, steps, s->b_rows, &ld_b);
    const float *c_row = padded_rows(s, &in[5], row, steps, s->c_rows, &ld_c);
    float *sum_a = s->sum_a + c * s->padded, *sum_b = s->sum_b + row * s->padded;
    float *sum_c = s->sum_c + row * s->padded;
    vf d = D ? vf_load_part(D + c, lanes) : vf_zero(), sum_d = vf_load(s->sum_d + c);

    states_to_lanes(s->start, itera_f32(&in[8]) + boundary * in[8].ld, in[8].ld, s->states,
                    min_i64(VF_N, lanes), 1.0f);
    for (int64_t t = 0; t < steps; t++) {
        vf x = vf_load_part(itera_f32(&in[1]) + (row + t) * in[1].ld + c, lanes);
        vf dt = vf_load_part(itera_f32(&in[2]) + (row + t) * in[2].ld + c, lanes);
        vf out = vf_load_part(itera_f32(&in[0]) + (row + t) * in[0].ld + c, lanes);
        if (z)
            out = vf_mul(out, vf_silu(vf_load_part(z + (row + t) * in[7].ld + c, lanes)));
        vf_store(s->dt + t * VF_N, dt);
        vf_store(s->in + t * VF_N, vf_mul(dt, x));
        vf_store(s->out + t * VF_N, out);
        vf_store(s->skip + t * VF_N, vf_mul(d, x));
        vf_store(s->g_b + t * VF_N, vf_zero());
        vf_store(s->g_w + t * VF_N, vf_zero());
        sum_d = vf_fma(out, x, sum_d);
    }
    vf_store(s->sum_d + c, sum_d);
    for (int64_t n = 0; n < s->padded; n += 4) {
        if (dz)
            four_states(s, true, n, steps, b_row, ld_b, c_row, ld_c, sum_a, sum_b, sum_c);
        else
            four_states(s, false, n, steps, b_row, ld_b, c_row, ld_c, sum_a, sum_b, sum_c);
    }
    for (int64_t t = 0; t < steps; t++) {
        vf x = vf_load_part(itera_f32(&in[1]) + (row + t) * in[1].ld + c, lanes);
        vf g_b = vf_load(s->g_b + t * VF_N), g_w = vf_load(s->g_w + t * VF_N);
        vf dx = vf_fma(vf_load(s->dt + t * VF_N), g_b, vf_mul(d, vf_load(s->out + t * VF_N)));
        vf ddt = vf_fma(x, g_b, vf_mul(vf_set(1.0f / LOG2_E), g_w)); /* rate is A log2(e) */
        vf_store_part(itera_f32(&result[0]) + (row + t) * result[0].ld + c, dx, lanes);
        vf_store_part(itera_f32(&result[1]) + (row + t) * result[1].ld + c, ddt, lanes);
        if (dz) {
            vf gate = vf_load_part(z + (row + t) * in[7].ld + c, lanes), one = vf_set(1.0f);
            vf dy = vf_load_part(itera_f32(&in[0]) + (row + t) * in[0].ld + c, lanes);
            vf sigmoid = vf_sigmoid(gate);
            vf slope = vf_mul(sigmoid, vf_fma(gate, vf_sub(one, sigmoid), one));
            vf value = vf_mul(vf_mul(dy, vf_load(s->skip + t * VF_N)), slope);
            vf_store_part(dz + (row + t) * result[6].ld + c, value, lanes);
        }
    }
}

static void zero(float *p, int64_t floats)
{
    for (int64_t j = 0; j < floats; j += VF_N)
        vf_store_part(p + j, vf_zero(), floats - j);
}

/* to[j] = from[j] + from[stride + j] + ... over the threads of the team. */
static void sum_threads(float *to, const float *from, int64_t stride, int64_t floats, int threads)
{
    for (int64_t j = 0; j < floats; j += VF_N) {
        vf sum = vf_load_part(from + j, floats - j);
        for (int rank = 1; rank < threads; rank++)
            sum = vf_add(sum, vf_load_part(from + rank * stride + j, floats - j));
        vf_store_part(to + j, sum, floats - j);
    }
}

static void selective_scan_bwd(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *out = call->out;
    float *base = (float *)call->scratch;
    struct selective_bwd s, all;
    int64_t stride = (int64_t)layout(&all, call, base), item, end, loaded = -1;

    layout(&s, call, base + team->rank * stride);
    zero(s.sum_a, s.rate - s.sum_a);
    itera_team_range(team, s.batch * s.vectors, 1, &item, &end);
    for (; item < end; item++) {
        int64_t i = item % s.batch, c = item / s.batch * VF_N;
        if (c != loaded) {
            const struct itera_arg *A = &call->in[3];
            for (int64_t n = s.states; n < s.padded; n++)
                vf_store(s.rate + n * VF_N, vf_zero());
            states_to_lanes(s.rate, itera_f32(A) + c * A->ld, A->ld, s.states,
                            min_i64(VF_N, s.channels - c), LOG2_E);
            for (int64_t n = s.states; n < s.padded; n++)
                vf_store(s.start + n * VF_N, vf_zero());
            loaded = c;
        }
        zero(s.flow, s.padded * VF_N);
        for (int64_t k = s.chunks - 1; k >= 0; k--)
            one_chunk(&s, i, k, c);
    }
    itera_team_barrier(team);
    itera_team_range(team, s.vectors, 1, &item, &end);
    for (; item < end; item++) {
        int64_t c = item * VF_N, lanes = min_i64(VF_N, s.channels - c);
        float *sum = s.start; /* this thread's own, free by now */
        sum_threads(sum, all.sum_a + c * s.padded, stride, s.padded * VF_N, team->size);
        lanes_to_states(itera_f32(&out[2]) + c * out[2].ld, out[2].ld, sum, s.states, lanes);
        if (out[5].data)
            sum_threads(itera_f32(&out[5]) + c, all.sum_d + c, stride, lanes, team->size);
    }
    itera_team_range(team, s.batch * s.time, 1, &item, &end);
    for (; item < end; item++) {
        sum_threads(itera_f32(&out[3]) + item * out[3].ld, all.sum_b + item * s.padded, stride,
                    s.states, team->size);
        sum_threads(itera_f32(&out[4]) + item * out[4].ld, all.sum_c + item * s.padded, stride,
                    s.states, team->size);
    }
}

const struct itera_kernel ITERA_SIMD(selective_scan_bwd) = {.run = selective_scan_bwd,
                                                            .scratch = selective_scan_bwd_scratch};
