#include "backend/gpu/tuning_measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/lower.h"
#include "backend/gpu/tuning_store.h"
#include "core/log.h"

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
        device->untimed |= status == ITERA_ERR_UNSUPPORTED;
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

/* Whether the driver says of one of a candidate's kernels that its registers spill. */
static bool spills(struct itera_gpu_device *device, const struct trial *t, int candidate)
{
    struct itera_gpu_lowering l = {
        .device = device, .traits = &device->traits, .program = &t->program};
    bool found = false;
    if (device->describe && !itera_gpu_lower_op(&l, 0, candidate))
        for (int32_t i = 0; i < l.n && !found; i++) {
            struct itera_kernel_info info = {.spills = -1};
            found = !device->describe(device, &l.dispatches[i], &info) && info.spills > 0;
        }
    free(l.dispatches);
    return found;
}

/* The fastest of the candidates, and of those that do not spill if there are any: others wait for
 * memory that a busy device has no time for. */
static enum itera_status tune_op(struct itera_gpu_device *device, const struct itera_program *p,
                                 struct itera_op *op, const char *key, int n_choices)
{
    struct trial t;
    enum itera_status status = trial_create(device, p, op, &t);
    double best = -1, best_of_all = -1;
    struct itera_compile_result found, fastest = {0}, fastest_of_all = {0};
    for (int c = 0; c < n_choices && !status && !device->untimed; c++) {
        double seconds = measure(device, &t, c, &found);
        if (seconds < 0)
            continue;
        itera_log(ITERA_LOG_DEBUG, "%s: %s: %s %.1f us", device->base.info.id, key,
                  found.choice_name, seconds * 1e6);
        if (best_of_all < 0 || seconds < best_of_all) {
            best_of_all = seconds;
            fastest_of_all = found;
        }
        if ((best < 0 || seconds < best) && !spills(device, &t, c)) {
            best = seconds;
            fastest = found;
        }
    }
    trial_destroy(&t);
    if (best < 0) {
        best = best_of_all;
        fastest = fastest_of_all;
    }
    if (!status && best >= 0)
        status = itera_gpu_tuning_set(device->tuning, key, fastest.choice_name, best);
    return status;
}

enum itera_status itera_gpu_tune(struct itera_device *base, const struct itera_program *program)
{
    struct itera_gpu_device *device = (struct itera_gpu_device *)base;
    if (!device->tuning || device->untimed)
        return ITERA_OK;
    if (!program) {
        itera_gpu_tuning_clear(device->tuning);
        return ITERA_OK;
    }
    struct itera_gpu_lowering l = {.device = device, .traits = &device->traits, .program = program};
    struct itera_attempt attempt;
    enum itera_status status = ITERA_OK;
    bool said = false;
    for (int32_t i = 0; i < program->n_ops && !device->untimed; i++) {
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
        if (device->untimed)
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
