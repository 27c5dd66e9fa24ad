/* Weights between files and memory. "In memory" is one run of layout->bytes bytes in which each
 * parameter lies at its place in its type; q8 and q4 as two planes (tensor/blocks.h). In a file each
 * part is a tensor in the parameter's stored type; one in q8 or q4 has the name <name>.q8 or
 * <name>.q4, dtype U8, and the blocks of a row of K elements as K/32*34 or K/32*18 bytes. */
#ifndef ITERA_MODEL_WEIGHTS_H
#define ITERA_MODEL_WEIGHTS_H

#include "format/safetensors.h"
#include "itera/model.h"
#include "model/graph.h"

/* Sets the types of the layout's parameters to those of the file's tensors and places them: so that
 * a file is known to have every tensor before memory is taken for them. A parameter of several file
 * tensors of different types becomes f32, and all do with `expand`. */
enum itera_status itera_layout_find(struct itera_layout *layout,
                                    const struct itera_safetensors *file, bool expand);
/* Whether the file has an output head of its own (lm_head.weight) whose values are not those of the
 * embeddings; layout is that of a model with tied ones, its types found. The embeddings are read
 * for the comparison only where there is such a tensor. Errors: those of reading one. */
enum itera_status itera_layout_head_differs(const struct itera_layout *layout,
                                            const struct itera_safetensors *file, const char *path,
                                            bool *differs);
/* Reads every tensor of the file into weights (layout->bytes; gaps untouched). Each is expanded to
 * f32 where memory holds that; other types are those of itera_layout_find. All values must be
 * finite. `path` is for messages. */
enum itera_status itera_layout_read(const struct itera_layout *layout,
                                    const struct itera_safetensors *file, const char *path,
                                    bool tied_head, const struct itera_load_options *options,
                                    void *weights);
/* Writes weights (or anything of the same layout) with the metadata to one file, atomically; names
 * get the prefix. */
enum itera_status itera_layout_write(const struct itera_layout *layout, const void *weights,
                                     const char *prefix, const char *path,
                                     const struct itera_safetensors_pair *metadata, int n_metadata);
/* The logical shapes of the tensors in blocks, {"name": [rows, columns], ...}, for the metadata;
 * NULL when there are none. The caller frees *json. */
enum itera_status itera_layout_shapes(const struct itera_layout *layout, char **json);
/* All parameters in f32: out has layout->elements, gaps untouched. */
void itera_layout_expand(const struct itera_layout *layout, const void *weights, float *out);

#endif
