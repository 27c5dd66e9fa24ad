/* Corpora, the built-in stories, datasets and their batches. ITERA_DATA as in test_tokenizer.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "itera/corpus.h"
#include "itera/tokenizer.h"
#include "tests/support/parts.h"
#include "tests/support/test.h"
#include "text/corpus_part.h"

static struct itera_corpus *from_text(const char *text)
{
    struct itera_corpus *corpus = NULL;
    assert_int_equal(itera_corpus_from_text(text, strlen(text), "test", &corpus), ITERA_OK);
    return corpus;
}

static void assert_document(const struct itera_corpus *corpus, size_t index, const char *text)
{
    size_t length;
    const char *document = itera_corpus_document(corpus, index, &length);
    assert_int_equal(length, strlen(text));
    assert_memory_equal(document, text, length);
}

static void documents_are_separated(void **state)
{
    (void)state;
    struct itera_corpus *corpus =
        from_text("\xEF\xBB\xBF one\n\n<|endoftext|>\r\n two \r\n<|endoftext|>\n"
                  "\n<|endoftext|><|endoftext|>three<|endoftext|>\n");
    assert_int_equal(itera_corpus_documents(corpus), 3);
    assert_document(corpus, 0, " one\n");
    assert_document(corpus, 1, " two ");
    assert_document(corpus, 2, "three");
    assert_int_equal(itera_corpus_bytes(corpus), 15);
    assert_int_equal(itera_corpus_words(corpus), 4);
    size_t length = 1;
    assert_null(itera_corpus_document(corpus, 3, &length));
    assert_int_equal(length, 0);
    itera_corpus_destroy(&corpus);
    /* Without a separator nothing is trimmed. */
    corpus = from_text("\n a  b\n");
    assert_int_equal(itera_corpus_documents(corpus), 1);
    assert_document(corpus, 0, "\n a  b\n");
    assert_int_equal(itera_corpus_words(corpus), 4);
    itera_corpus_destroy(&corpus);
    assert_null(corpus);
    static const char *const empty[] = {"", " \n\t", "<|endoftext|>\n<|endoftext|>"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(itera_corpus_from_text(empty[i], strlen(empty[i]), "void", &corpus),
                         ITERA_ERR_FORMAT);
        assert_null(corpus);
        assert_non_null(strstr(itera_last_error(), "void"));
    }
}

static void files_and_folders(void **state)
{
    (void)state;
    char source[256];
    struct itera_corpus *corpus;
    assert_int_equal(make_root(), 0);
    assert_int_equal(itera_corpus_open(root, &corpus), ITERA_ERR_IO);
    put(in_root("b.txt"), "second");
    put(in_root("a.txt"), "first");
    put(in_root("c.md"), "not this");
    put(in_root("d.txt"), "");
    assert_int_equal(itera_corpus_open(root, &corpus), ITERA_OK);
    assert_int_equal(itera_corpus_documents(corpus), 2);
    assert_document(corpus, 0, "first");
    assert_document(corpus, 1, "second");
    itera_corpus_destroy(&corpus);
    snprintf(source, sizeof source, "%s/b.txt,builtin:stories?bytes=1000,%s/c.md", root, root);
    assert_int_equal(itera_corpus_open(source, &corpus), ITERA_OK);
    assert_document(corpus, 0, "second");
    assert_document(corpus, itera_corpus_documents(corpus) - 1, "not this");
    itera_corpus_destroy(&corpus);
    snprintf(source, sizeof source, "%s/d.txt", root);
    assert_int_equal(itera_corpus_open(source, &corpus), ITERA_ERR_FORMAT);
    assert_non_null(strstr(itera_last_error(), "d.txt"));
    snprintf(source, sizeof source, "%s/missing.txt", root);
    assert_int_equal(itera_corpus_open(source, &corpus), ITERA_ERR_IO);
    assert_non_null(strstr(itera_last_error(), "missing.txt"));
    assert_int_equal(itera_corpus_open("", &corpus), ITERA_ERR_ARGUMENT);
    assert_int_equal(remove_root(), 0);
}

/* Documents of `source`, and their bytes. */
static size_t documents_of(const char *source, uint64_t *bytes)
{
    struct itera_corpus *corpus;
    assert_int_equal(itera_corpus_open(source, &corpus), ITERA_OK);
    const size_t n = itera_corpus_documents(corpus);
    *bytes = itera_corpus_bytes(corpus);
    itera_corpus_destroy(&corpus);
    return n;
}

/* Training and validation share the text between them, and a part never changes. */
static void parts_are_set_aside(void **state)
{
    (void)state;
    char text[8192] = "";
    uint64_t bytes, rest, held;
    struct itera_corpus *corpus;
    size_t length;
    assert_int_equal(make_root(), 0);
    /* Of 41 documents the 20th and the 40th. */
    for (int i = 1; i <= 41; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "document %d\n<|endoftext|>\n",
                 i);
    put(in_root("many,1.txt"), text);
    assert_int_equal(documents_of(in_root("many,1.txt"), &bytes), 41);
    assert_int_equal(documents_of(in_root("many,1.txt?train"), &rest), 39);
    assert_int_equal(documents_of(in_root("many,1.txt?valid"), &held), 2);
    assert_int_equal(rest + held, bytes);
    assert_int_equal(itera_corpus_open(in_root("many,1.txt?valid"), &corpus), ITERA_OK);
    assert_memory_equal(itera_corpus_document(corpus, 0, &length), "document 20", 11);
    assert_memory_equal(itera_corpus_document(corpus, 1, &length), "document 40", 11);
    itera_corpus_destroy(&corpus);
    /* Of one, its end from a line on; of one line, from a word on; of no word, from a letter on. */
    static const char *const unit[] = {"twelve bytes ", "twelve bytes", "\xc3\xa4",
                                       "a line\nof it\n"};
    for (int i = 0; i < 4; i++) {
        *text = '\0';
        for (int k = 0; k < 101; k++)
            strcat(text, unit[i]);
        put(in_root("one.txt"), text);
        assert_int_equal(itera_corpus_open(in_root("one.txt?valid"), &corpus), ITERA_OK);
        const char *begin = itera_corpus_document(corpus, 0, &length);
        assert_true(length > 0 && length <= strlen(text) / 20 + 1);
        const char *at = text + strlen(text) - length;
        assert_memory_equal(begin, at, length);
        assert_true(i == 2 ? *begin == unit[i][0] : at[-1] == ' ' || at[-1] == '\n');
        itera_corpus_destroy(&corpus);
        documents_of(in_root("one.txt?train"), &rest);
        assert_int_equal(rest + length, strlen(text));
    }
    /* A list has the parts of its members; a file of that name is a file. */
    assert_true(documents_of(in_root("one.txt?valid,builtin:stories?valid&bytes=1000"), &bytes) >
                2);
    put(in_root("one.txt?valid"), "itself");
    documents_of(in_root("one.txt?valid"), &bytes);
    assert_int_equal(bytes, 6);
    char *name = itera_corpus_name_part("a.txt,builtin:stories?seed=3,b", ITERA_CORPUS_VALID);
    assert_string_equal(name, "a.txt?valid,builtin:stories?seed=3&valid,b?valid");
    free(name);
    name = itera_corpus_name_part("a.txt,builtin:stories", ITERA_CORPUS_TRAIN);
    assert_string_equal(name, "a.txt?train,builtin:stories");
    free(name);
    /* Nothing is left to be set aside. */
    put(in_root("short.txt"), "hello");
    assert_int_equal(itera_corpus_open(in_root("short.txt?valid"), &corpus), ITERA_ERR_FORMAT);
    assert_int_equal(remove_root(), 0);
}

static uint64_t hash_corpus(const struct itera_corpus *corpus)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < itera_corpus_documents(corpus); i++) {
        size_t length;
        const char *text = itera_corpus_document(corpus, i, &length);
        for (size_t k = 0; k < length; k++)
            hash = (hash ^ (unsigned char)text[k]) * 1099511628211u;
    }
    return hash;
}

static void stories_are_deterministic(void **state)
{
    (void)state;
    static const char *const sources[] = {
        "builtin:stories?bytes=100000", "builtin:stories?bytes=100000&seed=1",
        "builtin:stories?valid&bytes=100000", "builtin:stories?seed=2&bytes=100000"};
    uint64_t hashes[4];
    for (int i = 0; i < 4; i++) {
        struct itera_corpus *corpus;
        assert_int_equal(itera_corpus_open(sources[i], &corpus), ITERA_OK);
        hashes[i] = hash_corpus(corpus);
        assert_true(itera_corpus_documents(corpus) > 50);
        assert_true(itera_corpus_bytes(corpus) > 90000);
        itera_corpus_destroy(&corpus);
    }
    assert_true(hashes[0] == hashes[1]);
    assert_true(hashes[0] != hashes[2] && hashes[0] != hashes[3] && hashes[2] != hashes[3]);
    static const char *const bad[] = {
        "builtin:poems",           "builtin:stories?",          "builtin:stories?seed=",
        "builtin:stories?bytes=0", "builtin:stories?bytes=1e6", "builtin:stories?test",
        "builtin:storiesx"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct itera_corpus *corpus;
        assert_int_equal(itera_corpus_open(bad[i], &corpus), ITERA_ERR_ARGUMENT);
        assert_null(corpus);
    }
}

/* Every template is closed, every value known, every sentence begins with a capital. */
static void stories_read_well(void **state)
{
    (void)state;
    struct itera_corpus *corpus, *valid;
    assert_int_equal(itera_corpus_open("builtin:stories", &corpus), ITERA_OK);
    assert_int_equal(itera_corpus_open("builtin:stories?valid", &valid), ITERA_OK);
    for (size_t i = 0; i < itera_corpus_documents(corpus); i++) {
        size_t length;
        const char *text = itera_corpus_document(corpus, i, &length);
        for (size_t k = 0; k < length; k++) {
            if (!text[k] || strchr("{}[]|^#", text[k]))
                fail_msg("story %zu: '%c' at %zu: %.*s", i, text[k], k, (int)length, text);
            if (k + 2 < length && text[k] == '.' && text[k + 1] == ' ' &&
                (text[k + 2] >= 'a' && text[k + 2] <= 'z'))
                fail_msg("story %zu: no capital at %zu: %.*s", i, k + 2, (int)length, text);
            if (k + 1 < length && text[k] == ' ' && text[k + 1] == ' ')
                fail_msg("story %zu: a word is missing at %zu: %.*s", i, k, (int)length, text);
        }
    }
    /* No held-out story was seen in training. */
    for (size_t i = 0; i < itera_corpus_documents(valid); i++) {
        size_t length, other_length;
        const char *text = itera_corpus_document(valid, i, &length);
        for (size_t k = 0; k < itera_corpus_documents(corpus); k++) {
            const char *other = itera_corpus_document(corpus, k, &other_length);
            assert_false(length == other_length && memcmp(text, other, length) == 0);
        }
    }
    itera_corpus_destroy(&corpus);
    itera_corpus_destroy(&valid);
}

/* Ids 2, 3, ..., n + 1, then the end (0): every id tells its place. */
static struct itera_dataset *unique(size_t n)
{
    struct itera_tokenizer *tokenizer;
    struct itera_corpus *corpus;
    struct itera_dataset *dataset;
    char *text = malloc(3 * n);
    for (size_t i = 0; i < n; i++) {
        uint32_t code = 0x4E00 + (uint32_t)i;
        text[3 * i] = (char)(0xE0 | code >> 12);
        text[3 * i + 1] = (char)(0x80 | (code >> 6 & 0x3F));
        text[3 * i + 2] = (char)(0x80 | (code & 0x3F));
    }
    assert_int_equal(itera_corpus_from_text(text, 3 * n, "unique", &corpus), ITERA_OK);
    assert_int_equal(itera_tokenizer_train("char", corpus, &tokenizer), ITERA_OK);
    assert_int_equal(itera_dataset_create(corpus, tokenizer, &dataset), ITERA_OK);
    itera_tokenizer_destroy(&tokenizer);
    itera_corpus_destroy(&corpus);
    free(text);
    return dataset;
}

/* A dataset of the ids 0, 1, ..., n - 1 modulo 251, then the end (256). */
static struct itera_dataset *counting(size_t n)
{
    struct itera_tokenizer *tokenizer;
    struct itera_corpus *corpus;
    struct itera_dataset *dataset;
    char *text = malloc(n);
    for (size_t i = 0; i < n; i++)
        text[i] = (char)(i % 251);
    assert_int_equal(itera_corpus_from_text(text, n, "counting", &corpus), ITERA_OK);
    assert_int_equal(itera_tokenizer_train("byte", NULL, &tokenizer), ITERA_OK);
    assert_int_equal(itera_dataset_create(corpus, tokenizer, &dataset), ITERA_OK);
    itera_tokenizer_destroy(&tokenizer);
    itera_corpus_destroy(&corpus);
    free(text);
    return dataset;
}

static void datasets_end_documents(void **state)
{
    (void)state;
    struct itera_corpus *corpus = from_text("ab c\n<|endoftext|>\nz\n");
    struct itera_tokenizer *tokenizer;
    struct itera_dataset *dataset;
    assert_int_equal(itera_tokenizer_train("byte", NULL, &tokenizer), ITERA_OK);
    assert_int_equal(itera_dataset_create(corpus, tokenizer, &dataset), ITERA_OK);
    static const int32_t expected[] = {'a', 'b', ' ', 'c', 256, 'z', '\n', 256};
    size_t count;
    const int32_t *ids = itera_dataset_tokens(dataset, &count);
    assert_int_equal(count, 8);
    assert_memory_equal(ids, expected, sizeof expected);
    assert_int_equal(itera_dataset_bytes(dataset), 6);
    assert_int_equal(itera_dataset_words(dataset), 4);
    assert_int_equal(itera_dataset_unknown(dataset), 0);
    itera_dataset_destroy(&dataset);
    assert_null(dataset);
    itera_tokenizer_destroy(&tokenizer);
    struct itera_corpus *letters = from_text("ab");
    assert_int_equal(itera_tokenizer_train("char", letters, &tokenizer), ITERA_OK);
    assert_int_equal(itera_dataset_create(corpus, tokenizer, &dataset), ITERA_OK);
    assert_int_equal(itera_dataset_unknown(dataset), 4);
    itera_dataset_destroy(&dataset);
    itera_tokenizer_destroy(&tokenizer);
    itera_corpus_destroy(&letters);
    itera_corpus_destroy(&corpus);
}

static void epochs_visit_windows_once(void **state)
{
    (void)state;
    enum { N = 997, SEQ = 10, BATCH = 7, WINDOWS = 98, STEPS = 14, EPOCHS = 6 };
    struct itera_dataset *dataset = unique(N);
    size_t count;
    const int32_t *ids = itera_dataset_tokens(dataset, &count);
    assert_int_equal(count, N + 1);
    assert_int_equal(itera_dataset_windows(dataset, SEQ), WINDOWS);
    assert_int_equal(itera_dataset_epoch_steps(dataset, BATCH, SEQ), STEPS);
    int32_t inputs[BATCH * SEQ], targets[BATCH * SEQ];
    size_t order[WINDOWS] = {0}, same_place = 0, offsets_seen = 0;
    for (uint64_t epoch = 0; epoch < EPOCHS; epoch++) {
        int seen[WINDOWS] = {0};
        size_t offset = 0;
        for (uint64_t step = 0; step < STEPS; step++) {
            assert_int_equal(
                itera_dataset_batch(dataset, 5, epoch * STEPS + step, BATCH, SEQ, inputs, targets),
                ITERA_OK);
            for (size_t row = 0; row < BATCH; row++) {
                size_t start = (size_t)inputs[row * SEQ] - 2, place = (size_t)step * BATCH + row;
                assert_memory_equal(ids + start, inputs + row * SEQ, SEQ * sizeof *ids);
                assert_memory_equal(ids + start + 1, targets + row * SEQ, SEQ * sizeof *ids);
                if (place == 0)
                    offset = start % SEQ;
                assert_int_equal(start % SEQ, offset);
                assert_true(start / SEQ < WINDOWS);
                seen[start / SEQ]++;
                same_place += epoch > 0 && order[place] == start / SEQ;
                order[place] = start / SEQ;
            }
        }
        for (size_t i = 0; i < WINDOWS; i++)
            assert_int_equal(seen[i], 1);
        offsets_seen |= (size_t)1 << offset;
    }
    /* Offsets differ and the order does too: about one place an epoch agrees by chance. */
    assert_true(offsets_seen & (offsets_seen - 1));
    assert_true(same_place < 25);
    /* A pure function of the step and the seed. */
    int32_t again[BATCH * SEQ];
    assert_int_equal(
        itera_dataset_batch(dataset, 5, EPOCHS * STEPS - 1, BATCH, SEQ, again, targets), ITERA_OK);
    assert_memory_equal(again, inputs, sizeof again);
    assert_int_equal(
        itera_dataset_batch(dataset, 6, EPOCHS * STEPS - 1, BATCH, SEQ, again, targets), ITERA_OK);
    assert_memory_not_equal(again, inputs, sizeof again);
    itera_dataset_destroy(&dataset);
}

static void short_datasets(void **state)
{
    (void)state;
    struct itera_dataset *dataset = counting(9); /* ten ids */
    int32_t inputs[64], targets[64];
    assert_int_equal(itera_dataset_batch(dataset, 0, 0, 1, 10, inputs, targets), ITERA_ERR_LIMIT);
    assert_non_null(strstr(itera_last_error(), "10 tokens"));
    assert_int_equal(itera_dataset_batch(dataset, 0, 0, 0, 4, inputs, targets), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_dataset_windows(dataset, 10), 0);
    assert_int_equal(itera_dataset_windows(dataset, 9), 1);
    for (uint64_t step = 0; step < 40; step++) {
        /* Whatever the offset, a window of eight inputs fits; ASan would say otherwise. */
        assert_int_equal(itera_dataset_batch(dataset, 3, step, 2, 8, inputs, targets), ITERA_OK);
        assert_int_equal(itera_dataset_batch(dataset, 3, step, 2, 9, inputs, targets), ITERA_OK);
        assert_int_equal(inputs[0], 0);
        assert_int_equal(targets[8], 256);
    }
    itera_dataset_destroy(&dataset);
}

static void evaluation_scores_each_token_once(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 5, 8, 9, 16, 100};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct itera_dataset *dataset = counting(sizes[i] - (sizes[i] > 1));
        size_t count, next = 0;
        const int32_t *ids = itera_dataset_tokens(dataset, &count);
        for (size_t overlap = 0; overlap < 8; overlap += 3) {
            int32_t inputs[24], targets[24];
            size_t scored;
            next = 0;
            uint64_t batches = itera_dataset_eval_batches(dataset, 3, 8, overlap);
            for (uint64_t b = 0; b < batches; b++) {
                assert_int_equal(
                    itera_dataset_eval_batch(dataset, b, 3, 8, overlap, inputs, targets, &scored),
                    ITERA_OK);
                for (size_t k = 0; k < 24; k++) {
                    if (targets[k] < 0)
                        continue;
                    assert_int_equal(targets[k], ids[next]);
                    assert_int_equal(inputs[k], next ? ids[next - 1] : 256);
                    if (k % 8)
                        assert_true(k % 8 >= overlap || next < 8);
                    next++;
                    scored--;
                }
                assert_int_equal(scored, 0);
            }
            assert_int_equal(next, count);
            assert_int_equal(
                itera_dataset_eval_batch(dataset, batches, 3, 8, overlap, inputs, targets, &scored),
                ITERA_ERR_ARGUMENT);
        }
        assert_int_equal(itera_dataset_eval_batches(dataset, 3, 8, 8), 0);
        itera_dataset_destroy(&dataset);
    }
}

static void wikitext_word_count(void **state)
{
    (void)state;
    const char *data = getenv("ITERA_DATA");
    char path[4096];
    snprintf(path, sizeof path, "%s/wikitext-2/test.txt", data ? data : "");
    if (!data || !itera_file_exists(path))
        skip_without("ITERA_DATA, a folder with wikitext-2/test.txt");
    struct itera_corpus *corpus;
    assert_int_equal(itera_corpus_open(path, &corpus), ITERA_OK);
    assert_int_equal(itera_corpus_words(corpus), 245569);
    assert_int_equal(itera_corpus_bytes(corpus), 1256449);
    /* The word tokenizer sees it the same way, and one end of text. */
    struct itera_tokenizer *tokenizer;
    struct itera_dataset *dataset;
    size_t count;
    assert_int_equal(itera_tokenizer_train("word:50000", corpus, &tokenizer), ITERA_OK);
    assert_int_equal(itera_dataset_create(corpus, tokenizer, &dataset), ITERA_OK);
    itera_dataset_tokens(dataset, &count);
    assert_int_equal(count, 245570);
    itera_dataset_destroy(&dataset);
    itera_tokenizer_destroy(&tokenizer);
    itera_corpus_destroy(&corpus);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_are_separated),
        cmocka_unit_test(files_and_folders),
        cmocka_unit_test(parts_are_set_aside),
        cmocka_unit_test(stories_are_deterministic),
        cmocka_unit_test(stories_read_well),
        cmocka_unit_test(datasets_end_documents),
        cmocka_unit_test(epochs_visit_windows_once),
        cmocka_unit_test(short_datasets),
        cmocka_unit_test(evaluation_scores_each_token_once),
    };
    const struct CMUnitTest data[] = {cmocka_unit_test(wikitext_word_count)};
    if (part_is(argc, argv, "data"))
        return part_status(cmocka_run_group_tests(data, NULL, NULL));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
