/* What the commands that train have in common: their options, the walk through a run, its summary.
 */
#ifndef ITERA_TOOLS_TRAIN_RUN_H
#define ITERA_TOOLS_TRAIN_RUN_H

#include <jansson.h>
#include <stdbool.h>

#include "cli/device_request.h"
#include "cli/options.h"
#include "itera/trainer.h"

/* What the command line says, and which options it named. */
struct train_arguments {
    struct itera_train_options train;
    struct device_request device;
    const char *out, *schedule, *precision;
    const char *settings; /* a file of options */
    const char *sample;   /* the prompt of samples; NULL: none */
    int64_t seed;
    bool resume, force, dry;
    struct option_optional json;
    struct {
        bool preset, config, init, tokenizer, data, valid, batch, seq, accumulate, steps, epochs,
            max_minutes, schedule, precision, lr, min_lr, warmup, beta1, beta2, eps, weight_decay,
            clip, dropout, aux_weight, positions, seed, log_every, eval_every, eval_tokens,
            patience, save_every;
    } given;
};

/* Sets the defaults, and writes the rows of the options, ended by an empty one: room for
 * TRAIN_OPTION_ROWS. */
enum { TRAIN_OPTION_ROWS = 48 };
void train_arguments_options(struct train_arguments *a, struct command_option *rows);
/* After parsing: what the table cannot say. Returns -1, or the exit code after a printed error. */
int train_arguments_finish(struct train_arguments *a, const struct command_spec *spec);
/* The first option that was given and is not what the run began with; NULL: none. */
const char *train_arguments_changed(const struct train_arguments *a,
                                    const struct itera_train_options *was);
/* What may differ when a run goes on, as given. */
struct itera_train_changes train_arguments_changes(const struct train_arguments *a);
/* Writes what a run trains with to DIR/options.json, complete: --options takes it. An exit code. */
int train_write_options(const struct train_arguments *a, const struct itera_trainer *trainer);
/* The prompt of samples, where a run shows some: on a terminal by default. */
const char *train_sample_prompt(const struct train_arguments *a);
/* Says that a run in --out began otherwise; returns EXIT_FAILED. */
int train_refuse_change(const char *command, const char *option, const struct train_arguments *a);

/* Says on stderr what is trained, on what, and how long. */
void train_introduce(const struct itera_trainer *trainer, const struct itera_device *device,
                     bool resumed);
/* Steps until the end, a signal (which ends it after its step; report->finish is NULL then), or an
 * error, with a progress bar named `what`. At each validation the model goes on from `sample` (NULL:
 * it does not). The exit code. */
int train_walk(struct itera_trainer *trainer, const char *what, const char *sample,
               struct itera_train_report *report);
/* The same for a run in a directory: saves what is not finished, and says how to go on with
 * `command`. The exit code. */
int train_run(struct itera_trainer *trainer, const char *command, const char *out,
              const char *sample, struct itera_train_report *report);

/* directory: where the run is. */
json_t *train_summary_json(const char *directory, const struct itera_device *device,
                           const struct itera_trainer *trainer,
                           const struct itera_train_report *report);
/* The lines of stdout. */
void train_print_summary(const char *directory, const struct itera_train_report *report);

/* train_dry.c: parameters, memory, time and energy of the run that is asked for, from some steps of it
 * that leave nothing. An exit code. */
int train_dry_run(const struct train_arguments *a, struct itera_device *device);

#endif
