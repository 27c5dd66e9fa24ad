/* mamba (Gu & Dao 2023) and itera-m, which is Jamba (Lieber et al. 2024) without attention. They
 * share the mixer; itera-m normalises dt, B and C, and adds a SwiGLU feed-forward or MoE. */
#include <math.h>

#include "model/graph.h"

/* The names of a family's mixer. */
struct mixer_names {
    const char *in_proj, *in_bias, *conv, *conv_bias, *x_proj, *dt_proj, *dt_bias, *a_log, *d,
        *out_proj, *out_bias;
    const char *dt_norm, *b_norm, *c_norm; /* NULL: none */
};

static int32_t mixer(struct itera_graph *g, int32_t x, int layer, const struct mixer_names *names)
{
    const struct itera_config *c = g->config;
    struct itera_program *p = g->p;
    int64_t inner = c->inner, n = c->state, rank = c->dt_rank;
    int32_t xz = itera_block_projection(g, x, layer, names->in_proj,
                                        c->proj_bias ? names->in_bias : NULL, 2 * inner, false);
    int32_t h = itera_view_cols(p, xz, 0, inner);
    int32_t z = itera_view_cols(p, xz, inner, inner);
    h = itera_block_conv(g, h, layer, names->conv, c->conv_bias ? names->conv_bias : NULL);

    int32_t dbc = itera_block_projection(g, h, layer, names->x_proj, NULL, rank + 2 * n, false);
    int32_t dt = itera_view_cols(p, dbc, 0, rank);
    int32_t b = itera_view_cols(p, dbc, rank, n);
    int32_t cm = itera_view_cols(p, dbc, rank + n, n);
    if (names->dt_norm) {
        dt = itera_block_rms_norm(g, dt, layer, names->dt_norm);
        b = itera_block_rms_norm(g, b, layer, names->b_norm);
        cm = itera_block_rms_norm(g, cm, layer, names->c_norm);
    }
    int32_t dt_w =
        itera_graph_param(g, layer,
                          &(struct itera_param_spec){.rank = 2,
                                                     .dim = {inner, rank},
                                                     .matrix = true,
                                                     .init = ITERA_INIT_UNIFORM,
                                                     .init_scale = (float)(1 / sqrt((double)rank)),
                                                     .name = {names->dt_proj}});
    int32_t dt_b = itera_graph_param(
        g, layer,
        &(struct itera_param_spec){
            .rank = 1, .dim = {inner}, .init = ITERA_INIT_DT_BIAS, .name = {names->dt_bias}});
    int32_t a_log = itera_graph_param(
        g, layer,
        &(struct itera_param_spec){
            .rank = 2, .dim = {inner, n}, .init = ITERA_INIT_A_LOG, .name = {names->a_log}});
    int32_t d = itera_graph_param(
        g, layer,
        &(struct itera_param_spec){
            .rank = 1, .dim = {inner}, .init = ITERA_INIT_ONE, .name = {names->d}});
    p->part = ITERA_PART_PROJECTION;
    dt = itera_block_unary(g, ITERA_OP_softplus, itera_block_linear(g, dt, dt_w, dt_b));
    p->part = ITERA_PART_SCAN;
    int32_t a = itera_graph_neg_exp(g, a_log);
    int32_t state = itera_graph_state(g, "ssm", layer, 3, (int64_t[]){g->batch, inner, n});
    int32_t in[8] = {h, dt, a, b, cm, d, ITERA_NONE, state};
    int32_t out[2] = {ITERA_NEW, g->phase == ITERA_PHASE_TRAIN ? ITERA_NEW : ITERA_NONE};
    struct itera_attr attr = {.chunk = 64};
    h = itera_record(p, ITERA_OP_selective_scan, &attr, in, out);
    h = itera_block_silu_mul(g, h, z);
    return itera_block_projection(g, h, layer, names->out_proj,
                                  c->proj_bias ? names->out_bias : NULL, c->hidden, true);
}

static int32_t embed(struct itera_graph *g, const char *name, int32_t *table)
{
    *table =
        itera_graph_param(g, 0,
                          &(struct itera_param_spec){.rank = 2,
                                                     .dim = {g->config->vocab, g->config->hidden},
                                                     .matrix = true,
                                                     .init = ITERA_INIT_NORMAL,
                                                     .init_scale = 0.02f,
                                                     .name = {name}});
    g->p->part = ITERA_PART_EMBEDDING;
    int32_t in[2] = {*table, g->ids}, out[1] = {ITERA_NEW};
    int32_t x = itera_record(g->p, ITERA_OP_embedding, NULL, in, out);
    return itera_block_dropout(g, x);
}

int32_t itera_family_mamba(struct itera_graph *g, int32_t *embedding)
{
    static const struct mixer_names names = {
        .in_proj = "backbone.layers.%d.mixer.in_proj.weight",
        .in_bias = "backbone.layers.%d.mixer.in_proj.bias",
        .conv = "backbone.layers.%d.mixer.conv1d.weight",
        .conv_bias = "backbone.layers.%d.mixer.conv1d.bias",
        .x_proj = "backbone.layers.%d.mixer.x_proj.weight",
        .dt_proj = "backbone.layers.%d.mixer.dt_proj.weight",
        .dt_bias = "backbone.layers.%d.mixer.dt_proj.bias",
        .a_log = "backbone.layers.%d.mixer.A_log",
        .d = "backbone.layers.%d.mixer.D",
        .out_proj = "backbone.layers.%d.mixer.out_proj.weight",
        .out_bias = "backbone.layers.%d.mixer.out_proj.bias",
    };
    int32_t x = embed(g, "backbone.embeddings.weight", embedding);
    for (int layer = 0; layer < g->config->layers; layer++) {
        int32_t h = itera_block_rms_norm(g, x, layer, "backbone.layers.%d.norm.weight");
        h = mixer(g, h, layer, &names);
        x = itera_block_add(g, itera_block_dropout(g, h), x);
    }
    return itera_block_rms_norm(g, itera_block_last(g, x), 0, "backbone.norm_f.weight");
}

int32_t itera_family_itera_m(struct itera_graph *g, int32_t *embedding)
{
    static const struct mixer_names names = {
        .in_proj = "model.layers.%d.mamba.in_proj.weight",
        .in_bias = "model.layers.%d.mamba.in_proj.bias",
        .conv = "model.layers.%d.mamba.conv1d.weight",
        .conv_bias = "model.layers.%d.mamba.conv1d.bias",
        .x_proj = "model.layers.%d.mamba.x_proj.weight",
        .dt_proj = "model.layers.%d.mamba.dt_proj.weight",
        .dt_bias = "model.layers.%d.mamba.dt_proj.bias",
        .a_log = "model.layers.%d.mamba.A_log",
        .d = "model.layers.%d.mamba.D",
        .out_proj = "model.layers.%d.mamba.out_proj.weight",
        .out_bias = "model.layers.%d.mamba.out_proj.bias",
        .dt_norm = "model.layers.%d.mamba.dt_layernorm.weight",
        .b_norm = "model.layers.%d.mamba.b_layernorm.weight",
        .c_norm = "model.layers.%d.mamba.c_layernorm.weight",
    };
    static const struct itera_moe_names moe = {
        .router = "model.layers.%d.feed_forward.router.weight",
        .up = {"model.layers.%d.feed_forward.experts.%d.gate_proj.weight",
               "model.layers.%d.feed_forward.experts.%d.up_proj.weight"},
        .down = "model.layers.%d.feed_forward.experts.%d.down_proj.weight"};
    static const struct itera_moe_names dense = {
        .up = {"model.layers.%d.feed_forward.gate_proj.weight",
               "model.layers.%d.feed_forward.up_proj.weight"},
        .down = "model.layers.%d.feed_forward.down_proj.weight"};
    int32_t x = embed(g, "model.embed_tokens.weight", embedding);
    for (int layer = 0; layer < g->config->layers; layer++) {
        int32_t h = itera_block_rms_norm(g, x, layer, "model.layers.%d.input_layernorm.weight");
        h = mixer(g, h, layer, &names);
        x = itera_block_add(g, itera_block_dropout(g, h), x);
        h = itera_block_rms_norm(g, x, layer, "model.layers.%d.pre_ff_layernorm.weight");
        h = g->config->moe[layer] ? itera_block_moe(g, h, layer, &moe)
                                  : itera_block_feed_forward(g, h, layer, &dense, g->config->ffn);
        x = itera_block_add(g, h, x);
    }
    return itera_block_rms_norm(g, itera_block_last(g, x), 0, "model.final_layernorm.weight");
}
