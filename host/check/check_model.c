/* Parity of whole models: against a file of expected values, or against the scalar reference. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/isa.h"
#include "check/limits.h"
#include "check/model_values.h"
#include "core/environment.h"
#include "core/log.h"
#include "core/number.h"
#include "format/safetensors.h"
#include "itera/check.h"
#include "itera/session.h"

/* Relative limits where a file's values come from another f32 program (DESIGN 8 and the
 * fixtures). */
static const double LOGITS_LIMIT = 1e-5, LOSS_LIMIT = 1e-5, GRADIENT_LIMIT = 1e-4;
/* The share of positions at which device and reference must agree on the likeliest token. */
static const double AGREEMENT = 0.99;

struct context {
    itera_check_fn *fn;
    void *user;
    struct itera_check_summary *summary;
    const char *device;
    char variant[32];
    double begin; /* of the whole check, for progress */
    double logits_limit, gradient_limit;
    bool integer; /* products with q8 and q4 weights round activations to int8 */
};

/* How a compares with the expected b. */
struct error {
    double max_abs, max_rel; /* max_rel: max|a-b| / max|b| */
    double nmse;             /* |a-b|^2 / |b|^2 */
    int64_t worst;
    bool finite;
};

static struct error compare(const float *a, const float *b, int64_t n)
{
    struct error e = {.finite = true};
    double largest = 0, power = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= e.max_abs)) {
            e.max_abs = d;
            e.worst = i;
        }
        e.finite = e.finite && isfinite(d);
        largest = fmax(largest, fabs((double)b[i]));
        power += (double)b[i] * b[i];
        squares += d * d;
    }
    e.max_rel = largest > 0 ? e.max_abs / largest : e.max_abs;
    e.nmse = power > 0 ? squares / power : squares;
    return e;
}

/* Hands out one result; `figure` is what the tolerance holds for. */
static enum itera_status report(struct context *c, const char *op, const char *label,
                                const struct error *e, double figure, double tolerance,
                                const char *why)
{
    char reason[256] = "";
    bool pass = e->finite && figure <= tolerance && !why;
    if (why)
        snprintf(reason, sizeof reason, "%s", why);
    else if (!e->finite)
        snprintf(reason, sizeof reason, "not finite at element %lld", (long long)e->worst);
    else if (!pass)
        itera_format(reason, sizeof reason,
                     "relative error %.3g, at most %.3g; worst at element %lld", figure, tolerance,
                     (long long)e->worst);
    struct itera_check_result result = {
        .op = op,
        .dtype = "f32",
        .device = c->device,
        .variant = c->variant,
        .target = c->variant,
        .method = "",
        .label = label,
        .verdict = pass ? ITERA_CHECK_PASS : ITERA_CHECK_FAIL,
        .reason = reason,
        .max_abs = e->max_abs,
        .max_rel = e->max_rel,
        .nmse = e->nmse,
        .tolerance = tolerance,
        .progress = c->begin,
    };
    *(pass ? &c->summary->pass : &c->summary->fail) += 1;
    if (c->fn && c->fn(c->user, &result))
        return itera_fail(ITERA_ERR_CANCELLED, "the check was stopped");
    return ITERA_OK;
}

static enum itera_status report_skip(struct context *c, const char *op, const char *label,
                                     const char *reason)
{
    struct itera_check_result result = {.op = op,
                                        .dtype = "f32",
                                        .device = c->device,
                                        .variant = c->variant,
                                        .target = c->variant,
                                        .method = "",
                                        .label = label,
                                        .verdict = ITERA_CHECK_SKIP,
                                        .reason = reason,
                                        .progress = c->begin};
    c->summary->skip++;
    if (c->fn && c->fn(c->user, &result))
        return itera_fail(ITERA_ERR_CANCELLED, "the check was stopped");
    return ITERA_OK;
}

/* ---- comparing ------------------------------------------------------------------------------- */

static enum itera_status check_scalar(struct context *c, const char *op, double value,
                                      double expected, double limit)
{
    char label[96];
    itera_format(label, sizeof label, "%.7g, expected %.7g", value, expected);
    struct error e = {.max_abs = fabs(value - expected), .finite = isfinite(value)};
    e.max_rel = e.max_abs / fmax(fabs(expected), 1e-30);
    e.nmse = e.max_rel * e.max_rel;
    return report(c, op, label, &e, e.max_rel, limit, NULL);
}

/* Each gradient against its norm. A gradient that is 0 in exact arithmetic (a bias before softmax)
 * would be held to nothing, so the norm counts as at least a millionth of the largest of all. */
static enum itera_status check_gradients(struct context *c, const struct itera_layout *layout,
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
                status = report_skip(c, op, label, "not in the file");
                continue;
            }
            const float *b = expected->grads + part->offset;
            struct error e = compare(got->grads + part->offset, b, n);
            double power = 0;
            for (int64_t j = 0; j < n; j++)
                power += (double)b[j] * b[j];
            double norm = sqrt(power), distance = sqrt(e.nmse * (power > 0 ? power : 1));
            double figure = distance / fmax(fmax(norm, 1e-6 * largest), 1e-30);
            status = report(c, op, label, &e, figure, c->gradient_limit, NULL);
        }
    }
    return status;
}

static int64_t likeliest(const float *logits, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static double rms(const float *a, const float *b, int64_t n)
{
    return sqrt(compare(a, b, n).nmse);
}

/* The share of rows whose likeliest token is the expected one. Where the expected logits of two
 * tokens are nearer to each other than the permitted error, either may win. */
static double agreement(const float *got, const float *expected, int64_t rows, int64_t vocab,
                        double limit)
{
    int64_t agree = 0;
    for (int64_t r = 0; r < rows; r++) {
        const float *a = got + r * vocab, *b = expected + r * vocab;
        int64_t best = likeliest(b, vocab), mine = likeliest(a, vocab);
        double gap = (double)b[best] - b[mine], size = fabs((double)b[best]);
        agree += mine == best || gap <= 2 * limit * size;
    }
    return rows ? (double)agree / (double)rows : 1;
}

/* Decodes the tokens one by one from a session's state: its logits against those of the whole
 * sequence, and how the difference grows with length. */
static enum itera_status check_decode(struct context *c, struct itera_model *m,
                                      const struct itera_model_values *expected)
{
    int64_t batch = expected->batch, time = expected->time, vocab = m->config.vocab;
    size_t row = (size_t)vocab;
    struct itera_session_options options = {.batch = (int32_t)batch};
    struct itera_session *session = NULL;
    float *logits = malloc((size_t)batch * (size_t)time * row * sizeof *logits);
    float *last = malloc((size_t)batch * row * sizeof *last);
    int32_t *tokens = malloc((size_t)batch * (size_t)time * sizeof *tokens);
    enum itera_status status = ITERA_OK;
    if (!logits || !last || !tokens)
        status = itera_fail(ITERA_ERR_MEMORY, "no memory to check a model");
    if (!status)
        status = itera_session_create(m, &options, &session);
    for (int64_t t = 0; t < time && !status; t++) {
        for (int64_t b = 0; b < batch; b++)
            tokens[b] = expected->ids[b * time + t];
        status = itera_session_prefill(session, tokens, 1);
        if (!status)
            status = itera_session_logits(session, last);
        for (int64_t b = 0; b < batch && !status; b++)
            memcpy(logits + (b * time + t) * vocab, last + b * vocab, row * sizeof *last);
    }
    if (!status) {
        struct error e = compare(logits, expected->logits, batch * time * vocab);
        int64_t some = time < 128 ? (time + 1) / 2 : 64;
        char label[160];
        itera_format(label, sizeof label,
                     "%lld tokens one by one; rms error first %lld %.2g, last %.2g",
                     (long long)time, (long long)some, rms(logits, expected->logits, some * vocab),
                     rms(logits + (time - some) * vocab, expected->logits + (time - some) * vocab,
                         some * vocab));
        status = report(c, "decode", label, &e, e.max_rel, c->logits_limit, NULL);
    }
    if (!status) {
        double share = agreement(logits, expected->logits, batch * time, vocab, c->logits_limit);
        char label[96], why[96];
        itera_format(label, sizeof label, "%.2f%% of %lld tokens agree", 100 * share,
                     (long long)(batch * time));
        itera_format(why, sizeof why, "at least %.0f%% must agree", 100 * AGREEMENT);
        struct error e = {.max_rel = 1 - share, .finite = true};
        status = report(c, "greedy", label, &e, 1 - share, 1 - AGREEMENT,
                        share < AGREEMENT ? why : NULL);
    }
    /* The same state, reached in chunks. */
    if (!status)
        status = itera_session_reset(session);
    if (!status)
        status = itera_session_prefill(session, expected->ids, (size_t)time);
    if (!status)
        status = itera_session_logits(session, last);
    if (!status) {
        for (int64_t b = 0; b < batch; b++)
            memcpy(logits + b * vocab, expected->logits + ((b + 1) * time - 1) * vocab,
                   row * sizeof *last);
        struct error e = compare(last, logits, batch * vocab);
        char label[64];
        snprintf(label, sizeof label, "%lld tokens in chunks", (long long)time);
        status = report(c, "prefill", label, &e, e.max_rel, c->logits_limit, NULL);
    }
    itera_session_destroy(&session);
    free(logits);
    free(last);
    free(tokens);
    return status;
}

static enum itera_status check_forward(struct context *c, const struct itera_model *m,
                                       const struct itera_model_values *got,
                                       const struct itera_model_values *expected)
{
    int64_t vocab = m->config.vocab, rows = expected->batch * expected->time;
    struct error e = compare(got->logits, expected->logits, rows * vocab);
    /* The mean loss moves by less than the NMSE, as errors of either sign cancel. */
    const double integer = itera_integer_limit(m->config.layers);
    enum itera_status status = ITERA_OK;
    if (c->integer)
        status = itera_integer_nmse(got->logits, expected->logits, rows, vocab,
                                    m->config.experts > 0, &e.nmse);
    if (status)
        return status;
    const double figure = c->integer ? sqrt(e.nmse) : e.max_rel;
    const double limit = c->integer ? sqrt(integer) : c->logits_limit;
    char label[128], most[32] = "";
    if (c->integer)
        itera_format(most, sizeof most, ", at most %.2g", limit);
    itera_format(label, sizeof label, "%lld x %lld tokens, %lld logits each, rms error %.2g%s",
                 (long long)expected->batch, (long long)expected->time, (long long)vocab,
                 sqrt(e.nmse), most);
    status = report(c, "logits", label, &e, figure, limit, NULL);
    const double loss_limit = c->integer ? integer : LOSS_LIMIT;
    if (!status && expected->has_loss)
        status = check_scalar(c, "loss", got->loss, expected->loss, loss_limit);
    if (!status && expected->has_aux)
        status = check_scalar(c, "aux_loss", got->aux, expected->aux, loss_limit);
    return status;
}

/* Everything on one device. Without gradients in `expected`, only the forward pass is compared;
 * `decode` says whether decoding is, too. */
static enum itera_status check_on(struct context *c, struct itera_device *device, const char *path,
                                  const struct itera_model_values *expected, bool decode)
{
    /* Gradients are those of f32 weights. */
    const bool training = expected->grads || expected->has_aux;
    const struct itera_load_options load = {.expand = training, .exact = !c->integer};
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
        status = check_decode(c, m, expected);
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
        struct context c = {.fn = fn,
                            .user = user,
                            .summary = summary,
                            .device = targets[i].device,
                            .begin = (double)(i + 1) / n,
                            .logits_limit = expected ? LOGITS_LIMIT : ITERA_REFERENCE_LIMIT,
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
        if (!status && !expected && wanted.quantised) {
            /* Once more as such a model runs by default: rounding of every product's activations,
             * through all layers, is in the logits. */
            c.integer = true;
            snprintf(c.variant, sizeof c.variant, "%.20s integer", targets[i].variant);
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
