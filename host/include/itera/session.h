/* Sessions: a model reading and writing text, token by token, for one or more sequences at once. */
#ifndef ITERA_SESSION_H
#define ITERA_SESSION_H

#include <stddef.h>
#include <stdint.h>

#include "itera/model.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

struct itera_session;

/* Called after each chunk of a prefill: `done` of `total` tokens of each sequence were given to the
 * device. Where windows are full, that is one position's sequences after another's, each with what is
 * read again. Return non-zero to stop (ITERA_ERR_CANCELLED). */
typedef int itera_prefill_progress_fn(void *user, size_t done, size_t total);

/* Zero-initialise and set what matters. */
struct itera_session_options {
    int32_t batch;     /* sequences; 0: 1 */
    int32_t positions; /* families with learned positions: read at most so many before the window
                          moves; 0: all that the model has */
    int32_t chunk;     /* largest number of tokens that one prefill run reads, rounded down to a
                          power of two; 0: 512 */
    itera_prefill_progress_fn *progress; /* after each chunk of a prefill; may be NULL */
    void *user;
};

/* How the next token is chosen. All zero is greedy. Rows of the vocabulary beyond the tokens of the
 * model's tokenizer are never chosen. */
struct itera_sampling {
    float temperature; /* 0: the most likely token, always */
    int32_t top_k;     /* of the top_k most likely tokens only; 0: all */
    float top_p;       /* of the fewest most likely tokens that together have at least this
                          probability; 0 or 1: all */
    float min_p;       /* of tokens that are at least min_p times as likely as the likeliest, chosen
                          before top_k and top_p; 0: all, at most 1 */
    uint64_t seed;
    /* Taken off the logits of tokens that itera_session_next gave out to the sequence, since it
     * began or since this was set: `presence` once, `frequency` each time. Negative: likelier. */
    float presence, frequency;
    /* Of the same tokens: a logit below 0 is multiplied by it, another divided, before these are
     * taken off. 0 or 1: neither. */
    float repetition;
};

/* A session keeps the state of `batch` sequences on the model's device: a few vectors per layer for
 * state space models, whatever the length; keys and values of the window for attention. The model
 * must outlive the session, and its weights must not change meanwhile. options may be NULL. One
 * thread at a time may use a session, or sessions of one device.
 * Errors: ITERA_ERR_ARGUMENT for options out of range; ITERA_ERR_MEMORY. */
ITERA_API enum itera_status itera_session_create(struct itera_model *model,
                                                 const struct itera_session_options *options,
                                                 struct itera_session **session);
ITERA_API void itera_session_destroy(struct itera_session **session);

/* Back to the beginning: no token read. Sampling settings stay, their random streams go on. */
ITERA_API enum itera_status itera_session_reset(struct itera_session *session);
/* The same for one sequence (0 .. batch - 1), apart from the others. ITERA_ERR_ARGUMENT where
 * there is none such. */
ITERA_API enum itera_status itera_session_reset_sequence(struct itera_session *session,
                                                         int32_t sequence);

/* Sets how `sequence` (-1: every one; sequence s then gets seed + s) chooses tokens, and begins
 * its random stream, and the counts of its tokens, anew. sampling may be NULL: greedy. Errors:
 * ITERA_ERR_ARGUMENT. */
ITERA_API enum itera_status itera_session_set_sampling(struct itera_session *session,
                                                       int32_t sequence,
                                                       const struct itera_sampling *sampling);

/* Adds bias[k] to the logits of tokens[k] whenever `sequence` (-1: every one) chooses a token,
 * however it does; what was set before is forgotten, so that a count of 0 ends it.
 * itera_session_logits gives the model's own. The first bias or penalty of a session compiles
 * its programs for sampling again.
 * Errors: ITERA_ERR_ARGUMENT for tokens out of range and numbers that are not finite. */
ITERA_API enum itera_status itera_session_set_bias(struct itera_session *session, int32_t sequence,
                                                   const int32_t *tokens, const float *bias,
                                                   size_t count);

/* Compiles everything that prefilling n tokens and decoding step by step need, so that these calls
 * allocate nothing; without it, it happens on first use. */
ITERA_API enum itera_status itera_session_warm(struct itera_session *session, size_t n);

/* Reads n tokens of every sequence: tokens is (batch, n), row-major. It goes on from what was read
 * before; a token that itera_session_next gave out last is read first. Nothing at all (n is 0 at
 * the beginning) stands for one end-of-text token. Only the logits of the last position are
 * computed.
 *
 * Where a model has learned positions and they end, the session takes the last half of its window,
 * reads it again from a fresh state, and goes on from there; the log says so once.
 * Errors: ITERA_ERR_ARGUMENT for a token out of range, or without an end-of-text token where one is
 * needed; ITERA_ERR_MEMORY and device errors, after which the session must be reset;
 * ITERA_ERR_CANCELLED, after which the sequences that were to read must be reset, or loaded. */
ITERA_API enum itera_status itera_session_prefill(struct itera_session *session,
                                                  const int32_t *tokens, size_t n);

/* Chooses the next token of every sequence, and gives them out in tokens (batch). The first call
 * after a prefill chooses from its logits; every later one reads the token given out before, which
 * costs the same at any position. Without a prefill, it begins from end-of-text. */
ITERA_API enum itera_status itera_session_next(struct itera_session *session, int32_t *tokens);

/* Says that itera_session_next will be called `tokens` times more. Where nothing but sampling decides
 * what comes next (a GPU, no bias or penalty, room in the window), the device then computes several of
 * them before they are asked for, and never waits for the host. Asking for fewer, or for anything
 * else, is no error: what was computed in advance is undone, bit for bit, which costs some steps; so
 * say a number that will rather be used. Whatever looks at states or logits, or changes how a
 * sequence goes on, ends it. The first call compiles copies of states, and makes room for two.
 * Errors: device errors, also in the calls after it: then the session must be reset. */
ITERA_API enum itera_status itera_session_run_ahead(struct itera_session *session, uint64_t tokens);

/* itera_session_prefill and itera_session_next for some of the sequences, which may be at different
 * positions; the others stay as they are. sequences has `count` of them, in any order and each once (NULL: the first
 * `count`); row k of tokens, (count, n) in a prefill and (count) in next, is for sequences[k].
 * What a sequence computes does not depend on the others: neither on their tokens, nor on which
 * of them go on. On the CPU, in models with experts, that is true to the rounding of sums: how
 * many rows an expert gets decides how they are added up. A call for a part of them takes as
 * long as one for all, and copies of the state of all besides (on the device; the first such
 * call makes room for them); one for all of them, wherever they are, costs no more than in step.
 * Where windows are full at different positions, each position is read apart.
 * Errors: as above; ITERA_ERR_ARGUMENT for a sequence that there is not, or that is in the list
 * twice. */
ITERA_API enum itera_status itera_session_prefill_some(struct itera_session *session,
                                                       const int32_t *sequences, size_t count,
                                                       const int32_t *tokens, size_t n);
ITERA_API enum itera_status itera_session_next_some(struct itera_session *session,
                                                    const int32_t *sequences, size_t count,
                                                    int32_t *tokens);

/* Saves what `sequence` has read, its sampling and its random stream as bytes, with which any
 * session of the same model (the same weights in the same types) and window goes on: in another
 * process, on another device, at any place of a batch. On the same device and with the same
 * batch, it goes on bit for bit (but see itera_session_prefill_some on experts). Free *bytes
 * with free(). The first call hashes all weights, which names the model in the bytes.
 * Penalties, biases and the counts of tokens are saved, too, and replace those of where it is loaded.
 * Errors: ITERA_ERR_ARGUMENT for a sequence that there is not; ITERA_ERR_FORMAT where its numbers are
 * no longer finite; ITERA_ERR_MEMORY; device errors. */
ITERA_API enum itera_status itera_session_save(struct itera_session *session, int32_t sequence,
                                               void **bytes, size_t *size);
/* Makes saved bytes the state of `sequence`, apart from the others. The bytes may come from
 * anywhere: all of them are checked before anything changes.
 * Errors: ITERA_ERR_FORMAT for bytes that are no state, or a damaged one; ITERA_ERR_UNSUPPORTED
 * for those of another version; ITERA_ERR_ARGUMENT for those of another model or window, and for
 * a sequence that there is not; ITERA_ERR_MEMORY and device errors, after which the sequence must be
 * reset or loaded again. */
ITERA_API enum itera_status itera_session_load(struct itera_session *session, int32_t sequence,
                                               const void *bytes, size_t size);
/* Makes `to` a copy of `from`, its random stream included: both go on with the same tokens,
 * until they read different ones or itera_session_set_sampling gives one another seed.
 * Errors: ITERA_ERR_ARGUMENT, ITERA_ERR_MEMORY; device errors. */
ITERA_API enum itera_status itera_session_copy(struct itera_session *session, int32_t from,
                                               int32_t to);

/* The logits (batch, vocabulary) after the last token that each sequence read; the row of one
 * that has read nothing means nothing. ITERA_ERR_ARGUMENT when none has read any. */
ITERA_API enum itera_status itera_session_logits(struct itera_session *session, float *logits);

ITERA_API int32_t itera_session_batch(const struct itera_session *session);
/* Tokens read so far per sequence, since the beginning; of the sequence that has read most. */
ITERA_API uint64_t itera_session_tokens_read(const struct itera_session *session);
/* Tokens that the model ran over for them, per sequence: without those that a window had no room
 * for, and with those that were read again; the most of any sequence. What rates are to count. */
ITERA_API uint64_t itera_session_tokens_run(const struct itera_session *session);
/* Tokens that one sequence has read since its beginning; 0 where there is no such sequence. */
ITERA_API uint64_t itera_session_sequence_tokens_read(const struct itera_session *session,
                                                      int32_t sequence);
/* Device memory of the session: state, and the activations of its compiled programs. */
ITERA_API size_t itera_session_bytes(const struct itera_session *session);

#ifdef __cplusplus
}
#endif
#endif
