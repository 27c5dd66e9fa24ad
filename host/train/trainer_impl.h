/* The inside of the trainer, shared by the files of this folder. */
#ifndef ITERA_TRAIN_TRAINER_IMPL_H
#define ITERA_TRAIN_TRAINER_IMPL_H

#include <jansson.h>
#include <stdio.h>

#include "core/arena.h"
#include "itera/corpus.h"
#include "itera/trainer.h"
#include "model/phase.h"

/* ---- schedule.c: the learning rate, a pure function of (options, plan, step) ----------------- */

/* The schedule's progress runs from 0 at the end of the warm-up to 1 at `steps`, in a straight line
 * from (from_step, from_progress): a run that is limited by time moves the end when it has measured
 * its speed, and the line goes on from where it was. */
struct itera_train_plan {
    int64_t steps, warmup;
    int64_t from_step;
    double from_progress;
};

void itera_train_plan_start(struct itera_train_plan *plan, int64_t steps, int64_t warmup);
/* Moves the end, as seen from `step` (steps done). */
void itera_train_plan_move(struct itera_train_plan *plan, int64_t step, int64_t steps);
/* Of the step with this index (0 is the first). */
double itera_train_learning_rate(const struct itera_train_options *options,
                                 const struct itera_train_plan *plan, int64_t step);

/* ---- train_program.c: the programs of a step ------------------------------------------------- */

/* The places of what the host reads, in the figures buffer (f32). */
enum {
    FIGURE_LOSS = 0,
    FIGURE_AUX = 1,
    FIGURE_NORM = 2,  /* and whether all is finite */
    FIGURE_SCALE = 6, /* mixed precision: the loss scale, see op loss_scale */
    FIGURE_KL = 8,    /* with a teacher */
    FIGURE_LOAD = 16, /* per MoE layer: shares per expert */
};

/* Learning from another model, as in struct itera_train_options. */
struct itera_train_teaching {
    const struct itera_model *teacher; /* of the student's device, vocabulary and at least seq
                                          positions */
    double temperature, weight;
};

/* A step whose figures were not read yet. */
struct itera_train_pending {
    int64_t step;
    double loss, aux, kl;           /* sums over the batches that were collected */
    struct itera_ticket *ticket[2]; /* of the others, in order */
    int n;
};

enum { ITERA_TRAIN_PENDING = 2 };

struct itera_train_program {
    struct itera_device *device;
    int64_t batch, seq, accumulate;
    enum itera_precision precision;
    struct itera_model_phase train, eval; /* eval: made when needed */
    struct itera_program *update;         /* accumulate > 1: the optimiser apart */
    struct itera_executable *update_run;
    /* Distillation: the teacher's logits of the batch, which the student's program reads. */
    struct itera_model_phase teacher; /* not compiled: no teacher */
    struct itera_buffer *teacher_logits;
    struct itera_program *teacher_loss; /* of the teacher's logits; made when needed */
    struct itera_executable *teacher_loss_run;
    /* gradients and, when accumulating, their sum; the moments; what changes by step */
    struct itera_buffer *grads, *sums, *m, *v;
    struct itera_buffer *ids, *targets, *rng, *hyper, *figures;
    int n_moe, experts;
    int32_t *host_ids, *host_targets;
    float *found; /* what was read of the figures last */
    /* Steps that were queued and not read, the oldest first. */
    struct itera_train_pending pending[ITERA_TRAIN_PENDING];
    int n_pending;
};

struct itera_train_figures {
    int64_t step; /* of which these are: 0 is the first */
    bool finite;  /* its gradients were; otherwise it changed nothing */
    double loss, aux_loss, grad_norm;
    double kl_loss; /* NaN without a teacher */
    double *load;   /* n_moe x experts; not touched when NULL */
};

/* teaching may be NULL; its teacher must outlive the program. */
enum itera_status itera_train_program_create(struct itera_model *model, int64_t batch, int64_t seq,
                                             int64_t accumulate, double weight_decay,
                                             enum itera_precision precision,
                                             const struct itera_train_teaching *teaching,
                                             struct itera_train_program *out);
void itera_train_program_destroy(struct itera_train_program *program);
/* Queues one optimiser step: `step` picks batches and dropout; lr and the other settings go to the
 * device as they are. At most ITERA_TRAIN_PENDING - 1 others may be unread. */
enum itera_status itera_train_program_step(struct itera_train_program *program,
                                           const struct itera_train_options *options, double lr,
                                           int64_t step, const struct itera_dataset *data);
/* Waits for the oldest step that was not read, and reads its figures. */
enum itera_status itera_train_program_read(struct itera_train_program *program,
                                           struct itera_train_figures *figures);
/* How many steps are worth having unread: 0 where a step is done when it was queued. */
int itera_train_program_ahead(const struct itera_train_program *program);
/* Mixed precision: the loss scale and the steps since it changed, for checkpoints. */
enum itera_status itera_train_program_get_scale(struct itera_train_program *program,
                                                float scale[2]);
enum itera_status itera_train_program_set_scale(struct itera_train_program *program,
                                                const float scale[2]);
/* The loss of the last batch, of training or of evaluation. */
enum itera_status itera_train_program_loss(const struct itera_train_program *program, double *loss);
/* Mean nats per token over the first `batches` evaluation batches. model NULL: the teacher's. */
enum itera_status itera_train_program_evaluate(struct itera_train_program *program,
                                               const struct itera_model *model,
                                               const struct itera_dataset *data, uint64_t batches,
                                               double *loss);

/* ---- distill.c: learning from a teacher ------------------------------------------------------ */

/* Records (1 - weight) ce + weight kl + aux over the logits of t->train, and binds the teacher's,
 * for which it makes the buffer. Returns the loss; *aux is ITERA_NONE without any. */
int32_t itera_train_distill_losses(struct itera_train_program *t,
                                   const struct itera_train_teaching *teaching, int32_t targets,
                                   struct itera_bindings *b, int32_t *ce, int32_t *aux,
                                   int32_t *kl);
/* Compiles the teacher: from t->ids to t->teacher_logits. */
enum itera_status itera_train_distill_compile(struct itera_train_program *t,
                                              const struct itera_model *teacher);
/* Compiles teacher_loss_run: from teacher_logits and targets to figures. */
enum itera_status itera_train_distill_compile_loss(struct itera_train_program *t);

struct itera_trainer;
/* Loads options.teacher to the trainer, if there is one. */
enum itera_status itera_train_teacher_open(struct itera_trainer *trainer);
/* A student with another vocabulary or tokenizer than its teacher, or sequences that are longer than
 * the teacher's positions: an error. student NULL: it will be made to fit. */
enum itera_status itera_train_teacher_check(const struct itera_train_options *options,
                                            const struct itera_model *student,
                                            const struct itera_model *teacher);
/* Of the bytes of a model file, or of those of a model in a directory. */
enum itera_status itera_train_files_hash(const char *path, uint64_t *hash);

/* Of a checkpoint, beside state.json. */
enum { ITERA_TRAIN_FILES = 3 };

/* ---- the trainer --------------------------------------------------------------------------- */

struct itera_trainer {
    struct itera_device *device;
    struct itera_arena *arena; /* strings of the options */
    struct itera_train_options options;
    struct itera_model *model, *teacher; /* teacher: NULL without one */
    struct itera_dataset *data, *valid;
    uint64_t data_hash, valid_hash, teacher_hash;
    uint64_t file_hash[ITERA_TRAIN_FILES]; /* as read from a checkpoint */
    struct itera_train_program program;

    bool timed; /* the plan follows max_minutes */
    struct itera_train_plan plan;
    int64_t step;
    double best_loss;
    int64_t best_step;
    int64_t bad_evaluations; /* in a row */
    int64_t skipped, skipped_in_a_row;
    float loss_scale[2];             /* as read from a checkpoint */
    int64_t told_step, told_skipped; /* what was said about skipped steps */
    const char *finish;              /* a constant; NULL: not finished */

    FILE *log; /* train.jsonl; NULL: none */
    int64_t log_bytes;
    bool log_uncut; /* the file goes on behind log_bytes, until the next line is written */
    double *load;
    struct itera_train_figures figures; /* of the step that was read last */
    enum itera_status failed; /* of a step that the device did not do: weights and `step` differ */

    /* Clocks, in seconds of CLOCK_MONOTONIC; nothing that is computed depends on them except the
     * plan of a timed run. */
    double began; /* minus what earlier sessions of the run took */
    double saved; /* the last checkpoint */
    int64_t saved_step;
    double trained; /* seconds of steps since the last logged one */
    int64_t logged; /* the step up to which that counts */
    struct itera_train_report last;
};

/* ---- train_options.c ------------------------------------------------------------------------- */

/* Options with the defaults filled in, as they are kept from then on: 0 is 0 there, and -1 stands
 * for what only the model (dropout, aux_weight) or the length of the run (warmup) will say. options
 * may be NULL. */
struct itera_train_options itera_train_options_fill(const struct itera_train_options *options);
/* Whether filled options make sense by themselves. */
enum itera_status itera_train_check_options(const struct itera_train_options *options);
/* Whether the tokens of so many steps can be counted. */
enum itera_status itera_train_check_length(const struct itera_train_options *options,
                                           int64_t steps);
/* Sequences that are longer than the positions of a student (0: no limit): an error. */
enum itera_status itera_train_check_positions(int64_t seq, int32_t positions);
/* Refuses a directory that has a run or a model, unless that may be overwritten. */
enum itera_status itera_train_check_directory(const struct itera_train_options *options,
                                              bool has_run);
/* Copies the strings of the options to the arena, as they outlive the caller's. */
enum itera_status itera_train_keep_strings(struct itera_trainer *trainer);
/* Makes `data` its part to train on, and `valid` the part of it to validate on. */
enum itera_status itera_train_split_data(struct itera_train_options *options,
                                         struct itera_arena *arena);
/* The same where options ask for it (hold_out), and there is text enough. */
enum itera_status itera_train_hold_out(struct itera_train_options *options,
                                       struct itera_arena *arena);

/* ---- train_start.c, train_plan.c: a new run -------------------------------------------------- */

/* Makes or loads the model, unless there is one already, and sees that it has a tokenizer; the text
 * is there to train one from. Dropout and aux_weight are known then. */
enum itera_status itera_train_start_model(struct itera_trainer *trainer,
                                          const struct itera_corpus *corpus);
/* Plans the steps, and fills in lr and eval_every; data and program exist. May take some steps, and
 * undo them, to see how long one takes. */
enum itera_status itera_train_make_plan(struct itera_trainer *trainer);

/* ---- trainer_setup.c, trainer_create.c, trainer_resume.c -------------------------------------- */

/* Without a model, options and data. */
enum itera_status itera_trainer_create_bare(struct itera_device *device,
                                            struct itera_trainer **out);
/* Data, program and what else follows from options and model. corpus: options.data, if it is open
 * already, else NULL. */
enum itera_status itera_trainer_set_up(struct itera_trainer *trainer,
                                       const struct itera_corpus *corpus);
/* From now on steps are taken. */
void itera_trainer_start_clocks(struct itera_trainer *trainer);
/* itera_trainer_create with options that are filled in. */
enum itera_status itera_trainer_create_filled(struct itera_device *device,
                                              const struct itera_train_options *filled,
                                              struct itera_trainer **out);

/* ---- trainer.c --------------------------------------------------------------------------------- */

/* Why a run ended, in trainer->finish: the clock, which more time may undo. */
extern const char ITERA_TRAIN_TIME_UP[];
/* The share of max_minutes that a timed plan fills. */
#define ITERA_TRAIN_TIME_MARGIN 0.98
/* Reads the figures of all steps that were queued. */
enum itera_status itera_train_read_steps(struct itera_trainer *trainer);
/* Of one evaluation. */
uint64_t itera_train_eval_batches(const struct itera_trainer *trainer);

/* ---- checkpoint.c -------------------------------------------------------------------------- */

/* "DIR/checkpoint", or "DIR/checkpoint.old" when only that is there; *found says whether any. */
enum itera_status itera_train_checkpoint_find(const char *directory, char *path, size_t size,
                                              bool *found);
/* Writes DIR/checkpoint; the log is on disk before. */
enum itera_status itera_train_checkpoint_save(struct itera_trainer *trainer);
/* Reads state.json into a trainer whose arena exists: options, plan, counters. */
enum itera_status itera_train_checkpoint_read_state(struct itera_trainer *trainer,
                                                    const char *path);
/* Whether its other files are those that state.json was written with: parts of two runs, each well
 * formed, would train on in silence. */
enum itera_status itera_train_checkpoint_check_files(const struct itera_trainer *trainer,
                                                     const char *path);
/* Reads the moments and hands the program the loss scale; the trainer's program exists. */
enum itera_status itera_train_checkpoint_read_moments(struct itera_trainer *trainer,
                                                      const char *path);
/* For other files that hold options (all but directory and overwrite). Every one must
 * be there; strings go to the arena. */
struct itera_json_reader;
json_t *itera_train_options_to_json(const struct itera_train_options *options);
enum itera_status itera_train_options_from_json(struct itera_arena *arena,
                                                struct itera_json_reader *reader,
                                                struct itera_train_options *options);
/* Atomically; drops root, of which NULL is an error of memory. */
enum itera_status itera_train_write_json(json_t *root, const char *path);
/* Order-dependent, over all ids. */
uint64_t itera_train_dataset_hash(const struct itera_dataset *dataset);

/* ---- run_log.c ----------------------------------------------------------------------------- */

/* Opens DIR/train.jsonl, cut to `bytes`, locked against a second trainer. */
enum itera_status itera_train_log_open(struct itera_trainer *trainer, int64_t bytes);
void itera_train_log_close(struct itera_trainer *trainer);
enum itera_status itera_train_log_step(struct itera_trainer *trainer);
enum itera_status itera_train_log_evaluation(struct itera_trainer *trainer);
enum itera_status itera_train_log_teacher(struct itera_trainer *trainer);
/* A text that the model wrote behind a prompt. */
enum itera_status itera_train_log_sample(struct itera_trainer *trainer, const char *prompt,
                                         const char *text);
/* Everything written so far is on disk; sets log_bytes. */
enum itera_status itera_train_log_sync(struct itera_trainer *trainer);

#endif
