/* Training: one optimiser step at a time, on the device, in a run directory that survives anything.
 *
 * A run directory holds
 *   model.safetensors   the best model by validation loss, or the last one without validation
 *   train.jsonl         a line per logged step and per evaluation
 *   checkpoint/         all that is needed to go on: weights, moments, state.json
 *
 * A trainer uses its device, so it belongs to one thread at a time. Its report, options and data
 * functions never fail.
 *
 * The losses of a run are a pure function of its options, device and thread count: a run that was
 * killed at any moment and resumed gives bit for bit what it would have given. */
#ifndef ITERA_TRAINER_H
#define ITERA_TRAINER_H

#include <stdbool.h>
#include <stdint.h>

#include "itera/device.h"
#include "itera/model.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

struct itera_trainer;

enum itera_schedule {
    ITERA_SCHEDULE_COSINE,   /* warm-up, then half a cosine down to min_lr */
    ITERA_SCHEDULE_CONSTANT, /* warm-up, then lr */
    ITERA_SCHEDULE_LINEAR,   /* warm-up, then a straight line down to min_lr */
};
ITERA_API const char *itera_schedule_name(enum itera_schedule schedule);

enum itera_precision {
    ITERA_PRECISION_F32,
    /* Mixed: products read f16 copies of weights, activations and gradients, sums and all else are
     * f32, and so are the weights that the optimiser changes. The loss is scaled, so that small
     * gradients survive in f16; a step whose gradients overflow is skipped and the scale halved. */
    ITERA_PRECISION_F16,
};
ITERA_API const char *itera_precision_name(enum itera_precision precision);

/* Zero-initialise and set what matters. Where 0 itself can be asked for, a negative number asks for
 * it. Strings need live only for the call. */
struct itera_train_options {
    /* The model: the first of these that is set; without any, the preset "micro". */
    const char *init;   /* a model file or directory to start from, with its tokenizer */
    const char *config; /* a configuration in JSON */
    const char *preset;
    /* A specification or file (tokenizer.h). NULL: init's own; else bpe:N for the N of the
     * configuration's vocabulary, or byte when that is below 512. The model's vocabulary becomes
     * the tokenizer's. */
    const char *tokenizer;
    const char *data; /* corpus to train on (corpus.h); NULL: builtin:stories */
    /* To validate on; NULL: see hold_out, but builtin:stories?valid for the builtin; "": none. */
    const char *valid;
    /* Without `valid`, train on data?train and validate on data?valid (corpus.h), where that is long
     * enough to say anything. */
    bool hold_out;
    /* A model that the student learns from (distillation); NULL: none. The loss is then
     *   (1 - teacher_weight) cross-entropy + teacher_weight temperature^2 KL(teacher || student)
     * plus the auxiliary losses, the KL divergence between the softmax of both models' logits
     * divided by the temperature, a mean over positions (Hinton, Vinyals, Dean 2015). The student
     * has the teacher's vocabulary and, unless the teacher has none, its tokenizer: `tokenizer` is
     * then not to be given. With weight 0 it trains as without a teacher, and is still compared. */
    const char *teacher;
    double temperature;    /* 0: 2 */
    double teacher_weight; /* at most 1; 0: 0.5; negative: 0 */
    const char *directory; /* the run directory; NULL: nothing is written */
    bool overwrite;        /* a run that is in the directory already may be lost */

    int64_t batch;      /* sequences in a micro-batch; 0: 8 */
    int64_t seq;        /* tokens in a sequence; 0: 128 */
    int64_t accumulate; /* micro-batches in a step; 0: 1 */
    /* The length of the run: steps; or else epochs; or else as many steps as fit in max_minutes
     * (measured before the first step and corrected at each checkpoint, so that the schedule ends
     * in time); or else 1000 steps. max_minutes beside the others is one more reason to stop. */
    int64_t steps;
    double epochs;
    double max_minutes;

    enum itera_schedule schedule;
    double lr;      /* the highest; 0: 3e-3, times sqrt(3e6 / parameters) above 3e6 parameters */
    double min_lr;  /* where the schedule ends, as a fraction of lr; 0: 0.1; negative: 0 */
    int64_t warmup; /* steps; 0: 5% of the steps, at most 200; negative: none */
    double beta1, beta2; /* of AdamW; 0: 0.9 and 0.95; negative: 0 */
    double eps;          /* 0: 1e-8 */
    double weight_decay; /* of matrices; never of norms, biases, A, D. 0: 0.1; negative: none */
    double clip;         /* largest norm of the gradient; 0: 1; negative: none */
    enum itera_precision precision;
    double dropout;    /* 0: the configuration's; negative: none */
    double aux_weight; /* of the load-balance loss; 0: the configuration's; negative: none */
    int64_t positions; /* learned positions; 0: the configuration's */
    uint64_t seed;

    int64_t log_every;   /* steps; 0: 10 */
    int64_t eval_every;  /* steps; 0: up to 10 times a run; the last step always is */
    int64_t eval_tokens; /* at most so many of the validation text; 0: 100000; negative: all */
    int64_t patience;    /* evaluations without a better loss before stopping; 0: never stops */
    int64_t save_every;  /* steps between checkpoints; 0: one a minute */
};

/* What happened in a call of itera_trainer_step. */
enum {
    ITERA_TRAIN_LOGGED = 1,    /* loss to tokens_per_second are of this step */
    ITERA_TRAIN_EVALUATED = 2, /* so is valid_loss */
    ITERA_TRAIN_IMPROVED = 4,  /* which is the best so far */
    ITERA_TRAIN_SAVED = 8,     /* a checkpoint was written */
    ITERA_TRAIN_FINISHED = 16, /* the run is over; finish says why */
};

struct itera_train_report {
    unsigned events;
    int64_t step, steps; /* steps done, and of the whole run as planned now */
    int64_t tokens;      /* trained on, the whole run */
    double loss;         /* cross-entropy of the step's batch, nats per token, without aux_loss */
    double aux_loss;     /* weighted load-balance losses of all layers */
    double kl_loss;      /* temperature^2 KL to the teacher, not weighted; NaN: no teacher */
    double lr, grad_norm;
    double tokens_per_second; /* of training since the last logged step */
    double max_load;     /* the busiest expert's share times the experts: 1 is even; 0: no MoE */
    double valid_loss;   /* nats per token */
    double best_loss;    /* NaN before the first evaluation */
    double teacher_loss; /* the teacher's validation loss, NaN without one */
    int64_t best_step;
    int64_t skipped; /* steps skipped for gradients that were not finite; of the last step a GPU may
                        not have told yet, where nothing else was asked of it */
    double seconds;  /* of the whole run, setting up included */
    const char *finish;
};

/* Prepares a run: corpus, tokenizer, model, programs, and the first checkpoint (of step 0).
 * The device must outlive the trainer; options may be NULL. Errors: ITERA_ERR_ARGUMENT for options that make no sense,
 * and when the directory has a run already; those of the files that are read or written. */
ITERA_API enum itera_status itera_trainer_create(struct itera_device *device,
                                                 const struct itera_train_options *options,
                                                 struct itera_trainer **out);

/* The same for a model that is in memory already: init, config and preset of options are NULL. Its weights are
 * f32 (else ITERA_ERR_UNSUPPORTED), its device is the run's. *model is the trainer's from then on,
 * or destroyed where this fails, and NULL. */
ITERA_API enum itera_status itera_trainer_create_from(struct itera_model **model,
                                                      const struct itera_train_options *options,
                                                      struct itera_trainer **out);

/* What may differ when a run goes on. Zero: as it was. */
struct itera_train_changes {
    const char *data, *valid; /* the same text under another name; it is checked */
    const char *teacher;      /* the same model under another name; it is checked */
    double max_minutes;
    int64_t save_every;
    /* The length of the whole run. The schedule goes on from where it is to its end at the last
     * step; of a run whose schedule has ended, the rate stays. */
    int64_t steps;
};

/* Whether directory has a checkpoint to resume from. */
ITERA_API bool itera_trainer_can_resume(const char *directory);
/* What its last checkpoint says of the run in a directory, without opening it: step, seconds,
 * best_loss, best_step, skipped, and ITERA_TRAIN_FINISHED in events; the rest is 0. */
ITERA_API enum itera_status itera_trainer_peek(const char *directory,
                                               struct itera_train_report *report);
/* The text that the run in a directory is validated on, or, where it is on none, trained on: the
 * caller's to free. NULL in *source: there is no run there. */
ITERA_API enum itera_status itera_trainer_peek_text(const char *directory, char **source);
/* Goes on from the directory's checkpoint. Lines of train.jsonl after it are cut off, because they
 * will come again. Errors: ITERA_ERR_FORMAT for a damaged checkpoint, or when the data or the
 * teacher is not what the run began with. changes may be NULL. */
ITERA_API enum itera_status itera_trainer_resume(struct itera_device *device, const char *directory,
                                                 const struct itera_train_changes *changes,
                                                 struct itera_trainer **out);

/* One optimiser step, and what is due after it: a log line, an evaluation, a checkpoint. The last
 * step also writes everything. Once finished it does nothing but say so again. Errors:
 * ITERA_ERR_LIMIT when the gradients have not been finite for 10 steps in a row (a GPU may tell one
 * step later); ITERA_ERR_IO when
 * something could not be written (the previous checkpoint stays). */
ITERA_API enum itera_status itera_trainer_step(struct itera_trainer *trainer,
                                               struct itera_train_report *report);

/* What the model of the last step writes behind a prompt (UTF-8; "": from end-of-text): at most
 * `tokens` tokens, without the prompt, as UTF-8 that is the caller's to free. train.jsonl gets it, too.
 * sampling as in itera/session.h; NULL: greedy. Errors: those of sessions; ITERA_ERR_IO. */
struct itera_sampling;
ITERA_API enum itera_status itera_trainer_sample(struct itera_trainer *trainer, const char *prompt,
                                                 int32_t tokens,
                                                 const struct itera_sampling *sampling,
                                                 char **text);

/* A checkpoint now, between steps. */
ITERA_API enum itera_status itera_trainer_save(struct itera_trainer *trainer);

/* The options as they are in force, defaults filled in: 0 is 0, and -1 where the run decides. Strings
 * and all belong to the trainer. */
ITERA_API const struct itera_train_options *
itera_trainer_options(const struct itera_trainer *trainer);
/* The model in training; its weights are those of the last step. */
ITERA_API const struct itera_model *itera_trainer_model(const struct itera_trainer *trainer);
/* NULL: none. */
ITERA_API const struct itera_model *itera_trainer_teacher(const struct itera_trainer *trainer);
/* The state without a step: as the last report, events 0 (or FINISHED). */
ITERA_API void itera_trainer_report(const struct itera_trainer *trainer,
                                    struct itera_train_report *report);
/* Tokens of the data, training windows in it, and tokens of the validation text (0: none). */
ITERA_API void itera_trainer_data(const struct itera_trainer *trainer, int64_t *tokens,
                                  int64_t *windows, int64_t *valid_tokens);

/* Writes nothing. */
ITERA_API void itera_trainer_destroy(struct itera_trainer **trainer);

#ifdef __cplusplus
}
#endif
#endif
