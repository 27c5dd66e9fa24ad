/* A run that goes on: from its last checkpoint, with the same data and teacher. */
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "train/trainer_impl.h"

static enum itera_status check_same_data(const struct itera_dataset *data, const char *source,
                                         uint64_t hash)
{
    if (!data || itera_train_dataset_hash(data) == hash)
        return ITERA_OK;
    return itera_fail(ITERA_ERR_FORMAT,
                      "%s: is not the text that the run began with, so it cannot go on with it; "
                      "start another run from its model (init)",
                      source);
}

/* Loads it, too. */
static enum itera_status open_same_teacher(struct itera_trainer *t)
{
    const char *path = t->options.teacher;
    uint64_t hash;
    if (!path)
        return ITERA_OK;
    enum itera_status status = itera_train_files_hash(path, &hash);
    if (!status && hash != t->teacher_hash)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: is not the teacher that the run began with, so it cannot go on with "
                          "it; start another run from its model (init)",
                          path);
    return status ? status : itera_train_teacher_open(t);
}

/* Whether what state.json says can have come from a run. */
static bool state_fits(const struct itera_trainer *t)
{
    const struct itera_train_options *o = &t->options;
    const struct itera_train_plan *plan = &t->plan;
    return o->data && plan->warmup <= plan->steps && t->step <= plan->steps &&
           (plan->from_step <= plan->warmup || plan->from_step <= t->step) &&
           t->best_step <= t->step && t->skipped <= t->step && t->skipped_in_a_row <= t->skipped &&
           (!o->valid || o->eval_every);
}

/* Removes the checkpoint before the one that was read, which a killed save left. */
static enum itera_status remove_older(const char *directory, const char *read)
{
    char older[4096];
    enum itera_status status = itera_path_join(older, sizeof older, directory, "checkpoint.old");
    return status || strcmp(older, read) == 0 ? status : itera_remove_tree(older);
}

enum itera_status itera_trainer_resume(struct itera_device *device, const char *directory,
                                       const struct itera_train_changes *changes,
                                       struct itera_trainer **out)
{
    *out = NULL;
    char folder[4096], path[4096];
    bool found;
    enum itera_status status =
        itera_train_checkpoint_find(directory, folder, sizeof folder, &found);
    if (!status && !found)
        status = itera_fail(ITERA_ERR_ARGUMENT, "%s: has no checkpoint to resume from", directory);
    struct itera_trainer *t = NULL;
    if (!status)
        status = itera_trainer_create_bare(device, &t);
    if (status)
        return status;
    struct itera_train_options *o = &t->options;
    status = itera_train_checkpoint_read_state(t, folder);
    o->directory = directory;
    if (!status && changes) {
        o->data = changes->data ? changes->data : o->data;
        o->valid = changes->valid && *changes->valid && o->valid ? changes->valid : o->valid;
        o->teacher = changes->teacher && o->teacher ? changes->teacher : o->teacher;
        o->max_minutes = changes->max_minutes > 0 ? changes->max_minutes : o->max_minutes;
        o->save_every = changes->save_every > 0 ? changes->save_every : o->save_every;
    }
    if (!status)
        status = itera_train_keep_strings(t);
    if (!status)
        status = itera_train_check_options(o);
    if (!status)
        status = itera_train_check_length(&t->options, t->plan.steps);
    if (!status && !state_fits(t))
        status =
            itera_fail(ITERA_ERR_FORMAT, "%s/state.json: its values do not fit together", folder);
    /* A run that the clock stopped may have got more time. */
    if (!status && t->finish && strcmp(t->finish, ITERA_TRAIN_TIME_UP) == 0 && !t->timed)
        t->finish = NULL;
    /* The lock comes before anything that takes long. */
    if (!status)
        status = itera_train_log_open(t, t->log_bytes);
    if (!status)
        status = itera_path_join(path, sizeof path, folder, "model.safetensors");
    if (!status)
        status = itera_model_load_as(device, path, &(struct itera_load_options){.expand = true},
                                     &t->model);
    if (!status && !itera_model_tokenizer(t->model))
        status = itera_fail(ITERA_ERR_FORMAT, "%s: its tokenizer is missing", path);
    if (!status)
        status = open_same_teacher(t);
    if (!status)
        status = itera_trainer_set_up(t, NULL);
    if (!status)
        status = check_same_data(t->data, o->data, t->data_hash);
    if (!status)
        status = check_same_data(t->valid, o->valid, t->valid_hash);
    if (!status)
        status = itera_train_checkpoint_read_moments(t, folder);
    /* Last, as what is wrong with a file alone says more. */
    if (!status)
        status = itera_train_checkpoint_check_files(t, folder);
    if (!status)
        status = remove_older(directory, folder);
    if (!status)
        itera_trainer_start_clocks(t);
    else
        itera_trainer_destroy(&t);
    *out = t;
    return status;
}
