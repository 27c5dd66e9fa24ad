/* Parity of whole models: against a file of expected values, or against the scalar reference. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/isa.h"
#include "check/limits.h"
#include "check/model_rows.h"
#include "core/environment.h"
#include "core/log.h"
#include "core/number.h"
#include "format/safetensors.h"
#include "itera/check.h"

/* Relative limits where a file's values come from another f32 program (DESIGN 8 and the
 * fixtures). */
static const double LOGITS_LIMIT = 1e-5, LOSS_LIMIT = 1e-5, GRADIENT_LIMIT = 1e-4;

/* ---- comparing ------------------------------------------------------------------------------- */

static enum itera_status check_scalar(struct itera_model_check *c, const char *op, double value,
                                      double expected, double limit)
{
    char label[96];
    itera_format(label, sizeof label, "%.7g, expected %.7g", value, expected);
    struct itera_model_error e = {.max_abs = fabs(value - expected), .finite = isfinite(value)};
    e.max_rel = e.max_abs / fmax(fabs(expected), 1e-30);
    e.nmse = e.max_rel * e.max_rel;
    return itera_model_report(c, op, label, &e, e.max_rel, limit, NULL);
}

/* Each gradient against its norm. A gradient that is 0 in exact arithmetic (a bias before softmax)
 * would be held to nothing, so the norm counts as at least a millionth of the largest of all. */
static enum itera_status check_gradients(struct itera_model_check *c,
                                         const struct itera_layout *layout,
                                         const struct itera_model_values *got,
                                         const struct itera_model_values *expected)
{
    double largest = 0;
    for (int64_t i = 0; i < layout->elements; i++)
        largest = fmax(largest, fabs((double)expected->grads[i]));
    enum itera_status status = ITERA_OK;
    size_t at = 0;
    for (int i = 0; i < layout->n_params; i++) {
        for (int k = 0; k < layout->params[i].n_parts && !status; k++, at++) {
            const struct itera_param_part *part = &layout->params[i].parts[k];
            int64_t n = 1;
            for (int r = 0; r < part->rank; r++)
                n *= part->dim[r];
            char op[256], label[128];
            snprintf(op, sizeof op, "grad.%s", part->name);
            itera_safetensors_shape_text(part->rank, part->dim, label, sizeof label);
            if (expected->has_grad && !expected->has_grad[at]) {
                status = itera_model_report_skip(c, op, label, "not in the file");
                continue;
            }
            const float *b = expected->grads + part->offset;
            struct itera_model_error e = itera_model_compare(got->grads + part->offset, b, n);
            double power = 0;
            for (int64_t j = 0; j < n; j++)
                power += (double)b[j] * b[j];
            double norm = sqrt(power), distance = sqrt(e.nmse * (power > 0 ? power : 1));
            double figure = distance / fmax(fmax(norm, 1e-6 * largest), 1e-30);
            status = itera_model_report(c, op, label, &e, figure, c->gradient_limit, NULL);
        }
    }
    return status;
}

static enum itera_status check_forward(struct itera_model_check *c, const struct itera_model *m,
                                       const struct itera_model_values *got,
                                       const struct itera_model_values *expected)
{
    int64_t vocab = m->config.vocab, rows = expected->batch * expected->time;
    struct itera_model_error e = itera_model_compare(got->logits, expected->logits, rows * vocab);
    /* The mean loss moves by less than the NMSE, as errors of either sign cancel. */
    enum itera_status status = ITERA_OK;
    if (c->rounded > 0)
        status = itera_integer_nmse(got->logits, expected->logits, rows, vocab,
                                    m->config.experts > 0, &e.nmse);
    if (status)
        return status;
    const double figure = c->rounded > 0 ? sqrt(e.nmse) : e.max_rel;
    const double limit = c->rounded > 0 ? sqrt(c->rounded) : c->logits_limit;
    char label[128], most[32] = "";
    if (c->rounded > 0)
        itera_format(most, sizeof most, ", at most %.2g", limit);
    itera_format(label, sizeof label, "%lld x %lld tokens, %lld logits each, rms error %.2g%s",
                 (long long)expected->batch, (long long)expected->time, (long long)vocab,
                 sqrt(e.nmse), most);
    status = itera_model_report(c, "logits", label, &e, figure, limit, NULL);
    const double loss_limit = c->rounded > 0 ? c->rounded : LOSS_LIMIT;
    if (!status && expected->has_loss)
        status = check_scalar(c, "loss", got->loss, expected->loss, loss_limit);
    if (!status && expected->has_aux)
        status = check_scalar(c, "aux_loss", got->aux, expected->aux, loss_limit);
    return status;
}

/* Everything on one device. Without gradients in `expected`, only the forward pass is compared;
 * `decode` says whether decoding is, too. */
static enum itera_status check_on(struct itera_model_check *c, struct itera_device *device,
                                  const char *path, const struct itera_model_values *expected,
                                  bool decode)
{
    /* Gradients are those of f32 weights. */
    const bool training = expected->grads || expected->has_aux;
    const struct itera_load_options load = {.expand = training, .exact = !(c->rounded > 0)};
    struct itera_model *m = NULL;
    struct itera_model_values got = {.batch = expected->batch, .time = expected->time};
    size_t tokens = (size_t)expected->batch * (size_t)expected->time;
    enum itera_status status = itera_model_load_as(device, path, &load, &m);
    if (!status) {
        got.ids = malloc(tokens * sizeof *got.ids);
        if (!got.ids)
            status = itera_fail(ITERA_ERR_MEMORY, "no memory to check a model");
    }
    if (!status) {
        memcpy(got.ids, expected->ids, tokens * sizeof *got.ids);
        status = itera_model_values_compute(m, training, &got);
    }
    if (!status)
        status = check_forward(c, m, &got, expected);
    if (!status && expected->grads)
        status = check_gradients(c, &m->layout, &got, expected);
    if (!status && decode)
        status = itera_model_check_sessions(c, m, expected);
    itera_model_values_free(&got);
    itera_model_destroy(&m);
    return status;
}

/* ---- devices --------------------------------------------------------------------------------- */

enum { MAX_TARGETS = 64 };
struct target {
    char device[32];
    char variant[32];
    struct itera_device_options options;
};

static void add_target(struct target *targets, int *n, const char *device, const char *isa,
                       int threads)
{
    if (*n == MAX_TARGETS)
        return;
    struct target *t = &targets[(*n)++];
    *t = (struct target){.options = {.threads = threads, .isa = isa}};
    snprintf(t->device, sizeof t->device, "%s", device);
    snprintf(t->variant, sizeof t->variant, threads > 1 ? "%s x%d" : "%s", isa ? isa : "", threads);
}

/* The CPU counts as one target per level, the best one with two threads besides. */
static enum itera_status add_cpu(struct target *targets, int *n, const char *isa, bool reference)
{
    enum itera_isa only = ITERA_ISA_REF, best = itera_isa_best();
    if (isa) {
        enum itera_status status = itera_isa_find(isa, &only);
        if (status)
            return status;
        best = only;
    }
    for (int level = 0; level < ITERA_ISA_COUNT; level++) {
        enum itera_isa i = (enum itera_isa)level;
        if (!itera_isa_available(i) || (isa && i != only) ||
            (!isa && i == ITERA_ISA_REF && !reference))
            continue;
        add_target(targets, n, "cpu", itera_isa_name(i), 1);
    }
    add_target(targets, n, "cpu", itera_isa_name(best), 2);
    return ITERA_OK;
}

static enum itera_status find_targets(const struct itera_check_options *options, bool reference,
                                      struct target *targets, int *n)
{
    const char *isa = options->isa ? options->isa : itera_environment_cpu_isa();
    const char *list = options->devices ? options->devices : "cpu";
    struct itera_device_info *infos = NULL;
    int count = 0;
    enum itera_status status = itera_devices(&infos, &count);
    bool all = !strcmp(list, "all");
    for (int i = 0; i < count && all && !status; i++) {
        if (infos[i].type == ITERA_DEVICE_CPU)
            status = add_cpu(targets, n, isa, reference);
        else
            add_target(targets, n, infos[i].id, NULL, 0);
    }
    while (!all && !status && *list) {
        char id[32];
        size_t length = strcspn(list, ",");
        snprintf(id, sizeof id, "%.*s", (int)(length < 31 ? length : 31), list);
        list += length + (list[length] == ',');
        struct itera_device *device = NULL;
        status = itera_device_open(id, NULL, &device);
        if (status)
            break;
        if (device->info.type == ITERA_DEVICE_CPU)
            status = add_cpu(targets, n, isa, reference);
        else
            add_target(targets, n, device->info.id, NULL, 0);
        itera_device_close(&device);
    }
    free(infos);
    if (!status && !*n)
        status = itera_fail(ITERA_ERR_ARGUMENT, "no device to check the model on");
    return status;
}

enum itera_status itera_check_model(const char *model, const char *expected,
                                    const struct itera_check_options *options, itera_check_fn *fn,
                                    void *user, struct itera_check_summary *summary)
{
    static const struct itera_check_options defaults;
    struct itera_check_summary unused;
    if (!options)
        options = &defaults;
    if (!summary)
        summary = &unused;
    *summary = (struct itera_check_summary){0};
    struct target targets[MAX_TARGETS];
    int n = 0;
    /* The reference's gradients are of fewer tokens: they cost three times as much, and drift over
     * length shows in the forward pass. */
    struct itera_model_values wanted = {0}, gradients = {0};
    enum itera_status status = find_targets(options, expected != NULL, targets, &n);
    if (!status && !expected)
        status = itera_model_values_reference(model, options->seed, false, &wanted);
    if (!status && !expected && options->gradients)
        status = itera_model_values_reference(model, options->seed, true, &gradients);
    for (int i = 0; i < n && !status; i++) {
        struct itera_model_check c = {.fn = fn,
                                      .user = user,
                                      .summary = summary,
                                      .device = targets[i].device,
                                      .begin = (double)(i + 1) / n,
                                      .logits_limit =
                                          expected ? LOGITS_LIMIT : ITERA_REFERENCE_LIMIT,
                                      .gradient_limit = GRADIENT_LIMIT};
        snprintf(c.variant, sizeof c.variant, "%s", targets[i].variant);
        struct itera_device *device = NULL;
        status = itera_device_open(targets[i].device, &targets[i].options, &device);
        if (!status && expected && i == 0) {
            struct itera_model *m = NULL;
            status = itera_model_load(device, model, &m);
            if (!status)
                status = itera_model_values_read(expected, m, &wanted);
            itera_model_destroy(&m);
        }
        if (!status)
            status = check_on(&c, device, model, &wanted, true);
        /* Once more as such a model runs by default: rounding of every product's activations, through all
         * layers, is in the logits. Only GPUs round to f16. */
        const bool gpu = !status && itera_device_info(device)->type != ITERA_DEVICE_CPU;
        if (!status && !expected && (wanted.quantised || (wanted.half && gpu))) {
            c.rounded = wanted.quantised ? itera_integer_limit(wanted.layers)
                                         : itera_half_limit(wanted.layers);
            snprintf(c.variant, sizeof c.variant, "%.20s %s", targets[i].variant,
                     wanted.quantised ? "integer" : "half");
            status = check_on(&c, device, model, &wanted, false);
        }
        if (!status && gradients.grads)
            status = check_on(&c, device, model, &gradients, false);
        itera_device_close(&device);
    }
    itera_model_values_free(&wanted);
    itera_model_values_free(&gradients);
    return status;
}
