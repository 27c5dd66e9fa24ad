/* One phase of a model, compiled on buffers of its own. */
#include <stdlib.h>

#include "bench/bench_impl.h"
#include "core/log.h"
#include "core/rng.h"

int32_t *itera_bench_random_ids(int64_t n, int32_t vocab)
{
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    struct itera_rng rng = {.seed = 17};
    for (int64_t i = 0; i < n && ids; i++)
        ids[i] = (int32_t)itera_rng_below(&rng, (uint32_t)vocab);
    return ids;
}

void itera_bench_graph_destroy(struct itera_bench_graph *f)
{
    struct itera_buffer **buffers[] = {&f->ids,     &f->start,  &f->states,
                                       &f->derived, &f->logits, &f->offsets};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        itera_buffer_destroy(buffers[i]);
    itera_phase_destroy(&f->phase);
    *f = (struct itera_bench_graph){0};
}

static enum itera_status create_buffers(struct itera_model *model, bool keep_logits,
                                        struct itera_bench_graph *f)
{
    const struct itera_graph *g = &f->phase.graph;
    const size_t logits =
        itera_dtype_bytes(ITERA_F32, itera_shape_elements(&g->p->tensors[g->logits].shape));
    const struct {
        struct itera_buffer **buffer;
        size_t bytes;
    } wanted[] = {
        {&f->ids, (size_t)(g->batch * g->time) * 4},
        {&f->start, (size_t)g->batch * 4},
        {&f->states, (size_t)g->state_bytes + 64},
        {&f->derived, (size_t)g->derived_bytes + 64},
        {&f->offsets, (size_t)f->n_routes * ((size_t)model->config.experts + 1) * 4 + 64},
        {keep_logits ? &f->logits : NULL, logits},
    };
    enum itera_status status = ITERA_OK;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted && !status; i++)
        if (wanted[i].buffer)
            status = itera_buffer_create(model->device, wanted[i].bytes, wanted[i].buffer);
    return status;
}

/* The expert offsets of each router become readable: they say how many tokens each expert got. */
static void expose_routes(struct itera_bench_graph *f, int64_t experts)
{
    struct itera_program *p = f->phase.graph.p;
    int n = 0;
    for (int32_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].kind != ITERA_OP_moe_sort)
            continue;
        const int32_t offsets = p->ops[i].out[0];
        p->tensors[offsets].kind = ITERA_BOUND;
        p->tensors[offsets].name = "offsets";
        itera_bind(&f->phase.bindings, offsets, f->offsets, (size_t)(n++ * (experts + 1)) * 4);
    }
}

enum itera_status itera_bench_graph_create(struct itera_model *model, bool every_position,
                                           int64_t batch, int64_t tokens, const int32_t *ids,
                                           bool keep_logits, struct itera_bench_graph *f)
{
    *f = (struct itera_bench_graph){0};
    const struct itera_phase_options options = {.phase = every_position ? ITERA_PHASE_EVAL
                                                                        : ITERA_PHASE_INFER,
                                                .batch = batch,
                                                .time = tokens,
                                                .logits = keep_logits};
    itera_phase_record(&f->phase, model, &options);
    enum itera_status status = itera_phase_fuse(&f->phase, NULL, NULL);
    const struct itera_graph *g = &f->phase.graph;
    for (int32_t i = 0; !status && i < g->p->n_ops; i++)
        f->n_routes += g->p->ops[i].kind == ITERA_OP_moe_sort;
    if (!status)
        status = create_buffers(model, keep_logits, f);
    if (!status)
        status = itera_buffer_upload(f->ids, 0, ids, f->ids->bytes);
    if (!status)
        status = itera_model_prepare(model, g, f->derived);
    if (!status) {
        expose_routes(f, model->config.experts);
        const struct itera_phase_buffers buffers = {.ids = f->ids,
                                                    .logits = f->logits,
                                                    .start = f->start,
                                                    .states = f->states,
                                                    .derived = f->derived};
        status = itera_phase_compile(&f->phase, &buffers);
    }
    if (status)
        itera_bench_graph_destroy(f);
    return status;
}
