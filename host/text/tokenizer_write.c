/* Writing a tokenizer as JSON. A bpe one has exactly the keys of Hugging Face's tokenizer.json,
 * whose reader refuses others; char, word and byte are ours alone, under the key "itera". */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "format/json.h"
#include "text/byte_letters.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

static enum itera_status no_memory(void)
{
    return itera_fail(ITERA_ERR_MEMORY, "tokenizer: no memory to write it as JSON");
}

/* A token's name as vocabularies have it, to be freed. */
static char *token_name(const struct itera_tokenizer *tokenizer, int32_t id)
{
    const struct itera_token *token = &tokenizer->tokens[id];
    const char *bytes = tokenizer->pool + token->offset;
    char *name = malloc(2 * (size_t)token->length + 5);
    size_t length = 0;
    if (!name)
        return NULL;
    if (token->flags & ITERA_TOKEN_RAW) {
        memcpy(name, bytes, token->length);
        length = token->length;
    } else {
        for (size_t i = 0; i < token->length; i++)
            length += itera_utf8_put(itera_byte_letter((unsigned char)bytes[i]), name + length);
    }
    name[length] = 0;
    return name;
}

static json_t *write_vocab(const struct itera_tokenizer *tokenizer, bool *spaces)
{
    json_t *vocab = json_object();
    for (int32_t id = 0; id < tokenizer->vocab_size && vocab; id++) {
        if (!(tokenizer->tokens[id].flags & ITERA_TOKEN_MODEL))
            continue;
        char *name = token_name(tokenizer, id);
        if (name && strchr(name, ' '))
            *spaces = true;
        if (!name || json_object_set_new(vocab, name, json_integer(id)) != 0) {
            json_decref(vocab);
            vocab = NULL;
        }
        free(name);
    }
    return vocab;
}

/* As "a b", or as ["a", "b"] when names have spaces. */
static json_t *write_merges(const struct itera_tokenizer *tokenizer, bool pairs)
{
    const struct itera_bpe *bpe = tokenizer->bpe;
    json_t *merges = json_array();
    for (size_t i = 0; i < bpe->merge_count && merges; i++) {
        char *left = token_name(tokenizer, bpe->merges[i].left);
        char *right = token_name(tokenizer, bpe->merges[i].right);
        json_t *entry = NULL;
        if (left && right)
            entry = pairs ? json_pack("[ss]", left, right) : json_pack("s++", left, " ", right);
        if (!entry || json_array_append_new(merges, entry) != 0) {
            json_decref(merges);
            merges = NULL;
        }
        free(left);
        free(right);
    }
    return merges;
}

static json_t *write_added(const struct itera_tokenizer *tokenizer)
{
    json_t *added = json_array();
    for (int32_t id = 0; id < tokenizer->vocab_size && added; id++) {
        const struct itera_token *token = &tokenizer->tokens[id];
        if (!(token->flags & ITERA_TOKEN_ADDED))
            continue;
        unsigned flags = token->flags;
        json_t *entry = json_pack(
            "{s:i, s:s%, s:b, s:b, s:b, s:b, s:b}", "id", (int)id, "content",
            tokenizer->pool + token->offset, (size_t)token->length, "single_word",
            (flags & ITERA_TOKEN_SINGLE_WORD) != 0, "lstrip", (flags & ITERA_TOKEN_LSTRIP) != 0,
            "rstrip", (flags & ITERA_TOKEN_RSTRIP) != 0, "normalized",
            (flags & ITERA_TOKEN_NORMALIZED) != 0, "special", (flags & ITERA_TOKEN_SPECIAL) != 0);
        if (!entry || json_array_append_new(added, entry) != 0) {
            json_decref(added);
            added = NULL;
        }
    }
    return added;
}

static json_t *write_byte_level(bool add_prefix_space, bool use_regex)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space",
                     (int)add_prefix_space, "trim_offsets", 1, "use_regex", (int)use_regex);
}

/* A part as it was read, or what stands for one that a tokenizer made here does not have. */
static json_t *write_part(const struct itera_bpe *bpe, enum itera_bpe_part part)
{
    if (bpe->parts[part])
        return itera_json_read(bpe->parts[part], strlen(bpe->parts[part]),
                               JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (part == ITERA_PRE_TOKENIZER)
        return write_byte_level(false, true);
    return part == ITERA_DECODER ? write_byte_level(true, true) : json_null();
}

static json_t *write_bpe(const struct itera_tokenizer *tokenizer)
{
    const struct itera_bpe *bpe = tokenizer->bpe;
    bool spaces = false;
    json_t *unknown = json_null();
    if (tokenizer->unknown >= 0) {
        char *name = token_name(tokenizer, tokenizer->unknown);
        unknown = name ? json_string(name) : NULL;
        free(name);
    }
    json_t *vocab = write_vocab(tokenizer, &spaces);
    json_t *merges = write_merges(tokenizer, spaces);
    /* json_pack takes over what "o" names, and fails when one of them is NULL. */
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o,"
                     " s:{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:o, s:o}}",
                     "version", "1.0", "truncation", "padding", "added_tokens",
                     write_added(tokenizer), "normalizer", write_part(bpe, ITERA_NORMALIZER),
                     "pre_tokenizer", write_part(bpe, ITERA_PRE_TOKENIZER), "post_processor",
                     write_part(bpe, ITERA_POST_PROCESSOR), "decoder",
                     write_part(bpe, ITERA_DECODER), "model", "type", "BPE", "dropout", "unk_token",
                     unknown, "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                     (int)bpe->fuse_unknown, "byte_fallback", 0, "ignore_merges",
                     (int)bpe->ignore_merges, "vocab", vocab, "merges", merges);
}

static json_t *write_own(const struct itera_tokenizer *tokenizer)
{
    json_t *own = json_pack("{s:i, s:s}", "version", 1, "kind", itera_tokenizer_kind(tokenizer));
    if (own && tokenizer->kind == ITERA_WORD)
        json_object_set_new(own, "split",
                            json_string(tokenizer->punctuation ? "punctuation" : "whitespace"));
    if (own && tokenizer->kind != ITERA_BYTE) {
        json_t *tokens = json_pack("[ss]", ITERA_END_OF_TEXT, ITERA_UNKNOWN);
        bool failed = !tokens;
        for (int32_t id = 2; id < tokenizer->vocab_size && !failed; id++) {
            const struct itera_token *token = &tokenizer->tokens[id];
            failed = json_array_append_new(
                         tokens, json_stringn(tokenizer->pool + token->offset, token->length)) != 0;
        }
        failed |= json_object_set(own, "tokens", tokens) != 0;
        json_decref(tokens);
        if (failed) {
            json_decref(own);
            return NULL;
        }
    }
    return json_pack("{s:o}", "itera", own);
}

enum itera_status itera_tokenizer_to_json(const struct itera_tokenizer *tokenizer, char **json)
{
    *json = NULL;
    json_t *root = tokenizer->kind == ITERA_BPE ? write_bpe(tokenizer) : write_own(tokenizer);
    if (!root)
        return no_memory();
    *json = itera_json_write(root, JSON_COMPACT);
    json_decref(root);
    return *json ? ITERA_OK : no_memory();
}
