/* Tokenizers: every kind, training, files good and bad, GPT-2's vectors. ITERA_DATA is a folder
 * with the evaluation data (tokenizers/gpt2, tinystories, wikitext-2); without it those tests skip.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "core/file.h"
#include "core/rng.h"
#include "itera/corpus.h"
#include "itera/tokenizer.h"
#include "tests/support/parts.h"
#include "tests/support/test.h"
#include "text/byte_letters.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

static struct itera_tokenizer *train(const char *spec, const char *text)
{
    struct itera_corpus *corpus = NULL;
    struct itera_tokenizer *tokenizer = NULL;
    assert_int_equal(itera_corpus_from_text(text, strlen(text), "test", &corpus), ITERA_OK);
    assert_int_equal(itera_tokenizer_create(spec, corpus, &tokenizer), ITERA_OK);
    itera_corpus_destroy(&corpus);
    return tokenizer;
}

static void assert_ids(const struct itera_tokenizer *tokenizer, const char *text, size_t length,
                       unsigned flags, const int32_t *ids, size_t count)
{
    struct itera_tokens tokens = {0};
    assert_int_equal(itera_tokenizer_encode(tokenizer, text, length, flags, &tokens), ITERA_OK);
    assert_int_equal(tokens.count, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(tokens.ids[i], ids[i]);
    itera_tokens_free(&tokens);
}
#define ASSERT_IDS(tokenizer, text, flags, ...)                                                    \
    assert_ids(tokenizer, text, sizeof(text) - 1, flags, (const int32_t[]){__VA_ARGS__},           \
               sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void assert_round_trip(const struct itera_tokenizer *tokenizer, const char *text,
                              size_t length)
{
    struct itera_tokens tokens = {0};
    char *back;
    size_t back_length;
    assert_int_equal(itera_tokenizer_encode(tokenizer, text, length, 0, &tokens), ITERA_OK);
    assert_int_equal(
        itera_tokenizer_decode_all(tokenizer, tokens.ids, tokens.count, 0, &back, &back_length),
        ITERA_OK);
    assert_int_equal(back_length, length);
    assert_memory_equal(back, text, length);
    free(back);
    itera_tokens_free(&tokens);
}

/* Through JSON and back: the same JSON again, and the same ids. */
static void assert_json_round_trip(const struct itera_tokenizer *tokenizer, const char *sample)
{
    char *json, *again;
    struct itera_tokenizer *copy;
    struct itera_tokens tokens = {0};
    assert_int_equal(itera_tokenizer_to_json(tokenizer, &json), ITERA_OK);
    assert_int_equal(itera_tokenizer_from_json(json, strlen(json), "copy", &copy), ITERA_OK);
    assert_int_equal(itera_tokenizer_to_json(copy, &again), ITERA_OK);
    assert_string_equal(json, again);
    assert_int_equal(itera_tokenizer_vocab_size(copy), itera_tokenizer_vocab_size(tokenizer));
    assert_int_equal(itera_tokenizer_end_of_text(copy), itera_tokenizer_end_of_text(tokenizer));
    assert_int_equal(itera_tokenizer_unknown(copy), itera_tokenizer_unknown(tokenizer));
    assert_int_equal(
        itera_tokenizer_encode(tokenizer, sample, strlen(sample), ITERA_TEXT_SPECIAL, &tokens),
        ITERA_OK);
    assert_ids(copy, sample, strlen(sample), ITERA_TEXT_SPECIAL, tokens.ids, tokens.count);
    itera_tokens_free(&tokens);
    itera_tokenizer_destroy(&copy);
    free(json);
    free(again);
}

/* A file of tests/data. */
static char *read_test_data(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/tests/data/%s", ITERA_SOURCE_DIR, name);
    struct itera_map map;
    assert_int_equal(itera_map_open(path, &map), ITERA_OK);
    char *text = calloc(map.size + 1, 1);
    assert_non_null(text);
    memcpy(text, map.data, map.size);
    itera_map_close(&map);
    return text;
}

static const char broken[] = "ok \xFF\xC3 \xE2\x82 x\xED\xA0\x80\0y\xF0\x9F\x98\x80 \xF4\x90 z\xC3";

static void byte_keeps_everything(void **state)
{
    (void)state;
    struct itera_tokenizer *t;
    assert_int_equal(itera_tokenizer_train("byte", NULL, &t), ITERA_OK);
    assert_string_equal(itera_tokenizer_kind(t), "byte");
    assert_int_equal(itera_tokenizer_vocab_size(t), 257);
    assert_int_equal(itera_tokenizer_end_of_text(t), 256);
    assert_int_equal(itera_tokenizer_unknown(t), -1);
    ASSERT_IDS(t, "a\xFF", 0, 97, 255);
    ASSERT_IDS(t, "a<|endoftext|>b", ITERA_TEXT_SPECIAL, 97, 256, 98);
    ASSERT_IDS(t, "<|endoftext", ITERA_TEXT_SPECIAL, '<', '|', 'e', 'n', 'd', 'o', 'f', 't', 'e',
               'x', 't');
    assert_round_trip(t, "<|endoftext|>", 13);
    assert_round_trip(t, broken, sizeof broken - 1);
    assert_round_trip(t, "", 0);
    assert_json_round_trip(t, "some text<|endoftext|>");
    const char *bytes;
    size_t length;
    assert_int_equal(itera_tokenizer_decode(t, 256, 0, &bytes, &length), ITERA_OK);
    assert_int_equal(length, 0);
    assert_int_equal(itera_tokenizer_decode(t, 256, ITERA_TEXT_SPECIAL, &bytes, &length), ITERA_OK);
    assert_int_equal(length, 13);
    assert_true(itera_tokenizer_is_special(t, 256));
    assert_false(itera_tokenizer_is_special(t, 257));
    assert_int_equal(itera_tokenizer_decode(t, 257, 0, &bytes, &length), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_tokenizer_decode(t, -1, 0, &bytes, &length), ITERA_ERR_ARGUMENT);
    itera_tokenizer_destroy(&t);
    assert_null(t);
    itera_tokenizer_destroy(&t);
}

static void char_by_code_point(void **state)
{
    (void)state;
    struct itera_tokenizer *t = train("char", "b\xC3\xA4 a\n<|endoftext|>\xE2\x82\xAC"
                                              "a");
    /* end, unknown, space, a, b, a-umlaut, euro; the newline belongs to the separator */
    assert_int_equal(itera_tokenizer_vocab_size(t), 7);
    ASSERT_IDS(t, "ab \xC3\xA4\xE2\x82\xAC", 0, 3, 4, 2, 5, 6);
    ASSERT_IDS(t,
               "az\xFF\xE2\x82"
               "b",
               0, 3, 1, 1, 1, 4);
    ASSERT_IDS(t, "a<|endoftext|>", ITERA_TEXT_SPECIAL, 3, 0);
    assert_round_trip(t, "\xC3\xA4 ab", 5);
    assert_json_round_trip(t, "\xC3\xA4 ab z");
    char *text;
    const int32_t ids[] = {3, 1, 0, 4};
    assert_int_equal(itera_tokenizer_decode_all(t, ids, 4, 0, &text, NULL), ITERA_OK);
    assert_string_equal(text, "a\xEF\xBF\xBD"
                              "b");
    free(text);
    itera_tokenizer_destroy(&t);
}

static void word_by_frequency(void **state)
{
    (void)state;
    /* As WikiText writes: marks stand alone, lines begin and end with a space. */
    const char wiki[] = " \n = A title = \n the cat , the <unk> and the dog . \n";
    struct itera_tokenizer *t = train("word:100", wiki);
    ASSERT_IDS(t, " the the", 0, 3, 3); /* three times, as often as " \n", which sorts before */
    ASSERT_IDS(t, " \n", 0, 2);
    ASSERT_IDS(t, " <unk> zebra", 0, 1, 1);
    assert_round_trip(t, wiki, sizeof wiki - 1);
    assert_json_round_trip(t, wiki);
    itera_tokenizer_destroy(&t);
    /* Ordinary text: marks are words of their own, a limit cuts the rarest. */
    t = train("word:7", "He said, \"Don't!\" He said, \"Yes.\" He ran.");
    assert_int_equal(itera_tokenizer_vocab_size(t), 7);
    assert_round_trip(t, " said, said,", 12);
    assert_json_round_trip(t, "He said, \"Don't!\"");
    itera_tokenizer_destroy(&t);
    t = train("word:100",
              "He said, \"Don't!\" He said, \"Yes.\"  He ran.\n\tOn well-known 'roads'...");
    assert_round_trip(t, " said,\tOn...  He well-known 'roads'", 35);
    itera_tokenizer_destroy(&t);
}

static enum itera_status join(void *user, const char *piece, size_t length)
{
    char *out = user;
    strncat(out, piece, length);
    strcat(out, "|");
    return ITERA_OK;
}

static void gpt2_pieces(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"Hello world's  two\n\n end  ", "Hello| world|'s| | two|\n\n| end|  |"},
        {"I'll we've don't 'S", "I|'ll| we|'ve| don|'t| '|S|"},
        {"a1b22 ?!x", "a|1|b|22| ?!|x|"},
        {"\xC2\xA0\xC2\xA0x \xC2\xBD\xE3\x81\x82", "\xC2\xA0|\xC2\xA0|x| \xC2\xBD|\xE3\x81\x82|"},
        {"ab\xFF\xC3"
         "cd",
         "ab|\xFF|\xC3|cd|"},
        {"", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[200] = "";
        assert_int_equal(itera_split_gpt2(cases[i][0], strlen(cases[i][0]), join, out), ITERA_OK);
        assert_string_equal(out, cases[i][1]);
    }
}

static void bpe_training_by_hand(void **state)
{
    (void)state;
    /* Counts: u+g 6, h+ug 3, then three pairs of count 2 in the order of their ids. */
    struct itera_tokenizer *t = train("bpe:300", "hug hug hug pug pug bug");
    static const char *const merges[] = {"ug", "hug", " p", " hug", " pug"};
    assert_int_equal(itera_tokenizer_vocab_size(t), 262);
    for (int i = 0; i < 5; i++) {
        const char *bytes;
        size_t length;
        assert_int_equal(itera_tokenizer_decode(t, 256 + i, 0, &bytes, &length), ITERA_OK);
        assert_int_equal(length, strlen(merges[i]));
        assert_memory_equal(bytes, merges[i], length);
    }
    assert_int_equal(itera_tokenizer_end_of_text(t), 261);
    ASSERT_IDS(t, "hug pug bug mug<|endoftext|>", ITERA_TEXT_SPECIAL, 257, 260, ' ', 'b', 256, ' ',
               'm', 256, 261);
    assert_round_trip(t, broken, sizeof broken - 1);
    assert_json_round_trip(t, "hug a pug\n\xF0\x9F\x98\x80 <|endoftext|>");
    itera_tokenizer_destroy(&t);
    t = train("bpe:258", "hug hug hug pug pug bug");
    assert_int_equal(itera_tokenizer_vocab_size(t), 258);
    itera_tokenizer_destroy(&t);
}

/* Merging in a heap, in a short array and by definition agree, on words of all lengths. */
static void bpe_merges_as_defined(void **state)
{
    (void)state;
    struct itera_rng rng = {7, 7, 0};
    char text[4000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "abcaab"[itera_rng_below(&rng, 6)];
    for (size_t i = 30; i < sizeof text; i += 31)
        text[i] = ' ';
    text[sizeof text - 1] = 0;
    struct itera_tokenizer *t = train("bpe:400", text);
    const struct itera_bpe *bpe = t->bpe;
    for (size_t n = 1; n < 600; n += n < 60 ? 1 : 97) {
        int32_t ids[600];
        char word[600];
        for (size_t i = 0; i < n; i++)
            ids[i] = word[i] = "abc"[itera_rng_below(&rng, 3)];
        size_t count = n;
        for (;;) {
            size_t best = bpe->merge_count, at = 0;
            for (size_t i = 0; i + 1 < count; i++)
                for (size_t rank = 0; rank < best; rank++)
                    if (bpe->merges[rank].left == ids[i] && bpe->merges[rank].right == ids[i + 1]) {
                        best = rank;
                        at = i;
                    }
            if (best == bpe->merge_count)
                break;
            ids[at] = bpe->merges[best].result;
            memmove(ids + at + 1, ids + at + 2, (count - at - 2) * sizeof *ids);
            count--;
        }
        assert_ids(t, word, n, 0, ids, count);
        assert_ids(t, word, n, 0, ids, count); /* from the cache */
    }
    itera_tokenizer_destroy(&t);
}

/* A tokenizer.json with all bytes, "ab" and "abc", and the end of text. */
static char *hugging_face(const char *extra_added, const char *pre_tokenizer, const char *model)
{
    static char json[16384];
    char *p = json;
    p += sprintf(p,
                 "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":258,\"content\":"
                 "\"<|endoftext|>\",\"special\":true}%s],\"pre_tokenizer\":%s,\"model\":{"
                 "\"type\":\"BPE\",%s\"vocab\":{",
                 extra_added, pre_tokenizer, model);
    for (unsigned byte = 0; byte < 256; byte++) {
        char letter[5] = {0};
        itera_utf8_put(itera_byte_letter(byte), letter);
        p += sprintf(p, "\"%s%s\":%u,", letter[0] == '"' || letter[0] == '\\' ? "\\" : "", letter,
                     byte);
    }
    sprintf(p, "\"ab\":256,\"abc\":257},\"merges\":[\"a b\",[\"ab\",\"c\"]]}}");
    return json;
}

static struct itera_tokenizer *parse(const char *json)
{
    struct itera_tokenizer *tokenizer = NULL;
    if (itera_tokenizer_from_json(json, strlen(json), "t.json", &tokenizer) != ITERA_OK)
        fail_msg("%s", itera_last_error());
    return tokenizer;
}

static void hugging_face_options(void **state)
{
    (void)state;
    static const char byte_level[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}";
    struct itera_tokenizer *t = parse(hugging_face("", byte_level, ""));
    ASSERT_IDS(t, "abcab", 0, 257, 256);
    assert_round_trip(t, broken, sizeof broken - 1);
    assert_json_round_trip(t, "abc ab<|endoftext|>");
    itera_tokenizer_destroy(&t);
    /* Added tokens that are not special are always found, the longest first. */
    t = parse(hugging_face(",{\"id\":259,\"content\":\"  \"},{\"id\":260,\"content\":\"    \"}",
                           byte_level, ""));
    ASSERT_IDS(t, "ab      ab", 0, 256, 260, 259, 256);
    assert_round_trip(t, "ab      ab", 10);
    assert_json_round_trip(t, "ab      ab");
    itera_tokenizer_destroy(&t);
    t = parse(hugging_face("", "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", ""));
    ASSERT_IDS(t, "ab", 0, ' ', 256);
    ASSERT_IDS(t, " ab", 0, ' ', 256);
    assert_json_round_trip(t, "ab");
    itera_tokenizer_destroy(&t);
    /* An expression of its own, here single characters, so that no merge happens. */
    static const char split[] = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                                "\"pattern\":{\"Regex\":\".\"}"
                                ",\"behavior\":\"Isolated\",\"invert\":false},{\"type\":"
                                "\"ByteLevel\",\"use_regex\":false}]}";
    t = parse(hugging_face("", split, ""));
    ASSERT_IDS(t, "abc", 0, 'a', 'b', 'c');
    assert_json_round_trip(t, "abc");
    itera_tokenizer_destroy(&t);
    t = parse(hugging_face("", "{\"type\":\"ByteLevel\",\"use_regex\":false}", ""));
    ASSERT_IDS(t, "abc ab", 0, 257, ' ', 256);
    itera_tokenizer_destroy(&t);
}

/* What Hugging Face's library makes of small tokenizers with all kinds of steps. The file was written
 * by tests/tokenizers.py, with that library. */
static void steps_as_hugging_face(void **state)
{
    (void)state;
    char *text = read_test_data("tokenizer_vectors.json");
    json_t *rows = json_loads(text, 0, NULL);
    assert_true(json_array_size(rows) > 40);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i), *ids = json_object_get(row, "ids"), *entry;
        json_t *definition = json_loads(hugging_face("", "null", ""), 0, NULL);
        size_t index;
        json_object_set(definition, "normalizer", json_object_get(row, "normalizer"));
        json_object_set(definition, "pre_tokenizer", json_object_get(row, "pre_tokenizer"));
        json_object_update(json_object_get(definition, "model"), json_object_get(row, "model"));
        json_array_extend(json_object_get(definition, "added_tokens"),
                          json_object_get(row, "added"));
        int32_t wanted[64];
        json_array_foreach(ids, index, entry) wanted[index] = (int32_t)json_integer_value(entry);
        char *file = json_dumps(definition, JSON_COMPACT);
        const char *input = json_string_value(json_object_get(row, "text"));
        struct itera_tokenizer *t = parse(file);
        struct itera_tokens tokens = {0};
        assert_int_equal(
            itera_tokenizer_encode(t, input, strlen(input), ITERA_TEXT_SPECIAL, &tokens), ITERA_OK);
        if (tokens.count != json_array_size(ids) ||
            memcmp(tokens.ids, wanted, tokens.count * sizeof *wanted) != 0)
            fail_msg("row %zu: \"%s\" becomes other tokens; tokenizer: %s", i, input, file);
        itera_tokens_free(&tokens);
        assert_json_round_trip(t, input);
        itera_tokenizer_destroy(&t);
        free(file);
        json_decref(definition);
    }
    json_decref(rows);
    free(text);
}

static void bad_json_is_explained(void **state)
{
    (void)state;
#define PRE "\"pre_tokenizer\":{\"type\":\"ByteLevel\"},"
#define SPLIT(regex)                                                                               \
    "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},"       \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},"
#define BPE2 "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1"
    static const struct {
        const char *json, *says;
        enum itera_status status;
    } cases[] = {
        {"", "not JSON", ITERA_ERR_FORMAT},
        {"{\"model\":", "not JSON", ITERA_ERR_FORMAT},
        {"[]", "not an object", ITERA_ERR_FORMAT},
        {"{}", "not a tokenizer.json", ITERA_ERR_FORMAT},
        {"{\"model\":{\"type\":\"Unigram\"}}", "Unigram", ITERA_ERR_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\"}}", "vocab", ITERA_ERR_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", "merges", ITERA_ERR_FORMAT},
        {"{" PRE "\"model\":{\"vocab\":{},\"merges\":[]}}", "0 tokens", ITERA_ERR_FORMAT},
        {"{" PRE BPE2 ",\"ab\":2},\"merges\":[\"a c\"]}}", "\"c\", which is not", ITERA_ERR_FORMAT},
        {"{" PRE BPE2 "},\"merges\":[\"a b\"]}}", "\"ab\", which is not", ITERA_ERR_FORMAT},
        {"{" PRE BPE2 "},\"merges\":[\"ab\"]}}", "not two tokens", ITERA_ERR_FORMAT},
        {"{" PRE BPE2 "},\"merges\":[[\"a\"]]}}", "not two tokens", ITERA_ERR_FORMAT},
        {"{" PRE BPE2 "},\"merges\":[7]}}", "not two tokens", ITERA_ERR_FORMAT},
        {"{" PRE BPE2 ",\"c\":1},\"merges\":[]}}", "given twice", ITERA_ERR_FORMAT},
        {"{" PRE BPE2 ",\"c\":3},\"merges\":[]}}", "without holes", ITERA_ERR_FORMAT},
        {"{" PRE BPE2 ",\"c\":-1},\"merges\":[]}}", "without holes", ITERA_ERR_FORMAT},
        {"{" PRE BPE2 ",\"c\":9223372036854775807},\"merges\":[]}}", "holes", ITERA_ERR_FORMAT},
        {"{" PRE BPE2 ",\"c\":\"2\"},\"merges\":[]}}", "not an integer", ITERA_ERR_FORMAT},
        {"{" PRE BPE2 ",\"a\":2},\"merges\":[]}}", "not JSON", ITERA_ERR_FORMAT},
        {"{\"added_tokens\":3," PRE BPE2 "},\"merges\":[]}}", "not an array", ITERA_ERR_FORMAT},
        {"{\"added_tokens\":[3]," PRE BPE2 "},\"merges\":[]}}", "content", ITERA_ERR_FORMAT},
        {"{\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]," PRE BPE2 "},\"merges\":[]}}",
         "would give it 2", ITERA_ERR_FORMAT},
        {"{\"added_tokens\":[{\"id\":0,\"content\":\"b\"}]," PRE BPE2 "},\"merges\":[]}}",
         "would give it 1", ITERA_ERR_FORMAT},
        {"{\"added_tokens\":[{\"id\":1,\"content\":\"b\"},{\"id\":1,\"content\":\"b\"}]," PRE BPE2
         "},\"merges\":[]}}",
         "given twice", ITERA_ERR_FORMAT},
        {"{\"added_tokens\":[{\"id\":2,\"content\":\"x\",\"lstrip\":1}]," PRE BPE2
         "},\"merges\":[]}}",
         "\"lstrip\" of added token \"x\"", ITERA_ERR_FORMAT},
        {"{" PRE "\"model\":{\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]}}", "dropout",
         ITERA_ERR_UNSUPPORTED},
        {"{" PRE "\"model\":{\"byte_fallback\":true,\"vocab\":{\"a\":0},\"merges\":[]}}",
         "byte_fallback", ITERA_ERR_UNSUPPORTED},
        {"{" PRE "\"model\":{\"reversed\":true,\"vocab\":{\"a\":0},\"merges\":[]}}", "reversed",
         ITERA_ERR_UNSUPPORTED},
        {"{" PRE "\"model\":{\"unk_token\":\"b\",\"vocab\":{\"a\":0,\"b\":1,\"ba\":2},"
         "\"merges\":[\"b a\"]}}",
         "merge of the unknown", ITERA_ERR_UNSUPPORTED},
        {"{\"pre_tokenizer\":{\"type\":\"Metaspace\"}," BPE2 "},\"merges\":[]}}", "Metaspace",
         ITERA_ERR_UNSUPPORTED},
        {"{\"pre_tokenizer\":{\"type\":\"Digits\"}," BPE2 "},\"merges\":[]}}",
         "no pre-tokenizer is ByteLevel", ITERA_ERR_UNSUPPORTED},
        {SPLIT("(a") "\"behavior\":\"Isolated\"}]}," BPE2 "},\"merges\":[]}}", "end pattern",
         ITERA_ERR_FORMAT},
        {SPLIT("(a)\\\\1") "\"behavior\":\"Isolated\"}]}," BPE2 "},\"merges\":[]}}",
         "refers to one of its groups", ITERA_ERR_UNSUPPORTED},
        {SPLIT("(a{999}){999}") "\"behavior\":\"Isolated\"}]}," BPE2 "},\"merges\":[]}}",
         "repeats too often", ITERA_ERR_UNSUPPORTED},
        {SPLIT("a") "\"behavior\":\"Glued\"}]}," BPE2 "},\"merges\":[]}}", "behavior",
         ITERA_ERR_FORMAT},
        {"{" BPE2 "},\"merges\":[]}}", "pre-tokenizer", ITERA_ERR_UNSUPPORTED},
        {"{\"normalizer\":{\"type\":\"Precompiled\"}," PRE BPE2 "},\"merges\":[]}}", "Precompiled",
         ITERA_ERR_UNSUPPORTED},
        {"{\"itera\":{\"kind\":\"char\"}}", "version", ITERA_ERR_UNSUPPORTED},
        {"{\"itera\":{\"version\":1,\"kind\":\"syllable\"}}", "syllable", ITERA_ERR_FORMAT},
        {"{\"itera\":{\"version\":1,\"kind\":\"char\",\"tokens\":[\"a\",\"b\"]}}", "first two",
         ITERA_ERR_FORMAT},
        {"{\"itera\":{\"version\":1,\"kind\":\"char\",\"tokens\":[\"<|endoftext|>\",\"<unk>\","
         "\"ab\"]}}",
         "one character", ITERA_ERR_FORMAT},
        {"{\"itera\":{\"version\":1,\"kind\":\"char\",\"tokens\":[\"<|endoftext|>\",\"<unk>\","
         "\"a\","
         "\"a\"]}}",
         "given twice", ITERA_ERR_FORMAT},
        {"{\"itera\":{\"version\":1,\"kind\":\"word\",\"tokens\":[\"<|endoftext|>\",\"<unk>\"]}}",
         "split", ITERA_ERR_FORMAT}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct itera_tokenizer *t = (struct itera_tokenizer *)&t;
        enum itera_status status =
            itera_tokenizer_from_json(cases[i].json, strlen(cases[i].json), "bad.json", &t);
        if (status != cases[i].status || t || !strstr(itera_last_error(), cases[i].says) ||
            strncmp(itera_last_error(), "bad.json: ", 10) != 0)
            fail_msg("case %zu: status %d, message: %s", i, (int)status, itera_last_error());
    }
}

static void missing_bytes_are_an_error(void **state)
{
    (void)state;
    struct itera_tokenizer *t = parse("{" PRE BPE2 ",\"ab\":2},\"merges\":[\"a b\"]}}");
    struct itera_tokens tokens = {0};
    ASSERT_IDS(t, "abb", 0, 2, 1);
    assert_int_equal(itera_tokenizer_end_of_text(t), -1);
    assert_int_equal(itera_tokenizer_encode(t, "abx", 3, 0, &tokens), ITERA_ERR_FORMAT);
    assert_int_equal(tokens.count, 0);
    itera_tokens_free(&tokens);
    itera_tokenizer_destroy(&t);
}

static void files_are_found(void **state)
{
    (void)state;
    char path[256];
    struct itera_tokenizer *t;
    assert_int_equal(make_root(), 0);
    assert_int_equal(itera_tokenizer_open(root, &t), ITERA_ERR_IO);
    assert_non_null(strstr(itera_last_error(), root));
    put(in_root("gpt2_vocab.json"), "{\"a\":0,\"b\":1,\"ab\":2,\"<|endoftext|>\":3}");
    put(in_root("gpt2_merges.txt"), "#version: 0.2\r\na b\n\n");
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = {"", "/gpt2_vocab.json", "/gpt2_merges.txt"};
        snprintf(path, sizeof path, "%s%s", root, names[i]);
        assert_int_equal(itera_tokenizer_open(path, &t), ITERA_OK);
        ASSERT_IDS(t, "aba<|endoftext|>", ITERA_TEXT_SPECIAL, 2, 0, 3);
        assert_json_round_trip(t, "abba");
        itera_tokenizer_destroy(&t);
    }
    put(in_root("gpt2_merges.txt"), "#version: 0.2\na b\nb a\n");
    assert_int_equal(itera_tokenizer_create(root, NULL, &t), ITERA_ERR_FORMAT);
    assert_non_null(strstr(itera_last_error(), "gpt2_merges.txt: merge 2"));
    put(in_root("gpt2_merges.txt"), "a \xFF\n");
    assert_int_equal(itera_tokenizer_open(root, &t), ITERA_ERR_FORMAT);
    put(in_root("tokenizer.json"), "{\"itera\":{\"version\":1,\"kind\":\"byte\"}}");
    assert_int_equal(itera_tokenizer_open(root, &t), ITERA_OK);
    assert_string_equal(itera_tokenizer_kind(t), "byte");
    itera_tokenizer_destroy(&t);
    assert_int_equal(remove_root(), 0);
}

static void bad_specifications(void **state)
{
    (void)state;
    static const char *const specs[] = {
        "bpe",    "bpe:",    "bpe:256", "bpe:9x", "bpe:99999999999999999",
        "word:2", "word:-3", "chars",   "",       "char"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct itera_tokenizer *t;
        assert_int_equal(itera_tokenizer_train(specs[i], NULL, &t), ITERA_ERR_ARGUMENT);
        assert_null(t);
    }
}

static void utf8_streams(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"plain", "plain"},
        {"\xE2\x82\xAC\xF0\x9F\x98\x80", "\xE2\x82\xAC\xF0\x9F\x98\x80"},
        {"a\xFF"
         "b",
         "a\xEF\xBF\xBD"
         "b"},
        {"\xE2\x82x", "\xEF\xBF\xBDx"},
        {"\xE2\x82", "\xEF\xBF\xBD"},
        {"\xF0\x9F\x98", "\xEF\xBF\xBD"},
        {"\xC0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xF0\x9F\xE2\x82\xAC", "\xEF\xBF\xBD\xE2\x82\xAC"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t step = 1; step < 5; step++) {
            struct itera_utf8_stream stream = {0};
            const char *text = cases[i][0];
            char out[64];
            size_t length = strlen(text), written = 0;
            for (size_t at = 0; at < length; at += step) {
                size_t part = length - at < step ? length - at : step;
                char room[ITERA_UTF8_ROOM(5)];
                size_t n = itera_utf8_stream_push(&stream, text + at, part, room);
                memcpy(out + written, room, n);
                written += n;
            }
            written += itera_utf8_stream_finish(&stream, out + written);
            out[written] = 0;
            assert_string_equal(out, cases[i][1]);
        }
    }
}

/* A file of ITERA_DATA, or a skip that says so. */
static void open_data(const char *name, struct itera_map *map)
{
    const char *data = getenv("ITERA_DATA");
    char path[4096];
    if (!data)
        skip_without("ITERA_DATA, a folder with the evaluation data");
    snprintf(path, sizeof path, "%s/%s", data, name);
    if (!itera_file_exists(path))
        skip_without("%s", path);
    assert_int_equal(itera_map_open(path, map), ITERA_OK);
}

static void gpt2_vectors(void **state)
{
    (void)state;
    static const char end[] = "\n__ggml_vocab_test__\n";
    struct itera_map vocab;
    open_data("tokenizers/gpt2/gpt2_vocab.json", &vocab);
    itera_map_close(&vocab);
    char path[4096];
    struct itera_tokenizer *t;
    snprintf(path, sizeof path, "%s/tokenizers/gpt2", getenv("ITERA_DATA"));
    assert_int_equal(itera_tokenizer_open(path, &t), ITERA_OK);
    assert_int_equal(itera_tokenizer_vocab_size(t), 50257);
    assert_int_equal(itera_tokenizer_end_of_text(t), 50256);
    char *texts = read_test_data("gpt2_vectors.inp"), *lines = read_test_data("gpt2_vectors.out");
    char *line = lines, *stop;
    size_t count = 0;
    for (char *text = texts; (stop = strstr(text, end)); text = stop + sizeof end - 1, count++) {
        int32_t ids[1024];
        size_t n = 0;
        while (*line && *line != '\n') {
            char *after;
            ids[n++] = (int32_t)strtol(line, &after, 10);
            line = after + strspn(after, " ");
        }
        line += *line == '\n';
        assert_ids(t, text, (size_t)(stop - text), 0, ids, n);
        assert_round_trip(t, text, (size_t)(stop - text));
    }
    assert_int_equal(*line, 0);
    assert_true(count >= 46);
    free(texts);
    free(lines);
    itera_tokenizer_destroy(&t);
}

static void real_text_round_trips(void **state)
{
    (void)state;
    static const char *const names[] = {"wikitext-2/train.txt", "tinystories/train.txt"};
    for (int i = 0; i < 2; i++) {
        struct itera_map map;
        struct itera_corpus *corpus;
        open_data(names[i], &map);
        size_t length = map.size < 1000000 ? map.size : 1000000;
        assert_int_equal(itera_corpus_from_text((const char *)map.data, length, names[i], &corpus),
                         ITERA_OK);
        static const char *const specs[] = {"byte", "char", "word:1000000", "bpe:2000"};
        for (int k = 0; k < 4; k++) {
            struct itera_tokenizer *t;
            assert_int_equal(itera_tokenizer_train(specs[k], corpus, &t), ITERA_OK);
            for (size_t d = 0; d < itera_corpus_documents(corpus); d++) {
                size_t size;
                const char *text = itera_corpus_document(corpus, d, &size);
                /* The cut may have left a broken character, which char and word do not keep. */
                while ((k == 1 || k == 2) && size && (text[size - 1] & 0x80))
                    size--;
                assert_round_trip(t, text, size);
            }
            itera_tokenizer_destroy(&t);
        }
        itera_corpus_destroy(&corpus);
        itera_map_close(&map);
    }
}

/* Oniguruma has functions of the same names. A driver whose regcomp() is Oniguruma's while its
 * regexec() is the C library's waits forever, as Mesa's did under AddressSanitizer.
 */
static void posix_expressions_stay_the_c_librarys(void **state)
{
    (void)state;
    static const char *const names[] = {"regcomp", "regexec", "regerror", "regfree"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        Dl_info info;
        void *function = dlsym(RTLD_DEFAULT, names[i]);
        assert_non_null(function);
        assert_true(dladdr(function, &info));
        assert_null(strstr(info.dli_fname, "libonig"));
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posix_expressions_stay_the_c_librarys),
        cmocka_unit_test(byte_keeps_everything),
        cmocka_unit_test(char_by_code_point),
        cmocka_unit_test(word_by_frequency),
        cmocka_unit_test(gpt2_pieces),
        cmocka_unit_test(bpe_training_by_hand),
        cmocka_unit_test(bpe_merges_as_defined),
        cmocka_unit_test(hugging_face_options),
        cmocka_unit_test(steps_as_hugging_face),
        cmocka_unit_test(bad_json_is_explained),
        cmocka_unit_test(missing_bytes_are_an_error),
        cmocka_unit_test(files_are_found),
        cmocka_unit_test(bad_specifications),
        cmocka_unit_test(utf8_streams),
    };
    const struct CMUnitTest data[] = {
        cmocka_unit_test(gpt2_vectors),
        cmocka_unit_test(real_text_round_trips),
    };
    if (part_is(argc, argv, "data"))
        return part_status(cmocka_run_group_tests(data, NULL, NULL));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
