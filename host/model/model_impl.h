/* A model on a device: configuration, layout, and one flat buffer of weights. */
#ifndef ITERA_MODEL_MODEL_IMPL_H
#define ITERA_MODEL_MODEL_IMPL_H

#include "backend/program_bindings.h"
#include "itera/model.h"
#include "model/graph.h"

struct itera_model {
    struct itera_device *device;
    struct itera_config config;
    struct itera_layout layout;
    struct itera_buffer *weights; /* layout.bytes: model/weights.h */
    struct itera_tokenizer *tokenizer;
    struct itera_model_info info;
};

/* A model of this configuration with all weights 0. */
enum itera_status itera_model_allocate(struct itera_device *device,
                                       const struct itera_config *config, struct itera_model **out);
/* The initial weights: a pure function of the layout and the seed. weights has layout->elements. */
void itera_layout_initialize(const struct itera_layout *layout, uint64_t seed, float *weights);
/* The same with the parameters in these types, in memory and in files (one entry per parameter of
 * the layout; in memory only matrices may be other than f32). */
enum itera_status itera_model_allocate_like(struct itera_device *device,
                                            const struct itera_config *config,
                                            const enum itera_dtype *dtypes,
                                            const enum itera_dtype *stored,
                                            struct itera_model **out);
/* Whether any weights are q8 or q4. */
bool itera_model_is_quantised(const struct itera_model *model);
/* Whether any of its products may round to f16, as matrix units need it. */
bool itera_model_rounds_to_half(const struct itera_model *model);
/* All weights as f32, whatever they are in memory: weights has layout.elements; gaps stay. */
enum itera_status itera_model_read_f32(const struct itera_model *model, float *weights);
/* Sets all weights of a model that is f32 throughout, else ITERA_ERR_UNSUPPORTED. */
enum itera_status itera_model_write_f32(struct itera_model *model, const float *weights);

/* Binds the parameters of a recorded graph (and, for inference, its states and derived values; the
 * buffers may be NULL when the graph has none). */
void itera_bind_graph(struct itera_bindings *b, const struct itera_graph *g,
                      const struct itera_model *model, struct itera_buffer *states,
                      struct itera_buffer *derived);
/* Computes the graph's derived values into `derived` (g->derived_bytes). */
enum itera_status itera_model_prepare(const struct itera_model *model, const struct itera_graph *g,
                                      struct itera_buffer *derived);

#endif
