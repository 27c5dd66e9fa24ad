/* Datasets: a corpus as one array of ids, and the batches cut from it. */
#include <stdbool.h>
#include <stdlib.h>

#include "core/file.h"
#include "core/log.h"
#include "core/rng.h"
#include "itera/corpus.h"
#include "itera/tokenizer.h"
#include "text/tokenizer_impl.h"

struct itera_dataset {
    struct itera_tokens tokens;
    int32_t end_of_text;
    uint64_t bytes, words, unknown;
};

/* Random streams of an epoch: apart from each other, and from those of the model. */
enum { STREAM_OFFSET = 0x64617461, STREAM_ORDER = 0x64617462 };

static enum itera_status encode_corpus(struct itera_dataset *dataset,
                                       const struct itera_corpus *corpus,
                                       const struct itera_tokenizer *tokenizer)
{
    for (size_t i = 0; i < itera_corpus_documents(corpus); i++) {
        size_t length;
        const char *text = itera_corpus_document(corpus, i, &length);
        enum itera_status status =
            itera_tokenizer_encode(tokenizer, text, length, ITERA_TEXT_PLAIN, &dataset->tokens);
        if (status)
            return status;
        status = itera_tokens_append(&dataset->tokens, dataset->end_of_text);
        if (status)
            return status;
    }
    return ITERA_OK;
}

enum itera_status itera_dataset_create(const struct itera_corpus *corpus,
                                       const struct itera_tokenizer *tokenizer,
                                       struct itera_dataset **out)
{
    *out = NULL;
    struct itera_dataset *dataset = calloc(1, sizeof *dataset);
    if (!dataset)
        return itera_fail(ITERA_ERR_MEMORY, "dataset: no memory");
    dataset->end_of_text = itera_tokenizer_end_of_text(tokenizer);
    enum itera_status status = ITERA_OK;
    if (dataset->end_of_text < 0)
        status = itera_fail(ITERA_ERR_ARGUMENT,
                            "dataset: nothing ends a text, and so separates documents: the "
                            "tokenizer has no <|endoftext|>, the model's configuration no "
                            "eos_token_id");
    if (!status && tokenizer->kind != ITERA_BYTE)
        status = itera_corpus_check_utf8(corpus);
    if (!status)
        status = encode_corpus(dataset, corpus, tokenizer);
    if (!status) /* the corpus's files are among those that are open */
        status = itera_map_check_all();
    if (status) {
        itera_dataset_destroy(&dataset);
        return status;
    }
    dataset->bytes = itera_corpus_bytes(corpus);
    dataset->words = itera_corpus_words(corpus);
    int32_t unknown = itera_tokenizer_unknown(tokenizer);
    for (size_t i = 0; i < dataset->tokens.count && unknown >= 0; i++)
        dataset->unknown += dataset->tokens.ids[i] == unknown;
    *out = dataset;
    return ITERA_OK;
}

void itera_dataset_destroy(struct itera_dataset **dataset)
{
    if (!dataset || !*dataset)
        return;
    itera_tokens_free(&(*dataset)->tokens);
    free(*dataset);
    *dataset = NULL;
}

const int32_t *itera_dataset_tokens(const struct itera_dataset *dataset, size_t *count)
{
    *count = dataset->tokens.count;
    return dataset->tokens.ids;
}

uint64_t itera_dataset_bytes(const struct itera_dataset *dataset)
{
    return dataset->bytes;
}

uint64_t itera_dataset_words(const struct itera_dataset *dataset)
{
    return dataset->words;
}

uint64_t itera_dataset_unknown(const struct itera_dataset *dataset)
{
    return dataset->unknown;
}

/* So many that every offset below seq leaves them whole, where the text is long enough for that. */
uint64_t itera_dataset_windows(const struct itera_dataset *dataset, size_t seq)
{
    size_t count = dataset->tokens.count;
    if (seq == 0 || count <= seq)
        return 0;
    return (count - seq) / seq > 0 ? (count - seq) / seq : 1;
}

uint64_t itera_dataset_epoch_steps(const struct itera_dataset *dataset, size_t batch, size_t seq)
{
    uint64_t windows = itera_dataset_windows(dataset, seq);
    return batch ? windows / batch + (windows % batch != 0) : 0;
}

/* The image of `index` under a pseudo-random permutation of [0, count): a Feistel network over the
 * next even power of two, walked until it falls inside. Nothing is stored, so that any step of any
 * epoch can be asked for. Source: Black, Rogaway 2002, "Ciphers with arbitrary finite domains". */
static uint64_t permute(uint64_t seed, uint64_t epoch, uint64_t index, uint64_t count)
{
    unsigned half = 1;
    while (half < 32 && (uint64_t)1 << 2 * half < count)
        half++;
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = index >> half, right = index & mask;
        for (uint64_t round = 0; round < 6; round++) {
            uint32_t value[4];
            itera_philox(seed, STREAM_ORDER + (round << 32), (epoch << 32) ^ right, value);
            uint64_t mixed = left ^ (value[0] & mask);
            left = right;
            right = mixed;
        }
        index = left << half | right;
    } while (index >= count);
    return index;
}

enum itera_status itera_dataset_batch(const struct itera_dataset *dataset, uint64_t seed,
                                      uint64_t step, size_t batch, size_t seq, int32_t *inputs,
                                      int32_t *targets)
{
    size_t count = dataset->tokens.count;
    if (batch == 0 || seq == 0)
        return itera_fail(ITERA_ERR_ARGUMENT, "dataset: batch and sequence must not be 0");
    uint64_t windows = itera_dataset_windows(dataset, seq);
    if (windows == 0)
        return itera_fail(ITERA_ERR_LIMIT,
                          "dataset: its %zu tokens are fewer than one window of %zu + 1; use more "
                          "text or shorter sequences",
                          count, seq);
    uint64_t slack = count - windows * seq; /* offsets 0 to slack - 1 leave room */
    uint32_t offsets = (uint32_t)(slack < seq ? slack : seq);
    for (size_t row = 0; row < batch; row++) {
        uint64_t window = step * batch + row;
        uint64_t epoch = window / windows;
        uint32_t random = itera_rng_at(seed, STREAM_OFFSET, epoch);
        uint64_t offset = ((uint64_t)random * offsets) >> 32;
        uint64_t start = offset + permute(seed, epoch, window % windows, windows) * seq;
        const int32_t *ids = dataset->tokens.ids + start;
        for (size_t t = 0; t < seq; t++) {
            inputs[row * seq + t] = ids[t];
            targets[row * seq + t] = ids[t + 1];
        }
    }
    return ITERA_OK;
}

/* Windows of `fresh` new targets each; the first has `seq` of them. */
static uint64_t eval_windows(const struct itera_dataset *dataset, size_t seq, size_t overlap)
{
    uint64_t count = dataset->tokens.count;
    size_t fresh = seq - overlap;
    if (count <= seq)
        return count > 0;
    return 1 + (count - seq) / fresh + ((count - seq) % fresh != 0);
}

uint64_t itera_dataset_eval_batches(const struct itera_dataset *dataset, size_t batch, size_t seq,
                                    size_t overlap)
{
    if (batch == 0 || seq == 0 || overlap >= seq)
        return 0;
    uint64_t windows = eval_windows(dataset, seq, overlap);
    return windows / batch + (windows % batch != 0);
}

enum itera_status itera_dataset_eval_batch(const struct itera_dataset *dataset, uint64_t index,
                                           size_t batch, size_t seq, size_t overlap,
                                           int32_t *inputs, int32_t *targets, size_t *scored)
{
    uint64_t batches = itera_dataset_eval_batches(dataset, batch, seq, overlap);
    if (index >= batches)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "dataset: no evaluation batch %llu (there are %llu of %zu x %zu, overlap "
                          "%zu)",
                          (unsigned long long)index, (unsigned long long)batches, batch, seq,
                          overlap);
    uint64_t windows = eval_windows(dataset, seq, overlap), count = dataset->tokens.count;
    const int32_t *ids = dataset->tokens.ids;
    size_t total = 0;
    for (size_t row = 0; row < batch; row++) {
        uint64_t window = index * batch + row;
        for (size_t t = 0; t < seq; t++) {
            /* The position of the target; its input is the token before it. */
            uint64_t at = window * (seq - overlap) + t;
            bool inside = window < windows && at < count;
            bool score = inside && (window == 0 || t >= overlap);
            inputs[row * seq + t] = inside && at > 0 ? ids[at - 1] : dataset->end_of_text;
            targets[row * seq + t] = score ? ids[at] : -1;
            total += score;
        }
    }
    if (scored)
        *scored = total;
    return ITERA_OK;
}
