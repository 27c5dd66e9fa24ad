/* itera train: trains a model in a run directory, and goes on with it after an interruption. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/command.h"
#include "cli/output.h"
#include "commands/train_run.h"

/* The last part of a path, without its ending. */
static void stem(const char *path, char *out, size_t size)
{
    const char *slash = strrchr(path, '/');
    snprintf(out, size, "%s", slash && slash[1] ? slash + 1 : path);
    out[strcspn(out, ".")] = '\0';
}

/* A folder that is not there yet, named by what is trained and the date: micro-2026-03-09. */
static const char *default_folder(const struct itera_train_options *t)
{
    static char folder[320];
    char model[256], day[16] = "";
    struct stat info;
    const time_t now = time(NULL);
    struct tm date;
    stem(t->init     ? t->init
         : t->config ? t->config
         : t->preset ? t->preset
                     : "micro",
         model, sizeof model);
    if (localtime_r(&now, &date))
        strftime(day, sizeof day, "%Y-%m-%d", &date);
    snprintf(folder, sizeof folder, "%.255s-%s", model, day);
    for (int i = 2; lstat(folder, &info) == 0 && i < 10000; i++)
        snprintf(folder, sizeof folder, "%.255s-%s-%d", model, day, i);
    return folder;
}

static int parse(int argc, char **argv, struct train_arguments *a, struct command_args *args)
{
    char notes[1024];
    snprintf(notes, sizeof notes,
             "%s\n\nExamples:\n"
             "  itera train                             # micro on the built-in stories\n"
             "  itera train --data my.txt --out mine    # a twentieth of it is set aside\n"
             "  itera train --out mine --resume --steps 5000",
             output_presets());
    struct command_option options[TRAIN_OPTION_ROWS + 1];
    train_arguments_options(a, options);
    size_t rows = 0;
    while (options[rows].name)
        rows++;
    options[rows] = (struct command_option){
        "dry-run", 0,    OPTION_FLAG,
        &a->dry,   NULL, "only say what it would take: memory, time, energy"};
    options[rows + 1] = (struct command_option){0};
    const struct command_spec spec = {
        .name = "train",
        .summary = "Trains a model: DIR/model.safetensors is the best by validation loss, or the "
                   "last one\nwithout validation. Ctrl-C finishes the step and saves; --resume "
                   "goes on as if nothing\nhad happened.",
        .options = options,
        .notes = notes};
    int code = options_parse(&spec, argc, argv, args);
    if (code >= 0)
        return code;
    if (!a->out && !a->resume)
        a->out = default_folder(&a->train);
    code = a->dry && a->resume ? options_usage(&spec, "--dry-run is of a run from its beginning")
                               : train_arguments_finish(a, &spec);
    if (code >= 0)
        options_free(args);
    return code;
}

/* Whether the options say what a new run would be, as in a script that begins or goes on. */
static bool says_what(const struct train_arguments *a)
{
    return a->given.preset || a->given.config || a->given.init || a->given.data;
}

/* Creates or resumes; NULL after a printed error. */
static struct itera_trainer *open_trainer(const struct train_arguments *a,
                                          struct itera_device *device, bool *resumed)
{
    struct itera_trainer *trainer = NULL;
    *resumed = a->resume && itera_trainer_can_resume(a->out);
    if (!*resumed) {
        if (a->resume && !says_what(a)) {
            command_error("%s: there is no training run to go on with (a folder with checkpoint/); "
                          "a new one needs --preset, --config, --init or --data",
                          a->out);
            return NULL;
        }
        if (a->resume)
            command_note("%s has no checkpoint yet: the run begins", a->out);
        itera_trainer_create(device, &a->train, &trainer);
        return trainer;
    }
    struct itera_train_changes changes = train_arguments_changes(a);
    changes.steps = a->train.steps;
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

static int run(const struct train_arguments *a, struct itera_device *device)
{
    struct itera_train_report report;
    bool resumed;
    struct itera_trainer *trainer = open_trainer(a, device, &resumed);
    int code = trainer ? train_write_options(a, trainer) : EXIT_FAILED;
    if (code == EXIT_OK) {
        train_introduce(trainer, device, resumed);
        code = train_run(trainer, "train", a->out, train_sample_prompt(a), &report);
    }
    if (code == EXIT_OK)
        code = summarize(a, device, trainer, &report);
    itera_trainer_destroy(&trainer);
    return code;
}

int itera_command_train(int argc, char **argv)
{
    static struct train_arguments a;
    struct command_args args;
    struct itera_device *device = NULL;
    int code = parse(argc, argv, &a, &args);
    if (code >= 0)
        return code;
    code = output_json_check(a.json.value);
    if (code == EXIT_OK && device_open(&a.device, &device))
        code = EXIT_FAILED;
    if (code == EXIT_OK)
        code = a.dry ? train_dry_run(&a, device) : run(&a, device);
    device_report_fallback(device);
    itera_device_close(&device);
    options_free(&args);
    return code;
}
