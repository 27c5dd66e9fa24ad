/* Lowering of the causal convolution (contract: host/ops/conv.c). */
#include "args/conv.clh"
#include "backend/gpu/column_sum.h"

enum {
    LINE_SHIFT = 5,  /* channels side by side in a workgroup: floats worth reading together */
    MOST_STEPS = 64, /* of a lane in the gradient */
};

/* How a grid covers channels and, above each other, items. */
struct columns {
    int64_t channels, across, shift;
};

static struct columns cover(int64_t channels)
{
    struct columns w = {.channels = channels};
    while (w.shift < LINE_SHIFT && (int64_t)1 << w.shift < channels)
        w.shift++;
    w.across = itera_gpu_div_up(channels, (int64_t)1 << w.shift);
    return w;
}

/* Workgroups that lie above each other. */
static int64_t count_down(const struct columns *w, int64_t items)
{
    return itera_gpu_div_up(items, ITERA_GPU_LOCAL >> w->shift);
}

/* The words that all kernels begin with. */
#define SIZES(x, w)                                                                                \
    .batch = (x)->dim[0], .time = (x)->dim[1], .channels = (w).channels,                           \
    .across = (w).across ? (w).across : 1, .shift = (w).shift

enum itera_status itera_lower_causal_conv1d(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    const struct itera_shape *x = &itera_gpu_tensor(l, op->in[0])->shape;
    int64_t taps = itera_gpu_cols(l, op->in[1]), blocks = itera_gpu_div_up(x->dim[1], STEPS);
    struct columns w = cover(x->dim[2]);
    bool state = op->in[3] != ITERA_NONE && taps > 1;
    bool last = state && blocks == 1;
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "causal_conv1d");
    ITERA_GPU_CONSTANT(d, TAPS, taps);
    for (int i = 0; i < 3; i++)
        itera_gpu_in(l, d, op->in[i]);
    if (last)
        itera_gpu_inout(l, d, op->in[3]);
    else
        itera_gpu_in(l, d, op->in[3]);
    itera_gpu_out(l, d, op->out[0]);
    ITERA_GPU_ARGS(d, causal_conv1d_args, SIZES(x, w), .blocks = blocks ? blocks : 1,
                   .silu = op->attr.act == ITERA_ACT_SILU, .has_bias = op->in[2] != ITERA_NONE,
                   .has_state = state, .last = last);
    itera_gpu_groups(l, d, w.across * count_down(&w, x->dim[0] * blocks), 1, 1);
    if (!state || blocks < 2)
        return ITERA_OK;
    /* Blocks of steps run in any order, so the state is replaced when all have read it. */
    d = itera_gpu_begin(l, "causal_conv1d_state");
    ITERA_GPU_CONSTANT(d, TAPS, taps);
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_inout(l, d, op->in[3]);
    ITERA_GPU_ARGS(d, causal_conv1d_state_args, SIZES(x, w));
    itera_gpu_groups(l, d, w.across * count_down(&w, x->dim[0]), 1, 1);
    return ITERA_OK;
}

/* Lanes that keep the device busy. */
static int64_t fill_lanes(const struct itera_gpu_traits *traits)
{
    bool software = traits->vendor == ITERA_GPU_SOFTWARE;
    int64_t units = traits->compute_units ? traits->compute_units : software ? 2 : 128;
    return units * (software ? 256 : 2048);
}

/* Steps that a lane goes through: many, to sum much in registers, if enough lanes remain. */
static int64_t choose_run(const struct itera_gpu_lowering *l, const struct itera_shape *x)
{
    int64_t run = itera_shape_elements(x) / fill_lanes(l->traits) / STEPS * STEPS;
    if (run > MOST_STEPS)
        return MOST_STEPS;
    return run < STEPS ? STEPS : run;
}

enum itera_status itera_lower_causal_conv1d_bwd(struct itera_gpu_lowering *l,
                                                const struct itera_op *op)
{
    const struct itera_shape *x = &itera_gpu_tensor(l, op->in[1])->shape;
    int64_t taps = itera_gpu_cols(l, op->in[2]), channels = x->dim[2];
    int64_t run = choose_run(l, x), runs = itera_gpu_div_up(x->dim[1], run);
    struct columns w = cover(channels);
    int64_t down = count_down(&w, x->dim[0] * runs);
    bool bias = op->in[3] != ITERA_NONE, want_dbias = bias && op->out[2] != ITERA_NONE;
    struct itera_gpu_scratch weights = itera_gpu_scratch(l, down * taps * channels);
    struct itera_gpu_scratch biases = itera_gpu_scratch(l, want_dbias ? down * channels : 0);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "causal_conv1d_bwd");
    ITERA_GPU_CONSTANT(d, TAPS, taps);
    for (int i = 0; i < 4; i++)
        itera_gpu_in(l, d, op->in[i]);
    itera_gpu_out(l, d, op->out[0]);
    itera_gpu_use(d, weights, ITERA_GPU_WRITE);
    itera_gpu_use(d, biases, ITERA_GPU_WRITE);
    ITERA_GPU_ARGS(d, causal_conv1d_bwd_args, SIZES(x, w), .runs = runs ? runs : 1, .run = run,
                   .silu = op->attr.act == ITERA_ACT_SILU, .has_bias = bias,
                   .want_dbias = want_dbias);
    itera_gpu_groups(l, d, w.across * down, 1, 1);
    itera_gpu_sum_partial(l, weights, down, taps * channels, op->out[1], true);
    if (want_dbias)
        itera_gpu_sum_partial(l, biases, down, channels, op->out[2], false);
    return ITERA_OK;
}
