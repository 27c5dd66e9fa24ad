/* Training byte-level BPE.
 *
 * The corpus is reduced to its distinct pieces with their counts. Every pair of neighbouring
 * symbols has a count and the list of pieces that (may) contain it, and a heap holds the pairs by
 * count; a merge then touches only the pieces that contain the pair. Heap entries and lists are
 * allowed to be stale and are checked when they come up. Source: Sennrich, Haddow, Birch 2016,
 * section 3.2. */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "text/tokenizer_impl.h"

/* A longer piece (no white space for pages) is cut for training, to bound the cost of a merge. */
enum { LONGEST_PIECE = 256 };

struct pair {
    int32_t left, right;
    int64_t count;
    uint32_t *pieces;
    uint32_t piece_count, piece_capacity;
    int32_t touched; /* the last merge that added to it */
};

struct entry {
    int64_t count;
    int32_t left, right;
    uint32_t pair;
};

struct piece {
    size_t first; /* of its symbols */
    uint32_t length;
    int64_t count;
};

struct trainer {
    struct itera_tokenizer *tokenizer;
    struct itera_bytemap counts;
    struct piece *pieces;
    int32_t *symbols;
    struct pair *pairs;
    uint32_t *slots; /* pair index + 1 */
    size_t pair_count, pair_capacity, slot_count;
    struct entry *heap;
    size_t heap_count, heap_capacity;
    uint32_t *touched;
    size_t touched_count, touched_capacity;
    size_t merge_capacity;
};

static enum itera_status no_memory(void)
{
    return itera_fail(ITERA_ERR_MEMORY, "bpe training: no memory");
}

/* Makes room for one more item in the array that `array` points to; false when memory runs out. */
static bool room(void *array, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return true;
    size_t wanted = *capacity ? *capacity * 2 : 64;
    void *items;
    memcpy(&items, array, sizeof items);
    items = wanted <= SIZE_MAX / size ? realloc(items, wanted * size) : NULL;
    if (!items)
        return false;
    memcpy(array, &items, sizeof items);
    *capacity = wanted;
    return true;
}

static enum itera_status count_piece(void *user, const char *text, size_t length)
{
    struct trainer *trainer = user;
    while (length > 0) {
        size_t part = length < LONGEST_PIECE ? length : LONGEST_PIECE;
        uint64_t *count = itera_bytemap_insert(&trainer->counts, text, part, 0, NULL);
        if (!count)
            return no_memory();
        ++*count;
        text += part;
        length -= part;
    }
    return ITERA_OK;
}

static bool before(const struct entry *a, const struct entry *b)
{
    if (a->count != b->count)
        return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static enum itera_status heap_push(struct trainer *t, uint32_t index)
{
    if (!room(&t->heap, t->heap_count, &t->heap_capacity, sizeof *t->heap))
        return no_memory();
    const struct pair *pair = &t->pairs[index];
    struct entry item = {pair->count, pair->left, pair->right, index};
    size_t i = t->heap_count++;
    while (i > 0 && before(&item, &t->heap[(i - 1) / 2])) {
        t->heap[i] = t->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    t->heap[i] = item;
    return ITERA_OK;
}

static struct entry heap_pop(struct trainer *t)
{
    struct entry top = t->heap[0], last = t->heap[--t->heap_count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= t->heap_count)
            break;
        if (child + 1 < t->heap_count && before(&t->heap[child + 1], &t->heap[child]))
            child++;
        if (!before(&t->heap[child], &last))
            break;
        t->heap[i] = t->heap[child];
        i = child;
    }
    t->heap[i] = last;
    return top;
}

static size_t pair_slot(const struct trainer *t, int32_t left, int32_t right)
{
    uint64_t hash = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    size_t mask = t->slot_count - 1;
    size_t slot = (size_t)(hash >> 32) & mask;
    while (t->slots[slot]) {
        const struct pair *pair = &t->pairs[t->slots[slot] - 1];
        if (pair->left == left && pair->right == right)
            break;
        slot = (slot + 1) & mask;
    }
    return slot;
}

/* The pair's index, or UINT32_MAX when memory runs out. */
static uint32_t find_pair(struct trainer *t, int32_t left, int32_t right)
{
    if (2 * (t->pair_count + 1) > t->slot_count) {
        size_t slot_count = t->slot_count ? t->slot_count * 2 : 4096;
        uint32_t *slots = calloc(slot_count, sizeof *slots);
        if (!slots || t->pair_count >= UINT32_MAX - 2) {
            free(slots);
            return UINT32_MAX;
        }
        free(t->slots);
        t->slots = slots;
        t->slot_count = slot_count;
        for (size_t i = 0; i < t->pair_count; i++)
            t->slots[pair_slot(t, t->pairs[i].left, t->pairs[i].right)] = (uint32_t)i + 1;
    }
    size_t slot = pair_slot(t, left, right);
    if (t->slots[slot])
        return t->slots[slot] - 1;
    if (!room(&t->pairs, t->pair_count, &t->pair_capacity, sizeof *t->pairs))
        return UINT32_MAX;
    t->pairs[t->pair_count] = (struct pair){.left = left, .right = right, .touched = -1};
    t->slots[slot] = (uint32_t)++t->pair_count;
    return (uint32_t)t->pair_count - 1;
}

/* Adds a piece's pairs to the counts, and the piece to the lists of those that contain `symbol`
 * (-1: of all). */
static enum itera_status add_pairs(struct trainer *t, uint32_t index, int32_t symbol, int32_t merge)
{
    const struct piece *piece = &t->pieces[index];
    const int32_t *s = t->symbols + piece->first;
    for (uint32_t i = 0; i + 1 < piece->length; i++) {
        uint32_t found = find_pair(t, s[i], s[i + 1]);
        if (found == UINT32_MAX)
            return no_memory();
        struct pair *pair = &t->pairs[found];
        pair->count += piece->count;
        if (symbol >= 0 && s[i] != symbol && s[i + 1] != symbol)
            continue;
        if (pair->touched != merge) {
            pair->touched = merge;
            if (!room(&t->touched, t->touched_count, &t->touched_capacity, sizeof *t->touched))
                return no_memory();
            t->touched[t->touched_count++] = found;
        }
        if (pair->piece_count && pair->pieces[pair->piece_count - 1] == index)
            continue;
        if (pair->piece_count == pair->piece_capacity) {
            uint32_t capacity = pair->piece_capacity ? pair->piece_capacity * 2 : 4;
            uint32_t *pieces = capacity > pair->piece_capacity
                                   ? realloc(pair->pieces, capacity * sizeof *pieces)
                                   : NULL;
            if (!pieces)
                return no_memory();
            pair->pieces = pieces;
            pair->piece_capacity = capacity;
        }
        pair->pieces[pair->piece_count++] = index;
    }
    return ITERA_OK;
}

/* All new counts of a merge are known: tells the heap. */
static enum itera_status push_touched(struct trainer *t)
{
    enum itera_status status = ITERA_OK;
    for (size_t i = 0; i < t->touched_count && !status; i++)
        status = heap_push(t, t->touched[i]);
    t->touched_count = 0;
    return status;
}

static enum itera_status merge_in_piece(struct trainer *t, uint32_t index, int32_t left,
                                        int32_t right, int32_t result, int32_t merge)
{
    struct piece *piece = &t->pieces[index];
    int32_t *s = t->symbols + piece->first;
    uint32_t i = 0;
    while (i + 1 < piece->length && !(s[i] == left && s[i + 1] == right))
        i++;
    if (i + 1 >= piece->length)
        return ITERA_OK; /* listed once, gone since */
    for (uint32_t k = 0; k + 1 < piece->length; k++) {
        uint32_t found = find_pair(t, s[k], s[k + 1]);
        if (found == UINT32_MAX)
            return no_memory();
        t->pairs[found].count -= piece->count;
    }
    uint32_t length = i;
    while (i < piece->length) {
        bool pair = i + 1 < piece->length && s[i] == left && s[i + 1] == right;
        s[length++] = pair ? result : s[i];
        i += pair ? 2 : 1;
    }
    piece->length = length;
    return add_pairs(t, index, result, merge);
}

/* The id of the two tokens' texts together, which may exist already. */
static enum itera_status merged_token(struct itera_tokenizer *tokenizer, int32_t left,
                                      int32_t right, int32_t *result)
{
    const struct itera_token *a = &tokenizer->tokens[left], *b = &tokenizer->tokens[right];
    size_t length = (size_t)a->length + b->length;
    char bytes[2 * LONGEST_PIECE];
    memcpy(bytes, tokenizer->pool + a->offset, a->length);
    memcpy(bytes + a->length, tokenizer->pool + b->offset, b->length);
    const uint64_t *known = itera_bytemap_find(&tokenizer->lookup, bytes, length);
    *result = known ? (int32_t)*known : tokenizer->vocab_size;
    return known ? ITERA_OK
                 : itera_tokenizer_set(tokenizer, *result, bytes, length, ITERA_TOKEN_MODEL);
}

static enum itera_status merge_best(struct trainer *t, int32_t merge, bool *done)
{
    struct itera_bpe *bpe = t->tokenizer->bpe;
    struct entry best;
    do {
        if (t->heap_count == 0) {
            *done = true;
            return ITERA_OK;
        }
        best = heap_pop(t);
        int64_t now = t->pairs[best.pair].count;
        if (now == best.count)
            break;
        /* It lost occurrences since it was pushed; had it won some, there would be a newer entry.
         */
        enum itera_status status = now > 0 && now < best.count ? heap_push(t, best.pair) : ITERA_OK;
        if (status)
            return status;
    } while (true);
    if (best.count < 2) {
        *done = true;
        return ITERA_OK;
    }
    int32_t result;
    enum itera_status status = merged_token(t->tokenizer, best.left, best.right, &result);
    if (status)
        return status;
    if (!room(&bpe->merges, bpe->merge_count, &t->merge_capacity, sizeof *bpe->merges))
        return no_memory();
    bpe->merges[bpe->merge_count++] = (struct itera_merge){best.left, best.right, result};
    /* Taken out of the pair, because merging moves the array of pairs. */
    uint32_t *pieces = t->pairs[best.pair].pieces;
    uint32_t count = t->pairs[best.pair].piece_count;
    t->pairs[best.pair].pieces = NULL;
    t->pairs[best.pair].piece_count = t->pairs[best.pair].piece_capacity = 0;
    for (uint32_t i = 0; i < count && !status; i++)
        status = merge_in_piece(t, pieces[i], best.left, best.right, result, merge);
    free(pieces);
    return status ? status : push_touched(t);
}

static enum itera_status prepare(struct trainer *t, const struct itera_corpus *corpus)
{
    enum itera_status status = ITERA_OK;
    for (size_t i = 0; i < itera_corpus_documents(corpus) && !status; i++) {
        size_t length;
        const char *text = itera_corpus_document(corpus, i, &length);
        status = itera_split_gpt2(text, length, count_piece, t);
    }
    if (status)
        return status;
    size_t count = t->counts.count;
    t->pieces = calloc(count + 1, sizeof *t->pieces);
    t->symbols = malloc((t->counts.key_bytes + 1) * sizeof *t->symbols);
    if (!t->pieces || !t->symbols)
        return no_memory();
    for (size_t i = 0; i < t->counts.key_bytes; i++)
        t->symbols[i] = (unsigned char)t->counts.keys[i];
    for (size_t i = 0; i < count && !status; i++) {
        const struct itera_bytemap_entry *entry = &t->counts.entries[i];
        t->pieces[i] = (struct piece){entry->offset, entry->length, (int64_t)entry->value};
        status = add_pairs(t, (uint32_t)i, -1, 0);
    }
    return status ? status : push_touched(t);
}

enum itera_status itera_bpe_train(const struct itera_corpus *corpus, int32_t size,
                                  struct itera_tokenizer **out)
{
    *out = NULL;
    struct trainer trainer = {0};
    bool done = false;
    enum itera_status status = itera_tokenizer_new(ITERA_BPE, size, &trainer.tokenizer);
    for (int byte = 0; byte < 256 && !status; byte++) {
        char text = (char)byte;
        trainer.tokenizer->bpe->byte_ids[byte] = byte;
        status = itera_tokenizer_set(trainer.tokenizer, byte, &text, 1, ITERA_TOKEN_MODEL);
    }
    if (!status)
        status = prepare(&trainer, corpus);
    for (int32_t merge = 1; !status && !done && trainer.tokenizer->vocab_size < size - 1; merge++)
        status = merge_best(&trainer, merge, &done);
    if (!status) {
        trainer.tokenizer->end_of_text = trainer.tokenizer->vocab_size;
        status = itera_tokenizer_set(trainer.tokenizer, trainer.tokenizer->end_of_text,
                                     ITERA_END_OF_TEXT, sizeof ITERA_END_OF_TEXT - 1,
                                     ITERA_TOKEN_SPECIAL | ITERA_TOKEN_ADDED);
    }
    if (!status)
        status = itera_tokenizer_finish(trainer.tokenizer, "bpe training");
    for (size_t i = 0; i < trainer.pair_count; i++)
        free(trainer.pairs[i].pieces);
    free(trainer.pairs);
    free(trainer.slots);
    free(trainer.pieces);
    free(trainer.symbols);
    free(trainer.heap);
    free(trainer.touched);
    itera_bytemap_free(&trainer.counts);
    if (status)
        itera_tokenizer_destroy(&trainer.tokenizer);
    *out = trainer.tokenizer;
    return status;
}
