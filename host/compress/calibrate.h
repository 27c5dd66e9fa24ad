/* Calibration: what goes into the products of a model on a text. Pruning and quantisation choose by
 * it what matters. */
#ifndef ITERA_COMPRESS_CALIBRATE_H
#define ITERA_COMPRESS_CALIBRATE_H

#include "itera/corpus.h"
#include "model/model_impl.h"

struct itera_calibrate_options {
    /* How many tokens of the text are read, rounded up to whole batches; 0: 32768, or what there
     * is of a shorter text, but 1024 at least. */
    int64_t tokens;
    int64_t window; /* tokens that the model sees at once; 0: 256. At most its positions. */
    bool steps;     /* collect steps, below */
    /* Called after each batch; non-zero stops (ITERA_ERR_CANCELLED). May be NULL. */
    int (*progress)(void *user, int64_t done, int64_t total);
    void *user;
};

struct itera_calibration {
    int n_params, n_layers; /* of the layout, of the configuration */
    int64_t tokens;         /* that were read */
    /* Per parameter of the layout that is the weight (out, K) of a product: the mean of its
     * inputs' squares, and of its inputs, (K); or (E, K) for the weights of E experts, each over
     * the tokens that reached it (over the tokens of all experts where none did). NULL for other
     * parameters. The embedding's, where it is tied, are those of the head. */
    float **square;
    float **mean;
    /* Per layer with a router: the share of assignments that each expert got, (E), with a sum of
     * 1; NULL for other layers. */
    float **share;
    /* With options.steps, per layer of the itera family: the means of s[i] s[j] over tokens, (D, D),
     * of the steps s = softplus(delta_proj x), whose mean over the channels is what the scan takes.
     * NULL otherwise. */
    float **steps;
};

/* Runs the model over windows that lie evenly in the text, each from a fresh state, on the model's
 * device; sums are in f32 within a batch of a few thousand tokens and in double beyond. data was
 * encoded with the model's tokenizer. options may be NULL. The caller destroys *out.
 * Errors: ITERA_ERR_ARGUMENT for a text with fewer tokens than asked for, or with tokens that the
 * model lacks, and for options out of range; ITERA_ERR_CANCELLED; ITERA_ERR_FORMAT when the model
 * computes something that is not finite; those of the device. */
enum itera_status itera_calibrate(struct itera_model *model, const struct itera_dataset *data,
                                  const struct itera_calibrate_options *options,
                                  struct itera_calibration **out);
void itera_calibration_destroy(struct itera_calibration **calibration);

#endif
