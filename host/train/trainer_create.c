/* A new run. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/log.h"
#include "train/trainer_impl.h"

/* *made: the directory was not there before. */
static enum itera_status claim_directory(const struct itera_train_options *o, bool *made)
{
    if (!o->directory)
        return ITERA_OK;
    *made = !itera_is_directory(o->directory);
    enum itera_status status = itera_make_directory(o->directory);
    return status ? status : itera_train_check_directory(o, itera_trainer_can_resume(o->directory));
}

/* Takes *model over (NULL: the options say which). The options are filled in. */
static enum itera_status create(struct itera_device *device, struct itera_model **model,
                                const struct itera_train_options *options,
                                struct itera_trainer **out)
{
    *out = NULL;
    struct itera_trainer *t = NULL;
    struct itera_corpus *corpus = NULL;
    bool made = false;
    enum itera_status status = itera_train_check_options(options);
    if (!status)
        status = itera_trainer_create_bare(device, &t);
    if (status)
        return status;
    if (model) {
        t->model = *model;
        *model = NULL;
    }
    t->options = *options;
    if (!t->options.data)
        t->options.data = "builtin:stories";
    if (!t->options.valid && strcmp(t->options.data, "builtin:stories") == 0)
        t->options.valid = "builtin:stories?valid";
    status = itera_train_keep_strings(t);
    if (!status)
        status = itera_train_hold_out(&t->options, t->arena);
    if (t->options.valid && !*t->options.valid)
        t->options.valid = NULL;
    if (!status)
        status = claim_directory(&t->options, &made);
    if (!status)
        status = itera_train_teacher_open(t);
    if (!status)
        status = itera_corpus_open(t->options.data, &corpus);
    if (!status)
        status = itera_train_start_model(t, corpus);
    if (!status)
        status = itera_trainer_set_up(t, corpus);
    itera_corpus_destroy(&corpus);
    /* What the student is to be compared with. */
    if (!status && t->teacher && t->valid)
        status = itera_train_program_evaluate(&t->program, NULL, t->valid,
                                              itera_train_eval_batches(t), &t->last.teacher_loss);
    if (!status)
        status = itera_train_make_plan(t);
    if (!status)
        status = itera_train_check_length(&t->options, t->plan.steps);
    if (!status && t->options.directory) {
        t->data_hash = itera_train_dataset_hash(t->data);
        t->valid_hash = t->valid ? itera_train_dataset_hash(t->valid) : 0;
        if (t->teacher)
            status = itera_train_files_hash(t->options.teacher, &t->teacher_hash);
        if (!status)
            status = itera_train_log_open(t, 0);
        if (!status && isfinite(t->last.teacher_loss))
            status = itera_train_log_teacher(t);
    }
    if (!status) {
        itera_trainer_start_clocks(t);
        /* So that there is something to resume from the first moment on. */
        status = itera_trainer_save(t);
    }
    if (status)
        itera_trainer_destroy(&t);
    /* What failed before it wrote anything leaves no folder behind. */
    if (status && made)
        rmdir(options->directory);
    *out = t;
    return status;
}

enum itera_status itera_trainer_create(struct itera_device *device,
                                       const struct itera_train_options *options,
                                       struct itera_trainer **out)
{
    const struct itera_train_options filled = itera_train_options_fill(options);
    return create(device, NULL, &filled, out);
}

enum itera_status itera_trainer_create_filled(struct itera_device *device,
                                              const struct itera_train_options *filled,
                                              struct itera_trainer **out)
{
    return create(device, NULL, filled, out);
}

enum itera_status itera_trainer_create_from(struct itera_model **model,
                                            const struct itera_train_options *options,
                                            struct itera_trainer **out)
{
    *out = NULL;
    enum itera_status status = ITERA_OK;
    const struct itera_model *m = *model;
    const struct itera_train_options filled = itera_train_options_fill(options);
    if (filled.init || filled.config || filled.preset)
        status = itera_fail(ITERA_ERR_ARGUMENT,
                            "training: a model is given, and init, config or preset name another");
    else if (m->layout.bytes != m->layout.elements * 4)
        status = itera_fail(ITERA_ERR_UNSUPPORTED,
                            "training: the weights of the model to start from are not all f32");
    if (!status)
        status = create(m->device, model, &filled, out);
    itera_model_destroy(model);
    return status;
}
