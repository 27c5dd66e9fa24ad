/* What a model is made of: its parameters, bytes and work, layer by layer and part by part.
 * Descriptions are made without a device; these functions may be called from any thread, on
 * different descriptions. */
#ifndef ITERA_DESCRIBE_H
#define ITERA_DESCRIBE_H

#include <stdint.h>

#include "itera/model.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The parts of a model, as profiles name them: "embedding", "norm", "projections", "conv", "scan",
 * "attention", "router", "experts", "head". NULL past the last. */
#define ITERA_MODEL_PARTS 9
ITERA_API const char *itera_model_part_name(int part);

/* The types that weights are kept in: "f32", "f16", "bf16", "q8", "q4". NULL past the last. */
#define ITERA_WEIGHT_DTYPES 5
ITERA_API const char *itera_weight_dtype_name(int index);

struct itera_layer_description {
    int32_t layer;    /* 0, 1, ...; -1: before and after the layers (embedding, final norm, head) */
    const char *kind; /* "ssm + moe", "ssm + mlp", "ssm", "attention + mlp"; "embedding, head" */
    int64_t parameters;
    int64_t active_parameters; /* that one token uses */
    double flops_per_token;
    int64_t part_parameters[ITERA_MODEL_PARTS];
    double part_flops[ITERA_MODEL_PARTS];
};

struct itera_description {
    const char *architecture;
    int64_t parameters, active_parameters;
    int64_t bytes;                            /* of the weights in memory */
    int64_t dtype_bytes[ITERA_WEIGHT_DTYPES]; /* of these, by type */
    double flops_per_token;                   /* forward, one token of a long sequence */
    int64_t state_bytes; /* what a session keeps per sequence (attention: of a full window) */
    int32_t vocab, hidden, max_positions;
    int32_t inner;               /* channels of the mixer; 0: attention */
    int32_t ffn, experts, top_k; /* width of the feed-forward or one expert; 0: none */
    int32_t n_layers; /* entries of layers: one more than the model has, the last is layer -1 */
    struct itera_layer_description *layers;
    char *config; /* JSON */
};

/* Errors: ITERA_ERR_ARGUMENT for an unknown preset; ITERA_ERR_IO and ITERA_ERR_FORMAT for a bad
 * configuration. Free with itera_description_destroy. */
ITERA_API enum itera_status itera_describe_model(const struct itera_model *model,
                                                 struct itera_description **out);
/* Of a preset, or of a configuration file; no weights are made. vocab > 0 replaces the size of the
 * vocabulary. */
ITERA_API enum itera_status itera_describe_config(const char *name, int32_t vocab,
                                                  struct itera_description **out);
ITERA_API void itera_description_destroy(struct itera_description **description);

/* The op list that a phase compiles to, fused, one op a line. phase: "decode", "prefill", "eval" or
 * "train" (forward, losses and gradients); tokens: time steps of the last three. `config` is JSON,
 * as in a description. The caller frees *text with free(). */
ITERA_API enum itera_status itera_describe_ops(const char *config, const char *phase,
                                               int64_t tokens, char **text);

#ifdef __cplusplus
}
#endif
#endif
