/* Smaller models from trained ones. Everything here runs on the model's device, so one thread at a
 * time may use it with the models of one device. */
#ifndef ITERA_COMPRESS_H
#define ITERA_COMPRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "itera/corpus.h"
#include "itera/model.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Called with how much is done and of how much. Return non-zero to stop (ITERA_ERR_CANCELLED). */
typedef int itera_compress_progress_fn(void *user, int64_t done, int64_t total);

/* ---- pruning ---------------------------------------------------------------------------------
 * Whole experts and channels leave, and the model gets smaller shapes. docs/pruning.md says what
 * is measured and why. */

/* Zero-initialise and set what matters. A size says what is kept: "N", or "P%" of what there is,
 * which is rounded to the nearest multiple of 32 (the block of q8 and q4 weights) unless that is
 * all there is; NULL keeps all. */
struct itera_prune_options {
    const char *experts; /* experts of each MoE layer: those with the largest share of routing */
    const char *ffn;     /* channels of each feed-forward, and of each expert */
    const char *inner;   /* channels of each mixer */
    /* "P%": of the feed-forward's and the mixer's channels, where the model has these and they have
     * no size of their own above. */
    const char *channels;
    int64_t tokens; /* of the text to calibrate on; 0: 32768, or a shorter text whole */
    itera_compress_progress_fn *progress; /* of the calibration; may be NULL */
    void *user;
};

/* The sizes of a model. 0: it has no such part. */
struct itera_prune_sizes {
    int32_t experts, ffn, inner;
    int64_t parameters;
    int64_t bytes; /* of the weights in memory */
    double flops_per_token;
};

/* What was kept in a layer. Shares are of the layer's sum on the calibration text, 1 where nothing
 * was removed, NaN where the layer has no such part. */
struct itera_prune_layer {
    int32_t experts;     /* that it has now; 0: no router */
    const int32_t *kept; /* the numbers that these had, rising */
    double routed;       /* share of the routing that went to them */
    double ffn, inner;   /* share of the importance of channels; of experts, weighted by routing */
    /* itera: root mean square error of the step by the rows of delta_proj that stayed, relative to
     * the root mean square of the step; else NaN. */
    double step_error;
};

struct itera_prune_report {
    int64_t tokens; /* calibrated on */
    struct itera_prune_sizes before, after;
    int32_t n_layers;
    struct itera_prune_layer *layers;
};

/* Makes a smaller model of `model` (which stays as it is) on the same device, in f32, with a copy of
 * its tokenizer. data was encoded with the model's tokenizer; options may be NULL. The caller owns *out and *report.
 * Errors: ITERA_ERR_ARGUMENT for a size that is no number, impossible, or of a part that the model
 * lacks, when nothing would be removed, and when the text is too short; ITERA_ERR_UNSUPPORTED for a
 * quantised model; ITERA_ERR_CANCELLED; those of the device. */
ITERA_API enum itera_status itera_prune(struct itera_model *model, const struct itera_dataset *data,
                                        const struct itera_prune_options *options,
                                        struct itera_model **out,
                                        struct itera_prune_report **report);
/* The sizes that itera_prune would arrive at, without its work; parameters, bytes and FLOPs are not
 * filled in. options may be NULL. Errors: those of sizes. */
ITERA_API enum itera_status itera_prune_plan(const struct itera_model *model,
                                             const struct itera_prune_options *options,
                                             struct itera_prune_sizes *sizes);
ITERA_API void itera_prune_report_destroy(struct itera_prune_report **report);

/* ---- quantising ------------------------------------------------------------------------------
 * The same shapes in narrower types. docs/quantization.md says what the types are, how they are
 * chosen, and how weights are rounded. */

/* A tensor of the model's file after quantising. Names and dimensions live for the call that gets
 * it. */
struct itera_quantize_tensor {
    const char *name;
    int32_t rank;
    const int64_t *dim;
    const char *from, *to; /* types in files */
    const char *asked;     /* what the rules say; another than `to` where blocks do not fit, and in
                              "mixed" where the error would be far above what the type costs */
    int64_t elements;
    int64_t bytes_from, bytes_to; /* in files */
    double rms_error;      /* root mean square error over root mean square; 0 if both are 0 */
    double max_error;      /* the largest absolute difference */
    double weighted_error; /* as rms_error, squares weighted by the importance of the input channel;
                              NaN without calibration, and for what is no product's weight */
};

/* Zero-initialise and set what matters. */
struct itera_quantize_options {
    const char *to;         /* "f32", "f16", "bf16", "q8", "q4" or "mixed"; NULL: "mixed" */
    const char *const *set; /* "PATTERN=TYPE", or several with commas: globs over tensors' names; */
    int n_set;              /* the last that matches counts */
    bool plain;             /* to nearest with the reference scales: quick, for benchmarks */
    int threads;            /* of the host that round; 0: one per processor */
    /* Text to weight errors with, encoded with the model's tokenizer; NULL: all weigh the same. */
    const struct itera_dataset *calibration;
    int64_t calibration_tokens;              /* 0: 32768, or a shorter text whole */
    itera_compress_progress_fn *calibrating; /* tokens; may be NULL */
    itera_compress_progress_fn *progress;    /* weights; may be NULL */
    void (*tensor)(void *user, const struct itera_quantize_tensor *tensor); /* may be NULL */
    void *user;
};

/* Makes a model with the weights of `model` (which stays as it is) in other types on the same
 * device, with a copy of its tokenizer. The caller owns *out; options may be NULL.
 * Errors: ITERA_ERR_ARGUMENT for an unknown type, a pattern that matches nothing, types that
 * tensors cannot have, and a calibration text that is too short or has tokens that the model lacks;
 * ITERA_ERR_UNSUPPORTED for a model that has q8 or q4 weights already; ITERA_ERR_LIMIT for a weight
 * too large for its type; ITERA_ERR_CANCELLED; ITERA_ERR_MEMORY; those of the device. */
ITERA_API enum itera_status itera_quantize(struct itera_model *model,
                                           const struct itera_quantize_options *options,
                                           struct itera_model **out);

/* ---- vocabulary ------------------------------------------------------------------------------
 * Fewer tokens: those that a text uses, or those of a new tokenizer made from it. docs/vocabulary.md
 * says which stay and what becomes of their rows. */

/* Zero-initialise and set what matters. */
struct itera_vocab_options {
    int32_t size;      /* at most so many tokens: those that the text uses most; 0: no limit */
    int64_t min_count; /* tokens that the text uses less often go; 0: 1 */
    int32_t retrain;   /* > 0: a new tokenizer of the same kind with at most so many tokens, made
                          from the text; size and min_count do not apply */
};

/* How a text is cut into tokens by one tokenizer and by another. */
struct itera_vocab_coverage {
    uint64_t bytes;         /* of the text's documents */
    uint64_t before, after; /* tokens, end-of-text not counted */
    uint64_t same_tokens;   /* of those before, how many are the same token of the same bytes */
    uint64_t same_bytes;    /* in these */
    uint64_t unknown_before, unknown_after; /* tokens that are <unk> */
};

struct itera_vocab_report {
    int32_t vocab_before, vocab_after; /* tokens of the model */
    int32_t kept;                      /* new tokens that have the row of the same old token */
    int32_t averaged;                  /* those that have the mean of several old rows */
    int64_t parameters_before, parameters_after;
    int64_t bytes_before, bytes_after; /* of the weights in memory */
};

/* Makes a model with a smaller vocabulary of `model` (which stays as it is) on the same device, in
 * f32, with a tokenizer of its own. The caller owns *out; options may be NULL.
 * Errors: ITERA_ERR_ARGUMENT for a model without a tokenizer or with one of bytes, for a size that
 * is impossible, and when nothing would be removed; ITERA_ERR_UNSUPPORTED for a quantised model;
 * those of itera_tokenizer_encode and itera_tokenizer_train. */
ITERA_API enum itera_status itera_vocab_reduce(struct itera_model *model,
                                               const struct itera_corpus *corpus,
                                               const struct itera_vocab_options *options,
                                               struct itera_model **out,
                                               struct itera_vocab_report *report);

/* Compares what two tokenizers of one kind make of a text. */
ITERA_API enum itera_status itera_vocab_cover(const struct itera_tokenizer *before,
                                              const struct itera_tokenizer *after,
                                              const struct itera_corpus *corpus,
                                              struct itera_vocab_coverage *coverage);

#ifdef __cplusplus
}
#endif
#endif
