/* The scan h[t] = a[t] h[t-1] + b[t] over time, vectorised over channels, for the two ops whose
 * states do not meet: linear_scan (a and b given) and itera_scan (a = exp(d A), b = d u).
 *
 * Variants:
 * - sequential: threads over sequences and channels, the state in registers.
 * - parallel: one block of time a thread; within a block, four steps at a time by a Hillis-Steele
 *   scan of the pairs (a, b), so that the dependent chain is one step in four.
 * - chunked: blocks of attr.chunk steps, each sequential.
 * The last two scan each block from zeros, scan the blocks' end states (short), and add to each
 * block what its start state contributes: h[t] += (a[first] ... a[t]) start. */
#ifndef ITERA_SIMD_AFFINE_SCAN_H
#define ITERA_SIMD_AFFINE_SCAN_H

#include "cpu_fallback/simd/scan.h"
#include "ops/scan.h"

struct affine {
    const float *a, *b; /* linear_scan: a; b is u in itera_scan. Of one sequence */
    const float *d;     /* itera_scan: the steps, and */
    const float *rate;  /* A */
    float *h;
    int64_t lda, ldb, ldd, ldh;
};

/* (a, b) of step t, VF_N channels from c. `decay` is a constant at every use. */
ITERA_INLINE void affine_at(const struct affine *s, bool decay, int64_t t, int64_t c, int64_t lanes,
                            vf *a, vf *b)
{
    *b = vf_load_part(s->b + t * s->ldb + c, lanes);
    if (decay) {
        vf d = vf_set(s->d[t * s->ldd]);
        *a = vf_exp2_decay(vf_mul(vf_mul(d, vf_set(LOG2_E)), vf_load_part(s->rate + c, lanes)));
        *b = vf_mul(d, *b);
    } else {
        *a = vf_load_part(s->a + t * s->lda + c, lanes);
    }
}

/* Steps [t0, t1) of nv vectors of channels from c. h is the state before and after; the product
 * of a over the steps is multiplied into `product` unless that is NULL. lanes counts for nv == 1;
 * otherwise all vectors are full. */
ITERA_INLINE void affine_steps(const struct affine *s, bool decay, int nv, int64_t t0, int64_t t1,
                               int64_t c, int64_t lanes, vf *h, vf *product)
{
    for (int64_t t = t0; t < t1; t++) {
        float *out = s->h + t * s->ldh + c;
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            vf a, b;
            affine_at(s, decay, t, c + v * VF_N, nv == 1 ? lanes : VF_N, &a, &b);
            h[v] = vf_fma(a, h[v], b);
            if (product)
                product[v] = vf_mul(product[v], a);
            vf_store_part(out + v * VF_N, h[v], nv == 1 ? lanes : VF_N);
        }
    }
}

/* As affine_steps for one vector, in groups of four steps: after two rounds the pair (a, b) of a
 * step stands for all steps of the group up to it. */
ITERA_INLINE void affine_tree(const struct affine *s, bool decay, int64_t t0, int64_t t1, int64_t c,
                              int64_t lanes, vf *h, vf *product)
{
    int64_t t = t0;

    for (; t + 4 <= t1; t += 4) {
        vf a0, a1, a2, a3, b0, b1, b2, b3;
        affine_at(s, decay, t, c, lanes, &a0, &b0);
        affine_at(s, decay, t + 1, c, lanes, &a1, &b1);
        affine_at(s, decay, t + 2, c, lanes, &a2, &b2);
        affine_at(s, decay, t + 3, c, lanes, &a3, &b3);
        b3 = vf_fma(a3, b2, b3);
        b2 = vf_fma(a2, b1, b2);
        b1 = vf_fma(a1, b0, b1);
        a3 = vf_mul(a3, a2);
        a2 = vf_mul(a2, a1);
        a1 = vf_mul(a1, a0);
        b3 = vf_fma(a3, b1, b3);
        b2 = vf_fma(a2, b0, b2);
        a3 = vf_mul(a3, a1);
        a2 = vf_mul(a2, a0);
        vf_store_part(s->h + t * s->ldh + c, vf_fma(a0, *h, b0), lanes);
        vf_store_part(s->h + (t + 1) * s->ldh + c, vf_fma(a1, *h, b1), lanes);
        vf_store_part(s->h + (t + 2) * s->ldh + c, vf_fma(a2, *h, b2), lanes);
        *h = vf_fma(a3, *h, b3);
        vf_store_part(s->h + (t + 3) * s->ldh + c, *h, lanes);
        *product = vf_mul(*product, a3);
    }
    affine_steps(s, decay, 1, t, t1, c, lanes, h, product);
}

/* One scan op as the driver sees it: `first` is its first sequence, the next ones follow. */
struct affine_op {
    struct affine first;
    const struct itera_arg *state;
    int64_t batch, time, channels;
};

ITERA_INLINE struct affine affine_sequence(const struct affine_op *op, int64_t i)
{
    struct affine s = op->first;

    if (s.a)
        s.a += i * op->time * s.lda;
    if (s.d)
        s.d += i * op->time * s.ldd;
    s.b += i * op->time * s.ldb;
    s.h += i * op->time * s.ldh;
    return s;
}

ITERA_INLINE float *affine_state(const struct affine_op *op, int64_t i)
{
    return op->state->data ? itera_f32(op->state) + i * op->state->ld : NULL;
}

ITERA_INLINE void affine_sequential(const struct affine_op *op, bool decay, struct itera_team *team)
{
    int64_t vectors = ceil_div(op->channels, VF_N), item, end;

    itera_team_range(team, op->batch * vectors, 1, &item, &end);
    while (item < end) {
        int64_t i = item / vectors, v = item % vectors, c = v * VF_N;
        struct affine s = affine_sequence(op, i);
        float *state = affine_state(op, i);
        vf h[4];
        if (item + 4 <= end && c + 4 * VF_N <= op->channels) {
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                h[j] = state ? vf_load(state + c + j * VF_N) : vf_zero();
            affine_steps(&s, decay, 4, 0, op->time, c, VF_N, h, NULL);
#pragma GCC unroll 4
            for (int j = 0; state && j < 4; j++)
                vf_store(state + c + j * VF_N, h[j]);
            item += 4;
        } else {
            int64_t lanes = op->channels - c;
            h[0] = state ? vf_load_part(state + c, lanes) : vf_zero();
            affine_steps(&s, decay, 1, 0, op->time, c, lanes, h, NULL);
            if (state)
                vf_store_part(state + c, h[0], lanes);
            item++;
        }
    }
}

/* scratch: per block and sequence two rows of padded channels: the end state from zeros, later the
 * start state, and the product of a. */
ITERA_INLINE void affine_blocked(const struct affine_op *op, bool decay, bool tree, int64_t length,
                                 float *scratch, struct itera_team *team)
{
    int64_t vectors = ceil_div(op->channels, VF_N), padded = vectors * VF_N;
    int64_t blocks = ceil_div(op->time, length), items = op->batch * blocks * vectors, begin, end;
    float *carry = scratch, *products = scratch + op->batch * blocks * padded;

    itera_team_range(team, items, 1, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        int64_t row = item / vectors, c = item % vectors * VF_N, lanes = op->channels - c;
        int64_t t0 = row % blocks * length, t1 = min_i64(t0 + length, op->time);
        struct affine s = affine_sequence(op, row / blocks);
        vf h = vf_zero(), product = vf_set(1.0f);
        if (tree)
            affine_tree(&s, decay, t0, t1, c, lanes, &h, &product);
        else
            affine_steps(&s, decay, 1, t0, t1, c, lanes, &h, &product);
        vf_store(carry + row * padded + c, h);
        vf_store(products + row * padded + c, product);
    }
    itera_team_barrier(team);
    itera_team_range(team, op->batch * vectors, 1, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        int64_t i = item / vectors, c = item % vectors * VF_N, lanes = op->channels - c;
        float *state = affine_state(op, i);
        vf h = state ? vf_load_part(state + c, lanes) : vf_zero();
        for (int64_t k = 0; k < blocks; k++) {
            float *slot = carry + (i * blocks + k) * padded + c;
            vf last = vf_fma(vf_load(products + (i * blocks + k) * padded + c), h, vf_load(slot));
            vf_store(slot, h);
            h = last;
        }
        if (state)
            vf_store_part(state + c, h, lanes);
    }
    itera_team_barrier(team);
    itera_team_range(team, items, 1, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        int64_t row = item / vectors, c = item % vectors * VF_N, lanes = op->channels - c;
        int64_t t0 = row % blocks * length, t1 = min_i64(t0 + length, op->time);
        struct affine s = affine_sequence(op, row / blocks);
        vf part = vf_load(carry + row * padded + c);
        if (t0 == 0 && !op->state->data)
            continue;
        for (int64_t t = t0; t < t1; t++) {
            float *out = s.h + t * s.ldh + c;
            vf a;
            if (decay) {
                vf d = vf_set(s.d[t * s.ldd] * LOG2_E);
                a = vf_exp2_decay(vf_mul(d, vf_load_part(s.rate + c, lanes)));
            } else {
                a = vf_load_part(s.a + t * s.lda + c, lanes);
            }
            part = vf_mul(a, part);
            vf_store_part(out, vf_add(vf_load_part(out, lanes), part), lanes);
        }
    }
}

/* auto: sequential unless sequences and channels cannot feed the threads and there is time to
 * split. Monotone in threads, so that scratch sized for many serves a team of fewer. */
ITERA_INLINE enum itera_scan_variant affine_variant(const struct itera_attr *attr, int64_t batch,
                                                    int64_t time, int64_t channels, int threads)
{
    if (attr->variant != ITERA_SCAN_AUTO)
        return (enum itera_scan_variant)attr->variant;
    if (threads == 1 || time < 512 || batch * ceil_div(channels, VF_N) * 2 > threads)
        return ITERA_SCAN_SEQUENTIAL;
    return ITERA_SCAN_CHUNKED;
}

ITERA_INLINE size_t affine_scratch(const struct itera_attr *attr, int64_t batch, int64_t time,
                                   int64_t channels, int threads)
{
    enum itera_scan_variant variant = affine_variant(attr, batch, time, channels, threads);
    int64_t blocks;

    if (variant == ITERA_SCAN_SEQUENTIAL)
        return 0;
    blocks = variant == ITERA_SCAN_PARALLEL ? threads : itera_scan_chunks(attr, time);
    return 2 * sizeof(float) * (size_t)(batch * blocks * ceil_div(channels, VF_N) * VF_N);
}

ITERA_INLINE void affine_scan(const struct affine_op *op, bool decay, const struct itera_call *call,
                              struct itera_team *team)
{
    if (op->time == 0)
        return;
    switch (affine_variant(call->attr, op->batch, op->time, op->channels, team->size)) {
    case ITERA_SCAN_PARALLEL:
        affine_blocked(op, decay, true, ceil_div(op->time, team->size), call->scratch, team);
        break;
    case ITERA_SCAN_CHUNKED:
        affine_blocked(op, decay, false, itera_scan_chunk(call->attr), call->scratch, team);
        break;
    default:
        affine_sequential(op, decay, team);
    }
}

#endif
