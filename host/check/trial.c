#include "check/trial.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/number.h"
#include "tensor/blocks.h"

/* Guards are wide enough for a kernel that runs a full unrolled tile too far. */
enum { GUARD_BYTES = 512 };

static const char *tensor_name(const struct itera_program *p, int32_t tensor)
{
    const char *name = p->tensors[tensor].name;
    return name ? name : "an output";
}

static size_t span_bytes(const struct itera_tensor *t)
{
    return itera_dtype_bytes(t->dtype, itera_shape_span(&t->shape));
}

static void fill_pattern(uint8_t *data, size_t bytes)
{
    const uint32_t pattern = ITERA_TRIAL_PATTERN;
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(pattern >> 8 * (i % 4));
}

enum itera_status itera_trial_create(const struct itera_program *program, int shift,
                                     struct itera_trial *out)
{
    *out = (struct itera_trial){.program = program};
    size_t n = (size_t)program->n_tensors + 1;
    out->slots = calloc(n, sizeof *out->slots);
    out->slot_of = malloc(n * sizeof *out->slot_of);
    if (!out->slots || !out->slot_of)
        goto fail;
    for (int32_t t = 0; t < program->n_tensors; t++) {
        const struct itera_tensor *tensor = &program->tensors[t];
        out->slot_of[t] = -1;
        if (tensor->kind != ITERA_BOUND || tensor->base != t)
            continue;
        struct itera_trial_slot *slot = &out->slots[out->n_slots];
        slot->tensor = t;
        slot->alias = -1;
        slot->offset = GUARD_BYTES + (size_t)shift * 4;
        slot->bytes = (slot->offset + span_bytes(tensor) + GUARD_BYTES + 3) / 4 * 4;
        slot->initial = malloc(slot->bytes);
        if (!slot->initial)
            goto fail;
        fill_pattern(slot->initial, slot->bytes);
        out->slot_of[t] = out->n_slots++;
    }
    return ITERA_OK;
fail:
    itera_trial_destroy(out);
    return itera_fail(ITERA_ERR_MEMORY, "no memory for a parity case");
}

void itera_trial_destroy(struct itera_trial *trial)
{
    for (int i = 0; i < trial->n_slots; i++)
        free(trial->slots[i].initial);
    free(trial->slots);
    free(trial->slot_of);
    *trial = (struct itera_trial){0};
}

enum itera_status itera_trial_copy(const struct itera_trial *trial, struct itera_trial *out)
{
    enum itera_status status = itera_trial_create(trial->program, 0, out);
    for (int i = 0; i < trial->n_slots && !status; i++) {
        free(out->slots[i].initial);
        out->slots[i] = trial->slots[i];
        out->slots[i].initial = malloc(trial->slots[i].bytes);
        if (!out->slots[i].initial)
            status = itera_fail(ITERA_ERR_MEMORY, "no memory for a parity case");
    }
    if (status)
        itera_trial_destroy(out);
    else
        itera_trial_reset(out, trial);
    return status;
}

void itera_trial_reset(struct itera_trial *copy, const struct itera_trial *trial)
{
    for (int i = 0; i < trial->n_slots; i++)
        memcpy(copy->slots[i].initial, trial->slots[i].initial, trial->slots[i].bytes);
}

void *itera_trial_data(const struct itera_trial *trial, int32_t tensor)
{
    int32_t slot = trial->slot_of[tensor];
    return slot < 0 ? NULL : trial->slots[slot].initial + trial->slots[slot].offset;
}

void itera_trial_alias(struct itera_trial *trial, int32_t tensor, int32_t input)
{
    trial->slots[trial->slot_of[tensor]].alias = trial->slot_of[input];
}

enum itera_status itera_runner_create(const struct itera_trial *trial, struct itera_device *device,
                                      const struct itera_compile_options *options,
                                      struct itera_compile_result *result, struct itera_runner *out)
{
    *out = (struct itera_runner){.trial = trial, .device = device};
    size_t n = (size_t)trial->n_slots + 1;
    struct itera_binding *bindings = calloc(n, sizeof *bindings);
    out->buffers = calloc(n, sizeof *out->buffers);
    out->results = calloc(n, sizeof *out->results);
    enum itera_status status = ITERA_OK;
    bool memory = bindings && out->buffers && out->results;
    for (int i = 0; memory && i < trial->n_slots && !status; i++) {
        const struct itera_trial_slot *slot = &trial->slots[i];
        if (slot->alias < 0) {
            out->results[i] = malloc(slot->bytes);
            memory = out->results[i] != NULL;
            status = itera_buffer_create(device, slot->bytes, &out->buffers[i]);
        }
    }
    for (int i = 0; memory && i < trial->n_slots && !status; i++) {
        const struct itera_trial_slot *slot = &trial->slots[i];
        const struct itera_trial_slot *home = slot->alias < 0 ? slot : &trial->slots[slot->alias];
        bindings[i] =
            (struct itera_binding){slot->tensor, out->buffers[home - trial->slots], home->offset};
    }
    if (!memory && !status)
        status = itera_fail(ITERA_ERR_MEMORY, "no memory for a parity case");
    if (!status)
        status = itera_compile(device, trial->program, bindings, trial->n_slots, options, result,
                               &out->executable);
    free(bindings);
    if (status)
        itera_runner_destroy(out);
    return status;
}

void itera_runner_destroy(struct itera_runner *runner)
{
    itera_executable_destroy(&runner->executable);
    for (int i = 0; runner->trial && i < runner->trial->n_slots; i++) {
        if (runner->buffers)
            itera_buffer_destroy(&runner->buffers[i]);
        if (runner->results)
            free(runner->results[i]);
    }
    free(runner->buffers);
    free(runner->results);
    *runner = (struct itera_runner){0};
}

enum itera_status itera_runner_run(struct itera_runner *runner)
{
    const struct itera_trial *trial = runner->trial;
    enum itera_status status = ITERA_OK;
    for (int i = 0; i < trial->n_slots && !status; i++)
        if (runner->buffers[i])
            status = itera_buffer_upload(runner->buffers[i], 0, trial->slots[i].initial,
                                         trial->slots[i].bytes);
    if (!status)
        status = itera_run(runner->executable);
    for (int i = 0; i < trial->n_slots && !status; i++)
        if (runner->buffers[i])
            status = itera_buffer_download(runner->buffers[i], 0, runner->results[i],
                                           trial->slots[i].bytes);
    return status;
}

void itera_runner_repeat(struct itera_runner *runner, struct itera_difference *out)
{
    const struct itera_trial *trial = runner->trial;
    uint8_t **before = calloc((size_t)trial->n_slots + 1, sizeof *before);
    bool memory = before != NULL;
    for (int i = 0; memory && i < trial->n_slots; i++) {
        if (!runner->results[i])
            continue;
        before[i] = malloc(trial->slots[i].bytes);
        memory = before[i] != NULL;
        if (memory)
            memcpy(before[i], runner->results[i], trial->slots[i].bytes);
    }
    if (!memory)
        snprintf(out->reason, sizeof out->reason, "no memory to compare");
    else if (itera_runner_run(runner))
        snprintf(out->reason, sizeof out->reason, "%s", itera_last_error());
    for (int i = 0; memory && i < trial->n_slots && !out->reason[0]; i++)
        if (before[i] && memcmp(before[i], runner->results[i], trial->slots[i].bytes) != 0)
            snprintf(out->reason, sizeof out->reason, "%.40s differs between two equal runs",
                     tensor_name(trial->program, trial->slots[i].tensor));
    for (int i = 0; before && i < trial->n_slots; i++)
        free(before[i]);
    free(before);
}

/* The slot that holds a tensor, which may be a view, and the byte at which it starts there. */
static int find_slot(const struct itera_trial *trial, int32_t tensor, size_t *start)
{
    const struct itera_tensor *t = &trial->program->tensors[tensor];
    int slot = trial->slot_of[t->base];
    if (slot >= 0 && trial->slots[slot].alias >= 0)
        slot = trial->slots[slot].alias;
    *start = slot < 0 ? 0 : trial->slots[slot].offset + itera_dtype_bytes(t->dtype, t->offset);
    return slot;
}

const void *itera_runner_data(const struct itera_runner *runner, int32_t tensor)
{
    size_t start;
    int slot = find_slot(runner->trial, tensor, &start);
    return slot < 0 ? NULL : runner->results[slot] + start;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* "y[3, 17]": row and column of an element. */
static const char *element_text(const struct itera_program *p, int32_t tensor, int64_t r, int64_t c,
                                char out[96])
{
    snprintf(out, 96, "%.40s[%lld, %lld]", tensor_name(p, tensor), (long long)r, (long long)c);
    return out;
}

struct sums {
    double error, reference;
    int64_t count;
    int64_t row, col; /* the first element that is far off; row -1: none */
    float got, expected;
};

/* One element; returns false with a reason when no tolerance can save it. */
static bool compare_element(float got, float expected, double tolerance, struct sums *sums,
                            struct itera_difference *out, const char *where)
{
    if (isnan(expected) && isnan(got))
        return true;
    if (isinf(expected) && got == expected)
        return true;
    if (!isfinite(got) || !isfinite(expected)) {
        bool untouched = bits_of(got) == ITERA_TRIAL_PATTERN;
        itera_format(out->reason, sizeof out->reason, "%s is %g%s where the reference has %.9g",
                     where, (double)got, untouched ? " (never written)" : "", (double)expected);
        return false;
    }
    double error = fabs((double)got - expected), size = fabs((double)expected);
    if (error > out->max_abs)
        out->max_abs = error;
    /* Below this, relative errors say nothing: devices may flush subnormals to zero. */
    if (error > 1.2e-38 && error / fmax(size, 1.2e-38) > out->max_rel)
        out->max_rel = error / fmax(size, 1.2e-38);
    sums->error += error * error;
    sums->reference += size * size;
    sums->count++;
    if (sums->row == -1 && error > 1e-37 &&
        error > (tolerance > 0 ? 100 * sqrt(tolerance) * size + 1e-6 * size : 0)) {
        sums->row = -2; /* the caller knows where */
        sums->got = got;
        sums->expected = expected;
    }
    return true;
}

static bool compare_real(const struct itera_runner *runner, const struct itera_runner *reference,
                         int32_t tensor, double tolerance, double summed,
                         struct itera_difference *out)
{
    const struct itera_program *p = runner->trial->program;
    const struct itera_tensor *t = &p->tensors[tensor];
    const struct itera_tensor *u = &reference->trial->program->tensors[tensor];
    const float *got = itera_runner_data(runner, tensor);
    const float *expected = itera_runner_data(reference, tensor);
    int64_t rows = itera_shape_rows(&t->shape), cols = itera_shape_cols(&t->shape);
    struct sums sums = {.row = -1};
    char where[96];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            float a = got[r * t->shape.ld + c], b = expected[r * u->shape.ld + c];
            if (!isfinite(a) || !isfinite(b))
                element_text(p, tensor, r, c, where);
            if (!compare_element(a, b, tolerance, &sums, out, where))
                return false;
            if (sums.row == -2) {
                sums.row = r;
                sums.col = c;
            }
        }
    /* The floor keeps tensors of flushed subnormals from counting as all wrong. */
    double nmse = sums.error / (fmax(sums.reference, summed) + (double)sums.count * 1e-60);
    if (sums.error == 0)
        nmse = 0;
    if (nmse > out->nmse)
        out->nmse = nmse;
    if (nmse <= tolerance)
        return true;
    int used = itera_format(out->reason, sizeof out->reason, "%.40s: NMSE %.2g is above %.2g",
                            tensor_name(p, tensor), nmse, tolerance);
    if (sums.row >= 0 && used > 0 && (size_t)used < sizeof out->reason)
        itera_format(out->reason + used, sizeof out->reason - (size_t)used,
                     "; the first bad element is %s = %.9g, expected %.9g",
                     element_text(p, tensor, sums.row, sums.col, where), (double)sums.got,
                     (double)sums.expected);
    return false;
}

static bool compare_whole(const struct itera_runner *runner, const struct itera_runner *reference,
                          int32_t tensor, struct itera_difference *out)
{
    const struct itera_program *p = runner->trial->program;
    const struct itera_tensor *t = &p->tensors[tensor];
    const struct itera_tensor *u = &reference->trial->program->tensors[tensor];
    const int32_t *got = itera_runner_data(runner, tensor);
    const int32_t *expected = itera_runner_data(reference, tensor);
    char where[96];
    for (int64_t r = 0; r < itera_shape_rows(&t->shape); r++)
        for (int64_t c = 0; c < itera_shape_cols(&t->shape); c++) {
            int32_t a = got[r * t->shape.ld + c], b = expected[r * u->shape.ld + c];
            if (a == b)
                continue;
            out->max_abs = fabs((double)a - b);
            out->max_rel = b ? out->max_abs / fabs((double)b) : INFINITY;
            out->nmse = INFINITY;
            snprintf(out->reason, sizeof out->reason, "%s is %d, expected %d",
                     element_text(p, tensor, r, c, where), a, b);
            return false;
        }
    return true;
}

/* Puts the initial content back where the tensor lies, so that what still differs is foreign. */
static void restore(const struct itera_runner *runner, int32_t tensor, uint8_t *image)
{
    const struct itera_tensor *t = &runner->trial->program->tensors[tensor];
    size_t start, size = itera_dtype_bytes(t->dtype, 1);
    int slot = find_slot(runner->trial, tensor, &start);
    const uint8_t *initial = runner->trial->slots[slot].initial;
    size_t row = (size_t)itera_shape_cols(&t->shape) * size;
    for (int64_t r = 0; r < itera_shape_rows(&t->shape); r++) {
        size_t at = start + (size_t)(r * t->shape.ld) * size;
        memcpy(image + at, initial + at, row);
    }
}

/* Says where in a slot the foreign write at byte `at` lies. */
static void describe_write(const struct itera_trial *trial, int slot, size_t at, char *out,
                           size_t size)
{
    const struct itera_trial_slot *s = &trial->slots[slot];
    const struct itera_tensor *t = &trial->program->tensors[s->tensor];
    const char *name = tensor_name(trial->program, s->tensor);
    size_t end = s->offset + span_bytes(t), element = itera_dtype_bytes(t->dtype, 1);
    if (at < s->offset) {
        snprintf(out, size, "wrote %zu bytes before %.40s", s->offset - at, name);
    } else if (at >= end) {
        snprintf(out, size, "wrote %zu bytes behind %.40s", at - end, name);
    } else if (itera_dtype_is_blocks(t->dtype)) {
        snprintf(out, size, "changed an operand that it only reads, %.40s at byte %zu", name,
                 at - s->offset);
    } else {
        int64_t index = (int64_t)((at - s->offset) / element);
        int64_t row = index / t->shape.ld, col = index % t->shape.ld;
        bool padding = col >= itera_shape_cols(&t->shape);
        snprintf(out, size, "%s %.40s at [%lld, %lld]",
                 padding ? "wrote to the padding between the rows of"
                         : "changed an operand that it only reads,",
                 name, (long long)row, (long long)col);
    }
}

static bool check_foreign(const struct itera_runner *runner, const int32_t *tensors, int n,
                          struct itera_difference *out)
{
    const struct itera_trial *trial = runner->trial;
    for (int i = 0; i < trial->n_slots; i++) {
        const struct itera_trial_slot *slot = &trial->slots[i];
        if (slot->alias >= 0)
            continue;
        uint8_t *image = malloc(slot->bytes);
        if (!image) {
            snprintf(out->reason, sizeof out->reason, "no memory to compare");
            return false;
        }
        memcpy(image, runner->results[i], slot->bytes);
        for (int k = 0; k < n; k++) {
            size_t start;
            if (find_slot(trial, tensors[k], &start) == i)
                restore(runner, tensors[k], image);
        }
        size_t at = 0;
        while (at < slot->bytes && image[at] == slot->initial[at])
            at++;
        free(image);
        if (at < slot->bytes) {
            describe_write(trial, i, at, out->reason, sizeof out->reason);
            return false;
        }
    }
    return true;
}

void itera_trial_compare(const struct itera_runner *runner, const struct itera_runner *reference,
                         const int32_t *tensors, int n, double tolerance, const double *summed,
                         struct itera_difference *out)
{
    *out = (struct itera_difference){0};
    if (!check_foreign(runner, tensors, n, out))
        return;
    for (int i = 0; i < n && !out->reason[0]; i++) {
        if (runner->trial->program->tensors[tensors[i]].dtype == ITERA_F32)
            compare_real(runner, reference, tensors[i], tolerance, summed ? summed[i] : 0, out);
        else
            compare_whole(runner, reference, tensors[i], out);
    }
}

void itera_trial_check_writes(const struct itera_runner *runner, const int32_t *tensors, int n,
                              const bool *must_write, struct itera_difference *out)
{
    *out = (struct itera_difference){0};
    if (!check_foreign(runner, tensors, n, out))
        return;
    const struct itera_program *p = runner->trial->program;
    for (int i = 0; i < n; i++) {
        const struct itera_tensor *t = &p->tensors[tensors[i]];
        const uint32_t *data = itera_runner_data(runner, tensors[i]);
        if (!must_write[i])
            continue;
        for (int64_t r = 0; r < itera_shape_rows(&t->shape); r++)
            for (int64_t c = 0; c < itera_shape_cols(&t->shape); c++)
                if (data[r * t->shape.ld + c] == ITERA_TRIAL_PATTERN) {
                    char where[96];
                    snprintf(out->reason, sizeof out->reason, "%s is never written",
                             element_text(p, tensors[i], r, c, where));
                    return;
                }
    }
}
