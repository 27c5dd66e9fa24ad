/* transformer: the baseline. Pre-LayerNorm causal attention and GELU feed-forward, learned
 * positions, tied head (DESIGN 5; Radford et al. 2019). */
#include "model/graph.h"

static int32_t attention(struct itera_graph *g, int32_t x, int layer)
{
    const struct itera_config *c = g->config;
    struct itera_program *p = g->p;
    int64_t hidden = c->hidden;
    int32_t h = itera_block_layer_norm(g, x, layer, "blocks.%d.ln1.weight", "blocks.%d.ln1.bias");
    int32_t qkv = itera_block_projection(g, h, layer, "blocks.%d.attention.qkv.weight", NULL,
                                         3 * hidden, false);
    int64_t cache[3] = {g->batch, g->positions, hidden};
    p->part = ITERA_PART_ATTENTION;
    int32_t in[6] = {itera_view_cols(p, qkv, 0, hidden),
                     itera_view_cols(p, qkv, hidden, hidden),
                     itera_view_cols(p, qkv, 2 * hidden, hidden),
                     itera_graph_cache(g, "key", layer, 3, cache),
                     itera_graph_cache(g, "value", layer, 3, cache),
                     g->start};
    int32_t out[2] = {ITERA_NEW, g->phase == ITERA_PHASE_TRAIN ? ITERA_NEW : ITERA_NONE};
    struct itera_attr attr = {.heads = (int32_t)c->heads, .kv_heads = (int32_t)c->heads};
    h = itera_record(p, ITERA_OP_attention, &attr, in, out);
    h = itera_block_projection(g, h, layer, "blocks.%d.attention.out_proj.weight", NULL, hidden,
                               true);
    return itera_block_add(g, itera_block_dropout(g, h), x);
}

int32_t itera_family_transformer(struct itera_graph *g, int32_t *embedding)
{
    static const struct itera_moe_names dense = {.up = {"blocks.%d.ffn.w1.weight"},
                                                 .down = "blocks.%d.ffn.w2.weight"};
    int32_t x = itera_block_embed(g, embedding);
    for (int layer = 0; layer < g->config->layers; layer++) {
        x = attention(g, x, layer);
        int32_t h =
            itera_block_layer_norm(g, x, layer, "blocks.%d.ln2.weight", "blocks.%d.ln2.bias");
        h = itera_block_feed_forward(g, h, layer, &dense, g->config->ffn);
        x = itera_block_add(g, h, x);
    }
    return itera_block_layer_norm(g, itera_block_last(g, x), 0, "norm.weight", "norm.bias");
}
