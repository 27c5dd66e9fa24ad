/* Parity cases of chains. */
#include "check/cases_chains.h"

#include <stdio.h>

#include "tensor/blocks.h"

/* How the weights of a case are stored, and whether its products may be ones of integers. */
static const struct {
    enum itera_dtype dtype;
    bool integer;
} kinds[] = {{ITERA_F32, 0}, {ITERA_F16, 0}, {ITERA_BF16, 0}, {ITERA_Q8, 0},
             {ITERA_Q4, 0},  {ITERA_Q8, 1},  {ITERA_Q4, 1}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static int32_t make(struct itera_case *c, enum itera_op_kind kind, const struct itera_attr *attr,
                    const int32_t *in)
{
    int32_t out[ITERA_MAX_OUT] = {ITERA_NEW, ITERA_NONE, ITERA_NONE};
    return itera_record(c->program, kind, attr, in, out);
}

static int32_t vector(struct itera_case *c, const char *name, int64_t n, double mean, double spread)
{
    return itera_case_input(c, name, 1, &n, ITERA_FILL_NORMAL, mean, spread);
}

/* x (batch, 1, cols); sometimes a view of something wider. */
static int32_t step(struct itera_case *c, const char *name, int64_t batch, int64_t cols,
                    bool extreme)
{
    const int64_t dim[3] = {batch, 1, cols}, padding = c->index % 3 == 2 ? 1 + c->index % 5 : 0;
    return itera_case_strided(c, name, 3, dim, padding,
                              extreme ? ITERA_FILL_EXTREME : ITERA_FILL_NORMAL, 0.3,
                              extreme ? 100.0 : 1.0);
}

static int32_t weights(struct itera_case *c, const char *name, int64_t rows, int64_t cols,
                       enum itera_dtype dtype)
{
    return itera_case_weights(c, name, 2, (int64_t[]){rows, cols}, 0, dtype, 0, 0.3);
}

static int32_t norm(struct itera_case *c, enum itera_op_kind kind, int32_t x, int64_t cols)
{
    const struct itera_attr attr = {.eps = 1e-5f};
    const int32_t in[3] = {x, vector(c, "norm", cols, 1, 0.3), vector(c, "shift", cols, 0, 0.3)};
    return make(c, kind, &attr, in);
}

static const char *extra(bool present, const char *text)
{
    return present ? text : "";
}

/* [norm or gate] product [convolution, with which the rest of the product's columns are joined] */
static bool product(struct itera_case *c)
{
    static const enum itera_op_kind makers[] = {ITERA_OP_rms_norm, ITERA_OP_layer_norm,
                                                ITERA_OP_silu_mul};
    static const struct {
        int16_t rows, cols, depth;
    } shapes[] = {{1, 96, 64}, {1, 130, 128}, {2, 64, 96}, {3, 34, 160}, {8, 18, 64}, {5, 66, 544}};
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    if (c->index >= KINDS * SHAPES)
        return false;
    struct itera_program *p = c->program;
    const int kind = c->index % KINDS, turn = c->index / KINDS, maker = (c->index + turn) % 3;
    const enum itera_dtype dtype = kinds[kind].dtype;
    const bool conv = c->index % 2, plain = conv && turn == 2, state = turn % 3 != 1;
    const bool bias = !conv && turn % 2, residual = !conv && turn % 3 == 0;
    const bool extreme = c->index % 5 == 4;
    const int64_t rows = shapes[turn].rows, cols = shapes[turn].cols;
    /* no blocks, no multiples of 32 */
    const int64_t depth = shapes[turn].depth + (itera_dtype_is_blocks(dtype) ? 0 : turn % 3);
    int32_t x = step(c, "x", rows, depth, extreme);
    if (!plain && makers[maker] == ITERA_OP_silu_mul)
        x = make(c, ITERA_OP_silu_mul, NULL, (int32_t[]){x, step(c, "z", rows, depth, false)});
    else if (!plain)
        x = norm(c, makers[maker], x, depth);
    struct itera_attr attr = {.trans_b = 1, .integer = kinds[kind].integer};
    attr.act = conv ? ITERA_ACT_NONE : (uint8_t)(c->index % 4);
    int32_t in[4] = {x, weights(c, "b", cols, depth, dtype), ITERA_NONE, ITERA_NONE};
    if (bias)
        in[2] = vector(c, "bias", cols, 0, 1);
    if (residual)
        in[3] = step(c, "residual", rows, cols, false);
    int32_t y = make(c, ITERA_OP_matmul, &attr, in);
    if (conv) {
        const int64_t taps = turn % 2 ? 4 : 1 + turn, channels = cols / 2;
        const int64_t past[3] = {rows, channels, taps - 1};
        struct itera_attr silu = {.act = turn % 2 ? ITERA_ACT_SILU : ITERA_ACT_NONE};
        int32_t h[4] = {itera_view_cols(p, y, turn % 2 ? 0 : channels, channels), ITERA_NONE,
                        ITERA_NONE, ITERA_NONE};
        h[1] = itera_case_input(c, "taps", 2, (int64_t[]){channels, taps}, ITERA_FILL_NORMAL, 0, 1);
        if (turn % 2)
            h[2] = vector(c, "conv_bias", channels, 0, 1);
        if (state && taps > 1)
            h[3] = itera_case_input(c, "state", 3, past, ITERA_FILL_NORMAL, 0, 1);
        int32_t z = itera_view_cols(p, y, turn % 2 ? channels : 0, channels);
        y = make(c, ITERA_OP_causal_conv1d, &silu, h);
        /* A product of two columns would be off by what rounding does to both. */
        make(c, attr.integer ? ITERA_OP_add : ITERA_OP_silu_mul, NULL, (int32_t[]){y, z});
    }
    snprintf(c->label, sizeof c->label, "%dx%dx%d %s%s%s%s%s%s", (int)rows, (int)cols, (int)depth,
             plain ? "rows" : itera_op_info(makers[maker])->name, extra(conv, " conv"),
             extra(conv && state, " state"), extra(bias, " bias"), extra(residual, " residual"),
             extra(extreme, " extreme"));
    return true;
}

/* [norms] product, selective_scan */
static bool selective_scan(struct itera_case *c)
{
    static const struct {
        int16_t batch, channels, states, rank;
    } shapes[] = {{1, 64, 16, 32}, {2, 33, 8, 32}, {1, 130, 5, 64}, {8, 9, 33, 32}, {3, 17, 1, 96}};
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    if (c->index >= KINDS * SHAPES)
        return false;
    struct itera_program *p = c->program;
    const int kind = c->index % KINDS, turn = c->index / KINDS;
    const enum itera_dtype dtype = kinds[kind].dtype;
    const int64_t batch = shapes[turn].batch, channels = shapes[turn].channels;
    const int64_t n = shapes[turn].states;
    const int64_t rank = shapes[turn].rank - (itera_dtype_is_blocks(dtype) ? 0 : turn);
    const bool skip = c->index % 2, gate = turn % 2, state = c->index % 3 != 1;
    const bool bias = c->index % 4 != 2;
    const int norms = c->index % 5; /* which of the three there are */
    int32_t all = step(c, "all", batch, rank + 2 * n, false);
    int32_t low = itera_view_cols(p, all, 0, rank), b = itera_view_cols(p, all, rank, n);
    int32_t cm = itera_view_cols(p, all, rank + n, n);
    if (norms & 1)
        low = norm(c, ITERA_OP_rms_norm, low, rank);
    if (norms & 2)
        b = norm(c, ITERA_OP_rms_norm, b, n);
    if (norms & 4)
        cm = norm(c, ITERA_OP_rms_norm, cm, n);
    const struct itera_attr attr = {
        .trans_b = 1, .act = ITERA_ACT_SOFTPLUS, .integer = kinds[kind].integer};
    int32_t product[4] = {low, weights(c, "w", channels, rank, dtype), ITERA_NONE, ITERA_NONE};
    if (bias)
        product[2] = vector(c, "bias", channels, -3, 1);
    int32_t in[8] = {
        step(c, "x", batch, channels, false),
        make(c, ITERA_OP_matmul, &attr, product),
        itera_case_input(c, "A", 2, (int64_t[]){channels, n}, ITERA_FILL_UNIFORM, -4, -0.01),
        b,
        cm,
        ITERA_NONE,
        ITERA_NONE,
        ITERA_NONE};
    if (skip)
        in[5] = vector(c, "D", channels, 1, 0.3);
    if (gate)
        in[6] = step(c, "z", batch, channels, false);
    if (state)
        in[7] = itera_case_input(c, "state", 3, (int64_t[]){batch, channels, n}, ITERA_FILL_NORMAL,
                                 0.3, 1);
    const struct itera_attr scan = {.chunk = 64};
    make(c, ITERA_OP_selective_scan, &scan, in);
    snprintf(c->label, sizeof c->label, "B=%d C=%d N=%d rank=%d norms=%d%s%s%s%s", (int)batch,
             (int)channels, (int)n, (int)rank, norms, extra(skip, " D"), extra(gate, " z"),
             extra(state, " state"), extra(bias, " bias"));
    return true;
}

/* softplus_mean [product] itera_scan, product, skip_gate */
static bool itera_scan(struct itera_case *c)
{
    static const struct {
        int16_t batch, channels, states;
    } shapes[] = {{1, 64, 32}, {2, 96, 32}, {8, 32, 64}, {3, 64, 96}};
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    if (c->index >= KINDS * SHAPES)
        return false;
    const int kind = c->index % KINDS, turn = c->index / KINDS;
    const enum itera_dtype dtype = kinds[kind].dtype;
    const bool blocks = itera_dtype_is_blocks(dtype);
    const int64_t batch = shapes[turn].batch,
                  channels = shapes[turn].channels + (blocks ? 0 : turn);
    const int64_t n = shapes[turn].states - (blocks ? 0 : 7 * turn);
    const bool gate = c->index % 3, state = turn != 1, own = c->index % 2 == 0;
    const struct itera_attr attr = {.trans_b = 1, .integer = kinds[kind].integer};
    int32_t delta = step(c, "delta", batch, channels, false),
            x = step(c, "x", batch, channels, false);
    int32_t u =
        own ? make(c, ITERA_OP_matmul, &attr,
                   (int32_t[]){x, weights(c, "b", n, channels, dtype), ITERA_NONE, ITERA_NONE})
            : step(c, "u", batch, n, false);
    int32_t in[4] = {make(c, ITERA_OP_softplus_mean, NULL, &delta),
                     itera_case_input(c, "A", 1, &n, ITERA_FILL_UNIFORM, -3, -0.01), u, ITERA_NONE};
    if (state)
        in[3] = itera_case_input(c, "state", 2, (int64_t[]){batch, n}, ITERA_FILL_NORMAL, 0.3, 1);
    int32_t h = make(c, ITERA_OP_itera_scan, NULL, in);
    int32_t y = make(c, ITERA_OP_matmul, &attr,
                     (int32_t[]){h, weights(c, "c", channels, n, dtype), ITERA_NONE, ITERA_NONE});
    int32_t z = gate ? step(c, "z", batch, channels, false) : ITERA_NONE;
    make(c, ITERA_OP_skip_gate, NULL, (int32_t[]){y, x, vector(c, "d", channels, 1, 0.3), z});
    snprintf(c->label, sizeof c->label, "B=%d C=%d N=%d%s%s%s", (int)batch, (int)channels, (int)n,
             extra(own, " u made"), extra(gate, " z"), extra(state, " state"));
    return true;
}

/* [norm] [router] choice, experts */
static bool experts(struct itera_case *c)
{
    static const struct {
        int16_t rows, experts, k, hidden, width;
    } shapes[] = {{1, 4, 2, 64, 32},
                  {2, 8, 2, 96, 64},
                  {8, 17, 2, 32, 32},
                  {1, 1, 1, 64, 96},
                  {3, 130, 4, 64, 32}};
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    if (c->index >= KINDS * SHAPES)
        return false;
    struct itera_program *p = c->program;
    const int kind = c->index % KINDS, turn = c->index / KINDS, first = (c->index + turn) % 3;
    const enum itera_dtype dtype = kinds[kind].dtype;
    const int64_t rows = shapes[turn].rows, n = shapes[turn].experts;
    const int64_t odd = itera_dtype_is_blocks(dtype) ? 0 : turn;
    const int64_t hidden = shapes[turn].hidden + odd, width = shapes[turn].width + odd;
    const bool gated = c->index % 2, residual = turn % 2 == 0, chosen = c->index % 4 == 3;
    int32_t x = step(c, "x", rows, hidden, false), added = residual ? x : ITERA_NONE;
    if (first == 1)
        x = norm(c, ITERA_OP_rms_norm, x, hidden);
    else if (first == 2)
        x = norm(c, ITERA_OP_layer_norm, x, hidden);
    struct itera_attr attr = {.experts = (int32_t)n, .top_k = shapes[turn].k, .trans_b = 1};
    attr.softmax_first = c->index % 3 != 1;
    attr.renormalize = c->index % 6 == 0;
    const int64_t choice[2] = {rows, n};
    int32_t logits = chosen ? itera_case_input(c, "logits", 2, choice, ITERA_FILL_NORMAL, 0, 1)
                            : make(c, ITERA_OP_matmul, &attr,
                                   (int32_t[]){x, weights(c, "router", n, hidden, ITERA_F32),
                                               ITERA_NONE, ITERA_NONE});
    int32_t routed[2] = {ITERA_NEW, ITERA_NEW}, sorted[3] = {ITERA_NEW, ITERA_NEW, ITERA_NEW};
    itera_record(p, ITERA_OP_moe_route, &attr, &logits, routed);
    itera_record(p, ITERA_OP_moe_sort, &attr, routed, sorted);
    int32_t h = make(c, ITERA_OP_moe_gather, &attr, (int32_t[]){x, sorted[1], sorted[2]});
    struct itera_attr grouped = {.experts = (int32_t)n,
                                 .trans_b = 1,
                                 .act = gated ? ITERA_ACT_NONE : ITERA_ACT_GELU,
                                 .integer = kinds[kind].integer};
    int32_t up = itera_case_weights(c, "up", 3, (int64_t[]){n, gated ? 2 * width : width, hidden},
                                    0, dtype, 0, 0.3);
    int32_t down =
        itera_case_weights(c, "down", 3, (int64_t[]){n, hidden, width}, 0, dtype, 0, 0.3);
    h = make(c, ITERA_OP_grouped_matmul, &grouped, (int32_t[]){h, up, sorted[0]});
    if (gated)
        h = make(c, ITERA_OP_silu_mul, NULL,
                 (int32_t[]){itera_view_cols(p, h, width, width), itera_view_cols(p, h, 0, width)});
    grouped.act = ITERA_ACT_NONE;
    h = make(c, ITERA_OP_grouped_matmul, &grouped, (int32_t[]){h, down, sorted[0]});
    const int64_t like[3] = {rows, 1, hidden};
    int32_t out[1] = {itera_activation(p, ITERA_F32, 3, like)};
    itera_record(p, ITERA_OP_moe_combine, &attr, (int32_t[]){h, sorted[2], routed[1], added}, out);
    snprintf(c->label, sizeof c->label, "rows=%d E=%d k=%d %dx%d%s%s%s%s", (int)rows, (int)n,
             (int)attr.top_k, (int)hidden, (int)width,
             first == 0   ? ""
             : first == 1 ? " rms_norm"
                          : " layer_norm",
             extra(gated, " gated"), extra(residual, " residual"), extra(chosen, " logits given"));
    return true;
}

/* sample, advance */
static bool sample(struct itera_case *c)
{
    static const struct {
        int16_t batch, vocabulary;
    } shapes[] = {{1, 50}, {3, 257}, {8, 2100}, {1, 4097}};
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    if (c->index >= 2 * SHAPES)
        return false;
    const int64_t batch = shapes[c->index / 2].batch, four[2] = {batch, 4};
    const int64_t dim[2] = {batch, shapes[c->index / 2].vocabulary};
    const bool greedy = c->index % 2;
    int32_t in[3] = {itera_case_input(c, "logits", 2, dim, ITERA_FILL_NORMAL, 0, 2),
                     itera_case_input(c, "params", 2, four, ITERA_FILL_UNIFORM, greedy ? 0 : 0.5,
                                      greedy ? 0 : 0.9),
                     itera_case_input(c, "rng", 2, four, ITERA_FILL_BITS, 0, 0)};
    int32_t token = itera_case_input(c, "token", 1, &batch, ITERA_FILL_INDEX, 0, 9);
    int32_t start = itera_case_input(c, "start", 1, &batch, ITERA_FILL_INDEX, 0, 1000);
    struct itera_attr attr = {.count = c->index % 3 == 2 ? -1 : 1};
    itera_record(c->program, ITERA_OP_sample, NULL, in, &token);
    itera_record(c->program, ITERA_OP_advance, &attr, &start, NULL);
    snprintf(c->label, sizeof c->label, "B=%d vocabulary=%d%s", (int)batch, (int)dim[1],
             extra(greedy, " greedy"));
    return true;
}

const struct itera_chain_cases itera_chain_cases[] = {
    {"chain_product", product},       {"chain_selective_scan", selective_scan},
    {"chain_itera_scan", itera_scan}, {"chain_experts", experts},
    {"chain_sample", sample},
};
const int itera_n_chain_cases = sizeof itera_chain_cases / sizeof *itera_chain_cases;
