/* The tokenizer itself: its table of tokens, encoding, decoding. */
#include "text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "text/utf8.h"

void itera_tokens_free(struct itera_tokens *tokens)
{
    free(tokens->ids);
    *tokens = (struct itera_tokens){0};
}

enum itera_status itera_tokens_append(struct itera_tokens *tokens, int32_t id)
{
    if (tokens->count == tokens->capacity) {
        size_t capacity = tokens->capacity ? tokens->capacity * 2 : 256;
        int32_t *ids = NULL;
        if (capacity <= SIZE_MAX / sizeof *ids)
            ids = realloc(tokens->ids, capacity * sizeof *ids);
        if (!ids)
            return itera_fail(ITERA_ERR_MEMORY, "encode: no memory for %zu token ids", capacity);
        tokens->ids = ids;
        tokens->capacity = capacity;
    }
    tokens->ids[tokens->count++] = id;
    return ITERA_OK;
}

enum itera_status itera_tokenizer_new(enum itera_tokenizer_kind kind, int32_t capacity,
                                      struct itera_tokenizer **out)
{
    *out = NULL;
    struct itera_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (tokenizer)
        tokenizer->tokens = calloc((size_t)capacity + 1, sizeof *tokenizer->tokens);
    if (!tokenizer || !tokenizer->tokens) {
        free(tokenizer);
        return itera_fail(ITERA_ERR_MEMORY, "tokenizer: no memory for %d tokens", (int)capacity);
    }
    tokenizer->kind = kind;
    tokenizer->capacity = capacity;
    tokenizer->end_of_text = tokenizer->unknown = -1;
    if (kind == ITERA_BPE) {
        enum itera_status status = itera_bpe_create(&tokenizer->bpe);
        if (status) {
            itera_tokenizer_destroy(&tokenizer);
            return status;
        }
    }
    *out = tokenizer;
    return ITERA_OK;
}

void itera_tokenizer_destroy(struct itera_tokenizer **tokenizer)
{
    if (!tokenizer || !*tokenizer)
        return;
    struct itera_tokenizer *t = *tokenizer;
    itera_bpe_destroy(&t->bpe);
    itera_bytemap_free(&t->lookup);
    itera_added_free(&t->added);
    itera_added_free(&t->normalized);
    free(t->tokens);
    free(t->pool);
    free(t);
    *tokenizer = NULL;
}

enum itera_status itera_tokenizer_set(struct itera_tokenizer *tokenizer, int32_t id,
                                      const char *bytes, size_t length, unsigned flags)
{
    struct itera_token *token = &tokenizer->tokens[id];
    if (length > UINT32_MAX)
        return itera_fail(ITERA_ERR_LIMIT, "tokenizer: token %d is too long", (int)id);
    if (!tokenizer->pool || tokenizer->pool_size + length > tokenizer->pool_capacity) {
        size_t capacity = 2 * tokenizer->pool_capacity + length + 1024;
        char *pool = realloc(tokenizer->pool, capacity);
        if (!pool)
            return itera_fail(ITERA_ERR_MEMORY, "tokenizer: no memory for token texts");
        tokenizer->pool = pool;
        tokenizer->pool_capacity = capacity;
    }
    if (length)
        memcpy(tokenizer->pool + tokenizer->pool_size, bytes, length);
    *token = (struct itera_token){tokenizer->pool_size, (uint32_t)length,
                                  (uint16_t)(flags | ITERA_TOKEN_SET)};
    tokenizer->pool_size += length;
    if (id >= tokenizer->vocab_size)
        tokenizer->vocab_size = id + 1;
    bool indexed = tokenizer->kind == ITERA_BPE
                       ? (flags & (ITERA_TOKEN_MODEL | ITERA_TOKEN_RAW)) == ITERA_TOKEN_MODEL
                       : !(flags & ITERA_TOKEN_SPECIAL) && id != tokenizer->unknown;
    if (indexed && !itera_bytemap_insert(&tokenizer->lookup, bytes, length, (uint64_t)id, NULL))
        return itera_fail(ITERA_ERR_MEMORY, "tokenizer: no memory to index its tokens");
    return ITERA_OK;
}

/* What is looked for in normalized text is normalized itself. */
static enum itera_status index_added(struct itera_tokenizer *tokenizer, int32_t id,
                                     const char *name)
{
    static const struct {
        unsigned token, added;
    } flags[] = {{ITERA_TOKEN_SPECIAL, ITERA_ADDED_SPECIAL},
                 {ITERA_TOKEN_LSTRIP, ITERA_ADDED_LSTRIP},
                 {ITERA_TOKEN_RSTRIP, ITERA_ADDED_RSTRIP},
                 {ITERA_TOKEN_SINGLE_WORD, ITERA_ADDED_SINGLE_WORD}};
    const struct itera_token *token = &tokenizer->tokens[id];
    const char *text = tokenizer->pool + token->offset;
    size_t length = token->length;
    bool normalized = token->flags & ITERA_TOKEN_NORMALIZED && tokenizer->bpe;
    unsigned added = 0;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        added |= token->flags & flags[i].token ? flags[i].added : 0;
    if (normalized && tokenizer->bpe->normalizer) {
        struct itera_budget budget = itera_budget_of(length);
        enum itera_status status =
            itera_normalize(tokenizer->bpe->normalizer, text, length, &budget, &text, &length);
        if (status)
            return status;
    }
    if (length == 0)
        return itera_fail(ITERA_ERR_UNSUPPORTED,
                          "%s: added token %d has no text, at least when it is normalized", name,
                          (int)id);
    return itera_added_insert(normalized ? &tokenizer->normalized : &tokenizer->added, text, length,
                              id, added);
}

enum itera_status itera_tokenizer_finish(struct itera_tokenizer *tokenizer, const char *name)
{
    enum itera_status status = ITERA_OK;
    if (tokenizer->bpe)
        status = itera_bpe_compile(tokenizer, name);
    /* Where two are the same once normalized, the special one counts. */
    for (int special = 1; special >= 0; special--) {
        for (int32_t id = 0; id < tokenizer->vocab_size && !status; id++) {
            unsigned flags = tokenizer->tokens[id].flags;
            if (flags & ITERA_TOKEN_ADDED && !(flags & ITERA_TOKEN_SPECIAL) == !special)
                status = index_added(tokenizer, id, name);
        }
    }
    itera_added_finish(&tokenizer->added);
    itera_added_finish(&tokenizer->normalized);
    return status || !tokenizer->bpe ? status : itera_bpe_index(tokenizer, name);
}

int32_t itera_tokenizer_find_added(const struct itera_tokenizer *tokenizer, const char *text,
                                   size_t length)
{
    for (int32_t id = 0; id < tokenizer->vocab_size; id++) {
        const struct itera_token *token = &tokenizer->tokens[id];
        if (token->flags & ITERA_TOKEN_ADDED && token->length == length &&
            !memcmp(tokenizer->pool + token->offset, text, length))
            return id;
    }
    return -1;
}

const char *itera_tokenizer_kind(const struct itera_tokenizer *tokenizer)
{
    static const char *const names[] = {"byte", "char", "word", "bpe"};
    return names[tokenizer->kind];
}

int32_t itera_tokenizer_vocab_size(const struct itera_tokenizer *tokenizer)
{
    return tokenizer->vocab_size;
}

int32_t itera_tokenizer_end_of_text(const struct itera_tokenizer *tokenizer)
{
    return tokenizer->end_of_text;
}

bool itera_tokenizer_is_end(const struct itera_tokenizer *tokenizer, int32_t id)
{
    bool is = id >= 0 && id == tokenizer->end_of_text;
    for (int i = 0; i < tokenizer->n_ends; i++)
        is |= id == tokenizer->ends[i];
    return is;
}

void itera_tokenizer_set_ends(struct itera_tokenizer *tokenizer, const int32_t *ids, int n)
{
    const bool own = tokenizer->end_of_text >= 0;
    tokenizer->n_ends = 0;
    for (int i = 0; i < n && tokenizer->n_ends < ITERA_MAX_ENDS; i++) {
        const int32_t id = ids[i];
        if (id < 0 || id >= tokenizer->vocab_size ||
            (own && !(tokenizer->tokens[id].flags & (ITERA_TOKEN_SPECIAL | ITERA_TOKEN_ADDED))))
            continue;
        if (!tokenizer->n_ends)
            tokenizer->end_of_text = id;
        tokenizer->ends[tokenizer->n_ends++] = id;
    }
}

int32_t itera_tokenizer_unknown(const struct itera_tokenizer *tokenizer)
{
    return tokenizer->unknown;
}

bool itera_tokenizer_is_special(const struct itera_tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->vocab_size &&
           tokenizer->tokens[id].flags & ITERA_TOKEN_SPECIAL;
}

static enum itera_status encode_chars(const struct itera_tokenizer *tokenizer, const char *text,
                                      size_t length, struct itera_tokens *tokens)
{
    while (length > 0) {
        uint32_t code;
        size_t used;
        const uint64_t *id = NULL;
        if (itera_utf8_next(text, length, &code, &used) == ITERA_UTF8_VALID)
            id = itera_bytemap_find(&tokenizer->lookup, text, used);
        enum itera_status status =
            itera_tokens_append(tokens, id ? (int32_t)*id : tokenizer->unknown);
        if (status)
            return status;
        text += used;
        length -= used;
    }
    return ITERA_OK;
}

static enum itera_status encode_words(const struct itera_tokenizer *tokenizer, const char *text,
                                      size_t length, struct itera_tokens *tokens)
{
    while (length > 0) {
        size_t used = itera_word_piece(text, length, tokenizer->punctuation);
        const uint64_t *id = itera_bytemap_find(&tokenizer->lookup, text, used);
        enum itera_status status =
            itera_tokens_append(tokens, id ? (int32_t)*id : tokenizer->unknown);
        if (status)
            return status;
        text += used;
        length -= used;
    }
    return ITERA_OK;
}

struct encoding {
    const struct itera_tokenizer *tokenizer;
    struct itera_tokens *tokens;
};

/* An added token, or text between them, of byte, char and word tokenizers. */
static enum itera_status encode_part(void *user, const char *text, size_t length, int32_t id)
{
    const struct encoding *e = user;
    enum itera_status status = ITERA_OK;
    if (id >= 0)
        return itera_tokens_append(e->tokens, id);
    if (e->tokenizer->kind == ITERA_CHAR)
        return encode_chars(e->tokenizer, text, length, e->tokens);
    if (e->tokenizer->kind == ITERA_WORD)
        return encode_words(e->tokenizer, text, length, e->tokens);
    for (size_t i = 0; i < length && !status; i++)
        status = itera_tokens_append(e->tokens, (unsigned char)text[i]);
    return status;
}

enum itera_status itera_tokenizer_encode(const struct itera_tokenizer *tokenizer, const char *text,
                                         size_t length, unsigned flags, struct itera_tokens *tokens)
{
    struct encoding encoding = {tokenizer, tokens};
    struct itera_budget budget = itera_budget_of(length);
    size_t before = tokens->count;
    bool special = flags & ITERA_TEXT_SPECIAL;
    enum itera_status status =
        tokenizer->bpe ? itera_bpe_encode(tokenizer, text, length, special, &budget, tokens)
                       : itera_added_split(&tokenizer->added, text, length, special, &budget,
                                           encode_part, &encoding);
    if (status)
        tokens->count = before;
    return status;
}

enum itera_status itera_tokenizer_decode(const struct itera_tokenizer *tokenizer, int32_t id,
                                         unsigned flags, const char **bytes, size_t *length)
{
    *bytes = NULL;
    *length = 0;
    if (id < 0 || id >= tokenizer->vocab_size)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "decode: there is no token %d; this tokenizer has 0 to %d", (int)id,
                          (int)tokenizer->vocab_size - 1);
    const struct itera_token *token = &tokenizer->tokens[id];
    *bytes = tokenizer->pool + token->offset;
    if (!(token->flags & ITERA_TOKEN_SPECIAL) || flags & ITERA_TEXT_SPECIAL)
        *length = token->length;
    return ITERA_OK;
}

enum itera_status itera_tokenizer_decode_all(const struct itera_tokenizer *tokenizer,
                                             const int32_t *ids, size_t count, unsigned flags,
                                             char **text, size_t *length)
{
    *text = NULL;
    if (length)
        *length = 0;
    size_t total = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass) {
            *text = malloc(total + 1);
            if (!*text)
                return itera_fail(ITERA_ERR_MEMORY, "decode: no memory for %zu bytes", total);
            total = 0;
        }
        for (size_t i = 0; i < count; i++) {
            const char *bytes;
            size_t size;
            enum itera_status status =
                itera_tokenizer_decode(tokenizer, ids[i], flags, &bytes, &size);
            if (status)
                return status; /* only ever in the first pass */
            if (pass && size)
                memcpy(*text + total, bytes, size);
            if (size > SIZE_MAX / 2 - total)
                return itera_fail(ITERA_ERR_LIMIT, "decode: %zu tokens are too much text", count);
            total += size;
        }
    }
    (*text)[total] = 0;
    if (length)
        *length = total;
    return ITERA_OK;
}
