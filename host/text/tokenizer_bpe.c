/* Byte-level BPE encoding.
 *
 * The text is cut into pieces; within a piece the adjacent pair of lowest rank, leftmost first, is
 * merged until none has a rank. Pieces repeat, so their ids are cached.
 * Source: Sennrich, Haddow, Birch 2016, "Neural machine translation of rare words with subword
 * units", algorithm 1; Radford et al. 2019 for bytes as the base alphabet. */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "text/tokenizer_impl.h"

enum {
    SHORT_PIECE = 48,       /* up to here a linear search for the next merge beats a heap */
    CACHED_PIECE = 128,     /* longer pieces hardly repeat */
    CACHE_ENTRIES = 1 << 18 /* then it starts afresh; some 20 MB */
};

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
    itera_splitter_destroy(&(*bpe)->splitter);
    itera_bytemap_free(&(*bpe)->cache);
    itera_tokens_free(&(*bpe)->cache_ids);
    pthread_mutex_destroy(&(*bpe)->lock);
    free((*bpe)->merges);
    free((*bpe)->slots);
    free((*bpe)->pattern);
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
    return itera_splitter_create(bpe->pattern, bpe->pattern ? strlen(bpe->pattern) : 0, name,
                                 &bpe->splitter);
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

/* A candidate merge of the symbols at `at` and after it. It is stale when one of them changed
 * since. */
struct candidate {
    uint32_t rank;
    int32_t left, right, result;
    size_t at;
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
        heap_push(heap, (struct candidate){rank, ids[left], ids[right], result, left});
}

/* The same result in n log n: symbols in a doubly linked list, candidates in a heap. Each merge
 * removes a symbol and adds two candidates at most, so that 3 n bounds the heap. */
static enum itera_status merge_long(const struct itera_bpe *bpe, int32_t *ids, size_t *count)
{
    size_t n = *count;
    enum itera_status status = ITERA_OK;
    size_t *next = NULL, *previous = NULL;
    struct heap heap = {0};
    if (n <= SIZE_MAX / (3 * sizeof *heap.items)) {
        next = malloc(n * sizeof *next);
        previous = malloc(n * sizeof *previous);
        heap.items = malloc(3 * n * sizeof *heap.items);
    }
    if (!next || !previous || !heap.items) {
        status = itera_fail(ITERA_ERR_MEMORY, "encode: no memory for a word of %zu bytes", n);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        next[i] = i + 1;
        previous[i] = i - 1;
    }
    for (size_t i = 0; i + 1 < n; i++)
        push_pair(bpe, &heap, ids, i, i + 1);
    while (heap.count > 0) {
        struct candidate top = heap_pop(&heap);
        size_t at = top.at, right = next[at];
        /* A removed symbol has id -1, which no candidate has. */
        if (ids[at] != top.left || right >= n || ids[right] != top.right)
            continue;
        ids[at] = top.result;
        ids[right] = -1;
        next[at] = next[right];
        if (next[at] < n) {
            previous[next[at]] = at;
            push_pair(bpe, &heap, ids, at, next[at]);
        }
        if (at > 0)
            push_pair(bpe, &heap, ids, previous[at], at);
    }
    size_t left = 0;
    for (size_t i = 0; i < n; i = next[i])
        ids[left++] = ids[i];
    *count = left;
done:
    free(next);
    free(previous);
    free(heap.items);
    return status;
}

struct encoding {
    const struct itera_tokenizer *tokenizer;
    struct itera_tokens *tokens;
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

static enum itera_status encode_piece(void *user, const char *piece, size_t length)
{
    const struct encoding *encoding = user;
    const struct itera_tokenizer *tokenizer = encoding->tokenizer;
    struct itera_tokens *tokens = encoding->tokens;
    struct itera_bpe *bpe = tokenizer->bpe;
    if (length <= CACHED_PIECE) {
        const uint64_t *hit = itera_bytemap_find(&bpe->cache, piece, length);
        if (hit)
            return append_many(tokens, bpe->cache_ids.ids + (*hit >> 24), *hit & 0xFFFFFF);
    }
    if (bpe->ignore_merges) {
        const uint64_t *id = itera_bytemap_find(&tokenizer->lookup, piece, length);
        if (id)
            return itera_tokens_append(tokens, (int32_t)*id);
    }
    size_t first = tokens->count;
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)piece[i];
        int32_t id = bpe->byte_ids[byte] >= 0 ? bpe->byte_ids[byte] : tokenizer->unknown;
        if (id < 0)
            return itera_fail(ITERA_ERR_FORMAT,
                              "encode: the tokenizer's vocabulary has no token for byte 0x%02X and "
                              "no unknown token; use a tokenizer with all 256 bytes",
                              byte);
        enum itera_status status = itera_tokens_append(tokens, id);
        if (status)
            return status;
    }
    size_t count = length;
    if (count <= SHORT_PIECE) {
        count = merge_short(bpe, tokens->ids + first, count);
    } else {
        enum itera_status status = merge_long(bpe, tokens->ids + first, &count);
        if (status)
            return status;
    }
    tokens->count = first + count;
    if (length <= CACHED_PIECE)
        remember(bpe, piece, length, tokens->ids + first, count);
    return ITERA_OK;
}

enum itera_status itera_bpe_encode(const struct itera_tokenizer *tokenizer, const char *text,
                                   size_t length, struct itera_tokens *tokens)
{
    struct itera_bpe *bpe = tokenizer->bpe;
    char *spaced = NULL;
    if (bpe->add_prefix_space && text[0] != ' ') {
        spaced = malloc(length + 1);
        if (!spaced)
            return itera_fail(ITERA_ERR_MEMORY, "encode: no memory for %zu bytes", length);
        spaced[0] = ' ';
        memcpy(spaced + 1, text, length);
        text = spaced;
        length++;
    }
    struct encoding encoding = {tokenizer, tokens};
    pthread_mutex_lock(&bpe->lock);
    enum itera_status status = itera_split(bpe->splitter, text, length, encode_piece, &encoding);
    pthread_mutex_unlock(&bpe->lock);
    free(spaced);
    return status;
}
