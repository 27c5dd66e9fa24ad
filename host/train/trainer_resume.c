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

/* Whether the run set a part of its data aside. */
static bool is_split(const struct itera_train_options *o)
{
    static const char end[] = "?train";
    const size_t n = sizeof end - 1, length = o->data ? strlen(o->data) : 0;
    return o->valid && length > n && strcmp(o->data + length - n, end) == 0;
}

static enum itera_status take_changes(struct itera_trainer *t,
                                      const struct itera_train_changes *changes)
{
    struct itera_train_options *o = &t->options;
    const bool split = changes->data && !changes->valid && is_split(o);
    o->data = changes->data ? changes->data : o->data;
    o->valid = changes->valid && *changes->valid && o->valid ? changes->valid : o->valid;
    o->teacher = changes->teacher && o->teacher ? changes->teacher : o->teacher;
    o->max_minutes = changes->max_minutes > 0 ? changes->max_minutes : o->max_minutes;
    o->save_every = changes->save_every > 0 ? changes->save_every : o->save_every;
    const enum itera_status status = itera_train_keep_strings(t);
    return status || !split || is_split(o) ? status : itera_train_split_data(o, t->arena);
}

/* Moves the end of the run. The finish of one that was done is gone then. */
static enum itera_status take_length(struct itera_trainer *t, int64_t steps)
{
    if (steps <= 0)
        return ITERA_OK;
    if (steps < t->step || (steps == t->step && steps != t->plan.steps))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "%s: has done %lld steps already; a run becomes longer, or ends where it "
                          "is",
                          t->options.directory, (long long)t->step);
    if (steps != t->plan.steps) {
        const bool done = t->step >= t->plan.steps;
        itera_log(ITERA_LOG_INFO, "%s: %lld steps instead of %lld; the learning rate, %.3g, %s",
                  t->options.directory, (long long)steps, (long long)t->plan.steps,
                  itera_train_learning_rate(&t->options, &t->plan, t->step),
                  done ? "stays as it is, for its schedule has ended"
                       : "goes on from where it is, to the schedule's end at the last step");
        itera_train_plan_move(&t->plan, t->step, steps);
        t->finish = NULL;
    }
    t->timed = false;
    t->options.steps = steps;
    t->options.epochs = 0;
    return ITERA_OK;
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
    if (!status)
        status = take_changes(t, changes ? changes : &(struct itera_train_changes){0});
    if (!status)
        status = itera_train_check_options(o);
    if (!status && !state_fits(t))
        status =
            itera_fail(ITERA_ERR_FORMAT, "%s/state.json: its values do not fit together", folder);
    /* A run that the clock stopped may have got more time. */
    if (!status && t->finish && strcmp(t->finish, ITERA_TRAIN_TIME_UP) == 0 && !t->timed)
        t->finish = NULL;
    if (!status && changes)
        status = take_length(t, changes->steps);
    if (!status)
        status = itera_train_check_length(&t->options, t->plan.steps);
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
