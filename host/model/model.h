/* A model on a device: configuration, layout, and one flat buffer of weights. */
#ifndef ITERA_MODEL_MODEL_H
#define ITERA_MODEL_MODEL_H

#include "backend/backend.h"
#include "itera/model.h"
#include "model/graph.h"

struct itera_model {
    struct itera_device *device;
    struct itera_config config;
    struct itera_layout layout;
    struct itera_buffer *weights; /* layout.elements f32 */
    struct itera_tokenizer *tokenizer;
    struct itera_model_info info;
};

/* A model of this configuration with all weights 0. */
enum itera_status itera_model_allocate(struct itera_device *device,
                                       const struct itera_config *config, struct itera_model **out);
/* The initial weights: a pure function of the layout and the seed. weights has layout->elements. */
void itera_layout_initialize(const struct itera_layout *layout, uint64_t seed, float *weights);
/* Reads every tensor of an open file into weights (layout->elements, gaps untouched). `path` is for
 * messages. */
struct itera_safetensors;
enum itera_status itera_layout_read(const struct itera_layout *layout,
                                    const struct itera_safetensors *file, const char *path,
                                    bool tied_head, float *weights);
/* Writes weights (or anything of the same layout) with the metadata to one file, atomically; names
 * get the prefix. */
struct itera_safetensors_pair;
enum itera_status itera_layout_write(const struct itera_layout *layout, const float *weights,
                                     const char *prefix, const char *path,
                                     const struct itera_safetensors_pair *metadata, int n_metadata);

/* Bindings under construction. */
struct itera_bindings {
    struct itera_binding *list;
    int n, cap;
    enum itera_status status; /* the first error; later calls do nothing */
};
void itera_bind(struct itera_bindings *b, int32_t tensor, struct itera_buffer *buffer,
                size_t offset);
void itera_bindings_free(struct itera_bindings *b);
/* Binds the parameters of a recorded graph (and, for inference, its states and derived values; the
 * buffers may be NULL when the graph has none). */
void itera_bind_graph(struct itera_bindings *b, const struct itera_graph *g,
                      const struct itera_model *model, struct itera_buffer *states,
                      struct itera_buffer *derived);
/* Computes the graph's derived values into `derived` (g->derived_bytes). */
enum itera_status itera_model_prepare(const struct itera_model *model, const struct itera_graph *g,
                                      struct itera_buffer *derived);

#endif
