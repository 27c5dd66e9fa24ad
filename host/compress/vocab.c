/* Smaller vocabularies: which tokens stay, and the rows of embedding and head that they get. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/surgery.h"
#include "core/log.h"
#include "itera/compress.h"
#include "text/tokenizer_impl.h"

/* ---- what a text uses ------------------------------------------------------------------------ */

static enum itera_status encode_document(const struct itera_tokenizer *tokenizer,
                                         const struct itera_corpus *corpus, size_t index,
                                         struct itera_tokens *tokens)
{
    size_t length;
    const char *text = itera_corpus_document(corpus, index, &length);
    tokens->count = 0;
    return itera_tokenizer_encode(tokenizer, text, length, ITERA_TEXT_PLAIN, tokens);
}

/* count[id]: how often the text has each token. */
static enum itera_status count_tokens(const struct itera_tokenizer *tokenizer,
                                      const struct itera_corpus *corpus, uint64_t *count)
{
    struct itera_tokens tokens = {0};
    enum itera_status status = ITERA_OK;
    for (size_t d = 0; d < itera_corpus_documents(corpus) && !status; d++) {
        status = encode_document(tokenizer, corpus, d, &tokens);
        for (size_t i = 0; i < tokens.count && !status; i++)
            count[tokens.ids[i]]++;
    }
    itera_tokens_free(&tokens);
    return status;
}

/* A token, ordered by use: the more often used first, the shorter among equals, so that the halves
 * of a merge come before its result. */
struct usage {
    uint64_t count;
    uint32_t length;
    int32_t id;
};

static int by_length(const void *a, const void *b)
{
    const struct usage *x = a, *y = b;
    if (x->length != y->length)
        return x->length > y->length ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int by_use(const void *a, const void *b)
{
    const struct usage *x = a, *y = b;
    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    if (x->length != y->length)
        return x->length < y->length ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Merges by result: those of token t are list[start[t]] to list[start[t + 1] - 1]. */
struct merge_index {
    size_t *start;
    const struct itera_merge **list;
};

static bool index_merges(const struct itera_tokenizer *t, struct merge_index *index)
{
    size_t n = t->bpe ? t->bpe->merge_count : 0;
    index->start = calloc((size_t)t->vocab_size + 2, sizeof *index->start);
    index->list = calloc(n + 1, sizeof *index->list);
    if (!index->start || !index->list)
        return false;
    /* A counting sort; start[t + 1] first holds where the next merge of t goes. */
    for (size_t i = 0; i < n; i++)
        index->start[t->bpe->merges[i].result + 2]++;
    for (int32_t id = 0; id < t->vocab_size; id++)
        index->start[id + 2] += index->start[id + 1];
    for (size_t i = 0; i < n; i++)
        index->list[index->start[t->bpe->merges[i].result + 1]++] = &t->bpe->merges[i];
    return true;
}

/* Of tokens with many ways to be made, counts would overflow. */
static void add_count(uint64_t *count, uint64_t more)
{
    const uint64_t most = UINT64_MAX / 2;
    *count = *count + more < most ? *count + more : most;
}

/* Adds the uses of each token to those of the halves that merge into it, so that a half is used at
 * least as often: whatever keeps the most used tokens can still make all of them. */
static void count_halves(const struct itera_tokenizer *t, const struct merge_index *index,
                         struct usage *order, uint64_t *count)
{
    for (int32_t i = 0; i < t->vocab_size; i++)
        order[i] = (struct usage){0, t->tokens[i].length, i};
    qsort(order, (size_t)t->vocab_size, sizeof *order, by_length);
    for (int32_t i = 0; i < t->vocab_size; i++) {
        int32_t id = order[i].id;
        for (size_t m = index->start[id]; m < index->start[id + 1] && count[id]; m++) {
            add_count(&count[index->list[m]->left], count[id]);
            add_count(&count[index->list[m]->right], count[id]);
        }
    }
}

/* Whether a token stays whatever the text: without it something could not be written. */
static bool is_needed(const struct itera_tokenizer *t, const struct itera_config *c, int32_t id)
{
    if (t->tokens[id].flags & (ITERA_TOKEN_SPECIAL | ITERA_TOKEN_ADDED))
        return true;
    if (id == t->unknown || id == t->end_of_text || id == c->bos || id == c->eos || id == c->pad)
        return true;
    for (int32_t i = 0; i < c->n_more_eos; i++)
        if (id == c->more_eos[i])
            return true;
    for (int i = 0; i < 256 && t->bpe; i++)
        if (t->bpe->byte_ids[i] == id)
            return true;
    return false;
}

/* map[id]: the new id, or -1; *kept: how many stay. */
static enum itera_status choose_tokens(const struct itera_model *m,
                                       const struct itera_vocab_options *o, const uint64_t *count,
                                       struct usage *order, int32_t *map, int32_t *kept)
{
    const struct itera_tokenizer *t = m->tokenizer;
    int32_t n = t->vocab_size, needed = 0;
    for (int32_t id = 0; id < n; id++) {
        map[id] = is_needed(t, &m->config, id) ? 0 : -1;
        needed += map[id] == 0;
        order[id] = (struct usage){count[id], t->tokens[id].length, id};
    }
    if (o->size && (o->size < needed || o->size > m->config.vocab))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "vocabulary: cannot keep %d of %d tokens; from %d (%s) to %d can be kept",
                          o->size, m->config.vocab, needed,
                          t->bpe ? "bytes and special tokens" : "special tokens", m->config.vocab);
    qsort(order, (size_t)n, sizeof *order, by_use);
    uint64_t least = o->min_count > 1 ? (uint64_t)o->min_count : 1;
    int32_t left = o->size ? o->size - needed : n;
    for (int32_t i = 0; i < n && left && order[i].count >= least; i++) {
        if (map[order[i].id] < 0) {
            map[order[i].id] = 0;
            left--;
        }
    }
    *kept = 0;
    for (int32_t id = 0; id < n; id++)
        if (map[id] == 0)
            map[id] = (*kept)++;
    if (*kept >= m->config.vocab)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "vocabulary: nothing would be removed: the text uses all %d tokens; "
                          "give a size or a higher count",
                          m->config.vocab);
    return ITERA_OK;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* For each new token, the old ones whose rows make up its own: ids[start[t]] to
 * ids[start[t + 1] - 1]. */
struct rows {
    size_t *start;
    struct itera_tokens ids;
};

static void rows_free(struct rows *rows)
{
    free(rows->start);
    itera_tokens_free(&rows->ids);
}

static enum itera_status rows_of_subset(const struct itera_tokenizer *old, const int32_t *map,
                                        struct rows *rows)
{
    enum itera_status status = ITERA_OK;
    for (int32_t id = 0; id < old->vocab_size && !status; id++) {
        if (map[id] < 0)
            continue;
        status = itera_tokens_append(&rows->ids, id);
        rows->start[map[id] + 1] = rows->ids.count;
    }
    return status;
}

/* The old token of the same text as a new one, or -1. */
static int32_t find_same(const struct itera_tokenizer *old, const struct itera_tokenizer *new,
                         int32_t id)
{
    const struct itera_token *token = &new->tokens[id];
    const char *bytes = new->pool + token->offset;
    if (id == new->end_of_text && old->end_of_text >= 0)
        return old->end_of_text;
    if (id == new->unknown && old->unknown >= 0)
        return old->unknown;
    if (!(token->flags & ITERA_TOKEN_ADDED)) {
        const uint64_t *found = itera_bytemap_find(&old->lookup, bytes, token->length);
        return found ? (int32_t)*found : -1;
    }
    return itera_tokenizer_find_added(old, bytes, token->length);
}

static enum itera_status rows_of_new(const struct itera_tokenizer *old,
                                     const struct itera_tokenizer *new, struct rows *rows)
{
    enum itera_status status = ITERA_OK;
    for (int32_t id = 0; id < new->vocab_size && !status; id++) {
        const struct itera_token *token = &new->tokens[id];
        int32_t same = find_same(old, new, id);
        if (same >= 0)
            status = itera_tokens_append(&rows->ids, same);
        else
            status = itera_tokenizer_encode(old, new->pool + token->offset, token->length,
                                            ITERA_TEXT_PLAIN, &rows->ids);
        rows->start[id + 1] = rows->ids.count;
    }
    return status;
}

/* Copies all parameters but gives those with a row per token the means of their old rows. */
static void copy_weights(const struct itera_model *old, const struct itera_model *new,
                         const struct rows *rows, const float *from, float *to)
{
    for (int i = 0; i < old->layout.n_params; i++) {
        const struct itera_param *a = &old->layout.params[i], *b = &new->layout.params[i];
        if (itera_shape_equal_dims(&a->shape, &b->shape)) {
            memcpy(to + b->offset, from + a->offset,
                   (size_t)itera_shape_elements(&a->shape) * sizeof *to);
            continue;
        }
        int64_t cols = itera_shape_cols(&b->shape);
        for (int32_t t = 0; t < new->config.vocab; t++) {
            size_t first = rows->start[t], count = rows->start[t + 1] - first;
            float *row = to + b->offset + t * cols;
            for (int64_t c = 0; c < cols; c++) {
                double sum = 0;
                for (size_t k = 0; k < count; k++)
                    sum += (double)from[a->offset + rows->ids.ids[first + k] * cols + c];
                row[c] = count ? (float)(sum / (double)count) : 0;
            }
        }
    }
}

static int32_t new_id(const int32_t *map, const struct itera_tokenizer *old, int32_t id)
{
    return id >= 0 && id < old->vocab_size ? map[id] : -1;
}

/* The model with the new tokenizer, of which it becomes the owner on success. map: old id to new
 * one. */
static enum itera_status make_model(const struct itera_model *old, struct itera_tokenizer *new,
                                    const int32_t *map, const struct rows *rows,
                                    struct itera_model **out)
{
    struct itera_config config = old->config;
    struct itera_model *m = NULL;
    config.vocab = new->vocab_size;
    config.bos = new_id(map, old->tokenizer, config.bos);
    config.eos = new_id(map, old->tokenizer, config.eos);
    config.pad = new_id(map, old->tokenizer, config.pad);
    config.n_more_eos = 0;
    for (int32_t i = 0; i < old->config.n_more_eos; i++) {
        const int32_t id = new_id(map, old->tokenizer, old->config.more_eos[i]);
        if (id >= 0)
            config.more_eos[config.n_more_eos++] = id;
    }
    enum itera_status status = itera_model_allocate(old->device, &config, &m);
    if (status)
        return status;
    float *from = malloc((size_t)old->layout.elements * sizeof *from);
    float *to = calloc((size_t)m->layout.elements, sizeof *to);
    if (!from || !to)
        status = itera_fail(ITERA_ERR_MEMORY, "vocabulary: no memory for the weights");
    if (!status)
        status = itera_model_read_f32(old, from);
    if (!status) {
        copy_weights(old, m, rows, from, to);
        status = itera_model_write_f32(m, to);
    }
    if (!status)
        status = itera_model_set_tokenizer(m, new);
    free(from);
    free(to);
    if (status)
        itera_model_destroy(&m);
    *out = m;
    return status;
}

/* ---- both ways ------------------------------------------------------------------------------- */

static enum itera_status shrink(const struct itera_model *m, const struct itera_corpus *corpus,
                                const struct itera_vocab_options *o, int32_t *map,
                                struct rows *rows, struct itera_tokenizer **new)
{
    const struct itera_tokenizer *old = m->tokenizer;
    size_t n = (size_t)old->vocab_size;
    uint64_t *count = calloc(n + 1, sizeof *count);
    struct usage *order = calloc(n + 1, sizeof *order);
    struct merge_index index = {0};
    int32_t kept = 0;
    enum itera_status status = ITERA_OK;
    if (!count || !order || !index_merges(old, &index))
        status = itera_fail(ITERA_ERR_MEMORY, "vocabulary: no memory to count tokens");
    if (!status)
        status = count_tokens(old, corpus, count);
    if (!status) {
        count_halves(old, &index, order, count);
        status = choose_tokens(m, o, count, order, map, &kept);
    }
    if (!status)
        status = itera_tokenizer_subset(old, map, kept, new);
    if (!status) {
        rows->start = calloc((size_t)kept + 1, sizeof *rows->start);
        status = rows->start ? rows_of_subset(old, map, rows)
                             : itera_fail(ITERA_ERR_MEMORY, "vocabulary: no memory for its rows");
    }
    free(count);
    free(order);
    free(index.start);
    free(index.list);
    return status;
}

static enum itera_status retrain(const struct itera_model *m, const struct itera_corpus *corpus,
                                 int32_t size, int32_t *map, struct rows *rows,
                                 struct itera_tokenizer **new)
{
    const struct itera_tokenizer *old = m->tokenizer;
    if (size >= m->config.vocab)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "vocabulary: a new tokenizer of %d tokens is not smaller; the model has "
                          "%d",
                          size, m->config.vocab);
    char spec[32];
    snprintf(spec, sizeof spec, old->kind == ITERA_CHAR ? "%s" : "%s:%d", itera_tokenizer_kind(old),
             size);
    enum itera_status status = itera_tokenizer_train(spec, corpus, new);
    if (status)
        return status;
    if ((*new)->vocab_size > size)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "vocabulary: the text has %d characters; %d tokens are too few",
                          (*new)->vocab_size - 2, size);
    rows->start = calloc((size_t)(*new)->vocab_size + 1, sizeof *rows->start);
    if (!rows->start)
        return itera_fail(ITERA_ERR_MEMORY, "vocabulary: no memory for its rows");
    for (int32_t id = 0; id < (*new)->vocab_size; id++) {
        int32_t same = find_same(old, *new, id);
        if (same >= 0)
            map[same] = id;
    }
    return rows_of_new(old, *new, rows);
}

enum itera_status itera_vocab_reduce(struct itera_model *model, const struct itera_corpus *corpus,
                                     const struct itera_vocab_options *options,
                                     struct itera_model **out, struct itera_vocab_report *report)
{
    static const struct itera_vocab_options defaults;
    const struct itera_tokenizer *old = model->tokenizer;
    if (!options)
        options = &defaults;
    *out = NULL;
    *report = (struct itera_vocab_report){0};
    if (!old)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "vocabulary: the model has no tokenizer: what its tokens are is unknown");
    if (itera_model_is_quantised(model))
        return itera_fail(ITERA_ERR_UNSUPPORTED,
                          "vocabulary: the model is quantised: shrink first, then quantise");
    if (old->kind == ITERA_BYTE)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "vocabulary: a tokenizer of bytes has nothing that could go");
    if (options->size < 0 || options->min_count < 0 || options->retrain < 0)
        return itera_fail(ITERA_ERR_ARGUMENT, "vocabulary: a size or count is negative");
    int32_t *map = malloc(((size_t)old->vocab_size + 1) * sizeof *map);
    if (!map)
        return itera_fail(ITERA_ERR_MEMORY, "vocabulary: no memory for its tokens");
    for (int32_t id = 0; id < old->vocab_size; id++)
        map[id] = -1;
    struct rows rows = {0};
    struct itera_tokenizer *new = NULL;
    enum itera_status status = options->retrain
                                   ? retrain(model, corpus, options->retrain, map, &rows, &new)
                                   : shrink(model, corpus, options, map, &rows, &new);
    if (!status)
        status = make_model(model, new, map, &rows, out);
    if (!status) {
        for (int32_t id = 0; id < old->vocab_size; id++)
            report->kept += map[id] >= 0;
        report->vocab_before = model->config.vocab;
        report->vocab_after = new->vocab_size;
        report->averaged = new->vocab_size - report->kept;
        report->parameters_before = model->info.parameters;
        report->parameters_after = (*out)->info.parameters;
        report->bytes_before = model->info.bytes;
        report->bytes_after = (*out)->info.bytes;
    } else {
        itera_tokenizer_destroy(&new);
    }
    rows_free(&rows);
    free(map);
    return status;
}

/* ---- coverage -------------------------------------------------------------------------------- */

static bool same_text(const struct itera_tokenizer *a, int32_t x, const struct itera_tokenizer *b,
                      int32_t y)
{
    const struct itera_token *s = &a->tokens[x], *t = &b->tokens[y];
    return s->length == t->length && !memcmp(a->pool + s->offset, b->pool + t->offset, s->length);
}

/* bpe: both lists spell the same bytes; counts tokens that begin and end at the same places. */
static void cover_spans(const struct itera_tokenizer *a, const struct itera_tokens *x,
                        const struct itera_tokenizer *b, const struct itera_tokens *y,
                        struct itera_vocab_coverage *c)
{
    uint64_t at = 0, other = 0;
    size_t j = 0;
    for (size_t i = 0; i < x->count; i++) {
        while (j < y->count && other < at)
            other += b->tokens[y->ids[j++]].length;
        if (j < y->count && other == at && same_text(a, x->ids[i], b, y->ids[j])) {
            c->same_tokens++;
            c->same_bytes += a->tokens[x->ids[i]].length;
        }
        at += a->tokens[x->ids[i]].length;
    }
}

/* Others: a token is the same where the other tokenizer has it, as both cut alike. */
static void cover_tokens(const struct itera_tokenizer *a, const struct itera_tokens *x,
                         const struct itera_tokenizer *b, struct itera_vocab_coverage *c)
{
    for (size_t i = 0; i < x->count; i++) {
        const struct itera_token *token = &a->tokens[x->ids[i]];
        if (x->ids[i] == a->unknown ||
            !itera_bytemap_find(&b->lookup, a->pool + token->offset, token->length))
            continue;
        c->same_tokens++;
        c->same_bytes += token->length;
    }
}

static uint64_t count_unknown(const struct itera_tokenizer *t, const struct itera_tokens *tokens)
{
    uint64_t unknown = 0;
    for (size_t i = 0; i < tokens->count && t->unknown >= 0; i++)
        unknown += tokens->ids[i] == t->unknown;
    return unknown;
}

enum itera_status itera_vocab_cover(const struct itera_tokenizer *before,
                                    const struct itera_tokenizer *after,
                                    const struct itera_corpus *corpus,
                                    struct itera_vocab_coverage *coverage)
{
    struct itera_vocab_coverage *c = coverage;
    struct itera_tokens x = {0}, y = {0};
    enum itera_status status = ITERA_OK;
    *c = (struct itera_vocab_coverage){.bytes = itera_corpus_bytes(corpus)};
    if (before->kind != after->kind)
        status = itera_fail(ITERA_ERR_ARGUMENT, "vocabulary: a %s and a %s tokenizer",
                            itera_tokenizer_kind(before), itera_tokenizer_kind(after));
    for (size_t d = 0; d < itera_corpus_documents(corpus) && !status; d++) {
        status = encode_document(before, corpus, d, &x);
        if (!status)
            status = encode_document(after, corpus, d, &y);
        if (status)
            break;
        c->before += x.count;
        c->after += y.count;
        c->unknown_before += count_unknown(before, &x);
        c->unknown_after += count_unknown(after, &y);
        if (before->kind == ITERA_BPE)
            cover_spans(before, &x, after, &y, c);
        else
            cover_tokens(before, &x, after, c);
    }
    itera_tokens_free(&x);
    itera_tokens_free(&y);
    return status;
}
