/* causal_conv1d and its gradient; the contract is in host/ops/conv.c.
 *
 * Channels along the vector. The last K inputs of a block of channels wait in registers, so that
 * each input is loaded once. Time goes in tiles over all channels: rows lie far apart in memory,
 * and a tile of them is used in full while it is near. K = 4, what models use, has constant loops.
 */
#include "cpu_fallback/simd/scan.h"

#define MAX_TAPS 16
#define TILE     64 /* steps */

struct conv {
    const float *x, *weight, *bias;
    float *state, *y;
    int64_t ld_x, ld_w, ld_state, ld_y, time, channels, taps;
    bool silu;
};

/* w[k] = weight[lane][k], channels from c. */
ITERA_INLINE void conv_weights(const float *weight, int64_t ld, int taps, int64_t lanes, vf *w)
{
    float t[MAX_TAPS][VF_N];

    if (lanes < VF_N)
        for (int k = 0; k < taps; k++)
            vf_store(t[k], vf_zero());
    for (int64_t lane = 0; lane < min_i64(lanes, VF_N); lane++)
        for (int k = 0; k < taps; k++)
            t[k][lane] = weight[lane * ld + k];
    for (int k = 0; k < taps; k++)
        w[k] = vf_load(t[k]);
}

/* Input t of sequence i, also from the state when t < 0; channels c on. */
ITERA_INLINE vf conv_input(const struct conv *s, int64_t i, int64_t t, int64_t c, int64_t lanes)
{
    float kept[VF_N];

    if (t >= 0)
        return vf_load_part(s->x + (i * s->time + t) * s->ld_x + c, lanes);
    if (!s->state)
        return vf_zero();
    vf_store(kept, vf_zero());
    for (int64_t lane = 0; lane < min_i64(lanes, VF_N); lane++)
        kept[lane] = s->state[(i * s->channels + c + lane) * s->ld_state + s->taps - 1 + t];
    return vf_load(kept);
}

ITERA_INLINE void conv_tile(const struct conv *s, int taps, int64_t i, int64_t t0, int64_t t1,
                            int64_t c)
{
    int64_t lanes = s->channels - c;
    vf w[MAX_TAPS], x[MAX_TAPS], bias = s->bias ? vf_load_part(s->bias + c, lanes) : vf_zero();

    conv_weights(s->weight + c * s->ld_w, s->ld_w, taps, lanes, w);
    for (int k = 0; k + 1 < taps; k++)
        x[k + 1] = conv_input(s, i, t0 - taps + 1 + k, c, lanes);
    for (int64_t t = t0; t < t1; t++) {
        vf sum = bias;
#pragma GCC unroll 16
        for (int k = 0; k + 1 < taps; k++)
            x[k] = x[k + 1];
        x[taps - 1] = vf_load_part(s->x + (i * s->time + t) * s->ld_x + c, lanes);
#pragma GCC unroll 16
        for (int k = 0; k < taps; k++)
            sum = vf_fma(w[k], x[k], sum);
        if (s->silu)
            sum = vf_silu(sum);
        vf_store_part(s->y + (i * s->time + t) * s->ld_y + c, sum, lanes);
    }
}

/* Leaves the last K - 1 inputs of channels [c0, c1) in the state. */
static void conv_keep(const struct conv *s, int64_t i, int64_t c0, int64_t c1)
{
    int64_t kept = s->taps - 1, fresh = min_i64(kept, s->time);

    for (int64_t c = c0; c < c1; c++) {
        float *state = s->state + (i * s->channels + c) * s->ld_state;
        for (int64_t k = 0; k + fresh < kept; k++)
            state[k] = state[k + fresh];
        for (int64_t k = 0; k < fresh; k++)
            state[kept - fresh + k] = s->x[(i * s->time + s->time - fresh + k) * s->ld_x + c];
    }
}

/* One step with K = 4, channel after channel: the state of a channel lies together, and is read,
 * shifted and written in one go. Leaves the sums in y, without activation. */
static void conv_step4(const struct conv *s, int64_t i, int64_t c0, int64_t c1)
{
    const float *x = s->x + i * s->ld_x;
    float *y = s->y + i * s->ld_y;

    for (int64_t c = c0; c < c1; c++) {
        const float *w = s->weight + c * s->ld_w;
        float *state = s->state + (i * s->channels + c) * s->ld_state;
        float sum = w[0] * state[0] + w[1] * state[1] + w[2] * state[2] + w[3] * x[c];
        state[0] = state[1];
        state[1] = state[2];
        state[2] = x[c];
        y[c] = s->bias ? sum + s->bias[c] : sum;
    }
    for (int64_t c = c0; s->silu && c < c1; c += VF_N)
        vf_store_part(y + c, vf_silu(vf_load_part(y + c, c1 - c)), c1 - c);
}

static void causal_conv1d(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *in = call->in, *out = call->out;
    struct conv s = {
        .x = itera_f32(&in[0]),
        .weight = itera_f32(&in[1]),
        .bias = itera_f32(&in[2]),
        .state = itera_f32(&in[3]),
        .y = itera_f32(&out[0]),
        .ld_x = in[0].ld,
        .ld_w = in[1].ld,
        .ld_state = in[3].ld,
        .ld_y = out[0].ld,
        .time = in[0].dim[1],
        .channels = in[0].dim[2],
        .taps = in[1].cols,
        .silu = call->attr->act == ITERA_ACT_SILU,
    };
    int64_t vectors = ceil_div(s.channels, VF_N), item, end;

    itera_team_range(team, in[0].dim[0] * vectors, 1, &item, &end);
    while (item < end) {
        int64_t i = item / vectors, v = item % vectors, count = min_i64(end - item, vectors - v);
        int64_t c0 = v * VF_N, c1 = min_i64(c0 + count * VF_N, s.channels);
        item += count;
        if (s.time == 1 && s.taps == 4 && s.state) {
            conv_step4(&s, i, c0, c1);
            continue;
        }
        for (int64_t t = 0; t < s.time; t += TILE) {
            int64_t t1 = min_i64(t + TILE, s.time);
            for (int64_t c = c0; c < c1; c += VF_N) {
                if (s.taps == 4)
                    conv_tile(&s, 4, i, t, t1, c);
                else
                    conv_tile(&s, (int)s.taps, i, t, t1, c);
            }
        }
        if (s.state)
            conv_keep(&s, i, c0, c1);
    }
}

const struct itera_kernel ITERA_SIMD(causal_conv1d) = {.run = causal_conv1d};

/* What a vector of channels keeps while others are walked. */
struct conv_channels {
    vf w[MAX_TAPS], bias;
    vf dw[MAX_TAPS], dbias;      /* of all sequences */
    vf x[MAX_TAPS], g[MAX_TAPS]; /* the last K inputs and gradients of this sequence */
};

/* Vectors of channels that are walked side by side, and for how many steps each before the next:
 * rows lie far apart in memory, and few of them at a time are read along. */
enum { SIDE_BY_SIDE = 16, STRIP = 8 };

/* Steps [t0, t1) of sequence i. dx of a step is complete K - 1 steps later; the K - 1 steps past
 * the end see no further gradients. */
ITERA_INLINE void conv_bwd_strip(const struct itera_call *call, bool silu, int taps, int64_t i,
                                 int64_t t0, int64_t t1, int64_t c, struct conv_channels *kept)
{
    const struct itera_arg *in = call->in, *out = call->out;
    const int64_t time = in[1].dim[1], lanes = in[1].dim[2] - c;
    const vf one = vf_set(1.0f), bias = kept->bias;
    vf w[MAX_TAPS], x[MAX_TAPS], g[MAX_TAPS], dw[MAX_TAPS], dbias = kept->dbias;

    for (int k = 0; k < MAX_TAPS; k++) /* gcc cannot tell that those past taps stay unused */
        dw[k] = vf_zero();
#pragma GCC unroll 16
    for (int k = 0; k < taps; k++) {
        w[k] = kept->w[k];
        x[k] = kept->x[k];
        g[k] = kept->g[k];
        dw[k] = kept->dw[k];
    }
    for (int64_t t = t0; t < t1; t++) {
        int64_t row = i * time + t;
#pragma GCC unroll 16
        for (int k = 0; k + 1 < taps; k++) {
            x[k] = x[k + 1];
            g[k] = g[k + 1];
        }
        g[taps - 1] = vf_zero();
        if (t < time) {
            vf gradient = vf_load_part(itera_f32(&in[0]) + row * in[0].ld + c, lanes);
            x[taps - 1] = vf_load_part(itera_f32(&in[1]) + row * in[1].ld + c, lanes);
            if (silu) {
                vf sum = bias, sigmoid;
#pragma GCC unroll 16
                for (int k = 0; k < taps; k++)
                    sum = vf_fma(w[k], x[k], sum);
                sigmoid = vf_sigmoid(sum);
                gradient =
                    vf_mul(gradient, vf_mul(sigmoid, vf_fma(sum, vf_sub(one, sigmoid), one)));
            }
            g[taps - 1] = gradient;
            dbias = vf_add(dbias, gradient);
#pragma GCC unroll 16
            for (int k = 0; k < taps; k++)
                dw[k] = vf_fma(gradient, x[k], dw[k]);
        }
        if (t >= taps - 1) {
            vf dx = vf_zero();
#pragma GCC unroll 16
            for (int k = 0; k < taps; k++)
                dx = vf_fma(w[taps - 1 - k], g[k], dx);
            vf_store_part(itera_f32(&out[0]) + (row - taps + 1) * out[0].ld + c, dx, lanes);
        }
    }
#pragma GCC unroll 16
    for (int k = 0; k < taps; k++) {
        kept->x[k] = x[k];
        kept->g[k] = g[k];
        kept->dw[k] = dw[k];
    }
    kept->dbias = dbias;
}

/* All sequences of the vectors of channels [v0, v1), at most SIDE_BY_SIDE of them: the gradients of
 * the parameters are summed in one order, whatever the threads. */
ITERA_INLINE void conv_bwd_block(const struct itera_call *call, bool silu, int taps, int64_t v0,
                                 int64_t v1)
{
    const struct itera_arg *in = call->in, *out = call->out;
    const int64_t batch = in[1].dim[0], time = in[1].dim[1], channels = in[1].dim[2];
    struct conv_channels kept[SIDE_BY_SIDE];
    float sums[VF_N];

    for (int64_t v = v0; v < v1; v++) {
        struct conv_channels *own = &kept[v - v0];
        const int64_t c = v * VF_N, lanes = channels - c;
        conv_weights(itera_f32(&in[2]) + c * in[2].ld, in[2].ld, taps, lanes, own->w);
        own->bias = in[3].data ? vf_load_part(itera_f32(&in[3]) + c, lanes) : vf_zero();
        own->dbias = vf_zero();
        for (int k = 0; k < taps; k++)
            own->dw[k] = vf_zero();
    }
    for (int64_t i = 0; i < batch; i++) {
        const int64_t end = time + taps - 1;
        for (int64_t v = v0; v < v1; v++)
            for (int k = 0; k < taps; k++)
                kept[v - v0].x[k] = kept[v - v0].g[k] = vf_zero();
        for (int64_t t = 0; t < end; t += STRIP)
            for (int64_t v = v0; v < v1; v++)
                conv_bwd_strip(call, silu, taps, i, t, min_i64(t + STRIP, end), v * VF_N,
                               &kept[v - v0]);
    }
    for (int64_t v = v0; v < v1; v++) {
        const struct conv_channels *own = &kept[v - v0];
        const int64_t c = v * VF_N, lanes = channels - c;
        for (int k = 0; k < taps; k++) {
            vf_store(sums, own->dw[k]);
            for (int64_t lane = 0; lane < min_i64(lanes, VF_N); lane++)
                itera_f32(&out[1])[(c + lane) * out[1].ld + k] = sums[lane];
        }
        if (out[2].data)
            vf_store_part(itera_f32(&out[2]) + c, own->dbias, lanes);
    }
}

static void causal_conv1d_bwd(const struct itera_call *call, struct itera_team *team)
{
    int64_t vectors = ceil_div(call->in[1].dim[2], VF_N), item, end, taps = call->in[2].cols;
    bool silu = call->attr->act == ITERA_ACT_SILU;

    itera_team_range(team, vectors, 1, &item, &end);
    for (int64_t next; item < end; item = next) {
        next = min_i64(item + SIDE_BY_SIDE, end);
        if (taps == 4 && silu)
            conv_bwd_block(call, true, 4, item, next);
        else if (taps == 4)
            conv_bwd_block(call, false, 4, item, next);
        else
            conv_bwd_block(call, silu, (int)taps, item, next);
    }
}

const struct itera_kernel ITERA_SIMD(causal_conv1d_bwd) = {.run = causal_conv1d_bwd};
