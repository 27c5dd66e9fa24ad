#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretoken.h"

#include <pcre2.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/log.h"
#include "text/utf8.h"

/* GPT-2's expression. White space is Unicode's White_Space property, spelled out because PCRE2's \s
 * also has U+180E. Every position matches, so that it can be anchored.
 * Source: Radford et al. 2019, the encoder published with GPT-2. */
#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}"                               \
    "\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
static const char gpt2_pattern[] = "'(?:[stmd]|re|ve|ll)| ?\\p{L}+| ?\\p{N}+"
                                   "| ?[^" SPACES "\\p{L}\\p{N}]+"
                                   "|[" SPACES "]+(?![^" SPACES "])|[" SPACES "]+";

struct itera_splitter {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    bool anchored;
};

enum itera_status itera_splitter_create(const char *pattern, size_t length, const char *name,
                                        struct itera_splitter **out)
{
    *out = NULL;
    struct itera_splitter *splitter = calloc(1, sizeof *splitter);
    if (!splitter)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for the pre-tokenizer", name);
    splitter->anchored = !pattern;
    uint32_t options = PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C;
    if (pattern)
        options |= PCRE2_UCP;
    else
        options |= PCRE2_ANCHORED;
    int error = 0;
    PCRE2_SIZE at = 0;
    splitter->code =
        pcre2_compile((PCRE2_SPTR)(pattern ? pattern : gpt2_pattern),
                      pattern ? length : sizeof gpt2_pattern - 1, options, &error, &at, NULL);
    if (!splitter->code) {
        PCRE2_UCHAR message[160] = {0};
        pcre2_get_error_message(error, message, sizeof message);
        itera_splitter_destroy(&splitter);
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: the pre-tokenizer's regular expression is wrong at offset %zu: %s",
                          name, (size_t)at, (const char *)message);
    }
    /* Without JIT (not built in, or no executable memory) matching is slower and the same. */
    pcre2_jit_compile(splitter->code, PCRE2_JIT_COMPLETE);
    splitter->match = pcre2_match_data_create_from_pattern(splitter->code, NULL);
    splitter->context = pcre2_match_context_create(NULL);
    if (!splitter->match || !splitter->context) {
        itera_splitter_destroy(&splitter);
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for the pre-tokenizer", name);
    }
    /* An expression from a file may backtrack without end: these bound its time and memory. */
    pcre2_set_match_limit(splitter->context, 1000000);
    pcre2_set_heap_limit(splitter->context, 64 * 1024); /* KiB */
    *out = splitter;
    return ITERA_OK;
}

void itera_splitter_destroy(struct itera_splitter **splitter)
{
    if (!splitter || !*splitter)
        return;
    pcre2_match_context_free((*splitter)->context);
    pcre2_match_data_free((*splitter)->match);
    pcre2_code_free((*splitter)->code);
    free(*splitter);
    *splitter = NULL;
}

/* Pieces of valid UTF-8. */
static enum itera_status split_valid(struct itera_splitter *splitter, const char *text,
                                     size_t length, itera_piece_fn *fn, void *user)
{
    const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(splitter->match);
    size_t done = 0, from = 0;
    while (done < length) {
        int found = PCRE2_ERROR_NOMATCH;
        if (from <= length)
            found = pcre2_match(splitter->code, (PCRE2_SPTR)text, length, from, PCRE2_NO_UTF_CHECK,
                                splitter->match, splitter->context);
        if (found < 0 && found != PCRE2_ERROR_NOMATCH) {
            PCRE2_UCHAR message[160] = {0};
            pcre2_get_error_message(found, message, sizeof message);
            return itera_fail(ITERA_ERR_LIMIT,
                              "pre-tokenizer: the regular expression gave up: %s; use a simpler "
                              "expression or shorter text",
                              (const char *)message);
        }
        size_t start = length, end = length;
        if (found >= 0) {
            start = bounds[0];
            end = bounds[1];
            /* An empty match cuts nothing; go on one code point later. */
            if (end <= start || start < done) {
                from = end > from ? end : from;
                do
                    from++;
                while (from < length && ((unsigned char)text[from] & 0xC0) == 0x80);
                continue;
            }
        }
        enum itera_status status = ITERA_OK;
        if (start > done)
            status = fn(user, text + done, start - done);
        if (!status && end > start)
            status = fn(user, text + start, end - start);
        if (status)
            return status;
        done = from = end;
    }
    return ITERA_OK;
}

enum itera_status itera_split(struct itera_splitter *splitter, const char *text, size_t length,
                              itera_piece_fn *fn, void *user)
{
    while (length > 0) {
        size_t valid = itera_utf8_valid_prefix(text, length);
        enum itera_status status =
            valid ? split_valid(splitter, text, valid, fn, user) : fn(user, text, 1);
        if (status)
            return status;
        text += valid ? valid : 1;
        length -= valid ? valid : 1;
    }
    return ITERA_OK;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_letter(char c)
{
    return (unsigned char)c >= 0x80 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9');
}

size_t itera_word_piece(const char *text, size_t length, bool punctuation)
{
    size_t at = text[0] == ' ' && length > 1 && (text[1] == '\n' || !is_space(text[1]));
    if (is_space(text[at]))
        return at + 1;
    if (!punctuation) {
        while (at < length && !is_space(text[at]))
            at++;
        return at;
    }
    if (!is_letter(text[at])) {
        char same = text[at];
        while (at < length && text[at] == same)
            at++;
        return at;
    }
    while (at < length && (is_letter(text[at]) || ((text[at] == '\'' || text[at] == '-') &&
                                                   at + 1 < length && is_letter(text[at + 1]))))
        at++;
    return at;
}
