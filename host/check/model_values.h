/* What a model computes for some tokens: read from a file, or computed on a device. */
#ifndef ITERA_CHECK_MODEL_VALUES_H
#define ITERA_CHECK_MODEL_VALUES_H

#include "model/model_impl.h"

/* Zeroed before it is filled; free with itera_model_values_free, after an error too. */
struct itera_model_values {
    int64_t batch, time;
    int32_t *ids;   /* (batch, time) */
    float *logits;  /* (batch, time, vocab) */
    float *grads;   /* of the layout; NULL: not computed */
    bool *has_grad; /* per file tensor of the layout, in order; NULL: all */
    double loss, aux;
    bool has_loss, has_aux;
    int32_t layers; /* of the model */
    bool quantised; /* the model has q8 or q4 weights */
    bool half;      /* it has weights whose products round to f16 on matrix units */
};
void itera_model_values_free(struct itera_model_values *values);

/* Fills logits, the losses and (with gradients, of a model in f32) grads, from batch, time and ids:
 * the training phase without dropout, of one pass. */
enum itera_status itera_model_values_compute(struct itera_model *model, bool gradients,
                                             struct itera_model_values *values);
/* Those of a safetensors file: input_ids, logits, and as far as they are there loss, aux_loss and
 * grad.<tensor>. Errors: ITERA_ERR_FORMAT, ITERA_ERR_SHAPE where they are not of this model. */
enum itera_status itera_model_values_read(const char *path, const struct itera_model *model,
                                          struct itera_model_values *values);
/* Random tokens, and what the scalar reference makes of them with the model in file `path`. */
enum itera_status itera_model_values_reference(const char *path, uint64_t seed, bool gradients,
                                               struct itera_model_values *values);

#endif
