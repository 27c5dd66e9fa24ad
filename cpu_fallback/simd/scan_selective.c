/* selective_scan; the contract is in host/ops/scan.c, the gradient in scan_selective_bwd.c.
 *
 * A block of VF_N channels takes a few steps at a time through all states: the state of one n is
 * loaded and stored once for them, and the exponentials, which are nearly all of the work,
 * are independent of each other. A few steps with a carried state (decoding) are done with the
 * states along the vector instead, in memory order, where nothing has to be transposed. */
#include "cpu_fallback/simd/scan_selective.h"

/* Steps that go through the states together: as many as the registers carry. */
#if defined(__AVX2__) && !defined(__AVX512F__)
#define GROUP 2
#else
#define GROUP 4
#endif
#define TILE 8  /* steps, of all channels: rows lie far apart, and few are read along */
#define LINE 16 /* floats of a cache line */
/* Floats between the states of a vector of channels and their A: never a multiple of 4096 bytes,
 * where the processor takes a load for one of a pending store. */
#define SLOT(states) ((states)*VF_N + 2 * LINE)
#define DECODE_STEPS 4 /* up to here transposing the state costs more than it gains */

struct selective {
    const float *x, *dt, *A, *B, *C, *D, *z;
    float *state, *y, *boundaries;
    int64_t ld_x, ld_dt, ld_a, ld_b, ld_c, ld_z, ld_state, ld_y, ld_boundaries;
    int64_t batch, time, channels, states, chunk, chunks, vectors;
};

static struct selective selective_make(const struct itera_call *call)
{
    const struct itera_arg *in = call->in, *out = call->out;

    return (struct selective){
        .x = itera_f32(&in[0]),
        .dt = itera_f32(&in[1]),
        .A = itera_f32(&in[2]),
        .B = itera_f32(&in[3]),
        .C = itera_f32(&in[4]),
        .D = itera_f32(&in[5]),
        .z = itera_f32(&in[6]),
        .state = itera_f32(&in[7]),
        .y = itera_f32(&out[0]),
        .boundaries = itera_f32(&out[1]),
        .ld_x = in[0].ld,
        .ld_dt = in[1].ld,
        .ld_a = in[2].ld,
        .ld_b = in[3].ld,
        .ld_c = in[4].ld,
        .ld_z = in[6].ld,
        .ld_state = in[7].ld,
        .ld_y = out[0].ld,
        .ld_boundaries = out[1].ld,
        .batch = in[0].dim[0],
        .time = in[0].dim[1],
        .channels = in[0].dim[2],
        .states = in[2].cols,
        .chunk = itera_scan_chunk(call->attr),
        .chunks = itera_scan_chunks(call->attr, in[0].dim[1]),
        .vectors = ceil_div(in[0].dim[2], VF_N),
    };
}

/* `count` (1 to 4) steps of channels c to c + VF_N from matrix row `row`. rate is A log2(e) and h
 * the state, [n][lane]. Without `output` only h is advanced. With `tree` the steps' pairs
 * (decay, input) are first combined in twos: h then goes through half as many dependent steps. */
ITERA_INLINE void selective_steps(const struct selective *s, int count, bool output, bool tree,
                                  int64_t row, int64_t c, const float *rate, float *h)
{
    int64_t lanes = s->channels - c;
    const float *b_row = s->B + row * s->ld_b, *c_row = s->C + row * s->ld_c;
    vf dt[4], in[4], y[4];

#pragma GCC unroll 4
    for (int i = 0; i < count; i++) {
        vf x = vf_load_part(s->x + (row + i) * s->ld_x + c, lanes);
        dt[i] = vf_load_part(s->dt + (row + i) * s->ld_dt + c, lanes);
        in[i] = vf_mul(dt[i], x);
        y[i] = output && s->D ? vf_mul(x, vf_load_part(s->D + c, lanes)) : vf_zero();
    }
    for (int64_t n = 0; n < s->states; n++) {
        vf a = vf_load(rate + n * VF_N), state = vf_load(h + n * VF_N);
        vf e[4], b[4], after[4];
#pragma GCC unroll 4
        for (int i = 0; i < count; i++) {
            e[i] = vf_exp2_decay(vf_mul(dt[i], a));
            b[i] = vf_mul(in[i], vf_set(b_row[i * s->ld_b + n]));
        }
        if (tree && count > 1) {
#pragma GCC unroll 4
            for (int i = 0; i + 1 < count; i += 2) {
                vf before = i ? after[i - 1] : state;
                after[i] = vf_fma(e[i], before, b[i]);
                after[i + 1] =
                    vf_fma(vf_mul(e[i + 1], e[i]), before, vf_fma(e[i + 1], b[i], b[i + 1]));
            }
        } else {
#pragma GCC unroll 4
            for (int i = 0; i < count; i++)
                after[i] = vf_fma(e[i], i ? after[i - 1] : state, b[i]);
        }
        vf_store(h + n * VF_N, after[count - 1]);
        if (output) {
#pragma GCC unroll 4
            for (int i = 0; i < count; i++)
                y[i] = vf_fma(vf_set(c_row[i * s->ld_c + n]), after[i], y[i]);
        }
    }
    if (!output)
        return;
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) {
        if (s->z)
            y[i] = vf_mul(y[i], vf_silu(vf_load_part(s->z + (row + i) * s->ld_z + c, lanes)));
        vf_store_part(s->y + (row + i) * s->ld_y + c, y[i], lanes);
    }
}

/* Steps [t0, t1) of sequence i; stores the boundaries on the way. */
ITERA_INLINE void selective_span(const struct selective *s, bool output, bool tree, int64_t i,
                                 int64_t t0, int64_t t1, int64_t c, const float *rate, float *h)
{
    while (t0 < t1) {
        int64_t end = min_i64(t1, (t0 / s->chunk + 1) * s->chunk), t = t0;
        if (output && s->boundaries && t0 % s->chunk == 0) {
            int64_t row = (i * s->chunks + t0 / s->chunk) * s->channels + c;
            lanes_to_states(s->boundaries + row * s->ld_boundaries, s->ld_boundaries, h, s->states,
                            min_i64(VF_N, s->channels - c));
        }
        for (; t + GROUP <= end; t += GROUP) {
            /* The next channels of these rows: the hardware does not follow so many rows. */
            for (int64_t j = 0; j < GROUP && c + LINE < s->channels; j++) {
                int64_t row = i * s->time + t + j;
                __builtin_prefetch(s->x + row * s->ld_x + c + LINE);
                __builtin_prefetch(s->dt + row * s->ld_dt + c + LINE);
                if (output && s->z)
                    __builtin_prefetch(s->z + row * s->ld_z + c + LINE);
                if (output)
                    __builtin_prefetch(s->y + row * s->ld_y + c + LINE, 1);
            }
            selective_steps(s, GROUP, output, tree, i * s->time + t, c, rate, h);
        }
        for (; t < end; t++)
            selective_steps(s, 1, output, false, i * s->time + t, c, rate, h);
        t0 = end;
    }
}

static void selective_load_rate(const struct selective *s, int64_t c, float *rate)
{
    states_to_lanes(rate, s->A + c * s->ld_a, s->ld_a, s->states, min_i64(VF_N, s->channels - c),
                    LOG2_E);
}

static void selective_load_state(const struct selective *s, int64_t i, int64_t c, float *h)
{
    if (s->state)
        states_to_lanes(h, s->state + (i * s->channels + c) * s->ld_state, s->ld_state, s->states,
                        min_i64(VF_N, s->channels - c), 1.0f);
    else
        for (int64_t n = 0; n < s->states; n++)
            vf_store(h + n * VF_N, vf_zero());
}

static void selective_store_state(const struct selective *s, int64_t i, int64_t c, const float *h)
{
    if (s->state)
        lanes_to_states(s->state + (i * s->channels + c) * s->ld_state, s->ld_state, h, s->states,
                        min_i64(VF_N, s->channels - c));
}

/* Rows lie far apart in memory: a tile of them is used by all channels while it is near. The
 * states and A of the channels wait in scratch between tiles, of each thread all vectors. */
static void selective_sequential(const struct selective *s, float *scratch, struct itera_team *team)
{
    int64_t size = SLOT(s->states), item, end;
    float *slots = scratch + team->rank * s->vectors * 2 * size;

    itera_team_range(team, s->batch * s->vectors, 1, &item, &end);
    while (item < end) {
        int64_t i = item / s->vectors, first = item % s->vectors;
        int64_t last = min_i64(first + end - item, s->vectors);
        item += last - first;
        for (int64_t t = 0; t < s->time; t += TILE) {
            int64_t t1 = min_i64(t + TILE, s->time);
            for (int64_t v = first; v < last; v++) {
                /* In one tile there is nothing to wait for: the same place stays in the cache. */
                float *h = slots + (s->time <= TILE ? 0 : v) * 2 * size, *rate = h + size;
                if (t == 0) {
                    selective_load_rate(s, v * VF_N, rate);
                    selective_load_state(s, i, v * VF_N, h);
                }
                selective_span(s, true, false, i, t, t1, v * VF_N, rate, h);
                if (t1 == s->time)
                    selective_store_state(s, i, v * VF_N, h);
            }
        }
    }
}

/* Blocks of `length` steps: each but the last from zeros for its end state and the sum of its dt
 * (the decay over a block is exp(A sum)), a scan over the blocks, then each block again from its
 * true start. `tree` is parallel, without it chunked.
 * scratch: [sequence][block][channel vector] of states [n][lane], then of sums of dt. */
ITERA_INLINE void selective_blocked(const struct selective *s, bool tree, int64_t length,
                                    float *scratch, struct itera_team *team)
{
    _Alignas(64) float rate[ITERA_SCAN_MAX_STATES * VF_N];
    int64_t blocks = ceil_div(s->time, length), size = s->states * VF_N;
    int64_t slots = s->batch * blocks * s->vectors, item, end;
    float *sums = scratch + slots * size;

    itera_team_range(team, slots, 1, &item, &end);
    for (; item < end; item++) {
        int64_t c = item % s->vectors * VF_N, k = item / s->vectors % blocks;
        int64_t i = item / s->vectors / blocks, t0 = k * length, t1 = t0 + length;
        float *h = scratch + item * size;
        vf sum = vf_zero();
        if (t1 >= s->time)
            continue;
        selective_load_rate(s, c, rate);
        for (int64_t n = 0; n < s->states; n++)
            vf_store(h + n * VF_N, vf_zero());
        selective_span(s, false, tree, i, t0, t1, c, rate, h);
        for (int64_t t = t0; t < t1; t++)
            sum = vf_add(sum,
                         vf_load_part(s->dt + (i * s->time + t) * s->ld_dt + c, s->channels - c));
        vf_store(sums + item * VF_N, sum);
    }
    itera_team_barrier(team);
    itera_team_range(team, s->batch * s->vectors, 1, &item, &end);
    for (; item < end; item++) {
        int64_t i = item / s->vectors, v = item % s->vectors;
        _Alignas(64) float h[ITERA_SCAN_MAX_STATES * VF_N];
        selective_load_rate(s, v * VF_N, rate);
        selective_load_state(s, i, v * VF_N, h);
        for (int64_t k = 0; k < blocks; k++) {
            int64_t at = (i * blocks + k) * s->vectors + v;
            float *slot = scratch + at * size;
            vf sum = k + 1 < blocks ? vf_load(sums + at * VF_N) : vf_zero();
            for (int64_t n = 0; n < size; n += VF_N) {
                vf start = vf_load(h + n);
                if (k + 1 < blocks) {
                    vf decay = vf_exp2_decay(vf_mul(vf_load(rate + n), sum));
                    vf_store(h + n, vf_fma(decay, start, vf_load(slot + n)));
                }
                vf_store(slot + n, start);
            }
        }
    }
    itera_team_barrier(team);
    itera_team_range(team, slots, 1, &item, &end);
    for (; item < end; item++) {
        int64_t c = item % s->vectors * VF_N, k = item / s->vectors % blocks;
        int64_t i = item / s->vectors / blocks, t0 = k * length;
        int64_t t1 = min_i64(t0 + length, s->time);
        float *h = scratch + item * size;
        selective_load_rate(s, c, rate);
        selective_span(s, true, tree, i, t0, t1, c, rate, h);
        if (t1 == s->time)
            selective_store_state(s, i, c, h);
    }
}

/* One step of `count` (4 or 1) channels from c, states along the vector. y holds D x. */
ITERA_INLINE void selective_decode(const struct selective *s, int count, int64_t i, int64_t row,
                                   int64_t c)
{
    const float *b_row = s->B + row * s->ld_b, *c_row = s->C + row * s->ld_c;
    const float *a_row = s->A + c * s->ld_a;
    float *h_row = s->state + (i * s->channels + c) * s->ld_state;
    float *y = s->y + row * s->ld_y + c;
    vf dt[4], in[4], sum[4];

#pragma GCC unroll 4
    for (int j = 0; j < count; j++) {
        float step = s->dt[row * s->ld_dt + c + j];
        dt[j] = vf_set(step * LOG2_E);
        in[j] = vf_set(step * s->x[row * s->ld_x + c + j]);
        sum[j] = vf_zero();
    }
    for (int64_t n = 0; n < s->states; n += VF_N) {
        int64_t lanes = s->states - n;
        vf b = vf_load_part(b_row + n, lanes), out = vf_load_part(c_row + n, lanes);
#pragma GCC unroll 4
        for (int j = 0; j < count; j++) {
            float *h = h_row + j * s->ld_state + n;
            vf e = vf_exp2_decay(vf_mul(dt[j], vf_load_part(a_row + j * s->ld_a + n, lanes)));
            vf v = vf_fma(e, vf_load_part(h, lanes), vf_mul(in[j], b));
            vf_store_part(h, v, lanes);
            sum[j] = vf_fma(out, v, sum[j]);
        }
    }
    if (count == 4)
        vf_add_sums4(y, sum[0], sum[1], sum[2], sum[3]);
    else
        y[0] += vf_sum(sum[0]);
}

static void selective_decode_all(const struct selective *s, struct itera_team *team)
{
    int64_t begin, end;

    itera_team_range(team, s->channels, 16, &begin, &end);
    for (int64_t i = 0; i < s->batch; i++) {
        for (int64_t row = i * s->time; row < (i + 1) * s->time; row++) {
            float *y = s->y + row * s->ld_y;
            int64_t c = begin;
            for (int64_t j = begin; j < end; j += VF_N) {
                vf skip = s->D ? vf_mul(vf_load_part(s->D + j, end - j),
                                        vf_load_part(s->x + row * s->ld_x + j, end - j))
                               : vf_zero();
                vf_store_part(y + j, skip, end - j);
            }
            for (; c + 4 <= end; c += 4)
                selective_decode(s, 4, i, row, c);
            for (; c < end; c++)
                selective_decode(s, 1, i, row, c);
            for (int64_t j = begin; s->z && j < end; j += VF_N) {
                vf gate = vf_silu(vf_load_part(s->z + row * s->ld_z + j, end - j));
                vf_store_part(y + j, vf_mul(vf_load_part(y + j, end - j), gate), end - j);
            }
        }
    }
}

/* auto: sequential, unless there are too few channels and sequences for the threads and enough
 * time that computing the states twice pays. Monotone in threads. */
static enum itera_scan_variant selective_variant(const struct itera_call *call, int threads)
{
    const int64_t *dim = call->in[0].dim;

    if (call->attr->variant != ITERA_SCAN_AUTO)
        return (enum itera_scan_variant)call->attr->variant;
    if (threads < 3 || dim[0] * ceil_div(dim[2], VF_N) * 2 > threads ||
        dim[1] < 2 * itera_scan_chunk(call->attr))
        return ITERA_SCAN_SEQUENTIAL;
    return ITERA_SCAN_CHUNKED;
}

static size_t selective_scan_scratch(const struct itera_call *call, int threads)
{
    enum itera_scan_variant variant = selective_variant(call, threads);
    const int64_t *dim = call->in[0].dim;
    int64_t blocks =
        variant == ITERA_SCAN_PARALLEL ? threads : itera_scan_chunks(call->attr, dim[1]);

    if (variant == ITERA_SCAN_SEQUENTIAL)
        return 2 * sizeof(float) * (size_t)(threads * ceil_div(dim[2], VF_N)) *
               (size_t)SLOT(call->in[2].cols);
    return sizeof(float) *
           (size_t)(dim[0] * blocks * ceil_div(dim[2], VF_N) * (call->in[2].cols + 1) * VF_N);
}

static void selective_scan(const struct itera_call *call, struct itera_team *team)
{
    struct selective s = selective_make(call);
    enum itera_scan_variant variant = selective_variant(call, team->size);

    if (s.time == 0)
        return;
    if (variant == ITERA_SCAN_PARALLEL)
        selective_blocked(&s, true, ceil_div(s.time, team->size), call->scratch, team);
    else if (variant == ITERA_SCAN_CHUNKED)
        selective_blocked(&s, false, s.chunk, call->scratch, team);
    else if (s.state && !s.boundaries && s.time <= DECODE_STEPS && 2 * s.states >= VF_N)
        selective_decode_all(&s, team);
    else
        selective_sequential(&s, call->scratch, team);
}

const struct itera_kernel ITERA_SIMD(selective_scan) = {.run = selective_scan,
                                                        .scratch = selective_scan_scratch};
