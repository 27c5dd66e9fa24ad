/* The training phase of whole models for checks, and files of what it should give. */
#include "check/model_values.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/rng.h"
#include "format/safetensors.h"
#include "model/phase.h"
#include "program/autodiff.h"

/* Without a file: as many tokens as the reference can do in some seconds, but no more than these.
 */
enum { SHORTEST = 32, LONGEST = 768, GRADIENT_TOKENS = 64 };
static const double REFERENCE_FLOPS = 1.5e10;

void itera_model_values_free(struct itera_model_values *o)
{
    free(o->ids);
    free(o->logits);
    free(o->grads);
    free(o->has_grad);
    *o = (struct itera_model_values){0};
}

/* ---- running the training phase -------------------------------------------------------------- */

/* A recorded and compiled forward and backward pass, with the buffers of its own. */
struct pass {
    struct itera_config config; /* without dropout */
    struct itera_model_phase run;
    struct itera_buffer *ids, *targets, *logits, *losses, *grads;
    int32_t target_tensor, ce, aux, total, *grad_tensor;
};

static void pass_destroy(struct pass *p)
{
    itera_phase_destroy(&p->run);
    itera_buffer_destroy(&p->ids);
    itera_buffer_destroy(&p->targets);
    itera_buffer_destroy(&p->logits);
    itera_buffer_destroy(&p->losses);
    itera_buffer_destroy(&p->grads);
    free(p->grad_tensor);
}

/* loss = mean cross-entropy + sum of the auxiliary losses, and its gradients. The three losses are
 * bound, so that they can be read. */
static enum itera_status record_losses(struct pass *pass, const struct itera_layout *layout,
                                       bool gradients)
{
    const struct itera_graph *g = &pass->run.graph;
    struct itera_program *p = g->p;
    int64_t dim[2] = {g->batch, g->time}, one = 1;
    pass->target_tensor = itera_bound(p, "targets", ITERA_I32, 2, dim);
    pass->ce = itera_bound(p, "ce", ITERA_F32, 1, &one);
    pass->aux = itera_bound(p, "aux", ITERA_F32, 1, &one);
    pass->total = itera_bound(p, "loss", ITERA_F32, 1, &one);
    p->part = ITERA_PART_LOSS;
    int32_t in[2] = {g->logits, pass->target_tensor}, out[2] = {pass->ce, ITERA_NEW};
    itera_record(p, ITERA_OP_cross_entropy, NULL, in, out);
    int32_t sum = g->n_aux ? g->aux[0] : ITERA_NONE;
    for (int i = 1; i < g->n_aux; i++) {
        int32_t terms[2] = {sum, g->aux[i]}, to[1] = {ITERA_NEW};
        sum = itera_record(p, ITERA_OP_add, NULL, terms, to);
    }
    int32_t to[1] = {pass->aux};
    if (sum == ITERA_NONE) {
        itera_record(p, ITERA_OP_fill, NULL, NULL, to);
        sum = pass->aux;
    } else {
        itera_record(p, ITERA_OP_copy, NULL, &sum, to);
    }
    int32_t terms[2] = {pass->ce, sum};
    to[0] = pass->total;
    itera_record(p, ITERA_OP_add, NULL, terms, to);
    if (!gradients)
        return p->status;
    for (int i = 0; i < layout->n_params; i++)
        pass->grad_tensor[i] =
            itera_bound(p, layout->params[i].name, ITERA_F32, layout->params[i].shape.rank,
                        layout->params[i].shape.dim);
    return itera_differentiate(p, pass->total, ITERA_NONE, layout->n_params, g->param_tensor,
                               pass->grad_tensor);
}

static enum itera_status pass_create(struct itera_model *m, int64_t batch, int64_t time,
                                     bool gradients, struct pass *pass)
{
    *pass = (struct pass){.config = m->config};
    pass->config.dropout = 0;
    const struct itera_phase_options options = {.phase = gradients ? ITERA_PHASE_TRAIN
                                                                   : ITERA_PHASE_EVAL,
                                                .batch = batch,
                                                .time = time,
                                                .logits = true,
                                                .config = &pass->config};
    size_t tokens = (size_t)batch * (size_t)time;
    struct itera_bindings *b = &pass->run.bindings;
    pass->grad_tensor = calloc((size_t)m->layout.n_params + 1, sizeof *pass->grad_tensor);
    enum itera_status status = ITERA_OK;
    if (!pass->grad_tensor)
        status = itera_fail(ITERA_ERR_MEMORY, "no memory to check a model");
    if (!status)
        status = itera_phase_record(&pass->run, m, &options);
    if (!status)
        status = record_losses(pass, &m->layout, gradients);
    if (!status)
        status = itera_buffer_create(m->device, tokens * 4, &pass->ids);
    if (!status)
        status = itera_buffer_create(m->device, tokens * 4, &pass->targets);
    if (!status)
        status =
            itera_buffer_create(m->device, tokens * (size_t)m->config.vocab * 4, &pass->logits);
    if (!status)
        status = itera_buffer_create(m->device, 3 * 64, &pass->losses);
    if (!status && gradients)
        status = itera_buffer_create(m->device, (size_t)m->layout.elements * 4, &pass->grads);
    if (status)
        return status;
    itera_bind(b, pass->target_tensor, pass->targets, 0);
    itera_bind(b, pass->ce, pass->losses, 0);
    itera_bind(b, pass->aux, pass->losses, 64);
    itera_bind(b, pass->total, pass->losses, 128);
    for (int i = 0; i < m->layout.n_params && gradients; i++)
        itera_bind(b, pass->grad_tensor[i], pass->grads, (size_t)m->layout.params[i].offset * 4);
    return itera_phase_compile(
        &pass->run, &(struct itera_phase_buffers){.ids = pass->ids, .logits = pass->logits});
}

enum itera_status itera_model_values_compute(struct itera_model *m, bool gradients,
                                             struct itera_model_values *o)
{
    size_t tokens = (size_t)o->batch * (size_t)o->time, vocab = (size_t)m->config.vocab;
    struct pass pass;
    int32_t *targets = malloc(tokens * sizeof *targets);
    o->logits = malloc(tokens * vocab * sizeof *o->logits);
    if (gradients)
        o->grads = calloc((size_t)m->layout.elements, sizeof *o->grads);
    enum itera_status status = ITERA_OK;
    if (!targets || !o->logits || (gradients && !o->grads))
        status = itera_fail(ITERA_ERR_MEMORY, "no memory to check a model");
    if (status) {
        free(targets);
        return status;
    }
    /* Position t predicts token t + 1; the last one predicts nothing. */
    for (size_t i = 0; i < tokens; i++)
        targets[i] = (i + 1) % (size_t)o->time ? o->ids[i + 1] : -1;
    status = pass_create(m, o->batch, o->time, gradients, &pass);
    float losses[33] = {0};
    if (!status)
        status = itera_buffer_upload(pass.ids, 0, o->ids, tokens * 4);
    if (!status)
        status = itera_buffer_upload(pass.targets, 0, targets, tokens * 4);
    if (!status)
        status = itera_run(pass.run.executable);
    if (!status)
        status = itera_buffer_download(pass.logits, 0, o->logits, tokens * vocab * 4);
    if (!status)
        status = itera_buffer_download(pass.losses, 0, losses, sizeof losses);
    if (!status && gradients)
        status = itera_buffer_download(pass.grads, 0, o->grads, (size_t)m->layout.elements * 4);
    o->aux = losses[16];
    o->loss = losses[32];
    o->has_loss = true;
    o->has_aux = gradients && pass.run.graph.n_aux > 0;
    pass_destroy(&pass);
    free(targets);
    return status;
}

/* ---- what to hold it against ----------------------------------------------------------------- */

static enum itera_status read_scalar(const struct itera_safetensors *file, const char *name,
                                     double *out, bool *present)
{
    const struct itera_safetensor *t = itera_safetensors_find(file, name);
    *present = t != NULL;
    if (!t)
        return ITERA_OK;
    if (t->count != 1)
        return itera_fail(ITERA_ERR_SHAPE, "%s: %s has %lld elements, expected 1", t->source, name,
                          (long long)t->count);
    float value = 0;
    enum itera_status status = itera_safetensor_check_finite(t);
    if (!status)
        status = itera_safetensor_read_f32(t, 0, 1, &value);
    *out = value;
    return status;
}

/* Reads the gradients that the file has, named after the model's file tensors. */
static enum itera_status read_gradients(const struct itera_safetensors *file,
                                        const struct itera_layout *layout, const char *path,
                                        struct itera_model_values *o)
{
    size_t parts = 0, known = 0, in_file = 0;
    for (size_t i = 0; i < itera_safetensors_count(file); i++)
        in_file += !strncmp(itera_safetensors_at(file, i)->name, "grad.", 5);
    if (!in_file)
        return ITERA_OK;
    for (int i = 0; i < layout->n_params; i++)
        parts += (size_t)layout->params[i].n_parts;
    o->grads = calloc((size_t)layout->elements, sizeof *o->grads);
    o->has_grad = calloc(parts, sizeof *o->has_grad);
    if (!o->grads || !o->has_grad)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for the gradients", path);
    size_t at = 0;
    for (int i = 0; i < layout->n_params; i++) {
        for (int k = 0; k < layout->params[i].n_parts; k++, at++) {
            const struct itera_param_part *part = &layout->params[i].parts[k];
            char name[512];
            snprintf(name, sizeof name, "grad.%s", part->name);
            if (!itera_safetensors_find(file, name))
                continue;
            const struct itera_safetensor *t;
            enum itera_status status =
                itera_safetensors_expect(file, name, part->rank, part->dim, &t);
            if (!status)
                status = itera_safetensor_check_finite(t);
            if (!status)
                status = itera_safetensor_read_f32(t, 0, t->count, o->grads + part->offset);
            if (status)
                return status;
            o->has_grad[at] = true;
            known++;
        }
    }
    if (known < in_file)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: %zu of its %zu gradients belong to no parameter of the model", path,
                          in_file - known, in_file);
    return ITERA_OK;
}

enum itera_status itera_model_values_read(const char *path, const struct itera_model *m,
                                          struct itera_model_values *o)
{
    struct itera_safetensors *file = NULL;
    enum itera_status status = itera_safetensors_open(path, &file);
    if (status)
        return status;
    const struct itera_safetensor *ids, *logits;
    const int32_t vocab = m->config.vocab, positions = m->config.max_positions;
    ids = itera_safetensors_find(file, "input_ids");
    if (!ids || ids->rank != 2 || ids->count < 1)
        status = itera_fail(ITERA_ERR_FORMAT,
                            "%s: no tensor input_ids of shape (batch, time), which says what "
                            "the model reads",
                            path);
    if (!status) {
        o->batch = ids->dim[0];
        o->time = ids->dim[1];
        if (positions && o->time > positions)
            status = itera_fail(ITERA_ERR_SHAPE, "%s: input_ids has %lld positions, the model %d",
                                path, (long long)o->time, positions);
    }
    if (!status)
        status = itera_safetensors_expect(file, "logits", 3,
                                          (const int64_t[]){o->batch, o->time, vocab}, &logits);
    if (!status) {
        o->ids = malloc((size_t)ids->count * sizeof *o->ids);
        o->logits = malloc((size_t)logits->count * sizeof *o->logits);
        if (!o->ids || !o->logits)
            status = itera_fail(ITERA_ERR_MEMORY, "%s: no memory for its logits", path);
    }
    if (!status)
        status = itera_safetensor_read_i32(ids, 0, ids->count, o->ids);
    for (int64_t i = 0; !status && i < ids->count; i++)
        if (o->ids[i] < 0 || o->ids[i] >= vocab)
            status = itera_fail(ITERA_ERR_FORMAT,
                                "%s: input_ids holds %d at element %lld; the model has %d tokens",
                                path, o->ids[i], (long long)i, vocab);
    if (!status)
        status = itera_safetensor_check_finite(logits);
    if (!status)
        status = itera_safetensor_read_f32(logits, 0, logits->count, o->logits);
    if (!status)
        status = read_scalar(file, "loss", &o->loss, &o->has_loss);
    if (!status)
        status = read_scalar(file, "aux_loss", &o->aux, &o->has_aux);
    if (!status)
        status = read_gradients(file, &m->layout, path, o);
    if (!status)
        status = itera_safetensors_check(file);
    itera_safetensors_close(&file);
    return status;
}

enum itera_status itera_model_values_reference(const char *model, uint64_t seed, bool gradients,
                                               struct itera_model_values *o)
{
    struct itera_device *device = NULL;
    struct itera_model *m = NULL;
    struct itera_device_options options = {.isa = "ref"};
    const struct itera_load_options load = {.expand = gradients, .exact = true};
    enum itera_status status = itera_device_open("cpu", &options, &device);
    if (!status)
        status = itera_model_load_as(device, model, &load, &m);
    if (!status) {
        double affordable = REFERENCE_FLOPS / fmax(m->info.flops_per_token, 1);
        int64_t time = affordable > LONGEST ? LONGEST : (int64_t)affordable;
        time = time < SHORTEST ? SHORTEST : time;
        if (gradients && time > GRADIENT_TOKENS)
            time = GRADIENT_TOKENS;
        if (m->config.max_positions && time > m->config.max_positions)
            time = m->config.max_positions;
        o->batch = 1;
        o->time = time;
        o->ids = malloc((size_t)time * sizeof *o->ids);
        if (!o->ids)
            status = itera_fail(ITERA_ERR_MEMORY, "no memory to check a model");
        struct itera_rng rng = {.seed = seed, .stream = 0x6d6f64656cu};
        for (int64_t i = 0; !status && i < time; i++)
            o->ids[i] = (int32_t)itera_rng_below(&rng, (uint32_t)m->config.vocab);
        if (!status)
            status = itera_model_values_compute(m, gradients, o);
        o->layers = m->config.layers;
        o->quantised = itera_model_is_quantised(m);
        for (int i = 0; i < m->layout.n_params; i++)
            o->half |= m->layout.params[i].matrix && m->layout.params[i].dtype == ITERA_F16;
    }
    itera_model_destroy(&m);
    itera_device_close(&device);
    return status;
}
