/* Byte-level BPE encoding.
 *
 * Added tokens are taken out of the text, what is between them is normalized and cut into pieces;
 * within a piece the adjacent pair of lowest rank, leftmost first, is merged until none has a rank.
 * Pieces repeat, so their ids are cached.
 * Source: Sennrich, Haddow, Birch 2016, "Neural machine translation of rare words with subword
 * units", algorithm 1; Radford et al. 2019 for bytes as the base alphabet. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "format/json.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

enum {
    SHORT_PIECE = 48,       /* up to here a linear search for the next merge beats a heap */
    CACHED_PIECE = 128,     /* longer pieces hardly repeat */
    LONG_PIECE = 4096,      /* above, a heap takes too much memory */
    CACHE_ENTRIES = 1 << 18 /* then it starts afresh; some 20 MB */
};

const char *const itera_bpe_part_names[ITERA_BPE_PARTS] = {"normalizer", "pre_tokenizer",
                                                           "post_processor", "decoder"};

enum itera_status itera_bpe_create(struct itera_bpe **out)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return itera_fail(ITERA_ERR_MEMORY, "tokenizer: no memory");
    for (int i = 0; i < 256; i++)
        (*out)->byte_ids[i] = -1;
    if (pthread_mutex_init(&(*out)->lock, NULL) != 0) {
        free(*out);
        *out = NULL;
        return itera_fail(ITERA_ERR_MEMORY, "tokenizer: no memory for a lock");
    }
    return ITERA_OK;
}

void itera_bpe_destroy(struct itera_bpe **bpe)
{
    if (!*bpe)
        return;
    itera_normalizer_destroy(&(*bpe)->normalizer);
    itera_pretokenizer_destroy(&(*bpe)->pretokenizer);
    itera_bpe_long_destroy(&(*bpe)->long_pieces);
    itera_bytemap_free(&(*bpe)->cache);
    itera_tokens_free(&(*bpe)->cache_ids);
    pthread_mutex_destroy(&(*bpe)->lock);
    free((*bpe)->merges);
    free((*bpe)->slots);
    for (int i = 0; i < ITERA_BPE_PARTS; i++)
        free((*bpe)->parts[i]);
    free(*bpe);
    *bpe = NULL;
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t pair_slot(const struct itera_bpe *bpe, uint64_t pair)
{
    uint64_t hash = pair * 0x9E3779B97F4A7C15u;
    size_t mask = bpe->slot_count - 1;
    size_t slot = (size_t)(hash >> 32) & mask;
    while (bpe->slots[slot].rank != UINT32_MAX && bpe->slots[slot].pair != pair)
        slot = (slot + 1) & mask;
    return slot;
}

/* The rank of a pair, UINT32_MAX when it does not merge. */
static uint32_t pair_rank(const struct itera_bpe *bpe, int32_t left, int32_t right, int32_t *result)
{
    const struct itera_merge_slot *slot = &bpe->slots[pair_slot(bpe, pair_key(left, right))];
    *result = slot->result;
    return slot->rank;
}

enum itera_status itera_bpe_compile(struct itera_tokenizer *tokenizer, const char *name)
{
    static const char gpt2[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}";
    struct itera_bpe *bpe = tokenizer->bpe;
    const char *texts[2] = {bpe->parts[ITERA_NORMALIZER], bpe->parts[ITERA_PRE_TOKENIZER]};
    json_t *json[2] = {0};
    enum itera_status status = ITERA_OK;
    texts[0] = texts[0] ? texts[0] : "null";
    texts[1] = texts[1] ? texts[1] : gpt2;
    for (int i = 0; i < 2 && !status; i++) {
        json[i] =
            itera_json_read(texts[i], strlen(texts[i]), JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        if (!json[i])
            status = itera_fail(ITERA_ERR_MEMORY, "%s: no memory for its %s", name,
                                itera_bpe_part_names[i]);
    }
    if (!status)
        status = itera_normalizer_create(json[0], name, &bpe->normalizer);
    if (!status)
        status = itera_pretokenizer_create(json[1], name, &bpe->pretokenizer);
    json_decref(json[0]);
    json_decref(json[1]);
    return status;
}

/* Whether a token is the result of several merges. */
static enum itera_status find_many_ways(struct itera_tokenizer *tokenizer, const char *name)
{
    struct itera_bpe *bpe = tokenizer->bpe;
    bool *made = calloc((size_t)tokenizer->vocab_size + 1, sizeof *made);
    if (!made)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for %d tokens", name,
                          (int)tokenizer->vocab_size);
    for (size_t i = 0; i < bpe->slot_count; i++) {
        if (bpe->slots[i].rank == UINT32_MAX)
            continue;
        bpe->many_ways |= made[bpe->slots[i].result];
        made[bpe->slots[i].result] = true;
    }
    free(made);
    return ITERA_OK;
}

enum itera_status itera_bpe_index(struct itera_tokenizer *tokenizer, const char *name)
{
    struct itera_bpe *bpe = tokenizer->bpe;
    bpe->slot_count = 64;
    while (bpe->slot_count < 2 * bpe->merge_count)
        bpe->slot_count *= 2;
    bpe->slots = malloc(bpe->slot_count * sizeof *bpe->slots);
    if (!bpe->slots)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory for %zu merges", name, bpe->merge_count);
    for (size_t i = 0; i < bpe->slot_count; i++)
        bpe->slots[i] = (struct itera_merge_slot){0, UINT32_MAX, -1};
    for (size_t rank = 0; rank < bpe->merge_count; rank++) {
        const struct itera_merge *merge = &bpe->merges[rank];
        uint64_t pair = pair_key(merge->left, merge->right);
        /* A pair given twice keeps its last rank, as other readers of these files have it. */
        bpe->slots[pair_slot(bpe, pair)] =
            (struct itera_merge_slot){pair, (uint32_t)rank, merge->result};
    }
    return find_many_ways(tokenizer, name);
}

/* Merges n ids in place; returns how many are left. */
static size_t merge_short(const struct itera_bpe *bpe, int32_t *ids, size_t n)
{
    uint32_t ranks[SHORT_PIECE];
    int32_t results[SHORT_PIECE];
    for (size_t i = 0; i + 1 < n; i++)
        ranks[i] = pair_rank(bpe, ids[i], ids[i + 1], &results[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best])
                best = i;
        if (ranks[best] == UINT32_MAX)
            break;
        ids[best] = results[best];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            ranks[i] = ranks[i + 1];
            results[i] = results[i + 1];
        }
        if (best + 1 < n)
            ranks[best] = pair_rank(bpe, ids[best], ids[best + 1], &results[best]);
        if (best > 0)
            ranks[best - 1] = pair_rank(bpe, ids[best - 1], ids[best], &results[best - 1]);
    }
    return n;
}

/* A candidate merge of the symbols at `at` and after it. */
struct candidate {
    uint32_t rank, at;
    int32_t result;
};

struct heap {
    struct candidate *items;
    size_t count;
};

static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(struct heap *heap, struct candidate item)
{
    size_t i = heap->count++;
    while (i > 0 && before(&item, &heap->items[(i - 1) / 2])) {
        heap->items[i] = heap->items[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap->items[i] = item;
}

static struct candidate heap_pop(struct heap *heap)
{
    struct candidate top = heap->items[0], last = heap->items[--heap->count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count && before(&heap->items[child + 1], &heap->items[child]))
            child++;
        if (!before(&heap->items[child], &last))
            break;
        heap->items[i] = heap->items[child];
        i = child;
    }
    heap->items[i] = last;
    return top;
}

static void push_pair(const struct itera_bpe *bpe, struct heap *heap, const int32_t *ids,
                      size_t left, size_t right)
{
    int32_t result;
    uint32_t rank = pair_rank(bpe, ids[left], ids[right], &result);
    if (rank != UINT32_MAX)
        heap_push(heap, (struct candidate){rank, (uint32_t)left, result});
}

/* What merging n ids in a heap needs: links to the neighbours, 3 n candidates. */
struct workspace {
    uint32_t *next, *previous;
    struct candidate *candidates;
};

/* The same result as merge_short in n log n: symbols in a doubly linked list, candidates in a heap.
 * Each merge removes a symbol and adds two candidates at most, so that 3 n bounds the heap.
 *
 * A candidate is stale when its symbols changed since; but where they now make the same token by
 * another merge, it counts, at its old rank. That is how Hugging Face's library has it, and matters
 * only where a token has several merges. */
static size_t merge_heap(const struct itera_bpe *bpe, int32_t *ids, size_t n, struct workspace w)
{
    struct heap heap = {w.candidates, 0};
    for (size_t i = 0; i < n; i++) {
        w.next[i] = (uint32_t)i + 1;
        w.previous[i] = (uint32_t)i - 1;
    }
    for (size_t i = 0; i + 1 < n; i++)
        push_pair(bpe, &heap, ids, i, i + 1);
    while (heap.count > 0) {
        struct candidate top = heap_pop(&heap);
        size_t at = top.at, right = w.next[at];
        int32_t result;
        /* A removed symbol has id -1, which no merge has. */
        if (ids[at] < 0 || right >= n ||
            pair_rank(bpe, ids[at], ids[right], &result) == UINT32_MAX || result != top.result)
            continue;
        ids[at] = top.result;
        ids[right] = -1;
        w.next[at] = w.next[right];
        if (w.next[at] < n) {
            w.previous[w.next[at]] = (uint32_t)at;
            push_pair(bpe, &heap, ids, at, w.next[at]);
        }
        if (at > 0)
            push_pair(bpe, &heap, ids, w.previous[at], at);
    }
    size_t left = 0;
    for (size_t i = 0; i < n; i = w.next[i])
        ids[left++] = ids[i];
    return left;
}

enum itera_status itera_bpe_merge(const struct itera_bpe *bpe, int32_t *ids, size_t *count)
{
    size_t n = *count;
    if (n <= SHORT_PIECE && !bpe->many_ways) {
        *count = merge_short(bpe, ids, n);
        return ITERA_OK;
    }
    if (n <= SHORT_PIECE) {
        uint32_t next[SHORT_PIECE], previous[SHORT_PIECE];
        struct candidate candidates[3 * SHORT_PIECE];
        *count = merge_heap(bpe, ids, n, (struct workspace){next, previous, candidates});
        return ITERA_OK;
    }
    struct workspace w = {0};
    if (n < UINT32_MAX / 2) {
        w.next = malloc(n * sizeof *w.next);
        w.previous = malloc(n * sizeof *w.previous);
        w.candidates = malloc(3 * n * sizeof *w.candidates);
    }
    bool room = w.next && w.previous && w.candidates;
    if (room)
        *count = merge_heap(bpe, ids, n, w);
    free(w.next);
    free(w.previous);
    free(w.candidates);
    return room ? ITERA_OK
                : itera_fail(ITERA_ERR_MEMORY, "encode: no memory for a word of %zu bytes", n);
}

struct encoding {
    const struct itera_tokenizer *tokenizer;
    struct itera_tokens *tokens;
    struct itera_budget *budget;
    bool special; /* so that special tokens were taken out of the text */
};

static enum itera_status append_many(struct itera_tokens *tokens, const int32_t *ids, size_t count)
{
    enum itera_status status = ITERA_OK;
    for (size_t i = 0; i < count && !status; i++)
        status = itera_tokens_append(tokens, ids[i]);
    return status;
}

/* Remembers what a piece became. A cache that cannot grow is no error. */
static void remember(struct itera_bpe *bpe, const char *piece, size_t length, const int32_t *ids,
                     size_t count)
{
    if (bpe->cache.count >= CACHE_ENTRIES) {
        itera_bytemap_clear(&bpe->cache);
        bpe->cache_ids.count = 0;
    }
    uint64_t value = (uint64_t)bpe->cache_ids.count << 24 | count;
    if (!append_many(&bpe->cache_ids, ids, count))
        itera_bytemap_insert(&bpe->cache, piece, length, value, NULL);
}

/* The ids of bytes, the unknown token for those without one. */
static enum itera_status append_bytes(const struct itera_tokenizer *tokenizer, const char *piece,
                                      size_t length, struct itera_tokens *tokens)
{
    const struct itera_bpe *bpe = tokenizer->bpe;
    enum itera_status status = ITERA_OK;
    bool fuse = false;
    for (size_t i = 0; i < length && !status; i++) {
        unsigned char byte = (unsigned char)piece[i];
        bool known = bpe->byte_ids[byte] >= 0;
        if (!known && tokenizer->unknown < 0)
            return itera_fail(ITERA_ERR_FORMAT,
                              "encode: the tokenizer's vocabulary has no token for byte 0x%02X and "
                              "no unknown token; use a tokenizer with all 256 bytes",
                              byte);
        if (known || !fuse)
            status = itera_tokens_append(tokens, known ? bpe->byte_ids[byte] : tokenizer->unknown);
        fuse = !known && bpe->fuse_unknown;
    }
    return status;
}

/* Known bytes and others in turn: an unknown token is never merged. */
static enum itera_status encode_long(const struct encoding *e, const char *piece, size_t length)
{
    const int32_t *byte_ids = e->tokenizer->bpe->byte_ids;
    enum itera_status status = ITERA_OK;
    for (size_t at = 0, end; at < length && !status; at = end) {
        bool known = byte_ids[(unsigned char)piece[at]] >= 0;
        for (end = at + 1; end < length; end++)
            if ((byte_ids[(unsigned char)piece[end]] >= 0) != known)
                break;
        status =
            known ? itera_bpe_encode_long(e->tokenizer, piece + at, end - at, e->budget, e->tokens)
                  : append_bytes(e->tokenizer, piece + at, end - at, e->tokens);
    }
    return status;
}

static enum itera_status encode_piece(void *user, const char *piece, size_t length)
{
    const struct encoding *encoding = user;
    const struct itera_tokenizer *tokenizer = encoding->tokenizer;
    struct itera_tokens *tokens = encoding->tokens;
    struct itera_bpe *bpe = tokenizer->bpe;
    if (bpe->ignore_merges) {
        const uint64_t *id = itera_bytemap_find(&tokenizer->lookup, piece, length);
        /* The text of a special token is text, unless the caller says otherwise. */
        if (id && (encoding->special || !(tokenizer->tokens[*id].flags & ITERA_TOKEN_SPECIAL)))
            return itera_tokens_append(tokens, (int32_t)*id);
    }
    if (length > LONG_PIECE)
        return encode_long(encoding, piece, length);
    if (length <= CACHED_PIECE) {
        const uint64_t *hit = itera_bytemap_find(&bpe->cache, piece, length);
        if (hit)
            return append_many(tokens, bpe->cache_ids.ids + (*hit >> 24), *hit & 0xFFFFFF);
    }
    size_t first = tokens->count;
    enum itera_status status = append_bytes(tokenizer, piece, length, tokens);
    size_t count = tokens->count - first;
    if (!status)
        status = itera_bpe_merge(bpe, tokens->ids + first, &count);
    if (status)
        return status;
    tokens->count = first + count;
    if (length <= CACHED_PIECE)
        remember(bpe, piece, length, tokens->ids + first, count);
    return ITERA_OK;
}

/* A token of the normalized text, or the text between two. */
static enum itera_status encode_normalized(void *user, const char *text, size_t length, int32_t id)
{
    const struct encoding *e = user;
    if (id >= 0)
        return itera_tokens_append(e->tokens, id);
    return itera_pretokenize(e->tokenizer->bpe->pretokenizer, text, length, e->budget, encode_piece,
                             user);
}

/* A token of the text as it is, or the text between two. */
static enum itera_status encode_part(void *user, const char *text, size_t length, int32_t id)
{
    const struct encoding *e = user;
    struct itera_bpe *bpe = e->tokenizer->bpe;
    if (id >= 0)
        return itera_tokens_append(e->tokens, id);
    enum itera_status status = ITERA_OK;
    if (bpe->normalizer)
        status = itera_normalize(bpe->normalizer, text, length, e->budget, &text, &length);
    if (status)
        return status;
    return itera_added_split(&e->tokenizer->normalized, text, length, e->special, e->budget,
                             encode_normalized, user);
}

enum itera_status itera_bpe_encode(const struct itera_tokenizer *tokenizer, const char *text,
                                   size_t length, bool special, struct itera_budget *budget,
                                   struct itera_tokens *tokens)
{
    struct encoding encoding = {tokenizer, tokens, budget, special};
    enum itera_status status = ITERA_OK;
    pthread_mutex_lock(&tokenizer->bpe->lock);
    /* What is not UTF-8 has no characters to look at: each byte is a piece. */
    while (length > 0 && !status) {
        size_t valid = itera_utf8_valid_prefix(text, length);
        status = valid ? itera_added_split(&tokenizer->added, text, valid, special, budget,
                                           encode_part, &encoding)
                       : encode_piece(&encoding, text, 1);
        text += valid ? valid : 1;
        length -= valid ? valid : 1;
    }
    pthread_mutex_unlock(&tokenizer->bpe->lock);
    return status;
}
