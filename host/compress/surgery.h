/* Smaller copies of models: which experts and channels of each layer stay. */
#ifndef ITERA_COMPRESS_SURGERY_H
#define ITERA_COMPRESS_SURGERY_H

#include "model/model_impl.h"

/* Of one layer. Lists name what stays by its number in the old model, rising; NULL keeps all. */
struct itera_keep {
    int32_t *experts; /* (experts of the new model); NULL in a layer without a router */
    int32_t *ffn;     /* channels of the feed-forward, (ffn); of experts, (new experts, ffn) */
    int32_t *inner;   /* channels of the mixer, (inner) */
    /* itera: which rows of delta_proj stay, (inner), and their bias in the new model. A row is a
     * term of the mean that makes the step; it does not belong to one channel. */
    int32_t *steps;
    float *step_bias;
};

/* A model of configuration `config`, which differs from the old one's in experts, ffn (and
 * expert_size) and inner only, with what `keep` (one per layer) names of the old weights, and a copy
 * of the tokenizer, on the same device, in f32. The caller destroys *out.
 * Errors: ITERA_ERR_MEMORY; those of the device. */
enum itera_status itera_model_shrink(const struct itera_model *old,
                                     const struct itera_config *config,
                                     const struct itera_keep *keep, struct itera_model **out);

#endif
