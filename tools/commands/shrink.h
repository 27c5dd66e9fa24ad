/* What the commands that make smaller models share: scores before and after, and fine-tuning. */
#ifndef ITERA_TOOLS_SHRINK_H
#define ITERA_TOOLS_SHRINK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/device_request.h"
#include "cli/options.h"
#include "itera/eval.h"

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

struct finetune_result {
    int64_t steps, tokens; /* done */
    double loss;           /* of the last logged step, nats per token */
    double seconds;
    bool stopped; /* by a signal */
};

/* What a command that makes a model smaller is asked for, beside how. */
struct shrink_request {
    const char *model, *out;
    bool force;          /* replace `out` */
    const char *valid;   /* held-out text to score before and after; NULL: none */
    int64_t eval_tokens; /* of it; 0: all */
    struct finetune_request finetune;
    struct device_request device;
    struct option_optional json;
};

/* What became of the model. Scores without tokens were not taken. */
struct shrink_result {
    struct itera_eval_result before, smaller, finetuned;
    struct finetune_result finetune;
};

/* What each of these commands does in its own way; `user` is the command's. */
struct shrink_command {
    const char *smaller; /* how its model is named: "pruned" */
    /* Makes *smaller of the model. Returns EXIT_OK, or EXIT_FAILED after a printed error. */
    int (*make)(void *user, struct itera_model *model, struct itera_model **smaller);
    void (*print)(const void *user); /* on stdout; the scores come after it */
    json_t *(*json)(const void *user);
    /* What the scores want said; may be NULL. */
    void (*print_after_scores)(const void *user);
};

/* Looks whether all can be written, makes the model smaller, scores and fine-tunes as asked, writes
 * it once and atomically, and prints what became of it. The first SIGINT, SIGTERM or SIGHUP ends
 * fine-tuning after its step; what was learnt until then counts. Returns the exit code. */
int shrink_run(const struct shrink_request *request, const struct shrink_command *command,
               void *user);

/* Opens and encodes a source with the model's tokenizer. Destroy with itera_dataset_destroy; NULL
 * after a printed error. */
struct itera_dataset *shrink_encode(const struct itera_model *model, const char *source);

#endif
