#include <math.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/log.h"
#include "format/safetensors.h"
#include "itera/eval.h"
#include "model/phase.h"

enum { DEFAULT_WINDOW = 1024, BATCH_TOKENS = 4096, MAX_WINDOW = 1 << 20, MAX_BATCH = 4096 };
/* Logits of one run: beyond this, a larger batch only costs memory. */
static const int64_t LOGITS_BYTES = 64 << 20;

struct evaluation {
    struct itera_model_phase run;
    struct itera_buffer *ids, *targets, *loss;
    int32_t *host_ids, *host_targets;
};

static void evaluation_destroy(struct evaluation *e)
{
    itera_phase_destroy(&e->run);
    itera_buffer_destroy(&e->ids);
    itera_buffer_destroy(&e->targets);
    itera_buffer_destroy(&e->loss);
    free(e->host_ids);
    free(e->host_targets);
}

static enum itera_status evaluation_create(struct itera_model *m, int64_t batch, int64_t window,
                                           struct evaluation *e)
{
    *e = (struct evaluation){0};
    size_t tokens = (size_t)batch * (size_t)window;
    e->host_ids = malloc(tokens * 4);
    e->host_targets = malloc(tokens * 4);
    if (!e->host_ids || !e->host_targets)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to evaluate %zu tokens at once", tokens);
    const struct itera_phase_options options = {
        .phase = ITERA_PHASE_EVAL, .batch = batch, .time = window};
    enum itera_status status = itera_phase_record(&e->run, m, &options);
    if (status)
        return status;
    const struct itera_graph *g = &e->run.graph;
    int64_t dim[2] = {batch, window}, one = 1;
    int32_t targets = itera_bound(g->p, "targets", ITERA_I32, 2, dim);
    int32_t loss = itera_bound(g->p, "loss", ITERA_F32, 1, &one);
    g->p->part = ITERA_PART_LOSS;
    int32_t in[2] = {g->logits, targets}, out[2] = {loss, ITERA_NEW};
    itera_record(g->p, ITERA_OP_cross_entropy, NULL, in, out);
    status = itera_buffer_create(m->device, tokens * 4, &e->ids);
    if (!status)
        status = itera_buffer_create(m->device, tokens * 4, &e->targets);
    if (!status)
        status = itera_buffer_create(m->device, 4, &e->loss);
    if (status)
        return status;
    itera_bind(&e->run.bindings, targets, e->targets, 0);
    itera_bind(&e->run.bindings, loss, e->loss, 0);
    return itera_phase_compile(&e->run, &(struct itera_phase_buffers){.ids = e->ids});
}

/* Chooses window, stride and batch, which the result reports. */
static enum itera_status choose_sizes(const struct itera_model *m, size_t count,
                                      const struct itera_eval_options *o,
                                      struct itera_eval_result *r)
{
    int64_t positions = m->config.max_positions;
    if (o->window < 0 || o->window > MAX_WINDOW || o->batch < 0 || o->batch > MAX_BATCH)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "evaluation windows have 1 to %d tokens, batches 1 to %d windows",
                          MAX_WINDOW, MAX_BATCH);
    if (positions && o->window > positions)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "a window of %d tokens; the model has %d learned positions", o->window,
                          m->config.max_positions);
    int64_t window = o->window ? o->window : positions ? positions : DEFAULT_WINDOW;
    if (o->stride < 0 || o->stride > window)
        return itera_fail(ITERA_ERR_ARGUMENT, "a stride of %d tokens; the window has %lld",
                          o->stride, (long long)window);
    int64_t stride = o->stride ? o->stride : (window + 1) / 2;
    if ((size_t)window >= count) { /* one window sees it all */
        window = (int64_t)count;
        stride = window;
    }
    int64_t windows = 1 + ((int64_t)count - window + stride - 1) / stride;
    int64_t batch = o->batch;
    if (!batch) {
        int64_t fits = LOGITS_BYTES / (window * m->config.vocab * 4);
        batch = BATCH_TOKENS / window;
        batch = batch < fits ? batch : fits;
    }
    batch = batch < windows ? batch : windows;
    r->window = (int32_t)window;
    r->stride = (int32_t)stride;
    r->batch = (int32_t)(batch < 1 ? 1 : batch);
    return ITERA_OK;
}

/* Scores one batch; adds to the sums. */
static enum itera_status score(struct evaluation *e, const struct itera_dataset *dataset,
                               uint64_t index, const struct itera_eval_result *r, double *nats,
                               uint64_t *tokens)
{
    size_t batch = (size_t)r->batch, window = (size_t)r->window;
    size_t scored = 0, bytes = batch * window * 4;
    float loss = 0;
    enum itera_status status =
        itera_dataset_eval_batch(dataset, index, batch, window, window - (size_t)r->stride,
                                 e->host_ids, e->host_targets, &scored);
    if (!status)
        status = itera_buffer_upload(e->ids, 0, e->host_ids, bytes);
    if (!status)
        status = itera_buffer_upload(e->targets, 0, e->host_targets, bytes);
    if (!status)
        status = itera_run(e->run.executable);
    if (!status)
        status = itera_buffer_download(e->loss, 0, &loss, sizeof loss);
    if (!status && !isfinite(loss))
        status = itera_fail(ITERA_ERR_FORMAT,
                            "the model's logits are not finite (batch %llu): its weights are "
                            "broken, or too large",
                            (unsigned long long)index);
    *nats += (double)loss * (double)scored;
    *tokens += scored;
    return status;
}

enum itera_status itera_evaluate(struct itera_model *model, const struct itera_dataset *dataset,
                                 const struct itera_eval_options *options,
                                 struct itera_eval_result *result)
{
    struct itera_eval_options o = {0};
    if (options)
        o = *options;
    *result = (struct itera_eval_result){0};
    size_t count;
    const int32_t *ids = itera_dataset_tokens(dataset, &count);
    if (!count)
        return itera_fail(ITERA_ERR_ARGUMENT, "there is nothing to evaluate: no tokens");
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= model->config.vocab)
            return itera_fail(ITERA_ERR_ARGUMENT,
                              "the dataset has token %d; the model has %d tokens: was it made "
                              "with another tokenizer?",
                              ids[i], model->config.vocab);
    enum itera_status status = choose_sizes(model, count, &o, result);
    if (status)
        return status;

    struct evaluation e;
    double nats = 0;
    status = evaluation_create(model, result->batch, result->window, &e);
    uint64_t batches =
        itera_dataset_eval_batches(dataset, (size_t)result->batch, (size_t)result->window,
                                   (size_t)(result->window - result->stride));
    uint64_t total = o.tokens && o.tokens < count ? o.tokens : count;
    double begin = itera_seconds();
    for (uint64_t i = 0; i < batches && !status; i++) {
        status = score(&e, dataset, i, result, &nats, &result->tokens);
        if (!status && o.progress &&
            o.progress(o.user, result->tokens, total, nats / (double)result->tokens))
            status = itera_fail(ITERA_ERR_CANCELLED, "the evaluation was stopped");
        if (result->tokens >= total)
            break;
    }
    result->seconds = itera_seconds() - begin;
    evaluation_destroy(&e);
    if (status && status != ITERA_ERR_CANCELLED)
        return status;
    /* Stopped early, the text counts by its share of tokens. */
    double share = (double)result->tokens / (double)count;
    double bytes = share * (double)itera_dataset_bytes(dataset);
    double words = share * (double)itera_dataset_words(dataset);
    result->bytes = (uint64_t)llround(bytes);
    result->words = (uint64_t)llround(words);
    result->nll = nats / (double)result->tokens;
    result->perplexity = exp(result->nll);
    result->word_perplexity = exp(nats / fmax(words, 1));
    result->bits_per_byte = nats / M_LN2 / fmax(bytes, 1);
    result->tokens_per_second = result->seconds > 0 ? (double)result->tokens / result->seconds : 0;
    return status;
}

enum itera_status itera_logits(struct itera_model *model, const int32_t *tokens, int64_t batch,
                               int64_t time, float *logits)
{
    const struct itera_config *c = &model->config;
    if (batch < 1 || batch > MAX_BATCH || time < 1 || time > INT32_MAX)
        return itera_fail(ITERA_ERR_ARGUMENT, "logits of %lld x %lld tokens: nothing, or too many",
                          (long long)batch, (long long)time);
    if (c->max_positions && time > c->max_positions)
        return itera_fail(ITERA_ERR_ARGUMENT, "%lld tokens; the model has %d learned positions",
                          (long long)time, c->max_positions);
    size_t count = (size_t)batch * (size_t)time;
    for (size_t i = 0; i < count; i++)
        if (tokens[i] < 0 || tokens[i] >= c->vocab)
            return itera_fail(ITERA_ERR_ARGUMENT,
                              "token %d at position %zu is out of range; the model has %d tokens",
                              tokens[i], i % (size_t)time, c->vocab);
    const struct itera_phase_options options = {
        .phase = ITERA_PHASE_EVAL, .batch = batch, .time = time, .logits = true};
    struct itera_model_phase run = {0};
    struct itera_buffer *ids = NULL, *out = NULL;
    size_t bytes = count * (size_t)c->vocab * 4;
    enum itera_status status = itera_phase_record(&run, model, &options);
    if (!status)
        status = itera_buffer_create(model->device, count * 4, &ids);
    if (!status)
        status = itera_buffer_create(model->device, bytes, &out);
    if (!status)
        status =
            itera_phase_compile(&run, &(struct itera_phase_buffers){.ids = ids, .logits = out});
    if (!status)
        status = itera_buffer_upload(ids, 0, tokens, count * 4);
    if (!status)
        status = itera_run(run.executable);
    if (!status)
        status = itera_buffer_download(out, 0, logits, bytes);
    itera_phase_destroy(&run);
    itera_buffer_destroy(&ids);
    itera_buffer_destroy(&out);
    return status;
}

enum itera_status itera_logits_save(const float *logits, int64_t time, int64_t vocab,
                                    const char *path)
{
    const struct itera_safetensors_entry entry = {
        .name = "logits", .dtype = ITERA_ST_F32, .rank = 2, .dim = {time, vocab}, .data = logits};
    return itera_safetensors_write(path, &entry, 1, NULL, 0);
}
