#include "compress/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "model/phase.h"

enum {
    DEFAULT_TOKENS = 32768,
    LEAST_TOKENS = 1024,
    DEFAULT_WINDOW = 256,
    MAX_WINDOW = 1 << 16,
    BATCH_TOKENS = 2048,
    ALIGN = 16, /* elements between results: a cache line of f32 */
};

/* The input of a parameter's product, and where its sums are in the results. */
struct input {
    int param;
    int group; /* of the experts, or -1 */
    int32_t tensor;
    int64_t width;
    int64_t square_at, sum_at; /* (experts or 1, width) */
};

/* The experts of one layer: rows sorted by expert, between offsets. */
struct group {
    int32_t offsets;
    int32_t ones; /* (rows, 1) */
    int layer, experts;
    int64_t count_at; /* (experts) */
};

/* Products of the steps of a layer's channels, (width, width). */
struct steps {
    int64_t width, at;
};

/* The program: the model's, and after it the sums over what goes into its products. */
struct recorder {
    struct itera_model_phase run;
    struct input *inputs;
    struct group *groups;
    struct steps *steps; /* of layer 0, 1, ... */
    struct itera_slot *slots;
    int n_inputs, n_groups, n_steps, n_slots;
    int64_t results; /* elements of all */
};

struct runner {
    struct recorder recorder;
    struct itera_buffer *ids, *results;
    int32_t *host_ids;
    float *host; /* results of one batch */
    double *sum; /* of all */
    int64_t batch, window, batches;
};

/* A bound tensor of the results. */
static int32_t result(struct recorder *r, int rank, const int64_t *dim, int64_t *at)
{
    int32_t t = itera_bound(r->run.graph.p, "calibration", ITERA_F32, rank, dim);
    if (t < 0)
        return t;
    *at = r->results;
    r->slots[r->n_slots++] = (struct itera_slot){t, *at * 4};
    int64_t elements = itera_shape_elements(&r->run.graph.p->tensors[t].shape);
    r->results += (elements + ALIGN - 1) / ALIGN * ALIGN;
    return t;
}

/* The sum of x's rows, by expert where there is a group. */
static void record_sum(struct recorder *r, int32_t x, int group, int64_t width, int64_t *at)
{
    struct itera_program *p = r->run.graph.p;
    if (group < 0) {
        int32_t out[1] = {result(r, 1, &width, at)};
        itera_record(p, ITERA_OP_column_sum, NULL, &x, out);
        return;
    }
    const struct group *g = &r->groups[group];
    struct itera_attr attr = {.trans_a = 1, .experts = g->experts};
    int32_t in[3] = {g->ones, x, g->offsets};
    int32_t out[1] = {result(r, 3, (int64_t[]){g->experts, 1, width}, at)};
    itera_record(p, ITERA_OP_grouped_matmul, &attr, in, out);
}

/* The group of the experts with these offsets; the first time, with their counts of rows. */
static int find_group(struct recorder *r, const struct itera_op *op)
{
    for (int i = 0; i < r->n_groups; i++)
        if (r->groups[i].offsets == op->in[2])
            return i;
    struct itera_program *p = r->run.graph.p;
    const struct itera_config *c = r->run.graph.config;
    int layer = r->n_groups ? r->groups[r->n_groups - 1].layer + 1 : 0;
    while (layer < c->layers - 1 && !c->moe[layer])
        layer++;
    int64_t dim[2] = {itera_shape_rows(&p->tensors[op->in[0]].shape), 1};
    struct group *g = &r->groups[r->n_groups];
    *g = (struct group){.offsets = op->in[2],
                        .ones = itera_activation(p, ITERA_F32, 2, dim),
                        .layer = layer,
                        .experts = op->attr.experts};
    struct itera_attr one = {.scale = 1};
    int32_t ones[1] = {g->ones};
    itera_record(p, ITERA_OP_fill, &one, NULL, ones);
    record_sum(r, g->ones, r->n_groups, 1, &g->count_at);
    return r->n_groups++;
}

/* Appends the sums over what goes into one product with a parameter. */
static void record_input(struct recorder *r, const struct itera_op *op, int param)
{
    struct itera_program *p = r->run.graph.p;
    struct input *input = &r->inputs[r->n_inputs++];
    *input = (struct input){
        .param = param,
        .group = op->kind == ITERA_OP_grouped_matmul ? find_group(r, op) : -1,
        .tensor = op->in[0],
        .width = itera_shape_cols(&p->tensors[op->in[0]].shape),
    };
    for (const struct input *other = r->inputs; other < input; other++) {
        if (other->tensor == input->tensor && other->group == input->group) {
            input->square_at = other->square_at;
            input->sum_at = other->sum_at;
            return;
        }
    }
    int32_t in[2] = {input->tensor, input->tensor}, squares[1] = {ITERA_NEW};
    itera_record(p, ITERA_OP_mul, NULL, in, squares);
    record_sum(r, squares[0], input->group, input->width, &input->square_at);
    record_sum(r, input->tensor, input->group, input->width, &input->sum_at);
}

/* Appends the products of what the op takes the mean of. */
static void record_steps(struct recorder *r, const struct itera_op *op)
{
    struct itera_program *p = r->run.graph.p;
    struct steps *steps = &r->steps[r->n_steps++];
    int32_t out[1] = {ITERA_NEW};
    int32_t s = itera_record(p, ITERA_OP_softplus, NULL, op->in, out);
    steps->width = s < 0 ? 1 : itera_shape_cols(&p->tensors[s].shape);
    int32_t in[4] = {s, s, ITERA_NONE, ITERA_NONE};
    int64_t dim[2] = {steps->width, steps->width};
    int32_t products[1] = {result(r, 2, dim, &steps->at)};
    struct itera_attr attr = {.trans_a = 1};
    itera_record(p, ITERA_OP_matmul, &attr, in, products);
}

/* The parameter that is the weight of the op, or -1. */
static int weight_of(const struct itera_graph *g, const struct itera_op *op)
{
    if ((op->kind != ITERA_OP_matmul && op->kind != ITERA_OP_grouped_matmul) || !op->attr.trans_b)
        return -1;
    for (int i = 0; i < g->layout->n_params; i++)
        if (g->param_tensor[i] == op->in[1])
            return i;
    return -1;
}

/* Moves what was appended for each op to its side, so that activations need not live until the end
 * of the model; drops the head's product, as nobody reads the logits. */
static enum itera_status interleave(struct itera_graph *g, int32_t n_ops, const int32_t *end)
{
    struct itera_program *p = g->p;
    struct itera_op *ops = malloc((size_t)p->n_ops * sizeof *ops);
    if (!ops)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to calibrate a model");
    int32_t n = 0, at = n_ops;
    for (int32_t i = 0; i < n_ops; i++) {
        if (p->ops[i].out[0] != g->logits)
            ops[n++] = p->ops[i];
        while (at < end[i])
            ops[n++] = p->ops[at++];
    }
    memcpy(p->ops, ops, (size_t)n * sizeof *ops);
    p->n_ops = n;
    free(ops);
    return ITERA_OK;
}

static enum itera_status record(struct recorder *r, struct itera_model *m, bool steps,
                                int64_t batch, int64_t window)
{
    const struct itera_phase_options options = {
        .phase = ITERA_PHASE_EVAL, .batch = batch, .time = window, .unfused = true};
    enum itera_status status = itera_phase_record(&r->run, m, &options);
    if (status)
        return status;
    struct itera_graph *g = &r->run.graph;
    size_t n = (size_t)m->layout.n_params + 1;
    r->inputs = calloc(n, sizeof *r->inputs);
    r->groups = calloc(n, sizeof *r->groups);
    r->steps = calloc(n, sizeof *r->steps);
    r->slots = calloc(4 * n, sizeof *r->slots);
    if (!r->inputs || !r->groups || !r->steps || !r->slots)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to calibrate a model");
    struct itera_program *p = g->p;
    const int32_t n_ops = p->n_ops;
    int32_t *end = malloc(((size_t)n_ops + 1) * sizeof *end); /* of what was appended for op i */
    if (!end)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to calibrate a model");
    for (int32_t i = 0; i < n_ops && !p->status; i++) {
        struct itera_op op = p->ops[i]; /* recording moves the list */
        int param = weight_of(g, &op);
        if (param >= 0)
            record_input(r, &op, param);
        else if (op.kind == ITERA_OP_softplus_mean && steps)
            record_steps(r, &op);
        end[i] = p->n_ops;
    }
    status = p->status;
    if (!status)
        status = interleave(g, n_ops, end);
    free(end);
    return status;
}

static void runner_destroy(struct runner *r)
{
    itera_phase_destroy(&r->recorder.run);
    itera_buffer_destroy(&r->ids);
    itera_buffer_destroy(&r->results);
    free(r->recorder.inputs);
    free(r->recorder.groups);
    free(r->recorder.steps);
    free(r->recorder.slots);
    free(r->host_ids);
    free(r->host);
    free(r->sum);
}

static enum itera_status runner_create(struct runner *r, struct itera_model *m, bool steps)
{
    struct recorder *recorder = &r->recorder;
    enum itera_status status = record(recorder, m, steps, r->batch, r->window);
    if (status)
        return status;
    size_t ids = (size_t)(r->batch * r->window), results = (size_t)recorder->results + 1;
    r->host_ids = malloc(ids * sizeof *r->host_ids);
    r->host = malloc(results * sizeof *r->host);
    r->sum = calloc(results, sizeof *r->sum);
    if (!r->host_ids || !r->host || !r->sum)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to calibrate a model");
    status = itera_buffer_create(m->device, ids * 4, &r->ids);
    if (!status)
        status = itera_buffer_create(m->device, results * 4, &r->results);
    if (status)
        return status;
    for (int i = 0; i < recorder->n_slots; i++)
        itera_bind(&recorder->run.bindings, recorder->slots[i].tensor, r->results,
                   (size_t)recorder->slots[i].offset);
    return itera_phase_compile(&recorder->run, &(struct itera_phase_buffers){.ids = r->ids});
}

/* Chooses window, batch and number of batches. */
static enum itera_status choose_sizes(const struct itera_model *m, int64_t count,
                                      const struct itera_calibrate_options *o, struct runner *r)
{
    int64_t positions = m->config.max_positions;
    if (o->tokens < 0 || o->window < 0 || o->window > MAX_WINDOW)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "calibration reads 1 token or more in windows of 1 to %d", MAX_WINDOW);
    if (positions && o->window > positions)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "a calibration window of %lld tokens; the model has %lld positions",
                          (long long)o->window, (long long)positions);
    int64_t least = o->tokens ? o->tokens : LEAST_TOKENS;
    if (count < least)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "the calibration text is too short: it has %lld tokens, %lld are needed; "
                          "give more text%s",
                          (long long)count, (long long)least,
                          o->tokens ? ", or ask for fewer tokens" : "");
    int64_t tokens = o->tokens ? o->tokens : count < DEFAULT_TOKENS ? count : DEFAULT_TOKENS;
    int64_t window = o->window ? o->window : DEFAULT_WINDOW;
    if (positions && window > positions)
        window = positions;
    if (window > tokens)
        window = tokens;
    int64_t windows = (tokens + window - 1) / window;
    int64_t most = window < BATCH_TOKENS ? BATCH_TOKENS / window : 1;
    r->window = window;
    r->batches = (windows + most - 1) / most;
    r->batch = (windows + r->batches - 1) / r->batches;
    return ITERA_OK;
}

static enum itera_status run_batch(struct runner *r, const int32_t *ids, int64_t count,
                                   int64_t index)
{
    int64_t windows = r->batch * r->batches;
    for (int64_t i = 0; i < r->batch; i++) {
        int64_t w = index * r->batch + i;
        int64_t at = windows > 1 ? w * (count - r->window) / (windows - 1) : 0;
        memcpy(r->host_ids + i * r->window, ids + at, (size_t)r->window * sizeof *ids);
    }
    size_t results = (size_t)r->recorder.results;
    enum itera_status status =
        itera_buffer_upload(r->ids, 0, r->host_ids, (size_t)(r->batch * r->window) * 4);
    if (!status)
        status = itera_run(r->recorder.run.executable);
    if (!status)
        status = itera_buffer_download(r->results, 0, r->host, results * 4);
    if (status)
        return status;
    for (int i = 0; i < r->recorder.n_slots; i++) {
        const struct itera_slot *slot = &r->recorder.slots[i];
        int64_t at = slot->offset / 4;
        int64_t n = itera_shape_elements(&r->recorder.run.graph.p->tensors[slot->tensor].shape);
        for (int64_t k = at; k < at + n; k++) {
            if (!isfinite(r->host[k]))
                return itera_fail(ITERA_ERR_FORMAT,
                                  "the model's activations are not finite on the calibration text: "
                                  "its weights are broken, or too large");
            r->sum[k] += (double)r->host[k];
        }
    }
    return ITERA_OK;
}

/* (experts or 1, width) means of the sums at `at`; NULL without memory. */
static float *means(const struct runner *r, const struct input *input, int64_t at, int64_t tokens)
{
    const struct group *g = input->group < 0 ? NULL : &r->recorder.groups[input->group];
    int64_t experts = g ? g->experts : 1, width = input->width;
    float *mean = calloc((size_t)(experts * width), sizeof *mean);
    if (!mean)
        return NULL;
    const double *sum = r->sum + at;
    for (int64_t e = 0; e < experts; e++) {
        double count = g ? r->sum[g->count_at + e] : (double)tokens;
        for (int64_t k = 0; k < width; k++) {
            double total = sum[e * width + k], of = count;
            if (count < 1) { /* an expert that no token reached */
                total = of = 0;
                for (int64_t i = 0; i < experts; i++) {
                    total += sum[i * width + k];
                    of += r->sum[g->count_at + i];
                }
            }
            mean[e * width + k] = (float)(total / of);
        }
    }
    return mean;
}

static bool collect_shares(const struct runner *r, struct itera_calibration *c)
{
    for (int i = 0; i < r->recorder.n_groups; i++) {
        const struct group *g = &r->recorder.groups[i];
        float *share = calloc((size_t)g->experts, sizeof *share);
        if (!share)
            return false;
        double total = 0;
        for (int e = 0; e < g->experts; e++)
            total += r->sum[g->count_at + e];
        for (int e = 0; e < g->experts; e++)
            share[e] = (float)(r->sum[g->count_at + e] / total);
        c->share[g->layer] = share;
    }
    return true;
}

static bool collect_steps(const struct runner *r, struct itera_calibration *c)
{
    for (int i = 0; i < r->recorder.n_steps; i++) {
        const struct steps *steps = &r->recorder.steps[i];
        size_t n = (size_t)(steps->width * steps->width);
        c->steps[i] = malloc(n * sizeof *c->steps[i]);
        if (!c->steps[i])
            return false;
        for (size_t k = 0; k < n; k++)
            c->steps[i][k] = (float)(r->sum[(size_t)steps->at + k] / (double)c->tokens);
    }
    return true;
}

static enum itera_status collect(const struct runner *r, const struct itera_model *m,
                                 struct itera_calibration **out)
{
    struct itera_calibration *c = calloc(1, sizeof *c);
    if (c) {
        c->n_params = m->layout.n_params;
        c->n_layers = m->config.layers;
        c->tokens = r->batch * r->window * r->batches;
        c->square = calloc((size_t)c->n_params + 1, sizeof *c->square);
        c->mean = calloc((size_t)c->n_params + 1, sizeof *c->mean);
        c->share = calloc((size_t)c->n_layers + 1, sizeof *c->share);
        c->steps = calloc((size_t)c->n_layers + 1, sizeof *c->steps);
    }
    bool made = c && c->square && c->mean && c->share && c->steps && collect_shares(r, c) &&
                collect_steps(r, c);
    for (int i = 0; i < r->recorder.n_inputs && made; i++) {
        const struct input *input = &r->recorder.inputs[i];
        c->square[input->param] = means(r, input, input->square_at, c->tokens);
        c->mean[input->param] = means(r, input, input->sum_at, c->tokens);
        made = c->square[input->param] && c->mean[input->param];
    }
    if (!made)
        itera_calibration_destroy(&c);
    *out = c;
    return made ? ITERA_OK : itera_fail(ITERA_ERR_MEMORY, "no memory to calibrate a model");
}

enum itera_status itera_calibrate(struct itera_model *model, const struct itera_dataset *data,
                                  const struct itera_calibrate_options *options,
                                  struct itera_calibration **out)
{
    *out = NULL;
    struct itera_calibrate_options o = {0};
    if (options)
        o = *options;
    size_t count;
    const int32_t *ids = itera_dataset_tokens(data, &count);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= model->config.vocab)
            return itera_fail(ITERA_ERR_ARGUMENT,
                              "the calibration text has token %d; the model has %d tokens: was it "
                              "made with another tokenizer?",
                              ids[i], model->config.vocab);
    struct runner r = {0};
    enum itera_status status = choose_sizes(model, (int64_t)count, &o, &r);
    if (!status)
        status = runner_create(&r, model, o.steps);
    int64_t of_batch = r.batch * r.window;
    for (int64_t i = 0; i < r.batches && !status; i++) {
        status = run_batch(&r, ids, (int64_t)count, i);
        if (!status && o.progress && o.progress(o.user, (i + 1) * of_batch, r.batches * of_batch))
            status = itera_fail(ITERA_ERR_CANCELLED, "the calibration was stopped");
    }
    if (!status)
        status = collect(&r, model, out);
    runner_destroy(&r);
    return status;
}

static void destroy_list(float **list, int n)
{
    for (int i = 0; list && i < n; i++)
        free(list[i]);
    free(list);
}

void itera_calibration_destroy(struct itera_calibration **calibration)
{
    struct itera_calibration *c = *calibration;
    if (!c)
        return;
    destroy_list(c->square, c->n_params);
    destroy_list(c->mean, c->n_params);
    destroy_list(c->share, c->n_layers);
    destroy_list(c->steps, c->n_layers);
    free(c);
    *calibration = NULL;
}
