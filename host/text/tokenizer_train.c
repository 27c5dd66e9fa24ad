/* Making tokenizers from a specification and a corpus. */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

static enum itera_status set_special(struct itera_tokenizer *tokenizer, int32_t id)
{
    tokenizer->end_of_text = id;
    return itera_tokenizer_set(tokenizer, id, ITERA_END_OF_TEXT, sizeof ITERA_END_OF_TEXT - 1,
                               ITERA_TOKEN_SPECIAL | ITERA_TOKEN_ADDED);
}

static enum itera_status set_unknown(struct itera_tokenizer *tokenizer, int32_t id,
                                     const char *text)
{
    tokenizer->unknown = id;
    return itera_tokenizer_set(tokenizer, id, text, strlen(text), 0);
}

enum itera_status itera_tokenizer_new_byte(struct itera_tokenizer **out)
{
    enum itera_status status = itera_tokenizer_new(ITERA_BYTE, 257, out);
    for (int byte = 0; byte < 256 && !status; byte++) {
        char text = (char)byte;
        status = itera_tokenizer_set(*out, byte, &text, 1, 0);
    }
    if (!status)
        status = set_special(*out, 256);
    if (!status)
        status = itera_tokenizer_finish(*out, "byte tokenizer");
    if (status)
        itera_tokenizer_destroy(out);
    return status;
}

enum itera_status itera_tokenizer_new_listed(enum itera_tokenizer_kind kind, int32_t size,
                                             struct itera_tokenizer **out)
{
    enum itera_status status = itera_tokenizer_new(kind, size, out);
    if (!status)
        status = set_special(*out, 0);
    if (!status)
        status = set_unknown(*out, 1, kind == ITERA_CHAR ? "\xEF\xBF\xBD" : " " ITERA_UNKNOWN);
    if (status)
        itera_tokenizer_destroy(out);
    return status;
}

static enum itera_status train_char(const struct itera_corpus *corpus, struct itera_tokenizer **out)
{
    enum { CODES = 0x110000 };
    unsigned char *seen = calloc(CODES, 1);
    if (!seen)
        return itera_fail(ITERA_ERR_MEMORY, "char tokenizer: no memory");
    int32_t size = 2;
    for (size_t i = 0; i < itera_corpus_documents(corpus); i++) {
        size_t length;
        const char *text = itera_corpus_document(corpus, i, &length);
        while (length > 0) {
            uint32_t code;
            size_t used;
            if (itera_utf8_next(text, length, &code, &used) == ITERA_UTF8_VALID && !seen[code]) {
                seen[code] = 1;
                size++;
            }
            text += used;
            length -= used;
        }
    }
    enum itera_status status = itera_tokenizer_new_listed(ITERA_CHAR, size, out);
    for (uint32_t code = 0; code < CODES && !status; code++) {
        char bytes[4];
        if (seen[code])
            status = itera_tokenizer_set(*out, (*out)->vocab_size, bytes,
                                         itera_utf8_put(code, bytes), 0);
    }
    free(seen);
    if (!status)
        status = itera_tokenizer_finish(*out, "char tokenizer");
    if (status)
        itera_tokenizer_destroy(out);
    return status;
}

struct word {
    const char *text;
    size_t length;
    uint64_t count;
};

static int compare_words(const void *a, const void *b)
{
    const struct word *x = a, *y = b;
    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    size_t length = x->length < y->length ? x->length : y->length;
    int order = memcmp(x->text, y->text, length);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

/* Whether sentence marks are a part of the words before them, as in ordinary text. In text that was
 * tokenized before (WikiText) they stand alone, and words are what white space separates. */
static bool has_attached_punctuation(const struct itera_corpus *corpus)
{
    uint64_t alone = 0, attached = 0;
    for (size_t i = 0; i < itera_corpus_documents(corpus); i++) {
        size_t length;
        const char *text = itera_corpus_document(corpus, i, &length);
        for (size_t at = 1; at < length; at++) {
            bool ends = at + 1 == length || text[at + 1] == ' ' || text[at + 1] == '\n';
            if ((text[at] != '.' && text[at] != ',') || !ends)
                continue;
            if (text[at - 1] == ' ')
                alone++;
            else
                attached++;
        }
    }
    return attached > alone;
}

static enum itera_status count_words(const struct itera_corpus *corpus, bool punctuation,
                                     struct itera_bytemap *counts)
{
    for (size_t i = 0; i < itera_corpus_documents(corpus); i++) {
        size_t length;
        const char *text = itera_corpus_document(corpus, i, &length);
        while (length > 0) {
            size_t used = itera_word_piece(text, length, punctuation);
            uint64_t *count = itera_bytemap_insert(counts, text, used, 0, NULL);
            if (!count)
                return itera_fail(ITERA_ERR_MEMORY, "word tokenizer: no memory to count words");
            ++*count;
            text += used;
            length -= used;
        }
    }
    return ITERA_OK;
}

/* A text's own "<unk>" is the unknown word; what is not UTF-8 could not be written as JSON. */
static bool is_listed(const char *text, size_t length)
{
    size_t space = length > 0 && text[0] == ' ';
    size_t size = sizeof ITERA_UNKNOWN - 1;
    bool unknown = length - space == size && memcmp(text + space, ITERA_UNKNOWN, size) == 0;
    return !unknown && itera_utf8_is_valid(text, length);
}

static enum itera_status train_word(const struct itera_corpus *corpus, int32_t size,
                                    struct itera_tokenizer **out)
{
    struct itera_bytemap counts = {0};
    struct word *words = NULL;
    size_t word_count = 0;
    bool punctuation = has_attached_punctuation(corpus);
    enum itera_status status = count_words(corpus, punctuation, &counts);
    if (!status) {
        words = calloc(counts.count + 1, sizeof *words);
        if (!words)
            status = itera_fail(ITERA_ERR_MEMORY, "word tokenizer: no memory to sort words");
    }
    for (size_t i = 0; i < counts.count && !status; i++) {
        const struct itera_bytemap_entry *entry = &counts.entries[i];
        const char *text = counts.keys + entry->offset;
        if (is_listed(text, entry->length))
            words[word_count++] = (struct word){text, entry->length, entry->value};
    }
    if (word_count)
        qsort(words, word_count, sizeof *words, compare_words);
    if (!status)
        status = itera_tokenizer_new_listed(ITERA_WORD, size, out);
    if (!status)
        (*out)->punctuation = punctuation;
    for (size_t i = 0; i < word_count && !status && (*out)->vocab_size < size; i++)
        status = itera_tokenizer_set(*out, (*out)->vocab_size, words[i].text, words[i].length, 0);
    free(words);
    itera_bytemap_free(&counts);
    if (!status)
        status = itera_tokenizer_finish(*out, "word tokenizer");
    if (status)
        itera_tokenizer_destroy(out);
    return status;
}

/* "NAME:N" with N in [least, ITERA_MAX_VOCAB]: sets *size, to 0 when N is not such a number. False
 * when `spec` is about something else. */
static bool sized_spec(const char *spec, const char *name, int32_t least, int32_t *size)
{
    size_t length = strlen(name);
    if (strncmp(spec, name, length) != 0 || (spec[length] != ':' && spec[length] != 0))
        return false;
    *size = 0;
    int64_t value = 0;
    const char *digit = spec[length] ? spec + length + 1 : spec + length;
    if (!*digit)
        return true;
    for (; *digit; digit++) {
        if (*digit < '0' || *digit > '9')
            return true;
        value = value * 10 + (*digit - '0');
        if (value > ITERA_MAX_VOCAB)
            return true;
    }
    if (value >= least)
        *size = (int32_t)value;
    return true;
}

enum itera_status itera_tokenizer_train(const char *spec, const struct itera_corpus *corpus,
                                        struct itera_tokenizer **out)
{
    *out = NULL;
    if (strcmp(spec, "byte") == 0)
        return itera_tokenizer_new_byte(out);
    bool is_char = strcmp(spec, "char") == 0;
    int32_t size = 0;
    bool word = sized_spec(spec, "word", 3, &size);
    bool bpe = !word && sized_spec(spec, "bpe", 257, &size);
    if ((word || bpe) && size == 0)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "tokenizer \"%s\": give a vocabulary size from %d to %d, as in %s:8000",
                          spec, word ? 3 : 257, (int)ITERA_MAX_VOCAB, word ? "word" : "bpe");
    if (!is_char && !word && !bpe)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "tokenizer \"%s\": not one of byte, char, word:N, bpe:N", spec);
    if (!corpus)
        return itera_fail(ITERA_ERR_ARGUMENT, "tokenizer \"%s\": it needs a corpus", spec);
    enum itera_status status = itera_corpus_check_utf8(corpus);
    if (status)
        return status;
    if (is_char)
        return train_char(corpus, out);
    return word ? train_word(corpus, size, out) : itera_bpe_train(corpus, size, out);
}

enum itera_status itera_tokenizer_create(const char *spec_or_path,
                                         const struct itera_corpus *corpus,
                                         struct itera_tokenizer **out)
{
    int32_t size;
    bool spec = strcmp(spec_or_path, "byte") == 0 || strcmp(spec_or_path, "char") == 0 ||
                sized_spec(spec_or_path, "word", 3, &size) ||
                sized_spec(spec_or_path, "bpe", 257, &size);
    if (spec)
        return itera_tokenizer_train(spec_or_path, corpus, out);
    /* A misspelt kind should not read as a missing file alone. */
    if (!itera_file_exists(spec_or_path) && !itera_is_directory(spec_or_path))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "tokenizer \"%s\": neither byte, char, word:N or bpe:N nor a file or "
                          "folder that exists",
                          spec_or_path);
    return itera_tokenizer_open(spec_or_path, out);
}
