#include "infer/session_impl.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"

enum { DEFAULT_CHUNK = 512, MAX_BATCH = 65536 };

static void destroy_small(struct itera_session_small *small)
{
    itera_executable_destroy(&small->executable);
    itera_program_destroy(&small->program);
}

void itera_session_destroy(struct itera_session **session)
{
    struct itera_session *s = *session;
    if (!s)
        return;
    itera_session_drop_ahead(s);
    for (int i = 0; i <= ITERA_SESSION_CHUNK_BITS; i++)
        itera_phase_destroy(&s->chunk[i]);
    itera_phase_destroy(&s->step);
    destroy_small(&s->clear);
    destroy_small(&s->sample);
    for (int side = 0; side < 2; side++) {
        destroy_small(&s->save[side]);
        destroy_small(&s->restore[side]);
    }
    destroy_small(&s->merge);
    struct itera_buffer **buffers[] = {&s->states, &s->derived, &s->ids,      &s->token,
                                       &s->start,  &s->logits,  &s->sampling, &s->rng,
                                       &s->kept,   &s->pick,    &s->adjust,   &s->factor};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        itera_buffer_destroy(buffers[i]);
    free(s->last);
    free(s->ahead.token);
    free(s->history);
    free(s->staging);
    free(s->numbers);
    free(s->rng_kept);
    free(s->zeros);
    free(s->slots);
    free(s->sequence);
    free((void *)s->rows);
    free((void *)s->group);
    free(s->active);
    free(s->ways);
    free(s->penalty);
    free(s->bias);
    free(s->count);
    free(s);
    *session = NULL;
}

/* Records the model for `time` tokens. */
static enum itera_status record_phase(struct itera_session *s, int64_t time,
                                      struct itera_model_phase *phase)
{
    return itera_phase_record(phase, s->model,
                              &(struct itera_phase_options){.phase = ITERA_PHASE_INFER,
                                                            .batch = s->batch,
                                                            .time = time,
                                                            .positions = s->window,
                                                            .logits = true});
}

static enum itera_status record_advance(struct itera_program *p, int32_t start, int64_t count)
{
    struct itera_attr attr = {.count = (int32_t)count};
    itera_record(p, ITERA_OP_advance, &attr, &start, NULL);
    return p->status;
}

static enum itera_status compile_phase(struct itera_session *s, struct itera_model_phase *phase,
                                       struct itera_buffer *ids)
{
    return itera_phase_compile(phase, &(struct itera_phase_buffers){.ids = ids,
                                                                    .logits = s->logits,
                                                                    .start = s->start,
                                                                    .states = s->states,
                                                                    .derived = s->derived});
}

enum itera_status itera_session_make_chunk(struct itera_session *s, int bits)
{
    struct itera_model_phase *phase = &s->chunk[bits];
    if (phase->executable)
        return ITERA_OK;
    enum itera_status status = record_phase(s, (int64_t)1 << bits, phase);
    if (!status)
        status = record_advance(phase->graph.p, phase->graph.start, (int64_t)1 << bits);
    if (!status)
        status = compile_phase(s, phase, s->ids);
    if (status)
        itera_phase_destroy(phase);
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
    int32_t adjust = ITERA_NONE, factor = ITERA_NONE;
    if (s->adjust) {
        int64_t dim[2] = {s->batch, s->vocab};
        adjust = itera_bound(p, "adjust", ITERA_F32, 2, dim);
        itera_bind(b, adjust, s->adjust, 0);
        factor = itera_bound(p, "factor", ITERA_F32, 2, dim);
        itera_bind(b, factor, s->factor, 0);
    }
    if (s->tokens < s->vocab) {
        logits = itera_view_cols(p, logits, 0, s->tokens);
        if (s->adjust) {
            adjust = itera_view_cols(p, adjust, 0, s->tokens);
            factor = itera_view_cols(p, factor, 0, s->tokens);
        }
    }
    if (s->adjust) {
        int32_t scaled[2] = {logits, factor}, made[1] = {ITERA_NEW};
        int32_t sum[2] = {itera_record(p, ITERA_OP_penalize, NULL, scaled, made), adjust};
        made[0] = ITERA_NEW;
        logits = itera_record(p, ITERA_OP_add, NULL, sum, made);
    }
    int32_t in[3] = {logits, settings, rng};
    itera_record(p, ITERA_OP_sample, NULL, in, &token);
    itera_bind(b, settings, s->sampling, 0);
    itera_bind(b, rng, s->rng, 0);
    return p->status;
}

/* The decode step: what it samples is what the next run reads. */
enum itera_status itera_session_make_step(struct itera_session *s)
{
    if (s->step.executable)
        return ITERA_OK;
    struct itera_model_phase *phase = &s->step;
    enum itera_status status = record_phase(s, 1, phase);
    if (!status) {
        struct itera_graph *g = &phase->graph;
        int64_t batch = s->batch;
        int32_t token = itera_view_dims(g->p, g->ids, 1, &batch);
        status = record_sample(s, g->p, g->logits, token, &phase->bindings);
    }
    if (!status)
        status = record_advance(phase->graph.p, phase->graph.start, 1);
    if (!status)
        status = compile_phase(s, phase, s->token);
    if (status)
        itera_phase_destroy(phase);
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
        status = itera_compile(s->model->device, p, b.list, b.n, NULL, NULL, &s->sample.executable);
    itera_bindings_free(&b);
    return status;
}

enum itera_status itera_session_remake_sampling(struct itera_session *s)
{
    struct itera_session_small before = s->sample;
    s->sample = (struct itera_session_small){0};
    enum itera_status status = make_sample(s);
    if (status) {
        destroy_small(&s->sample);
        s->sample = before;
        return status;
    }
    destroy_small(&before);
    itera_phase_destroy(&s->step); /* made again on first use */
    return ITERA_OK;
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
    return p->status
               ? p->status
               : itera_compile(s->model->device, p, &binding, 1, NULL, NULL, &s->clear.executable);
}

/* Where the states of each sequence are. */
static enum itera_status find_slots(struct itera_session *s)
{
    const struct itera_graph *g = &s->chunk[0].graph;
    size_t largest = 0;
    s->slots = calloc((size_t)g->n_states + 1, sizeof *s->slots);
    for (int i = 0; i < g->n_states && s->slots; i++) {
        const struct itera_shape *shape = &g->p->tensors[g->states[i].tensor].shape;
        size_t row = (size_t)(itera_shape_elements(shape) / s->batch) * 4;
        s->slots[s->n_slots++] = (struct itera_session_slot){
            .offset = (size_t)g->states[i].offset,
            .row = row,
            .per_position = g->states[i].cache ? row / (size_t)shape->dim[1] : 0,
        };
        if (row > largest)
            largest = row;
    }
    s->zeros = calloc(largest + 1, 1);
    if (!s->slots || !s->zeros)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for a session of %d sequences", s->batch);
    return ITERA_OK;
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
    s->ahead.token = calloc(2 * ITERA_AHEAD * batch, sizeof *s->ahead.token);
    s->staging = calloc(batch * chunk, sizeof *s->staging);
    s->numbers = calloc(batch * 4, sizeof *s->numbers);
    s->rng_kept = calloc(batch * 4, sizeof *s->rng_kept);
    s->sequence = calloc(batch, sizeof *s->sequence);
    s->rows = calloc(batch, sizeof *s->rows);
    s->group = calloc(batch, sizeof *s->group);
    s->active = calloc(batch, sizeof *s->active);
    s->ways = calloc(batch, sizeof *s->ways);
    if (s->window)
        s->history = calloc(batch * (size_t)s->window, sizeof *s->history);
    if (!s->last || !s->ahead.token || !s->staging || !s->numbers || !s->rng_kept || !s->sequence ||
        !s->rows || !s->group || !s->active || !s->ways || (s->window && !s->history))
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
    s->progress = o.progress;
    s->user = o.user;
    s->vocab = s->tokens = model->config.vocab;
    if (model->tokenizer)
        s->tokens = itera_tokenizer_vocab_size(model->tokenizer);
    if (model->config.max_positions)
        s->window = o.positions ? o.positions : model->config.max_positions;
    int64_t chunk = o.chunk ? o.chunk : DEFAULT_CHUNK;
    if (s->window && chunk > s->window)
        chunk = s->window;
    while (s->chunk_bits < ITERA_SESSION_CHUNK_BITS && (int64_t)2 << s->chunk_bits <= chunk)
        s->chunk_bits++;

    status = record_phase(s, 1, &s->chunk[0]); /* for its sizes; compiled when it is used */
    if (!status)
        status = create_buffers(s);
    if (!status)
        status = find_slots(s);
    if (!status)
        status = itera_model_prepare(model, &s->chunk[0].graph, s->derived);
    itera_phase_destroy(&s->chunk[0]);
    if (!status)
        status = make_clear(s);
    if (!status)
        status = make_sample(s);
    if (!status)
        status = itera_session_set_sampling(s, -1, NULL);
    if (status)
        itera_session_destroy(&s);
    *session = s;
    return status;
}

enum itera_status itera_session_expect(const struct itera_session *s, int32_t sequence)
{
    if (sequence >= 0 && sequence < s->batch)
        return ITERA_OK;
    return itera_fail(ITERA_ERR_ARGUMENT, "there is no sequence %d in a session of %d", sequence,
                      s->batch);
}

enum itera_status itera_session_set_starts(struct itera_session *s)
{
    for (int32_t i = 0; i < s->batch; i++) /* held at the largest, as the op advance does */
        s->numbers[i] =
            (int32_t)(s->sequence[i].position < INT32_MAX ? s->sequence[i].position : INT32_MAX);
    return itera_buffer_upload(s->start, 0, s->numbers, (size_t)s->batch * 4);
}

enum itera_status itera_session_clear_one(struct itera_session *s, int32_t sequence)
{
    enum itera_status status = ITERA_OK;
    for (int i = 0; i < s->n_slots && !status; i++) {
        const struct itera_session_slot *slot = &s->slots[i];
        if (!slot->per_position)
            status = itera_buffer_upload(s->states, slot->offset + (size_t)sequence * slot->row,
                                         s->zeros, slot->row);
    }
    s->sequence[sequence].position = 0;
    return status ? status : itera_session_set_starts(s);
}

/* States and positions of the sequences with rows as at the beginning; their counters are the
 * caller's. */
enum itera_status itera_session_clear(struct itera_session *s, const int32_t *const *rows)
{
    bool all = true;
    for (int32_t i = 0; i < s->batch; i++)
        all = all && rows[i];
    enum itera_status status = all ? itera_run(s->clear.executable) : ITERA_OK;
    for (int32_t i = 0; i < s->batch && !status; i++) {
        if (all)
            s->sequence[i].position = 0;
        else if (rows[i])
            status = itera_session_clear_one(s, i);
    }
    return status || !all ? status : itera_session_set_starts(s);
}

enum itera_status itera_session_reset(struct itera_session *session)
{
    (void)itera_session_settle(session); /* for the random streams; the states go */
    session->ahead.broken = false;
    memset(session->sequence, 0, (size_t)session->batch * sizeof *session->sequence);
    enum itera_status status = itera_run(session->clear.executable);
    for (int32_t i = 0; i < session->batch && session->adjust && !status; i++)
        status = itera_session_set_penalty(session, i, session->penalty[i]);
    return status ? status : itera_session_set_starts(session);
}

enum itera_status itera_session_reset_sequence(struct itera_session *session, int32_t sequence)
{
    enum itera_status status = itera_session_expect(session, sequence);
    if (!status)
        status = itera_session_settle(session);
    if (status)
        return status;
    session->sequence[sequence] = (struct itera_sequence){0};
    if (session->adjust)
        status = itera_session_set_penalty(session, sequence, session->penalty[sequence]);
    return status ? status : itera_session_clear_one(session, sequence);
}

/* How far below the largest logit tokens are left out; 0: none is. */
static float min_p_gap(const struct itera_sampling *sampling)
{
    if (!(sampling->min_p > 0) || !(sampling->temperature > 0))
        return 0;
    /* Above 0 even where only the likeliest is to stay, and finite. */
    double gap = -(double)sampling->temperature * log((double)sampling->min_p);
    return (float)fmin(fmax(gap, FLT_MIN), FLT_MAX);
}

enum itera_status itera_session_set_sampling(struct itera_session *session, int32_t sequence,
                                             const struct itera_sampling *sampling)
{
    static const struct itera_sampling greedy;
    if (!sampling)
        sampling = &greedy;
    enum itera_status status = sequence == -1 ? ITERA_OK : itera_session_expect(session, sequence);
    if (status)
        return status;
    if (!(sampling->temperature >= 0) || !isfinite(sampling->temperature) || sampling->top_k < 0 ||
        !(sampling->top_p >= 0 && sampling->top_p <= 1) ||
        !(sampling->min_p >= 0 && sampling->min_p <= 1))
        return itera_fail(
            ITERA_ERR_ARGUMENT,
            "temperature must be 0 or more, top_k 0 or more, top_p and min_p between 0 "
            "and 1");
    if (!isfinite(sampling->presence) || !isfinite(sampling->frequency) ||
        !(sampling->repetition >= 0 && sampling->repetition <= ITERA_SESSION_MOST_REPETITION))
        return itera_fail(
            ITERA_ERR_ARGUMENT,
            "the presence and frequency penalties must be finite, repetition between 0 and 1000");
    const struct itera_penalty penalty = {.presence = sampling->presence,
                                          .frequency = sampling->frequency,
                                          .repetition =
                                              sampling->repetition > 0 ? sampling->repetition : 1};
    bool penalised = penalty.presence != 0 || penalty.frequency != 0 || penalty.repetition != 1;
    status = itera_session_settle(session);
    if (!status && penalised)
        status = itera_session_allow_adjust(session);
    int32_t first = sequence < 0 ? 0 : sequence;
    int32_t end = sequence < 0 ? session->batch : sequence + 1;
    for (int32_t i = first; i < end && !status; i++) {
        uint64_t seed = sampling->seed + (sequence < 0 ? (uint64_t)i : 0);
        float settings[4] = {sampling->temperature, (float)sampling->top_k,
                             sampling->top_p > 0 ? sampling->top_p : 1, min_p_gap(sampling)};
        int32_t rng[4] = {(int32_t)(uint32_t)seed, (int32_t)(uint32_t)(seed >> 32), 0, 0};
        status = itera_buffer_upload(session->sampling, (size_t)i * 16, settings, 16);
        if (!status)
            status = itera_buffer_upload(session->rng, (size_t)i * 16, rng, 16);
        if (!status && session->adjust)
            status = itera_session_set_penalty(session, i, penalty);
    }
    return status;
}

enum itera_status itera_session_warm(struct itera_session *session, size_t n)
{
    enum itera_status status = itera_session_make_step(session);
    size_t largest = (size_t)1 << session->chunk_bits;
    /* Where decoding comes to the end of the window, it reads the last half again and one more. */
    size_t again = session->window ? (size_t)session->window / 2 + 1 : 0;
    for (int bits = 0; bits <= session->chunk_bits && !status; bits++)
        if ((n | again) >> bits & 1 ||
            (bits == session->chunk_bits && (n >= largest || again >= largest)))
            status = itera_session_make_chunk(session, bits);
    return status;
}

enum itera_status itera_session_logits(struct itera_session *session, float *logits)
{
    if (itera_session_tokens_read(session) == 0)
        return itera_fail(ITERA_ERR_ARGUMENT, "there are no logits before the first token");
    enum itera_status status = itera_session_settle(session);
    return status ? status
                  : itera_buffer_download(session->logits, 0, logits,
                                          (size_t)session->batch * (size_t)session->vocab * 4);
}

int32_t itera_session_batch(const struct itera_session *session)
{
    return session->batch;
}

uint64_t itera_session_tokens_read(const struct itera_session *session)
{
    uint64_t most = 0;
    for (int32_t i = 0; i < session->batch; i++)
        if (session->sequence[i].tokens_read > most)
            most = session->sequence[i].tokens_read;
    return most;
}

uint64_t itera_session_tokens_run(const struct itera_session *session)
{
    uint64_t most = 0;
    for (int32_t i = 0; i < session->batch; i++)
        if (session->sequence[i].tokens_run > most)
            most = session->sequence[i].tokens_run;
    return most;
}

uint64_t itera_session_sequence_tokens_read(const struct itera_session *session, int32_t sequence)
{
    return sequence >= 0 && sequence < session->batch ? session->sequence[sequence].tokens_read : 0;
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
    if (s->adjust)
        bytes += s->adjust->bytes + s->factor->bytes;
    if (s->kept)
        bytes += s->kept->bytes;
    if (s->pick)
        bytes += s->pick->bytes;
    for (int i = 0; i <= ITERA_SESSION_CHUNK_BITS; i++)
        if (s->chunk[i].executable)
            bytes += s->chunk[i].executable->memory_bytes;
    const struct itera_executable *others[] = {s->step.executable,       s->save[0].executable,
                                               s->save[1].executable,    s->restore[0].executable,
                                               s->restore[1].executable, s->merge.executable};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        bytes += others[i] ? others[i]->memory_bytes : 0;
    return bytes;
}
