/* The gradient of ssd_scan; the contract is in host/ops/scan.c.
 *
 * Chunks of up to 64 steps, the last first. With S the chunk's start state (P, N), G the gradient
 * of its end state, cum as in scan_ssd.c, E[t,s] = exp(cum[t] - cum[s]) for s <= t, else 0,
 * f[t] = exp(cum[t]), w[s] = exp(cum[last] - cum[s]) dt[s], CB = C B^T and DM = dy x^T (both
 * (step, step)):
 *
 *   M = CB E dt[s]      Q = DM E dt[s]      (element by element)
 *   dx = M^T dy + w (B G^T) + D dy
 *   dC = sum over heads of Q B + f (dy S)       dB = sum over heads of Q^T C + w (x G)
 *   G before the chunk = exp(cum[last]) G + (f dy)^T C
 *
 * and, for dt and A, the gradients of dt where it stands as a factor and of cum in all exponents;
 * a step's dt A is part of cum from that step on. The diagonal of E is 1 whatever cum is, and is
 * left out of the gradient of cum, where it would cancel. For the same reason dA takes an element
 * of E below it with the time between its steps, cum[t] - cum[s] by A: the difference of what it
 * adds at t and at s, each times all the time before, would leave nothing of a fast decay. */
#include <string.h>

#include "cpu_fallback/simd/scan_ssd.h"

struct ssd_bwd {
    const struct itera_call *call;
    int64_t time, heads, width, groups, states, chunk, chunks, items;
    int64_t ld_p, ld_n;         /* width and states padded to GEMM_COLUMNS */
    int64_t head_state;         /* floats of a (P, N) matrix in scratch */
    float *x, *dy, *f_dy, *dx;  /* [step][p] */
    float *x_t;                 /* [p][step] */
    float *b, *c, *part;        /* [step][n] */
    float *db, *dc;             /* [step][n], summed over the heads of a group */
    float *b_t;                 /* [n][step] */
    float *cb, *dm, *m, *q_sum; /* [step][step] */
    float *start;               /* [p][n] */
    float *g_t;                 /* [n][p] */
    float *sum_b, *sum_c;       /* [row][group, n]: this thread's sums */
};

/* Floats per thread; places them from base, if any. */
static int64_t layout(struct ssd_bwd *s, const struct itera_call *call, float *base)
{
    const struct itera_arg *x = &call->in[1], *B = &call->in[4];
    int64_t at = 0, steps = SSD_PADDED, square = steps * steps;

    s->call = call;
    s->time = x->dim[1];
    s->heads = call->attr->heads;
    s->width = x->cols / s->heads;
    s->groups = call->attr->groups;
    s->states = B->cols / s->groups;
    s->chunk = itera_scan_chunk(call->attr);
    s->chunks = itera_scan_chunks(call->attr, s->time);
    s->items = x->dim[0] * s->heads;
    s->ld_p = pad_to(s->width, GEMM_COLUMNS);
    s->ld_n = pad_to(s->states, GEMM_COLUMNS);
    s->head_state = pad_to(s->width, GEMM_ROWS) * s->ld_n;
    struct {
        float **field;
        int64_t floats;
    } parts[] = {
        {&s->x, steps * s->ld_p},
        {&s->dy, steps * s->ld_p},
        {&s->f_dy, steps * s->ld_p},
        {&s->dx, steps * s->ld_p},
        {&s->x_t, s->width * steps},
        {&s->b, steps * s->ld_n},
        {&s->c, steps * s->ld_n},
        {&s->part, steps * s->ld_n},
        {&s->db, steps * s->ld_n},
        {&s->dc, steps * s->ld_n},
        {&s->b_t, s->states * steps},
        {&s->cb, square},
        {&s->dm, square},
        {&s->m, square},
        {&s->q_sum, square},
        {&s->start, s->head_state},
        {&s->g_t, s->states * s->ld_p},
        {&s->sum_b, B->rows * B->cols},
        {&s->sum_c, B->rows * B->cols},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (base)
            *parts[i].field = base + at;
        /* A transposed operand is read up to GEMM_ROWS - 1 beyond its end. */
        at += pad_to(parts[i].floats + GEMM_ROWS, 16);
    }
    return at;
}

/* After the threads' parts: dA and dD of each item as doubles, then G of each item. */
static size_t ssd_scan_bwd_scratch(const struct itera_call *call, int threads)
{
    struct ssd_bwd s;
    int64_t own = layout(&s, call, NULL);

    return sizeof(float) * (size_t)(own * threads + s.items * (s.head_state + 4));
}

/* Rows of `cols` into a buffer of padded rows; the padding becomes 0. */
static void copy_rows(float *to, int64_t ld_to, const float *from, int64_t ld_from, int64_t rows,
                      int64_t cols)
{
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < ld_to; c += VF_N) {
            int64_t lanes = cols - c;
            vf v = lanes > 0 ? vf_load_part(from + r * ld_from + c, lanes) : vf_zero();
            vf_store(to + r * ld_to + c, v);
        }
    }
}

static void zero(float *p, int64_t floats)
{
    memset(p, 0, (size_t)floats * sizeof *p);
}

static float dot(const float *a, const float *b, int64_t n)
{
    vf sum = vf_zero();

    for (int64_t i = 0; i < n; i += VF_N)
        sum = vf_fma(vf_load_part(a + i, n - i), vf_load_part(b + i, n - i), sum);
    return vf_sum(sum);
}

/* to += scale from, by rows */
static void add_rows(float *to, const float *from, int64_t ld, const float *scale, int64_t rows,
                     int64_t cols)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c += VF_N)
            vf_store(to + r * ld + c, vf_fma(vf_set(scale[r]), vf_load(from + r * ld + c),
                                             vf_load(to + r * ld + c)));
}

/* What the heads of a group share, for `steps` steps from matrix row `row`. */
static void group_begin(const struct ssd_bwd *s, int64_t group, int64_t row, int64_t steps)
{
    const struct itera_arg *B = &s->call->in[4], *C = &s->call->in[5];

    copy_rows(s->b, s->ld_n, itera_f32(B) + row * B->ld + group * s->states, B->ld, steps,
              s->states);
    copy_rows(s->c, s->ld_n, itera_f32(C) + row * C->ld + group * s->states, C->ld, steps,
              s->states);
    small_transpose(s->b_t, SSD_PADDED, s->b, s->ld_n, steps, s->states);
    small_gemm(steps, steps, s->states, s->c, s->ld_n, 1, s->b_t, SSD_PADDED, 0.0f, s->cb,
               SSD_PADDED);
    zero(s->q_sum, SSD_PADDED * SSD_PADDED);
    zero(s->db, SSD_PADDED * s->ld_n);
    zero(s->dc, SSD_PADDED * s->ld_n);
}

static void group_end(const struct ssd_bwd *s, int64_t group, int64_t row, int64_t steps)
{
    int64_t cols = s->call->in[4].cols;

    small_gemm(steps, s->states, steps, s->q_sum, SSD_PADDED, 1, s->b, s->ld_n, 1.0f, s->dc,
               s->ld_n);
    small_gemm(steps, s->states, steps, s->q_sum, 1, SSD_PADDED, s->c, s->ld_n, 1.0f, s->db,
               s->ld_n);
    for (int64_t t = 0; t < steps; t++) {
        float *to_b = s->sum_b + (row + t) * cols + group * s->states;
        float *to_c = s->sum_c + (row + t) * cols + group * s->states;
        for (int64_t n = 0; n < s->states; n += VF_N) {
            int64_t lanes = s->states - n;
            vf_store_part(to_b + n,
                          vf_add(vf_load_part(to_b + n, lanes), vf_load(s->db + t * s->ld_n + n)),
                          lanes);
            vf_store_part(to_c + n,
                          vf_add(vf_load_part(to_c + n, lanes), vf_load(s->dc + t * s->ld_n + n)),
                          lanes);
        }
    }
}

/* state (P, N) = exp(cum[last]) state + sum_s w[s] x[s] B[s]; dx serves as the weighted x. */
static void advance(const struct ssd_bwd *s, int64_t head, int64_t row, int64_t steps)
{
    const struct itera_arg *x = &s->call->in[1], *dt = &s->call->in[2], *B = &s->call->in[4];
    int64_t group = head / (s->heads / s->groups);
    struct ssd_decay d;

    ssd_decays(&d, itera_f32(dt) + row * dt->ld + head, dt->ld, itera_f32(&s->call->in[3])[head],
               steps);
    copy_rows(s->x, s->ld_p, itera_f32(x) + row * x->ld + head * s->width, x->ld, steps, s->width);
    copy_rows(s->part, s->ld_n, itera_f32(B) + row * B->ld + group * s->states, B->ld, steps,
              s->states);
    zero(s->dx, SSD_PADDED * s->ld_p);
    add_rows(s->dx, s->x, s->ld_p, d.to_end, steps, s->width);
    small_gemm(s->width, s->states, steps, s->dx, 1, s->ld_p, s->part, s->ld_n, d.total, s->start,
               s->ld_n);
}

/* The elementwise part: m becomes M, dm becomes Q and is added to q_sum; the gradients of cum and
 * of dt as a factor of M (but for dt's diagonal, all in `free`: per unit of dt[s]). Returns that of
 * A, as far as it is in E. */
static double within_chunk(const struct ssd_bwd *s, const struct ssd_decay *d, int64_t steps,
                           float *row_sum, float *free_sum)
{
    float high[SSD_PADDED], low[SSD_PADDED]; /* their sum: the time up to each step */
    double time = 0.0, sum_a = 0.0;

    for (int64_t u = 0; u < SSD_PADDED; u++) {
        free_sum[u] = 0.0f;
        time += (double)d->dt[u];
        high[u] = (float)time;
        low[u] = (float)(time - (double)high[u]);
    }
    for (int64_t t = 0; t < steps; t++) {
        vf row = vf_zero(), row_a = vf_zero();
        for (int64_t u = 0; u < SSD_PADDED; u += VF_N) {
            int64_t at = t * SSD_PADDED + u;
            vf dt = vf_load(d->dt + u), e, cb, dm, free, between;
            if (u > t) {
                vf_store(s->m + at, vf_zero());
                continue;
            }
            e = vf_select(ssd_before(u, t + 1), ssd_decay_between(d, t, u), vf_zero());
            cb = vf_mul(vf_load(s->cb + at), e);
            dm = vf_load(s->dm + at);
            free = vf_select(ssd_before(u, t), vf_mul(cb, dm), vf_zero());
            between = vf_add(vf_sub(vf_set(high[t]), vf_load(high + u)),
                             vf_sub(vf_set(low[t]), vf_load(low + u)));
            row = vf_fma(free, dt, row);
            row_a = vf_fma(vf_mul(free, dt), between, row_a);
            vf_store(free_sum + u, vf_add(vf_load(free_sum + u), free));
            vf_store(s->m + at, vf_mul(cb, dt));
            vf_store(s->q_sum + at,
                     vf_fma(vf_select(ssd_before(u, t + 1), vf_mul(dm, e), vf_zero()), dt,
                            vf_load(s->q_sum + at)));
        }
        row_sum[t] = vf_sum(row);
        sum_a += (double)vf_sum(row_a);
    }
    return sum_a;
}

/* One head's chunk. G, the gradient of the end state, becomes that of the start state. */
static void head_chunk(const struct ssd_bwd *s, int64_t head, int64_t row, int64_t steps, float *G,
                       double *sum_a, double *sum_d)
{
    const struct itera_arg *in = s->call->in, *out = s->call->out;
    const float *D = itera_f32(&in[6]);
    double rate = itera_f32(&in[3])[head], later = 0.0, total = 0.0;
    double within = 0.0, rise[SSD_STEPS] = {0};
    float row_sum[SSD_PADDED], free_sum[SSD_PADDED], direct[SSD_STEPS], skip = D ? D[head] : 0.0f;
    struct ssd_decay d;

    ssd_decays(&d, itera_f32(&in[2]) + row * in[2].ld + head, in[2].ld, (float)rate, steps);
    copy_rows(s->x, s->ld_p, itera_f32(&in[1]) + row * in[1].ld + head * s->width, in[1].ld, steps,
              s->width);
    copy_rows(s->dy, s->ld_p, itera_f32(&in[0]) + row * in[0].ld + head * s->width, in[0].ld, steps,
              s->width);
    small_transpose(s->x_t, SSD_PADDED, s->x, s->ld_p, steps, s->width);
    small_gemm(steps, steps, s->width, s->dy, s->ld_p, 1, s->x_t, SSD_PADDED, 0.0f, s->dm,
               SSD_PADDED);
    *sum_a += within_chunk(s, &d, steps, row_sum, free_sum);
    for (int64_t t = 0; t < steps; t++)
        direct[t] = free_sum[t] + s->dm[t * SSD_PADDED + t] * s->cb[t * SSD_PADDED + t];

    /* x and B through the end state */
    small_transpose(s->g_t, s->ld_p, G, s->ld_n, s->width, s->states);
    small_gemm(steps, s->width, s->states, s->b, s->ld_n, 1, s->g_t, s->ld_p, 0.0f, s->dx, s->ld_p);
    for (int64_t t = 0; t < steps; t++) {
        float value = d.left[t] * dot(s->x + t * s->ld_p, s->dx + t * s->ld_p, s->width);
        double decay = (double)(d.dt[t] * value);
        direct[t] += value;
        rise[t] -= decay;
        total += decay;
        for (int64_t p = 0; p < s->width; p += VF_N) {
            float *to = s->dx + t * s->ld_p + p;
            vf_store(to, vf_fma(vf_set(d.to_end[t]), vf_load(to),
                                vf_mul(vf_set(skip), vf_load(s->dy + t * s->ld_p + p))));
        }
        *sum_d += (double)dot(s->x + t * s->ld_p, s->dy + t * s->ld_p, s->width);
    }
    small_gemm(steps, s->width, steps, s->m, 1, SSD_PADDED, s->dy, s->ld_p, 1.0f, s->dx, s->ld_p);
    for (int64_t t = 0; t < steps; t++)
        for (int64_t p = 0; p < s->width; p += VF_N)
            vf_store_part(itera_f32(&out[0]) + (row + t) * out[0].ld + head * s->width + p,
                          vf_load(s->dx + t * s->ld_p + p), s->width - p);
    small_gemm(steps, s->states, s->width, s->x, s->ld_p, 1, G, s->ld_n, 0.0f, s->part, s->ld_n);
    add_rows(s->db, s->part, s->ld_n, d.to_end, steps, s->states);

    /* C and dy through the start state */
    small_gemm(steps, s->states, s->width, s->dy, s->ld_p, 1, s->start, s->ld_n, 0.0f, s->part,
               s->ld_n);
    add_rows(s->dc, s->part, s->ld_n, d.from_start, steps, s->states);
    for (int64_t t = 0; t < steps; t++)
        rise[t] +=
            (double)(d.from_start[t] * dot(s->c + t * s->ld_n, s->part + t * s->ld_n, s->states));
    for (int64_t p = 0; p < s->width; p++)
        total += (double)d.total * (double)dot(G + p * s->ld_n, s->start + p * s->ld_n, s->states);

    zero(s->f_dy, SSD_PADDED * s->ld_p);
    add_rows(s->f_dy, s->dy, s->ld_p, d.from_start, steps, s->width);
    small_gemm(s->width, s->states, steps, s->f_dy, 1, s->ld_p, s->c, s->ld_n, d.total, G, s->ld_n);

    later = total; /* cum[last] also stands in the end state */
    for (int64_t t = steps - 1; t >= 0; t--) {
        later += rise[t];
        within += (double)row_sum[t] - (double)(d.dt[t] * free_sum[t]);
        itera_f32(&out[1])[(row + t) * out[1].ld + head] =
            (float)((double)direct[t] + rate * (later + within));
        *sum_a += (double)d.dt[t] * later;
    }
}

/* Heads [j0, j1) of sequence i; sums holds dA and dD of each item, g its G. */
static void sequence(const struct ssd_bwd *s, int64_t i, int64_t j0, int64_t j1, double *sums,
                     float *g)
{
    const struct itera_arg *boundaries = &s->call->in[7];
    int64_t per_group = s->heads / s->groups;

    for (int64_t j = j0; j < j1; j++) {
        sums[2 * j] = sums[2 * j + 1] = 0.0;
        zero(g + j * s->head_state, s->head_state);
    }
    for (int64_t k = s->chunks - 1; k >= 0; k--) {
        int64_t first = k * s->chunk, last = min_i64(first + s->chunk, s->time);
        for (int64_t t0 = first + (last - first - 1) / SSD_STEPS * SSD_STEPS; t0 >= first;
             t0 -= SSD_STEPS) {
            int64_t steps = min_i64(SSD_STEPS, last - t0), row = i * s->time + t0;
            for (int64_t j = j0; j < j1; j++) {
                int64_t from = ((i * s->chunks + k) * s->heads + j) * s->width;
                if (j == j0 || j % per_group == 0)
                    group_begin(s, j / per_group, row, steps);
                copy_rows(s->start, s->ld_n, itera_f32(boundaries) + from * boundaries->ld,
                          boundaries->ld, s->width, s->states);
                for (int64_t t = first; t < t0; t += SSD_STEPS)
                    advance(s, j, i * s->time + t, SSD_STEPS);
                head_chunk(s, j, row, steps, g + j * s->head_state, &sums[2 * j], &sums[2 * j + 1]);
                if (j + 1 == j1 || (j + 1) % per_group == 0)
                    group_end(s, j / per_group, row, steps);
            }
        }
    }
}

static void ssd_scan_bwd(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *out = call->out;
    float *base = (float *)call->scratch;
    struct ssd_bwd s, all;
    int64_t own = layout(&all, call, base), cols = call->in[4].cols, item, end;
    double *sums = (double *)(void *)(base + team->size * own);
    float *g = (float *)(void *)(sums + 2 * all.items);

    layout(&s, call, base + team->rank * own);
    zero(s.sum_b, call->in[4].rows * cols);
    zero(s.sum_c, call->in[4].rows * cols);
    itera_team_range(team, s.items, 1, &item, &end);
    while (item < end) {
        int64_t i = item / s.heads, j = item % s.heads;
        int64_t count = min_i64(end - item, s.heads - j);
        sequence(&s, i, j, j + count, sums + 2 * i * s.heads, g + i * s.heads * s.head_state);
        item += count;
    }
    itera_team_barrier(team);
    itera_team_range(team, call->in[4].rows, 1, &item, &end);
    for (; item < end; item++) {
        for (int64_t n = 0; n < cols; n += VF_N) {
            vf b = vf_zero(), c = vf_zero();
            for (int rank = 0; rank < team->size; rank++) {
                int64_t at = rank * own + item * cols + n;
                b = vf_add(b, vf_load_part(all.sum_b + at, cols - n));
                c = vf_add(c, vf_load_part(all.sum_c + at, cols - n));
            }
            vf_store_part(itera_f32(&out[3]) + item * out[3].ld + n, b, cols - n);
            vf_store_part(itera_f32(&out[4]) + item * out[4].ld + n, c, cols - n);
        }
    }
    if (team->rank != 0)
        return;
    for (int64_t j = 0; j < s.heads; j++) {
        double a = 0.0, d = 0.0;
        for (item = j; item < s.items; item += s.heads) {
            a += sums[2 * item];
            d += sums[2 * item + 1];
        }
        itera_f32(&out[2])[j] = (float)a;
        if (out[5].data)
            itera_f32(&out[5])[j] = (float)d;
    }
}

const struct itera_kernel ITERA_SIMD(ssd_scan_bwd) = {.run = ssd_scan_bwd,
                                                      .scratch = ssd_scan_bwd_scratch};
