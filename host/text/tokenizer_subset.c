/* Tokenizers made of others: copies, and those of fewer tokens. */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "text/tokenizer_impl.h"

enum itera_status itera_tokenizer_copy(const struct itera_tokenizer *tokenizer, const char *name,
                                       struct itera_tokenizer **out)
{
    *out = NULL;
    if (!tokenizer)
        return ITERA_OK;
    char *json = NULL;
    enum itera_status status = itera_tokenizer_to_json(tokenizer, &json);
    if (!status)
        status = itera_tokenizer_from_json(json, strlen(json), name, out);
    free(json);
    return status;
}

static enum itera_status copy_bpe(const struct itera_bpe *from, const int32_t *map,
                                  struct itera_bpe *to)
{
    to->ignore_merges = from->ignore_merges;
    to->fuse_unknown = from->fuse_unknown;
    /* But for the post-processor: it names ids, and adds nothing here. */
    for (int part = 0; part < ITERA_BPE_PARTS; part++) {
        if (!from->parts[part] || part == ITERA_POST_PROCESSOR)
            continue;
        to->parts[part] = strdup(from->parts[part]);
        if (!to->parts[part])
            return itera_fail(ITERA_ERR_MEMORY, "tokenizer: no memory for its %s",
                              itera_bpe_part_names[part]);
    }
    for (int i = 0; i < 256; i++)
        to->byte_ids[i] = from->byte_ids[i] < 0 ? -1 : map[from->byte_ids[i]];
    to->merges = calloc(from->merge_count + 1, sizeof *to->merges);
    if (!to->merges)
        return itera_fail(ITERA_ERR_MEMORY, "tokenizer: no memory for its merges");
    for (size_t i = 0; i < from->merge_count; i++) {
        struct itera_merge m = from->merges[i];
        m = (struct itera_merge){map[m.left], map[m.right], map[m.result]};
        if (m.left >= 0 && m.right >= 0 && m.result >= 0)
            to->merges[to->merge_count++] = m;
    }
    return ITERA_OK;
}

enum itera_status itera_tokenizer_subset(const struct itera_tokenizer *from, const int32_t *map,
                                         int32_t count, struct itera_tokenizer **out)
{
    struct itera_tokenizer *t;
    enum itera_status status = itera_tokenizer_new(from->kind, count, &t);
    *out = NULL;
    if (status)
        return status;
    t->punctuation = from->punctuation;
    t->end_of_text = from->end_of_text < 0 ? -1 : map[from->end_of_text];
    t->unknown = from->unknown < 0 ? -1 : map[from->unknown];
    for (int32_t id = 0; id < from->vocab_size && !status; id++) {
        const struct itera_token *token = &from->tokens[id];
        if (map[id] >= 0)
            status = itera_tokenizer_set(t, map[id], from->pool + token->offset, token->length,
                                         token->flags);
    }
    if (!status && from->bpe)
        status = copy_bpe(from->bpe, map, t->bpe);
    if (!status)
        status = itera_tokenizer_finish(t, "the smaller tokenizer");
    if (status)
        itera_tokenizer_destroy(&t);
    *out = t;
    return status;
}
