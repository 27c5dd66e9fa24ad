/* Staged distillation: from what was asked for to the options of each run. */
#include "itera/distill.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "format/json.h"
#include "train/trainer_impl.h"

static const char FORMAT[] = "itera-distill-1", NAME[] = "distill.json";

enum { MAX_STAGES = ITERA_DISTILL_MAX_VIA + 1, DEFAULT_STEPS = 1000 };

struct itera_distill {
    struct itera_arena *arena;
    struct itera_distill_options options;
    const char *via[ITERA_DISTILL_MAX_VIA];
    int n; /* stages */
    struct itera_train_options stage[MAX_STAGES];
};

static enum itera_status no_memory(void)
{
    return itera_fail(ITERA_ERR_MEMORY, "distillation: no memory");
}

static enum itera_status create_bare(struct itera_distill **out)
{
    struct itera_distill *d = calloc(1, sizeof *d);
    if (d)
        d->arena = itera_arena_create(0);
    if (!d || !d->arena) {
        free(d);
        return no_memory();
    }
    d->options.via = d->via;
    *out = d;
    return ITERA_OK;
}

void itera_distill_destroy(struct itera_distill **distill)
{
    struct itera_distill *d = *distill;
    if (!d)
        return;
    itera_arena_destroy(&d->arena);
    free(d);
    *distill = NULL;
}

/* ---- the stages ------------------------------------------------------------------------------ */

static enum itera_status check_positions(const struct itera_train_options *o,
                                         const struct itera_config *config)
{
    int32_t positions = config->max_positions;
    if (positions && o->positions)
        positions = (int32_t)o->positions;
    return itera_train_check_positions(o->seq, positions);
}

static enum itera_status check(const struct itera_distill *d)
{
    const struct itera_distill_options *o = &d->options;
    struct itera_config config;
    if (!o->train.teacher || !o->train.directory)
        return itera_fail(ITERA_ERR_ARGUMENT, "distillation: needs a teacher and a directory");
    if (o->n_via < 0 || o->n_via > ITERA_DISTILL_MAX_VIA || o->stage_steps < 0)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "distillation: from 0 to %d intermediate students are possible, of "
                          "steps that are not negative",
                          ITERA_DISTILL_MAX_VIA);
    for (int i = 0; i < o->n_via; i++) {
        enum itera_status status = itera_config_preset(o->via[i], &config);
        if (!status)
            status = check_positions(&o->train, &config);
        if (status)
            return status;
    }
    const int64_t steps = o->train.steps;
    if (!o->stage_steps && steps && steps < o->n_via + 1)
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "distillation: %lld steps cannot be divided among %d stages",
                          (long long)steps, o->n_via + 1);
    return ITERA_OK;
}

/* The length of a stage's run, in place of the whole one's. */
static void set_length(const struct itera_distill *d, int stage, struct itera_train_options *run)
{
    const struct itera_distill_options *o = &d->options;
    const bool last = stage == d->n - 1;
    if (o->stage_steps) {
        if (last)
            return;
        run->steps = o->stage_steps;
        run->epochs = run->max_minutes = 0;
        return;
    }
    if (!run->steps && !(run->epochs > 0) && !(run->max_minutes > 0))
        run->steps = DEFAULT_STEPS;
    const int64_t share = run->steps / d->n;
    run->steps = last ? run->steps - share * (d->n - 1) : share;
    run->epochs /= d->n;
    run->max_minutes /= d->n;
}

/* The options of every run, from those of the whole. */
static enum itera_status derive(struct itera_distill *d)
{
    const struct itera_distill_options *o = &d->options;
    d->n = o->n_via + 1;
    const char *teacher = o->train.teacher;
    for (int i = 0; i < d->n; i++) {
        struct itera_train_options *run = &d->stage[i];
        *run = o->train;
        run->teacher = teacher;
        /* What create took belongs to this distillation: nothing in it is in the way. */
        run->overwrite = true;
        set_length(d, i, run);
        if (i) /* the first student passes it on */
            run->tokenizer = NULL;
        if (i == d->n - 1)
            continue;
        run->init = run->config = NULL;
        run->preset = o->via[i];
        run->directory = itera_arena_printf(d->arena, "%s/stage-%d", o->train.directory, i + 1);
        teacher = itera_arena_printf(d->arena, "%s/stage-%d/model.safetensors", o->train.directory,
                                     i + 1);
        if (!run->directory || !teacher)
            return no_memory();
    }
    return ITERA_OK;
}

/* ---- distill.json ---------------------------------------------------------------------------- */

static enum itera_status save(const struct itera_distill *d, const char *path)
{
    const struct itera_distill_options *o = &d->options;
    json_t *via = json_array();
    int failed = 0;
    for (int i = 0; i < o->n_via; i++)
        failed |= json_array_append_new(via, itera_json_from_text(o->via[i]));
    /* What is NULL makes a NULL of the whole, and no member is lost. */
    json_t *root =
        json_pack("{s:s, s:o, s:I, s:o}", "format", FORMAT, "via", via, "stage_steps",
                  (json_int_t)o->stage_steps, "options", itera_train_options_to_json(&o->train));
    if (failed) {
        json_decref(root);
        root = NULL;
    }
    return itera_train_write_json(root, path);
}

static enum itera_status read_via(struct itera_distill *d, struct itera_json_reader *r)
{
    const json_t *via = itera_json_array(r, "via"), *name;
    size_t i;
    if (json_array_size(via) > ITERA_DISTILL_MAX_VIA)
        return itera_json_fail(r, "via", "fewer presets");
    json_array_foreach((json_t *)(uintptr_t)via, i, name)
    {
        d->via[i] = itera_json_to_text(name, d->arena);
        if (!d->via[i])
            return itera_json_fail(r, "via", "names of presets");
        d->options.n_via++;
    }
    return r->status;
}

static enum itera_status load(struct itera_distill *d, const char *path)
{
    json_t *root = NULL;
    struct itera_json_reader r, o;
    enum itera_status status = itera_json_load(path, &root);
    if (status)
        return status;
    status = itera_json_begin(&r, root, path);
    const char *format = status ? "" : itera_json_string(&r, "format", "");
    if (!status && strcmp(format, FORMAT) != 0)
        status = itera_json_fail(&r, "format", FORMAT);
    r.complete = true;
    if (!status)
        status = read_via(d, &r);
    if (!status) {
        d->options.stage_steps = itera_json_int(&r, "stage_steps", 0, 0, INT64_C(1) << 40);
        const json_t *options = itera_json_object(&r, "options");
        status = r.status;
        if (!status)
            status = itera_json_begin(&o, options, path);
    }
    if (!status)
        status = itera_train_options_from_json(d->arena, &o, &d->options.train);
    json_decref(root);
    return status;
}

/* ---- creating and opening -------------------------------------------------------------------- */

static enum itera_status keep_strings(struct itera_distill *d)
{
    struct itera_train_options *o = &d->options.train;
    const char **strings[] = {&o->init, &o->config, &o->preset,  &o->tokenizer,
                              &o->data, &o->valid,  &o->teacher, &o->directory};
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        if (*strings[i] && !(*strings[i] = itera_arena_strdup(d->arena, *strings[i])))
            return no_memory();
    for (int i = 0; i < d->options.n_via; i++)
        if (!(d->via[i] = itera_arena_strdup(d->arena, d->via[i])))
            return no_memory();
    return ITERA_OK;
}

/* What stages read must not be where they write: not in the directory, nor the directory itself. A
 * directory that is a file is refused when it is made. */
static enum itera_status check_outside(const char *path, const char *directory)
{
    char *file = realpath(path, NULL), *folder = realpath(directory, NULL);
    size_t n = folder ? strlen(folder) : 0;
    if (n == 1) /* the root: its slash is the separator */
        n = 0;
    const bool begins = file && folder && strncmp(file, folder, n) == 0;
    const bool inside = begins && (file[n] == '/' || (!file[n] && itera_is_directory(file)));
    free(file);
    free(folder);
    if (!inside)
        return ITERA_OK;
    return itera_fail(ITERA_ERR_ARGUMENT,
                      "%s: is in the directory %s, whose contents would be replaced; choose "
                      "another directory",
                      path, directory);
}

/* The teacher and the last student, before others train for them. */
static enum itera_status check_models(const struct itera_distill *d, struct itera_device *device)
{
    const struct itera_train_options *o = &d->options.train;
    struct itera_model *teacher = NULL, *student = NULL;
    struct itera_config config;
    enum itera_status status = check_outside(o->teacher, o->directory);
    if (!status && o->init)
        status = check_outside(o->init, o->directory);
    if (!status)
        status = itera_model_load(device, o->teacher, &teacher);
    if (!status && o->init)
        status = itera_model_load(device, o->init, &student);
    else if (!status)
        status = o->config ? itera_config_load(o->config, &config)
                           : itera_config_preset(o->preset ? o->preset : "micro", &config);
    if (!status)
        status = itera_train_teacher_check(o, student, teacher);
    if (!status)
        status = student ? itera_train_check_positions(o->seq, student->config.max_positions)
                         : check_positions(o, &config);
    itera_model_destroy(&teacher);
    itera_model_destroy(&student);
    return status;
}

/* Whether there is a run. A distill.json alone is not: its first stage could not begin. */
static bool has_begun(const char *directory)
{
    char path[4096];
    return itera_trainer_can_resume(directory) ||
           (!itera_path_join(path, sizeof path, directory, "stage-1") &&
            itera_trainer_can_resume(path));
}

/* Refuses to write over a run, or clears what could be taken for one of this distillation's. */
static enum itera_status claim(const struct itera_distill *d)
{
    const char *directory = d->options.train.directory;
    static const char *const names[] = {"checkpoint", "checkpoint.old", "checkpoint.new"};
    char path[4096];
    enum itera_status status = itera_train_check_directory(&d->options.train, has_begun(directory));
    if (!status)
        status = itera_make_directory(directory);
    for (int i = 1; i <= MAX_STAGES && !status; i++) {
        char name[32];
        snprintf(name, sizeof name, "stage-%d", i);
        status = itera_path_join(path, sizeof path, directory, name);
        if (!status)
            status = itera_remove_tree(path);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names && !status; i++) {
        status = itera_path_join(path, sizeof path, directory, names[i]);
        if (!status)
            status = itera_remove_tree(path);
    }
    return status;
}

enum itera_status itera_distill_create(struct itera_device *device,
                                       const struct itera_distill_options *options,
                                       struct itera_distill **out)
{
    static const struct itera_distill_options defaults;
    *out = NULL;
    if (!options)
        options = &defaults;
    struct itera_distill *d = NULL;
    char path[4096];
    enum itera_status status = create_bare(&d);
    if (status)
        return status;
    d->options.train = itera_train_options_fill(&options->train);
    d->options.stage_steps = options->stage_steps;
    d->options.n_via = options->n_via;
    for (int i = 0; i < options->n_via && i < ITERA_DISTILL_MAX_VIA; i++)
        d->via[i] = options->via[i];
    status = check(d);
    if (!status)
        status = keep_strings(d);
    if (!status)
        status = itera_train_hold_out(&d->options.train, d->arena);
    if (!status)
        status = derive(d);
    if (!status)
        status = check_models(d, device);
    if (!status)
        status = claim(d);
    if (!status)
        status = itera_path_join(path, sizeof path, d->options.train.directory, NAME);
    if (!status)
        status = save(d, path);
    if (status)
        itera_distill_destroy(&d);
    *out = d;
    return status;
}

bool itera_distill_can_resume(const char *directory)
{
    char path[4096];
    return !itera_path_join(path, sizeof path, directory, NAME) && itera_file_exists(path);
}

enum itera_status itera_distill_open(const char *directory, struct itera_distill **out)
{
    *out = NULL;
    struct itera_distill *d = NULL;
    char path[4096];
    enum itera_status status = create_bare(&d);
    if (status)
        return status;
    status = itera_path_join(path, sizeof path, directory, NAME);
    if (!status)
        status = load(d, path);
    if (!status) {
        d->options.train.directory = itera_arena_strdup(d->arena, directory);
        status = d->options.train.directory ? check(d) : no_memory();
    }
    if (!status)
        status = derive(d);
    if (status)
        itera_distill_destroy(&d);
    *out = d;
    return status;
}

/* ---- running --------------------------------------------------------------------------------- */

const struct itera_distill_options *itera_distill_options(const struct itera_distill *d)
{
    return &d->options;
}

int itera_distill_stages(const struct itera_distill *d)
{
    return d->n;
}

const struct itera_train_options *itera_distill_stage(const struct itera_distill *d, int stage)
{
    return &d->stage[stage];
}

bool itera_distill_finished(const struct itera_distill *d, int stage)
{
    struct itera_train_report report;
    const char *directory = d->stage[stage].directory;
    return itera_trainer_can_resume(directory) && !itera_trainer_peek(directory, &report) &&
           (report.events & ITERA_TRAIN_FINISHED);
}

enum itera_status itera_distill_trainer(const struct itera_distill *d, int stage,
                                        struct itera_device *device,
                                        const struct itera_train_changes *changes,
                                        struct itera_trainer **out, bool *resumed)
{
    const struct itera_train_options *run = &d->stage[stage];
    struct itera_train_changes now = changes ? *changes : (struct itera_train_changes){0};
    const bool divided = !d->options.stage_steps, last = stage == d->n - 1;
    if (divided)
        now.max_minutes /= d->n;
    else if (!last)
        now.max_minutes = 0;
    /* Where the directory is now, not where it was when it began. */
    if (stage)
        now.teacher = run->teacher;
    *resumed = itera_trainer_can_resume(run->directory);
    if (*resumed)
        return itera_trainer_resume(device, run->directory, &now, out);
    struct itera_train_options fresh = *run;
    fresh.data = now.data ? now.data : fresh.data;
    fresh.valid = now.valid ? now.valid : fresh.valid;
    fresh.teacher = now.teacher ? now.teacher : fresh.teacher;
    fresh.max_minutes = now.max_minutes > 0 ? now.max_minutes : fresh.max_minutes;
    fresh.save_every = now.save_every > 0 ? now.save_every : fresh.save_every;
    return itera_trainer_create_filled(device, &fresh, out);
}
