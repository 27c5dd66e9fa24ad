/* Sessions and evaluation: state carried in chunks or token by token, windows, sampling. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "itera/eval.h"
#include "itera/session.h"
#include "tests/support/test.h"

#define FIXTURES ITERA_SOURCE_DIR "/tests/fixtures/"

/* One configuration of each family; none has a tokenizer. */
static const char *const configs[] = {FIXTURES "itera-odd/config.json",
                                      FIXTURES "transformer-small/config.json",
                                      FIXTURES "mamba-odd/config.json", "itera-m-micro"};
enum { FAMILIES = 4, VOCAB = 50 };

static struct itera_device *device;

static int set_up(void **state)
{
    (void)state;
    return (device = open_cpu(2)) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    itera_device_close(&device);
    return 0;
}

static struct itera_session *make_session(struct itera_model *model, int32_t batch, int32_t chunk)
{
    struct itera_session *session;
    struct itera_session_options options = {.batch = batch, .chunk = chunk};
    assert_int_equal(itera_session_create(model, &options, &session), ITERA_OK);
    return session;
}

/* Any ids, always the same. */
static int32_t id_at(int row, int t)
{
    return (int32_t)((unsigned)(row * 131 + t * 37 + t * t * 5) % VOCAB);
}

static void fill_ids(int32_t *ids, int rows, int n)
{
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < n; t++)
            ids[r * n + t] = id_at(r, t);
}

static void assert_near(const float *a, const float *b, int n, double limit)
{
    double largest = 0;
    for (int i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)b[i]));
    for (int i = 0; i < n; i++)
        if (!(fabs((double)a[i] - b[i]) <= limit * largest))
            fail_msg("element %d is %g, expected %g", i, (double)a[i], (double)b[i]);
}

static int likeliest(const float *logits)
{
    int best = 0;
    for (int i = 1; i < VOCAB; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* Chunks of any size, single tokens and the whole sequence give the same logits, each row its own.
 */
static void test_prefill(void **state)
{
    (void)state;
    enum { ROWS = 3, N = 29 };
    int32_t ids[ROWS * N], part[ROWS * N];
    float whole[ROWS * N * VOCAB], last[ROWS * VOCAB];
    fill_ids(ids, ROWS, N);
    static const int chunks[] = {0, 1, 4, 16};
    for (int f = 0; f < FAMILIES; f++) {
        struct itera_model *model = make_model(device, configs[f], VOCAB, 11);
        assert_int_equal(itera_logits(model, ids, ROWS, N, whole), ITERA_OK);
        for (int c = 0; c < 4; c++) {
            struct itera_session *s = make_session(model, ROWS, chunks[c]);
            /* 10, then one by one, then the rest */
            static const int steps[] = {10, 1, 1, 17};
            int at = 0;
            for (int k = 0; k < 4; k++) {
                for (int r = 0; r < ROWS; r++)
                    memcpy(part + r * steps[k], ids + r * N + at, (size_t)steps[k] * 4);
                assert_int_equal(itera_session_prefill(s, part, (size_t)steps[k]), ITERA_OK);
                at += steps[k];
                assert_int_equal(itera_session_tokens_read(s), at);
                assert_int_equal(itera_session_logits(s, last), ITERA_OK);
                for (int r = 0; r < ROWS; r++)
                    assert_near(last + r * VOCAB, whole + (r * N + at - 1) * VOCAB, VOCAB, 1e-5);
            }
            itera_session_destroy(&s);
            assert_null(s);
        }
        itera_model_destroy(&model);
    }
}

/* Greedy decoding takes the likeliest token of each step, and reading the same tokens again gives
 * the same logits: the step reads what it sampled. */
static void test_greedy(void **state)
{
    (void)state;
    enum { N = 12, ROWS = 2 };
    for (int f = 0; f < FAMILIES; f++) {
        struct itera_model *model = make_model(device, configs[f], VOCAB, 11);
        struct itera_session *s = make_session(model, ROWS, 0), *again = make_session(model, 1, 0);
        int32_t prompt[ROWS * 5], out[N][ROWS];
        float logits[ROWS * VOCAB], other[VOCAB];
        fill_ids(prompt, ROWS, 5);
        assert_int_equal(itera_session_prefill(s, prompt, 5), ITERA_OK);
        for (int i = 0; i < N; i++) {
            assert_int_equal(itera_session_next(s, out[i]), ITERA_OK);
            assert_int_equal(itera_session_logits(s, logits), ITERA_OK);
            for (int r = 0; r < ROWS; r++)
                assert_int_equal(out[i][r], likeliest(logits + r * VOCAB));
        }
        assert_int_equal(itera_session_tokens_read(s), 5 + N - 1);
        /* Row 1 alone. */
        assert_int_equal(itera_session_prefill(again, prompt + 5, 5), ITERA_OK);
        for (int i = 0; i + 1 < N; i++)
            assert_int_equal(itera_session_prefill(again, &out[i][1], 1), ITERA_OK);
        assert_int_equal(itera_session_logits(again, other), ITERA_OK);
        assert_near(other, logits + VOCAB, VOCAB, 1e-5);
        itera_session_destroy(&s);
        itera_session_destroy(&again);
        itera_model_destroy(&model);
    }
}

/* A prefill after next reads the token that was given out first. */
static void test_goes_on(void **state)
{
    (void)state;
    struct itera_model *model = make_model(device, configs[2], VOCAB, 11);
    struct itera_session *s = make_session(model, 1, 0), *plain = make_session(model, 1, 0);
    int32_t ids[8], token;
    float a[VOCAB], b[VOCAB];
    fill_ids(ids, 1, 8);
    assert_int_equal(itera_session_prefill(s, ids, 4), ITERA_OK);
    assert_int_equal(itera_session_next(s, &token), ITERA_OK);
    assert_int_equal(itera_session_prefill(s, ids + 4, 4), ITERA_OK);
    assert_int_equal(itera_session_logits(s, a), ITERA_OK);
    assert_int_equal(itera_session_prefill(plain, ids, 4), ITERA_OK);
    assert_int_equal(itera_session_prefill(plain, &token, 1), ITERA_OK);
    assert_int_equal(itera_session_prefill(plain, ids + 4, 4), ITERA_OK);
    assert_int_equal(itera_session_logits(plain, b), ITERA_OK);
    assert_near(a, b, VOCAB, 1e-5);
    assert_int_equal(itera_session_tokens_read(s), 9);
    /* And a reset forgets all of it. */
    assert_int_equal(itera_session_reset(s), ITERA_OK);
    assert_int_equal(itera_session_tokens_read(s), 0);
    assert_int_equal(itera_session_logits(s, a), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_reset(plain), ITERA_OK);
    assert_int_equal(itera_session_prefill(s, ids + 2, 3), ITERA_OK);
    assert_int_equal(itera_session_prefill(plain, ids + 2, 3), ITERA_OK);
    assert_int_equal(itera_session_logits(s, a), ITERA_OK);
    assert_int_equal(itera_session_logits(plain, b), ITERA_OK);
    assert_memory_equal(a, b, sizeof a);
    itera_session_destroy(&s);
    itera_session_destroy(&plain);
    itera_model_destroy(&model);
}

/* What a session must know after n tokens: the window's last half, read again each time it was
 * full, and what came since. Returns how many of the last tokens those are. */
static int kept(int n, int window)
{
    int position = 0;
    for (int i = 0; i < n; i++)
        position = position == window ? window / 2 + 1 : position + 1;
    return position;
}

static void test_window(void **state)
{
    (void)state;
    enum { MOST = 100 };
    static const int windows[] = {30, 7, 1};
    int32_t ids[MOST];
    float a[VOCAB], b[VOCAB];
    fill_ids(ids, 1, MOST);
    for (int f = 0; f < 2; f++) {
        struct itera_model *model = make_model(device, configs[f], VOCAB, 11);
        for (int w = 0; w < 3; w++) {
            struct itera_session_options options = {.positions = windows[w]};
            struct itera_session *one, *all, *plain = make_session(model, 1, 0);
            assert_int_equal(itera_session_create(model, &options, &one), ITERA_OK);
            assert_int_equal(itera_session_create(model, &options, &all), ITERA_OK);
            for (int n = 1; n <= MOST; n++) {
                assert_int_equal(itera_session_prefill(one, ids + n - 1, 1), ITERA_OK);
                if (n % 9 && n != windows[w] && n != windows[w] + 1 && n != 45)
                    continue;
                int keep = kept(n, windows[w]);
                assert_int_equal(itera_session_logits(one, a), ITERA_OK);
                assert_int_equal(itera_session_reset(plain), ITERA_OK);
                assert_int_equal(itera_session_prefill(plain, ids + n - keep, (size_t)keep),
                                 ITERA_OK);
                assert_int_equal(itera_session_logits(plain, b), ITERA_OK);
                assert_near(a, b, VOCAB, 1e-5);
                /* All at once, and in two parts. */
                for (int first = 0; first < n; first += n / 2 + 1) {
                    assert_int_equal(itera_session_reset(all), ITERA_OK);
                    assert_int_equal(itera_session_prefill(all, ids, (size_t)first),
                                     first ? ITERA_OK : ITERA_ERR_ARGUMENT);
                    assert_int_equal(itera_session_prefill(all, ids + first, (size_t)(n - first)),
                                     ITERA_OK);
                    assert_int_equal(itera_session_logits(all, b), ITERA_OK);
                    assert_near(a, b, VOCAB, 1e-5);
                    assert_int_equal(itera_session_tokens_read(all), n);
                }
            }
            itera_session_destroy(&one);
            itera_session_destroy(&all);
            itera_session_destroy(&plain);
        }
        itera_model_destroy(&model);
    }
}

/* Decoding over the end of the window is the same as prefilling over it. */
static void test_window_decode(void **state)
{
    (void)state;
    enum { N = 75, ROWS = 2 };
    for (int f = 0; f < 2; f++) {
        struct itera_model *model = make_model(device, configs[f], VOCAB, 11);
        struct itera_session *s = make_session(model, ROWS, 0), *forced = make_session(model, 1, 0);
        struct itera_sampling sampling = {.temperature = 1, .seed = 5};
        int32_t prompt[ROWS] = {3, 4}, out[N][ROWS];
        float a[ROWS * VOCAB], b[VOCAB];
        assert_int_equal(itera_session_set_sampling(s, -1, &sampling), ITERA_OK);
        assert_int_equal(itera_session_prefill(s, prompt, 1), ITERA_OK);
        assert_int_equal(itera_session_prefill(forced, prompt + 1, 1), ITERA_OK);
        for (int i = 0; i < N; i++) {
            assert_int_equal(itera_session_next(s, out[i]), ITERA_OK);
            if (i)
                assert_int_equal(itera_session_prefill(forced, &out[i - 1][1], 1), ITERA_OK);
            assert_int_equal(itera_session_logits(s, a), ITERA_OK);
            assert_int_equal(itera_session_logits(forced, b), ITERA_OK);
            assert_near(a + VOCAB, b, VOCAB, 1e-5);
        }
        assert_int_equal(itera_session_tokens_read(s), N);
        assert_true(itera_session_tokens_run(s) >
                    N); /* each time the window was full, some again */
        itera_session_destroy(&s);
        itera_session_destroy(&forced);
        itera_model_destroy(&model);
    }
}

/* A prompt that is longer than the window: what the model ran over is the end of it. */
static void test_tokens_run(void **state)
{
    (void)state;
    enum { N = 5000 };
    static int32_t ids[N];
    fill_ids(ids, 1, N);
    struct itera_model *model = make_model(device, configs[0], VOCAB, 11);
    struct itera_session *s = make_session(model, 1, 0);
    assert_int_equal(itera_session_prefill(s, ids, 9), ITERA_OK);
    assert_int_equal(itera_session_tokens_run(s), 9);
    assert_int_equal(itera_session_prefill(s, ids, N), ITERA_OK);
    assert_int_equal(itera_session_tokens_read(s), N + 9);
    assert_in_range(itera_session_tokens_run(s), 10, 9 + 30);
    assert_int_equal(itera_session_reset(s), ITERA_OK);
    assert_int_equal(itera_session_tokens_run(s), 0);
    itera_session_destroy(&s);
    itera_model_destroy(&model);
}

static void sample_run(struct itera_session *s, int32_t sequence, struct itera_sampling sampling,
                       int n, int32_t *out)
{
    int32_t batch = itera_session_batch(s);
    int32_t prompt[4] = {7, 7, 7, 7}, tokens[4];
    assert_true(batch <= 4);
    assert_int_equal(itera_session_reset(s), ITERA_OK);
    assert_int_equal(itera_session_set_sampling(s, sequence, &sampling), ITERA_OK);
    assert_int_equal(itera_session_prefill(s, prompt, 1), ITERA_OK);
    for (int i = 0; i < n; i++) {
        assert_int_equal(itera_session_next(s, tokens), ITERA_OK);
        out[i] = tokens[sequence < 0 ? 0 : sequence];
        assert_in_range(out[i], 0, VOCAB - 1);
    }
}

/* A seed is a text; what is drawn depends on nothing else. */
static void test_sampling(void **state)
{
    (void)state;
    enum { N = 40 };
    struct itera_model *model = make_model(device, configs[2], VOCAB, 11);
    struct itera_session *s = make_session(model, 1, 0), *wide = make_session(model, 3, 0);
    int32_t a[N], b[N];
    struct itera_sampling warm = {.temperature = 1.5f, .seed = 42};
    sample_run(s, 0, warm, N, a);
    sample_run(s, 0, warm, N, b);
    assert_memory_equal(a, b, sizeof a);
    sample_run(wide, 2, warm, N, b); /* in another row, beside others */
    assert_memory_equal(a, b, sizeof a);
    sample_run(s, -1, warm, N, b);
    assert_memory_equal(a, b, sizeof a);
    warm.seed = 43;
    sample_run(s, 0, warm, N, b);
    assert_memory_not_equal(a, b, sizeof a);
    /* Ways to say greedy. */
    struct itera_sampling greedy = {0};
    sample_run(s, 0, greedy, N, a);
    sample_run(s, 0, (struct itera_sampling){.temperature = 2, .top_k = 1, .seed = 9}, N, b);
    assert_memory_equal(a, b, sizeof a);
    sample_run(s, 0, (struct itera_sampling){.temperature = 2, .top_p = 1e-6f, .seed = 9}, N, b);
    assert_memory_equal(a, b, sizeof a);
    sample_run(s, 0, (struct itera_sampling){.temperature = 2, .min_p = 1, .seed = 9}, N, b);
    assert_memory_equal(a, b, sizeof a);
    /* Nothing that is much less likely than the likeliest. */
    struct itera_sampling near = {.temperature = 1.5f, .min_p = 0.4f, .seed = 3};
    int32_t prompt = 7, token, others = 0;
    float logits[VOCAB];
    assert_int_equal(itera_session_reset(s), ITERA_OK);
    assert_int_equal(itera_session_set_sampling(s, 0, &near), ITERA_OK);
    assert_int_equal(itera_session_prefill(s, &prompt, 1), ITERA_OK);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(itera_session_next(s, &token), ITERA_OK);
        assert_int_equal(itera_session_logits(s, logits), ITERA_OK);
        double below = (double)logits[likeliest(logits)] - logits[token];
        assert_true(exp(-below / 1.5) >= 0.4 * (1 - 1e-5));
        others += below > 0;
    }
    assert_true(others > 0);
    static const struct itera_sampling bad[] = {
        {.temperature = -1}, {.temperature = NAN}, {.top_k = -1},
        {.top_p = 1.5f},     {.top_p = NAN},       {.min_p = -0.1f},
        {.min_p = 2},        {.min_p = NAN},       {.temperature = INFINITY}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(itera_session_set_sampling(s, 0, &bad[i]), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_set_sampling(s, 1, &greedy), ITERA_ERR_ARGUMENT);
    itera_session_destroy(&s);
    itera_session_destroy(&wide);
    itera_model_destroy(&model);
}

/* State does not grow with length where the model has no positions. */
static void test_long(void **state)
{
    (void)state;
    for (int f = 2; f < FAMILIES; f++) {
        struct itera_model *model = make_model(device, configs[f], VOCAB, 11);
        struct itera_session *s = make_session(model, 1, 0);
        struct itera_sampling sampling = {.temperature = 1, .seed = 1};
        int32_t token = 1;
        assert_int_equal(itera_session_set_sampling(s, 0, &sampling), ITERA_OK);
        assert_int_equal(itera_session_warm(s, 1), ITERA_OK);
        assert_int_equal(itera_session_prefill(s, &token, 1), ITERA_OK);
        size_t bytes = itera_session_bytes(s);
        for (int i = 0; i < 2000; i++)
            assert_int_equal(itera_session_next(s, &token), ITERA_OK);
        assert_int_equal(itera_session_bytes(s), bytes);
        float logits[VOCAB];
        assert_int_equal(itera_session_logits(s, logits), ITERA_OK);
        for (int i = 0; i < VOCAB; i++)
            assert_true(isfinite(logits[i]));
        itera_session_destroy(&s);
        itera_model_destroy(&model);
    }
}

static void test_bad_arguments(void **state)
{
    (void)state;
    struct itera_model *model = make_model(device, configs[0], VOCAB, 11);
    struct itera_session *s = NULL;
    static const struct itera_session_options bad[] = {
        {.batch = -1}, {.batch = 1 << 20}, {.positions = -1}, {.positions = 31}, {.chunk = -1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(itera_session_create(model, &bad[i], &s), ITERA_ERR_ARGUMENT);
        assert_null(s);
    }
    s = make_session(model, 1, 0);
    int32_t id = VOCAB;
    assert_int_equal(itera_session_prefill(s, &id, 1), ITERA_ERR_ARGUMENT);
    assert_non_null(strstr(itera_last_error(), "50"));
    id = -1;
    assert_int_equal(itera_session_prefill(s, &id, 1), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_tokens_read(s), 0);
    /* Nothing to begin from: the model has no end-of-text token. */
    assert_int_equal(itera_session_next(s, &id), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_session_prefill(s, NULL, 0), ITERA_ERR_ARGUMENT);
    id = 3;
    assert_int_equal(itera_session_prefill(s, &id, 1), ITERA_OK);
    assert_int_equal(itera_session_prefill(s, NULL, 0), ITERA_OK);
    assert_int_equal(itera_session_tokens_read(s), 1);
    itera_session_destroy(&s);
    itera_session_destroy(&s);
    itera_model_destroy(&model);
}

/* ---- evaluation ------------------------------------------------------------------------------ */

static struct itera_model *byte_model(const char *config, const struct itera_corpus *corpus)
{
    struct itera_model *model = make_model(device, config, 257, 11);
    struct itera_tokenizer *tokenizer;
    assert_int_equal(itera_tokenizer_create("byte", corpus, &tokenizer), ITERA_OK);
    assert_int_equal(itera_model_set_tokenizer(model, tokenizer), ITERA_OK);
    return model;
}

static double nats(const float *logits, int n, int target)
{
    double max = -DBL_MAX, sum = 0;
    for (int i = 0; i < n; i++)
        max = fmax(max, logits[i]);
    for (int i = 0; i < n; i++)
        sum += exp(logits[i] - max);
    return max + log(sum) - logits[target];
}

/* An empty prompt begins from end-of-text, which is how a document begins. */
static void test_end_of_text(void **state)
{
    (void)state;
    struct itera_model *model = byte_model(configs[2], NULL);
    struct itera_session *s = make_session(model, 1, 0), *given = make_session(model, 1, 0);
    int32_t end = 256, a, b;
    assert_int_equal(itera_session_prefill(s, NULL, 0), ITERA_OK);
    assert_int_equal(itera_session_prefill(given, &end, 1), ITERA_OK);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(itera_session_next(s, &a), ITERA_OK);
        assert_int_equal(itera_session_next(given, &b), ITERA_OK);
        assert_int_equal(a, b);
    }
    assert_int_equal(itera_session_reset(s), ITERA_OK);
    assert_int_equal(itera_session_reset(given), ITERA_OK);
    assert_int_equal(itera_session_next(s, &a), ITERA_OK);
    assert_int_equal(itera_session_prefill(given, &end, 1), ITERA_OK);
    assert_int_equal(itera_session_next(given, &b), ITERA_OK);
    assert_int_equal(a, b);
    itera_session_destroy(&s);
    itera_session_destroy(&given);
    itera_model_destroy(&model);
}

static int count_calls(void *user, uint64_t done, uint64_t total, double nll)
{
    assert_true(done <= total || total > 0);
    assert_true(nll > 0);
    return ++*(int *)user >= 2;
}

static void test_evaluate(void **state)
{
    (void)state;
    static const char text[] = "It was late.\nThe cat slept on.\n<|endoftext|>\nAnother one, here.";
    struct itera_corpus *corpus;
    struct itera_dataset *dataset;
    assert_int_equal(itera_corpus_from_text(text, strlen(text), "text", &corpus), ITERA_OK);
    for (int f = 0; f < FAMILIES; f++) {
        struct itera_model *model = byte_model(configs[f], corpus);
        assert_int_equal(itera_dataset_create(corpus, itera_model_tokenizer(model), &dataset),
                         ITERA_OK);
        size_t count;
        const int32_t *ids = itera_dataset_tokens(dataset, &count);
        struct itera_eval_result r;
        float *logits = malloc(257 * sizeof *logits);
        int32_t positions = itera_model_info(model)->max_positions;
        for (int k = 0; k < 4; k++) {
            static const struct itera_eval_options tried[4] = {
                {0},
                {.window = 16, .stride = 5, .batch = 3},
                {.window = 16, .stride = 16},
                {.window = 1}};
            assert_int_equal(itera_evaluate(model, dataset, &tried[k], &r), ITERA_OK);
            assert_int_equal(r.tokens, count);
            /* The same by hand: token i, predicted from what its window holds before it. */
            struct itera_session *s = make_session(model, 1, 0);
            double sum = 0;
            for (size_t i = 0; i < count; i++) {
                size_t window = (size_t)r.window, stride = (size_t)r.stride, start = 0;
                while (i >= start + window)
                    start += stride;
                int32_t context[64];
                size_t n = 0;
                for (size_t j = start; j <= i; j++)
                    context[n++] = j ? ids[j - 1] : 256;
                assert_int_equal(itera_session_reset(s), ITERA_OK);
                assert_int_equal(itera_session_prefill(s, context, n), ITERA_OK);
                assert_int_equal(itera_session_logits(s, logits), ITERA_OK);
                sum += nats(logits, 257, ids[i]);
            }
            itera_session_destroy(&s);
            double nll = sum / (double)count;
            assert_true(fabs(r.nll - nll) <= 1e-5 * nll);
            assert_true(fabs(r.perplexity - exp(r.nll)) <= 1e-9 * r.perplexity);
            double total = r.nll * (double)count;
            assert_true(fabs(r.bits_per_byte - total / log(2) / 48) <= 1e-9 * r.bits_per_byte);
            assert_int_equal(r.bytes, itera_corpus_bytes(corpus));
            assert_int_equal(r.words, itera_corpus_words(corpus));
            assert_true(fabs(log(r.word_perplexity) - total / (double)r.words) < 1e-9 * total);
        }
        static const struct itera_eval_options bad[] = {
            {.window = -1}, {.window = 10, .stride = 11}, {.batch = -1}, {.window = 1 << 21}};
        for (size_t i = 0; i < 4; i++)
            assert_int_equal(itera_evaluate(model, dataset, &bad[i], &r), ITERA_ERR_ARGUMENT);
        if (positions)
            assert_int_equal(itera_evaluate(model, dataset,
                                            &(struct itera_eval_options){.window = positions + 1},
                                            &r),
                             ITERA_ERR_ARGUMENT);
        int calls = 0;
        struct itera_eval_options stopped = {
            .window = 4, .stride = 4, .batch = 1, .progress = count_calls, .user = &calls};
        assert_int_equal(itera_evaluate(model, dataset, &stopped, &r), ITERA_ERR_CANCELLED);
        assert_int_equal(calls, 2);
        /* Of the whole, a part. */
        struct itera_eval_options part = {.window = 8, .stride = 8, .batch = 1, .tokens = 10};
        assert_int_equal(itera_evaluate(model, dataset, &part, &r), ITERA_OK);
        assert_int_equal(r.tokens, 16);
        /* A model with fewer tokens than the text has. */
        struct itera_model *small = make_model(device, configs[f], VOCAB, 11);
        assert_int_equal(itera_evaluate(small, dataset, NULL, &r), ITERA_ERR_ARGUMENT);
        itera_model_destroy(&small);
        free(logits);
        itera_dataset_destroy(&dataset);
        itera_model_destroy(&model);
    }
    itera_corpus_destroy(&corpus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefill),       cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_goes_on),       cmocka_unit_test(test_window),
        cmocka_unit_test(test_window_decode), cmocka_unit_test(test_tokens_run),
        cmocka_unit_test(test_sampling),      cmocka_unit_test(test_long),
        cmocka_unit_test(test_bad_arguments), cmocka_unit_test(test_end_of_text),
        cmocka_unit_test(test_evaluate),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
