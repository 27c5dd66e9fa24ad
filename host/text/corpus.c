/* Corpora: where the text comes from and where its documents are. */
#include "itera/corpus.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "text/corpus_part.h"
#include "text/stories.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

static const char separator[] = ITERA_END_OF_TEXT;
enum { SEPARATOR_BYTES = sizeof separator - 1 };

struct document {
    const char *text;
    size_t length;
};

/* A block of text that the corpus owns: a mapped file, or memory. */
struct block {
    struct itera_map map;
    char *memory;
    char *name;
    const char *text; /* all of it, before it was cut into documents */
    size_t length;
};

struct itera_corpus {
    struct block *blocks;
    size_t block_count, block_capacity;
    struct document *documents;
    size_t document_count, document_capacity;
};

static enum itera_status no_memory(const char *name)
{
    return itera_fail(ITERA_ERR_MEMORY, "corpus %s: no memory", name);
}

static enum itera_status add_document(struct itera_corpus *corpus, const char *text, size_t length,
                                      const char *name)
{
    size_t spaces = 0;
    while (spaces < length && itera_is_space(text[spaces]))
        spaces++;
    if (spaces == length)
        return ITERA_OK;
    if (corpus->document_count == corpus->document_capacity) {
        size_t capacity = corpus->document_capacity ? corpus->document_capacity * 2 : 64;
        void *documents = realloc(corpus->documents, capacity * sizeof *corpus->documents);
        if (!documents)
            return no_memory(name);
        corpus->documents = documents;
        corpus->document_capacity = capacity;
    }
    corpus->documents[corpus->document_count++] = (struct document){text, length};
    return ITERA_OK;
}

/* Cuts one file's text into documents. */
static enum itera_status add_text(struct itera_corpus *corpus, const char *text, size_t length,
                                  const char *name)
{
    if (length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
        text += 3;
        length -= 3;
    }
    bool after_separator = false;
    while (length > 0) {
        const char *found = memmem(text, length, separator, SEPARATOR_BYTES);
        const char *start = text, *end = found ? found : text + length;
        if (after_separator) {
            start += end - start >= 2 && start[0] == '\r' && start[1] == '\n';
            start += end - start >= 1 && start[0] == '\n';
        }
        if (found) {
            bool newline = end - start >= 1 && end[-1] == '\n';
            end -= newline;
            end -= newline && end - start >= 1 && end[-1] == '\r';
        }
        enum itera_status status = add_document(corpus, start, (size_t)(end - start), name);
        if (status || !found)
            return status;
        after_separator = true;
        length -= (size_t)(found - text) + SEPARATOR_BYTES;
        text = found + SEPARATOR_BYTES;
    }
    return ITERA_OK;
}

static enum itera_status new_block(struct itera_corpus *corpus, const char *name,
                                   struct block **out)
{
    if (corpus->block_count == corpus->block_capacity) {
        size_t capacity = corpus->block_capacity ? corpus->block_capacity * 2 : 8;
        void *blocks = realloc(corpus->blocks, capacity * sizeof *corpus->blocks);
        if (!blocks)
            return no_memory(name);
        corpus->blocks = blocks;
        corpus->block_capacity = capacity;
    }
    *out = &corpus->blocks[corpus->block_count];
    **out = (struct block){.name = strdup(name)};
    return (*out)->name ? ITERA_OK : no_memory(name);
}

/* Takes over a block that new_block began, and cuts its text. */
static enum itera_status finish_block(struct itera_corpus *corpus, struct block *block,
                                      const char *text, size_t length)
{
    corpus->block_count++;
    block->text = text;
    block->length = length;
    return add_text(corpus, text, length, block->name);
}

static enum itera_status add_file(struct itera_corpus *corpus, const char *path)
{
    struct block *block = NULL;
    enum itera_status status = new_block(corpus, path, &block);
    if (status)
        return status;
    status = itera_map_open(path, &block->map);
    if (status) {
        free(block->name);
        return status;
    }
    status = finish_block(corpus, block, (const char *)block->map.data, block->map.size);
    return status ? status : itera_map_check(&block->map);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The *.txt files of a folder, sorted; each name and the array are the caller's. */
static enum itera_status list_texts(const char *path, char ***out, size_t *out_count)
{
    char **names = NULL;
    size_t count = 0, capacity = 0;
    enum itera_status status = ITERA_OK;
    DIR *directory = opendir(path);
    if (!directory)
        return itera_fail(ITERA_ERR_IO, "corpus %s: cannot list the folder: %s", path,
                          strerror(errno));
    for (struct dirent *entry; !status && (entry = readdir(directory));) {
        size_t length = strlen(entry->d_name);
        if (length < 5 || strcmp(entry->d_name + length - 4, ".txt") != 0)
            continue;
        if (count == capacity) {
            size_t wanted = capacity ? capacity * 2 : 16;
            void *moved = realloc(names, wanted * sizeof *names);
            if (!moved) {
                status = no_memory(path);
                break;
            }
            names = moved;
            capacity = wanted;
        }
        names[count] = strdup(entry->d_name);
        if (names[count])
            count++;
        else
            status = no_memory(path);
    }
    closedir(directory);
    if (count)
        qsort(names, count, sizeof *names, compare_names);
    *out = names;
    *out_count = count;
    return status;
}

static enum itera_status add_directory(struct itera_corpus *corpus, const char *path)
{
    char **names = NULL;
    size_t count = 0;
    enum itera_status status = list_texts(path, &names, &count);
    if (!status && count == 0)
        status = itera_fail(ITERA_ERR_IO, "corpus %s: no *.txt file in this folder", path);
    for (size_t i = 0; i < count && !status; i++) {
        char file[4096];
        status = itera_path_join(file, sizeof file, path, names[i]);
        if (!status && !itera_is_directory(file))
            status = add_file(corpus, file);
    }
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
    return status;
}

struct builtin {
    bool held_out;
    uint64_t seed, bytes;
};

static bool read_number(const char *text, uint64_t *value)
{
    *value = 0;
    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || *value > (UINT64_MAX - 9) / 10)
            return false;
        *value = *value * 10 + (uint64_t)(*text - '0');
    }
    return true;
}

static enum itera_status read_builtin(const char *source, struct builtin *builtin)
{
    static const char name[] = "builtin:stories";
    static const uint64_t most = (uint64_t)1 << 32;
    char options[256];
    *builtin = (struct builtin){.seed = 1};
    size_t length = sizeof name - 1;
    bool good = strncmp(source, name, length) == 0 && (!source[length] || source[length] == '?') &&
                strlen(source) - length < sizeof options;
    if (good && source[length]) {
        strcpy(options, source + length + 1);
        char *rest = options;
        for (char *option; good && (option = strsep(&rest, "&"));) {
            if (strcmp(option, "valid") == 0)
                builtin->held_out = true;
            else if (strncmp(option, "seed=", 5) == 0)
                good = read_number(option + 5, &builtin->seed);
            else if (strncmp(option, "bytes=", 6) == 0)
                good = read_number(option + 6, &builtin->bytes) && builtin->bytes > 0 &&
                       builtin->bytes <= most;
            else
                good = false;
        }
    }
    if (!good)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "corpus \"%s\": builtin corpora are builtin:stories, with "
                          "?valid, ?seed=N, ?bytes=N (1 to 4294967296) joined by &",
                          source);
    if (builtin->bytes == 0)
        builtin->bytes = builtin->held_out ? 200000 : 2000000;
    return ITERA_OK;
}

static enum itera_status add_builtin(struct itera_corpus *corpus, const char *source)
{
    struct builtin builtin;
    struct block *block = NULL;
    struct itera_story_text text = {0};
    enum itera_status status = read_builtin(source, &builtin);
    if (!status)
        status = new_block(corpus, source, &block);
    if (status)
        return status;
    for (uint64_t index = 0; text.length < builtin.bytes && !status; index++) {
        status = itera_story_append(builtin.seed, builtin.held_out, index, &text);
        if (!status && text.length + SEPARATOR_BYTES + 2 > text.capacity) {
            size_t capacity = text.capacity * 2 + SEPARATOR_BYTES + 2;
            char *data = realloc(text.data, capacity);
            if (!data) {
                status = no_memory(source);
                break;
            }
            text.data = data;
            text.capacity = capacity;
        }
        if (!status) {
            memcpy(text.data + text.length, "\n" ITERA_END_OF_TEXT "\n", SEPARATOR_BYTES + 2);
            text.length += SEPARATOR_BYTES + 2;
        }
    }
    block->memory = text.data;
    enum itera_status added = finish_block(corpus, block, text.data, status ? 0 : text.length);
    return status ? status : added;
}

enum { SHARE = ITERA_CORPUS_SHARE };

/* Leaves one part of the documents from `first` on. */
static enum itera_status keep_part(struct itera_corpus *corpus, size_t first,
                                   enum itera_corpus_part part, const char *name)
{
    const size_t n = corpus->document_count - first;
    enum itera_status status = ITERA_OK;
    corpus->document_count = first; /* they are added again, which no document overtakes */
    for (size_t i = 0; i < n && !status; i++) {
        const struct document document = corpus->documents[first + i];
        const bool valid = part == ITERA_CORPUS_VALID;
        const size_t cut = n >= 2 * SHARE ? (i % SHARE == SHARE - 1 ? 0 : document.length)
                                          : itera_corpus_tail(document.text, document.length);
        status = valid ? add_document(corpus, document.text + cut, document.length - cut, name)
                       : add_document(corpus, document.text, cut, name);
    }
    return status;
}

static enum itera_status add_path(struct itera_corpus *corpus, const char *path)
{
    return itera_is_directory(path) ? add_directory(corpus, path) : add_file(corpus, path);
}

static enum itera_status add_source(struct itera_corpus *corpus, const char *source)
{
    size_t length;
    const size_t first = corpus->document_count;
    if (itera_corpus_is_builtin(source))
        return add_builtin(corpus, source);
    const enum itera_corpus_part part = itera_corpus_part_of(source, &length);
    if (part == ITERA_CORPUS_ALL)
        return add_path(corpus, source);
    char *path = strndup(source, length);
    enum itera_status status = path ? add_path(corpus, path) : no_memory(source);
    free(path);
    return status ? status : keep_part(corpus, first, part, source);
}

static enum itera_status finish(struct itera_corpus *corpus, enum itera_status status,
                                const char *name, struct itera_corpus **out)
{
    if (!status && corpus->document_count == 0)
        status =
            itera_fail(ITERA_ERR_FORMAT,
                       "corpus %s: there is no text in it (nothing, or white space alone)", name);
    if (status)
        itera_corpus_destroy(&corpus);
    *out = corpus;
    return status;
}

enum itera_status itera_corpus_open(const char *source, struct itera_corpus **out)
{
    *out = NULL;
    if (!source || !*source)
        return itera_fail(ITERA_ERR_ARGUMENT, "corpus: give a file, a folder, or builtin:stories");
    struct itera_corpus *corpus = calloc(1, sizeof *corpus);
    if (!corpus)
        return no_memory(source);
    if (itera_corpus_is_single(source))
        return finish(corpus, add_source(corpus, source), source, out);
    char *list = strdup(source), *rest = list;
    enum itera_status status = list ? ITERA_OK : no_memory(source);
    for (char *part; !status && (part = strsep(&rest, ","));)
        if (*part)
            status = add_source(corpus, part);
    free(list);
    return finish(corpus, status, source, out);
}

enum itera_status itera_corpus_from_text(const char *text, size_t length, const char *name,
                                         struct itera_corpus **out)
{
    *out = NULL;
    struct itera_corpus *corpus = calloc(1, sizeof *corpus);
    if (!corpus)
        return no_memory(name);
    struct block *block = NULL;
    enum itera_status status = new_block(corpus, name, &block);
    if (!status) {
        block->memory = malloc(length + 1);
        if (block->memory && length)
            memcpy(block->memory, text, length);
        bool failed = !block->memory;
        status = finish_block(corpus, block, block->memory, failed ? 0 : length);
        if (failed)
            status = no_memory(name);
    }
    return finish(corpus, status, name, out);
}

void itera_corpus_destroy(struct itera_corpus **corpus)
{
    if (!corpus || !*corpus)
        return;
    for (size_t i = 0; i < (*corpus)->block_count; i++) {
        itera_map_close(&(*corpus)->blocks[i].map);
        free((*corpus)->blocks[i].memory);
        free((*corpus)->blocks[i].name);
    }
    free((*corpus)->blocks);
    free((*corpus)->documents);
    free(*corpus);
    *corpus = NULL;
}

/* Length of the valid UTF-8 that text starts with. */
static size_t valid_prefix(const char *text, size_t length)
{
    size_t at = 0;
    while (at < length) {
        uint64_t word;
        if (length - at >= sizeof word) {
            memcpy(&word, text + at, sizeof word);
            if (!(word & UINT64_C(0x8080808080808080))) {
                at += sizeof word;
                continue;
            }
        }
        uint32_t code;
        size_t used;
        if (itera_utf8_next(text + at, length - at, &code, &used) != ITERA_UTF8_VALID)
            break;
        at += used;
    }
    return at;
}

enum itera_status itera_corpus_check_utf8(const struct itera_corpus *corpus)
{
    for (size_t i = 0; i < corpus->block_count; i++) {
        const struct block *block = &corpus->blocks[i];
        size_t valid = valid_prefix(block->text, block->length), lines = 1;
        if (valid == block->length)
            continue;
        /* A text that was cut to a number of bytes may end within a character. */
        uint32_t code;
        size_t used;
        if (itera_utf8_next(block->text + valid, block->length - valid, &code, &used) ==
            ITERA_UTF8_INCOMPLETE)
            continue;
        for (size_t at = 0; at < valid; at++)
            lines += block->text[at] == '\n';
        return itera_fail(ITERA_ERR_FORMAT,
                          "corpus %s: byte 0x%02x at offset %zu (line %zu) is not UTF-8; convert "
                          "the text (iconv), or use the byte tokenizer, which takes any bytes",
                          block->name, (unsigned char)block->text[valid], valid, lines);
    }
    return ITERA_OK;
}

size_t itera_corpus_documents(const struct itera_corpus *corpus)
{
    return corpus->document_count;
}

const char *itera_corpus_document(const struct itera_corpus *corpus, size_t index, size_t *length)
{
    *length = 0;
    if (index >= corpus->document_count)
        return NULL;
    *length = corpus->documents[index].length;
    return corpus->documents[index].text;
}

uint64_t itera_corpus_bytes(const struct itera_corpus *corpus)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < corpus->document_count; i++)
        bytes += corpus->documents[i].length;
    return bytes;
}

uint64_t itera_corpus_words(const struct itera_corpus *corpus)
{
    uint64_t words = 0;
    for (size_t i = 0; i < corpus->document_count; i++) {
        const struct document *document = &corpus->documents[i];
        bool inside = false;
        for (size_t at = 0; at < document->length; at++) {
            bool space = itera_is_space(document->text[at]);
            words += (!space && !inside) + (document->text[at] == '\n');
            inside = !space;
        }
    }
    return words;
}
