/* Which of several kernels is the fastest on a device: measured, and kept on disk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/gpu.h"
#include "core/environment.h"
#include "core/file.h"
#include "core/log.h"
#include "core/private.h"
#include "format/json.h"

#define MAX_FILE ((size_t)16 << 20)

struct itera_gpu_tuning {
    char *identity;
    char path[1024]; /* "" when there is no cache folder */
    json_t *choices; /* key -> {"choice": name, "seconds": s} */
    bool changed;
    bool cleared; /* what the file has does not count */
    bool mute;    /* the device cannot time its kernels: it keeps the defaults */
};

/* The choices in the file, or an empty object. */
static json_t *load(const struct itera_gpu_tuning *tuning)
{
    json_t *root = NULL, *choices = NULL;
    if (tuning->path[0]) {
        void *text = NULL;
        size_t bytes = 0;
        struct itera_attempt attempt;
        itera_attempt_begin(&attempt);
        enum itera_status status = itera_private_read(tuning->path, MAX_FILE, &text, &bytes);
        if (!status && text)
            status = itera_json_parse(text, bytes, tuning->path, &root);
        itera_attempt_end(&attempt);
        free(text);
        if (status)
            itera_log(ITERA_LOG_WARNING, "tuning data: %s; measuring again", attempt.error);
        const char *identity = json_string_value(json_object_get(root, "identity"));
        if (identity && !strcmp(identity, tuning->identity))
            choices = json_incref(json_object_get(root, "choices"));
        json_decref(root);
    }
    if (!json_is_object(choices)) {
        json_decref(choices);
        choices = json_object();
    }
    return choices;
}

enum itera_status itera_gpu_tuning_open(const char *identity, struct itera_gpu_tuning **out)
{
    *out = NULL;
    struct itera_gpu_tuning *tuning = calloc(1, sizeof *tuning);
    if (tuning)
        tuning->identity = strdup(identity);
    if (!tuning || !tuning->identity) {
        free(tuning);
        return itera_fail(ITERA_ERR_MEMORY, "no memory for tuning data");
    }
    char folder[768], name[64];
    snprintf(name, sizeof name, "tuning-%016llx.json",
             (unsigned long long)itera_gpu_hash(0, identity, strlen(identity)));
    if (!itera_environment_cache_dir(folder, sizeof folder) ||
        itera_path_join(tuning->path, sizeof tuning->path, folder, name))
        tuning->path[0] = '\0';
    tuning->choices = load(tuning);
    *out = tuning;
    return ITERA_OK;
}

void itera_gpu_tuning_close(struct itera_gpu_tuning **tuning)
{
    if (!*tuning)
        return;
    json_decref((*tuning)->choices);
    free((*tuning)->identity);
    free(*tuning);
    *tuning = NULL;
}

const char *itera_gpu_tuning_find(const struct itera_gpu_tuning *tuning, const char *key)
{
    return json_string_value(json_object_get(json_object_get(tuning->choices, key), "choice"));
}

enum itera_status itera_gpu_tuning_set(struct itera_gpu_tuning *tuning, const char *key,
                                       const char *name, double seconds)
{
    json_t *entry = json_pack("{s:s, s:f}", "choice", name, "seconds", seconds);
    if (!entry || json_object_set_new(tuning->choices, key, entry))
        return itera_fail(ITERA_ERR_MEMORY, "no memory for tuning data");
    tuning->changed = true;
    return ITERA_OK;
}

void itera_gpu_tuning_clear(struct itera_gpu_tuning *tuning)
{
    json_object_clear(tuning->choices);
    tuning->cleared = tuning->changed = true;
}

enum itera_status itera_gpu_tuning_save(struct itera_gpu_tuning *tuning)
{
    char folder[768];
    if (!tuning->changed || !tuning->path[0])
        return ITERA_OK;
    /* What another process measured meanwhile stays; what both measured is ours. */
    json_t *merged = tuning->cleared ? json_object() : load(tuning);
    json_object_update(merged, tuning->choices);
    json_decref(tuning->choices);
    tuning->choices = merged;
    json_t *root =
        json_pack("{s:s, s:O}", "identity", tuning->identity, "choices", tuning->choices);
    char *text = root ? itera_json_write(root, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    json_decref(root);
    struct itera_writer *writer = NULL;
    enum itera_status status = text && itera_environment_cache_dir(folder, sizeof folder)
                                   ? itera_make_directory(folder)
                                   : itera_fail(ITERA_ERR_MEMORY, "no memory for tuning data");
    if (!status)
        status = itera_writer_open_private(tuning->path, &writer);
    if (!status)
        status = itera_writer_append(writer, text, strlen(text));
    if (!status)
        status = itera_writer_commit(&writer);
    if (writer)
        itera_writer_abort(&writer);
    free(text);
    tuning->changed = status != ITERA_OK;
    tuning->cleared &= status != ITERA_OK;
    return status;
}

/* A copy of one op as a program of its own, every base tensor bound. */
struct trial {
    struct itera_program program;
    struct itera_binding *bindings;
    int n;
};

static void trial_destroy(struct trial *t)
{
    for (int i = 0; i < t->n; i++)
        itera_buffer_destroy(&t->bindings[i].buffer);
    free(t->bindings);
    free(t->program.tensors);
    *t = (struct trial){0};
}

/* How far the views of an op reach into base tensor b, in bytes. */
static size_t reach(const struct itera_program *p, const struct itera_op *op, int32_t base)
{
    size_t most = 0;
    for (int k = 0; k < ITERA_MAX_IN + ITERA_MAX_OUT; k++) {
        int32_t id = k < ITERA_MAX_IN ? op->in[k] : op->out[k - ITERA_MAX_IN];
        if (id < 0 || p->tensors[id].base != base)
            continue;
        const struct itera_tensor *t = &p->tensors[id];
        int64_t rows = itera_shape_rows(&t->shape);
        if (!itera_shape_elements(&t->shape))
            continue;
        int64_t end = t->offset + (rows - 1) * t->shape.ld + itera_shape_cols(&t->shape);
        if (itera_dtype_bytes(t->dtype, end) > most)
            most = itera_dtype_bytes(t->dtype, end);
    }
    return most;
}

/* Expert offsets must be sorted and end at the row count, or there would be no work to time. */
static enum itera_status fill_offsets(const struct itera_program *p, const struct itera_op *op,
                                      int operand, struct itera_buffer *buffer)
{
    int64_t n = itera_shape_elements(&p->tensors[op->in[operand]].shape);
    int64_t rows = itera_shape_rows(&p->tensors[op->in[0]].shape);
    int32_t *offsets = malloc((size_t)n * sizeof *offsets);
    if (!offsets)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to tune a device");
    for (int64_t i = 0; i < n; i++)
        offsets[i] = (int32_t)(n > 1 ? rows * i / (n - 1) : 0);
    enum itera_status status = itera_buffer_upload(buffer, 0, offsets, (size_t)n * 4);
    free(offsets);
    return status;
}

static enum itera_status trial_create(struct itera_gpu_device *device,
                                      const struct itera_program *p, struct itera_op *op,
                                      struct trial *t)
{
    const struct itera_op_info *info = itera_op_info(op->kind);
    *t = (struct trial){.program = *p};
    size_t size = ((size_t)p->n_tensors + 1) * sizeof *p->tensors;
    t->program.tensors = malloc(size);
    t->bindings = calloc(ITERA_MAX_IN + ITERA_MAX_OUT, sizeof *t->bindings);
    if (!t->program.tensors || !t->bindings)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to tune a device");
    memcpy(t->program.tensors, p->tensors, (size_t)p->n_tensors * sizeof *p->tensors);
    t->program.ops = op;
    t->program.n_ops = t->program.cap_ops = 1;
    enum itera_status status = ITERA_OK;
    for (int k = 0; k < ITERA_MAX_IN + ITERA_MAX_OUT && !status; k++) {
        int32_t id = k < ITERA_MAX_IN ? op->in[k] : op->out[k - ITERA_MAX_IN];
        if (id < 0)
            continue;
        int32_t base = p->tensors[id].base;
        bool known = false;
        for (int i = 0; i < t->n; i++)
            known |= t->bindings[i].tensor == base;
        if (known)
            continue;
        t->program.tensors[base].kind = ITERA_BOUND;
        t->program.tensors[id].kind = ITERA_BOUND;
        struct itera_binding *b = &t->bindings[t->n];
        b->tensor = base;
        status = itera_buffer_create(&device->base, reach(p, op, base), &b->buffer);
        t->n += !status;
        if (!status && k < info->n_in && !strcmp(info->in_name[k], "offsets"))
            status = fill_offsets(p, op, k, b->buffer);
    }
    return status;
}

/* The least seconds of a few runs of one candidate, whose name goes to *found; negative when it does
 * not serve the op. */
static double measure(struct itera_gpu_device *device, const struct trial *t, int candidate,
                      struct itera_compile_result *found)
{
    const struct itera_compile_options options = {.force_choice = candidate + 1};
    struct itera_executable *executable = NULL;
    double best = -1, seconds, total = 0;
    *found = (struct itera_compile_result){0};
    enum itera_status status = device->base.backend->compile(
        &device->base, &t->program, t->bindings, t->n, &options, found, &executable);
    if (executable)
        executable->runner = device->base.backend;
    bool served = !status && found->choice_name[0];
    for (int i = 0; served && i < 8 && total < 0.1; i++) {
        status = device->base.backend->profile(executable, &seconds);
        device->tuning->mute |= status == ITERA_ERR_UNSUPPORTED;
        if (status)
            break;
        total += seconds;
        if (i > 0 && (best < 0 || seconds < best)) /* the first run warms up */
            best = seconds;
    }
    if (served && best < 0 && total > 0)
        best = total;
    itera_executable_destroy(&executable);
    return best;
}

static enum itera_status tune_op(struct itera_gpu_device *device, const struct itera_program *p,
                                 struct itera_op *op, const char *key, int n_choices)
{
    struct trial t;
    enum itera_status status = trial_create(device, p, op, &t);
    double best = -1;
    struct itera_compile_result found, fastest = {0};
    for (int c = 0; c < n_choices && !status && !device->tuning->mute; c++) {
        double seconds = measure(device, &t, c, &found);
        if (seconds < 0)
            continue;
        itera_log(ITERA_LOG_DEBUG, "%s: %s: %s %.1f us", device->base.info.id, key,
                  found.choice_name, seconds * 1e6);
        if (best < 0 || seconds < best) {
            best = seconds;
            fastest = found;
        }
    }
    trial_destroy(&t);
    if (!status && best >= 0)
        status = itera_gpu_tuning_set(device->tuning, key, fastest.choice_name, best);
    return status;
}

enum itera_status itera_gpu_tune(struct itera_device *base, const struct itera_program *program)
{
    struct itera_gpu_device *device = (struct itera_gpu_device *)base;
    if (!device->tuning || device->tuning->mute)
        return ITERA_OK;
    if (!program) {
        itera_gpu_tuning_clear(device->tuning);
        return ITERA_OK;
    }
    struct itera_gpu_lowering l = {.device = device, .traits = &device->traits, .program = program};
    struct itera_attempt attempt;
    enum itera_status status = ITERA_OK;
    bool said = false;
    for (int32_t i = 0; i < program->n_ops && !device->tuning->mute; i++) {
        status = itera_gpu_lower_op(&l, i, -1);
        if (status && status != ITERA_ERR_UNSUPPORTED)
            break;
        if (status || l.n_choices < 2 || itera_gpu_tuning_find(device->tuning, l.choice_key))
            continue;
        if (!said)
            itera_log(ITERA_LOG_INFO, "%s: measuring which kernels are fastest (once per shape)",
                      base->info.id);
        said = true;
        char key[sizeof l.choice_key];
        memcpy(key, l.choice_key, sizeof key);
        struct itera_op op = program->ops[i];
        itera_attempt_begin(&attempt); /* a candidate may fail; the default stays in place */
        status = tune_op(device, program, &op, key, l.n_choices);
        itera_attempt_end(&attempt);
        if (device->tuning->mute)
            itera_log(ITERA_LOG_WARNING,
                      "%s: its kernels cannot be timed; the usual ones are taken", base->info.id);
        else if (status)
            itera_log(ITERA_LOG_DEBUG, "tuning: %s", attempt.error);
        status = ITERA_OK;
    }
    free(l.dispatches);
    itera_attempt_begin(&attempt);
    enum itera_status saved = itera_gpu_tuning_save(device->tuning);
    itera_attempt_end(&attempt);
    if (saved)
        itera_log(ITERA_LOG_DEBUG, "tuning: %s", attempt.error);
    return status == ITERA_ERR_UNSUPPORTED ? ITERA_OK : status;
}
