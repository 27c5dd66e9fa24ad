#include "infer/session_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "model/model.h"
#include "program/fuse.h"

enum { MAX_CHUNK_BITS = 12, DEFAULT_CHUNK = 512, MAX_BATCH = 65536 };

/* A compiled phase; the graph stays because the executable refers to it. */
struct phase {
    struct itera_graph graph;
    struct itera_executable *executable;
};

/* A compiled program of one op. */
struct small {
    struct itera_program *program;
    struct itera_executable *executable;
};

struct itera_session {
    struct itera_model *model;
    int32_t batch, vocab;
    int32_t
        tokens; /* the ids below it are sampled: others are padding, no tokens of the tokenizer */
    int chunk_bits; /* the largest chunk is 1 << chunk_bits */
    int64_t window; /* positions that the model has; 0: no end */

    struct itera_buffer *states, *derived;
    struct itera_buffer *ids;      /* i32 (batch, chunk): what prefill reads */
    struct itera_buffer *token;    /* i32 (batch): what decode reads and samples into */
    struct itera_buffer *start;    /* i32 (batch) */
    struct itera_buffer *logits;   /* f32 (batch, vocab) of the last position */
    struct itera_buffer *sampling; /* f32 (batch, 4), see the op sample */
    struct itera_buffer *rng;      /* i32 (batch, 4) */

    struct phase chunk[MAX_CHUNK_BITS + 1]; /* prefill of 1 << i tokens, compiled on first use */
    struct phase step;                      /* token -> logits -> token */
    struct small clear, sample;

    /* Sequences advance together, so there is one position for all. */
    int64_t position;     /* in the window */
    uint64_t tokens_read; /* since the beginning */
    uint64_t tokens_run;  /* those among them that the model ran over, again counted again */
    bool pending;         /* `token` was given out, and not read yet */
    bool moved;           /* the log knows that the window moves */
    int32_t *last;        /* (batch): the host's copy of token */
    int32_t *history;     /* (batch, window): tokens at the positions so far; NULL without end */
    int32_t *staging;     /* (batch, chunk) */
    int32_t *zeros;       /* (batch) */
};

static void destroy_phase(struct phase *phase)
{
    itera_executable_destroy(&phase->executable);
    itera_graph_destroy(&phase->graph);
}

static void destroy_small(struct small *small)
{
    itera_executable_destroy(&small->executable);
    itera_program_destroy(&small->program);
}

void itera_session_destroy(struct itera_session **session)
{
    struct itera_session *s = *session;
    if (!s)
        return;
    for (int i = 0; i <= MAX_CHUNK_BITS; i++)
        destroy_phase(&s->chunk[i]);
    destroy_phase(&s->step);
    destroy_small(&s->clear);
    destroy_small(&s->sample);
    struct itera_buffer **buffers[] = {&s->states, &s->derived, &s->ids,      &s->token,
                                       &s->start,  &s->logits,  &s->sampling, &s->rng};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        itera_buffer_destroy(buffers[i]);
    free(s->last);
    free(s->history);
    free(s->staging);
    free(s->zeros);
    free(s);
    *session = NULL;
}

/* Records the model for `time` tokens into phase->graph. */
static enum itera_status record_phase(struct itera_session *s, int64_t time, struct phase *phase)
{
    phase->graph = (struct itera_graph){.phase = ITERA_PHASE_INFER,
                                        .batch = s->batch,
                                        .time = time,
                                        .positions = s->window,
                                        .logits_bound = true};
    return itera_graph_record(&phase->graph, &s->model->config, &s->model->layout);
}

static enum itera_status record_advance(struct itera_program *p, int32_t start, int64_t count)
{
    struct itera_attr attr = {.count = (int32_t)count};
    itera_record(p, ITERA_OP_advance, &attr, &start, NULL);
    return p->status;
}

/* Binds what every phase has and compiles; `more` are the bindings of its own. */
static enum itera_status compile_phase(struct itera_session *s, struct phase *phase,
                                       struct itera_buffer *ids, struct itera_bindings *b)
{
    struct itera_graph *g = &phase->graph;
    itera_bind_graph(b, g, s->model, s->states, s->derived);
    itera_bind(b, g->ids, ids, 0);
    itera_bind(b, g->start, s->start, 0);
    itera_bind(b, g->logits, s->logits, 0);
    enum itera_status status = b->status;
    if (!status)
        status = itera_fuse_forward(g->p);
    if (!status)
        status = itera_fuse_epilogues(g->p);
    if (!status)
        status = itera_compile(s->model->device, g->p, b->list, b->n, &phase->executable);
    return status;
}

static enum itera_status make_chunk(struct itera_session *s, int bits)
{
    struct phase *phase = &s->chunk[bits];
    if (phase->executable)
        return ITERA_OK;
    struct itera_bindings b = {0};
    enum itera_status status = record_phase(s, (int64_t)1 << bits, phase);
    if (!status)
        status = record_advance(phase->graph.p, phase->graph.start, (int64_t)1 << bits);
    if (!status)
        status = compile_phase(s, phase, s->ids, &b);
    itera_bindings_free(&b);
    if (status)
        destroy_phase(phase);
    return status;
}

/* Records the op sample over logits (batch, vocab) and binds its settings. */
static enum itera_status record_sample(struct itera_session *s, struct itera_program *p,
                                       int32_t logits, int32_t token, struct itera_bindings *b)
{
    int64_t four[2] = {s->batch, 4};
    int32_t settings = itera_bound(p, "sampling", ITERA_F32, 2, four);
    int32_t rng = itera_bound(p, "rng", ITERA_I32, 2, four);
    p->part = ITERA_PART_SAMPLE;
    if (s->tokens < s->vocab)
        logits = itera_view_cols(p, logits, 0, s->tokens);
    int32_t in[3] = {logits, settings, rng};
    itera_record(p, ITERA_OP_sample, NULL, in, &token);
    itera_bind(b, settings, s->sampling, 0);
    itera_bind(b, rng, s->rng, 0);
    return p->status;
}

/* The decode step: what it samples is what the next run reads. */
static enum itera_status make_step(struct itera_session *s)
{
    if (s->step.executable)
        return ITERA_OK;
    struct phase *phase = &s->step;
    struct itera_bindings b = {0};
    enum itera_status status = record_phase(s, 1, phase);
    if (!status) {
        struct itera_graph *g = &phase->graph;
        int64_t batch = s->batch;
        int32_t token = itera_view_dims(g->p, g->ids, 1, &batch);
        status = record_sample(s, g->p, g->logits, token, &b);
    }
    if (!status)
        status = record_advance(phase->graph.p, phase->graph.start, 1);
    if (!status)
        status = compile_phase(s, phase, s->token, &b);
    itera_bindings_free(&b);
    if (status)
        destroy_phase(phase);
    return status;
}

/* Samples from the logits that prefill left. */
static enum itera_status make_sample(struct itera_session *s)
{
    struct itera_bindings b = {0};
    enum itera_status status = itera_program_create(&s->sample.program);
    if (status)
        return status;
    struct itera_program *p = s->sample.program;
    int64_t dim[2] = {s->batch, s->vocab};
    int32_t logits = itera_bound(p, "logits", ITERA_F32, 2, dim);
    int32_t token = itera_bound(p, "token", ITERA_I32, 1, dim);
    itera_bind(&b, logits, s->logits, 0);
    itera_bind(&b, token, s->token, 0);
    status = record_sample(s, p, logits, token, &b);
    if (!status)
        status = b.status;
    if (!status)
        status = itera_compile(s->model->device, p, b.list, b.n, &s->sample.executable);
    itera_bindings_free(&b);
    return status;
}

/* Zeroes the states. */
static enum itera_status make_clear(struct itera_session *s)
{
    enum itera_status status = itera_program_create(&s->clear.program);
    if (status)
        return status;
    struct itera_program *p = s->clear.program;
    int64_t n = (int64_t)(s->states->bytes / 4);
    int32_t states = itera_bound(p, "states", ITERA_F32, 1, &n);
    itera_record(p, ITERA_OP_fill, NULL, NULL, &states);
    struct itera_binding binding = {states, s->states, 0};
    return p->status ? p->status
                     : itera_compile(s->model->device, p, &binding, 1, &s->clear.executable);
}

static enum itera_status create_buffers(struct itera_session *s)
{
    struct itera_device *device = s->model->device;
    /* The step's graph says how much state there is; every chunk's has the same. */
    const struct itera_graph *g = &s->chunk[0].graph;
    size_t batch = (size_t)s->batch, chunk = (size_t)1 << s->chunk_bits;
    const struct {
        struct itera_buffer **buffer;
        size_t bytes;
    } wanted[] = {
        {&s->states, g->state_bytes ? (size_t)g->state_bytes : 4},
        {&s->derived, g->derived_bytes ? (size_t)g->derived_bytes : 4},
        {&s->ids, batch * chunk * 4},
        {&s->token, batch * 4},
        {&s->start, batch * 4},
        {&s->logits, batch * (size_t)s->vocab * 4},
        {&s->sampling, batch * 16},
        {&s->rng, batch * 16},
    };
    enum itera_status status = ITERA_OK;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted && !status; i++)
        status = itera_buffer_create(device, wanted[i].bytes, wanted[i].buffer);
    if (status)
        return status;
    s->last = calloc(batch, sizeof *s->last);
    s->zeros = calloc(batch, sizeof *s->zeros);
    s->staging = calloc(batch * chunk, sizeof *s->staging);
    if (s->window)
        s->history = calloc(batch * (size_t)s->window, sizeof *s->history);
    if (!s->last || !s->zeros || !s->staging || (s->window && !s->history))
        return itera_fail(ITERA_ERR_MEMORY, "no memory for a session of %d sequences", s->batch);
    return ITERA_OK;
}

static enum itera_status check_options(const struct itera_model *model,
                                       const struct itera_session_options *o)
{
    if (o->batch < 0 || o->batch > MAX_BATCH)
        return itera_fail(ITERA_ERR_ARGUMENT, "a session of %d sequences; 1 to %d are possible",
                          o->batch, MAX_BATCH);
    if (o->positions < 0 || o->chunk < 0)
        return itera_fail(ITERA_ERR_ARGUMENT, "a session with negative positions or chunk");
    if (model->config.max_positions && o->positions > model->config.max_positions)
        return itera_fail(ITERA_ERR_ARGUMENT, "a session of %d positions; the model has %d",
                          o->positions, model->config.max_positions);
    return ITERA_OK;
}

enum itera_status itera_session_create(struct itera_model *model,
                                       const struct itera_session_options *options,
                                       struct itera_session **session)
{
    *session = NULL;
    struct itera_session_options o = {0};
    if (options)
        o = *options;
    enum itera_status status = check_options(model, &o);
    if (status)
        return status;
    struct itera_session *s = calloc(1, sizeof *s);
    if (!s)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for a session");
    s->model = model;
    s->batch = o.batch ? o.batch : 1;
    s->vocab = s->tokens = model->config.vocab;
    if (model->tokenizer)
        s->tokens = itera_tokenizer_vocab_size(model->tokenizer);
    if (model->config.max_positions)
        s->window = o.positions ? o.positions : model->config.max_positions;
    int64_t chunk = o.chunk ? o.chunk : DEFAULT_CHUNK;
    if (s->window && chunk > s->window)
        chunk = s->window;
    while (s->chunk_bits < MAX_CHUNK_BITS && (int64_t)2 << s->chunk_bits <= chunk)
        s->chunk_bits++;

    status = record_phase(s, 1, &s->chunk[0]); /* for its sizes; compiled when it is used */
    if (!status)
        status = create_buffers(s);
    if (!status)
        status = itera_model_prepare(model, &s->chunk[0].graph, s->derived);
    destroy_phase(&s->chunk[0]);
    if (!status)
        status = make_clear(s);
    if (!status)
        status = make_sample(s);
    if (!status)
        status = itera_session_set_sampling(s, -1, &(struct itera_sampling){0});
    if (status)
        itera_session_destroy(&s);
    *session = s;
    return status;
}

/* States and positions as at the beginning; the host's counters are the caller's. */
static enum itera_status clear(struct itera_session *s)
{
    s->position = 0;
    enum itera_status status = itera_run(s->clear.executable);
    return status ? status : itera_buffer_upload(s->start, 0, s->zeros, (size_t)s->batch * 4);
}

enum itera_status itera_session_reset(struct itera_session *session)
{
    session->tokens_read = session->tokens_run = 0;
    session->pending = false;
    return clear(session);
}

enum itera_status itera_session_set_sampling(struct itera_session *session, int32_t sequence,
                                             const struct itera_sampling *sampling)
{
    if (sequence < -1 || sequence >= session->batch)
        return itera_fail(ITERA_ERR_ARGUMENT, "there is no sequence %d in a session of %d",
                          sequence, session->batch);
    if (!(sampling->temperature >= 0) || !isfinite(sampling->temperature) || sampling->top_k < 0 ||
        !(sampling->top_p >= 0 && sampling->top_p <= 1))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "temperature must be 0 or more, top_k 0 or more, top_p between 0 and 1");
    int32_t first = sequence < 0 ? 0 : sequence;
    int32_t end = sequence < 0 ? session->batch : sequence + 1;
    enum itera_status status = ITERA_OK;
    for (int32_t i = first; i < end && !status; i++) {
        uint64_t seed = sampling->seed + (sequence < 0 ? (uint64_t)i : 0);
        float settings[4] = {sampling->temperature, (float)sampling->top_k,
                             sampling->top_p > 0 ? sampling->top_p : 1, 0};
        int32_t rng[4] = {(int32_t)(uint32_t)seed, (int32_t)(uint32_t)(seed >> 32), 0, 0};
        status = itera_buffer_upload(session->sampling, (size_t)i * 16, settings, 16);
        if (!status)
            status = itera_buffer_upload(session->rng, (size_t)i * 16, rng, 16);
    }
    return status;
}

enum itera_status itera_session_warm(struct itera_session *session, size_t n)
{
    enum itera_status status = make_step(session);
    size_t largest = (size_t)1 << session->chunk_bits;
    /* Where decoding comes to the end of the window, it reads the last half again and one more. */
    size_t again = session->window ? (size_t)session->window / 2 + 1 : 0;
    for (int bits = 0; bits <= session->chunk_bits && !status; bits++)
        if ((n | again) >> bits & 1 ||
            (bits == session->chunk_bits && (n >= largest || again >= largest)))
            status = make_chunk(session, bits);
    return status;
}

/* Runs n tokens of each sequence, rows `stride` apart, through the model. */
static enum itera_status read_tokens(struct itera_session *s, const int32_t *tokens, size_t stride,
                                     size_t n)
{
    enum itera_status status = ITERA_OK;
    int bits = s->chunk_bits;
    for (size_t done = 0; done < n && !status;) {
        while ((size_t)1 << bits > n - done)
            bits--;
        size_t count = (size_t)1 << bits;
        for (size_t i = 0; i < (size_t)s->batch; i++)
            memcpy(s->staging + i * count, tokens + i * stride + done, count * 4);
        status = make_chunk(s, bits);
        if (!status)
            status = itera_buffer_upload(s->ids, 0, s->staging, (size_t)s->batch * count * 4);
        if (!status)
            status = itera_run(s->chunk[bits].executable);
        done += count;
        s->position += (int64_t)count;
        s->tokens_run += count;
    }
    return status;
}

/* The window has no room for n more tokens of the given rows: keeps what is read again, followed
 * by the new tokens, at the start of the history. The result is that of reading them one by one:
 * each time the window is full, its last half is read again. Returns how many to read. */
static size_t move_window(struct itera_session *s, const int32_t *tokens, size_t n)
{
    size_t window = (size_t)s->window, half = window / 2, fresh = window - half;
    size_t position = (size_t)s->position;
    size_t over = position + n - window;
    size_t after = (over - 1) % fresh + 1; /* new tokens since the last move */
    size_t keep = half + after;
    size_t from_tokens = keep < n ? keep : n, from_history = keep - from_tokens;
    for (size_t i = 0; i < (size_t)s->batch; i++) {
        int32_t *row = s->history + i * window;
        memmove(row, row + position - from_history, from_history * 4);
        memcpy(row + from_history, tokens + i * n + n - from_tokens, from_tokens * 4);
    }
    if (!s->moved)
        itera_log(ITERA_LOG_INFO,
                  "the model's %zu positions are used up: reading the last %zu again from a fresh "
                  "state, now and each time",
                  window, half);
    s->moved = true;
    return keep;
}

static enum itera_status feed(struct itera_session *s, const int32_t *tokens, size_t n)
{
    enum itera_status status = ITERA_OK;
    s->tokens_read += n;
    if (!s->window)
        return read_tokens(s, tokens, n, n);
    size_t window = (size_t)s->window, position = (size_t)s->position;
    if (position + n > window) {
        size_t keep = move_window(s, tokens, n);
        status = clear(s);
        return status ? status : read_tokens(s, s->history, window, keep);
    }
    for (size_t i = 0; i < (size_t)s->batch; i++)
        memcpy(s->history + i * window + position, tokens + i * n, n * 4);
    return read_tokens(s, tokens, n, n);
}

/* One end-of-text token for every sequence. */
static enum itera_status feed_end_of_text(struct itera_session *s)
{
    const struct itera_model *m = s->model;
    int32_t id = m->tokenizer ? itera_tokenizer_end_of_text(m->tokenizer) : -1;
    if (id < 0)
        id = m->config.eos >= 0 ? m->config.eos : m->config.bos;
    if (id < 0 || id >= s->vocab)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "nothing to begin from: no token was given, and the model has no "
                          "end-of-text token");
    for (int32_t i = 0; i < s->batch; i++)
        s->last[i] = id;
    return feed(s, s->last, 1);
}

enum itera_status itera_session_prefill(struct itera_session *session, const int32_t *tokens,
                                        size_t n)
{
    struct itera_session *s = session;
    if (n > (size_t)INT32_MAX)
        return itera_fail(ITERA_ERR_LIMIT, "a prompt of %zu tokens", n);
    for (size_t i = 0; i < (size_t)s->batch * n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->vocab)
            return itera_fail(ITERA_ERR_ARGUMENT,
                              "token %d at position %zu is out of range; the model has %d tokens",
                              tokens[i], i % n, s->vocab);
    enum itera_status status = ITERA_OK;
    if (s->pending) {
        s->pending = false;
        status = feed(s, s->last, 1);
    }
    if (!status && n == 0 && s->tokens_read == 0)
        return feed_end_of_text(s);
    return status || n == 0 ? status : feed(s, tokens, n);
}

enum itera_status itera_session_next(struct itera_session *session, int32_t *tokens)
{
    struct itera_session *s = session;
    enum itera_status status = ITERA_OK;
    if (s->tokens_read == 0)
        status = feed_end_of_text(s);
    if (status)
        return status;
    bool room = !s->window || s->position < s->window;
    if (s->pending && room) {
        if (!s->step.executable)
            status = make_step(s);
        for (int32_t i = 0; i < s->batch && s->window; i++)
            s->history[i * s->window + s->position] = s->last[i];
        if (!status)
            status = itera_run(s->step.executable);
        s->position++;
        s->tokens_read++;
        s->tokens_run++;
    } else {
        if (s->pending)
            status = feed(s, s->last, 1);
        if (!status)
            status = itera_run(s->sample.executable);
    }
    if (!status)
        status = itera_buffer_download(s->token, 0, s->last, (size_t)s->batch * 4);
    s->pending = !status;
    if (!status)
        memcpy(tokens, s->last, (size_t)s->batch * 4);
    return status;
}

enum itera_status itera_session_logits(struct itera_session *session, float *logits)
{
    if (session->tokens_read == 0)
        return itera_fail(ITERA_ERR_ARGUMENT, "there are no logits before the first token");
    return itera_buffer_download(session->logits, 0, logits,
                                 (size_t)session->batch * (size_t)session->vocab * 4);
}

int32_t itera_session_batch(const struct itera_session *session)
{
    return session->batch;
}

uint64_t itera_session_tokens_read(const struct itera_session *session)
{
    return session->tokens_read;
}

uint64_t itera_session_tokens_run(const struct itera_session *session)
{
    return session->tokens_run;
}

struct itera_executable *itera_session_step(const struct itera_session *session,
                                            const struct itera_program **program,
                                            size_t *state_bytes)
{
    *program = session->step.graph.p;
    *state_bytes = (size_t)session->step.graph.state_bytes;
    return session->step.executable;
}

size_t itera_session_bytes(const struct itera_session *session)
{
    const struct itera_session *s = session;
    size_t bytes = s->states->bytes + s->derived->bytes + s->ids->bytes + s->token->bytes +
                   s->start->bytes + s->logits->bytes + s->sampling->bytes + s->rng->bytes;
    for (int i = 0; i <= MAX_CHUNK_BITS; i++)
        if (s->chunk[i].executable)
            bytes += s->chunk[i].executable->memory_bytes;
    if (s->step.executable)
        bytes += s->step.executable->memory_bytes;
    return bytes;
}
