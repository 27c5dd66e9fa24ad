/* Tasks of whole models: forward, prefill, decode, training step. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_impl.h"
#include "core/log.h"
#include "infer/session_impl.h"
#include "itera/session.h"
#include "model/model_impl.h"
#include "train/trainer_impl.h"

/* What a phase's task is made of. */
struct content {
    struct itera_model *model;
    int64_t batch, tokens;
    int32_t *ids; /* (batch, tokens); decode: (batch), the first token of each sequence */
    struct itera_bench_graph graph;   /* forward, prefill */
    struct itera_train_program train; /* train */
    bool has_train;
    struct itera_session *session; /* decode */
    int32_t *next, *behind;        /* decode: (batch) */
    int64_t read;                  /* decode: tokens since the beginning */
    bool mixed;                    /* decode: at different positions */
};

static void content_destroy(void *user)
{
    struct content *c = user;
    itera_bench_graph_destroy(&c->graph);
    if (c->has_train)
        itera_train_program_destroy(&c->train);
    itera_session_destroy(&c->session);
    free(c->ids);
    free(c->next);
    free(c->behind);
    free(c);
}

/* The type of the weights: "mixed" when no type has nine tenths of the matrices. */
static const char *weight_type(const struct itera_layout *layout)
{
    int64_t elements[ITERA_DTYPE_COUNT] = {0}, all = 0;
    for (int i = 0; i < layout->n_params; i++) {
        const struct itera_param *param = &layout->params[i];
        int64_t n = param->matrix ? itera_shape_elements(&param->shape) : 0;
        elements[param->dtype] += n;
        all += n;
    }
    for (int k = 0; k < ITERA_DTYPE_COUNT; k++)
        if (10 * elements[k] >= 9 * all)
            return itera_dtype_name((enum itera_dtype)k);
    return "mixed";
}

static void label(struct itera_bench_row *row, const struct itera_model *model, const char *name,
                  const char *phase, int64_t batch, int64_t tokens)
{
    snprintf(row->dtype, sizeof row->dtype, "%s", weight_type(&model->layout));
    snprintf(row->phase, sizeof row->phase, "%s", phase);
    snprintf(row->op, sizeof row->op, "%s", name);
    snprintf(row->case_name, sizeof row->case_name, "%lldx%lld", (long long)batch,
             (long long)tokens);
    row->batch = batch;
    row->tokens = batch * tokens;
    row->peak_bytes = (size_t)model->info.bytes;
}

/* The imbalance of one MoE layer from what each expert got. */
static void add_layer(struct itera_bench_load *load, const double *assigned, int experts)
{
    double busiest = 0, all = 0;
    for (int e = 0; e < experts; e++) {
        busiest = fmax(busiest, assigned[e]);
        all += assigned[e];
    }
    double imbalance = all > 0 ? busiest * experts / all : 1;
    if (load->layers < ITERA_BENCH_MOE_LAYERS)
        load->imbalance[load->layers++] = imbalance;
    load->worst = fmax(load->worst, imbalance);
}

/* ---- forward and prefill --------------------------------------------------------------------- */

static enum itera_status read_load(struct itera_bench_task *task)
{
    struct content *c = task->content;
    const int experts = c->model->config.experts;
    struct itera_bench_load *load = &task->row.load;
    int32_t offsets[ITERA_MAX_EXPERTS + 1];
    double assigned[ITERA_MAX_EXPERTS];
    const size_t bytes = ((size_t)experts + 1) * sizeof *offsets;
    *load = (struct itera_bench_load){
        .experts = experts, .top_k = c->model->config.top_k, .tokens = task->row.tokens};
    enum itera_status status = ITERA_OK;
    for (int i = 0; i < c->graph.n_routes && !status; i++) {
        status = itera_buffer_download(c->graph.offsets, (size_t)i * bytes, offsets, bytes);
        for (int e = 0; e < experts; e++)
            assigned[e] = (double)offsets[e + 1] - offsets[e];
        add_layer(load, assigned, experts);
    }
    return status;
}

/* From a fresh state: the logits of the first sequence, its first positions where there are all. */
static enum itera_status graph_parity(struct itera_bench_task *task)
{
    enum { POSITIONS = 64 };
    struct content *c = task->content;
    struct itera_bench_graph *g = &c->graph;
    const bool every = g->phase.graph.phase == ITERA_PHASE_EVAL;
    const int64_t vocab = c->model->config.vocab;
    int64_t n = every && c->tokens > POSITIONS ? POSITIONS : c->tokens;
    int64_t positions = every ? n : 1;
    const size_t bytes = (size_t)(positions * vocab) * sizeof(float);
    float *logits = malloc(bytes);
    void *zeros = calloc(1, g->states->bytes);
    enum itera_status status = ITERA_OK;
    if (!logits || !zeros)
        status = itera_fail(ITERA_ERR_MEMORY, "no memory for the logits of a benchmark");
    if (!status)
        status = itera_buffer_upload(g->states, 0, zeros, g->states->bytes);
    if (!status)
        status = itera_run(g->phase.executable);
    if (!status)
        status = itera_buffer_download(g->logits, 0, logits, bytes);
    if (!status)
        status = itera_bench_compare(c->model, c->ids, n, logits, positions, &task->row.parity);
    if (!status)
        status = read_load(task);
    free(logits);
    free(zeros);
    return status;
}

static enum itera_status make_graph(struct itera_bench_task *task, const char *name, bool every)
{
    struct content *c = task->content;
    enum itera_status status =
        itera_bench_graph_create(c->model, every, c->batch, c->tokens, c->ids, true, &c->graph);
    if (status)
        return status;
    struct itera_bench_row *row = &task->row;
    label(row, c->model, name, every ? "forward" : "prefill", c->batch, c->tokens);
    row->flops = itera_program_cost(c->graph.phase.graph.p, NULL).flops;
    /* The least traffic: every weight once. Activations may stay in caches. */
    row->bytes = (double)c->model->info.bytes;
    task->executable = c->graph.phase.executable;
    task->program = c->graph.phase.graph.p;
    task->work =
        (struct itera_bench_work){.run = itera_bench_run_program, .user = task->executable};
    task->parity = graph_parity;
    return ITERA_OK;
}

/* ---- decode ---------------------------------------------------------------------------------- */

static enum itera_status start_decode(struct content *c)
{
    c->read = 0;
    enum itera_status status = itera_session_reset(c->session);
    if (!status)
        status = itera_session_prefill(c->session, c->ids, 1);
    /* Sequence k reads its first token k times more. */
    for (int64_t k = 1; k < c->batch && c->mixed && !status; k++)
        status = itera_session_prefill_some(c->session, c->behind + k, (size_t)(c->batch - k),
                                            c->ids + k, 1);
    return status ? status : itera_session_next(c->session, c->next); /* reads nothing yet */
}

static enum itera_status prepare_decode(void *user)
{
    struct content *c = user;
    return c->read < c->tokens ? ITERA_OK : start_decode(c);
}

/* As whoever generates text does: a GPU runs ahead. Not a device of software, where a step of a block is
 * soon as long as the block, and those that nobody asked for would be most of the work. */
static enum itera_status run_decode(void *user)
{
    struct content *c = user;
    const bool software = c->model->device->info.type == ITERA_DEVICE_SOFTWARE;
    const int64_t left = software ? 0 : c->tokens - c->read;
    enum itera_status status = itera_session_run_ahead(c->session, (uint64_t)(left < 0 ? 0 : left));
    c->read++;
    return status ? status : itera_session_next(c->session, c->next);
}

static enum itera_status finish_decode(void *user)
{
    const struct content *c = user;
    return itera_session_run_ahead(c->session, 0);
}

/* The logits after some tokens of the first sequence, which it chose itself. */
static enum itera_status decode_parity(struct itera_bench_task *task)
{
    enum { TOKENS = 8 };
    struct content *c = task->content;
    const int64_t n = c->tokens < TOKENS ? c->tokens : TOKENS;
    int32_t ids[TOKENS + 1] = {c->ids[0]};
    float *logits = malloc((size_t)(c->batch * c->model->config.vocab) * sizeof *logits);
    enum itera_status status =
        logits ? start_decode(c)
               : itera_fail(ITERA_ERR_MEMORY, "no memory for the logits of a benchmark");
    for (int64_t i = 0; i < n && !status; i++) {
        ids[i + 1] = c->next[0];
        status = run_decode(c);
    }
    if (!status)
        status = itera_session_logits(c->session, logits);
    if (!status)
        status = itera_bench_compare(c->model, ids, n + 1, logits, 1, &task->row.parity);
    c->read = c->tokens;
    free(logits);
    return status;
}

static enum itera_status make_decode(struct itera_bench_task *task, const char *name)
{
    struct content *c = task->content;
    const struct itera_session_options options = {.batch = (int32_t)c->batch};
    c->next = calloc((size_t)c->batch, sizeof *c->next);
    c->behind = calloc((size_t)c->batch, sizeof *c->behind);
    for (int64_t k = 0; k < c->batch && c->behind; k++)
        c->behind[k] = (int32_t)k;
    enum itera_status status = c->next && c->behind
                                   ? itera_session_create(c->model, &options, &c->session)
                                   : itera_fail(ITERA_ERR_MEMORY, "no memory for a benchmark");
    if (!status)
        status = itera_session_warm(c->session, 1);
    if (status)
        return status;
    c->read = c->tokens;
    size_t state_bytes;
    task->executable = itera_session_step(c->session, &task->program, &state_bytes);
    struct itera_bench_row *row = &task->row;
    label(row, c->model, name, c->mixed ? "mixed" : "decode", c->batch, 1);
    row->flops = itera_program_cost(task->program, NULL).flops;
    row->bytes = (double)c->model->info.active_bytes;
    /* A state is read and written whole; of keys and values, half of what decoding fills is read. */
    if (c->model->config.architecture == ITERA_ARCH_TRANSFORMER)
        row->bytes += (double)state_bytes * (double)c->tokens / 2 / c->model->config.max_positions;
    else
        row->bytes += 2 * (double)state_bytes;
    if (!c->model->config.tied_head) { /* of the embedding, which comes first, one row is read */
        const struct itera_param *table = &c->model->layout.params[0];
        row->bytes -= (double)itera_dtype_bytes(table->dtype, itera_shape_elements(&table->shape));
    }
    task->work = (struct itera_bench_work){
        .run = run_decode, .prepare = prepare_decode, .finish = finish_decode, .user = c};
    task->parity = decode_parity;
    return ITERA_OK;
}

/* ---- training -------------------------------------------------------------------------------- */

static enum itera_status read_train_load(struct itera_bench_task *task)
{
    struct content *c = task->content;
    struct itera_train_program *t = &c->train;
    struct itera_bench_load *load = &task->row.load;
    float share[ITERA_MAX_EXPERTS];
    double assigned[ITERA_MAX_EXPERTS];
    *load = (struct itera_bench_load){
        .experts = t->experts, .top_k = c->model->config.top_k, .tokens = task->row.tokens};
    enum itera_status status = itera_run(t->train.executable);
    for (int i = 0; i < t->n_moe && !status; i++) {
        status = itera_buffer_download(t->figures, (size_t)(FIGURE_LOAD + i * t->experts) * 4,
                                       share, (size_t)t->experts * 4);
        for (int e = 0; e < t->experts; e++)
            assigned[e] = (double)share[e];
        add_layer(load, assigned, t->experts);
    }
    return status;
}

static enum itera_status make_train(struct itera_bench_task *task, const char *name)
{
    /* lr 0, so that every run does the same; betas, eps, no bias correction, clip at 1. */
    static const float hyper[8] = {0, 0.9f, 0.95f, 1e-8f, 1, 1, 1, 1};
    struct content *c = task->content;
    struct itera_train_program *t = &c->train;
    if (c->model->info.bytes != 4 * c->model->info.parameters)
        return itera_fail(ITERA_ERR_ARGUMENT, "%s has narrow weights: those are not trained", name);
    enum itera_status status = itera_train_program_create(c->model, c->batch, c->tokens, 1, 0.1,
                                                          ITERA_PRECISION_F32, NULL, t);
    if (status)
        return status;
    c->has_train = true;
    status = itera_buffer_upload(t->hyper, 0, hyper, sizeof hyper);
    if (!status)
        status = itera_buffer_upload(t->ids, 0, c->ids, t->ids->bytes);
    if (!status)
        status = itera_buffer_upload(t->targets, 0, c->ids, t->ids->bytes);
    if (status)
        return status;
    struct itera_bench_row *row = &task->row;
    label(row, c->model, name, "train", c->batch, c->tokens);
    row->flops = itera_program_cost(t->train.graph.p, NULL).flops;
    row->bytes = 7 * (double)c->model->info.bytes; /* AdamW reads four and writes three of them */
    task->executable = t->train.executable;
    task->program = t->train.graph.p;
    task->work =
        (struct itera_bench_work){.run = itera_bench_run_program, .user = t->train.executable};
    return read_train_load(task);
}

enum itera_status itera_bench_task_model(struct itera_model *model, const char *name,
                                         const char *dtype, enum itera_bench_phase phase,
                                         int64_t batch, int64_t tokens,
                                         struct itera_bench_task **out)
{
    *out = NULL;
    const int64_t limit = model->config.max_positions;
    const bool decode = phase == ITERA_BENCH_DECODE || phase == ITERA_BENCH_MIXED;
    const int64_t ahead = phase == ITERA_BENCH_MIXED ? batch : 1;
    if (decode && limit && tokens > limit - ahead)
        tokens = limit - ahead;
    if (batch < 1 || tokens < 1 || (limit && tokens > limit))
        return itera_fail(ITERA_ERR_ARGUMENT, "%s has %lld positions, too few for %lld tokens",
                          name, (long long)limit, (long long)tokens);
    struct itera_bench_task *task;
    enum itera_status status = itera_bench_task_begin(model->device, &task);
    if (status)
        return status;
    struct content *c = calloc(1, sizeof *c);
    task->content = c;
    if (c) {
        task->destroy = content_destroy;
        *c = (struct content){
            .model = model, .batch = batch, .tokens = tokens, .mixed = phase == ITERA_BENCH_MIXED};
        c->ids = itera_bench_random_ids(batch * tokens, model->config.vocab);
    }
    if (!c || !c->ids)
        status = itera_fail(ITERA_ERR_MEMORY, "no memory for a benchmark");
    else if (decode)
        status = make_decode(task, name);
    else if (phase == ITERA_BENCH_TRAIN)
        status = make_train(task, name);
    else
        status = make_graph(task, name, phase == ITERA_BENCH_FORWARD);
    itera_bench_task_end(task);
    task->working_set = task->row.bytes;
    if (dtype)
        snprintf(task->row.dtype, sizeof task->row.dtype, "%s", dtype);
    if (status)
        itera_bench_task_destroy(&task);
    *out = task;
    return status;
}
