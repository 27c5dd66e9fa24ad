/* Training checkpoints: DIR/checkpoint/ with
 *   model.safetensors                weights, configuration, tokenizer
 *   m.safetensors, v.safetensors     the moments of AdamW, under the names of the weights
 *   state.json                       options, plan, counters, and hashes of the other files
 * Batches and dropout are functions of (seed, step), so that nothing else has a state. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "model/weights.h"
#include "train/trainer_impl.h"

static const struct part {
    const char *file, *hash; /* the key of its hash in state.json */
} parts[ITERA_TRAIN_FILES] = {
    {"model.safetensors", "model_hash"}, {"m.safetensors", "m_hash"}, {"v.safetensors", "v_hash"}};
enum { MODEL, M, V };

static const char FORMAT[] = "itera-train-1";

/* ---- options as JSON ------------------------------------------------------------------------- */

enum field_kind { FIELD_STRING, FIELD_INTEGER, FIELD_REAL, FIELD_SCHEDULE, FIELD_PRECISION };

static const struct field {
    const char *name;
    enum field_kind kind;
    size_t offset;
} fields[] = {
#define FIELD(name, kind)                                                                          \
    {                                                                                              \
#name, kind, offsetof(struct itera_train_options, name)                                    \
    }
    FIELD(init, FIELD_STRING),
    FIELD(config, FIELD_STRING),
    FIELD(preset, FIELD_STRING),
    FIELD(tokenizer, FIELD_STRING),
    FIELD(data, FIELD_STRING),
    FIELD(valid, FIELD_STRING),
    FIELD(batch, FIELD_INTEGER),
    FIELD(seq, FIELD_INTEGER),
    FIELD(accumulate, FIELD_INTEGER),
    FIELD(steps, FIELD_INTEGER),
    FIELD(epochs, FIELD_REAL),
    FIELD(max_minutes, FIELD_REAL),
    FIELD(schedule, FIELD_SCHEDULE),
    FIELD(lr, FIELD_REAL),
    FIELD(min_lr, FIELD_REAL),
    FIELD(warmup, FIELD_INTEGER),
    FIELD(beta1, FIELD_REAL),
    FIELD(beta2, FIELD_REAL),
    FIELD(eps, FIELD_REAL),
    FIELD(weight_decay, FIELD_REAL),
    FIELD(clip, FIELD_REAL),
    FIELD(precision, FIELD_PRECISION),
    FIELD(dropout, FIELD_REAL),
    FIELD(aux_weight, FIELD_REAL),
    FIELD(teacher, FIELD_STRING),
    FIELD(temperature, FIELD_REAL),
    FIELD(teacher_weight, FIELD_REAL),
    FIELD(positions, FIELD_INTEGER),
    FIELD(log_every, FIELD_INTEGER),
    FIELD(eval_every, FIELD_INTEGER),
    FIELD(eval_tokens, FIELD_INTEGER),
    FIELD(patience, FIELD_INTEGER),
    FIELD(save_every, FIELD_INTEGER),
#undef FIELD
};
enum { FIELDS = sizeof fields / sizeof *fields };

static const void *field_at(const struct itera_train_options *o, const struct field *f)
{
    return (const char *)o + f->offset;
}

/* Fields that are enumerations, by their names; NULL behind the last. */
static const char *choice_name(enum field_kind kind, unsigned value)
{
    if (kind == FIELD_SCHEDULE)
        return value <= ITERA_SCHEDULE_LINEAR ? itera_schedule_name((enum itera_schedule)value)
                                              : NULL;
    return value <= ITERA_PRECISION_F16 ? itera_precision_name((enum itera_precision)value) : NULL;
}

/* The value with this name; anything unknown is an error. */
static unsigned choice_value(struct itera_json_reader *r, const char *name, enum field_kind kind)
{
    const char *text = itera_json_string(r, name, choice_name(kind, 0)), *known;
    for (unsigned value = 0; (known = choice_name(kind, value)); value++)
        if (strcmp(text, known) == 0)
            return value;
    itera_json_fail(r, name, kind == FIELD_SCHEDULE ? "cosine, constant or linear" : "f32 or f16");
    return 0;
}

static json_t *field_to_json(const struct itera_train_options *o, const struct field *f)
{
    const void *at = field_at(o, f);
    switch (f->kind) {
    case FIELD_STRING:
        return itera_json_from_text(*(const char *const *)at);
    case FIELD_INTEGER:
        return json_integer(*(const int64_t *)at);
    case FIELD_REAL:
        return json_real(*(const double *)at);
    case FIELD_SCHEDULE:
    case FIELD_PRECISION:
        break;
    }
    return json_string(choice_name(f->kind, *(const unsigned *)at));
}

json_t *itera_train_options_to_json(const struct itera_train_options *o)
{
    json_t *object = json_object();
    int failed = 0;
    for (int i = 0; i < FIELDS; i++)
        failed |= json_object_set_new(object, fields[i].name, field_to_json(o, &fields[i]));
    /* JSON integers are signed here; the bits are what counts. */
    failed |= json_object_set_new(object, "seed", json_integer((json_int_t)o->seed));
    if (!failed)
        return object;
    json_decref(object);
    return NULL;
}

enum itera_status itera_train_options_from_json(struct itera_arena *arena,
                                                struct itera_json_reader *r,
                                                struct itera_train_options *o)
{
    r->complete = true;
    for (int i = 0; i < FIELDS; i++) {
        char *at = (char *)o + fields[i].offset;
        const char *name = fields[i].name;
        switch (fields[i].kind) {
        case FIELD_STRING:
            *(const char **)(void *)at = itera_json_text(r, name, arena);
            break;
        case FIELD_INTEGER:
            *(int64_t *)(void *)at =
                itera_json_int(r, name, *(int64_t *)(void *)at, -1, INT64_C(1) << 53);
            break;
        case FIELD_REAL:
            *(double *)(void *)at = itera_json_real(r, name, *(double *)(void *)at, -1, 1e18);
            break;
        case FIELD_SCHEDULE:
        case FIELD_PRECISION:
            *(unsigned *)(void *)at = choice_value(r, name, fields[i].kind);
            break;
        }
    }
    o->seed = (uint64_t)itera_json_int(r, "seed", 0, INT64_MIN, INT64_MAX);
    return r->status;
}

/* ---- where it is ----------------------------------------------------------------------------- */

enum itera_status itera_train_checkpoint_find(const char *directory, char *path, size_t size,
                                              bool *found)
{
    static const char *const names[] = {"checkpoint", "checkpoint.old"};
    *found = false;
    for (int i = 0; i < 2 && !*found; i++) {
        enum itera_status status = itera_path_join(path, size, directory, names[i]);
        if (status)
            return status;
        *found = itera_is_directory(path);
    }
    return ITERA_OK;
}

bool itera_trainer_can_resume(const char *directory)
{
    char path[4096];
    bool found = false;
    return !itera_train_checkpoint_find(directory, path, sizeof path, &found) && found;
}

uint64_t itera_train_dataset_hash(const struct itera_dataset *dataset)
{
    size_t count;
    const int32_t *ids = itera_dataset_tokens(dataset, &count);
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ (uint32_t)ids[i]) * UINT64_C(0x100000001b3);
        hash ^= hash >> 29;
    }
    return hash;
}

/* ---- writing --------------------------------------------------------------------------------- */

static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* NULL when there is no memory. */
static json_t *state_to_json(const struct itera_trainer *t, const float scale[2],
                             const uint64_t hash[ITERA_TRAIN_FILES])
{
    const struct member {
        const char *name;
        json_t *value; /* given away */
    } members[] = {
        {"format", json_string(FORMAT)},
        {"step", json_integer(t->step)},
        {"seconds", json_real(itera_seconds() - t->began)},
        {"timed", json_boolean(t->timed)},
        {"plan", json_pack("{s:I, s:I, s:I, s:f}", "steps", (json_int_t)t->plan.steps, "warmup",
                           (json_int_t)t->plan.warmup, "from_step", (json_int_t)t->plan.from_step,
                           "from_progress", t->plan.from_progress)},
        {"best_loss", number_or_null(t->best_loss)},
        {"best_step", json_integer(t->best_step)},
        {"bad_evaluations", json_integer(t->bad_evaluations)},
        {"skipped", json_integer(t->skipped)},
        {"skipped_in_a_row", json_integer(t->skipped_in_a_row)},
        {"loss_scale", json_real((double)scale[0])},
        {"loss_scale_steps", json_real((double)scale[1])},
        {"finish", itera_json_from_text(t->finish)},
        {"log_bytes", json_integer(t->log_bytes)},
        {"data_hash", json_integer((json_int_t)t->data_hash)},
        {"valid_hash", json_integer((json_int_t)t->valid_hash)},
        {"teacher_hash", json_integer((json_int_t)t->teacher_hash)},
        {parts[MODEL].hash, json_integer((json_int_t)hash[MODEL])},
        {parts[M].hash, json_integer((json_int_t)hash[M])},
        {parts[V].hash, json_integer((json_int_t)hash[V])},
        {"teacher_loss", number_or_null(t->last.teacher_loss)},
        {"device", json_string(itera_device_info(t->device)->id)},
        {"threads", json_integer(itera_device_threads(t->device))},
        {"options", itera_train_options_to_json(&t->options)},
    };
    json_t *root = json_object();
    int failed = 0;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        failed |= json_object_set_new(root, members[i].name, members[i].value);
    if (!failed)
        return root;
    json_decref(root);
    return NULL;
}

static enum itera_status write_text(const char *path, const char *text)
{
    struct itera_writer *writer;
    enum itera_status status = itera_writer_open(path, &writer);
    if (status)
        return status;
    status = itera_writer_append(writer, text, strlen(text));
    if (status) {
        itera_writer_abort(&writer);
        return status;
    }
    return itera_writer_commit(&writer);
}

enum itera_status itera_train_write_json(json_t *root, const char *path)
{
    char *text = root ? itera_json_write(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    enum itera_status status =
        text ? write_text(path, text) : itera_fail(ITERA_ERR_MEMORY, "%s: no memory", path);
    free(text);
    json_decref(root);
    return status;
}

static enum itera_status save_moment(const struct itera_trainer *t, const struct itera_buffer *from,
                                     const char *path)
{
    const struct itera_layout *layout = &t->model->layout;
    const size_t bytes = (size_t)layout->elements * 4;
    float *values = malloc(bytes);
    if (!values)
        return itera_fail(ITERA_ERR_MEMORY, "%s: no memory to write it", path);
    /* Buffers are not changed by downloads, whatever the interface says. */
    enum itera_status status =
        itera_buffer_download((struct itera_buffer *)(uintptr_t)from, 0, values, bytes);
    if (!status)
        status = itera_layout_write(layout, values, "", path, NULL, 0);
    free(values);
    return status;
}

static enum itera_status save_files(struct itera_trainer *t, const char *folder)
{
    char path[4096];
    uint64_t hash[ITERA_TRAIN_FILES] = {0};
    enum itera_status status = ITERA_OK;
    for (int i = 0; i < ITERA_TRAIN_FILES && !status; i++) {
        status = itera_path_join(path, sizeof path, folder, parts[i].file);
        if (!status)
            status = i == MODEL ? itera_model_save(t->model, path)
                                : save_moment(t, i == M ? t->program.m : t->program.v, path);
        if (!status)
            status = itera_train_files_hash(path, &hash[i]);
    }
    float scale[2];
    if (!status)
        status = itera_train_program_get_scale(&t->program, scale);
    if (!status)
        status = itera_path_join(path, sizeof path, folder, "state.json");
    return status ? status : itera_train_write_json(state_to_json(t, scale, hash), path);
}

enum itera_status itera_train_checkpoint_save(struct itera_trainer *t)
{
    char to[4096], from[4096];
    enum itera_status status = itera_path_join(to, sizeof to, t->options.directory, "checkpoint");
    if (!status)
        status = itera_path_join(from, sizeof from, t->options.directory, "checkpoint.new");
    if (!status)
        status = itera_train_log_sync(t);
    if (!status)
        status = itera_remove_tree(from); /* of a killed process */
    if (!status)
        status = itera_make_directory(from);
    if (status)
        return status;
    status = save_files(t, from);
    if (!status)
        status = itera_replace_directory(from, to);
    if (status)
        itera_remove_tree(from);
    return status;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* A loss that was finite, or NaN. */
static double read_loss(struct itera_json_reader *r, const char *key)
{
    return itera_json_is_null(r, key) ? (double)NAN
                                      : itera_json_real(r, key, (double)NAN, -1e30, 1e30);
}

static void read_plan(struct itera_trainer *t, struct itera_json_reader *r, const char *source)
{
    const json_t *plan = itera_json_object(r, "plan");
    struct itera_json_reader p;
    if (r->status || (r->status = itera_json_begin(&p, plan, source)))
        return;
    p.complete = true;
    const int64_t most = INT64_C(1) << 53;
    t->plan.steps = itera_json_need_int(&p, "steps", 1, most);
    t->plan.warmup = itera_json_need_int(&p, "warmup", 0, most);
    t->plan.from_step = itera_json_need_int(&p, "from_step", 0, most);
    t->plan.from_progress = itera_json_real(&p, "from_progress", 0, 0, 1);
    r->status = p.status;
}

enum itera_status itera_train_checkpoint_read_state(struct itera_trainer *t, const char *folder)
{
    char path[4096];
    json_t *root = NULL;
    enum itera_status status = itera_path_join(path, sizeof path, folder, "state.json");
    if (!status)
        status = itera_json_load(path, &root);
    if (status)
        return status;
    struct itera_json_reader r, o = {0};
    status = itera_json_begin(&r, root, path);
    const char *format = status ? "" : itera_json_string(&r, "format", "");
    if (!status && strcmp(format, FORMAT) != 0)
        status = itera_json_fail(&r, "format", FORMAT);
    if (status)
        goto done;
    r.complete = true;
    const int64_t most = INT64_C(1) << 53;
    t->step = itera_json_need_int(&r, "step", 0, most);
    t->began = itera_seconds() - itera_json_real(&r, "seconds", 0, 0, 1e12);
    t->timed = itera_json_bool(&r, "timed", false);
    read_plan(t, &r, path);
    t->best_loss = read_loss(&r, "best_loss");
    t->best_step = itera_json_int(&r, "best_step", 0, 0, most);
    t->bad_evaluations = itera_json_int(&r, "bad_evaluations", 0, 0, most);
    t->skipped = itera_json_int(&r, "skipped", 0, 0, most);
    t->skipped_in_a_row = itera_json_int(&r, "skipped_in_a_row", 0, 0, most);
    t->loss_scale[0] = (float)itera_json_real(&r, "loss_scale", 1, 1, 0x1p24);
    t->loss_scale[1] = (float)itera_json_real(&r, "loss_scale_steps", 0, 0, 0x1p24);
    t->log_bytes = itera_json_int(&r, "log_bytes", 0, 0, INT64_MAX);
    t->data_hash = (uint64_t)itera_json_int(&r, "data_hash", 0, INT64_MIN, INT64_MAX);
    t->valid_hash = (uint64_t)itera_json_int(&r, "valid_hash", 0, INT64_MIN, INT64_MAX);
    t->teacher_hash = (uint64_t)itera_json_int(&r, "teacher_hash", 0, INT64_MIN, INT64_MAX);
    for (int i = 0; i < ITERA_TRAIN_FILES; i++)
        t->file_hash[i] = (uint64_t)itera_json_int(&r, parts[i].hash, 0, INT64_MIN, INT64_MAX);
    t->last.teacher_loss = read_loss(&r, "teacher_loss");
    t->finish = itera_json_text(&r, "finish", t->arena);
    const char *device = itera_json_string(&r, "device", "");
    const int64_t threads = itera_json_int(&r, "threads", 0, 0, 1 << 20);
    const json_t *options = itera_json_object(&r, "options");
    status = r.status;
    if (!status)
        status = itera_json_begin(&o, options, path);
    if (!status)
        status = itera_train_options_from_json(t->arena, &o, &t->options);
    if (!status && (strcmp(device, itera_device_info(t->device)->id) != 0 ||
                    threads != itera_device_threads(t->device)))
        itera_log(ITERA_LOG_WARNING,
                  "the run began on %s with %lld thread%s: on another device or thread count its "
                  "losses differ in the last bits",
                  device, (long long)threads, threads == 1 ? "" : "s");
done:
    json_decref(root);
    return status;
}

/* The state of a run, or NULL where there is none; path: where it is. */
static enum itera_status load_state(const char *directory, char *path, size_t size, json_t **root)
{
    char folder[4096];
    bool found;
    *root = NULL;
    enum itera_status status =
        itera_train_checkpoint_find(directory, folder, sizeof folder, &found);
    if (!status && found)
        status = itera_path_join(path, size, folder, "state.json");
    return status || !found ? status : itera_json_load(path, root);
}

enum itera_status itera_trainer_peek_text(const char *directory, char **source)
{
    char path[4096];
    json_t *root;
    struct itera_json_reader r, o;
    *source = NULL;
    enum itera_status status = load_state(directory, path, sizeof path, &root);
    if (status || !root)
        return status;
    status = itera_json_begin(&r, root, path);
    const json_t *options = status ? NULL : itera_json_object(&r, "options");
    if (!status)
        status = r.status ? r.status : itera_json_begin(&o, options, path);
    if (!status) {
        const char *data = itera_json_string(&o, "data", "builtin:stories");
        const char *text =
            itera_json_is_null(&o, "valid") ? data : itera_json_string(&o, "valid", data);
        status = o.status;
        *source = status ? NULL : strdup(text);
        if (!status && !*source)
            status = itera_fail(ITERA_ERR_MEMORY, "%s: no memory", path);
    }
    json_decref(root);
    return status;
}

enum itera_status itera_trainer_peek(const char *directory, struct itera_train_report *report)
{
    char path[4096];
    json_t *root;
    struct itera_json_reader r;
    const int64_t most = INT64_C(1) << 53;
    *report = (struct itera_train_report){.best_loss = (double)NAN};
    enum itera_status status = load_state(directory, path, sizeof path, &root);
    if (!status && !root)
        status = itera_fail(ITERA_ERR_ARGUMENT, "%s: has no checkpoint to look at", directory);
    if (!status)
        status = itera_json_begin(&r, root, path);
    if (!status) {
        r.complete = true;
        report->step = itera_json_need_int(&r, "step", 0, most);
        report->seconds = itera_json_real(&r, "seconds", 0, 0, 1e12);
        report->best_loss = read_loss(&r, "best_loss");
        report->best_step = itera_json_int(&r, "best_step", 0, 0, most);
        report->skipped = itera_json_int(&r, "skipped", 0, 0, most);
        const bool going_on = itera_json_is_null(&r, "finish");
        report->events =
            !going_on && itera_json_string(&r, "finish", NULL) ? ITERA_TRAIN_FINISHED : 0;
        status = r.status;
    }
    json_decref(root);
    return status;
}

enum itera_status itera_train_checkpoint_check_files(const struct itera_trainer *t,
                                                     const char *folder)
{
    char path[4096];
    enum itera_status status = ITERA_OK;
    for (int i = 0; i < ITERA_TRAIN_FILES && !status; i++) {
        uint64_t hash;
        status = itera_path_join(path, sizeof path, folder, parts[i].file);
        if (!status)
            status = itera_train_files_hash(path, &hash);
        if (!status && hash != t->file_hash[i])
            status = itera_fail(ITERA_ERR_FORMAT,
                                "%s: is not what this checkpoint was saved with, but damaged or of "
                                "another one; put the whole checkpoint back, or begin another run",
                                path);
    }
    return status;
}

static enum itera_status read_moment(struct itera_trainer *t, const char *folder, int part,
                                     struct itera_buffer *to)
{
    char path[4096];
    struct itera_safetensors *file = NULL;
    const struct itera_layout *layout = &t->model->layout;
    float *values = calloc((size_t)layout->elements + 1, sizeof *values);
    enum itera_status status = itera_path_join(path, sizeof path, folder, parts[part].file);
    if (!status && !values)
        status = itera_fail(ITERA_ERR_MEMORY, "%s: no memory to read it", path);
    if (!status)
        status = itera_safetensors_open(path, &file);
    if (!status)
        status = itera_layout_read(layout, file, path, false, NULL, values);
    for (int64_t i = 0; i < layout->elements && part == V && !status; i++)
        if (values[i] < 0)
            status = itera_fail(ITERA_ERR_FORMAT,
                                "%s: has a negative value, which no mean of squares is; put the "
                                "whole checkpoint back, or begin another run",
                                path);
    if (!status)
        status = itera_buffer_upload(to, 0, values, (size_t)layout->elements * 4);
    itera_safetensors_close(&file);
    free(values);
    return status;
}

enum itera_status itera_train_checkpoint_read_moments(struct itera_trainer *t, const char *folder)
{
    enum itera_status status = read_moment(t, folder, M, t->program.m);
    if (!status)
        status = read_moment(t, folder, V, t->program.v);
    return status ? status : itera_train_program_set_scale(&t->program, t->loss_scale);
}
