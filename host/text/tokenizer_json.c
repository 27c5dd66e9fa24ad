/* Reading tokenizers: ours, Hugging Face's tokenizer.json, GPT-2's vocab.json with merges.txt.
 * Files are not trusted: every type, id, name and merge is checked before it is used. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "format/json.h"
#include "text/byte_letters.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

enum {
    LONGEST_TOKEN = 1 << 16 /* bytes */
};

struct excerpt {
    char text[64];
};

/* The start of a string from a file, fit for a message: whole characters, none of control. */
static struct excerpt quote(const char *string)
{
    struct excerpt excerpt = {{0}};
    size_t length = string ? strlen(string) : 0, at = 0, out = 0;
    while (at < length && out < sizeof excerpt.text - 8) {
        uint32_t code;
        size_t used;
        enum itera_utf8 state = itera_utf8_next(string + at, length - at, &code, &used);
        if (state != ITERA_UTF8_VALID || code < 0x20 || (code >= 0x7F && code < 0xA0))
            excerpt.text[out++] = '?';
        else
            out += itera_utf8_put(code, excerpt.text + out);
        at += used;
    }
    if (at < length)
        memcpy(excerpt.text + out, "...", 4);
    return excerpt;
}

static enum itera_status parse_json(const char *json, size_t length, const char *name,
                                    json_t **root)
{
    *root = NULL;
    if (length > ITERA_MAX_TOKENIZER_FILE)
        return itera_fail(ITERA_ERR_LIMIT, "%s: %zu bytes of tokenizer JSON; %d are the limit",
                          name, length, (int)ITERA_MAX_TOKENIZER_FILE);
    enum itera_status status = itera_json_check_size(json ? json : "", length, name);
    if (status)
        return status;
    json_error_t error;
    *root =
        itera_json_read(json ? json : "", length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!*root)
        return itera_fail(ITERA_ERR_FORMAT, "%s: not JSON: line %d column %d: %s", name, error.line,
                          error.column, quote(error.text).text);
    if (!json_is_object(*root)) {
        json_decref(*root);
        *root = NULL;
        return itera_fail(ITERA_ERR_FORMAT, "%s: the JSON is not an object", name);
    }
    return ITERA_OK;
}

/* The bytes of a token of the model: its name's letters as bytes or, when it has other characters,
 * the name itself. `bytes` has room for the name. */
static size_t token_bytes(const char *token, size_t length, char *bytes, bool *raw)
{
    size_t at = 0, count = 0;
    *raw = false;
    while (at < length) {
        uint32_t code;
        size_t used;
        int byte = -1;
        if (itera_utf8_next(token + at, length - at, &code, &used) == ITERA_UTF8_VALID)
            byte = itera_letter_byte(code);
        if (byte < 0) {
            *raw = true;
            memcpy(bytes, token, length);
            return length;
        }
        bytes[count++] = (char)byte;
        at += used;
    }
    return count;
}

static enum itera_status take_id(struct itera_tokenizer *tokenizer, const json_t *value,
                                 const char *token, const char *name, int32_t *id)
{
    if (!json_is_integer(value))
        return itera_fail(ITERA_ERR_FORMAT, "%s: the id of token \"%s\" is not an integer", name,
                          quote(token).text);
    json_int_t number = json_integer_value(value);
    if (number < 0 || number >= tokenizer->capacity)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: token \"%s\" has id %lld, but %d tokens must have ids 0 to %d "
                          "without holes",
                          name, quote(token).text, (long long)number, (int)tokenizer->capacity,
                          (int)tokenizer->capacity - 1);
    if (tokenizer->tokens[number].flags & ITERA_TOKEN_SET)
        return itera_fail(ITERA_ERR_FORMAT, "%s: id %lld is given twice, once to token \"%s\"",
                          name, (long long)number, quote(token).text);
    *id = (int32_t)number;
    return ITERA_OK;
}

/* An entry of added_tokens. */
struct added_entry {
    const char *content;
    size_t length;
    const json_t *id;
    unsigned flags; /* of struct itera_token */
};

static enum itera_status read_added(const json_t *json, const char *name, struct added_entry *out)
{
    static const struct {
        const char *key;
        unsigned flag;
    } flags[] = {{"special", ITERA_TOKEN_SPECIAL},
                 {"lstrip", ITERA_TOKEN_LSTRIP},
                 {"rstrip", ITERA_TOKEN_RSTRIP},
                 {"single_word", ITERA_TOKEN_SINGLE_WORD},
                 {"normalized", ITERA_TOKEN_NORMALIZED}};
    const json_t *content = json_object_get(json, "content");
    *out = (struct added_entry){json_string_value(content), json_string_length(content),
                                json_object_get(json, "id"), ITERA_TOKEN_ADDED | ITERA_TOKEN_RAW};
    if (out->length == 0)
        return itera_fail(ITERA_ERR_FORMAT, "%s: an added token has no text in \"content\"", name);
    if (strlen(out->content) != out->length)
        return itera_fail(ITERA_ERR_FORMAT, "%s: an added token contains a zero byte", name);
    if (out->length > LONGEST_TOKEN)
        return itera_fail(ITERA_ERR_LIMIT, "%s: an added token of %zu bytes; %d are the limit",
                          name, out->length, LONGEST_TOKEN);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        const json_t *flag = json_object_get(json, flags[i].key);
        if (flag && !json_is_boolean(flag))
            return itera_fail(ITERA_ERR_FORMAT, "%s: \"%s\" of added token \"%s\" is not a boolean",
                              name, flags[i].key, quote(out->content).text);
        /* Without a word on it, what is not special is normalized. */
        bool missing = !flag && flags[i].flag == ITERA_TOKEN_NORMALIZED;
        if (json_is_true(flag) || (missing && !(out->flags & ITERA_TOKEN_SPECIAL)))
            out->flags |= flags[i].flag;
    }
    return ITERA_OK;
}

/* Hugging Face's library does not read the id of an added token: it is that of the vocabulary or,
 * where the vocabulary lacks the token, the next one after all others. Where the file says
 * otherwise, that library would give other ids than the file. */
static enum itera_status check_added_id(const json_t *vocab, const struct added_entry *entry,
                                        const char *name, json_int_t *highest)
{
    const json_t *known = json_object_get(vocab, entry->content);
    json_int_t count = (json_int_t)json_object_size(vocab), id;
    id = known ? json_integer_value(known) : *highest < count ? count : *highest + 1;
    *highest = id > *highest ? id : *highest;
    if (!json_is_integer(entry->id) || json_integer_value(entry->id) == id)
        return ITERA_OK; /* what is no integer is refused when it is taken */
    return itera_fail(ITERA_ERR_FORMAT,
                      "%s: added token \"%s\" has id %lld, but Hugging Face's library would give "
                      "it %lld",
                      name, quote(entry->content).text, (long long)json_integer_value(entry->id),
                      (long long)id);
}

/* The added tokens; *total: how many there are that the vocabulary lacks, besides its own. */
static enum itera_status check_added(const json_t *vocab, const json_t *added, const char *name,
                                     size_t *total)
{
    enum itera_status status = ITERA_OK;
    json_int_t highest = -1;
    *total = json_object_size(vocab);
    for (size_t i = 0; i < json_array_size(added) && !status; i++) {
        struct added_entry entry;
        status = read_added(json_array_get(added, i), name, &entry);
        if (!status)
            status = check_added_id(vocab, &entry, name, &highest);
        if (!status)
            *total += !json_object_get(vocab, entry.content);
    }
    if (!status && (*total == 0 || *total > ITERA_MAX_VOCAB))
        status =
            itera_fail(ITERA_ERR_FORMAT, "%s: the vocabulary has %zu tokens; 1 to %d are allowed",
                       name, *total, (int)ITERA_MAX_VOCAB);
    return status;
}

/* One entry of the vocabulary; `bytes` has room for it. */
static enum itera_status read_word(struct itera_tokenizer *tokenizer, const char *key,
                                   const json_t *value, char *bytes, const char *name)
{
    size_t length = strlen(key);
    bool raw;
    json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
    if (number >= 0 && number < tokenizer->capacity) {
        struct itera_token *token = &tokenizer->tokens[number];
        if (token->flags & ITERA_TOKEN_ADDED && token->length == length &&
            memcmp(tokenizer->pool + token->offset, key, length) == 0) {
            token->flags |= ITERA_TOKEN_MODEL;
            size_t count = token_bytes(key, length, bytes, &raw);
            if (!raw &&
                !itera_bytemap_insert(&tokenizer->lookup, bytes, count, (uint64_t)number, NULL))
                return itera_fail(ITERA_ERR_MEMORY, "%s: no memory to index its tokens", name);
            return ITERA_OK;
        }
    }
    int32_t id = 0;
    enum itera_status status = take_id(tokenizer, value, key, name, &id);
    if (status)
        return status;
    size_t count = token_bytes(key, length, bytes, &raw);
    return itera_tokenizer_set(tokenizer, id, bytes, count,
                               ITERA_TOKEN_MODEL | (raw ? ITERA_TOKEN_RAW : 0));
}

/* Tokens of the vocabulary and the added ones: ids 0 to count - 1, each once. */
static enum itera_status read_tokens(json_t *vocab, const json_t *added, const char *name,
                                     struct itera_tokenizer **out)
{
    struct itera_tokenizer *tokenizer = NULL;
    const char *key;
    json_t *value;
    size_t total, longest = 1;
    char *bytes = NULL;
    enum itera_status status = check_added(vocab, added, name, &total);
    if (status)
        return status;
    status = itera_tokenizer_new(ITERA_BPE, (int32_t)total, &tokenizer);
    /* Added tokens first: what the vocabulary says of the same text is then checked against them.
     */
    for (size_t i = 0; i < json_array_size(added) && !status; i++) {
        struct added_entry entry = {0};
        int32_t id = 0;
        status = read_added(json_array_get(added, i), name, &entry);
        if (!status)
            status = take_id(tokenizer, entry.id, entry.content, name, &id);
        if (!status)
            status = itera_tokenizer_set(tokenizer, id, entry.content, entry.length, entry.flags);
    }
    json_object_foreach(vocab, key, value)
    {
        size_t length = strlen(key);
        longest = length > longest ? length : longest;
    }
    if (!status && longest > LONGEST_TOKEN)
        status = itera_fail(ITERA_ERR_LIMIT, "%s: a token of %zu bytes; %d are the limit", name,
                            longest, LONGEST_TOKEN);
    bytes = malloc(longest);
    if (!status && !bytes)
        status = itera_fail(ITERA_ERR_MEMORY, "%s: no memory for a token", name);
    json_object_foreach(vocab, key, value)
    {
        if (!status)
            status = read_word(tokenizer, key, value, bytes, name);
    }
    /* As many tokens as ids, all in range, none twice: there is no hole, unless an added token's
     * text has another id in the vocabulary, which leaves one too many. */
    for (int32_t id = 0; !status && id < tokenizer->capacity; id++)
        if (!(tokenizer->tokens[id].flags & ITERA_TOKEN_SET))
            status = itera_fail(ITERA_ERR_FORMAT, "%s: no token has id %d; ids must have no holes",
                                name, (int)id);
    free(bytes);
    if (status)
        itera_tokenizer_destroy(&tokenizer);
    *out = tokenizer;
    return status;
}

static enum itera_status bad_merge(const char *name, size_t index, const json_t *entry,
                                   const char *what)
{
    const char *text = json_is_array(entry) ? json_string_value(json_array_get(entry, 0))
                                            : json_string_value(entry);
    return itera_fail(ITERA_ERR_FORMAT, "%s: merge %zu (\"%s\"%s) %s", name, index + 1,
                      quote(text).text, json_is_array(entry) ? ", ..." : "", what);
}

/* The two halves of a merge, "a b" or ["a", "b"]; `room` takes the first with its 0. */
static bool split_merge(const json_t *entry, char *room, const char **left, const char **right)
{
    if (json_is_array(entry)) {
        *left = json_string_value(json_array_get(entry, 0));
        *right = json_string_value(json_array_get(entry, 1));
        return json_array_size(entry) == 2 && *left && *right && **left && **right;
    }
    const char *text = json_string_value(entry);
    const char *space = text ? strchr(text, ' ') : NULL;
    if (!space || space == text || !space[1] || strchr(space + 1, ' '))
        return false;
    memcpy(room, text, (size_t)(space - text));
    room[space - text] = 0;
    *left = room;
    *right = space + 1;
    return true;
}

static enum itera_status read_merges(struct itera_tokenizer *tokenizer, const json_t *vocab,
                                     const json_t *merges, const char *name)
{
    struct itera_bpe *bpe = tokenizer->bpe;
    size_t count = json_array_size(merges), longest = 0, index;
    json_t *entry;
    if (count > ITERA_MAX_VOCAB)
        return itera_fail(ITERA_ERR_FORMAT, "%s: %zu merges; %d are the limit", name, count,
                          (int)ITERA_MAX_VOCAB);
    json_array_foreach(merges, index, entry)
    {
        for (size_t half = 0; half < 2; half++) {
            const json_t *part = json_is_array(entry) ? json_array_get(entry, half) : entry;
            size_t length = json_string_length(part);
            longest = length > longest ? length : longest;
        }
    }
    char *room = malloc(longest + 1), *both = malloc(2 * longest + 1);
    bpe->merges = calloc(count + 1, sizeof *bpe->merges);
    enum itera_status status = ITERA_OK;
    if (!room || !both || !bpe->merges)
        status = itera_fail(ITERA_ERR_MEMORY, "%s: no memory for %zu merges", name, count);
    json_array_foreach(merges, index, entry)
    {
        const char *left, *right;
        if (status)
            break;
        if (!split_merge(entry, room, &left, &right)) {
            status = bad_merge(name, index, entry, "is not two tokens");
            break;
        }
        size_t split = strlen(left);
        memcpy(both, left, split);
        memcpy(both + split, right, strlen(right) + 1);
        const char *const texts[3] = {left, right, both};
        int32_t ids[3] = {0};
        for (int i = 0; i < 3 && !status; i++) {
            const json_t *id = json_object_get(vocab, texts[i]);
            char what[128];
            snprintf(what, sizeof what, "refers to \"%s\", which is not in the vocabulary",
                     quote(texts[i]).text);
            if (id)
                ids[i] = (int32_t)json_integer_value(id);
            else
                status = bad_merge(name, index, entry, what);
        }
        bpe->merges[bpe->merge_count++] = (struct itera_merge){ids[0], ids[1], ids[2]};
    }
    free(room);
    free(both);
    return status;
}

/* Which tokens merges make. */
static bool *find_made(const struct itera_tokenizer *tokenizer)
{
    const struct itera_bpe *bpe = tokenizer->bpe;
    bool *made = calloc((size_t)tokenizer->vocab_size + 1, sizeof *made);
    for (size_t i = 0; made && i < bpe->merge_count; i++)
        made[bpe->merges[i].result] = true;
    return made;
}

/* Whether a token is the bytes of two others. */
static bool is_two_tokens(const struct itera_tokenizer *tokenizer, int32_t id)
{
    const struct itera_token *token = &tokenizer->tokens[id];
    const char *text = tokenizer->pool + token->offset;
    for (size_t i = 1; i < token->length; i++)
        if (itera_bytemap_find(&tokenizer->lookup, text, i) &&
            itera_bytemap_find(&tokenizer->lookup, text + i, token->length - i))
            return true;
    return false;
}

/* Vocabularies have words that no merge makes: markers (<s>), reserved ones. But a merges.txt that
 * was cut short lacks the merges of the last tokens, and text would be cut otherwise than where the
 * model was trained: then tokens beyond all that are made are, most of them, two others. And no
 * merge is of a half that no merge makes. *first: the first token that is missed. */
static int32_t count_missing(const struct itera_tokenizer *tokenizer, const bool *made,
                             int32_t *first)
{
    const struct itera_bpe *bpe = tokenizer->bpe;
    int32_t count = 0, missing = 0, id = tokenizer->vocab_size;
    while (--id >= 0 && !made[id]) {
        const struct itera_token *token = &tokenizer->tokens[id];
        if (token->length < 2 || token->flags & ITERA_TOKEN_RAW)
            continue;
        bool two = is_two_tokens(tokenizer, id);
        *first = two ? id : *first;
        missing += two;
        count++;
    }
    if (2 * missing > count)
        return missing;
    for (size_t i = 0; i < bpe->merge_count; i++) {
        const int32_t halves[2] = {bpe->merges[i].left, bpe->merges[i].right};
        for (int half = 0; half < 2; half++) {
            *first = halves[half];
            if (!made[*first] && tokenizer->tokens[*first].length > 1)
                return 1;
        }
    }
    return 0;
}

static enum itera_status check_merges_are_whole(const struct itera_tokenizer *tokenizer,
                                                const char *merges_name)
{
    bool *made = find_made(tokenizer);
    if (!made)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory to check its merges", merges_name);
    int32_t first = -1, missing = count_missing(tokenizer, made, &first);
    free(made);
    if (!missing)
        return ITERA_OK;
    const struct itera_token *token = &tokenizer->tokens[first];
    char text[64];
    snprintf(text, sizeof text, "%.*s", (int)token->length, tokenizer->pool + token->offset);
    char others[32] = "";
    if (missing > 1)
        snprintf(others, sizeof others, " and %d others", (int)missing - 1);
    return itera_fail(ITERA_ERR_FORMAT,
                      "%s: merges are missing: none of the %zu makes token %d (\"%s\")%s of the "
                      "vocabulary",
                      merges_name, tokenizer->bpe->merge_count, (int)first, quote(text).text,
                      others);
}

static void find_bytes(struct itera_tokenizer *tokenizer, const json_t *vocab,
                       const json_t *unknown)
{
    bool missing = false;
    for (unsigned byte = 0; byte < 256; byte++) {
        char letter[5] = {0};
        itera_utf8_put(itera_byte_letter(byte), letter);
        const json_t *id = json_object_get(vocab, letter);
        tokenizer->bpe->byte_ids[byte] = id ? (int32_t)json_integer_value(id) : -1;
        missing |= !id;
    }
    /* Where every byte has a token, nothing is ever unknown. */
    const json_t *id = missing && json_is_string(unknown)
                           ? json_object_get(vocab, json_string_value(unknown))
                           : NULL;
    tokenizer->unknown = id ? (int32_t)json_integer_value(id) : -1;
}

/* Where bytes are unknown, the token that stands for them must stay apart from its neighbours. */
static enum itera_status check_unknown(const struct itera_tokenizer *tokenizer, const char *name)
{
    const struct itera_bpe *bpe = tokenizer->bpe;
    for (size_t i = 0; i < bpe->merge_count && tokenizer->unknown >= 0; i++)
        if (bpe->merges[i].left == tokenizer->unknown || bpe->merges[i].right == tokenizer->unknown)
            return itera_fail(ITERA_ERR_UNSUPPORTED, "%s: a merge of the unknown token", name);
    return ITERA_OK;
}

static void find_end_of_text(struct itera_tokenizer *tokenizer)
{
    static const char *const names[] = {ITERA_END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>",
                                        "<|im_end|>"};
    for (size_t i = 0; i < sizeof names / sizeof *names && tokenizer->end_of_text < 0; i++) {
        for (int32_t id = 0; id < tokenizer->vocab_size; id++) {
            const struct itera_token *token = &tokenizer->tokens[id];
            if (token->flags & ITERA_TOKEN_SPECIAL && token->length == strlen(names[i]) &&
                memcmp(tokenizer->pool + token->offset, names[i], token->length) == 0)
                tokenizer->end_of_text = id;
        }
    }
}

/* Vocabulary, merges and added tokens to a tokenizer that lacks itera_tokenizer_finish. */
static enum itera_status read_bpe(json_t *vocab, const json_t *merges, const json_t *added,
                                  const json_t *unknown, const char *name, const char *merges_name,
                                  struct itera_tokenizer **out)
{
    enum itera_status status = read_tokens(vocab, added, name, out);
    if (!status) {
        find_bytes(*out, vocab, unknown);
        status = read_merges(*out, vocab, merges, merges_name);
    }
    if (!status)
        status = check_unknown(*out, name);
    if (!status)
        find_end_of_text(*out);
    else
        itera_tokenizer_destroy(out);
    return status;
}

static const char *type_of(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "";
}

static bool is_set(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return value && !json_is_null(value) && !json_is_false(value) &&
           !(json_is_string(value) && json_string_length(value) == 0) &&
           !(json_is_number(value) && json_number_value(value) == 0);
}

/* Options of the model that are not those of byte-level BPE as it is used. */
static enum itera_status check_model(const json_t *model, const char *name)
{
    static const char *const refused[] = {"dropout", "continuing_subword_prefix",
                                          "end_of_word_suffix"};
    static const char *const known[] = {
        "type",          "dropout",       "unk_token", "continuing_subword_prefix",
        "fuse_unk",      "byte_fallback", "vocab",     "end_of_word_suffix",
        "ignore_merges", "merges"};
    const char *key;
    json_t *value;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (is_set(model, refused[i]))
            return itera_fail(ITERA_ERR_UNSUPPORTED, "%s: a BPE model with \"%s\"", name,
                              refused[i]);
    json_object_foreach((json_t *)model, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found |= strcmp(key, known[i]) == 0;
        if (!found && is_set(model, key))
            return itera_fail(ITERA_ERR_UNSUPPORTED,
                              "%s: a BPE model with \"%s\", which is not known here", name,
                              quote(key).text);
    }
    return ITERA_OK;
}

/* Keeps a part as text. What a part means is checked where it is compiled. */
static enum itera_status keep_part(const json_t *root, enum itera_bpe_part part, const char *name,
                                   struct itera_bpe *bpe)
{
    const json_t *json = json_object_get(root, itera_bpe_part_names[part]);
    if (!json || json_is_null(json))
        return ITERA_OK;
    bpe->parts[part] = itera_json_write(json, JSON_COMPACT | JSON_ENCODE_ANY);
    return bpe->parts[part] ? ITERA_OK
                            : itera_fail(ITERA_ERR_MEMORY, "%s: no memory for its %s", name,
                                         itera_bpe_part_names[part]);
}

/* What a caller of Hugging Face's library could ask for, and a text for a language model must not
 * have: it is neither cut off nor filled up. */
static void note_what_is_left_out(const json_t *root, const char *name)
{
    static const char *const keys[] = {"truncation", "padding"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (is_set(root, keys[i]))
            itera_log(ITERA_LOG_WARNING, "%s: its \"%s\" of texts is not done here", name, keys[i]);
}

static enum itera_status read_hugging_face(const json_t *root, const char *name,
                                           struct itera_tokenizer **out)
{
    const json_t *model = json_object_get(root, "model");
    const json_t *merges = json_object_get(model, "merges");
    const json_t *added = json_object_get(root, "added_tokens");
    json_t *vocab = json_object_get(model, "vocab");
    const char *type = type_of(model);
    if (!json_is_object(model))
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: neither \"itera\" nor \"model\": not a tokenizer.json", name);
    if (strcmp(type, "BPE") != 0 && *type)
        return itera_fail(ITERA_ERR_UNSUPPORTED, "%s: model type \"%s\"; only BPE is supported",
                          name, quote(type).text);
    if (!json_is_object(vocab) || !json_is_array(merges))
        return itera_fail(ITERA_ERR_FORMAT, "%s: the model has no \"%s", name,
                          json_is_object(vocab) ? "merges\" array" : "vocab\" object");
    if (added && !json_is_null(added) && !json_is_array(added))
        return itera_fail(ITERA_ERR_FORMAT, "%s: \"added_tokens\" is not an array", name);
    enum itera_status status = check_model(model, name);
    if (!status)
        status =
            read_bpe(vocab, merges, added, json_object_get(model, "unk_token"), name, name, out);
    if (status)
        return status;
    struct itera_bpe *bpe = (*out)->bpe;
    bool complete = true;
    for (int byte = 0; byte < 256; byte++)
        complete &= bpe->byte_ids[byte] >= 0;
    if (!complete && is_set(model, "byte_fallback"))
        return itera_fail(ITERA_ERR_UNSUPPORTED,
                          "%s: a BPE model with \"byte_fallback\" and without tokens for all bytes",
                          name);
    if (!json_object_get(root, "pre_tokenizer") ||
        json_is_null(json_object_get(root, "pre_tokenizer")))
        return itera_fail(ITERA_ERR_UNSUPPORTED,
                          "%s: no pre-tokenizer; only byte-level BPE, with ByteLevel, is supported",
                          name);
    bpe->ignore_merges = is_set(model, "ignore_merges");
    bpe->fuse_unknown = is_set(model, "fuse_unk");
    note_what_is_left_out(root, name);
    for (int part = 0; part < ITERA_BPE_PARTS && !status; part++)
        status = keep_part(root, (enum itera_bpe_part)part, name, bpe);
    return status;
}

/* Our own layout of byte, char and word tokenizers. */
static enum itera_status read_own(const json_t *own, const char *name, struct itera_tokenizer **out)
{
    const char *kind = json_string_value(json_object_get(own, "kind"));
    const json_t *version = json_object_get(own, "version");
    const json_t *tokens = json_object_get(own, "tokens");
    if (!json_is_integer(version) || json_integer_value(version) != 1)
        return itera_fail(ITERA_ERR_UNSUPPORTED, "%s: tokenizer version is not 1", name);
    if (kind && strcmp(kind, "byte") == 0)
        return itera_tokenizer_new_byte(out);
    bool chars = kind && strcmp(kind, "char") == 0;
    if (!chars && !(kind && strcmp(kind, "word") == 0))
        return itera_fail(ITERA_ERR_FORMAT, "%s: tokenizer kind \"%s\"; byte, char, word are known",
                          name, quote(kind).text);
    size_t count = json_array_size(tokens);
    const char *first = json_string_value(json_array_get(tokens, 0));
    const char *second = json_string_value(json_array_get(tokens, 1));
    if (count < 2 || count > ITERA_MAX_VOCAB || !first || strcmp(first, ITERA_END_OF_TEXT) != 0 ||
        !second || strcmp(second, ITERA_UNKNOWN) != 0)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: \"tokens\" must be 2 to %d strings, the first two %s and %s", name,
                          (int)ITERA_MAX_VOCAB, ITERA_END_OF_TEXT, ITERA_UNKNOWN);
    enum itera_status status =
        itera_tokenizer_new_listed(chars ? ITERA_CHAR : ITERA_WORD, (int32_t)count, out);
    if (status)
        return status;
    if (!chars) {
        const char *split = json_string_value(json_object_get(own, "split"));
        (*out)->punctuation = split && strcmp(split, "punctuation") == 0;
        if (!split || (!(*out)->punctuation && strcmp(split, "whitespace") != 0))
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: \"split\" must be \"whitespace\" or \"punctuation\"", name);
    }
    for (size_t i = 2; i < count; i++) {
        const json_t *token = json_array_get(tokens, i);
        const char *text = json_string_value(token);
        size_t length = json_string_length(token), used = 0;
        uint32_t code;
        if (!text || length == 0)
            return itera_fail(ITERA_ERR_FORMAT, "%s: token %zu is not a text", name, i);
        if (chars &&
            (itera_utf8_next(text, length, &code, &used) != ITERA_UTF8_VALID || used != length))
            return itera_fail(ITERA_ERR_FORMAT, "%s: token %zu (\"%s\") is not one character", name,
                              i, quote(text).text);
        if (itera_bytemap_find(&(*out)->lookup, text, length))
            return itera_fail(ITERA_ERR_FORMAT, "%s: token %zu (\"%s\") is given twice", name, i,
                              quote(text).text);
        status = itera_tokenizer_set(*out, (int32_t)i, text, length, 0);
        if (status)
            return status;
    }
    return ITERA_OK;
}

enum itera_status itera_tokenizer_from_json(const char *json, size_t length, const char *name,
                                            struct itera_tokenizer **out)
{
    *out = NULL;
    json_t *root;
    enum itera_status status = parse_json(json, length, name, &root);
    if (status)
        return status;
    const json_t *own = json_object_get(root, "itera");
    bool listed = json_is_object(own) && json_object_get(own, "kind");
    status = listed ? read_own(own, name, out) : read_hugging_face(root, name, out);
    /* The byte tokenizer comes complete. */
    if (!status && (*out)->kind != ITERA_BYTE)
        status = itera_tokenizer_finish(*out, name);
    json_decref(root);
    if (status)
        itera_tokenizer_destroy(out);
    return status;
}

static enum itera_status parse_merges(const char *text, size_t length, const char *name,
                                      json_t **merges)
{
    *merges = json_array();
    if (!*merges)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory", name);
    for (size_t line = 1; length > 0; line++) {
        const char *end = memchr(text, '\n', length);
        size_t size = end ? (size_t)(end - text) : length, step = end ? size + 1 : size;
        if (size > 0 && text[size - 1] == '\r')
            size--;
        bool comment = size >= 8 && memcmp(text, "#version", 8) == 0;
        if (size > 0 && !comment &&
            (memchr(text, 0, size) ||
             json_array_append_new(*merges, json_stringn(text, size)) != 0)) {
            json_decref(*merges);
            *merges = NULL;
            return itera_fail(ITERA_ERR_FORMAT, "%s: line %zu is not UTF-8 text", name, line);
        }
        text += step;
        length -= step;
    }
    return ITERA_OK;
}

/* The words <...> of a vocab.json that no merge has as its result: <|endoftext|> of GPT-2, <s> and
 * others of RoBERTa are entries like the others there, and special tokens all the same. */
static json_t *find_markers(json_t *vocab, const json_t *merges)
{
    json_t *markers = json_array(), *results = json_object(), *value;
    const char *key;
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const char *merge = json_string_value(json_array_get(merges, i));
        const char *space = strchr(merge, ' ');
        size_t length = strlen(merge);
        if (!space || merge[0] != '<' || merge[length - 1] != '>')
            continue;
        char *result = strdup(merge);
        if (result) {
            memmove(result + (space - merge), space + 1, length - (size_t)(space - merge));
            json_object_set_new(results, result, json_true());
        }
        free(result);
    }
    bool failed = !markers || !results;
    json_object_foreach(vocab, key, value)
    {
        size_t length = strlen(key);
        if (length < 3 || key[0] != '<' || key[length - 1] != '>' || json_object_get(results, key))
            continue;
        json_t *entry = json_pack("{s:s, s:O, s:b}", "content", key, "id", value, "special", 1);
        failed |= json_array_append_new(markers, entry) != 0;
    }
    json_decref(results);
    if (failed)
        json_decref(markers);
    return failed ? NULL : markers;
}

enum itera_status itera_tokenizer_from_gpt2(const char *vocab, size_t vocab_length,
                                            const char *vocab_name, const char *merges,
                                            size_t merges_length, const char *merges_name,
                                            struct itera_tokenizer **out)
{
    *out = NULL;
    json_t *root = NULL, *list = NULL, *added = NULL;
    enum itera_status status = parse_json(vocab, vocab_length, vocab_name, &root);
    if (!status && merges_length > ITERA_MAX_TOKENIZER_FILE)
        status = itera_fail(ITERA_ERR_LIMIT, "%s: %zu bytes of merges; %d are the limit",
                            merges_name, merges_length, (int)ITERA_MAX_TOKENIZER_FILE);
    if (!status)
        status = parse_merges(merges, merges_length, merges_name, &list);
    if (!status) {
        added = find_markers(root, list);
        if (!added)
            status = itera_fail(ITERA_ERR_MEMORY, "%s: no memory", vocab_name);
    }
    if (!status)
        status = read_bpe(root, list, added, NULL, vocab_name, merges_name, out);
    if (!status)
        status = check_merges_are_whole(*out, merges_name);
    if (!status)
        status = itera_tokenizer_finish(*out, vocab_name);
    json_decref(root);
    json_decref(list);
    json_decref(added);
    if (status)
        itera_tokenizer_destroy(out);
    return status;
}
