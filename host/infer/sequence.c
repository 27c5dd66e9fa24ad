/* A sequence's state as bytes: saved, loaded and copied.
 *
 * Little-endian, in this order; nothing in between:
 *
 *   0  char[8]  "iterasqn"
 *   8  u32      version, 1
 *  12  u32      1 where a token was given out and is not read yet, else 0
 *  16  u64      bytes of all of it
 *  24  u8[16]   the model: itera_session_identify
 *  40  u64      positions of the window, 0: no end
 *  48  u64      position
 *  56  u64      tokens read
 *  64  u64      tokens run
 *  72  i32      the token that was given out
 *  76  i32      vocabulary
 *  80  f32[4]   sampling, see the op sample
 *  96  i32[4]   random stream, see the op sample
 * 112  f32[3]   penalties: presence, frequency, repetition
 * 124  u32      tokens with counts
 * 128  u32      tokens with a bias
 * 132  u32      0
 * 136  f32      logits (vocabulary) if a token was read
 *      i32      tokens at the positions so far, where the window has an end
 *      f32      the states one after the other; of caches, the positions so far
 *      i32, i32 a token and how often it was given out, as counts for penalties; by token
 *      i32, f32 a token and its bias; by token
 *      u8[16]   SipHash of all before
 *
 * The hash finds damage; it proves no origin, so every value is checked when it is loaded. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/siphash.h"
#include "infer/session_impl.h"

enum { HEADER = 136, PAIR = 8, VERSION = 1 };
static const char MAGIC[8] = {'i', 't', 'e', 'r', 'a', 's', 'q', 'n'};
/* Anyone may know them: they tell our two uses of the hash apart. */
static const uint8_t STATE_KEY[ITERA_SIPHASH_KEY] = "itera sequence 1",
                     MODEL_KEY[ITERA_SIPHASH_KEY] = "itera identity 1";

struct header {
    char magic[8];
    uint32_t version, pending;
    uint64_t bytes;
    uint8_t model[16];
    uint64_t window, position, tokens_read, tokens_run;
    int32_t token, vocab;
    float sampling[4];
    int32_t rng[4];
    struct itera_penalty penalty;
    uint32_t counts, biases, zero;
};
_Static_assert(sizeof(struct header) == HEADER, "the header has no gaps");
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "states are written as they are in memory, little-endian"
#endif

/* Hashes the configuration and all weights, as they are in memory: the state of another model,
 * or of the same with narrower weights, is no state of this one. */
static enum itera_status identify(struct itera_session *s)
{
    enum { PART = 4 << 20 };
    const struct itera_model *m = s->model;
    char *config = NULL;
    uint8_t *part = malloc(PART);
    struct itera_siphash hash;
    itera_siphash_begin(&hash, MODEL_KEY);
    enum itera_status status = part ? itera_model_config_json(m, &config)
                                    : itera_fail(ITERA_ERR_MEMORY, "no memory to save a sequence");
    if (!status)
        itera_siphash_add(&hash, config, strlen(config));
    for (int i = 0; i < m->layout.n_params && !status; i++) {
        const struct itera_param *param = &m->layout.params[i];
        size_t bytes = itera_dtype_bytes(param->dtype, itera_shape_elements(&param->shape));
        const uint32_t dtype = (uint32_t)param->dtype;
        itera_siphash_add(&hash, &dtype, sizeof dtype);
        for (size_t at = 0; at < bytes && !status; at += PART) {
            size_t n = bytes - at < PART ? bytes - at : PART;
            status = itera_buffer_download(m->weights, (size_t)param->place + at, part, n);
            if (!status)
                itera_siphash_add(&hash, part, n);
        }
    }
    itera_siphash_end(&hash, s->identity);
    s->identified = !status;
    free(config);
    free(part);
    return status;
}

/* Bytes of a slot's state of a sequence at this position. */
static size_t slot_bytes(const struct itera_session_slot *slot, uint64_t position)
{
    return slot->per_position ? slot->per_position * (size_t)position : slot->row;
}

/* Bytes of everything before the pairs. */
static size_t state_bytes(const struct itera_session *s, const struct header *h)
{
    size_t bytes = HEADER;
    if (h->tokens_read)
        bytes += (size_t)s->vocab * 4;
    if (s->window)
        bytes += (size_t)h->position * 4;
    for (int i = 0; i < s->n_slots; i++)
        bytes += slot_bytes(&s->slots[i], h->position);
    return bytes;
}

/* The tokens of a sequence with a count or a bias: how many there are, or the pairs themselves. */
static void put_pairs(const struct itera_session *s, int32_t sequence, struct header *h,
                      uint8_t *data)
{
    if (!s->adjust)
        return;
    const size_t row = (size_t)sequence * (size_t)s->vocab;
    h->penalty = s->penalty[sequence];
    h->counts = h->biases = 0;
    for (int32_t t = 0; t < s->vocab; t++) {
        if (!s->count[row + (size_t)t])
            continue;
        if (data) {
            memcpy(data, &t, 4);
            memcpy(data + 4, &s->count[row + (size_t)t], 4);
            data += PAIR;
        }
        h->counts++;
    }
    for (int32_t t = 0; t < s->vocab; t++) {
        if (s->bias[row + (size_t)t] == 0)
            continue;
        if (data) {
            memcpy(data, &t, 4);
            memcpy(data + 4, &s->bias[row + (size_t)t], 4);
            data += PAIR;
        }
        h->biases++;
    }
}

/* Makes the pairs those of a sequence. */
static enum itera_status take_pairs(struct itera_session *s, int32_t sequence,
                                    const struct header *h, const uint8_t *data)
{
    bool any = h->counts || h->biases || h->penalty.presence != 0 || h->penalty.frequency != 0 ||
               h->penalty.repetition != 1;
    enum itera_status status = any ? itera_session_allow_adjust(s) : ITERA_OK;
    if (status || !s->adjust)
        return status;
    const size_t row = (size_t)sequence * (size_t)s->vocab;
    s->penalty[sequence] = h->penalty;
    memset(s->count + row, 0, (size_t)s->vocab * sizeof *s->count);
    memset(s->bias + row, 0, (size_t)s->vocab * sizeof *s->bias);
    for (uint32_t i = 0; i < h->counts + h->biases; i++, data += PAIR) {
        int32_t token;
        memcpy(&token, data, 4);
        void *to =
            i < h->counts ? (void *)(s->count + row + token) : (void *)(s->bias + row + token);
        memcpy(to, data + 4, 4);
    }
    return itera_session_adjust(s, sequence);
}

/* Everything but the hashes into *out, of *size bytes with room for the hash of it. */
static enum itera_status pack(struct itera_session *s, int32_t sequence, uint8_t **out,
                              size_t *size)
{
    enum itera_status status = itera_session_settle(s);
    if (status)
        return status;
    const struct itera_sequence *q = &s->sequence[sequence];
    size_t row = (size_t)sequence;
    struct header h = {
        .version = VERSION,
        .pending = q->pending,
        .window = (uint64_t)s->window,
        .position = (uint64_t)q->position,
        .tokens_read = q->tokens_read,
        .tokens_run = q->tokens_run,
        .token = q->pending ? s->last[sequence] : 0,
        .vocab = s->vocab,
        .penalty.repetition = 1,
    };
    put_pairs(s, sequence, &h, NULL);
    size_t states_end = state_bytes(s, &h);
    h.bytes = states_end + ((size_t)h.counts + h.biases) * PAIR + ITERA_SIPHASH_BYTES;
    memcpy(h.magic, MAGIC, sizeof h.magic);
    uint8_t *data = calloc(1, (size_t)h.bytes);
    if (!data)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for %llu bytes of a sequence's state",
                          (unsigned long long)h.bytes);
    status = itera_buffer_download(s->sampling, row * 16, h.sampling, 16);
    if (!status)
        status = itera_buffer_download(s->rng, row * 16, h.rng, 16);
    memcpy(data, &h, sizeof h);
    put_pairs(s, sequence, &h, data + states_end);
    size_t at = HEADER;
    if (h.tokens_read) {
        size_t n = (size_t)s->vocab * 4;
        if (!status)
            status = itera_buffer_download(s->logits, row * n, data + at, n);
        at += n;
    }
    if (s->window) {
        memcpy(data + at, s->history + row * (size_t)s->window, (size_t)h.position * 4);
        at += (size_t)h.position * 4;
    }
    for (int i = 0; i < s->n_slots && !status; i++) {
        const struct itera_session_slot *slot = &s->slots[i];
        size_t n = slot_bytes(slot, h.position);
        if (n)
            status = itera_buffer_download(s->states, slot->offset + row * slot->row, data + at, n);
        at += n;
    }
    if (status) {
        free(data);
        return status;
    }
    *out = data;
    *size = (size_t)h.bytes;
    return ITERA_OK;
}

/* Makes bytes that were checked, or that pack made, the state of a sequence. */
static enum itera_status unpack(struct itera_session *s, int32_t sequence, const uint8_t *data)
{
    struct header h;
    memcpy(&h, data, sizeof h);
    size_t row = (size_t)sequence, at = HEADER;
    enum itera_status status = itera_session_settle(s);
    if (!status)
        status = itera_session_clear_one(s, sequence);
    if (!status)
        status = itera_buffer_upload(s->sampling, row * 16, h.sampling, 16);
    if (!status)
        status = itera_buffer_upload(s->rng, row * 16, h.rng, 16);
    if (h.tokens_read) {
        size_t n = (size_t)s->vocab * 4;
        if (!status)
            status = itera_buffer_upload(s->logits, row * n, data + at, n);
        at += n;
    }
    if (s->window) {
        memcpy(s->history + row * (size_t)s->window, data + at, (size_t)h.position * 4);
        at += (size_t)h.position * 4;
    }
    for (int i = 0; i < s->n_slots && !status; i++) {
        const struct itera_session_slot *slot = &s->slots[i];
        size_t n = slot_bytes(slot, h.position);
        if (n)
            status = itera_buffer_upload(s->states, slot->offset + row * slot->row, data + at, n);
        at += n;
    }
    if (!status)
        status = take_pairs(s, sequence, &h, data + at);
    s->last[sequence] = h.token;
    if (!status)
        status = itera_buffer_upload(s->token, row * 4, &h.token, 4);
    s->sequence[sequence] = (struct itera_sequence){
        .position = (int64_t)h.position,
        .tokens_read = h.tokens_read,
        .tokens_run = h.tokens_run,
        .pending = h.pending != 0,
    };
    return status ? status : itera_session_set_starts(s);
}

static void checksum(const uint8_t *data, size_t bytes, uint8_t out[ITERA_SIPHASH_BYTES])
{
    struct itera_siphash hash;
    itera_siphash_begin(&hash, STATE_KEY);
    itera_siphash_add(&hash, data, bytes);
    itera_siphash_end(&hash, out);
}

static enum itera_status check_sampling(const float sampling[4], const int32_t rng[4])
{
    if (!(sampling[0] >= 0) || !isfinite(sampling[0]) || !(sampling[1] >= 0) ||
        !isfinite(sampling[1]) || !(sampling[2] > 0 && sampling[2] <= 1) || !(sampling[3] >= 0) ||
        !isfinite(sampling[3]) || rng[3] != 0)
        return itera_fail(ITERA_ERR_FORMAT,
                          "a sequence's state: its sampling is out of range (temperature %g, top_k "
                          "%g, top_p %g)",
                          (double)sampling[0], (double)sampling[1], (double)sampling[2]);
    return ITERA_OK;
}

/* What the header says agrees with the session, with itself and with the size. */
static enum itera_status check_header(struct itera_session *s, const struct header *h, size_t size)
{
    if (memcmp(h->magic, MAGIC, sizeof h->magic) != 0)
        return itera_fail(ITERA_ERR_FORMAT, "these bytes are no sequence's state");
    if (h->version != VERSION)
        return itera_fail(ITERA_ERR_UNSUPPORTED,
                          "a sequence's state of version %u; this library reads version %d",
                          h->version, VERSION);
    if (h->bytes != size)
        return itera_fail(ITERA_ERR_FORMAT, "a sequence's state of %llu bytes, of which %zu came",
                          (unsigned long long)h->bytes, size);
    enum itera_status status = s->identified ? ITERA_OK : identify(s);
    if (status)
        return status;
    if (memcmp(h->model, s->identity, sizeof h->model) != 0 || h->vocab != s->vocab)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "a sequence's state of another model, or of other weights; load it to a "
                          "session of the model that saved it");
    if (h->window != (uint64_t)s->window)
        return itera_fail(
            ITERA_ERR_ARGUMENT,
            "a sequence's state for a window of %llu positions; the session has %lld: "
            "set positions in its options",
            (unsigned long long)h->window, (long long)s->window);
    const uint64_t most = UINT64_C(1) << 62; /* so that counting goes on for long */
    if (h->position > most || h->tokens_read > most || h->tokens_run > most)
        return itera_fail(ITERA_ERR_FORMAT, "a sequence's state: more tokens than there can be");
    bool fits = s->window ? h->position <= h->window && h->position <= h->tokens_read
                          : h->position == h->tokens_read;
    if (!fits || h->tokens_run < h->position || (h->position == 0) != (h->tokens_read == 0))
        return itera_fail(ITERA_ERR_FORMAT,
                          "a sequence's state: position %llu does not agree with %llu tokens read "
                          "and %llu run",
                          (unsigned long long)h->position, (unsigned long long)h->tokens_read,
                          (unsigned long long)h->tokens_run);
    if (h->pending > 1 || (h->pending && !h->tokens_read) || h->token < 0 || h->token >= s->vocab ||
        (!h->pending && h->token))
        return itera_fail(ITERA_ERR_FORMAT, "a sequence's state: its token %d cannot be", h->token);
    if (!isfinite(h->penalty.presence) || !isfinite(h->penalty.frequency) ||
        !(h->penalty.repetition > 0 && h->penalty.repetition <= ITERA_SESSION_MOST_REPETITION) ||
        h->zero || h->counts > (uint32_t)s->vocab || h->biases > (uint32_t)s->vocab)
        return itera_fail(ITERA_ERR_FORMAT,
                          "a sequence's state: its penalties, or the number of tokens with counts "
                          "(%u) or biases (%u), are out of range",
                          h->counts, h->biases);
    return check_sampling(h->sampling, h->rng);
}

/* Tokens of the model in ascending order, counts above 0, biases that are finite numbers but 0. */
static enum itera_status check_pairs(const struct itera_session *s, const struct header *h,
                                     const uint8_t *data)
{
    int32_t before = -1;
    for (uint32_t i = 0; i < h->counts + h->biases; i++, data += PAIR) {
        int32_t token, count;
        float bias;
        memcpy(&token, data, 4);
        memcpy(&count, data + 4, 4);
        memcpy(&bias, data + 4, 4);
        if (i == h->counts)
            before = -1;
        bool fits = i < h->counts ? count > 0 : isfinite(bias) && bias != 0;
        if (token <= before || token >= s->vocab || !fits)
            return itera_fail(ITERA_ERR_FORMAT,
                              "a sequence's state: the count or bias of token %d cannot be", token);
        before = token;
    }
    return ITERA_OK;
}

/* The values after the header, in front of the pairs: tokens of the model, finite numbers. */
static enum itera_status check_values(const struct itera_session *s, const struct header *h,
                                      const uint8_t *data, size_t end)
{
    size_t logits = h->tokens_read ? (size_t)s->vocab * 4 : 0;
    size_t tokens = s->window ? (size_t)h->position * 4 : 0, first = HEADER + logits;
    for (size_t at = HEADER; at < end; at += 4) {
        if (at >= first && at < first + tokens) {
            int32_t token;
            memcpy(&token, data + at, 4);
            if (token < 0 || token >= s->vocab)
                return itera_fail(ITERA_ERR_FORMAT,
                                  "a sequence's state: token %d is out of range; the model has %d",
                                  token, s->vocab);
            continue;
        }
        float value;
        memcpy(&value, data + at, 4);
        if (!isfinite(value))
            return itera_fail(ITERA_ERR_FORMAT,
                              "a sequence's state: the number at byte %zu is not finite", at);
    }
    return ITERA_OK;
}

enum itera_status itera_session_save(struct itera_session *session, int32_t sequence, void **bytes,
                                     size_t *size)
{
    *bytes = NULL;
    *size = 0;
    uint8_t *data = NULL;
    size_t n = 0;
    enum itera_status status = itera_session_expect(session, sequence);
    if (!status && !session->identified)
        status = identify(session);
    if (!status)
        status = pack(session, sequence, &data, &n);
    if (status)
        return status;
    memcpy(data + offsetof(struct header, model), session->identity, sizeof session->identity);
    /* What could not be loaded is no state: say so while the sequence is there. */
    struct header h;
    memcpy(&h, data, sizeof h);
    status = check_header(session, &h, n);
    if (!status)
        status = check_values(session, &h, data, state_bytes(session, &h));
    if (status) {
        free(data);
        return status;
    }
    checksum(data, n - ITERA_SIPHASH_BYTES, data + n - ITERA_SIPHASH_BYTES);
    *bytes = data;
    *size = n;
    return ITERA_OK;
}

enum itera_status itera_session_load(struct itera_session *session, int32_t sequence,
                                     const void *bytes, size_t size)
{
    struct header h;
    enum itera_status status = itera_session_expect(session, sequence);
    if (status)
        return status;
    if (size < HEADER + ITERA_SIPHASH_BYTES)
        return itera_fail(ITERA_ERR_FORMAT, "%zu bytes are too few for a sequence's state", size);
    memcpy(&h, bytes, sizeof h);
    status = check_header(session, &h, size);
    if (status)
        return status;
    size_t end = size - ITERA_SIPHASH_BYTES;
    const size_t states_end = state_bytes(session, &h);
    if (states_end + ((size_t)h.counts + h.biases) * PAIR != end)
        return itera_fail(ITERA_ERR_FORMAT,
                          "a sequence's state at position %llu does not have %zu bytes",
                          (unsigned long long)h.position, size);
    uint8_t sum[ITERA_SIPHASH_BYTES];
    checksum(bytes, end, sum);
    if (memcmp(sum, (const uint8_t *)bytes + end, sizeof sum) != 0)
        return itera_fail(ITERA_ERR_FORMAT,
                          "a sequence's state was damaged: its checksum is wrong");
    status = check_values(session, &h, bytes, states_end);
    if (!status)
        status = check_pairs(session, &h, (const uint8_t *)bytes + states_end);
    return status ? status : unpack(session, sequence, bytes);
}

enum itera_status itera_session_copy(struct itera_session *session, int32_t from, int32_t to)
{
    uint8_t *data = NULL;
    size_t size;
    enum itera_status status = itera_session_expect(session, from);
    if (!status)
        status = itera_session_expect(session, to);
    if (status || from == to)
        return status;
    status = pack(session, from, &data, &size);
    if (!status)
        status = unpack(session, to, data);
    free(data);
    return status;
}
