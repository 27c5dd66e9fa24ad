#include "model/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"

enum { PARAM_ALIGN = 16, BYTE_ALIGN = 64 }; /* elements and bytes: a cache line of f32 */

static bool grow(struct itera_graph *g, void **array, int n, int *cap, size_t size)
{
    if (n < *cap)
        return true;
    int wider = *cap ? *cap * 2 : 32;
    void *moved = realloc(*array, (size_t)wider * size);
    if (!moved) {
        if (!g->p->status)
            g->p->status = itera_fail(ITERA_ERR_MEMORY, "no memory to record a model");
        return false;
    }
    *array = moved;
    *cap = wider;
    return true;
}

/* Formats a name of a layer (and expert) into the layout's arena. The formats come from the family
 * files, not from input. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static const char *format_name(struct itera_arena *arena, const char *format, int layer, int expert)
{
    return itera_arena_printf(arena, format, layer, expert);
}
#pragma GCC diagnostic pop

static void declare_param(struct itera_graph *g, int layer, const struct itera_param_spec *spec)
{
    struct itera_layout *layout = g->layout;
    if (!grow(g, (void **)&layout->params, layout->n_params, &layout->cap_params,
              sizeof *layout->params))
        return;
    struct itera_param *param = &layout->params[layout->n_params];
    int halves = spec->name[1] ? 2 : 1;
    int experts = spec->experts ? spec->experts : 1;
    *param = (struct itera_param){
        .shape = itera_shape_make(spec->rank, spec->dim),
        .matrix = spec->matrix,
        .experts = spec->experts,
        .init = spec->init,
        .init_scale = spec->init_scale,
        .n_parts = halves * experts,
    };
    param->parts = itera_arena_calloc(layout->arena, (size_t)param->n_parts, sizeof *param->parts);
    if (!param->parts)
        goto memory;
    int64_t elements = itera_shape_elements(&param->shape) / param->n_parts;
    for (int e = 0; e < experts; e++) {
        for (int h = 0; h < halves; h++) {
            struct itera_param_part *part = &param->parts[e * halves + h];
            part->name = format_name(layout->arena, spec->name[h], layer, e);
            if (!part->name)
                goto memory;
            part->offset = (e * halves + h) * elements; /* of the parameter, until placed */
            int skip = spec->experts ? 1 : 0;
            if (spec->file_rank) {
                part->rank = spec->file_rank;
                memcpy(part->dim, spec->file_dim, sizeof part->dim);
            } else {
                part->rank = spec->rank - skip;
                memcpy(part->dim, spec->dim + skip, (size_t)part->rank * sizeof *part->dim);
                part->dim[0] /= halves;
            }
        }
    }
    param->name = param->parts[0].name;
    layout->n_params++;
    return;
memory:
    g->p->status = itera_fail(ITERA_ERR_MEMORY, "no memory for the layout of a model");
}

int32_t itera_graph_param(struct itera_graph *g, int layer, const struct itera_param_spec *spec)
{
    if (g->p->status)
        return ITERA_NONE;
    if (g->declaring)
        declare_param(g, layer, spec);
    if (g->p->status)
        return ITERA_NONE;
    int index = g->next_param++;
    const struct itera_param *param = &g->layout->params[index];
    int32_t t = itera_bound(g->p, param->name, param->dtype, param->shape.rank, param->shape.dim);
    if (g->param_tensor)
        g->param_tensor[index] = t;
    return t;
}

int32_t itera_graph_state(struct itera_graph *g, const char *name, int layer, int rank,
                          const int64_t *dim)
{
    if (g->phase != ITERA_PHASE_INFER || g->p->status ||
        !grow(g, (void **)&g->states, g->n_states, &g->cap_states, sizeof *g->states))
        return ITERA_NONE;
    char text[64];
    snprintf(text, sizeof text, "state.%d.%s", layer, name);
    int32_t t = itera_bound(g->p, text, ITERA_F32, rank, dim);
    if (t < 0)
        return t;
    g->states[g->n_states++] = (struct itera_slot){.tensor = t, .offset = g->state_bytes};
    int64_t bytes = itera_shape_elements(&g->p->tensors[t].shape) * 4;
    g->state_bytes += (bytes + 63) / 64 * 64;
    return t;
}

int32_t itera_graph_cache(struct itera_graph *g, const char *name, int layer, int rank,
                          const int64_t *dim)
{
    int32_t t = itera_graph_state(g, name, layer, rank, dim);
    if (t >= 0)
        g->states[g->n_states - 1].cache = true;
    return t;
}

int32_t itera_graph_neg_exp(struct itera_graph *g, int32_t param)
{
    if (g->phase != ITERA_PHASE_INFER || g->p->status)
        return itera_block_unary(g, ITERA_OP_neg_exp, param);
    int index = 0;
    while (index < g->next_param && g->param_tensor[index] != param)
        index++;
    int cap = g->cap_derived;
    if (!grow(g, (void **)&g->derived, g->n_derived, &g->cap_derived, sizeof *g->derived) ||
        !grow(g, (void **)&g->derived_in_prepare, g->n_derived, &cap,
              sizeof *g->derived_in_prepare))
        return ITERA_NONE;
    const struct itera_tensor t = g->p->tensors[param];
    int32_t in = itera_bound(g->prepare, t.name, ITERA_F32, t.shape.rank, t.shape.dim);
    int32_t out = itera_bound(g->prepare, "derived", ITERA_F32, t.shape.rank, t.shape.dim);
    g->prepare_param[index] = in;
    g->derived_in_prepare[g->n_derived] = out;
    itera_record(g->prepare, ITERA_OP_neg_exp, NULL, &in, &out);
    if (g->prepare->status)
        g->p->status = g->prepare->status;
    int32_t here = itera_bound(g->p, "derived", ITERA_F32, t.shape.rank, t.shape.dim);
    if (here < 0)
        return here;
    g->derived[g->n_derived++] = (struct itera_slot){.tensor = here, .offset = g->derived_bytes};
    g->derived_bytes += (itera_shape_elements(&t.shape) * 4 + 63) / 64 * 64;
    return here;
}

static int32_t record_family(struct itera_graph *g, int32_t *embedding)
{
    switch (g->config->architecture) {
    case ITERA_ARCH_ITERA:
        return itera_family_itera(g, embedding);
    case ITERA_ARCH_TRANSFORMER:
        return itera_family_transformer(g, embedding);
    case ITERA_ARCH_MAMBA:
        return itera_family_mamba(g, embedding);
    case ITERA_ARCH_ITERA_M:
        return itera_family_itera_m(g, embedding);
    default:
        break;
    }
    g->p->status = itera_fail(ITERA_ERR_UNSUPPORTED, "this model family cannot be run");
    return ITERA_NONE;
}

/* logits = hidden . head^T */
static void record_head(struct itera_graph *g, int32_t hidden, int32_t embedding)
{
    const struct itera_config *c = g->config;
    int32_t head = embedding;
    if (!c->tied_head)
        head = itera_graph_param(g, 0,
                                 &(struct itera_param_spec){.rank = 2,
                                                            .dim = {c->vocab, c->hidden},
                                                            .matrix = true,
                                                            .init = ITERA_INIT_NORMAL,
                                                            .init_scale = 0.02f,
                                                            .name = {"lm_head.weight"}});
    g->p->part = ITERA_PART_HEAD;
    int32_t in[4] = {hidden, head, ITERA_NONE, ITERA_NONE}, out[1] = {ITERA_NEW};
    if (g->logits_bound && !g->p->status) {
        struct itera_shape s = g->p->tensors[hidden].shape;
        s.dim[s.rank - 1] = c->vocab;
        out[0] = itera_bound(g->p, "logits", ITERA_F32, s.rank, s.dim);
    }
    const struct itera_attr attr = itera_block_product(g, head);
    g->logits = itera_record(g->p, ITERA_OP_matmul, &attr, in, out);
}

enum itera_status itera_graph_record(struct itera_graph *g, const struct itera_config *config,
                                     struct itera_layout *layout)
{
    g->config = config;
    g->layout = layout;
    g->start = g->rng = ITERA_NONE;
    enum itera_status status = itera_program_create(&g->p);
    if (!status)
        status = itera_program_create(&g->prepare);
    if (status)
        return status;
    if (!g->declaring) {
        size_t n = (size_t)layout->n_params + 1;
        g->param_tensor = malloc(n * sizeof *g->param_tensor);
        g->prepare_param = malloc(n * sizeof *g->prepare_param);
        if (!g->param_tensor || !g->prepare_param)
            return itera_fail(ITERA_ERR_MEMORY, "no memory to record a model");
        for (size_t i = 0; i < n; i++)
            g->param_tensor[i] = g->prepare_param[i] = ITERA_NONE;
    }
    int64_t ids_dim[2] = {g->batch, g->time};
    g->ids = itera_bound(g->p, "ids", ITERA_I32, 2, ids_dim);
    if (g->phase == ITERA_PHASE_INFER)
        g->start = itera_bound(g->p, "start", ITERA_I32, 1, &g->batch);
    if (g->phase == ITERA_PHASE_TRAIN && config->dropout > 0) {
        int64_t four = 4;
        g->rng = itera_bound(g->p, "rng", ITERA_I32, 1, &four);
    }
    int32_t embedding = ITERA_NONE;
    int32_t hidden = record_family(g, &embedding);
    record_head(g, hidden, embedding);
    return g->p->status;
}

int32_t itera_graph_aux_loss(const struct itera_graph *g)
{
    int32_t aux = g->n_aux ? g->aux[0] : ITERA_NONE;
    g->p->part = ITERA_PART_LOSS;
    for (int i = 1; i < g->n_aux; i++) {
        int32_t sum[2] = {aux, g->aux[i]}, made[1] = {ITERA_NEW};
        aux = itera_record(g->p, ITERA_OP_add, NULL, sum, made);
    }
    return aux;
}

int32_t itera_graph_losses(const struct itera_graph *g, int32_t targets, int32_t *ce, int32_t *aux)
{
    struct itera_program *p = g->p;
    p->part = ITERA_PART_LOSS;
    int32_t in[2] = {g->logits, targets}, out[2] = {ITERA_NEW, ITERA_NEW};
    *ce = itera_record(p, ITERA_OP_cross_entropy, NULL, in, out);
    *aux = itera_graph_aux_loss(g);
    if (!g->n_aux)
        return *ce;
    int32_t sum[2] = {*ce, *aux}, made[1] = {ITERA_NEW};
    return itera_record(p, ITERA_OP_add, NULL, sum, made);
}

void itera_graph_destroy(struct itera_graph *g)
{
    itera_program_destroy(&g->p);
    itera_program_destroy(&g->prepare);
    free(g->param_tensor);
    free(g->prepare_param);
    free(g->states);
    free(g->derived);
    free(g->derived_in_prepare);
    *g = (struct itera_graph){0};
}

/* Gives every parameter its place: matrices first. */
static void place_params(struct itera_layout *layout)
{
    int64_t at = 0;
    for (int matrix = 1; matrix >= 0; matrix--) {
        for (int i = 0; i < layout->n_params; i++) {
            struct itera_param *param = &layout->params[i];
            if (param->matrix != (matrix == 1))
                continue;
            param->offset = at;
            for (int k = 0; k < param->n_parts; k++)
                param->parts[k].offset += at;
            int64_t elements = itera_shape_elements(&param->shape);
            layout->parameters += elements;
            at += (elements + PARAM_ALIGN - 1) / PARAM_ALIGN * PARAM_ALIGN;
        }
        if (matrix)
            layout->decay_elements = at;
    }
    layout->elements = at;
    itera_layout_place(layout);
}

void itera_layout_place(struct itera_layout *layout)
{
    layout->bytes = 0;
    for (int matrix = 1; matrix >= 0; matrix--) {
        for (int i = 0; i < layout->n_params; i++) {
            struct itera_param *param = &layout->params[i];
            if (param->matrix != (matrix == 1))
                continue;
            param->place = layout->bytes;
            int64_t bytes =
                (int64_t)itera_dtype_bytes(param->dtype, itera_shape_elements(&param->shape));
            layout->bytes += (bytes + BYTE_ALIGN - 1) / BYTE_ALIGN * BYTE_ALIGN;
        }
    }
}

enum itera_status itera_layout_create(const struct itera_config *config,
                                      struct itera_layout *layout)
{
    *layout = (struct itera_layout){.arena = itera_arena_create(0), .integer = true};
    if (!layout->arena)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for the layout of a model");
    struct itera_graph g = {.declaring = true, .phase = ITERA_PHASE_EVAL, .batch = 1, .time = 1};
    enum itera_status status = itera_graph_record(&g, config, layout);
    itera_graph_destroy(&g);
    if (status)
        itera_layout_destroy(layout);
    else
        place_params(layout);
    return status;
}

void itera_layout_destroy(struct itera_layout *layout)
{
    itera_arena_destroy(&layout->arena);
    free(layout->params);
    *layout = (struct itera_layout){0};
}
