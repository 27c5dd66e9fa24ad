/* Text to learn from: corpora (documents of bytes) and datasets (one array of token ids).
 *
 * A corpus opens files, folders or the built-in story generator, and hands out documents. A dataset
 * is a corpus encoded by a tokenizer, every document followed by the end-of-text id, and cuts it
 * into batches: shuffled windows to train on, sequential ones to evaluate. Both are immutable after
 * they are made, so that any number of threads may read them. */
#ifndef ITERA_CORPUS_H
#define ITERA_CORPUS_H

#include <stddef.h>
#include <stdint.h>

#include "itera/status.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

struct itera_tokenizer;
struct itera_corpus;
struct itera_dataset;

/* Opens a source:
 *   builtin:stories[?valid][&seed=N][&bytes=N]   generated; "valid" is a held-out stream. The
 *                                                default is 2,000,000 bytes (valid: 200,000)
 *   FILE                                         UTF-8 text, mapped, never copied
 *   DIRECTORY                                    its *.txt files in byte order of their names
 *   FILE?valid, DIRECTORY?valid                  the part of it that is set aside for validation
 *   FILE?train, DIRECTORY?train                  the rest (both unless a file has that name)
 *   SOURCE,SOURCE,...                            several of these (unless a file has that name)
 *
 * Set aside is each 20th of 40 documents and more; of fewer, the last twentieth of each, from the
 * next line on (or word, or character, where no other line begins).
 *
 * Documents are separated by the text `<|endoftext|>`. One newline ("\n" or "\r\n") on each side of
 * a separator belongs to the separator; nothing else is trimmed, a file without a separator is one
 * document as it is, and a byte order mark at the start of a file is skipped. Documents of nothing
 * but ASCII white space do not count.
 * Errors: ITERA_ERR_IO; ITERA_ERR_ARGUMENT for a bad builtin; ITERA_ERR_FORMAT when there is no
 * document at all. */
ITERA_API enum itera_status itera_corpus_open(const char *source, struct itera_corpus **out);

/* The same rules on `length` bytes in memory, which are copied; `name` is for messages. */
ITERA_API enum itera_status itera_corpus_from_text(const char *text, size_t length,
                                                   const char *name, struct itera_corpus **out);

ITERA_API void itera_corpus_destroy(struct itera_corpus **corpus);

ITERA_API size_t itera_corpus_documents(const struct itera_corpus *corpus);

/* Document `index`; the bytes are valid while the corpus lives and are not 0-terminated. NULL and
 * length 0 when there is no such document. */
ITERA_API const char *itera_corpus_document(const struct itera_corpus *corpus, size_t index,
                                            size_t *length);

/* Bytes of all documents, without separators: the divisor of bits per byte. */
ITERA_API uint64_t itera_corpus_bytes(const struct itera_corpus *corpus);

/* Words of all documents: runs without ASCII white space, plus one for every newline. It is how
 * WikiText counts (each line ends with <eos>): the divisor of perplexity per word. */
ITERA_API uint64_t itera_corpus_words(const struct itera_corpus *corpus);

/* Encodes every document, each followed by the end-of-text id. Corpus and tokenizer need live only
 * for the call. Errors: ITERA_ERR_ARGUMENT when the tokenizer has no end-of-text token;
 * ITERA_ERR_FORMAT when the text is not UTF-8 and the tokenizer not the byte tokenizer; those of
 * itera_tokenizer_encode. */
ITERA_API enum itera_status itera_dataset_create(const struct itera_corpus *corpus,
                                                 const struct itera_tokenizer *tokenizer,
                                                 struct itera_dataset **out);
ITERA_API void itera_dataset_destroy(struct itera_dataset **dataset);

/* The ids; valid while the dataset lives. */
ITERA_API const int32_t *itera_dataset_tokens(const struct itera_dataset *dataset, size_t *count);
ITERA_API uint64_t itera_dataset_bytes(const struct itera_dataset *dataset); /* as the corpus's */
ITERA_API uint64_t itera_dataset_words(const struct itera_dataset *dataset); /* as the corpus's */
ITERA_API uint64_t
itera_dataset_unknown(const struct itera_dataset *dataset); /* how many ids are <unk> */

/* Training windows in one epoch, and the steps of `batch` windows that it takes (rounded up).
 * Windows are `seq` + 1 tokens long and `seq` apart. 0 when the dataset is shorter than one. */
ITERA_API uint64_t itera_dataset_windows(const struct itera_dataset *dataset, size_t seq);
ITERA_API uint64_t itera_dataset_epoch_steps(const struct itera_dataset *dataset, size_t batch,
                                             size_t seq);

/* The training batch of a step, a pure function of (dataset, seed, step, batch, seq): inputs and
 * targets are (batch, seq), targets one token ahead. Each epoch visits its windows once, in an
 * order and from an offset of its own; a step may span two epochs. Errors: ITERA_ERR_ARGUMENT when
 * batch or seq is 0; ITERA_ERR_LIMIT when the dataset has fewer than seq + 1 tokens. */
ITERA_API enum itera_status itera_dataset_batch(const struct itera_dataset *dataset, uint64_t seed,
                                                uint64_t step, size_t batch, size_t seq,
                                                int32_t *inputs, int32_t *targets);

/* Evaluation batches. Windows of `seq` positions follow each other in the stream, each re-reading
 * the last `overlap` (< seq) positions of the one before for context; every token of the dataset is
 * a target exactly once, the first one predicted from the end-of-text id. */
ITERA_API uint64_t itera_dataset_eval_batches(const struct itera_dataset *dataset, size_t batch,
                                              size_t seq, size_t overlap);

/* Fills batch `index`: row r is window index * batch + r. Targets that are not to be scored
 * (context and padding) are -1; padded inputs are the end-of-text id. `scored` (may be NULL)
 * receives how many targets are not -1. Errors: ITERA_ERR_ARGUMENT when an argument is out of
 * range. */
ITERA_API enum itera_status itera_dataset_eval_batch(const struct itera_dataset *dataset,
                                                     uint64_t index, size_t batch, size_t seq,
                                                     size_t overlap, int32_t *inputs,
                                                     int32_t *targets, size_t *scored);

#ifdef __cplusplus
}
#endif
#endif
