/* Sequences of one session apart from each other: at different positions, joining, leaving, reset,
 * saved, loaded and copied. On the CPU and on the first device of each other backend. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/siphash.h"
#include "infer/session_impl.h"
#include "itera/session.h"
#include "tests/support/test.h"

#define FIXTURES ITERA_SOURCE_DIR "/tests/fixtures/"

static const char *const configs[] = {FIXTURES "itera-odd/config.json",
                                      FIXTURES "transformer-small/config.json",
                                      FIXTURES "mamba-odd/config.json", "itera-m-micro"};
enum { FAMILIES = 4, VOCAB = 50, BATCH = 3 };

static struct itera_device *device;
static bool on_cpu;
static int families; /* the others of the CPU's are left out where kernels are compiled long */

static struct itera_session *make_session(struct itera_model *model, int32_t batch)
{
    struct itera_session *session;
    struct itera_session_options options = {.batch = batch, .chunk = 8};
    struct itera_sampling sampling = {.temperature = 1, .seed = 17};
    assert_int_equal(itera_session_create(model, &options, &session), ITERA_OK);
    for (int32_t i = 0; i < batch; i++)
        assert_int_equal(itera_session_set_sampling(session, i, &sampling), ITERA_OK);
    return session;
}

/* The logits of one sequence. */
static void logits_of(struct itera_session *s, int32_t sequence, float *out)
{
    float *all = malloc((size_t)itera_session_batch(s) * VOCAB * sizeof *all);
    assert_int_equal(itera_session_logits(s, all), ITERA_OK);
    memcpy(out, all + sequence * VOCAB, VOCAB * sizeof *out);
    free(all);
}

/* A sequence that reads a prompt and goes on, with its logits after each token. */
enum { PROMPT = 5, STEPS = 40 };
struct course {
    int32_t token[STEPS];
    float logits[STEPS][VOCAB];
};

/* The same tokens, and the same bits of logits; where experts take different numbers of rows,
 * the CPU sums in another order. */
static void assert_same_course(const struct course *a, const struct course *b, int family)
{
    assert_memory_equal(a->token, b->token, sizeof a->token);
    if (!on_cpu || family == 1 || family == 2)
        assert_memory_equal(a->logits, b->logits, sizeof a->logits);
    for (int i = 0; i < STEPS; i++) {
        double largest = 0;
        for (int k = 0; k < VOCAB; k++)
            largest = fmax(largest, fabs((double)a->logits[i][k]));
        for (int k = 0; k < VOCAB; k++)
            assert_true(fabs((double)a->logits[i][k] - b->logits[i][k]) <= 1e-5 * largest);
    }
}

static void begin(struct itera_session *s, int32_t sequence, int text)
{
    int32_t prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = (text * 11 + i * 7) % VOCAB;
    assert_int_equal(itera_session_prefill_some(s, &sequence, 1, prompt, PROMPT), ITERA_OK);
}

static void go_on(struct itera_session *s, int32_t sequence, int from, int to, struct course *c)
{
    for (int i = from; i < to; i++) {
        assert_int_equal(itera_session_next_some(s, &sequence, 1, &c->token[i]), ITERA_OK);
        logits_of(s, sequence, c->logits[i]);
    }
}

/* The others read other texts, in other steps, or nothing: the sequence does not notice, be it at
 * the same position or not, and over the ends of windows. */
static void test_apart(void **state)
{
    (void)state;
    static struct course alone, beside, other;
    for (int f = 0; f < families; f++) {
        struct itera_model *model = make_model(device, configs[f], VOCAB, 11);
        struct itera_session *s = make_session(model, BATCH);
        begin(s, 1, 1);
        go_on(s, 1, 0, STEPS, &alone);
        assert_int_equal(itera_session_sequence_tokens_read(s, 1), PROMPT + STEPS - 1);
        assert_int_equal(itera_session_sequence_tokens_read(s, 0), 0);

        /* Two others in between, of which one is reset and begins again. */
        assert_int_equal(itera_session_reset(s), ITERA_OK);
        struct itera_sampling sampling = {.temperature = 1, .seed = 17};
        assert_int_equal(itera_session_set_sampling(s, 1, &sampling), ITERA_OK);
        begin(s, 0, 3);
        go_on(s, 0, 0, 9, &other);
        begin(s, 1, 1);
        for (int i = 0; i < STEPS; i++) {
            if (i == 4)
                begin(s, 2, 5);
            if (i == 20)
                assert_int_equal(itera_session_reset_sequence(s, 0), ITERA_OK);
            if (i == 20)
                begin(s, 0, 8);
            if (i % 3 == 0)
                go_on(s, 0, i, i + 1, &other);
            if (i < 4 || i % 4 == 1) {
                go_on(s, 1, i, i + 1, &beside);
                continue;
            }
            /* Together: all, or two in another order. */
            int32_t token[3], list[2] = {2, 1};
            if (i % 2) {
                assert_int_equal(itera_session_next(s, token), ITERA_OK);
                beside.token[i] = token[1];
            } else {
                assert_int_equal(itera_session_next_some(s, list, 2, token), ITERA_OK);
                beside.token[i] = token[1];
            }
            logits_of(s, 1, beside.logits[i]);
        }
        assert_same_course(&alone, &beside, f);

        /* In another place, after a reset. */
        assert_int_equal(itera_session_reset_sequence(s, 2), ITERA_OK);
        assert_int_equal(itera_session_sequence_tokens_read(s, 2), 0);
        assert_int_equal(itera_session_set_sampling(s, 2, &sampling), ITERA_OK);
        begin(s, 2, 1);
        go_on(s, 2, 0, STEPS, &other);
        assert_same_course(&alone, &other, f);
        itera_session_destroy(&s);
        itera_model_destroy(&model);
    }
}

/* Two whose windows are full at different times, prefilled together. */
static void test_windows(void **state)
{
    (void)state;
    enum { LONG = 45 };
    int32_t ids[2 * LONG];
    float a[VOCAB], b[VOCAB];
    for (int i = 0; i < 2 * LONG; i++)
        ids[i] = (i * i + 3 * i) % VOCAB;
    for (int f = 0; f < families && f < 2; f++) {
        struct itera_model *model = make_model(device, configs[f], VOCAB, 11);
        struct itera_session *s = make_session(model, BATCH), *plain = make_session(model, BATCH);
        begin(s, 0, 2);
        begin(plain, 0, 2);
        static const int32_t both[2] = {2, 0}, second = 0, first = 2;
        assert_int_equal(itera_session_prefill_some(s, both, 2, ids, LONG), ITERA_OK);
        assert_int_equal(itera_session_prefill_some(plain, &second, 1, ids + LONG, LONG), ITERA_OK);
        assert_int_equal(itera_session_prefill_some(plain, &first, 1, ids, LONG), ITERA_OK);
        for (int32_t i = 0; i < BATCH; i += 2) {
            logits_of(s, i, a);
            logits_of(plain, i, b);
            for (int k = 0; k < VOCAB; k++)
                assert_true(fabs((double)a[k] - b[k]) <= 1e-5 * fmax(1, fabs((double)b[k])));
        }
        itera_session_destroy(&s);
        itera_session_destroy(&plain);
        itera_model_destroy(&model);
    }
}

static void test_lists(void **state)
{
    (void)state;
    struct itera_model *model = make_model(device, configs[2], VOCAB, 11);
    struct itera_session *s = make_session(model, BATCH);
    int32_t token[4] = {1, 2, 3, 4};
    static const int32_t twice[2] = {1, 1}, beyond[2] = {0, 3}, below[1] = {-1};
    assert_int_equal(itera_session_prefill_some(s, twice, 2, token, 1), ITERA_ERR_ARGUMENT);
    assert_non_null(strstr(itera_last_error(), "twice"));
    assert_int_equal(itera_session_prefill_some(s, beyond, 2, token, 1), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_next_some(s, below, 1, token), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_next_some(s, NULL, 4, token), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_reset_sequence(s, 3), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_reset_sequence(s, -1), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_tokens_read(s), 0);
    assert_int_equal(itera_session_prefill_some(s, beyond, 0, token, 1), ITERA_OK);
    assert_int_equal(itera_session_tokens_read(s), 0);
    assert_int_equal(itera_session_prefill_some(s, NULL, 2, token, 2), ITERA_OK);
    assert_int_equal(itera_session_sequence_tokens_read(s, 1), 2);
    assert_int_equal(itera_session_sequence_tokens_read(s, 2), 0);
    assert_int_equal(itera_session_sequence_tokens_read(s, 3), 0);
    itera_session_destroy(&s);
    itera_model_destroy(&model);
}

/* The rest of a course, which is the same bit for bit: the others do the same in both. */
static void assert_same_rest(const struct course *a, const struct course *b, int from)
{
    assert_memory_equal(a->token + from, b->token + from, (STEPS - from) * sizeof *a->token);
    assert_memory_equal(a->logits[from], b->logits[from], (STEPS - from) * sizeof *a->logits);
}

/* Saved with and without a token that was given out, loaded to another session, or copied: each
 * goes on as the sequence itself does. */
static void test_saved(void **state)
{
    (void)state;
    static struct course plain, loaded;
    static const int moments[] = {0, 7, 33};
    for (int f = 0; f < families; f++) {
        struct itera_model *model = make_model(device, configs[f], VOCAB, 11),
                           *same = make_model(device, configs[f], VOCAB, 11);
        for (int m = 0; m < 3; m++) {
            struct itera_session *s = make_session(model, 2), *other = make_session(same, 2);
            void *bytes, *again;
            size_t size, size_again;
            begin(s, 0, 1);
            go_on(s, 0, 0, moments[m], &plain);
            uint64_t read = itera_session_sequence_tokens_read(s, 0);
            assert_int_equal(itera_session_save(s, 0, &bytes, &size), ITERA_OK);
            go_on(s, 0, moments[m], STEPS, &plain);

            begin(other, 0, 9); /* what was there before is gone */
            go_on(other, 0, 0, 3, &loaded);
            assert_int_equal(itera_session_load(other, 0, bytes, size), ITERA_OK);
            assert_int_equal(itera_session_sequence_tokens_read(other, 0), read);
            assert_int_equal(itera_session_save(other, 0, &again, &size_again), ITERA_OK);
            assert_int_equal(size, size_again);
            assert_memory_equal(bytes, again, size);
            free(again);
            go_on(other, 0, moments[m], STEPS, &loaded);
            assert_same_rest(&plain, &loaded, moments[m]);

            /* Beside the one that it was saved from, and copied from there. */
            assert_int_equal(itera_session_load(s, 1, bytes, size), ITERA_OK);
            assert_int_equal(itera_session_copy(s, 1, 0), ITERA_OK);
            for (int i = moments[m]; i < STEPS; i++) {
                int32_t token[2];
                assert_int_equal(itera_session_next(s, token), ITERA_OK);
                assert_int_equal(token[0], plain.token[i]);
                assert_int_equal(token[1], plain.token[i]);
            }
            free(bytes);
            itera_session_destroy(&s);
            itera_session_destroy(&other);
        }
        itera_model_destroy(&model);
        itera_model_destroy(&same);
    }
}

/* One that has read nothing is a state, too. */
static void test_saved_empty(void **state)
{
    (void)state;
    struct itera_model *model = make_model(device, configs[0], VOCAB, 11);
    struct itera_session *s = make_session(model, 2);
    void *bytes;
    size_t size;
    int32_t token[2];
    assert_int_equal(itera_session_save(s, 1, &bytes, &size), ITERA_OK);
    begin(s, 0, 1);
    assert_int_equal(itera_session_load(s, 0, bytes, size), ITERA_OK);
    free(bytes);
    assert_int_equal(itera_session_tokens_read(s), 0);
    assert_int_equal(itera_session_next(s, token), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_save(s, 2, &bytes, &size), ITERA_ERR_ARGUMENT);
    assert_null(bytes);
    assert_int_equal(itera_session_copy(s, 0, 2), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_copy(s, -1, 0), ITERA_ERR_ARGUMENT);
    itera_session_destroy(&s);
    itera_model_destroy(&model);
}

/* Writes a value into saved bytes and makes their checksum right again. */
static void forge(uint8_t *bytes, size_t size, size_t at, const void *value, size_t n)
{
    struct itera_siphash hash;
    memcpy(bytes + at, value, n);
    itera_siphash_begin(&hash, (const uint8_t *)"itera sequence 1");
    itera_siphash_add(&hash, bytes, size - ITERA_SIPHASH_BYTES);
    itera_siphash_end(&hash, bytes + size - ITERA_SIPHASH_BYTES);
}

/* A bias forbids tokens or forces one; penalties are what they say; both are saved with the
 * state, and the other sequence has its own. */
static void test_penalties(void **state)
{
    (void)state;
    struct itera_model *model = make_model(device, configs[2], VOCAB, 11);
    struct itera_session *s = make_session(model, 2), *other = make_session(model, 2);
    static const struct itera_sampling greedy = {0};
    static const int32_t ids[2] = {4, 9}, bad_id = VOCAB, prompt[2] = {7, 7};
    static const float forced[2] = {1e6f, 2e6f}, not_finite = INFINITY;
    struct itera_sampling penalised = {.presence = 3, .frequency = 1.5f, .repetition = 1.25f};
    float logits[2 * VOCAB], plain[VOCAB];
    int32_t token[2], count[VOCAB] = {0}, alone[12];
    assert_int_equal(itera_session_set_bias(s, 0, &bad_id, forced, 1), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_set_bias(s, 0, ids, &not_finite, 1), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_set_bias(s, 2, ids, forced, 2), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_set_bias(s, 0, NULL, NULL, 0), ITERA_OK);
    penalised.presence = NAN;
    assert_int_equal(itera_session_set_sampling(s, 0, &penalised), ITERA_ERR_ARGUMENT);
    penalised.presence = 3;
    penalised.repetition = -1;
    assert_int_equal(itera_session_set_sampling(s, 0, &penalised), ITERA_ERR_ARGUMENT);
    penalised.repetition = 1.25f;

    assert_int_equal(itera_session_set_sampling(s, -1, &greedy), ITERA_OK);
    assert_int_equal(itera_session_prefill(s, prompt, 1), ITERA_OK);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(itera_session_next(s, token), ITERA_OK);
        assert_int_equal(token[0], token[1]);
        alone[i] = token[1];
    }
    logits_of(s, 0, plain);
    assert_int_equal(itera_session_set_bias(s, 0, ids, forced, 2), ITERA_OK);
    assert_int_equal(itera_session_reset(s), ITERA_OK);
    assert_int_equal(itera_session_prefill(s, prompt, 1), ITERA_OK);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(itera_session_next(s, token), ITERA_OK);
        assert_int_equal(token[0], 9);
        assert_int_equal(token[1], alone[i]);
    }
    logits_of(s, 1, logits);
    assert_memory_equal(logits, plain, sizeof plain); /* the model's own, as before */

    /* By hand: the likeliest after what was given out is taken off. */
    assert_int_equal(itera_session_set_bias(s, 0, ids, forced, 0), ITERA_OK);
    assert_int_equal(itera_session_set_sampling(s, 0, &penalised), ITERA_OK);
    assert_int_equal(itera_session_reset(s), ITERA_OK);
    assert_int_equal(itera_session_prefill(s, prompt, 1), ITERA_OK);
    void *saved = NULL;
    size_t size = 0;
    int32_t rest[20];
    for (int i = 0; i < 20; i++) {
        if (i == 8)
            assert_int_equal(itera_session_save(s, 0, &saved, &size), ITERA_OK);
        assert_int_equal(itera_session_next(s, token), ITERA_OK);
        logits_of(s, 0, logits);
        int best = 0;
        for (int k = 0; k < VOCAB; k++) {
            if (count[k])
                logits[k] = (logits[k] < 0 ? logits[k] * 1.25f : logits[k] / 1.25f) - 3 -
                            1.5f * (float)count[k];
            best = logits[k] > logits[best] ? k : best;
        }
        assert_int_equal(token[0], best);
        count[best]++;
        rest[i] = token[0];
    }
    /* In a session that knows nothing of penalties; copied there; and a count that is forged. */
    assert_int_equal(itera_session_load(other, 1, saved, size), ITERA_OK);
    assert_int_equal(itera_session_copy(other, 1, 0), ITERA_OK);
    for (int i = 8; i < 20; i++) {
        assert_int_equal(itera_session_next(other, token), ITERA_OK);
        assert_int_equal(token[0], rest[i]);
        assert_int_equal(token[1], rest[i]);
    }
    const int32_t wrong[] = {-1, VOCAB, 0};
    for (int i = 0; i < 3; i++) {
        uint8_t *bytes = malloc(size);
        memcpy(bytes, saved, size);
        /* The last pair, a token and its count */
        forge(bytes, size, size - ITERA_SIPHASH_BYTES - (i < 2 ? 8 : 4), &wrong[i], 4);
        assert_int_equal(itera_session_load(other, 0, bytes, size), ITERA_ERR_FORMAT);
        free(bytes);
    }
    free(saved);
    itera_session_destroy(&s);
    itera_session_destroy(&other);
    itera_model_destroy(&model);
}

/* Bytes that are cut off, damaged, forged or another model's are refused, and change nothing. */
static void test_bad_states(void **state)
{
    (void)state;
    struct itera_model *model = make_model(device, configs[0], VOCAB, 11),
                       *other = make_model(device, configs[0], VOCAB, 12);
    struct itera_session *s = make_session(model, 1), *strange = make_session(other, 1), *narrow;
    struct itera_session_options options = {.positions = 20};
    void *saved, *now;
    size_t size, n;
    int32_t token;
    assert_int_equal(itera_session_create(model, &options, &narrow), ITERA_OK);
    begin(s, 0, 1);
    assert_int_equal(itera_session_next(s, &token), ITERA_OK);
    assert_int_equal(itera_session_save(s, 0, &saved, &size), ITERA_OK);
    assert_int_equal(itera_session_load(strange, 0, saved, size), ITERA_ERR_ARGUMENT);
    assert_non_null(strstr(itera_last_error(), "another model"));
    assert_int_equal(itera_session_load(narrow, 0, saved, size), ITERA_ERR_ARGUMENT);
    assert_non_null(strstr(itera_last_error(), "30 positions"));
    assert_int_equal(itera_session_load(s, 1, saved, size), ITERA_ERR_ARGUMENT);

    for (size_t k = 0; k < size; k += k < 200 ? 1 : 97) {
        uint8_t *cut = malloc(k + 1); /* of its own size, so that a read beyond it is found */
        memcpy(cut, saved, k);
        assert_int_equal(itera_session_load(s, 0, cut, k), ITERA_ERR_FORMAT);
        free(cut);
    }
    uint8_t *bytes = malloc(size);
    for (size_t k = 0; k < size; k += k < 200 ? 1 : 97) {
        memcpy(bytes, saved, size);
        bytes[k] ^= 0x10;
        assert_int_not_equal(itera_session_load(s, 0, bytes, size), ITERA_OK);
    }
    static const uint64_t huge = UINT64_MAX / 4, beyond = 31, zero = 0, four = 4;
    static const int32_t minus = -1, many = VOCAB, one = 1;
    static const float nan_value = NAN, cold = -1, more = 1.5f;
    const struct {
        size_t at;
        const void *value;
        size_t n;
    } forged[] = {
        {8, &many, 4},        /* version */
        {12, &many, 4},       /* pending */
        {12, &zero, 4},       /* no token given out, but which it is */
        {16, &huge, 8},       /* bytes */
        {40, &zero, 8},       /* window */
        {48, &huge, 8},       /* position */
        {48, &beyond, 8},     /* the window has 30 */
        {48, &four, 8},       /* fewer than there are values for */
        {48, &zero, 8},       /* but tokens were read */
        {56, &zero, 8},       /* tokens read: fewer than the position */
        {64, &four, 8},       /* tokens run */
        {72, &minus, 4},      /* token */
        {72, &many, 4},       /* the model has fewer */
        {76, &many, 0},       /* nothing forged: see below */
        {80, &cold, 4},       /* temperature */
        {80, &nan_value, 4},  /* temperature */
        {84, &cold, 4},       /* top_k */
        {88, &more, 4},       /* top_p */
        {92, &cold, 4},       /* gap of min_p */
        {108, &one, 4},       /* unused */
        {112, &nan_value, 4}, /* a penalty */
        {116, &nan_value, 4},
        {124, &one, 4}, /* counts that are not there */
        {128, &minus, 4},
        {132, &one, 4},
        {120, &cold, 4},
        {120, &zero, 4},
        {136, &nan_value, 4},                  /* a logit */
        {136 + 4 * VOCAB, &minus, 4},          /* a token of the history */
        {136 + 4 * VOCAB + 16, &many, 4},      /* the last of them */
        {136 + 4 * VOCAB + 20, &nan_value, 4}, /* a state */
    };
    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++) {
        memcpy(bytes, saved, size);
        forge(bytes, size, forged[i].at, forged[i].value, forged[i].n);
        enum itera_status status = itera_session_load(s, 0, bytes, size);
        if ((status == ITERA_OK) != (forged[i].n == 0))
            fail_msg("forged at %zu: status %d", forged[i].at, (int)status);
    }
    assert_int_equal(itera_session_save(s, 0, &now, &n), ITERA_OK);
    assert_int_equal(n, size);
    assert_memory_equal(now, saved, size);
    free(now);
    free(bytes);
    free(saved);
    itera_session_destroy(&s);
    itera_session_destroy(&strange);
    itera_session_destroy(&narrow);
    itera_model_destroy(&model);
    itera_model_destroy(&other);
}

struct heard {
    int calls, stop_at;
    size_t done;
};

static int on_prefill(void *user, size_t done, size_t total)
{
    struct heard *h = user;
    assert_true(done > h->done && done <= total);
    h->done = done;
    return ++h->calls == h->stop_at;
}

/* A prefill is told by its chunks. Where it is stopped, what was to read must begin anew, and the
 * others stay as they are. */
static void test_progress(void **state)
{
    (void)state;
    enum { TOKENS = 29 }; /* chunks of 8, 8, 8, 4, 1 */
    int32_t prompt[2 * TOKENS];
    for (int i = 0; i < 2 * TOKENS; i++)
        prompt[i] = i * 7 % VOCAB;
    for (int f = 0; f < families; f++) {
        struct itera_model *model = make_model(device, configs[f], VOCAB, 5);
        struct heard heard = {0};
        struct itera_session_options options = {
            .batch = 2, .chunk = 8, .progress = on_prefill, .user = &heard};
        struct itera_session *s;
        assert_int_equal(itera_session_create(model, &options, &s), ITERA_OK);
        float want[2][VOCAB], got[VOCAB];
        assert_int_equal(itera_session_prefill(s, prompt, TOKENS), ITERA_OK);
        assert_int_equal(heard.calls, 5);
        assert_int_equal(heard.done, TOKENS);
        logits_of(s, 0, want[0]);
        logits_of(s, 1, want[1]);

        assert_int_equal(itera_session_reset_sequence(s, 1), ITERA_OK);
        heard = (struct heard){.stop_at = 2};
        assert_int_equal(itera_session_prefill_some(s, (int32_t[]){1}, 1, prompt, TOKENS),
                         ITERA_ERR_CANCELLED);
        assert_int_equal(heard.done, 16);
        logits_of(s, 0, got);
        assert_memory_equal(got, want[0], sizeof got);
        heard = (struct heard){0};
        assert_int_equal(itera_session_reset_sequence(s, 1), ITERA_OK);
        assert_int_equal(itera_session_prefill_some(s, (int32_t[]){1}, 1, prompt + TOKENS, TOKENS),
                         ITERA_OK);
        logits_of(s, 0, got);
        assert_memory_equal(got, want[0], sizeof got);
        logits_of(s, 1, got);
        if (!on_cpu || f == 1 || f == 2) /* experts take other rows */
            assert_memory_equal(got, want[1], sizeof got);
        itera_session_destroy(&s);
        itera_model_destroy(&model);
    }
}

/* What a session is asked for after some tokens that it may have run ahead of. */
enum { LOOKS, READS, ONE, ALONE, SEEDS, SAVES, BIASES, RESETS, NOTHING, WISHES };

static void wish(struct itera_session *s, int what, int32_t *tokens)
{
    struct itera_sampling sampling = {.temperature = 1, .seed = 29};
    const int32_t one[BATCH] = {3, 9, 27}, two[BATCH][2] = {{4, 8}, {16, 32}, {1, 2}};
    const float bias = 2;
    void *bytes = NULL;
    size_t size;
    if (what == READS)
        assert_int_equal(itera_session_prefill(s, &two[0][0], 2), ITERA_OK);
    if (what == ONE)
        assert_int_equal(itera_session_prefill_some(s, (int32_t[]){2}, 1, one, 1), ITERA_OK);
    if (what == ALONE)
        assert_int_equal(itera_session_next_some(s, (int32_t[]){1}, 1, tokens), ITERA_OK);
    if (what == SEEDS)
        assert_int_equal(itera_session_set_sampling(s, 1, &sampling), ITERA_OK);
    if (what == BIASES)
        assert_int_equal(itera_session_set_bias(s, 0, one, &bias, 1), ITERA_OK);
    if (what == RESETS) {
        assert_int_equal(itera_session_reset_sequence(s, 1), ITERA_OK);
        assert_int_equal(itera_session_prefill_some(s, (int32_t[]){1}, 1, one, 3), ITERA_OK);
    }
    if (what == SAVES) {
        assert_int_equal(itera_session_save(s, 1, &bytes, &size), ITERA_OK);
        assert_int_equal(itera_session_load(s, 2, bytes, size), ITERA_OK);
    }
    free(bytes);
}

/* Whatever is asked for after any number of tokens: a session that ran ahead is the one that did not. */
static void test_ahead(void **state)
{
    (void)state;
    enum { MOST = 19 };
    const int32_t prompt[BATCH][2] = {{1, 5}, {7, 11}, {13, 2}};
    static float logits[2][BATCH * VOCAB];
    for (int f = 0; f < families; f++) {
        struct itera_model *model = make_model(device, configs[f], VOCAB, 11);
        struct itera_session *s[2] = {make_session(model, BATCH), make_session(model, BATCH)};
        for (int n = 0; n <= MOST; n++) {
            int32_t token[2][BATCH];
            for (int k = 0; k < 2; k++)
                assert_int_equal(itera_session_prefill(s[k], &prompt[0][0], 2), ITERA_OK);
            assert_int_equal(itera_session_run_ahead(s[1], MOST), ITERA_OK);
            for (int i = 0; i < n; i++) {
                for (int k = 0; k < 2; k++)
                    assert_int_equal(itera_session_next(s[k], token[k]), ITERA_OK);
                assert_memory_equal(token[0], token[1], sizeof token[0]);
            }
            const uint64_t ahead = s[1]->ahead.queued - s[1]->ahead.out;
            if (on_cpu || n < 2)
                assert_int_equal(ahead, 0);
            else if (!s[1]->adjust && !s[1]->window)
                assert_int_equal(ahead, MOST - n < ITERA_AHEAD - 1 ? MOST - n : ITERA_AHEAD - 1);
            for (int k = 0; k < 2; k++)
                wish(s[k], n % WISHES, token[k]);
            if (n % WISHES == ALONE)
                assert_int_equal(token[0][0], token[1][0]);
            for (int k = 0; k < 2; k++)
                assert_int_equal(itera_session_logits(s[k], logits[k]), ITERA_OK);
            assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
            assert_int_equal(itera_session_tokens_read(s[0]), itera_session_tokens_read(s[1]));
            for (int i = 0; i < 3; i++) {
                for (int k = 0; k < 2; k++)
                    assert_int_equal(itera_session_next(s[k], token[k]), ITERA_OK);
                assert_memory_equal(token[0], token[1], sizeof token[0]);
            }
            if (n % WISHES == BIASES) /* without, it may run ahead again */
                for (int k = 0; k < 2; k++) {
                    itera_session_destroy(&s[k]);
                    s[k] = make_session(model, BATCH);
                }
        }
        /* A smaller number than before, and an end with steps under way. */
        assert_int_equal(itera_session_run_ahead(s[1], 100), ITERA_OK);
        int32_t token[BATCH];
        assert_int_equal(itera_session_next(s[1], token), ITERA_OK);
        assert_int_equal(itera_session_run_ahead(s[1], 2), ITERA_OK);
        assert_int_equal(s[1]->ahead.queued, s[1]->ahead.out);
        assert_int_equal(itera_session_run_ahead(s[1], 100), ITERA_OK);
        assert_int_equal(itera_session_next(s[1], token), ITERA_OK);
        for (int k = 0; k < 2; k++)
            itera_session_destroy(&s[k]);
        itera_model_destroy(&model);
    }
}

/* After a step ahead has failed, nothing is given out until a reset. */
static void test_ahead_fails(void **state)
{
    (void)state;
    if (strcmp(itera_device_info(device)->id, "opencl:0") != 0)
        skip(); /* the CPU queues nothing, and a lost Vulkan device does not come back */
    struct itera_model *model = make_model(device, configs[0], VOCAB, 11);
    struct itera_session *s = make_session(model, BATCH);
    const int32_t prompt[BATCH] = {1, 7, 13};
    int32_t want[4][BATCH], token[BATCH];
    float *logits = malloc(BATCH * VOCAB * sizeof *logits);
    assert_int_equal(itera_session_set_sampling(s, -1, NULL), ITERA_OK);
    for (int failed = 0; failed < 2; failed++) {
        assert_int_equal(itera_session_prefill(s, prompt, 1), ITERA_OK);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(itera_session_next(s, token), ITERA_OK);
            if (failed)
                assert_memory_equal(token, want[i], sizeof token);
            memcpy(want[i], token, sizeof token);
        }
        if (failed)
            break;
        assert_int_equal(itera_session_run_ahead(s, 3), ITERA_OK);
        setenv("ITERA_FAULT", "lost:1", 1);
        assert_int_equal(itera_session_next(s, token), ITERA_ERR_DEVICE);
        unsetenv("ITERA_FAULT");
        assert_int_equal(itera_session_next(s, token), ITERA_ERR_DEVICE);
        assert_int_equal(itera_session_logits(s, logits), ITERA_ERR_DEVICE);
        assert_int_equal(itera_session_prefill(s, prompt, 1), ITERA_ERR_DEVICE);
        assert_non_null(strstr(itera_last_error(), "reset"));
        assert_int_equal(itera_session_reset(s), ITERA_OK);
    }
    free(logits);
    itera_session_destroy(&s);
    itera_model_destroy(&model);
}

int main(void)
{
    static const char *const devices[] = {"cpu", "vulkan:0", "opencl:0"};
    int failed = 0;
    for (int d = 0; d < 3; d++) {
        struct itera_device_options options = {.threads = 2};
        if (itera_device_open(devices[d], &options, &device)) {
            printf("%s: not here, left out\n", devices[d]);
            failed += d == 0;
            continue;
        }
        printf("on %s\n", devices[d]);
        on_cpu = d == 0;
        families = d == 0 ? FAMILIES : d == 1 ? 2 : 1;
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_apart),       cmocka_unit_test(test_windows),
            cmocka_unit_test(test_lists),       cmocka_unit_test(test_saved),
            cmocka_unit_test(test_saved_empty), cmocka_unit_test(test_penalties),
            cmocka_unit_test(test_bad_states),  cmocka_unit_test(test_progress),
            cmocka_unit_test(test_ahead),       cmocka_unit_test(test_ahead_fails),
        };
        failed += cmocka_run_group_tests_name(devices[d], tests, NULL, NULL);
        itera_device_close(&device);
    }
    return failed != 0;
}
