/* Model configurations: one flat struct for all families, read from and written as JSON with the
 * families' own keys (those of Hugging Face for mamba and jamba), and the presets. */
#ifndef ITERA_MODEL_CONFIG_H
#define ITERA_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "itera/status.h"

enum itera_architecture {
    ITERA_ARCH_ITERA,       /* "itera": scalar-step SSM + MoE, learned positions */
    ITERA_ARCH_TRANSFORMER, /* "transformer": the attention baseline */
    ITERA_ARCH_MAMBA,       /* "mamba": Mamba-1, model_type "mamba" */
    ITERA_ARCH_ITERA_M,     /* "itera-m": Jamba without attention, model_type "jamba" */
    ITERA_ARCH_COUNT,
};

#define ITERA_MAX_LAYERS  256
#define ITERA_MAX_STATES  256
#define ITERA_MAX_EXPERTS 256
#define ITERA_MAX_CONV    16
#define ITERA_MAX_EOS     16
/* No tensor of a model has more elements, so that indices fit in 32 bits and sizes in 64. */
#define ITERA_MAX_TENSOR_LENGTH INT64_C(0x7fffffff)

/* Fields that a family does not use are 0 (or false). I, T, M and IM: the families that use one. */
struct itera_config {
    enum itera_architecture architecture;
    int32_t vocab;         /* all: tokens; callers may set it from the tokenizer */
    int32_t hidden;        /* all: width of the residual stream, H */
    int32_t layers;        /* all: L */
    int32_t state;         /* I M IM: states, N */
    int32_t conv;          /* I M IM: width of the causal convolution */
    int32_t expand;        /* I M IM */
    int32_t inner;         /* I M IM: channels of the mixer, D; expand * hidden unless pruned */
    int32_t dt_rank;       /* M IM: rank of the step projection, R; "auto" is ceil(hidden / 16) */
    int32_t experts;       /* I IM: experts in a MoE layer, E */
    int32_t top_k;         /* I IM: experts that see a token */
    int32_t expert_size;   /* I IM: width of one expert */
    int32_t ffn;           /* I T IM: width of a dense feed-forward (I, IM: equal to expert_size) */
    int32_t heads;         /* T: attention heads; IM: kept for other programs only */
    int32_t max_positions; /* I T: learned positions; 0: no positions, no limit on length */
    int32_t bos, eos, pad; /* all: token ids, -1: none */
    int32_t n_more_eos;    /* all: tokens that end a text as eos does */
    int32_t more_eos[ITERA_MAX_EOS - 1];
    bool conv_bias; /* I (always true) M IM: the convolution has a bias */
    bool proj_bias; /* M IM: in_proj and out_proj have a bias */
    bool tied_head; /* all: the output head is the embedding (always true for I and T) */
    bool moe[ITERA_MAX_LAYERS]; /* I IM: layer l has a router and experts, else a dense part */
    double norm_eps;            /* all: added to the variance or mean square */
    double aux_weight;          /* I IM: weight of the load-balance loss */
    double dropout;             /* all: training only */
    /* M IM: kept for other programs; our initial weights do not follow these (see enum itera_init). */
    double init_std;       /* standard deviation of initial weights */
    double dt_min, dt_max; /* initial steps are log-uniform in this range, */
    double dt_floor;       /* and not below this */
};

/* "itera", "transformer", "mamba", "itera-m"; never NULL. */
const char *itera_architecture_name(enum itera_architecture architecture);

/* Whether the family has a key for it: models of the others have tied heads by definition. */
bool itera_config_may_untie(const struct itera_config *config);

/* Parses and validates size bytes of JSON. source names them in messages. The family is taken from
 * "architecture", or else "model_type" or "architectures"; unknown keys are a warning in the log.
 * Errors name the key, what was found and expected: ITERA_ERR_FORMAT; ITERA_ERR_UNSUPPORTED for an
 * unknown architecture and for a jamba file with attention layers. *config is zeroed on error. */
enum itera_status itera_config_parse(const char *text, size_t size, const char *source,
                                     struct itera_config *config);
/* The same from a file. */
enum itera_status itera_config_load(const char *path, struct itera_config *config);

/* Adds the eos_token_id of Hugging Face's generation_config.json to a configuration: what ends a text
 * is what either says. *config is unchanged on error. */
enum itera_status itera_config_load_generation(const char *path, struct itera_config *config);

/* JSON text that itera_config_parse reads back to an equal configuration, and that Hugging Face
 * reads for mamba and itera-m. The caller frees *out. Validates first. */
enum itera_status itera_config_to_json(const struct itera_config *config, char **out);

/* Checks every limit: ranges, divisibility, that derived fields agree, and that no tensor exceeds
 * ITERA_MAX_TENSOR_LENGTH. source may be NULL. Errors: ITERA_ERR_FORMAT with the JSON key. */
enum itera_status itera_config_validate(const struct itera_config *config, const char *source);

/* "micro", "tiny", "small", "medium" (also with "itera-" in front), the other families' names as
 * itera_config_preset_name lists them, and "itera-m" for "itera-m-tiny".
 * Errors: ITERA_ERR_ARGUMENT with the list of names. */
enum itera_status itera_config_preset(const char *name, struct itera_config *config);
/* A configuration file where `name` is one or looks like one (it has a slash, or ends in .json),
 * else a preset. Errors: those of the two. */
enum itera_status itera_config_find(const char *name, struct itera_config *config);
/* The name of preset `index`, NULL past the last. */
const char *itera_config_preset_name(size_t index);

#endif
