/* Smaller models from trained ones. Everything here runs on the model's device, so one thread at a
 * time may use it with the models of one device. */
#ifndef ITERA_COMPRESS_H
#define ITERA_COMPRESS_H

#include <stdint.h>

#include "itera/corpus.h"
#include "itera/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Called with how much is done and of how much. Return non-zero to stop (ITERA_ERR_CANCELLED). */
typedef int itera_compress_progress_fn(void *user, int64_t done, int64_t total);

/* ---- pruning ---------------------------------------------------------------------------------
 * Whole experts and channels leave, and the model gets smaller shapes. docs/pruning.md says what
 * is measured and why. */

/* Zero-initialise and set what matters. A size says what is kept: "N", or "P%" of what there is,
 * which is rounded to a multiple of 32 (the block of q8 and q4 weights) where one lies below what
 * there is; NULL keeps all. */
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
 * its tokenizer. data was encoded with the model's tokenizer. The caller owns *out and *report.
 * Errors: ITERA_ERR_ARGUMENT for a size that is no number, impossible, or of a part that the model
 * lacks, when nothing would be removed, and when the text is too short; ITERA_ERR_UNSUPPORTED for a
 * quantised model; ITERA_ERR_CANCELLED; those of the device. */
enum itera_status itera_prune(struct itera_model *model, const struct itera_dataset *data,
                              const struct itera_prune_options *options, struct itera_model **out,
                              struct itera_prune_report **report);
/* The sizes that itera_prune would arrive at, without its work; parameters, bytes and FLOPs are not
 * filled in. Errors: those of sizes. */
enum itera_status itera_prune_plan(const struct itera_model *model,
                                   const struct itera_prune_options *options,
                                   struct itera_prune_sizes *sizes);
void itera_prune_report_destroy(struct itera_prune_report **report);

#ifdef __cplusplus
}
#endif
#endif
