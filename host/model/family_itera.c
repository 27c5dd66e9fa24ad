/* itera: SSM mixer with one step size per token, GELU experts, learned positions (DESIGN 5). */
#include <math.h>

#include "model/graph.h"

/* d[t] = mean of softplus(delta_proj x[t]); h = exp(d A) h + d (B x); C h + D x, gated by z. */
static int32_t ssm_core(struct itera_graph *g, int32_t x, int32_t z, int layer)
{
    const struct itera_config *c = g->config;
    struct itera_program *p = g->p;
    int64_t n = c->state, inner = c->inner;
    int32_t a_log = itera_graph_param(
        g, layer,
        &(struct itera_param_spec){
            .rank = 1, .dim = {n}, .init = ITERA_INIT_A_LOG, .name = {"layers.%d.ssm.ssm.A_log"}});
    int32_t b =
        itera_graph_param(g, layer,
                          &(struct itera_param_spec){.rank = 2,
                                                     .dim = {n, inner},
                                                     .matrix = true,
                                                     .init = ITERA_INIT_NORMAL,
                                                     .init_scale = (float)(1 / sqrt((double)inner)),
                                                     .name = {"layers.%d.ssm.ssm.B"}});
    int32_t cm =
        itera_graph_param(g, layer,
                          &(struct itera_param_spec){.rank = 2,
                                                     .dim = {inner, n},
                                                     .matrix = true,
                                                     .init = ITERA_INIT_NORMAL,
                                                     .init_scale = (float)(1 / sqrt((double)n)),
                                                     .name = {"layers.%d.ssm.ssm.C"}});
    int32_t d = itera_graph_param(
        g, layer,
        &(struct itera_param_spec){
            .rank = 1, .dim = {inner}, .init = ITERA_INIT_ONE, .name = {"layers.%d.ssm.ssm.D"}});
    int32_t delta_w = itera_graph_param(
        g, layer,
        &(struct itera_param_spec){.rank = 2,
                                   .dim = {inner, inner},
                                   .matrix = true,
                                   .init = ITERA_INIT_NORMAL,
                                   .init_scale = (float)(1 / sqrt((double)inner)),
                                   .name = {"layers.%d.ssm.ssm.delta_proj.weight"}});
    int32_t delta_b = itera_graph_param(
        g, layer,
        &(struct itera_param_spec){.rank = 1,
                                   .dim = {inner},
                                   .init = ITERA_INIT_DT_BIAS,
                                   .name = {"layers.%d.ssm.ssm.delta_proj.bias"}});
    p->part = ITERA_PART_PROJECTION;
    int32_t delta = itera_block_linear(g, x, delta_w, delta_b);
    int32_t u = itera_block_linear(g, x, b, ITERA_NONE);
    p->part = ITERA_PART_SCAN;
    delta = itera_block_unary(g, ITERA_OP_softplus_mean, delta);
    int32_t a = itera_graph_neg_exp(g, a_log);
    int32_t state = itera_graph_state(g, "ssm", layer, 2, (int64_t[]){g->batch, n});
    int32_t in[4] = {delta, a, u, state}, out[1] = {ITERA_NEW};
    int32_t h = itera_record(p, ITERA_OP_itera_scan, NULL, in, out);
    p->part = ITERA_PART_PROJECTION;
    int32_t y = itera_block_linear(g, h, cm, ITERA_NONE);
    p->part = ITERA_PART_SCAN;
    int32_t in2[4] = {y, x, d, z}, out2[1] = {ITERA_NEW};
    return itera_record(p, ITERA_OP_skip_gate, NULL, in2, out2);
}

static int32_t mixer(struct itera_graph *g, int32_t x, int layer)
{
    const struct itera_config *c = g->config;
    int32_t h =
        itera_block_layer_norm(g, x, layer, "layers.%d.ssm.norm.weight", "layers.%d.ssm.norm.bias");
    int32_t xz = itera_block_projection(g, h, layer, "layers.%d.ssm.in_proj.weight", NULL,
                                        2 * c->inner, false);
    h = itera_view_cols(g->p, xz, 0, c->inner);
    int32_t z = itera_view_cols(g->p, xz, c->inner, c->inner);
    h = itera_block_conv(g, h, layer, "layers.%d.ssm.conv1d.weight", "layers.%d.ssm.conv1d.bias");
    h = ssm_core(g, h, z, layer);
    h = itera_block_projection(g, h, layer, "layers.%d.ssm.out_proj.weight", NULL, c->hidden, true);
    return itera_block_add(g, itera_block_dropout(g, h), x);
}

static int32_t feed_forward(struct itera_graph *g, int32_t x, int layer)
{
    static const struct itera_moe_names moe = {.router = "layers.%d.moe.layer.router.gate.weight",
                                               .up = {"layers.%d.moe.layer.experts.%d.w1.weight"},
                                               .down = "layers.%d.moe.layer.experts.%d.w2.weight"};
    static const struct itera_moe_names dense = {.up = {"layers.%d.moe.ffn.w1.weight"},
                                                 .down = "layers.%d.moe.ffn.w2.weight"};
    int32_t h;
    if (g->config->moe[layer]) {
        h = itera_block_layer_norm(g, x, layer, "layers.%d.moe.layer.norm.weight",
                                   "layers.%d.moe.layer.norm.bias");
        h = itera_block_moe(g, h, layer, &moe);
    } else {
        h = itera_block_layer_norm(g, x, layer, "layers.%d.moe.norm.weight",
                                   "layers.%d.moe.norm.bias");
        h = itera_block_feed_forward(g, h, layer, &dense, g->config->expert_size);
    }
    return itera_block_add(g, h, x);
}

int32_t itera_family_itera(struct itera_graph *g, int32_t *embedding)
{
    int32_t x = itera_block_embed(g, embedding);
    for (int layer = 0; layer < g->config->layers; layer++)
        x = feed_forward(g, mixer(g, x, layer), layer);
    return itera_block_layer_norm(g, itera_block_last(g, x), 0, "norm.weight", "norm.bias");
}
