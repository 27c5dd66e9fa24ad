/* Models from files of other programs: a head of their own where the configuration ties it, what
 * ends a text, rows of the vocabulary that are no token. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "format/safetensors.h"
#include "itera/corpus.h"
#include "itera/model.h"
#include "itera/session.h"
#include "itera/tokenizer.h"
#include "model/model_impl.h"
#include "tests/support/test.h"

#define FIXTURES ITERA_SOURCE_DIR "/tests/fixtures/"

static struct itera_device *device;

static int set_up(void **state)
{
    (void)state;
    return make_root() || !(device = open_cpu(1)) ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    itera_device_close(&device);
    return remove_root();
}

/* A fixture with one more tensor: lm_head.weight = scale * embeddings, with
 * `columns` columns (0: as many as they have). */
static void write_with_head(const char *fixture, const char *table, float scale, int64_t columns,
                            const char *to)
{
    struct itera_safetensors *file;
    char path[512];
    snprintf(path, sizeof path, FIXTURES "%s", fixture);
    assert_int_equal(itera_safetensors_open(path, &file), ITERA_OK);
    size_t n = itera_safetensors_count(file);
    struct itera_safetensors_entry *entries = calloc(n + 1, sizeof *entries);
    assert_non_null(entries);
    float *head = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct itera_safetensor *t = itera_safetensors_at(file, i);
        entries[i] = (struct itera_safetensors_entry){
            .name = t->name, .dtype = t->dtype, .rank = t->rank, .data = t->data};
        memcpy(entries[i].dim, t->dim, sizeof t->dim);
        if (strcmp(t->name, table) != 0)
            continue;
        head = malloc((size_t)t->count * sizeof *head);
        assert_non_null(head);
        assert_int_equal(itera_safetensor_read_f32(t, 0, t->count, head), ITERA_OK);
        for (int64_t k = 0; k < t->count; k++)
            head[k] *= scale;
        entries[n] =
            (struct itera_safetensors_entry){.name = "lm_head.weight",
                                             .dtype = ITERA_ST_F32,
                                             .rank = 2,
                                             .dim = {t->dim[0], columns ? columns : t->dim[1]},
                                             .data = head};
    }
    assert_non_null(head);
    struct itera_map map;
    snprintf(path, sizeof path, FIXTURES "%s/config.json", fixture);
    assert_int_equal(itera_map_open(path, &map), ITERA_OK);
    char *config = strndup((const char *)map.data, map.size);
    assert_non_null(config);
    itera_map_close(&map);
    const struct itera_safetensors_pair metadata = {"itera.config", config};
    assert_int_equal(itera_safetensors_write(to, entries, n + 1, &metadata, 1), ITERA_OK);
    itera_safetensors_close(&file);
    free(entries);
    free(head);
    free(config);
}

static void logits_of(struct itera_model *model, float *logits)
{
    static const int32_t tokens[] = {1, 2, 3};
    struct itera_session *session;
    assert_int_equal(itera_session_create(model, NULL, &session), ITERA_OK);
    assert_int_equal(itera_session_prefill(session, tokens, 3), ITERA_OK);
    assert_int_equal(itera_session_logits(session, logits), ITERA_OK);
    itera_session_destroy(&session);
}

static void test_head_of_its_own(void **state)
{
    (void)state;
    static const char table[] = "backbone.embeddings.weight";
    struct itera_model *tied, *model;
    assert_int_equal(itera_model_load(device, FIXTURES "mamba-small", &tied), ITERA_OK);
    const size_t vocab = (size_t)itera_model_info(tied)->vocab;
    float *want = calloc(vocab, sizeof *want), *got = calloc(vocab, sizeof *got);
    assert_true(want && got);
    logits_of(tied, want);
    itera_model_destroy(&tied);

    const char *path = in_root("head.safetensors"), *again = in_root("again.safetensors");
    for (int scale = 1; scale >= -1; scale -= 2) {
        write_with_head("mamba-small", table, (float)scale, 0, path);
        assert_int_equal(itera_model_load(device, path, &model), ITERA_OK);
        assert_int_equal(model->config.tied_head, scale == 1);
        /* What is saved has the head as well. */
        assert_int_equal(itera_model_save(model, again), ITERA_OK);
        itera_model_destroy(&model);
        const char *const files[] = {path, again};
        for (int f = 0; f < 2; f++) {
            assert_int_equal(itera_model_load(device, files[f], &model), ITERA_OK);
            logits_of(model, got);
            for (size_t i = 0; i < vocab; i++)
                assert_true(got[i] == (float)scale * want[i]);
            itera_model_destroy(&model);
        }
    }
    free(want);
    free(got);

    /* Of another shape, or in a family that has no such head: refused, never dropped. */
    write_with_head("mamba-small", table, 1, 1, path);
    assert_int_equal(itera_model_load(device, path, &model), ITERA_ERR_SHAPE);
    assert_non_null(strstr(itera_last_error(), "lm_head.weight"));
    write_with_head("itera-small", "embedding.weight", -1, 0, path);
    assert_int_equal(itera_model_load(device, path, &model), ITERA_ERR_FORMAT);
    assert_non_null(strstr(itera_last_error(), "lm_head.weight"));
    write_with_head("itera-small", "embedding.weight", 1, 0, path);
    assert_int_equal(itera_model_load(device, path, &model), ITERA_OK);
    itera_model_destroy(&model);
}

/* The folder of a model of 40 rows and a tokenizer of 5 tokens, of which two are special; eos: the
 * configuration's keys for it, generation: those of generation_config.json, NULL for no such file. */
static const char *make_folder(const char *eos, const char *generation)
{
    static const char tokenizer[] =
        "{\"added_tokens\":[{\"id\":0,\"content\":\"<A>\",\"special\":true},"
        "{\"id\":3,\"content\":\"<B>\",\"special\":true}],"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
        "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"merges\":[],"
        "\"vocab\":{\"<A>\":0,\"a\":1,\"b\":2,\"<B>\":3,\"c\":4}}}";
    char config[512];
    snprintf(config, sizeof config,
             "{\"model_type\":\"mamba\",\"vocab_size\":40,\"hidden_size\":8,"
             "\"num_hidden_layers\":1%s}",
             eos);
    const char *folder = in_root("ends");
    assert_int_equal(itera_remove_tree(folder), ITERA_OK);
    assert_int_equal(itera_make_directory(folder), ITERA_OK);
    put(in_root("ends/config.json"), config);
    put(in_root("ends/tokenizer.json"), tokenizer);
    if (generation)
        put(in_root("ends/generation_config.json"), generation);

    /* The weights alone, as other programs write them. */
    struct itera_model *model;
    struct itera_model_options options = {.seed = 3};
    const char *whole = in_root("whole.safetensors");
    assert_int_equal(itera_model_create(device, in_root("ends/config.json"), &options, &model),
                     ITERA_OK);
    assert_int_equal(itera_model_save(model, whole), ITERA_OK);
    itera_model_destroy(&model);
    struct itera_safetensors *file;
    assert_int_equal(itera_safetensors_open(whole, &file), ITERA_OK);
    size_t n = itera_safetensors_count(file);
    struct itera_safetensors_entry *entries = calloc(n, sizeof *entries);
    assert_non_null(entries);
    for (size_t i = 0; i < n; i++) {
        const struct itera_safetensor *t = itera_safetensors_at(file, i);
        entries[i] = (struct itera_safetensors_entry){
            .name = t->name, .dtype = t->dtype, .rank = t->rank, .data = t->data};
        memcpy(entries[i].dim, t->dim, sizeof t->dim);
    }
    assert_int_equal(
        itera_safetensors_write(in_root("ends/model.safetensors"), entries, n, NULL, 0), ITERA_OK);
    itera_safetensors_close(&file);
    free(entries);
    return folder;
}

/* A model in memory is the same as in a file; its bytes are not needed any more once it is loaded. */
static void test_in_memory(void **state)
{
    (void)state;
    const char *path = in_root("memory.safetensors");
    struct itera_model *model, *again;
    struct itera_tokenizer *tokenizer;
    struct itera_model_options options = {.vocab = 260, .seed = 3};
    assert_int_equal(itera_model_create(device, FIXTURES "itera-odd/config.json", &options, &model),
                     ITERA_OK);
    assert_int_equal(itera_tokenizer_create("byte", NULL, &tokenizer), ITERA_OK);
    assert_int_equal(itera_model_set_tokenizer(model, tokenizer), ITERA_OK);
    assert_int_equal(itera_model_save(model, path), ITERA_OK);
    float want[260], got[260];
    logits_of(model, want);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    static uint8_t room[1 << 20];
    const size_t size = fread(room, 1, sizeof room, file);
    assert_true(size > 0 && size < sizeof room && fclose(file) == 0);

    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    memcpy(bytes, room, size);
    assert_int_equal(itera_model_load_memory(device, bytes, size, NULL, &again), ITERA_OK);
    memset(bytes, 0xff, size);
    free(bytes);
    logits_of(again, got);
    assert_memory_equal(want, got, sizeof want);
    assert_non_null(itera_model_tokenizer(again));
    assert_int_equal(itera_tokenizer_vocab_size(itera_model_tokenizer(again)), 257);
    itera_model_destroy(&again);
    itera_model_destroy(&model);

    for (size_t k = 0; k < size; k += k < 64 ? 1 : size / 37) {
        uint8_t *cut = malloc(k + 1);
        assert_non_null(cut);
        memcpy(cut, room, k);
        assert_int_equal(itera_model_load_memory(device, cut, k, NULL, &again), ITERA_ERR_FORMAT);
        assert_null(again);
        free(cut);
    }
    /* A configuration beside a file is no part of it. */
    file = fopen(FIXTURES "mamba-small/model.safetensors", "rb");
    assert_non_null(file);
    const size_t bare = fread(room, 1, sizeof room, file);
    assert_true(bare > 0 && bare < sizeof room && fclose(file) == 0);
    assert_int_equal(itera_model_load_memory(device, room, bare, NULL, &again), ITERA_ERR_FORMAT);
    assert_non_null(strstr(itera_last_error(), "no configuration"));
}

struct heard {
    int calls, stop_at;
    int64_t done, total;
};

static int on_load(void *user, int64_t done, int64_t total)
{
    struct heard *h = user;
    assert_true(done > h->done && done <= total);
    h->done = done;
    h->total = total;
    return ++h->calls == h->stop_at;
}

/* Each tensor of a load is told, and any may be the last. */
static void test_load_progress(void **state)
{
    (void)state;
    const char *path = FIXTURES "itera-odd";
    struct heard all = {0};
    struct itera_load_options options = {.progress = on_load, .user = &all};
    struct itera_model *model;
    assert_int_equal(itera_model_load_as(device, path, &options, &model), ITERA_OK);
    itera_model_destroy(&model);
    assert_true(all.calls > 3);
    assert_int_equal(all.done, all.total);
    for (int stop = 1; stop <= all.calls; stop++) {
        struct heard some = {.stop_at = stop};
        options.user = &some;
        assert_int_equal(itera_model_load_as(device, path, &options, &model), ITERA_ERR_CANCELLED);
        assert_null(model);
        assert_int_equal(some.calls, stop);
    }
}

static void test_what_ends_a_text(void **state)
{
    (void)state;
    static const struct {
        const char *eos, *generation;
        int first;
        unsigned ends; /* bit by id */
    } cases[] = {
        {"", NULL, -1, 0},
        {",\"eos_token_id\":0", NULL, 0, 1},
        {",\"eos_token_id\":3", NULL, 3, 8},
        {",\"eos_token_id\":[3,0,3]", NULL, 3, 9},
        {",\"eos_token_id\":3", "{\"eos_token_id\":[0,3]}", 3, 9},
        {"", "{\"eos_token_id\":0,\"temperature\":0.5}", 0, 1},
        {",\"eos_token_id\":null", "{}", -1, 0},
        {",\"eos_token_id\":[39,3]", NULL, 3, 8}, /* a row without a token */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct itera_model *model;
        assert_int_equal(
            itera_model_load(device, make_folder(cases[i].eos, cases[i].generation), &model),
            ITERA_OK);
        /* What is saved says the same. */
        const char *saved = in_root("saved.safetensors");
        assert_int_equal(itera_model_save(model, saved), ITERA_OK);
        for (int again = 0; again < 2; again++) {
            const struct itera_tokenizer *t = itera_model_tokenizer(model);
            assert_int_equal(itera_tokenizer_end_of_text(t), cases[i].first);
            for (int id = -1; id < 40; id++)
                assert_int_equal(itera_tokenizer_is_end(t, id),
                                 id >= 0 && id < 5 && cases[i].ends >> id & 1);
            struct itera_corpus *corpus;
            struct itera_dataset *dataset;
            static const char text[] = "ab\n<|endoftext|>\nc";
            assert_int_equal(itera_corpus_from_text(text, sizeof text - 1, "text", &corpus),
                             ITERA_OK);
            enum itera_status status = itera_dataset_create(corpus, t, &dataset);
            if (cases[i].first < 0) {
                assert_int_equal(status, ITERA_ERR_ARGUMENT);
                assert_non_null(strstr(itera_last_error(), "eos_token_id"));
            } else {
                const int32_t want[] = {1, 2, cases[i].first, 4, cases[i].first};
                size_t count;
                assert_int_equal(status, ITERA_OK);
                const int32_t *ids = itera_dataset_tokens(dataset, &count);
                assert_int_equal(count, 5);
                assert_memory_equal(ids, want, sizeof want);
            }
            itera_dataset_destroy(&dataset);
            itera_corpus_destroy(&corpus);
            itera_model_destroy(&model);
            if (!again)
                assert_int_equal(itera_model_load(device, saved, &model), ITERA_OK);
        }
    }
    struct itera_model *model;
    static const char *const bad[] = {"{\"eos_token_id\":40}", "{\"eos_token_id\":[\"a\"]}", "["};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(itera_model_load(device, make_folder("", bad[i]), &model),
                         ITERA_ERR_FORMAT);
        assert_non_null(strstr(itera_last_error(), "generation_config.json"));
    }
}

/* An ordinary token of a configuration for another vocabulary ends nothing. */
static void test_end_of_another_vocabulary(void **state)
{
    (void)state;
    struct itera_model *model;
    struct itera_tokenizer *byte;
    struct itera_model_options options = {.vocab = 257};
    make_folder(",\"eos_token_id\":0", NULL);
    assert_int_equal(itera_model_create(device, in_root("ends/config.json"), &options, &model),
                     ITERA_OK);
    assert_int_equal(itera_tokenizer_train("byte", NULL, &byte), ITERA_OK);
    assert_int_equal(itera_model_set_tokenizer(model, byte), ITERA_OK);
    assert_int_equal(itera_tokenizer_end_of_text(itera_model_tokenizer(model)), 256);
    assert_false(itera_tokenizer_is_end(itera_model_tokenizer(model), 0));
    itera_model_destroy(&model);
}

/* 35 of 40 rows are padding: no way of sampling chooses one. */
static void test_padding_is_never_sampled(void **state)
{
    (void)state;
    struct itera_model *model;
    assert_int_equal(itera_model_load(device, make_folder(",\"eos_token_id\":0", NULL), &model),
                     ITERA_OK);
    static const struct itera_sampling ways[] = {{0},
                                                 {.temperature = 5},
                                                 {.temperature = 5, .top_k = 30},
                                                 {.temperature = 5, .top_p = 0.9f}};
    for (int w = 0; w < 4; w++) {
        struct itera_session *session;
        assert_int_equal(itera_session_create(model, NULL, &session), ITERA_OK);
        assert_int_equal(itera_session_set_sampling(session, -1, &ways[w]), ITERA_OK);
        for (int i = 0; i < 50; i++) {
            int32_t id;
            assert_int_equal(itera_session_next(session, &id), ITERA_OK);
            assert_in_range(id, 0, 4);
        }
        itera_session_destroy(&session);
    }
    itera_model_destroy(&model);
}

/* Options of zeros, and none, are the configuration's; dropout can be asked away. */
static void test_zero_is_the_default(void **state)
{
    (void)state;
    struct itera_model *model, *same, *none;
    const struct itera_model_options zero = {0}, negative = {.dropout = -1};
    assert_int_equal(itera_model_create(device, "micro", NULL, &model), ITERA_OK);
    assert_int_equal(itera_model_create(device, "micro", &zero, &same), ITERA_OK);
    assert_int_equal(itera_model_create(device, "micro", &negative, &none), ITERA_OK);
    assert_true(model->config.dropout == 0.1 && same->config.dropout == 0.1);
    assert_true(none->config.dropout == 0);
    itera_model_destroy(&model);
    itera_model_destroy(&same);
    itera_model_destroy(&none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head_of_its_own),
        cmocka_unit_test(test_in_memory),
        cmocka_unit_test(test_load_progress),
        cmocka_unit_test(test_what_ends_a_text),
        cmocka_unit_test(test_end_of_another_vocabulary),
        cmocka_unit_test(test_padding_is_never_sampled),
        cmocka_unit_test(test_zero_is_the_default),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
