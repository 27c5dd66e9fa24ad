/* What the families share. */
#include <math.h>

#include "core/log.h"
#include "model/graph.h"
#include "tensor/blocks.h"

bool itera_takes_half(const struct itera_layout *layout, enum itera_dtype dtype)
{
    const bool narrow = dtype == ITERA_F16 || itera_dtype_is_blocks(dtype);
    return layout->half == ITERA_HALF_ALL || (layout->half == ITERA_HALF_NARROW && narrow);
}

struct itera_attr itera_block_product(const struct itera_graph *g, int32_t weight)
{
    struct itera_attr attr = {.trans_b = 1};
    if (weight < 0)
        return attr;
    const enum itera_dtype dtype = g->p->tensors[weight].dtype;
    attr.integer = g->layout->integer && itera_dtype_is_blocks(dtype);
    attr.half = g->p->part != ITERA_PART_ROUTER && itera_takes_half(g->layout, dtype);
    return attr;
}

int32_t itera_block_linear(struct itera_graph *g, int32_t x, int32_t weight, int32_t bias)
{
    int32_t in[4] = {x, weight, bias, ITERA_NONE}, out[1] = {ITERA_NEW};
    const struct itera_attr attr = itera_block_product(g, weight);
    return itera_record(g->p, ITERA_OP_matmul, &attr, in, out);
}

int32_t itera_block_add(struct itera_graph *g, int32_t a, int32_t b)
{
    int32_t in[2] = {a, b}, out[1] = {ITERA_NEW};
    return itera_record(g->p, ITERA_OP_add, NULL, in, out);
}

int32_t itera_block_unary(struct itera_graph *g, enum itera_op_kind kind, int32_t x)
{
    int32_t out[1] = {ITERA_NEW};
    return itera_record(g->p, kind, NULL, &x, out);
}

int32_t itera_block_silu_mul(struct itera_graph *g, int32_t x, int32_t z)
{
    int32_t in[2] = {x, z}, out[1] = {ITERA_NEW};
    return itera_record(g->p, ITERA_OP_silu_mul, NULL, in, out);
}

static int64_t columns(const struct itera_graph *g, int32_t x)
{
    return x < 0 ? 1 : itera_shape_cols(&g->p->tensors[x].shape);
}

static int32_t vector_param(struct itera_graph *g, int layer, const char *name, int64_t n,
                            enum itera_init init)
{
    return itera_graph_param(
        g, layer, &(struct itera_param_spec){.rank = 1, .dim = {n}, .init = init, .name = {name}});
}

int32_t itera_block_layer_norm(struct itera_graph *g, int32_t x, int layer, const char *weight,
                               const char *bias)
{
    int64_t n = columns(g, x);
    int32_t w = vector_param(g, layer, weight, n, ITERA_INIT_ONE);
    int32_t b = vector_param(g, layer, bias, n, ITERA_INIT_ZERO);
    g->p->part = ITERA_PART_NORM;
    int32_t in[3] = {x, w, b};
    int32_t out[2] = {ITERA_NEW, g->phase == ITERA_PHASE_TRAIN ? ITERA_NEW : ITERA_NONE};
    struct itera_attr attr = {.eps = (float)g->config->norm_eps};
    return itera_record(g->p, ITERA_OP_layer_norm, &attr, in, out);
}

int32_t itera_block_rms_norm(struct itera_graph *g, int32_t x, int layer, const char *weight)
{
    int32_t w = vector_param(g, layer, weight, columns(g, x), ITERA_INIT_ONE);
    g->p->part = ITERA_PART_NORM;
    int32_t in[2] = {x, w};
    int32_t out[2] = {ITERA_NEW, g->phase == ITERA_PHASE_TRAIN ? ITERA_NEW : ITERA_NONE};
    struct itera_attr attr = {.eps = (float)g->config->norm_eps};
    return itera_record(g->p, ITERA_OP_rms_norm, &attr, in, out);
}

int32_t itera_block_dropout(struct itera_graph *g, int32_t x)
{
    if (g->rng == ITERA_NONE)
        return x;
    int32_t in[2] = {x, g->rng}, out[1] = {ITERA_NEW};
    struct itera_attr attr = {.p = (float)g->config->dropout, .stream = g->next_stream++};
    return itera_record(g->p, ITERA_OP_dropout, &attr, in, out);
}

int32_t itera_block_embed(struct itera_graph *g, int32_t *table)
{
    const struct itera_config *c = g->config;
    struct itera_param_spec tokens = {.rank = 2,
                                      .dim = {c->vocab, c->hidden},
                                      .matrix = true,
                                      .init = ITERA_INIT_NORMAL,
                                      .init_scale = 0.02f,
                                      .name = {"embedding.weight"}};
    *table = itera_graph_param(g, 0, &tokens);
    struct itera_param_spec positions = tokens;
    positions.dim[0] = c->max_positions;
    positions.name[0] = "position_embedding.weight";
    int32_t position_table = itera_graph_param(g, 0, &positions);
    g->p->part = ITERA_PART_EMBEDDING;
    int32_t in[2] = {*table, g->ids}, out[1] = {ITERA_NEW};
    int32_t x = itera_record(g->p, ITERA_OP_embedding, NULL, in, out);
    int32_t in2[3] = {x, position_table, g->start}, out2[1] = {ITERA_NEW};
    x = itera_record(g->p, ITERA_OP_position_embedding, NULL, in2, out2);
    return itera_block_dropout(g, x);
}

/* Standard deviation of a projection's start: 1/sqrt(in), smaller where it adds to the residual
 * stream (Radford et al. 2019). */
static float projection_scale(const struct itera_graph *g, int64_t in, bool residual)
{
    double scale = 1.0 / sqrt((double)in);
    return (float)(residual ? scale / sqrt(2.0 * g->config->layers) : scale);
}

int32_t itera_block_projection(struct itera_graph *g, int32_t x, int layer, const char *name,
                               const char *bias, int64_t out, bool residual)
{
    int64_t in = columns(g, x);
    int32_t w = itera_graph_param(
        g, layer,
        &(struct itera_param_spec){.rank = 2,
                                   .dim = {out, in},
                                   .matrix = true,
                                   .init = ITERA_INIT_NORMAL,
                                   .init_scale = projection_scale(g, in, residual),
                                   .name = {name}});
    int32_t b = bias ? vector_param(g, layer, bias, out, ITERA_INIT_ZERO) : ITERA_NONE;
    g->p->part = ITERA_PART_PROJECTION;
    return itera_block_linear(g, x, w, b);
}

int32_t itera_block_conv(struct itera_graph *g, int32_t x, int layer, const char *weight,
                         const char *bias)
{
    int64_t c = columns(g, x), k = g->config->conv;
    float scale = (float)(1.0 / sqrt((double)k));
    int32_t w = itera_graph_param(g, layer,
                                  &(struct itera_param_spec){.rank = 2,
                                                             .dim = {c, k},
                                                             .file_rank = 3,
                                                             .file_dim = {c, 1, k},
                                                             .init = ITERA_INIT_UNIFORM,
                                                             .init_scale = scale,
                                                             .name = {weight}});
    int32_t b = bias ? vector_param(g, layer, bias, c, ITERA_INIT_ZERO) : ITERA_NONE;
    g->p->part = ITERA_PART_CONV;
    int32_t state = ITERA_NONE;
    if (k > 1)
        state = itera_graph_state(g, "conv", layer, 3, (int64_t[]){g->batch, c, k - 1});
    int32_t in[4] = {x, w, b, state}, out[1] = {ITERA_NEW};
    int32_t y = itera_record(g->p, ITERA_OP_causal_conv1d, NULL, in, out);
    return itera_block_unary(g, ITERA_OP_silu, y);
}

/* The hidden activation of an expert: GELU of up, or SiLU(gate) * up over the two halves. */
static int32_t expert_activation(struct itera_graph *g, int32_t h, bool gated)
{
    if (!gated)
        return itera_block_unary(g, ITERA_OP_gelu, h);
    int64_t width = columns(g, h) / 2;
    int32_t gate = itera_view_cols(g->p, h, 0, width);
    int32_t up = itera_view_cols(g->p, h, width, width);
    return itera_block_silu_mul(g, up, gate);
}

static int32_t expert_param(struct itera_graph *g, int layer, const char *const *name, int experts,
                            int64_t rows, int64_t cols, bool residual)
{
    bool halves = name[1];
    struct itera_param_spec spec = {.matrix = true,
                                    .init = ITERA_INIT_NORMAL,
                                    .init_scale = projection_scale(g, cols, residual),
                                    .experts = experts,
                                    .name = {name[0], name[1]}};
    int r = 0;
    if (experts)
        spec.dim[r++] = experts;
    spec.dim[r++] = halves ? 2 * rows : rows;
    spec.dim[r++] = cols;
    spec.rank = r;
    if (experts) {
        spec.file_rank = 2;
        spec.file_dim[0] = rows;
        spec.file_dim[1] = cols;
    }
    return itera_graph_param(g, layer, &spec);
}

int32_t itera_block_feed_forward(struct itera_graph *g, int32_t x, int layer,
                                 const struct itera_moe_names *names, int64_t width)
{
    int64_t hidden = g->config->hidden;
    int32_t up = expert_param(g, layer, names->up, 0, width, hidden, false);
    int32_t down =
        expert_param(g, layer, (const char *[2]){names->down, NULL}, 0, hidden, width, true);
    g->p->part = ITERA_PART_EXPERTS;
    int32_t h = itera_block_linear(g, x, up, ITERA_NONE);
    h = itera_block_dropout(g, expert_activation(g, h, names->up[1]));
    return itera_block_linear(g, h, down, ITERA_NONE);
}

int32_t itera_block_moe(struct itera_graph *g, int32_t x, int layer,
                        const struct itera_moe_names *names)
{
    const struct itera_config *c = g->config;
    struct itera_program *p = g->p;
    int experts = (int)c->experts, k = (int)c->top_k;
    int64_t hidden = c->hidden;
    bool modern = c->architecture == ITERA_ARCH_ITERA_M;
    int32_t router =
        itera_graph_param(g, layer,
                          &(struct itera_param_spec){.rank = 2,
                                                     .dim = {experts, hidden},
                                                     .matrix = true,
                                                     .init = ITERA_INIT_NORMAL,
                                                     .init_scale = projection_scale(g, hidden, 0),
                                                     .name = {names->router}});
    int32_t up = expert_param(g, layer, names->up, experts, c->expert_size, hidden, false);
    int32_t down = expert_param(g, layer, (const char *[2]){names->down, NULL}, experts, hidden,
                                c->expert_size, true);

    p->part = ITERA_PART_ROUTER;
    /* Over the chosen alone, the softmax of one is 1 whatever its logit: no gradient would reach the
     * router. With one expert, itera's weight is its probability among all, as in Switch Transformers
     * (Fedus et al. 2021, equation 2). */
    struct itera_attr attr = {
        .top_k = k, .experts = experts, .softmax_first = modern || k == 1, .renormalize = 0};
    int32_t logits = itera_block_linear(g, x, router, ITERA_NONE);
    int32_t routed[2] = {ITERA_NEW, ITERA_NEW};
    itera_record(p, ITERA_OP_moe_route, &attr, &logits, routed);
    if (g->phase == ITERA_PHASE_TRAIN && g->n_aux < ITERA_GRAPH_MAX_AUX) {
        struct itera_attr balance = {.kind =
                                         modern ? ITERA_BALANCE_SWITCH : ITERA_BALANCE_VARIATION,
                                     .scale = (float)c->aux_weight,
                                     .experts = experts,
                                     .top_k = k};
        int32_t in[2] = {logits, routed[0]}, out[2] = {ITERA_NEW, ITERA_NEW};
        itera_record(p, ITERA_OP_moe_balance, &balance, in, out);
        g->aux[g->n_aux] = out[0];
        g->load[g->n_aux++] = out[1];
    }
    int32_t sorted[3] = {ITERA_NEW, ITERA_NEW, ITERA_NEW}; /* offsets, order, position */
    itera_record(p, ITERA_OP_moe_sort, &attr, routed, sorted);

    p->part = ITERA_PART_EXPERTS;
    int32_t gather[3] = {x, sorted[1], sorted[2]}, out[1] = {ITERA_NEW};
    int32_t rows = itera_record(p, ITERA_OP_moe_gather, &attr, gather, out);
    struct itera_attr grouped = itera_block_product(g, up);
    grouped.experts = experts;
    int32_t in1[3] = {rows, up, sorted[0]}, out1[1] = {ITERA_NEW};
    int32_t h = itera_record(p, ITERA_OP_grouped_matmul, &grouped, in1, out1);
    h = itera_block_dropout(g, expert_activation(g, h, names->up[1]));
    grouped = itera_block_product(g, down);
    grouped.experts = experts;
    int32_t in2[3] = {h, down, sorted[0]}, out2[1] = {ITERA_NEW};
    int32_t y = itera_record(p, ITERA_OP_grouped_matmul, &grouped, in2, out2);
    if (p->status)
        return ITERA_NONE;
    /* With x's dims from the start (no view of it), so that the residual sum fuses into it. */
    const struct itera_shape like = p->tensors[x].shape;
    int32_t out3[1] = {itera_activation(p, ITERA_F32, like.rank, like.dim)};
    int32_t combine[4] = {y, sorted[2], routed[1], ITERA_NONE};
    return itera_record(p, ITERA_OP_moe_combine, &attr, combine, out3);
}

int32_t itera_block_last(struct itera_graph *g, int32_t x)
{
    if (g->phase != ITERA_PHASE_INFER || g->all_logits)
        return x;
    return itera_view_last(g->p, x);
}
