#include "itera/describe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "model/phase.h"
#include "program/autodiff.h"

enum { TOKENS = 64 }; /* the length that costs per token are averaged over, as in model.c */

_Static_assert((int)ITERA_MODEL_PARTS == (int)ITERA_PART_LOSS,
               "the parts of a model come first in enum itera_part");

const char *itera_model_part_name(int part)
{
    return part >= 0 && part < ITERA_MODEL_PARTS ? itera_part_name((enum itera_part)part) : NULL;
}

static const enum itera_dtype weight_dtypes[ITERA_WEIGHT_DTYPES] = {ITERA_F32, ITERA_F16,
                                                                    ITERA_BF16, ITERA_Q8, ITERA_Q4};

const char *itera_weight_dtype_name(int index)
{
    return index >= 0 && index < ITERA_WEIGHT_DTYPES ? itera_dtype_name(weight_dtypes[index])
                                                     : NULL;
}

static void add_bytes(const struct itera_layout *layout, struct itera_description *d)
{
    for (int i = 0; i < layout->n_params; i++) {
        const struct itera_param *param = &layout->params[i];
        int64_t bytes =
            (int64_t)itera_dtype_bytes(param->dtype, itera_shape_elements(&param->shape));
        d->bytes += bytes;
        for (int k = 0; k < ITERA_WEIGHT_DTYPES; k++)
            d->dtype_bytes[k] += param->dtype == weight_dtypes[k] ? bytes : 0;
    }
}

static const char *kind_of(const struct itera_config *c, int layer)
{
    switch (c->architecture) {
    case ITERA_ARCH_TRANSFORMER:
        return "attention + mlp";
    case ITERA_ARCH_MAMBA:
        return "ssm";
    default:
        return c->moe[layer] ? "ssm + moe" : "ssm + mlp";
    }
}

/* Walks the forward program: an op belongs to the layer whose parameter was used last, and a
 * parameter to the part of the first op that uses it. */
static enum itera_status add_layers(const struct itera_config *config, struct itera_layout *layout,
                                    struct itera_description *d)
{
    int64_t time =
        config->max_positions && config->max_positions < TOKENS ? config->max_positions : TOKENS;
    struct itera_graph g = {.phase = ITERA_PHASE_EVAL, .batch = 1, .time = time};
    enum itera_status status = itera_graph_record(&g, config, layout);
    int *param_of = NULL;
    bool *seen = NULL;
    if (!status) {
        param_of = malloc(((size_t)g.p->n_tensors + 1) * sizeof *param_of);
        seen = calloc((size_t)layout->n_params + 1, sizeof *seen);
        if (!param_of || !seen)
            status = itera_fail(ITERA_ERR_MEMORY, "no memory to describe a model");
    }
    if (status)
        goto done;
    for (int32_t t = 0; t < g.p->n_tensors; t++)
        param_of[t] = -1;
    for (int i = 0; i < layout->n_params; i++)
        if (g.param_tensor[i] >= 0)
            param_of[g.param_tensor[i]] = i;
    int layer = -1;
    for (int32_t i = 0; i < g.p->n_ops; i++) {
        const struct itera_op *op = &g.p->ops[i];
        for (int k = 0; k < ITERA_MAX_IN; k++) {
            int index = op->in[k] < 0 ? -1 : param_of[g.p->tensors[op->in[k]].base];
            if (index < 0)
                continue;
            const struct itera_param *param = &layout->params[index];
            layer = itera_param_layer(param->name);
            if (layer >= config->layers)
                layer = -1;
            if (seen[index])
                continue;
            seen[index] = true;
            struct itera_layer_description *l = &d->layers[layer < 0 ? config->layers : layer];
            int64_t n = itera_shape_elements(&param->shape);
            int64_t active = param->experts ? n / param->experts * config->top_k : n;
            l->parameters += n;
            l->active_parameters += active;
            l->part_parameters[op->part] += n;
        }
        struct itera_layer_description *l = &d->layers[layer < 0 ? config->layers : layer];
        double flops = itera_op_cost(g.p, op).flops / (double)time;
        l->flops_per_token += flops;
        l->part_flops[op->part] += flops;
        d->flops_per_token += flops;
    }
done:
    free(param_of);
    free(seen);
    itera_graph_destroy(&g);
    return status;
}

static enum itera_status state_size(const struct itera_config *config, struct itera_layout *layout,
                                    int64_t *bytes)
{
    struct itera_graph g = {
        .phase = ITERA_PHASE_INFER, .batch = 1, .time = 1, .positions = config->max_positions};
    enum itera_status status = itera_graph_record(&g, config, layout);
    *bytes = g.state_bytes;
    itera_graph_destroy(&g);
    return status;
}

static enum itera_status describe(const struct itera_config *config, struct itera_layout *layout,
                                  struct itera_description **out)
{
    struct itera_description *d = calloc(1, sizeof *d);
    if (d)
        d->layers = calloc((size_t)config->layers + 1, sizeof *d->layers);
    if (!d || !d->layers) {
        free(d);
        return itera_fail(ITERA_ERR_MEMORY, "no memory to describe a model");
    }
    d->architecture = itera_architecture_name(config->architecture);
    d->parameters = layout->parameters;
    add_bytes(layout, d);
    d->vocab = config->vocab;
    d->hidden = config->hidden;
    d->max_positions = config->max_positions;
    d->inner = config->inner;
    d->ffn = config->ffn;
    for (int l = 0; l < config->layers; l++) {
        if (config->moe[l]) {
            d->experts = config->experts;
            d->top_k = config->top_k;
        }
    }
    d->n_layers = config->layers + 1;
    for (int i = 0; i < d->n_layers; i++) {
        bool outside = i == config->layers;
        d->layers[i].layer = outside ? -1 : i;
        d->layers[i].kind = outside ? "embedding, head" : kind_of(config, i);
    }
    enum itera_status status = add_layers(config, layout, d);
    if (!status)
        status = state_size(config, layout, &d->state_bytes);
    if (!status)
        status = itera_config_to_json(config, &d->config);
    for (int i = 0; i < d->n_layers; i++)
        d->active_parameters += d->layers[i].active_parameters;
    if (status)
        itera_description_destroy(&d);
    *out = d;
    return status;
}

enum itera_status itera_describe_model(const struct itera_model *model,
                                       struct itera_description **out)
{
    *out = NULL;
    struct itera_layout layout;
    enum itera_status status = itera_layout_create(&model->config, &layout);
    if (status)
        return status;
    for (int i = 0; i < layout.n_params; i++)
        layout.params[i].dtype = model->layout.params[i].dtype;
    itera_layout_place(&layout);
    status = describe(&model->config, &layout, out);
    itera_layout_destroy(&layout);
    return status;
}

enum itera_status itera_describe_config(const char *name, int32_t vocab,
                                        struct itera_description **out)
{
    *out = NULL;
    struct itera_config config;
    enum itera_status status = itera_config_find(name, &config);
    if (!status && vocab > 0) {
        config.vocab = vocab;
        status = itera_config_validate(&config, name);
    }
    if (status)
        return status;
    struct itera_layout layout;
    status = itera_layout_create(&config, &layout);
    if (status)
        return status;
    status = describe(&config, &layout, out);
    itera_layout_destroy(&layout);
    return status;
}

void itera_description_destroy(struct itera_description **description)
{
    if (!*description)
        return;
    free((*description)->layers);
    free((*description)->config);
    free(*description);
    *description = NULL;
}

/* Next-token loss, auxiliary losses, and every gradient. */
static enum itera_status add_training(void *user, struct itera_model_phase *phase)
{
    const struct itera_layout *layout = user;
    const struct itera_graph *g = &phase->graph;
    struct itera_program *p = g->p;
    int64_t dim[2] = {g->batch, g->time};
    int32_t targets = itera_bound(p, "targets", ITERA_I32, 2, dim), ce, aux;
    int32_t loss = itera_graph_losses(g, targets, &ce, &aux);
    int32_t *grads = malloc(((size_t)layout->n_params + 1) * sizeof *grads);
    if (!grads)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to describe a model");
    for (int i = 0; i < layout->n_params; i++)
        grads[i] = ITERA_NEW;
    enum itera_status status =
        itera_differentiate(p, loss, ITERA_NONE, layout->n_params, g->param_tensor, grads);
    free(grads);
    return status;
}

enum itera_status itera_describe_ops(const char *config, const char *phase, int64_t tokens,
                                     char **text)
{
    *text = NULL;
    static const struct {
        const char *name;
        enum itera_phase phase;
    } phases[] = {{"decode", ITERA_PHASE_INFER},
                  {"prefill", ITERA_PHASE_INFER},
                  {"eval", ITERA_PHASE_EVAL},
                  {"train", ITERA_PHASE_TRAIN}};
    size_t k = 0;
    while (k < 4 && strcmp(phase, phases[k].name) != 0)
        k++;
    if (k == 4)
        return itera_fail(ITERA_ERR_ARGUMENT, "phase '%s' is none of decode, prefill, eval, train",
                          phase);
    struct itera_config c;
    enum itera_status status = itera_config_parse(config, strlen(config), "configuration", &c);
    if (status)
        return status;
    struct itera_layout layout;
    status = itera_layout_create(&c, &layout);
    if (status)
        return status;
    int64_t time = k == 0 ? 1 : tokens < 1 ? 1 : tokens;
    if (c.max_positions && time > c.max_positions)
        time = c.max_positions;
    const struct itera_phase_options options = {
        .phase = phases[k].phase, .batch = 1, .time = time, .logits = true};
    struct itera_model_phase run = {0};
    itera_phase_record_layout(&run, &c, &layout, &options);
    status =
        itera_phase_fuse(&run, phases[k].phase == ITERA_PHASE_TRAIN ? add_training : NULL, &layout);
    if (!status) {
        *text = itera_program_text(run.graph.p);
        if (!*text)
            status = itera_fail(ITERA_ERR_MEMORY, "no memory to describe a model");
    }
    itera_phase_destroy(&run);
    itera_layout_destroy(&layout);
    return status;
}
