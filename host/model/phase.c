#include "model/phase.h"

#include "program/fuse.h"

enum itera_status itera_phase_record_layout(struct itera_model_phase *phase,
                                            const struct itera_config *config,
                                            const struct itera_layout *layout,
                                            const struct itera_phase_options *options)
{
    itera_phase_destroy(phase);
    phase->fused = options->unfused;
    phase->graph = (struct itera_graph){
        .phase = options->phase,
        .batch = options->batch,
        .time = options->time,
        .positions = options->positions ? options->positions : config->max_positions,
        .logits_bound = options->logits,
    };
    /* The layout is only looked up, as the graph is not declaring. */
    phase->status = itera_graph_record(&phase->graph, config, (struct itera_layout *)layout);
    return phase->status;
}

enum itera_status itera_phase_record(struct itera_model_phase *phase,
                                     const struct itera_model *model,
                                     const struct itera_phase_options *options)
{
    const struct itera_config *config = options->config ? options->config : &model->config;
    enum itera_status status = itera_phase_record_layout(phase, config, &model->layout, options);
    phase->model = model;
    return status;
}

enum itera_status itera_phase_fuse(struct itera_model_phase *phase, itera_phase_pass *between,
                                   void *user)
{
    if (!phase->status)
        phase->status = phase->graph.p->status;
    if (!phase->status)
        phase->status = itera_fuse_forward(phase->graph.p);
    if (!phase->status && between)
        phase->status = between(user, phase);
    if (!phase->status)
        phase->status = itera_fuse_epilogues(phase->graph.p);
    phase->fused = true;
    return phase->status;
}

static void bind_all(struct itera_model_phase *phase, const struct itera_phase_buffers *buffers)
{
    const struct itera_graph *g = &phase->graph;
    struct itera_bindings *b = &phase->bindings;
    itera_bind_graph(b, g, phase->model, buffers->states, buffers->derived);
    itera_bind(b, g->ids, buffers->ids, 0);
    if (g->logits_bound)
        itera_bind(b, g->logits, buffers->logits, 0);
    if (g->start >= 0)
        itera_bind(b, g->start, buffers->start, 0);
    if (g->rng >= 0)
        itera_bind(b, g->rng, buffers->rng, 0);
}

enum itera_status itera_phase_compile(struct itera_model_phase *phase,
                                      const struct itera_phase_buffers *buffers)
{
    struct itera_bindings *b = &phase->bindings;
    if (!phase->status && !phase->fused)
        itera_phase_fuse(phase, NULL, NULL);
    if (!phase->status)
        phase->status = phase->graph.p->status;
    if (!phase->status) {
        bind_all(phase, buffers);
        phase->status = b->status;
    }
    if (!phase->status)
        phase->status = itera_compile(phase->model->device, phase->graph.p, b->list, b->n, NULL,
                                      NULL, &phase->executable);
    itera_bindings_free(b);
    return phase->status;
}

void itera_phase_destroy(struct itera_model_phase *phase)
{
    itera_executable_destroy(&phase->executable);
    itera_graph_destroy(&phase->graph);
    itera_bindings_free(&phase->bindings);
    *phase = (struct itera_model_phase){0};
}
