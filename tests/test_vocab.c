/* Smaller vocabularies: text is cut as before, logits of kept tokens are the original's, what a new
 * tokenizer's tokens begin with, coverage, and what cannot be. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "itera/compress.h"
#include "itera/eval.h"
#include "model/model_impl.h"
#include "tests/support/test.h"
#include "text/tokenizer_impl.h"

/* A head of its own, ids of special tokens, and three rows more than the tokenizer has tokens. */
static const char untied[] =
    "{\"model_type\": \"mamba\", \"vocab_size\": 403, \"hidden_size\": 16, \"state_size\": 4,"
    " \"num_hidden_layers\": 2, \"tie_word_embeddings\": false, \"eos_token_id\": 399,"
    " \"pad_token_id\": 402}";

static char config[96];
static struct itera_device *device;
static struct itera_corpus *stories;

static int set_up(void **state)
{
    (void)state;
    struct itera_device_options options = {.threads = 2};
    if (make_root() || itera_device_open("cpu", &options, &device) ||
        itera_corpus_open("builtin:stories?bytes=60000", &stories))
        return -1;
    snprintf(config, sizeof config, "%s/config.json", root);
    FILE *f = fopen(config, "w");
    if (!f)
        return -1;
    fputs(untied, f);
    return fclose(f);
}

static int tear_down(void **state)
{
    (void)state;
    itera_corpus_destroy(&stories);
    itera_device_close(&device);
    return remove_root();
}

static struct itera_corpus *corpus_of(const char *text)
{
    struct itera_corpus *corpus;
    assert_int_equal(itera_corpus_from_text(text, strlen(text), "text", &corpus), ITERA_OK);
    return corpus;
}

/* A model with random weights and a tokenizer made from the stories. */
static struct itera_model *make_with_tokenizer(const char *preset, const char *spec, int32_t vocab)
{
    struct itera_model *m;
    struct itera_tokenizer *tokenizer;
    assert_int_equal(itera_tokenizer_train(spec, stories, &tokenizer), ITERA_OK);
    if (!vocab)
        vocab = itera_tokenizer_vocab_size(tokenizer);
    struct itera_model_options options = {.vocab = vocab, .seed = 7};
    assert_int_equal(itera_model_create(device, preset, &options, &m), ITERA_OK);
    assert_int_equal(itera_model_set_tokenizer(m, tokenizer), ITERA_OK);
    return m;
}

static struct itera_tokens encode(const struct itera_tokenizer *t, const char *text, size_t length)
{
    struct itera_tokens tokens = {0};
    assert_int_equal(itera_tokenizer_encode(t, text, length, ITERA_TEXT_PLAIN, &tokens), ITERA_OK);
    return tokens;
}

/* Every token has the same text under both; the logits of tokens that both have are the same. */
static void compare(struct itera_model *old, struct itera_model *new, const char *text)
{
    const struct itera_tokenizer *a = itera_model_tokenizer(old), *b = itera_model_tokenizer(new);
    struct itera_tokens x = encode(a, text, strlen(text)), y = encode(b, text, strlen(text));
    assert_int_equal(x.count, y.count);
    int32_t *to_old = calloc((size_t)b->vocab_size, sizeof *to_old);
    assert_non_null(to_old);
    for (int32_t id = 0; id < b->vocab_size; id++) {
        const struct itera_token *t = &b->tokens[id];
        int32_t at = id ? to_old[id - 1] + 1 : 0; /* ids keep their order */
        while (at < a->vocab_size &&
               (a->tokens[at].length != t->length ||
                memcmp(a->pool + a->tokens[at].offset, b->pool + t->offset, t->length)))
            at++;
        assert_true(at < a->vocab_size);
        to_old[id] = at;
    }
    for (size_t i = 0; i < x.count; i++)
        assert_int_equal(to_old[y.ids[i]], x.ids[i]);
    int64_t time = (int64_t)x.count < 60 ? (int64_t)x.count : 60;
    float *p = calloc((size_t)(time * old->config.vocab), sizeof *p);
    float *q = calloc((size_t)(time * new->config.vocab), sizeof *q);
    assert_true(p && q);
    assert_int_equal(itera_logits(old, x.ids, 1, time, p), ITERA_OK);
    assert_int_equal(itera_logits(new, y.ids, 1, time, q), ITERA_OK);
    for (int64_t t = 0; t < time; t++) {
        for (int32_t id = 0; id < b->vocab_size; id++) {
            float expected = p[t * old->config.vocab + to_old[id]];
            float got = q[t * new->config.vocab + id];
            if (!(fabsf(got - expected) <= 1e-6F + 1e-5F * fabsf(expected)))
                fail_msg("logit of token %d at %d is %g, expected %g", id, (int)t, (double)got,
                         (double)expected);
        }
    }
    free(p);
    free(q);
    free(to_old);
    itera_tokens_free(&x);
    itera_tokens_free(&y);
}

static void check_round_trip(const struct itera_tokenizer *t)
{
    static const char text[] = "Zoë's \xF0\x9F\x90\x88 cost $5!\n\n\tüñ \xFF\xFE end";
    struct itera_tokens tokens = encode(t, text, sizeof text - 1);
    char *back;
    size_t length;
    assert_int_equal(itera_tokenizer_decode_all(t, tokens.ids, tokens.count, 0, &back, &length),
                     ITERA_OK);
    assert_int_equal(length, sizeof text - 1);
    assert_memory_equal(back, text, length);
    free(back);
    itera_tokens_free(&tokens);
}

/* Through a file, so that what reads tokenizers has checked it. */
static struct itera_model *reload(const struct itera_model *m)
{
    char path[96];
    struct itera_model *loaded;
    snprintf(path, sizeof path, "%s/m.safetensors", root);
    assert_int_equal(itera_model_save(m, path), ITERA_OK);
    assert_int_equal(itera_model_load(device, path, &loaded), ITERA_OK);
    return loaded;
}

static const char sample[] = "Once upon a time, there was a little boy named Tim. He had a red "
                             "ball. One day, the ball was lost. Tim was sad.";

static void test_used_tokens(void **state)
{
    (void)state;
    struct itera_corpus *corpus = corpus_of(sample);
    const struct {
        const char *config, *spec;
        int32_t vocab;
    } cases[] = {{"itera-m-micro", "bpe:600", 0},
                 {config, "bpe:400", 403},
                 {"micro", "word:300", 0},
                 {"transformer-micro", "char", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct itera_model *m = make_with_tokenizer(cases[i].config, cases[i].spec, cases[i].vocab),
                           *small;
        struct itera_vocab_options options = {0};
        struct itera_vocab_report report;
        assert_int_equal(itera_vocab_reduce(m, corpus, &options, &small, &report), ITERA_OK);
        struct itera_model *loaded = reload(small);
        compare(m, loaded, sample);
        assert_int_equal(report.vocab_before, m->config.vocab);
        assert_int_equal(report.vocab_after, loaded->config.vocab);
        assert_true(report.vocab_after < report.vocab_before);
        assert_int_equal(report.kept, report.vocab_after);
        assert_int_equal(report.averaged, 0);
        assert_true(report.parameters_after < report.parameters_before);
        const struct itera_tokenizer *t = itera_model_tokenizer(loaded);
        assert_true(itera_tokenizer_end_of_text(t) >= 0);
        if (t->kind == ITERA_BPE)
            check_round_trip(t);
        else
            assert_true(itera_tokenizer_unknown(t) >= 0);
        if (cases[i].vocab) {
            assert_int_equal(loaded->config.eos, itera_tokenizer_end_of_text(t));
            assert_int_equal(loaded->config.pad, -1); /* it had a row and no token */
        }
        struct itera_vocab_coverage c;
        assert_int_equal(itera_vocab_cover(itera_model_tokenizer(m), t, corpus, &c), ITERA_OK);
        assert_int_equal(c.before, c.after);
        assert_int_equal(c.unknown_before, c.unknown_after);
        assert_int_equal(c.same_tokens + c.unknown_before, c.before);
        assert_int_equal(c.bytes, strlen(sample));
        itera_model_destroy(&loaded);
        itera_model_destroy(&small);
        itera_model_destroy(&m);
    }
    itera_corpus_destroy(&corpus);
}

/* The most used so many: closed under merges, and most of the text is still cut as it was. */
static void test_size(void **state)
{
    (void)state;
    struct itera_model *m = make_with_tokenizer("itera-m-micro", "bpe:900", 0), *small;
    struct itera_vocab_options options = {.size = 500};
    struct itera_vocab_report report;
    struct itera_vocab_coverage c;
    double last = 0;
    for (options.size = 300; options.size <= 800; options.size += 250) {
        assert_int_equal(itera_vocab_reduce(m, stories, &options, &small, &report), ITERA_OK);
        struct itera_model *loaded = reload(small);
        assert_int_equal(loaded->config.vocab, options.size);
        const struct itera_tokenizer *t = itera_model_tokenizer(loaded);
        check_round_trip(t);
        /* One merge a token, as training makes them. */
        assert_int_equal(t->bpe->merge_count, (size_t)options.size - 257);
        assert_int_equal(itera_vocab_cover(itera_model_tokenizer(m), t, stories, &c), ITERA_OK);
        double share = (double)c.same_bytes / (double)c.bytes;
        assert_true(share > last && share < 1 && c.after > c.before);
        last = share;
        itera_model_destroy(&loaded);
        itera_model_destroy(&small);
    }
    assert_true(last > 0.8);
    options = (struct itera_vocab_options){.min_count = 100};
    assert_int_equal(itera_vocab_reduce(m, stories, &options, &small, &report), ITERA_OK);
    assert_in_range(report.vocab_after, 258, 899);
    check_round_trip(itera_model_tokenizer(small));
    itera_model_destroy(&small);
    itera_model_destroy(&m);

    m = make_with_tokenizer("micro", "word:300", 0);
    options = (struct itera_vocab_options){.size = 100};
    assert_int_equal(itera_vocab_reduce(m, stories, &options, &small, &report), ITERA_OK);
    assert_int_equal(report.vocab_after, 100);
    assert_int_equal(
        itera_vocab_cover(itera_model_tokenizer(m), itera_model_tokenizer(small), stories, &c),
        ITERA_OK);
    assert_true(c.unknown_after > c.unknown_before);
    assert_int_equal(c.same_tokens + c.unknown_after, c.before);
    itera_model_destroy(&small);
    itera_model_destroy(&m);
}

static const float *row_of(const struct itera_model *m, const float *w, const char *name,
                           int32_t id)
{
    for (int i = 0; i < m->layout.n_params; i++)
        if (!strcmp(m->layout.params[i].name, name))
            return w + m->layout.params[i].offset + (int64_t)id * m->config.hidden;
    fail_msg("no %s", name);
    return NULL;
}

/* A new tokenizer: known tokens have their rows, others the mean of what spells them. */
static void test_retrain(void **state)
{
    (void)state;
    static const char text[] =
        "zqzqzqzq the the the zqzq the ball the zqzq ball zqzq the ball ball the zqzqzqzq";
    struct itera_corpus *corpus = corpus_of(text);
    struct itera_model *m = make_with_tokenizer(config, "bpe:400", 403), *small;
    struct itera_vocab_options options = {.retrain = 270};
    struct itera_vocab_report report;
    assert_int_equal(itera_vocab_reduce(m, corpus, &options, &small, &report), ITERA_OK);
    const struct itera_tokenizer *a = itera_model_tokenizer(m), *b = itera_model_tokenizer(small);
    assert_true(report.vocab_after <= 270);
    assert_int_equal(report.kept + report.averaged, report.vocab_after);
    assert_true(report.averaged > 0 && report.kept > 257);
    check_round_trip(b);
    float *old = malloc((size_t)m->layout.elements * sizeof *old);
    float *new = malloc((size_t)small->layout.elements * sizeof *new);
    assert_true(old && new);
    assert_int_equal(itera_model_read_f32(m, old), ITERA_OK);
    assert_int_equal(itera_model_read_f32(small, new), ITERA_OK);
    static const char *const tables[] = {"backbone.embeddings.weight", "lm_head.weight"};
    int averaged = 0;
    for (int32_t id = 0; id < b->vocab_size; id++) {
        const struct itera_token *t = &b->tokens[id];
        struct itera_tokens parts = {0};
        if (id == b->end_of_text)
            assert_int_equal(itera_tokens_append(&parts, a->end_of_text), ITERA_OK);
        else
            parts = encode(a, b->pool + t->offset, t->length);
        averaged += parts.count > 1;
        for (int k = 0; k < 2; k++) {
            const float *row = row_of(small, new, tables[k], id);
            for (int c = 0; c < m->config.hidden; c++) {
                double mean = 0;
                for (size_t i = 0; i < parts.count; i++)
                    mean +=
                        (double)row_of(m, old, tables[k], parts.ids[i])[c] / (double)parts.count;
                assert_true(fabs(mean - (double)row[c]) < 1e-7);
            }
        }
        itera_tokens_free(&parts);
    }
    assert_int_equal(averaged, report.averaged);
    free(old);
    free(new);
    struct itera_model *loaded = reload(small);
    itera_model_destroy(&loaded);
    itera_model_destroy(&small);
    itera_model_destroy(&m);
    itera_corpus_destroy(&corpus);
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *preset, *spec;
        struct itera_vocab_options options;
        const char *what;
    } cases[] = {
        {"micro", "bpe:300", {.size = 256}, "from 257 (bytes and special tokens) to 300"},
        {"micro", "bpe:300", {.size = 301}, "cannot keep 301 of 300"},
        {"micro", "bpe:300", {.size = -1}, "negative"},
        {"micro", "bpe:270", {0}, "nothing would be removed"},
        {"micro", "bpe:300", {.retrain = 300}, "not smaller"},
        {"micro", "bpe:300", {.retrain = 100}, "from 257"},
        {"micro", "char", {.retrain = 5}, "too few"},
        {"micro", "word:50", {.size = 1}, "from 2 (special tokens) to 50"},
        {"micro", "byte", {.size = 200}, "bytes has nothing that could go"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct itera_model *m = make_with_tokenizer(cases[i].preset, cases[i].spec, 0), *small = m;
        struct itera_vocab_report report;
        assert_int_equal(itera_vocab_reduce(m, stories, &cases[i].options, &small, &report),
                         ITERA_ERR_ARGUMENT);
        assert_says(cases[i].what);
        assert_null(small);
        itera_model_destroy(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_used_tokens),
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_retrain),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
