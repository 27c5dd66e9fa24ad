/* itera bench: devices, and which configurations are measured together. */
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_parts.h"
#include "cli/command.h"
#include "cli/device_request.h"
#include "cli/progress.h"
#include "cli/stop.h"
#include "itera/compress.h"

/* ---- devices --------------------------------------------------------------------------------- */

/* A meter, and whether it has anything to say: a short run shows. */
static enum itera_status open_meter(struct bench *b, struct bench_device *d)
{
    struct itera_energy energy;
    enum itera_status status = meter_open(&b->s->meter, itera_device_info(d->device), &d->meter);
    if (!status)
        status = itera_meter_begin(d->meter);
    const double begin = progress_seconds();
    while (!status && progress_seconds() - begin < 0.02)
        continue;
    if (!status)
        status = itera_meter_end(d->meter, &energy);
    if (status)
        return status;
    d->metered = !isnan(energy.figure[0].joules);
    snprintf(d->energy_reason, sizeof d->energy_reason, "%s", energy.figure[0].reason);
    if (d->metered && energy.figure[0].measured)
        status = itera_meter_measure_idle(d->meter, b->s->quick ? 0.5 : 2);
    return status;
}

/* What was measured of them. */
static void say_peaks(const struct bench_device *d)
{
    const struct itera_bench_peaks *p = &d->peaks;
    const struct itera_device_info *info = itera_device_info(d->device);
    char label[DEVICE_LABEL], line[512];
    int used =
        snprintf(line, sizeof line, "%s (%.80s): f32 matmul %.3g",
                 device_label(info->id, itera_device_threads(d->device), label, sizeof label),
                 info->driver, p->gflops);
    if (!isnan(p->f16_gflops))
        used += snprintf(line + used, sizeof line - (size_t)used, ", f16 %.3g", p->f16_gflops);
    if (!isnan(p->int8_gops))
        used += snprintf(line + used, sizeof line - (size_t)used, ", int8 %.3g", p->int8_gops);
    used += snprintf(line + used, sizeof line - (size_t)used, " GFLOP/s; copy %.3g GB/s; read",
                     p->copy_gbytes);
    for (int i = 0; i < ITERA_BENCH_SIZES; i++)
        used += snprintf(line + used, sizeof line - (size_t)used, "%s %.3g GB/s of %.3g MB",
                         i ? "," : "", p->read_gbytes[i], p->read_bytes[i] / 1e6);
    progress_line("%s", line);
}

static enum itera_status open_device(struct bench *b, const char *id, int64_t threads)
{
    if (b->n_devices == BENCH_MOST_DEVICES) {
        command_error("more than %d devices and thread counts", BENCH_MOST_DEVICES);
        return ITERA_ERR_LIMIT;
    }
    struct bench_device *d = &b->devices[b->n_devices];
    const struct device_request request = {id, threads, b->s->fallback};
    enum itera_status status = device_open(&request, &d->device);
    if (status)
        return status;
    b->n_devices++;
    status = open_meter(b, d);
    if (!status)
        status = itera_bench_measure_peaks(d->device, b->s->quick, &d->peaks);
    if (status)
        return status;
    say_peaks(d);
    d->peaks_index = json_array_size(b->peaks);
    json_array_append_new(b->peaks, bench_peaks_json(d));
    return ITERA_OK;
}

/* The peaks once more, after rows: others may have had the processors before. */
static enum itera_status peaks_again(struct bench *b)
{
    enum itera_status status = ITERA_OK;
    for (int i = 0; i < b->n_devices && !b->s->quick && !stop_asked() && !status; i++) {
        struct bench_device *d = &b->devices[i];
        struct itera_bench_peaks again;
        status = itera_bench_measure_peaks(d->device, false, &again);
        if (status)
            break;
        itera_bench_raise_peaks(&d->peaks, &again);
        json_array_set_new(b->peaks, d->peaks_index, bench_peaks_json(d));
    }
    return status;
}

/* Each entry of --device: a device with each number of threads, or all of them. Threads are the
 * CPU's. */
enum itera_status bench_open_devices(struct bench *b)
{
    const struct bench_settings *s = b->s;
    struct itera_device_info *infos;
    int count;
    enum itera_status status = itera_devices(&infos, &count);
    if (status)
        return status;
    for (size_t d = 0; d < s->devices.n && !status; d++) {
        const char *id = s->devices.item[d];
        const bool all = !strcmp(id, "all");
        for (int i = 0; i < (all ? count : 1) && !status; i++) {
            const char *name = all ? infos[i].id : id;
            const bool cpu = !strcmp(name, "cpu");
            for (size_t t = 0; t < (cpu ? s->threads.n : 1) && !status && !stop_asked(); t++)
                status = open_device(b, name, s->threads.item[t]);
        }
    }
    free(infos);
    return status;
}

void bench_close_devices(struct bench *b)
{
    for (int d = 0; d < b->n_devices; d++) {
        itera_meter_close(&b->devices[d].meter);
        itera_device_close(&b->devices[d].device);
    }
}

/* ---- tasks that are measured together -------------------------------------------------------- */

enum { MOST_TASKS = 256, MOST_MODELS = 256 };

struct wave {
    struct bench *b;
    struct itera_bench_task *tasks[MOST_TASKS];
    int device[MOST_TASKS];
    struct itera_model *models[MOST_MODELS];
    int n_tasks, n_models;
    double bytes, budget; /* of all tasks and models; what may be used */
};

static int on_progress(void *user, double done, const struct itera_bench_task *task)
{
    (void)user;
    (void)task;
    progress_update(100 * done, NULL);
    return stop_asked();
}

enum itera_status bench_tasks(const struct bench *b, struct itera_bench_task *const *tasks, int n)
{
    const struct itera_bench_options options = {.seconds = b->s->seconds, .progress = on_progress};
    char what[64];
    snprintf(what, sizeof what, "%d rows in turns", n);
    progress_start(what, "%", 100);
    enum itera_status status = itera_bench_measure(tasks, n, &options);
    progress_finish(0);
    return status;
}

/* Measures the tasks of a wave and lets go of them, and of the models unless they are kept. */
static enum itera_status finish_wave(struct wave *w, enum itera_status status, bool keep_models)
{
    if (!status && w->n_tasks && !stop_asked())
        status = bench_tasks(w->b, w->tasks, w->n_tasks);
    if (!status && w->n_tasks)
        status = peaks_again(w->b);
    for (int i = 0; i < w->n_tasks; i++) {
        const struct bench_device *device = &w->b->devices[w->device[i]];
        const struct itera_bench_row *row = itera_bench_task_row(w->tasks[i], &device->peaks);
        if (!status && row->repeats)
            status = bench_add_row(w->b, w->tasks[i], device);
        w->bytes -= (double)row->memory_bytes;
        itera_bench_task_destroy(&w->tasks[i]);
    }
    w->n_tasks = 0;
    for (int i = 0; i < w->n_models && !keep_models; i++) {
        w->bytes -= (double)itera_model_info(w->models[i])->bytes;
        itera_model_destroy(&w->models[i]);
    }
    w->n_models = keep_models ? w->n_models : 0;
    return status;
}

/* Takes the task, which may be the last one that fits. */
static enum itera_status add_task(struct wave *w, struct itera_bench_task *task, int device)
{
    w->device[w->n_tasks] = device;
    w->tasks[w->n_tasks++] = task;
    w->bytes += (double)itera_bench_task_row(task, &w->b->devices[device].peaks)->memory_bytes;
    if (w->n_tasks < MOST_TASKS && w->bytes < w->budget)
        return ITERA_OK;
    return finish_wave(w, ITERA_OK, true);
}

/* ---- ops ------------------------------------------------------------------------------------- */

static bool op_matches(const char *filter, const char *name)
{
    char op[64];
    snprintf(op, sizeof op, "%.*s", (int)strcspn(name, " "), name);
    return !filter || !fnmatch(filter, name, 0) || !fnmatch(filter, op, 0);
}

bool bench_any_op(const char *filter, char *names, size_t size)
{
    char name[160];
    size_t used = 0;
    *names = 0;
    for (int i = 0; itera_bench_op_name(i, name, sizeof name); i++) {
        if (op_matches(filter, name))
            return true;
        name[strcspn(name, " ")] = 0;
        if (!strstr(names, name) && used < size)
            used += (size_t)snprintf(names + used, size - used, "%s%s", used ? ", " : "", name);
    }
    return false;
}

static enum itera_status measure_ops(struct wave *w)
{
    enum { TOGETHER = 16 }; /* that many share a part of the run, so that results come early */
    struct bench *b = w->b;
    enum itera_status status = ITERA_OK;
    char name[160];
    for (int i = 0; itera_bench_op_name(i, name, sizeof name) && !status; i++) {
        if (!op_matches(b->s->filter, name))
            continue;
        for (int d = 0; d < b->n_devices && !status && !stop_asked(); d++) {
            struct itera_bench_task *task;
            status = itera_bench_task_op(b->devices[d].device, i, &task);
            if (!status)
                status = add_task(w, task, d);
        }
        if (!status && w->n_tasks >= TOGETHER)
            status = finish_wave(w, status, false);
    }
    return status;
}

/* ---- models ---------------------------------------------------------------------------------- */

enum itera_status bench_make_model(struct itera_device *device, const struct bench_settings *s,
                                   const char *preset, const char *dtype,
                                   struct itera_model **model)
{
    const struct itera_model_options create = {.seed = 1, .exact = s->exact, .half = s->half};
    const struct itera_load_options load = {.exact = s->exact, .half = s->half};
    enum itera_status status = s->model ? itera_model_load_as(device, s->model, &load, model)
                                        : itera_model_create(device, preset, &create, model);
    if (status || !dtype || (!s->model && !strcmp(dtype, "f32")))
        return status;
    const struct itera_quantize_options options = {.to = dtype, .plain = true};
    struct itera_model *wide = *model;
    status = itera_quantize(wide, &options, model);
    itera_model_destroy(&wide);
    return status;
}

const char *bench_model_name(const struct bench_settings *s, const char *preset)
{
    if (!s->model)
        return preset;
    const char *slash = strrchr(s->model, '/');
    return slash && slash[1] ? slash + 1 : s->model;
}

/* Drivers that emulate a GPU take a minute to compile what they then take seconds to run: a quick
 * run has no time for all of it. */
static bool wants_phase(const struct bench *b, enum itera_bench_phase phase,
                        const struct itera_device_info *info)
{
    static const char *const names[] = {"forward", "prefill", "decode", "mixed", "train"};
    const struct option_names *asked = &b->s->phases;
    for (size_t i = 0; i < asked->n; i++)
        if (!strcmp(asked->item[i], names[phase]))
            return true;
    return !asked->n && phase != ITERA_BENCH_MIXED &&
           (phase == ITERA_BENCH_PREFILL || !b->s->quick || info->type != ITERA_DEVICE_SOFTWARE);
}

/* A model on device `device`, with weights rounded to `dtype`, or NULL: as they are. */
struct configuration {
    struct itera_model *model;
    const char *dtype;
    int device;
};

/* A phase and shape, of some configurations of one model. */
struct shape {
    enum itera_bench_phase phase;
    int64_t batch, tokens;
};

static enum itera_status add_shape(struct wave *w, const char *name, const struct shape *shape,
                                   const struct configuration *of, int n)
{
    enum itera_status status = ITERA_OK;
    for (int i = 0; i < n && !status && !stop_asked(); i++) {
        const struct bench_device *device = &w->b->devices[of[i].device];
        const struct itera_device_info *on = itera_device_info(device->device);
        const struct itera_model_info *info = itera_model_info(of[i].model);
        const bool train = shape->phase == ITERA_BENCH_TRAIN;
        const int64_t limit = info->max_positions;
        if (train && info->bytes != 4 * info->parameters)
            continue; /* narrow weights are not trained */
        if (!wants_phase(w->b, shape->phase, on))
            continue;
        if (shape->phase != ITERA_BENCH_DECODE && shape->phase != ITERA_BENCH_MIXED && limit &&
            shape->tokens > limit) {
            bench_note(w->b, "%s has %lld positions: no rows for %lld tokens.", name,
                       (long long)limit, (long long)shape->tokens);
            continue;
        }
        if (shape->phase == ITERA_BENCH_MIXED && limit && shape->batch >= limit) {
            bench_note(w->b, "%s has %lld positions: no rows for %lld sequences all at others.",
                       name, (long long)limit, (long long)shape->batch);
            continue;
        }
        struct itera_bench_task *task;
        const double begin = progress_seconds();
        status = itera_bench_task_model(of[i].model, name, of[i].dtype, shape->phase, shape->batch,
                                        shape->tokens, &task);
        const double compiled = progress_seconds() - begin;
        if (!status && compiled > 1)
            progress_line("%s: compiled %s %s in %.0f s", on->id, name,
                          itera_bench_task_row(task, &device->peaks)->phase, compiled);
        if (!status) {
            status = itera_bench_task_parity(task);
            enum itera_status added = add_task(w, task, of[i].device);
            status = status ? status : added;
        }
    }
    return status;
}

static enum itera_status add_shapes(struct wave *w, const char *name,
                                    const struct configuration *of, int n)
{
    const struct bench_settings *s = w->b->s;
    const bool infer = !s->mode || !strcmp(s->mode, "model");
    const bool train = !s->mode || !strcmp(s->mode, "train");
    enum itera_status status = ITERA_OK;
    for (size_t k = 0; k < s->batches.n && infer && !status; k++) {
        const int64_t batch = s->batches.item[k];
        for (size_t i = 0; i < s->prompts.n && !status; i++) {
            struct shape shape = {ITERA_BENCH_FORWARD, batch, s->prompts.item[i]};
            status = add_shape(w, name, &shape, of, n);
            shape.phase = ITERA_BENCH_PREFILL;
            if (!status)
                status = add_shape(w, name, &shape, of, n);
        }
        struct shape decode = {ITERA_BENCH_DECODE, batch, s->generate};
        if (!status)
            status = add_shape(w, name, &decode, of, n);
        decode.phase = ITERA_BENCH_MIXED;
        if (!status)
            status = add_shape(w, name, &decode, of, n);
    }
    const struct shape step = {ITERA_BENCH_TRAIN, s->train_batch, s->train_seq};
    if (!status && train)
        status = add_shape(w, name, &step, of, n);
    return status;
}

/* All devices and types of one preset, or of the file: together where they fit, else one after the
 * other. */
static enum itera_status add_model(struct wave *w, const char *preset)
{
    struct bench *b = w->b;
    const struct bench_settings *s = b->s;
    const char *name = bench_model_name(s, preset);
    const int types = s->dtypes.n ? (int)s->dtypes.n : 1, n = types * b->n_devices;
    struct configuration *of = calloc((size_t)n + 1, sizeof *of);
    int made = 0;
    enum itera_status status = ITERA_OK;
    if (!of) {
        command_error("no memory for %d configurations", n);
        status = ITERA_ERR_MEMORY;
    }
    for (int i = 0; i < n && !status && !stop_asked(); i++) {
        const struct itera_device_info *info = itera_device_info(b->devices[i / types].device);
        if (s->lean && info->type == ITERA_DEVICE_SOFTWARE && strcmp(preset, s->lean) != 0)
            continue;
        if (w->n_models == MOST_MODELS) {
            status = finish_wave(w, add_shapes(w, name, of, made), false);
            made = 0;
        }
        of[made].device = i / types;
        of[made].dtype = s->dtypes.n ? s->dtypes.item[i % types] : NULL;
        if (!status)
            status = bench_make_model(b->devices[i / types].device, s, preset, of[made].dtype,
                                      &of[made].model);
        if (status)
            break;
        const double bytes = (double)itera_model_info(of[made].model)->bytes;
        w->models[w->n_models++] = of[made++].model;
        w->bytes += bytes;
        /* Training has four times the weights besides, and expanding for parity once more. */
        if (i + 1 < n && w->bytes + 6 * bytes > w->budget) {
            bench_note(b,
                       "The configurations of %s did not fit into memory together: they were "
                       "not measured in turns.",
                       name);
            status = add_shapes(w, name, of, made);
            status = finish_wave(w, status, false);
            made = 0;
        }
    }
    if (!status)
        status = add_shapes(w, name, of, made);
    if (!status && w->bytes > w->budget / 2)
        status = finish_wave(w, status, false);
    free(of);
    return status;
}

enum itera_status bench_measure(struct bench *b)
{
    const struct bench_settings *s = b->s;
    struct wave *w = calloc(1, sizeof *w);
    if (!w) {
        command_error("no memory for the benchmark");
        return ITERA_ERR_MEMORY;
    }
    *w = (struct wave){.b = b, .budget = 0.4 * (double)b->before.available_bytes};
    enum itera_status status = ITERA_OK;
    if (s->mode && !strcmp(s->mode, "ops")) {
        status = measure_ops(w);
    } else {
        const size_t models = s->model ? 1 : s->presets.n;
        for (size_t i = 0; i < models && !status && !stop_asked(); i++)
            status = add_model(w, s->model ? NULL : s->presets.item[i]);
        bench_note(b, "Inputs are random tokens%s: expert loads are those of such tokens.",
                   s->model ? "" : " and presets have random weights");
    }
    status = finish_wave(w, status, false);
    free(w);
    return status;
}
