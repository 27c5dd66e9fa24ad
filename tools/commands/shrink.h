/* What the commands that make smaller models share: scores before and after, and fine-tuning. */
#ifndef ITERA_TOOLS_SHRINK_H
#define ITERA_TOOLS_SHRINK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "itera/eval.h"

/* Opens and encodes a source with the model's tokenizer. Destroy with itera_dataset_destroy; NULL
 * after a printed error. */
struct itera_dataset *shrink_encode(const struct itera_model *model, const char *source);

/* Scores the model on a source, with a progress bar named `what`; tokens 0: all of them. Returns
 * EXIT_OK, or EXIT_FAILED after a printed error. */
int shrink_score(struct itera_model *model, const char *source, int64_t tokens, const char *what,
                 struct itera_eval_result *result);

/* A table of scores, a row each. */
struct shrink_score {
    const char *what; /* "original", "pruned" */
    const struct itera_eval_result *result;
};
void shrink_print_scores(const struct shrink_score *scores, int n, const char *source);

/* The options of fine-tuning, and a table of rows for them; `data` is the command's own. */
struct finetune_request {
    int64_t steps; /* 0: none */
    int64_t batch, seed;
    int64_t seq; /* 0: 128, or the model's positions where these are fewer */
    double lr;
    const char *data, *run;
};
#define FINETUNE_DEFAULT                                                                           \
    {                                                                                              \
        .batch = 8, .lr = 1e-3                                                                     \
    }
/* clang-format off: rows of a table. */
#define FINETUNE_OPTIONS(request)                                                                  \
    {"finetune",                                                                                   \
     0,                                                                                            \
     OPTION_INTEGER,                                                                               \
     &(request).steps,                                                                             \
     "STEPS",                                                                                      \
     "then train for so many steps",                                                               \
     1,                                                                                            \
     1e12,                                                                                         \
     NULL,                                                                                         \
     NULL},                                                                                        \
        {"lr",                                                                                     \
         0,                                                                                        \
         OPTION_NUMBER,                                                                            \
         &(request).lr,                                                                            \
         "X",                                                                                      \
         "with --finetune: highest learning rate (default 1e-3)",                                  \
         0,                                                                                        \
         10,                                                                                       \
         NULL,                                                                                     \
         NULL},                                                                                    \
        {"batch",                                                                                  \
         'b',                                                                                      \
         OPTION_INTEGER,                                                                           \
         &(request).batch,                                                                         \
         "B",                                                                                      \
         "with --finetune: sequences in a batch (default 8)",                                      \
         1,                                                                                        \
         65536,                                                                                    \
         NULL,                                                                                     \
         NULL},                                                                                    \
        {"seq",                                                                                    \
         0,                                                                                        \
         OPTION_INTEGER,                                                                           \
         &(request).seq,                                                                           \
         "T",                                                                                      \
         "with --finetune: tokens in a sequence (default 128)",                                    \
         1,                                                                                        \
         1048576,                                                                                  \
         NULL,                                                                                     \
         NULL},                                                                                    \
        {"seed",                                                                                   \
         0,                                                                                        \
         OPTION_INTEGER,                                                                           \
         &(request).seed,                                                                          \
         "S",                                                                                      \
         "with --finetune: of batches and dropout (default 0)",                                    \
         0,                                                                                        \
         9e18,                                                                                     \
         NULL,                                                                                     \
         NULL},                                                                                    \
    {                                                                                              \
        "run", 0, OPTION_FOLDER, &(request).run, "DIR",                                            \
            "with --finetune: keep log and checkpoints of the training in\n"                       \
            "DIR; the best model by --valid counts then, not the last",                            \
            0, 0, NULL, NULL                                                                       \
    }
/* clang-format on */

/* The first of these options that was given without --finetune; NULL: none. */
const char *shrink_finetune_unused(const struct finetune_request *request);

/* Whether the run directory, where one was asked for, is free: known before hours of other work.
 * Returns EXIT_OK, or EXIT_FAILED after a printed error. */
int shrink_finetune_check(const struct finetune_request *request);

struct finetune_result {
    int64_t steps, tokens; /* done */
    double loss;           /* of the last logged step, nats per token */
    double seconds;
    bool stopped; /* by a signal */
};

/* Trains the model (of so many positions; 0: no limit; it is gone afterwards, and *model NULL) and
 * writes the result to `path`, once and atomically. Scores are not taken, except with a run
 * directory, on `valid` (NULL: never). The first SIGINT, SIGTERM or SIGHUP ends the training after
 * its step; what was learnt until then counts. Returns as shrink_score. */
int shrink_finetune(struct itera_device *device, struct itera_model **model,
                    const struct finetune_request *request, int32_t positions, const char *valid,
                    const char *path, struct finetune_result *result);
json_t *shrink_finetune_json(const struct finetune_request *request,
                             const struct finetune_result *result);

#endif
