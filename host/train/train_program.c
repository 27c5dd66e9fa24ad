/* The programs of a training step: forward, losses, gradients, optimiser; and of an evaluation. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "program/autodiff.h"
#include "program/precision.h"
#include "train/trainer_impl.h"

/* hyper of adamw, in this order. */
enum { HYPER_COUNT = 8 };

/* The loss scale at the start, and the steps without overflow after which it is doubled. */
static const float FIRST_SCALE = 65536.0f;
enum { SCALE_STEPS = 1000 };

/* Makes an activation a tensor that the host may read: its place is bound by the caller. */
static void expose(struct itera_program *p, int32_t tensor, const char *name)
{
    if (p->status || tensor < 0)
        return;
    p->tensors[tensor].kind = ITERA_BOUND;
    p->tensors[tensor].name = name;
}

/* Where the flat tensors of the optimiser go, besides the model's weights. */
struct optimizer_buffers {
    struct itera_buffer *grads, *m, *v, *hyper, *figures;
};

/* grad_norm and AdamW over the flat buffers: [0, decay) with weight decay, the rest without. */
static void record_optimizer(struct itera_program *p, const struct itera_model *model,
                             const struct optimizer_buffers *at, double weight_decay,
                             enum itera_precision precision, struct itera_bindings *b)
{
    const int64_t n = model->layout.elements, eight = HYPER_COUNT, two = 2;
    p->part = ITERA_PART_OPTIMIZER;
    int32_t grad = itera_bound(p, "grad", ITERA_F32, 1, &n);
    int32_t hyper = itera_bound(p, "hyper", ITERA_F32, 1, &eight);
    int32_t norm = itera_bound(p, "norm", ITERA_F32, 1, &two);
    itera_bind(b, grad, at->grads, 0);
    itera_bind(b, hyper, at->hyper, 0);
    itera_bind(b, norm, at->figures, FIGURE_NORM * 4);
    itera_record(p, ITERA_OP_grad_norm, NULL, &grad, &norm);
    if (precision == ITERA_PRECISION_F16) {
        int32_t in[2] = {itera_bound(p, "scale", ITERA_F32, 1, &two), norm};
        itera_bind(b, in[0], at->figures, FIGURE_SCALE * 4);
        itera_record(p, ITERA_OP_loss_scale, &(struct itera_attr){.count = SCALE_STEPS}, in, NULL);
    }
    const int64_t begin[2] = {0, model->layout.decay_elements};
    const int64_t end[2] = {model->layout.decay_elements, n};
    for (int part = 0; part < 2; part++) {
        const int64_t count = end[part] - begin[part];
        const size_t offset = (size_t)begin[part] * 4;
        if (!count)
            continue;
        int32_t in[6] = {itera_bound(p, "param", ITERA_F32, 1, &count),
                         itera_bound(p, "grad part", ITERA_F32, 1, &count),
                         itera_bound(p, "m", ITERA_F32, 1, &count),
                         itera_bound(p, "v", ITERA_F32, 1, &count),
                         hyper,
                         norm};
        itera_bind(b, in[0], model->weights, offset);
        itera_bind(b, in[1], at->grads, offset);
        itera_bind(b, in[2], at->m, offset);
        itera_bind(b, in[3], at->v, offset);
        struct itera_attr attr = {.p = part ? 0 : (float)weight_decay};
        itera_record(p, ITERA_OP_adamw, &attr, in, NULL);
    }
}

static enum itera_status create_buffers(struct itera_train_program *t,
                                        const struct itera_model *model)
{
    const size_t flat = (size_t)model->layout.elements * 4;
    const size_t ids = (size_t)(t->batch * t->seq) * 4;
    const struct {
        struct itera_buffer **buffer;
        size_t bytes;
    } wanted[] = {
        {&t->grads, flat},
        {&t->m, flat},
        {&t->v, flat},
        {&t->ids, ids},
        {&t->targets, ids},
        {&t->rng, 16},
        {&t->hyper, HYPER_COUNT * 4},
        {&t->figures, (size_t)(FIGURE_LOAD + t->n_moe * t->experts) * 4},
        {&t->sums, t->accumulate > 1 ? flat : 4},
    };
    t->host_ids = malloc(ids);
    t->host_targets = malloc(ids);
    t->found = calloc((size_t)(FIGURE_LOAD + t->n_moe * t->experts), sizeof *t->found);
    if (!t->host_ids || !t->host_targets || !t->found)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for a batch of %lld x %lld tokens",
                          (long long)t->batch, (long long)t->seq);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        enum itera_status status =
            itera_buffer_create(t->device, wanted[i].bytes, wanted[i].buffer);
        if (status)
            return status;
    }
    return ITERA_OK;
}

struct gradients {
    struct itera_train_program *t;
    int32_t loss;
};

/* The gradient of every parameter, into one flat buffer with the layout's offsets. */
static enum itera_status differentiate(void *user, struct itera_model_phase *phase)
{
    struct itera_train_program *t = ((struct gradients *)user)->t;
    const int32_t loss = ((struct gradients *)user)->loss;
    const struct itera_layout *layout = &phase->model->layout;
    struct itera_program *p = phase->graph.p;
    struct itera_bindings *b = &phase->bindings;
    size_t n = (size_t)layout->n_params;
    int32_t *grads = malloc((n + 1) * sizeof *grads);
    if (!grads)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to differentiate a model");
    for (int i = 0; i < layout->n_params; i++) {
        const struct itera_param *param = &layout->params[i];
        grads[i] = itera_bound(p, param->name, ITERA_F32, param->shape.rank, param->shape.dim);
        itera_bind(b, grads[i], t->grads, (size_t)param->offset * 4);
    }
    int32_t seed = ITERA_NONE;
    if (t->precision == ITERA_PRECISION_F16) {
        /* Starting from the scale instead of 1 scales every gradient. */
        seed = itera_bound(p, "seed", ITERA_F32, 1, (int64_t[]){1});
        itera_bind(b, seed, t->figures, FIGURE_SCALE * 4);
    }
    enum itera_status status = p->status ? p->status
                                         : itera_differentiate(p, loss, seed, layout->n_params,
                                                               phase->graph.param_tensor, grads);
    free(grads);
    if (!status && t->precision == ITERA_PRECISION_F16)
        status = itera_lower_precision(p);
    return status;
}

/* Takes the loss scale out of the flat gradient. */
static void record_unscale(struct itera_train_program *t, const struct itera_model *model)
{
    struct itera_bindings *b = &t->train.bindings;
    const int64_t n = model->layout.elements, two = 2;
    struct itera_program *p = t->train.graph.p;
    p->part = ITERA_PART_OPTIMIZER;
    int32_t in[2] = {itera_bound(p, "grad", ITERA_F32, 1, &n),
                     itera_bound(p, "scale", ITERA_F32, 1, &two)};
    itera_bind(b, in[0], t->grads, 0);
    itera_bind(b, in[1], t->figures, FIGURE_SCALE * 4);
    itera_record(p, ITERA_OP_unscale, NULL, in, &in[0]);
}

static void bind_figures(struct itera_train_program *t, int32_t ce, int32_t aux, int32_t kl)
{
    struct itera_bindings *b = &t->train.bindings;
    struct itera_program *p = t->train.graph.p;
    expose(p, ce, "loss");
    itera_bind(b, ce, t->figures, FIGURE_LOSS * 4);
    if (aux >= 0) {
        expose(p, aux, "aux_loss");
        itera_bind(b, aux, t->figures, FIGURE_AUX * 4);
    }
    if (kl >= 0) {
        expose(p, kl, "kl_loss");
        itera_bind(b, kl, t->figures, FIGURE_KL * 4);
    }
    for (int i = 0; i < t->n_moe; i++) {
        expose(p, t->train.graph.load[i], "load");
        itera_bind(b, t->train.graph.load[i], t->figures,
                   (size_t)(FIGURE_LOAD + i * t->experts) * 4);
    }
}

static enum itera_status create_train(struct itera_train_program *t, struct itera_model *model,
                                      double weight_decay,
                                      const struct itera_train_teaching *teaching)
{
    struct itera_bindings *b = &t->train.bindings, apart = {0};
    const struct itera_phase_options options = {
        .phase = ITERA_PHASE_TRAIN, .batch = t->batch, .time = t->seq};
    enum itera_status status = itera_phase_record(&t->train, model, &options);
    if (status)
        return status;
    struct itera_graph *g = &t->train.graph;
    t->n_moe = g->n_aux;
    t->experts = t->n_moe ? model->config.experts : 0;
    status = create_buffers(t, model);
    if (status)
        return status;
    const int64_t dim[2] = {t->batch, t->seq};
    int32_t targets = itera_bound(g->p, "targets", ITERA_I32, 2, dim), ce, aux, kl = ITERA_NONE;
    int32_t loss = teaching ? itera_train_distill_losses(t, teaching, targets, b, &ce, &aux, &kl)
                            : itera_graph_losses(g, targets, &ce, &aux);
    itera_bind(b, targets, t->targets, 0);
    status = itera_phase_fuse(&t->train, differentiate, &(struct gradients){t, loss});
    if (status)
        return status;
    bind_figures(t, ce, aux, kl);
    if (t->precision == ITERA_PRECISION_F16)
        record_unscale(t, model);
    struct optimizer_buffers at = {t->grads, t->m, t->v, t->hyper, t->figures};
    if (t->accumulate == 1) {
        record_optimizer(g->p, model, &at, weight_decay, t->precision, b);
    } else {
        const int64_t n = model->layout.elements;
        g->p->part = ITERA_PART_OPTIMIZER;
        int32_t in[2] = {itera_bound(g->p, "sum", ITERA_F32, 1, &n),
                         itera_bound(g->p, "grad", ITERA_F32, 1, &n)};
        itera_bind(b, in[0], t->sums, 0);
        itera_bind(b, in[1], t->grads, 0);
        itera_record(g->p, ITERA_OP_add, NULL, in, &in[0]);
        status = itera_program_create(&t->update);
        if (status)
            return status;
        at.grads = t->sums;
        record_optimizer(t->update, model, &at, weight_decay, t->precision, &apart);
        int32_t sum = itera_bound(t->update, "sum", ITERA_F32, 1, &n);
        itera_bind(&apart, sum, t->sums, 0);
        itera_record(t->update, ITERA_OP_fill, NULL, NULL, &sum);
        status = apart.status;
        if (!status)
            status = itera_compile(t->device, t->update, apart.list, apart.n, NULL, NULL,
                                   &t->update_run);
    }
    if (!status)
        status = itera_phase_compile(&t->train,
                                     &(struct itera_phase_buffers){.ids = t->ids, .rng = t->rng});
    if (!status && teaching)
        status = itera_train_distill_compile(t, teaching->teacher);
    if (!status)
        status = itera_train_program_set_scale(t, (float[2]){FIRST_SCALE, 0});
    itera_bindings_free(&apart);
    return status;
}

enum itera_status itera_train_program_create(struct itera_model *model, int64_t batch, int64_t seq,
                                             int64_t accumulate, double weight_decay,
                                             enum itera_precision precision,
                                             const struct itera_train_teaching *teaching,
                                             struct itera_train_program *out)
{
    *out = (struct itera_train_program){.device = model->device,
                                        .batch = batch,
                                        .seq = seq,
                                        .accumulate = accumulate,
                                        .precision = precision};
    enum itera_status status = create_train(out, model, weight_decay, teaching);
    if (status)
        itera_train_program_destroy(out);
    return status;
}

/* Waits for the steps that were not read; their figures are lost. */
static void forget(struct itera_train_program *t)
{
    for (int i = 0; i < t->n_pending; i++)
        for (int k = 0; k < t->pending[i].n; k++)
            (void)itera_collect(&t->pending[i].ticket[k], NULL);
    t->n_pending = 0;
}

void itera_train_program_destroy(struct itera_train_program *t)
{
    forget(t);
    itera_phase_destroy(&t->train);
    itera_phase_destroy(&t->eval);
    itera_phase_destroy(&t->teacher);
    itera_executable_destroy(&t->update_run);
    itera_executable_destroy(&t->teacher_loss_run);
    itera_program_destroy(&t->update);
    itera_program_destroy(&t->teacher_loss);
    struct itera_buffer **buffers[] = {&t->grads,   &t->sums,          &t->m,   &t->v,
                                       &t->ids,     &t->targets,       &t->rng, &t->hyper,
                                       &t->figures, &t->teacher_logits};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        itera_buffer_destroy(buffers[i]);
    free(t->host_ids);
    free(t->host_targets);
    free(t->found);
    *t = (struct itera_train_program){0};
}

static enum itera_status upload_batch(struct itera_train_program *t)
{
    size_t bytes = (size_t)(t->batch * t->seq) * 4;
    enum itera_status status = itera_buffer_upload(t->ids, 0, t->host_ids, bytes);
    return status ? status : itera_buffer_upload(t->targets, 0, t->host_targets, bytes);
}

static void find_settings(const struct itera_train_program *t, const struct itera_train_options *o,
                          double lr, int64_t step, float hyper[HYPER_COUNT])
{
    double count = (double)(step + 1);
    const float settings[HYPER_COUNT] = {(float)lr,
                                         (float)o->beta1,
                                         (float)o->beta2,
                                         (float)o->eps,
                                         (float)(1 - pow(o->beta1, count)),
                                         (float)(1 - pow(o->beta2, count)),
                                         (float)o->clip,
                                         (float)(1.0 / (double)t->accumulate)};
    memcpy(hyper, settings, sizeof settings);
}

/* Collects the oldest batch of a step. */
static enum itera_status collect(struct itera_train_program *t, struct itera_train_pending *p)
{
    enum itera_status status = itera_collect(&p->ticket[0], t->found);
    p->ticket[0] = p->ticket[1];
    p->ticket[1] = NULL;
    p->n--;
    p->loss += (double)t->found[FIGURE_LOSS];
    p->aux += (double)t->found[FIGURE_AUX];
    p->kl += t->teacher.executable ? (double)t->found[FIGURE_KL] : (double)NAN;
    return status;
}

/* Batch i of a step. */
static enum itera_status queue_batch(struct itera_train_program *t,
                                     const struct itera_train_options *o,
                                     const float hyper[HYPER_COUNT], int64_t i,
                                     const struct itera_dataset *data,
                                     struct itera_train_pending *p)
{
    const size_t bytes = (size_t)(t->batch * t->seq) * 4;
    uint64_t draw = (uint64_t)(p->step * t->accumulate + i);
    const uint32_t rng[4] = {(uint32_t)o->seed, (uint32_t)(o->seed >> 32), (uint32_t)draw,
                             (uint32_t)(draw >> 32)};
    enum itera_status status = itera_dataset_batch(data, o->seed, draw, (size_t)t->batch,
                                                   (size_t)t->seq, t->host_ids, t->host_targets);
    struct itera_job job = {.upload = {{t->hyper, 0, HYPER_COUNT * 4, hyper},
                                       {t->rng, 0, sizeof rng, rng},
                                       {t->ids, 0, bytes, t->host_ids},
                                       {t->targets, 0, bytes, t->host_targets}},
                            .n_uploads = 4,
                            .from = t->figures,
                            .bytes = t->figures->bytes};
    if (t->teacher.executable)
        job.run[job.n_runs++] = t->teacher.executable;
    job.run[job.n_runs++] = t->train.executable;
    if (t->update_run && i == t->accumulate - 1)
        job.run[job.n_runs++] = t->update_run;
    if (!status && p->n == 2)
        status = collect(t, p);
    if (!status)
        status = itera_submit(&job, &p->ticket[p->n]);
    p->n += !status;
    return status;
}

int itera_train_program_ahead(const struct itera_train_program *t)
{
    return itera_can_submit(t->train.executable) ? ITERA_TRAIN_PENDING - 1 : 0;
}

enum itera_status itera_train_program_step(struct itera_train_program *t,
                                           const struct itera_train_options *o, double lr,
                                           int64_t step, const struct itera_dataset *data)
{
    float hyper[HYPER_COUNT];
    struct itera_train_pending *p = &t->pending[t->n_pending];
    *p = (struct itera_train_pending){.step = step};
    t->n_pending++;
    find_settings(t, o, lr, step, hyper);
    enum itera_status status = ITERA_OK;
    for (int64_t i = 0; i < t->accumulate && !status; i++)
        status = queue_batch(t, o, hyper, i, data, p);
    if (status)
        forget(t);
    return status;
}

enum itera_status itera_train_program_read(struct itera_train_program *t,
                                           struct itera_train_figures *figures)
{
    struct itera_train_pending *p = &t->pending[0];
    enum itera_status status = ITERA_OK;
    while (p->n && !status)
        status = collect(t, p);
    if (status) {
        forget(t);
        return status;
    }
    figures->step = p->step;
    figures->finite = t->found[FIGURE_NORM + 1] > 0;
    figures->loss = p->loss / (double)t->accumulate;
    figures->aux_loss = p->aux / (double)t->accumulate;
    figures->kl_loss = p->kl / (double)t->accumulate;
    figures->grad_norm = (double)t->found[FIGURE_NORM] / (double)t->accumulate;
    for (int i = 0; i < t->n_moe * t->experts && figures->load; i++)
        figures->load[i] = (double)t->found[FIGURE_LOAD + i];
    t->n_pending--;
    memmove(t->pending, t->pending + 1, (size_t)t->n_pending * sizeof *t->pending);
    return ITERA_OK;
}

enum itera_status itera_train_program_get_scale(struct itera_train_program *t, float scale[2])
{
    return itera_buffer_download(t->figures, FIGURE_SCALE * 4, scale, 2 * sizeof *scale);
}

enum itera_status itera_train_program_set_scale(struct itera_train_program *t, const float scale[2])
{
    return itera_buffer_upload(t->figures, FIGURE_SCALE * 4, scale, 2 * sizeof *scale);
}

enum itera_status itera_train_program_loss(const struct itera_train_program *t, double *loss)
{
    float found = NAN;
    enum itera_status status =
        itera_buffer_download(t->figures, FIGURE_LOSS * 4, &found, sizeof found);
    *loss = (double)found;
    return status;
}

static enum itera_status create_eval(struct itera_train_program *t, const struct itera_model *model)
{
    const struct itera_phase_options options = {
        .phase = ITERA_PHASE_EVAL, .batch = t->batch, .time = t->seq};
    enum itera_status status = itera_phase_record(&t->eval, model, &options);
    if (status)
        return status;
    const struct itera_graph *g = &t->eval.graph;
    const int64_t dim[2] = {t->batch, t->seq};
    int32_t targets = itera_bound(g->p, "targets", ITERA_I32, 2, dim), ce, aux;
    itera_graph_losses(g, targets, &ce, &aux);
    itera_bind(&t->eval.bindings, targets, t->targets, 0);
    itera_phase_fuse(&t->eval, NULL, NULL);
    expose(g->p, ce, "loss");
    itera_bind(&t->eval.bindings, ce, t->figures, FIGURE_LOSS * 4);
    return itera_phase_compile(&t->eval, &(struct itera_phase_buffers){.ids = t->ids});
}

enum itera_status itera_train_program_evaluate(struct itera_train_program *t,
                                               const struct itera_model *model,
                                               const struct itera_dataset *data, uint64_t batches,
                                               double *loss)
{
    *loss = 0;
    enum itera_status status = ITERA_OK;
    if (model && !t->eval.executable)
        status = create_eval(t, model);
    else if (!model && !t->teacher_loss_run)
        status = itera_train_distill_compile_loss(t);
    double sum = 0, tokens = 0;
    for (uint64_t i = 0; i < batches && !status; i++) {
        size_t scored;
        float mean = 0;
        status = itera_dataset_eval_batch(data, i, (size_t)t->batch, (size_t)t->seq, 0, t->host_ids,
                                          t->host_targets, &scored);
        if (!status)
            status = upload_batch(t);
        if (!status && !model)
            status = itera_run(t->teacher.executable);
        if (!status)
            status = itera_run(model ? t->eval.executable : t->teacher_loss_run);
        if (!status)
            status = itera_buffer_download(t->figures, FIGURE_LOSS * 4, &mean, sizeof mean);
        sum += (double)mean * (double)scored;
        tokens += (double)scored;
    }
    if (!status)
        *loss = sum / tokens;
    return status;
}
