/* itera distill: trains a smaller model to say what a larger one says, in one stage or several. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "commands/train_run.h"
#include "itera/distill.h"

struct distill_arguments {
    struct train_arguments run;
    struct option_names via;
    int64_t stage_steps;
    struct {
        bool temperature, weight, via, stage_steps;
    } given;
    struct command_args args;
};

static const char NOTES[] =
    "The loss is (1 - W) cross-entropy + W T^2 KL(teacher || student), both softened by T, plus\n"
    "the experts' load-balance loss. The student has the teacher's tokenizer and vocabulary;\n"
    "validation is its own cross-entropy.\n\n"
    "With --via, each preset is trained in DIR/stage-1, DIR/stage-2, ... by the one before it, "
    "and\n"
    "the last of them teaches the model in DIR. --steps, --epochs and --max-minutes are for all\n"
    "stages together, in equal parts, unless --stage-steps sets the length of those before the\n"
    "last.";

static int parse(int argc, char **argv, struct distill_arguments *a)
{
    struct itera_train_options *t = &a->run.train;
    char notes[2048];
    snprintf(notes, sizeof notes,
             "%s\n\n%s\n\nExample: itera distill run/model.safetensors --preset micro --data "
             "stories.txt --steps 2000 --out small",
             NOTES, output_presets());
    struct command_option options[TRAIN_OPTION_ROWS + 4] = {
        {"temperature", 0, OPTION_NUMBER, &t->temperature, "T",
         "by which both models' logits are divided (default 2)", 0, 1000, NULL,
         &a->given.temperature},
        {"weight", 0, OPTION_NUMBER, &t->teacher_weight, "W",
         "of the teacher in the loss, from 0 to 1; the text has the\nrest (default 0.5)", 0, 1,
         NULL, &a->given.weight},
        {"via", 0, OPTION_NAMES, &a->via, "P,...",
         "train these presets first, from large to small, each the\nnext one's teacher", 0, 0, NULL,
         &a->given.via},
        {"stage-steps", 0, OPTION_INTEGER, &a->stage_steps, "N",
         "steps of each of these (default: an equal part of --steps)", 1, 1e12, NULL,
         &a->given.stage_steps},
    };
    train_arguments_options(&a->run, options + 4);
    for (struct command_option *o = options; o->name; o++)
        if (strcmp(o->name, "tokenizer") == 0)
            o->help = "only for a TEACHER without one: the file of that it was\ntrained with";
    const struct command_spec spec = {
        .name = "distill",
        .positional = "TEACHER",
        .summary = "Distils a model: trains a student of --preset, --config or --init on text and "
                   "on what\nTEACHER expects there. DIR is a run like that of itera train, and "
                   "goes on with --resume.",
        .options = options,
        .notes = notes,
        .max = 1};
    int code = options_parse(&spec, argc, argv, &a->args);
    if (code >= 0)
        return code;
    t->teacher = a->args.n ? a->args.positional[0] : NULL;
    if (a->given.weight && t->teacher_weight == 0)
        t->teacher_weight = -1; /* for the library 0 is the default */
    code = train_arguments_finish(&a->run, &spec);
    if (code < 0 && !t->teacher && !(a->run.resume && itera_distill_can_resume(a->run.out)))
        code = options_usage(&spec, "TEACHER is missing: the model to learn from");
    else if (code < 0 && a->given.temperature && !(t->temperature > 0))
        code = options_usage(&spec, "--temperature must be above 0");
    else if (code < 0 && a->given.stage_steps && !a->given.via && !a->run.resume)
        code = options_usage(&spec, "--stage-steps needs --via: the stages before the last");
    if (code >= 0)
        options_free(&a->args);
    return code;
}

/* ---- creating and going on ------------------------------------------------------------------- */

static const char *changed_via(const struct option_names *now,
                               const struct itera_distill_options *was)
{
    bool same = (int)now->n == was->n_via;
    for (int i = 0; same && i < was->n_via; i++)
        same = strcmp(now->item[i], was->via[i]) == 0;
    return same ? NULL : "via";
}

/* The first option that was given and is not what the distillation began with; NULL: none. */
static const char *changed_option(const struct distill_arguments *a, const struct itera_distill *d)
{
    const struct itera_distill_options *was = itera_distill_options(d);
    const char *changed = train_arguments_changed(&a->run, &was->train);
    if (a->given.temperature && !(a->run.train.temperature == was->train.temperature))
        changed = "temperature";
    const double weight = a->run.train.teacher_weight;
    if (a->given.weight && !((weight < 0 ? 0 : weight) == was->train.teacher_weight))
        changed = "weight";
    if (a->given.stage_steps && a->stage_steps != was->stage_steps)
        changed = "stage-steps";
    if (a->given.via && !changed)
        changed = changed_via(&a->via, was);
    return changed;
}

/* NULL after a printed error. */
static struct itera_distill *open_distillation(const struct distill_arguments *a,
                                               struct itera_device *device)
{
    struct itera_distill *d = NULL;
    if (a->run.resume && itera_distill_can_resume(a->run.out)) {
        if (itera_distill_open(a->run.out, &d))
            return NULL;
        const char *changed = changed_option(a, d);
        if (changed) {
            train_refuse_change("distill", changed, &a->run);
            itera_distill_destroy(&d);
        }
        return d;
    }
    if (a->run.resume)
        command_note("%s has no distillation yet: it begins", a->run.out);
    const struct itera_distill_options options = {.train = a->run.train,
                                                  .via = a->via.item,
                                                  .n_via = (int)a->via.n,
                                                  .stage_steps = a->stage_steps};
    itera_distill_create(device, &options, &d);
    return d;
}

/* ---- the summary ----------------------------------------------------------------------------- */

static json_t *stages_json(const struct itera_distill *d)
{
    json_t *stages = json_array();
    for (int i = 0; i < itera_distill_stages(d); i++) {
        const struct itera_train_options *o = itera_distill_stage(d, i);
        struct itera_train_report r;
        if (!itera_trainer_can_resume(o->directory) || itera_trainer_peek(o->directory, &r))
            break; /* it has not begun */
        const char *student = o->init ? o->init : o->config ? o->config : o->preset;
        json_t *stage = json_pack(
            "{s:o, s:o, s:o, s:I, s:b}", "student", output_path(student ? student : "micro"),
            "teacher", output_path(o->teacher), "directory", output_path(o->directory), "step",
            (json_int_t)r.step, "finished", (r.events & ITERA_TRAIN_FINISHED) != 0);
        json_object_set_new(stage, "best_loss", output_number(r.best_loss));
        json_object_set_new(stage, "seconds", output_number(r.seconds));
        json_array_append_new(stages, stage);
    }
    return stages;
}

static void print_earlier_stages(const struct itera_distill *d, int stage)
{
    for (int i = 0; i < stage; i++) {
        const struct itera_train_options *o = itera_distill_stage(d, i);
        struct itera_train_report r;
        if (itera_trainer_peek(o->directory, &r))
            continue;
        printf("stage %d          %s, %lld steps in %.0f s", i + 1, o->preset, (long long)r.step,
               r.seconds);
        if (isfinite(r.best_loss))
            printf(", validation loss %.4f", r.best_loss);
        putchar('\n');
    }
}

static int summarize(const struct distill_arguments *a, const struct itera_distill *d, int stage,
                     const struct itera_device *device, const struct itera_trainer *trainer,
                     const struct itera_train_report *r)
{
    const struct itera_train_options *o = itera_trainer_options(trainer);
    const struct option_optional *json = &a->run.json;
    if (json->given) {
        json_t *root = train_summary_json(o->directory, device, trainer, r);
        json_object_set_new(root, "teacher", output_path(o->teacher));
        json_object_set_new(root, "temperature", json_real(o->temperature));
        json_object_set_new(root, "weight", json_real(o->teacher_weight));
        json_object_set_new(root, "stage", json_integer(stage + 1));
        json_object_set_new(root, "stages", stages_json(d));
        int code = output_json(root, json->value);
        json_decref(root);
        if (code != EXIT_OK || output_on_stdout(json))
            return code;
    }
    print_earlier_stages(d, stage);
    train_print_summary(o->directory, r);
    return EXIT_OK;
}

/* ---- the stages ------------------------------------------------------------------------------ */

/* Runs a stage; *over is set when it is the last one, or was interrupted. */
static int run_stage(const struct distill_arguments *a, const struct itera_distill *d, int stage,
                     struct itera_device *device, bool *over)
{
    const struct itera_train_changes changes = train_arguments_changes(&a->run);
    const int stages = itera_distill_stages(d);
    struct itera_train_report report;
    struct itera_trainer *trainer = NULL;
    bool resumed;
    int code = EXIT_FAILED;
    if (stages > 1)
        progress_line("stage %d of %d, in %s", stage + 1, stages,
                      itera_distill_stage(d, stage)->directory);
    if (!itera_distill_trainer(d, stage, device, &changes, &trainer, &resumed)) {
        train_introduce(trainer, device, resumed);
        code = train_run(trainer, "distill", a->run.out, train_sample_prompt(&a->run), &report);
    }
    *over = code != EXIT_OK || stage == stages - 1 || !report.finish;
    if (*over && code == EXIT_OK)
        code = summarize(a, d, stage, device, trainer, &report);
    itera_trainer_destroy(&trainer);
    return code;
}

static int run_stages(const struct distill_arguments *a, const struct itera_distill *d,
                      struct itera_device *device)
{
    int code = EXIT_OK, last = itera_distill_stages(d) - 1;
    bool over = false;
    for (int stage = 0; stage <= last && !over; stage++) {
        if (stage < last && itera_distill_finished(d, stage))
            progress_line("stage %d of %d is finished: %s/model.safetensors", stage + 1, last + 1,
                          itera_distill_stage(d, stage)->directory);
        else
            code = run_stage(a, d, stage, device, &over);
    }
    return code;
}

int itera_command_distill(int argc, char **argv)
{
    static struct distill_arguments a;
    int code = parse(argc, argv, &a);
    if (code >= 0)
        return code;
    struct itera_device *device = NULL;
    code = output_json_check(a.run.json.value) ? EXIT_FAILED : EXIT_OK;
    if (code == EXIT_OK && device_open(&a.run.device, &device))
        code = EXIT_FAILED;
    if (code == EXIT_OK) {
        struct itera_distill *d = open_distillation(&a, device);
        code = d ? run_stages(&a, d, device) : EXIT_FAILED;
        itera_distill_destroy(&d);
        device_report_fallback(device);
    }
    itera_device_close(&device);
    options_free(&a.args);
    return code;
}
