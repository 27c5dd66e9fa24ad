/* itera train: trains a model in a run directory, and goes on with it after an interruption. */
#include <stdio.h>

#include "cli/command.h"
#include "cli/output.h"
#include "commands/train_run.h"

static int parse(int argc, char **argv, struct train_arguments *a)
{
    char notes[1024];
    snprintf(notes, sizeof notes,
             "%s\n\nExample: itera train --preset micro --data builtin:stories --max-minutes 1 "
             "--out run",
             output_presets());
    struct command_option options[TRAIN_OPTION_ROWS];
    train_arguments_options(a, options);
    const struct command_spec spec = {
        .name = "train",
        .summary = "Trains a model: DIR/model.safetensors is the best by validation loss, or the "
                   "last one\nwithout validation. Ctrl-C finishes the step and saves; --resume "
                   "goes on as if nothing\nhad happened.",
        .options = options,
        .notes = notes};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    options_free(&args);
    return train_arguments_finish(a, &spec);
}

/* Creates or resumes; NULL after a printed error. */
static struct itera_trainer *open_trainer(const struct train_arguments *a,
                                          struct itera_device *device, bool *resumed)
{
    struct itera_trainer *trainer = NULL;
    *resumed = a->resume && itera_trainer_can_resume(a->out);
    if (!*resumed) {
        if (a->resume)
            command_note("%s has no checkpoint yet: the run begins", a->out);
        itera_trainer_create(device, &a->train, &trainer);
        return trainer;
    }
    const struct itera_train_changes changes = train_arguments_changes(a);
    if (itera_trainer_resume(device, a->out, &changes, &trainer))
        return NULL;
    const char *changed = train_arguments_changed(a, itera_trainer_options(trainer));
    if (changed) {
        train_refuse_change("train", changed, a);
        itera_trainer_destroy(&trainer);
    }
    return trainer;
}

static int summarize(const struct train_arguments *a, const struct itera_device *device,
                     const struct itera_trainer *trainer, const struct itera_train_report *r)
{
    if (a->json.given) {
        json_t *root = train_summary_json(a->out, device, trainer, r);
        int code = output_json(root, a->json.value);
        json_decref(root);
        if (code != EXIT_OK || output_on_stdout(&a->json))
            return code;
    }
    train_print_summary(a->out, r);
    return EXIT_OK;
}

int itera_command_train(int argc, char **argv)
{
    static struct train_arguments a;
    int code = parse(argc, argv, &a);
    if (code >= 0)
        return code;
    if (output_json_check(a.json.value) != EXIT_OK)
        return EXIT_FAILED;
    struct itera_device *device = NULL;
    if (device_open(&a.device, &device))
        return EXIT_FAILED;
    bool resumed;
    struct itera_trainer *trainer = open_trainer(&a, device, &resumed);
    if (trainer) {
        struct itera_train_report report;
        train_introduce(trainer, device, resumed);
        code = train_run(trainer, "train", a.out, &report);
        if (code == EXIT_OK)
            code = summarize(&a, device, trainer, &report);
    } else {
        code = EXIT_FAILED;
    }
    itera_trainer_destroy(&trainer);
    device_report_fallback(device);
    itera_device_close(&device);
    return code;
}
