/* Models: load, create, save, describe.
 *
 * A model belongs to its device: it is made, saved, destroyed, and run by the thread that uses the
 * device at that moment. Functions that take a const model only read what does not change after
 * loading (except in training) and may be called from any thread, itera_model_save excepted, which
 * reads from the device. */
#ifndef ITERA_MODEL_H
#define ITERA_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "itera/device.h"
#include "itera/tokenizer.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

struct itera_model;

/* Reads a model file (safetensors with configuration and tokenizer inside) or a directory
 * (config.json, model.safetensors, perhaps sharded, tokenizer.json if there is one) to the device.
 * What a file does not have inside, config.json and tokenizer.json, may lie beside it.
 * Everything is checked first: configuration, names, shapes, and that all weights are finite.
 * Errors: ITERA_ERR_IO, ITERA_ERR_FORMAT, ITERA_ERR_SHAPE, ITERA_ERR_UNSUPPORTED; ITERA_ERR_LIMIT
 * for headers that are too large; ITERA_ERR_MEMORY; device errors. */
ITERA_API enum itera_status itera_model_load(struct itera_device *device, const char *path,
                                             struct itera_model **model);

/* Called with the bytes of weights that are read and of how many. Return non-zero to stop
 * (ITERA_ERR_CANCELLED). */
typedef int itera_load_progress_fn(void *user, int64_t done, int64_t total);

/* Zero-initialise and set what matters. */
struct itera_load_options {
    bool expand; /* all weights to f32, as training needs them; else each in the type it is stored
                    in, as far as ops take it: matrices in f16, bf16, q8 or q4, the others in f32 */
    bool
        exact; /* products do not round their other operand: neither to int8 with q8 or q4 weights nor
                    to f16 with f16, q8 or q4 weights, as devices with matrix units do */
    bool half; /* products may round to f16 whatever their weights are in, unless exact */
    itera_load_progress_fn *progress; /* after each tensor; may be NULL */
    void *user;
};
/* The same with options, which may be NULL. */
ITERA_API enum itera_status itera_model_load_as(struct itera_device *device, const char *path,
                                                const struct itera_load_options *options,
                                                struct itera_model **model);

/* The same from `size` bytes of memory, which need to live only for the call: one safetensors
 * file with the configuration inside, and the tokenizer if there is to be one, as
 * itera_model_save writes it. No file is looked for. options may be NULL.
 * Errors: ITERA_ERR_FORMAT, ITERA_ERR_SHAPE, ITERA_ERR_UNSUPPORTED, ITERA_ERR_MEMORY. */
ITERA_API enum itera_status itera_model_load_memory(struct itera_device *device, const void *data,
                                                    size_t size,
                                                    const struct itera_load_options *options,
                                                    struct itera_model **model);

/* A fresh model with random weights, a pure function of configuration and seed. config is a preset
 * name, or the path of a configuration in JSON. Zero-initialise the options and set what matters;
 * they may be NULL. */
struct itera_model_options {
    int32_t vocab;     /* size of the vocabulary; 0: the configuration's */
    int32_t positions; /* learned positions, of families that have them; 0: the configuration's */
    float dropout;     /* probability; 0: the configuration's; negative: none */
    uint64_t seed;
    bool exact, half; /* as in struct itera_load_options, also of what itera_quantize makes of it */
};
/* Errors: ITERA_ERR_ARGUMENT for an unknown preset (the message lists them); ITERA_ERR_IO and
 * ITERA_ERR_FORMAT for a bad configuration; ITERA_ERR_MEMORY. The caller owns *model. */
ITERA_API enum itera_status itera_model_create(struct itera_device *device, const char *config,
                                               const struct itera_model_options *options,
                                               struct itera_model **model);

/* Writes one self-contained safetensors file, atomically: what was at path stays until all of the
 * new file is on disk. Errors: ITERA_ERR_IO (a full disk, too); ITERA_ERR_MEMORY; device errors. */
ITERA_API enum itera_status itera_model_save(const struct itera_model *model, const char *path);

/* Everything made from the model must be destroyed before; the device after. */
ITERA_API void itera_model_destroy(struct itera_model **model);

/* NULL when the model came without one. Belongs to the model. */
ITERA_API const struct itera_tokenizer *itera_model_tokenizer(const struct itera_model *model);
/* Reads the tokenizer of a model's file or directory and nothing else; NULL where it has none. */
ITERA_API enum itera_status itera_model_open_tokenizer(const char *path,
                                                       struct itera_tokenizer **out);
/* Gives the model a tokenizer, of which it becomes the owner. Its vocabulary must not exceed the
 * model's (ITERA_ERR_SHAPE; the tokenizer then stays the caller's). */
ITERA_API enum itera_status itera_model_set_tokenizer(struct itera_model *model,
                                                      struct itera_tokenizer *tokenizer);

struct itera_model_info {
    const char *architecture;
    int64_t parameters;
    int64_t active_parameters; /* those that one token uses: top_k of the experts */
    int64_t bytes;             /* of the weights as they are in memory */
    int64_t active_bytes;      /* of active_parameters */
    double flops_per_token;    /* forward, one token of a long sequence */
    int32_t vocab;
    int32_t hidden;
    int32_t layers;
    int32_t max_positions; /* 0: no limit */
};
/* Cheap; computed at load. */
ITERA_API const struct itera_model_info *itera_model_info(const struct itera_model *model);
/* The configuration as JSON; free with free(). */
ITERA_API enum itera_status itera_model_config_json(const struct itera_model *model, char **json);

/* Names of the presets, NULL past the last. */
ITERA_API const char *itera_preset_name(size_t index);

#ifdef __cplusplus
}
#endif
#endif
