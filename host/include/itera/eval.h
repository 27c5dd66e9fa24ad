/* Evaluation: how well a model predicts a text. Everything here runs on the model's device, so one
 * thread at a time may use it with the models of one device. */
#ifndef ITERA_EVAL_H
#define ITERA_EVAL_H

#include <stddef.h>
#include <stdint.h>

#include "itera/corpus.h"
#include "itera/model.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Called after each batch with the tokens scored so far and in all, and the mean nats per token so
 * far. Return non-zero to stop (ITERA_ERR_CANCELLED). */
typedef int itera_eval_progress_fn(void *user, uint64_t done, uint64_t total, double nll);

/* Zero-initialise and set what matters. */
struct itera_eval_options {
    int32_t window;  /* tokens that the model sees at once; 0: its learned positions, or 1024.
                        Never more than the learned positions, or the dataset. */
    int32_t stride;  /* tokens scored per window; the others are context from the window before.
                        0: half of the window. Equal to the window: no overlap. */
    int32_t batch;   /* windows computed together; 0: chosen by size */
    uint64_t tokens; /* stop after about so many scored tokens; 0: all */
    itera_eval_progress_fn *progress; /* may be NULL */
    void *user;
};

struct itera_eval_result {
    uint64_t tokens;        /* scored: every token of the dataset, end-of-text included */
    uint64_t bytes, words;  /* of the documents (corpus.h); a share of them when stopped early */
    double nll;             /* mean negative log-likelihood, nats per token */
    double perplexity;      /* exp(nll) */
    double word_perplexity; /* exp(total nats / words) */
    double bits_per_byte;   /* total nats / ln 2 / bytes */
    double seconds;
    double tokens_per_second;      /* scored tokens per second, context not counted */
    int32_t window, stride, batch; /* as used */
};

/* Scores the dataset (made with the model's tokenizer) on the model's device. The dataset is one
 * stream of tokens, each document followed by end-of-text; windows of `window` tokens move over it
 * by `stride`, each starting from a fresh state, and score the tokens that no window before has
 * scored. So every token, end-of-text included, is predicted exactly once, with at least
 * window - stride tokens of context (the first ones excepted, which begin from end-of-text).
 * The sum over batches is in double. options may be NULL.
 * Errors: ITERA_ERR_ARGUMENT for options out of range, for a dataset with tokens that the model
 * lacks, and for an empty one; ITERA_ERR_CANCELLED, with the result of what was scored; those of the device. A model whose logits are
 * not finite gives ITERA_ERR_FORMAT. */
ITERA_API enum itera_status itera_evaluate(struct itera_model *model,
                                           const struct itera_dataset *dataset,
                                           const struct itera_eval_options *options,
                                           struct itera_eval_result *result);

/* The logits (batch, time, vocabulary) of whole sequences from a fresh state: tokens is
 * (batch, time). Errors: ITERA_ERR_ARGUMENT for tokens out of range, or more of them than the model
 * has learned positions. */
ITERA_API enum itera_status itera_logits(struct itera_model *model, const int32_t *tokens,
                                         int64_t batch, int64_t time, float *logits);

/* Writes logits (time, vocabulary) of one sequence as tensor `logits` of a safetensors file,
 * atomically. */
ITERA_API enum itera_status itera_logits_save(const float *logits, int64_t time, int64_t vocab,
                                              const char *path);

#ifdef __cplusplus
}
#endif
#endif
