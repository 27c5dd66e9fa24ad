/* Source: AddedVocabulary of Hugging Face's library, whose matches these are, one by one. */
#include "text/added.h"

#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "text/utf8.h"

enum itera_status itera_added_insert(struct itera_added *set, const char *text, size_t length,
                                     int32_t id, unsigned flags)
{
    if (set->count == set->capacity) {
        size_t capacity = 2 * set->capacity + 16;
        void *entries = realloc(set->entries, capacity * sizeof *set->entries);
        if (!entries)
            return itera_fail(ITERA_ERR_MEMORY, "tokenizer: no memory for its added tokens");
        set->entries = entries;
        set->capacity = capacity;
    }
    if (set->pool_size + length > set->pool_capacity) {
        size_t capacity = 2 * set->pool_capacity + length + 256;
        char *pool = realloc(set->pool, capacity);
        if (!pool)
            return itera_fail(ITERA_ERR_MEMORY, "tokenizer: no memory for its added tokens");
        set->pool = pool;
        set->pool_capacity = capacity;
    }
    memcpy(set->pool + set->pool_size, text, length);
    set->entries[set->count] = (struct itera_added_entry){set->pool_size, (uint32_t)length,
                                                          (uint32_t)set->count, id, flags};
    set->pool_size += length;
    set->count++;
    set->ordinary |= !(flags & ITERA_ADDED_SPECIAL);
    return ITERA_OK;
}

static int compare_entries(const void *a, const void *b, void *pool)
{
    const struct itera_added_entry *x = a, *y = b;
    const char *texts = pool;
    size_t length = x->length < y->length ? x->length : y->length;
    int order = memcmp(texts + x->offset, texts + y->offset, length);
    if (order)
        return order;
    if (x->length != y->length)
        return x->length < y->length ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

void itera_added_finish(struct itera_added *set)
{
    struct itera_added_entry *e = set->entries;
    size_t kept = 0;
    if (set->count)
        qsort_r(e, set->count, sizeof *e, compare_entries, set->pool);
    for (size_t i = 0; i < set->count; i++) {
        bool same = kept > 0 && e[kept - 1].length == e[i].length &&
                    !memcmp(set->pool + e[kept - 1].offset, set->pool + e[i].offset, e[i].length);
        if (!same)
            e[kept++] = e[i];
    }
    set->count = kept;
    memset(set->first, 0, sizeof set->first);
    for (size_t i = 0; i < kept; i++)
        set->first[(unsigned char)set->pool[e[i].offset] + 1]++;
    for (int i = 0; i < 256; i++)
        set->first[i + 1] += set->first[i];
}

void itera_added_free(struct itera_added *set)
{
    free(set->entries);
    free(set->pool);
    *set = (struct itera_added){0};
}

/* The first entry of [low, high) whose byte at `depth` is `byte` or larger; all have one. */
static size_t lower_bound(const struct itera_added *set, size_t low, size_t high, size_t depth,
                          unsigned byte)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)set->pool[set->entries[middle].offset + depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest entry that the text starts with, or NULL. *steps counts the bytes compared. */
static const struct itera_added_entry *longest(const struct itera_added *set, const char *text,
                                               size_t length, uint64_t *steps)
{
    const struct itera_added_entry *best = NULL;
    size_t low = set->first[(unsigned char)text[0]], high = set->first[(unsigned char)text[0] + 1];
    for (size_t depth = 1; low < high; depth++) {
        const struct itera_added_entry *entry = &set->entries[low];
        ++*steps;
        if (entry->length == depth) {
            best = entry;
            low++;
        }
        if (low == high || depth == length)
            break;
        entry = &set->entries[low];
        if (high - low == 1) {
            const char *bytes = set->pool + entry->offset;
            while (depth < entry->length && depth < length && bytes[depth] == text[depth])
                depth++;
            *steps += depth;
            best = depth == entry->length ? entry : best;
            break;
        }
        unsigned byte = (unsigned char)text[depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1);
    }
    return best;
}

/* The classes of the character that starts at or ends before a place; broken bytes have none. */
static unsigned classes_behind(const char *text, size_t length, size_t *used)
{
    uint32_t code = 0;
    *used = 1;
    bool valid = itera_utf8_next(text, length, &code, used) == ITERA_UTF8_VALID;
    return valid ? itera_classes(code) : 0;
}

static unsigned classes_before(const char *text, size_t at, size_t *used)
{
    size_t start = at - 1, length;
    while (start > 0 && at - start < 4 && ((unsigned char)text[start] & 0xC0) == 0x80)
        start--;
    unsigned found = classes_behind(text + start, at - start, &length);
    *used = start + length == at ? length : 1;
    return start + length == at ? found : 0;
}

static bool is_single_word(const char *text, size_t length, size_t start, size_t stop)
{
    size_t used;
    if (start > 0 && classes_before(text, start, &used) & ITERA_CLASS_WORD)
        return false;
    return stop == length ||
           !(classes_behind(text + stop, length - stop, &used) & ITERA_CLASS_WORD);
}

enum itera_status itera_added_split(const struct itera_added *set, const char *text, size_t length,
                                    bool special, struct itera_budget *budget, itera_added_fn *fn,
                                    void *user)
{
    enum itera_status status = ITERA_OK;
    size_t done = 0, at = 0, used;
    uint64_t steps = 0;
    if (!special && !set->ordinary)
        at = length;
    while (at < length) {
        if (steps > 1 << 16 || status) {
            status = status ? status : itera_budget_take(budget, steps);
            steps = 0;
            if (status)
                return status;
        }
        unsigned byte = (unsigned char)text[at];
        const struct itera_added_entry *entry = NULL;
        if (set->first[byte] < set->first[byte + 1])
            entry = longest(set, text + at, length - at, &steps);
        if (!entry) {
            at++;
            continue;
        }
        size_t start = at, stop = at + entry->length;
        at = stop;
        if (!special && entry->flags & ITERA_ADDED_SPECIAL)
            continue;
        if (entry->flags & ITERA_ADDED_SINGLE_WORD && !is_single_word(text, length, start, stop))
            continue;
        if (entry->flags & ITERA_ADDED_LSTRIP) {
            while (start > done && classes_before(text, start, &used) & ITERA_CLASS_SPACE)
                start -= used;
            start = start > done ? start : done;
        }
        if (entry->flags & ITERA_ADDED_RSTRIP) {
            while (stop < length &&
                   classes_behind(text + stop, length - stop, &used) & ITERA_CLASS_SPACE) {
                stop += used;
                steps++;
            }
        }
        if (done < start)
            status = fn(user, text + done, start - done, -1);
        if (!status)
            status = fn(user, text + start, stop > start ? stop - start : 0, entry->id);
        done = stop;
    }
    if (!status)
        status = itera_budget_take(budget, steps);
    if (!status && done < length)
        status = fn(user, text + done, length - done, -1);
    return status;
}
