/* Byte-level BPE of long pieces, in linear time and almost no memory.
 *
 * Merges never cross the end of a token of the result: so a token is what its own bytes merge to,
 * and two neighbours are what the bytes of both merge to. The other way round, tokens of which all
 * this is true are the result: in the whole text, a first merge across an end would happen among
 * the bytes of the two tokens alone as well, because merges take place in one order of ranks and
 * places, whatever else there is. So the result is found from left to right, the longest token
 * first that fits the one before it, going back where none does. The tokens before a place are what
 * the bytes before it merge to, hence only one list: a place that led nowhere never need be tried
 * again. Source: the crate `bpe` of github.com/github/rust-gems, which has the idea and a proof. */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "text/tokenizer_impl.h"

enum {
    PAIRS = 1 << 16,
    SHORT = 256,
    LONGEST_TOKEN = 1 << 16,
};

/* Tokens by their bytes, as a tree: node 0 is the root, slots hold (node, byte) -> child. */
struct slot {
    uint32_t node, child; /* child 0: free */
    unsigned char byte;
};

struct pair {
    int32_t left, right;
    bool fits;
};

struct itera_bpe_long {
    struct slot *slots;
    size_t slot_count; /* a power of two */
    uint32_t nodes;
    int32_t *node_token; /* -1: none ends here */
    int32_t *shorter;    /* by token: the longest that it starts with, or -1 */
    uint32_t *length;    /* by token; 0: not the result of its own bytes */
    size_t *offset;      /* by token: of its bytes among the keys of the tokenizer's lookup */
    struct pair *pairs;  /* what is known of neighbours, by a hash of both */
};

void itera_bpe_long_destroy(struct itera_bpe_long **tables)
{
    if (!*tables)
        return;
    free((*tables)->slots);
    free((*tables)->node_token);
    free((*tables)->shorter);
    free((*tables)->length);
    free((*tables)->offset);
    free((*tables)->pairs);
    free(*tables);
    *tables = NULL;
}

static size_t find_slot(const struct itera_bpe_long *t, uint32_t node, unsigned char byte)
{
    uint64_t hash = ((uint64_t)node << 8 | byte) * 0x9E3779B97F4A7C15u;
    size_t mask = t->slot_count - 1, slot = (size_t)(hash >> 32) & mask;
    while (t->slots[slot].child && (t->slots[slot].node != node || t->slots[slot].byte != byte))
        slot = (slot + 1) & mask;
    return slot;
}

/* Appends the ids that the bytes of a token merge from. */
static enum itera_status append_spelling(const struct itera_tokenizer *tokenizer, const char *bytes,
                                         size_t length, struct itera_tokens *ids)
{
    enum itera_status status = ITERA_OK;
    for (size_t i = 0; i < length && !status; i++)
        status = itera_tokens_append(ids, tokenizer->bpe->byte_ids[(unsigned char)bytes[i]]);
    return status;
}

static bool has_all_bytes(const struct itera_bpe *bpe, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bpe->byte_ids[(unsigned char)bytes[i]] < 0)
            return false;
    return length > 0 && length <= LONGEST_TOKEN;
}

/* Notes the tokens that are what their own bytes merge to. */
static enum itera_status find_whole_tokens(const struct itera_tokenizer *tokenizer,
                                           struct itera_bpe_long *t, size_t *bytes)
{
    const struct itera_bytemap *lookup = &tokenizer->lookup;
    struct itera_tokens ids = {0};
    enum itera_status status = ITERA_OK;
    for (size_t i = 0; i < lookup->count && !status; i++) {
        const struct itera_bytemap_entry *entry = &lookup->entries[i];
        const char *text = lookup->keys + entry->offset;
        if (!has_all_bytes(tokenizer->bpe, text, entry->length))
            continue;
        ids.count = 0;
        status = append_spelling(tokenizer, text, entry->length, &ids);
        size_t count = ids.count;
        if (!status)
            status = itera_bpe_merge(tokenizer->bpe, ids.ids, &count);
        if (status || count != 1 || (uint64_t)ids.ids[0] != entry->value)
            continue;
        t->length[entry->value] = entry->length;
        t->offset[entry->value] = entry->offset;
        *bytes += entry->length;
    }
    itera_tokens_free(&ids);
    return status;
}

static void insert(struct itera_bpe_long *t, const char *bytes, size_t length, int32_t id)
{
    uint32_t node = 0;
    for (size_t i = 0; i < length; i++) {
        struct slot *slot = &t->slots[find_slot(t, node, (unsigned char)bytes[i])];
        if (!slot->child) {
            *slot = (struct slot){node, t->nodes, (unsigned char)bytes[i]};
            t->node_token[t->nodes++] = -1;
        }
        node = slot->child;
    }
    t->node_token[node] = id;
}

/* The longest token that the text starts with, or -1; *steps counts the bytes looked at. */
static int32_t longest(const struct itera_bpe_long *t, const char *text, size_t length,
                       uint64_t *steps)
{
    int32_t best = -1;
    uint32_t node = 0;
    for (size_t i = 0; i < length; i++) {
        const struct slot *slot = &t->slots[find_slot(t, node, (unsigned char)text[i])];
        ++*steps;
        if (!slot->child)
            break;
        node = slot->child;
        if (t->node_token[node] >= 0)
            best = t->node_token[node];
    }
    return best;
}

static enum itera_status build(const struct itera_tokenizer *tokenizer, struct itera_bpe_long *t)
{
    size_t vocab = (size_t)tokenizer->vocab_size, bytes = 0;
    const struct itera_bytemap *lookup = &tokenizer->lookup;
    t->length = calloc(vocab + 1, sizeof *t->length);
    t->offset = calloc(vocab + 1, sizeof *t->offset);
    t->shorter = malloc((vocab + 1) * sizeof *t->shorter);
    t->pairs = malloc(PAIRS * sizeof *t->pairs);
    if (!t->length || !t->offset || !t->shorter || !t->pairs)
        return itera_fail(ITERA_ERR_MEMORY, "encode: no memory for long words");
    for (size_t i = 0; i < PAIRS; i++)
        t->pairs[i] = (struct pair){.left = -1};
    enum itera_status status = find_whole_tokens(tokenizer, t, &bytes);
    if (status)
        return status;
    t->slot_count = 64;
    while (t->slot_count < 2 * bytes)
        t->slot_count *= 2;
    t->slots = calloc(t->slot_count, sizeof *t->slots);
    t->node_token = malloc((bytes + 1) * sizeof *t->node_token);
    if (!t->slots || !t->node_token)
        return itera_fail(ITERA_ERR_MEMORY, "encode: no memory for long words");
    t->nodes = 1;
    t->node_token[0] = -1;
    for (size_t i = 0; i < lookup->count; i++) {
        const struct itera_bytemap_entry *entry = &lookup->entries[i];
        if (t->length[entry->value])
            insert(t, lookup->keys + entry->offset, entry->length, (int32_t)entry->value);
    }
    uint64_t steps = 0;
    for (size_t i = 0; i < lookup->count; i++) {
        const struct itera_bytemap_entry *entry = &lookup->entries[i];
        if (t->length[entry->value])
            t->shorter[entry->value] =
                longest(t, lookup->keys + entry->offset, entry->length - 1, &steps);
    }
    return ITERA_OK;
}

/* Whether the bytes of two tokens merge to these two. */
static enum itera_status check_pair(const struct itera_tokenizer *tokenizer, int32_t left,
                                    int32_t right, struct itera_budget *budget, bool *fits)
{
    struct itera_bpe_long *t = tokenizer->bpe->long_pieces;
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    struct pair *known = &t->pairs[(key * 0x9E3779B97F4A7C15u >> 32) % PAIRS];
    *fits = known->fits;
    if (known->left == left && known->right == right)
        return ITERA_OK;
    int32_t few[SHORT];
    size_t count = (size_t)t->length[left] + t->length[right], at = 0;
    int32_t *ids = count <= SHORT ? few : malloc(count * sizeof *ids);
    enum itera_status status = itera_budget_take(budget, count);
    if (!ids)
        status = itera_fail(ITERA_ERR_MEMORY, "encode: no memory for long words");
    for (int i = 0; i < 2 && !status; i++) {
        int32_t token = i ? right : left;
        const char *bytes = tokenizer->lookup.keys + t->offset[token];
        for (size_t k = 0; k < t->length[token]; k++)
            ids[at++] = tokenizer->bpe->byte_ids[(unsigned char)bytes[k]];
    }
    if (!status)
        status = itera_bpe_merge(tokenizer->bpe, ids, &count);
    if (!status) {
        *fits = count == 2 && ids[0] == left && ids[1] == right;
        *known = (struct pair){left, right, *fits};
    }
    if (ids != few)
        free(ids);
    return status;
}

/* A piece on its way: where it is, and what is known of its places. */
struct way {
    const struct itera_tokenizer *tokenizer;
    struct itera_budget *budget;
    unsigned char *dead; /* a bit for each place: nothing leads on from it */
    size_t at;
    int32_t last; /* the token before it, or -1 */
};

/* The longest token from `id` on, of those that it starts with, that may stand at way->at; or -1.
 */
static enum itera_status find_fitting(const struct way *way, int32_t *id)
{
    const struct itera_bpe_long *t = way->tokenizer->bpe->long_pieces;
    uint64_t tried = 0;
    enum itera_status status = ITERA_OK;
    for (; *id >= 0; *id = t->shorter[*id], tried++) {
        size_t end = way->at + t->length[*id];
        bool fits = true;
        if (way->dead[end / 8] & 1 << end % 8)
            continue;
        if (way->last >= 0)
            status = check_pair(way->tokenizer, way->last, *id, way->budget, &fits);
        if (status || fits)
            break;
    }
    return status ? status : itera_budget_take(way->budget, tried);
}

static enum itera_status walk(struct way *way, const char *piece, size_t length,
                              struct itera_tokens *tokens)
{
    const struct itera_bpe_long *t = way->tokenizer->bpe->long_pieces;
    size_t first = tokens->count;
    enum itera_status status = ITERA_OK;
    uint64_t steps = 0;
    int32_t id = longest(t, piece, length, &steps);
    while (way->at < length && !status) {
        status = find_fitting(way, &id);
        if (status)
            break;
        if (id >= 0) {
            status = itera_tokens_append(tokens, id);
            way->at += t->length[id];
            way->last = id;
            steps = 0;
            id = longest(t, piece + way->at, length - way->at, &steps);
            if (!status)
                status = itera_budget_take(way->budget, steps);
            continue;
        }
        if (tokens->count == first)
            return itera_fail(ITERA_ERR_FORMAT, "encode: the tokenizer's merges contradict each "
                                                "other");
        way->dead[way->at / 8] |= (unsigned char)(1 << way->at % 8);
        id = t->shorter[way->last];
        way->at -= t->length[way->last];
        tokens->count--;
        way->last = tokens->count > first ? tokens->ids[tokens->count - 1] : -1;
    }
    return status;
}

enum itera_status itera_bpe_encode_long(const struct itera_tokenizer *tokenizer, const char *piece,
                                        size_t length, struct itera_budget *budget,
                                        struct itera_tokens *tokens)
{
    struct itera_bpe *bpe = tokenizer->bpe;
    enum itera_status status = ITERA_OK;
    if (!bpe->long_pieces) {
        bpe->long_pieces = calloc(1, sizeof *bpe->long_pieces);
        status = bpe->long_pieces
                     ? build(tokenizer, bpe->long_pieces)
                     : itera_fail(ITERA_ERR_MEMORY, "encode: no memory for long words");
        if (status) {
            itera_bpe_long_destroy(&bpe->long_pieces);
            return status;
        }
    }
    struct way way = {tokenizer, budget, calloc(length / 8 + 1, 1), 0, -1};
    if (!way.dead)
        return itera_fail(ITERA_ERR_MEMORY, "encode: no memory for a word of %zu bytes", length);
    status = walk(&way, piece, length, tokens);
    free(way.dead);
    return status;
}
