/* Runs the parity cases of the op list over devices, instruction set levels and threads. */
#include "itera/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/isa.h"
#include "check/cases_chains.h"
#include "check/checker.h"
#include "check/limits.h"
#include "core/environment.h"
#include "core/log.h"

/* Gradient ops are reached through their forward op, and have no builder of their own. */
#define ITERA_OP_BWD(name, inputs, outputs, simd, tolerance)
#define ITERA_OP(name, inputs, outputs, simd, tolerance) itera_case_fn itera_case_##name;
#include "ops/op_list.h"
#undef ITERA_OP
#undef ITERA_OP_BWD
static itera_case_fn *const builders[ITERA_OP_COUNT] = {
#define ITERA_OP_BWD(name, inputs, outputs, simd, tolerance)
#define ITERA_OP(name, inputs, outputs, simd, tolerance) [ITERA_OP_##name] = itera_case_##name,
#include "ops/op_list.h"
#undef ITERA_OP
#undef ITERA_OP_BWD
};

const char *itera_check_verdict_name(enum itera_check_verdict verdict)
{
    static const char *const names[] = {"pass", "fail", "skip"};
    return (unsigned)verdict < 3 ? names[verdict] : "?";
}

uint64_t itera_check_stream(const char *op, int index, int part)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *op; op++)
        hash = (hash ^ (unsigned char)*op) * 0x100000001b3u;
    hash = (hash ^ (uint64_t)(uint32_t)index) * 0x100000001b3u;
    return (hash ^ (uint64_t)(uint32_t)part) * 0x100000001b3u;
}

bool itera_check_has_cases(enum itera_op_kind kind)
{
    return builders[kind] != NULL;
}

bool itera_check_begin_case(struct itera_checker *checker, const char *name, int index,
                            struct itera_case *c)
{
    *c = (struct itera_case){.index = index};
    if (checker->status ||
        (checker->options->cases > 0 && index - checker->options->first >= checker->options->cases))
        return false;
    c->rng = (struct itera_rng){.seed = checker->options->seed,
                                .stream = itera_check_stream(name, index, 0)};
    checker->status = itera_program_create(&c->program);
    return !checker->status;
}

bool itera_check_build(struct itera_checker *checker, enum itera_op_kind kind, int index,
                       struct itera_case *c)
{
    return itera_check_begin_case(checker, itera_op_info(kind)->name, index, c) &&
           builders[kind](c);
}

bool itera_check_is_input(const struct itera_case *c, int32_t tensor)
{
    for (int i = 0; i < c->n_inputs; i++)
        if (c->input[i].tensor == tensor)
            return true;
    return false;
}

void itera_check_bind_outputs(struct itera_case *c, int64_t padding)
{
    struct itera_program *p = c->program;
    const struct itera_op *op = &p->ops[p->n_ops - 1];
    const struct itera_op_info *info = itera_op_info(op->kind);
    for (int k = 0; k < info->n_out; k++) {
        if (op->out[k] < 0)
            continue;
        struct itera_tensor *t = &p->tensors[op->out[k]];
        if (itera_check_is_input(c, t->base))
            continue;
        p->tensors[t->base].kind = t->kind = ITERA_BOUND;
        if (!t->name)
            t->name = info->out_name[k];
        if (!p->tensors[t->base].name)
            p->tensors[t->base].name = info->out_name[k];
        if (t->base == op->out[k])
            t->shape.ld += padding;
    }
}

void itera_check_fill(const struct itera_checker *checker, const struct itera_case *c,
                      int32_t under_test, const struct itera_trial *trial)
{
    const struct itera_program *p = c->program;
    const struct itera_op *op = &p->ops[under_test];
    const char *name = itera_op_info(op->kind)->name;
    for (int i = 0; i < c->n_inputs; i++) {
        const struct itera_tensor *t = &p->tensors[c->input[i].tensor];
        struct itera_rng rng = {.seed = checker->options->seed,
                                .stream = itera_check_stream(name, c->index, 1 + i)};
        void *data = itera_trial_data(trial, c->input[i].tensor);
        if (c->input[i].fill == ITERA_FILL_WEIGHTS)
            itera_trial_fill_weights(t->dtype, c->input[i].a, c->input[i].b, &rng, &t->shape, data);
        else
            itera_trial_fill(c->input[i].fill, c->input[i].a, c->input[i].b, &rng,
                             itera_shape_rows(&t->shape), itera_shape_cols(&t->shape), t->shape.ld,
                             data);
    }
    if (!op->attr.accumulate || op->out[0] < 0 || itera_check_is_input(c, op->out[0]))
        return;
    const struct itera_tensor *t = &p->tensors[op->out[0]];
    if (t->kind != ITERA_BOUND || t->base != op->out[0])
        return;
    struct itera_rng rng = {.seed = checker->options->seed,
                            .stream = itera_check_stream(name, c->index, 100)};
    itera_trial_fill(ITERA_FILL_NORMAL, 0, 1, &rng, itera_shape_rows(&t->shape),
                     itera_shape_cols(&t->shape), t->shape.ld, itera_trial_data(trial, op->out[0]));
}

int itera_check_written(const struct itera_case *c, int32_t *tensors, bool *whole)
{
    const struct itera_op *op = &c->program->ops[c->program->n_ops - 1];
    const struct itera_op_info *info = itera_op_info(op->kind);
    int n = 0;
    for (int k = 0; k < info->n_out; k++) {
        if (op->out[k] < 0)
            continue;
        whole[n] = !op->attr.accumulate && !itera_check_is_input(c, op->out[k]);
        tensors[n++] = op->out[k];
    }
    for (int k = 0; k < info->n_in; k++)
        if (op->in[k] >= 0 && info->written_in >> k & 1) {
            whole[n] = false;
            tensors[n++] = op->in[k];
        }
    return n;
}

const char *itera_check_method(const struct itera_op_def *def, int variant)
{
    static const char *const scans[ITERA_SCAN_VARIANTS] = {"", "sequential", "parallel", "chunked"};
    static const char *const others[] = {"", "1", "2", "3", "4", "5", "6", "7"};
    if (def->variants == ITERA_SCAN_VARIANTS)
        return scans[variant];
    return variant < 8 ? others[variant] : "more";
}

void itera_check_emit(struct itera_checker *checker, const char *op, const char *dtype,
                      const struct itera_check_target *target, const char *variant,
                      const char *method, const char *label, enum itera_check_verdict verdict,
                      double tolerance, const struct itera_difference *difference, double seconds,
                      struct itera_cost cost)
{
    if (!checker->all_names && !itera_check_matches(checker, op))
        return;
    /* "avx2 x2" with "chunked" is "avx2.chunked x2". */
    char text[96];
    int head = (int)strcspn(variant, " ");
    snprintf(text, sizeof text, "%.*s%s%s%s", head, variant, method[0] ? "." : "", method,
             variant + head);
    struct itera_check_result result = {
        .op = op,
        .dtype = dtype,
        .device = target ? itera_device_info(target->device)->id : "cpu",
        .variant = text,
        .target = variant,
        .method = method,
        .label = label,
        .verdict = verdict,
        .reason = difference->reason,
        .max_abs = difference->max_abs,
        .max_rel = difference->max_rel,
        .nmse = difference->nmse,
        .tolerance = tolerance,
        .seconds = seconds,
        .gflops = seconds > 0 ? cost.flops / seconds * 1e-9 : 0,
        .gbytes_per_s = seconds > 0 ? cost.bytes / seconds * 1e-9 : 0,
        .progress = checker->progress,
    };
    checker->summary->pass += verdict == ITERA_CHECK_PASS;
    checker->summary->fail += verdict == ITERA_CHECK_FAIL;
    checker->summary->skip += verdict == ITERA_CHECK_SKIP;
    if (checker->fn && checker->fn(checker->user, &result) && !checker->status)
        checker->status = itera_fail(ITERA_ERR_CANCELLED, "the check was stopped");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double itera_check_time(struct itera_checker *checker, struct itera_runner *runner, int32_t first,
                        int32_t last)
{
    enum { MOST = 101, FEWEST = 7 };
    const double enough = 0.02; /* seconds */
    if (!checker->options->bench || first >= last)
        return 0;
    double times[MOST], total = 0;
    int n = 0;
    double *ops = calloc((size_t)runner->trial->program->n_ops + 1, sizeof *ops);
    if (!ops || itera_profile(runner->executable, ops)) { /* the first run warms up */
        free(ops);
        return 0;
    }
    while (n < MOST && (n < FEWEST || total < enough)) {
        if (itera_profile(runner->executable, ops))
            break;
        times[n] = 0;
        for (int32_t i = first; i < last; i++)
            times[n] += ops[i];
        total += times[n++];
    }
    free(ops);
    qsort(times, (size_t)n, sizeof *times, by_value);
    return n ? times[n / 2] : 0;
}

/* Whether the device has kernels for all ops; ITERA_ERR_UNSUPPORTED with the reason of the first
 * without. */
static enum itera_status supports_all(struct itera_device *device, const struct itera_program *p,
                                      struct itera_reason *why)
{
    enum itera_status status = ITERA_OK;
    for (int32_t i = 0; i < p->n_ops && !status; i++)
        status = itera_supports(device, p, &p->ops[i], why);
    return status;
}

/* By what the results were summed from, too: only where it matters, as it takes time. */
static void compare(struct itera_checker *checker, const struct itera_runner *runner,
                    const struct itera_runner *reference, const int32_t *tensors, int n,
                    double tolerance, struct itera_difference *out)
{
    double summed[ITERA_CHECK_TENSORS];
    itera_trial_compare(runner, reference, tensors, n, tolerance, NULL, out);
    if (!(tolerance > 0 && isfinite(out->nmse) && out->nmse > tolerance))
        return;
    if (itera_check_summed(checker, reference, tensors, n, tolerance,
                           itera_device_info(runner->device)->type != ITERA_DEVICE_CPU, summed))
        snprintf(out->reason, sizeof out->reason, "%s", itera_last_error());
    else
        itera_trial_compare(runner, reference, tensors, n, tolerance, summed, out);
}

/* Makes what is finite but beyond f16 in the operands of products the largest of f16; false when there
 * was nothing. */
static bool bound_operands(const struct itera_trial *trial)
{
    const struct itera_program *p = trial->program;
    const float largest = 65504;
    bool found = false;
    for (int32_t i = 0; i < 2 * p->n_ops; i++) {
        const struct itera_op *op = &p->ops[i / 2];
        const int32_t tensor = op->attr.half ? p->tensors[op->in[i % 2]].base : ITERA_NONE;
        float *x = tensor >= 0 ? itera_trial_data(trial, tensor) : NULL;
        if (!x || p->tensors[tensor].dtype != ITERA_F32)
            continue;
        for (int64_t k = 0; k < itera_shape_span(&p->tensors[tensor].shape); k++)
            if (isfinite(x[k]) && fabsf(x[k]) > largest) {
                x[k] = copysignf(largest, x[k]);
                found = true;
            }
    }
    return found;
}

/* Compares a way that rounds operands to f16. What it does to those beyond f16 no tolerance covers: then
 * its reference is one with operands that are bounded like its own. */
static void compare_half(struct itera_checker *checker, const struct itera_runner *runner,
                         const struct itera_runner *reference, const int32_t *tensors, int n,
                         double tolerance, struct itera_difference *out)
{
    struct itera_trial bounded = {0};
    struct itera_runner with_bounded = {0};
    enum itera_status status = itera_trial_copy(reference->trial, &bounded);
    if (!status && bound_operands(&bounded)) {
        status = itera_runner_create(&bounded, checker->reference, NULL, NULL, &with_bounded);
        if (!status)
            status = itera_runner_run(&with_bounded);
        reference = &with_bounded;
    }
    if (status)
        snprintf(out->reason, sizeof out->reason, "%s", itera_last_error());
    else
        compare(checker, runner, reference, tensors, n, tolerance, out);
    itera_runner_destroy(&with_bounded);
    itera_trial_destroy(&bounded);
}

bool itera_check_run(struct itera_checker *checker, const struct itera_check_target *target,
                     const struct itera_trial *trial, const struct itera_runner *reference,
                     const int32_t *tensors, int n, double tolerance, int32_t first, int way,
                     bool apart, int *ways, struct itera_check_outcome *out)
{
    const struct itera_program *p = trial->program;
    struct itera_runner runner = {0};
    *out = (struct itera_check_outcome){.verdict = ITERA_CHECK_FAIL, .tolerance = tolerance};
    *ways = 0;
    struct itera_reason why;
    enum itera_status status = supports_all(target->device, p, &why);
    if (status == ITERA_ERR_UNSUPPORTED) {
        out->verdict = ITERA_CHECK_SKIP;
        snprintf(out->difference.reason, sizeof out->difference.reason, "%.255s", why.text);
        return true;
    }
    /* Small cases must meet the code that large ones run. */
    const struct itera_compile_options options = {
        .checking = true, .force_choice = way, .apart = apart};
    struct itera_compile_result found = {0};
    if (!status)
        status = itera_runner_create(trial, target->device, &options, &found, &runner);
    *ways = found.n_choices;
    out->chains = found.n_chains;
    bool served = !way || found.choice_name[0];
    if (way)
        snprintf(out->method, sizeof out->method, "%s", found.choice_name);
    if (!status && served)
        status = itera_runner_run(&runner);
    if (status) {
        snprintf(out->difference.reason, sizeof out->difference.reason, "%s", itera_last_error());
    } else if (served) {
        if (found.half && out->tolerance < ITERA_CHECK_HALF)
            out->tolerance = ITERA_CHECK_HALF;
        (found.half ? compare_half : compare)(checker, &runner, reference, tensors, n,
                                              out->tolerance, &out->difference);
        /* What several threads share must come out the same every time. */
        if (!out->difference.reason[0] && itera_device_threads(target->device) != 1)
            itera_runner_repeat(&runner, &out->difference);
        if (!out->difference.reason[0]) {
            out->verdict = ITERA_CHECK_PASS;
            out->seconds = itera_check_time(checker, &runner, first, p->n_ops);
        }
    }
    itera_runner_destroy(&runner);
    return status || served;
}

bool itera_check_matches(const struct itera_checker *checker, const char *op)
{
    return itera_op_matches(checker->globs, op);
}

/* The name that gradient results of an op carry: see itera_check_gradient. */
static bool matches_gradient(const struct itera_checker *checker, enum itera_op_kind kind)
{
    char name[64];
    snprintf(name, sizeof name, "%s_bwd", itera_op_info(kind)->name);
    if (itera_check_matches(checker, name))
        return true;
    snprintf(name, sizeof name, "%s_grad", itera_op_info(kind)->name);
    return itera_check_matches(checker, name);
}

static enum itera_status add_target(struct itera_checker *checker, const char *id,
                                    const struct itera_device_options *options, const char *name)
{
    struct itera_check_target *grown =
        realloc(checker->targets, ((size_t)checker->n_targets + 1) * sizeof *grown);
    if (!grown)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to check devices");
    checker->targets = grown;
    struct itera_check_target *target = &grown[checker->n_targets];
    enum itera_status status = itera_device_open(id, options, &target->device);
    if (status)
        return status;
    snprintf(target->name, sizeof target->name, "%s", name);
    target->device->lane_order = (int)checker->options->lanes;
    checker->n_targets++;
    return ITERA_OK;
}

/* The CPU: the one level asked for, or every level that it has, the reference among them (it must
 * work in place and in teams too); with one thread and with two. */
static enum itera_status add_cpu(struct itera_checker *checker)
{
    const char *asked = checker->options->isa ? checker->options->isa : itera_environment_cpu_isa();
    enum itera_isa only = ITERA_ISA_REF;
    enum itera_status status = asked ? itera_isa_find(asked, &only) : ITERA_OK;
    for (int isa = ITERA_ISA_REF; isa < ITERA_ISA_COUNT && !status; isa++) {
        if (!itera_isa_available((enum itera_isa)isa) || (asked && isa != (int)only))
            continue;
        for (int threads = 1; threads <= 2 && !status; threads++) {
            struct itera_device_options options = {.threads = threads,
                                                   .isa = itera_isa_name((enum itera_isa)isa)};
            char name[32];
            snprintf(name, sizeof name, "%s%s", options.isa, threads == 2 ? " x2" : "");
            status = add_target(checker, "cpu", &options, name);
        }
    }
    return status;
}

static enum itera_status add_device(struct itera_checker *checker,
                                    const struct itera_device_info *info)
{
    if (info->type == ITERA_DEVICE_CPU && !strcmp(info->backend, "cpu"))
        return add_cpu(checker);
    return add_target(checker, info->id, NULL, info->backend);
}

static enum itera_status add_named(struct itera_checker *checker, const char *id,
                                   const struct itera_device_info *infos, int count)
{
    if (!strcmp(id, "auto")) {
        struct itera_device *device;
        enum itera_status status = itera_device_open(NULL, NULL, &device);
        if (status)
            return status;
        struct itera_device_info info = *itera_device_info(device);
        itera_device_close(&device);
        return add_device(checker, &info);
    }
    for (int i = 0; i < count; i++)
        if (!strcmp(infos[i].id, id))
            return add_device(checker, &infos[i]);
    struct itera_device *none = NULL;
    return itera_device_open(id, NULL, &none); /* fails, naming what there is */
}

static enum itera_status open_devices(struct itera_checker *checker)
{
    struct itera_device_info *infos;
    int count;
    enum itera_status status = itera_devices(&infos, &count);
    if (status)
        return status;
    struct itera_device_options scalar = {.threads = 1, .isa = "ref"};
    status = itera_device_open("cpu", &scalar, &checker->reference);
    const char *list = checker->options->devices ? checker->options->devices : "cpu";
    if (!strcmp(list, "all")) {
        for (int i = 0; i < count && !status; i++)
            status = add_device(checker, &infos[i]);
        list = "";
    }
    for (const char *at = list; *at && !status;) {
        size_t length = strcspn(at, ",");
        char id[64];
        snprintf(id, sizeof id, "%.*s", (int)(length < 63 ? length : 63), at);
        status = add_named(checker, id, infos, count);
        at += length + (at[length] == ',');
    }
    free(infos);
    return status;
}

/* How many cases of an op are to be checked. */
static int count_cases(struct itera_checker *checker, enum itera_op_kind kind)
{
    int n = 0;
    for (bool exists = true; exists; n += exists) {
        struct itera_case c = {0};
        exists = itera_check_build(checker, kind, checker->options->first + n, &c);
        itera_program_destroy(&c.program);
    }
    return n;
}

static int count_chain_cases(struct itera_checker *checker, int kind)
{
    int n = 0;
    for (bool exists = true; exists; n += exists) {
        struct itera_case c = {0};
        exists = itera_check_build_chain(checker, kind, checker->options->first + n, &c);
        itera_program_destroy(&c.program);
    }
    return n;
}

static enum itera_status check_all(struct itera_checker *checker)
{
    int cases = 0, done = 0;
    bool any = false;
    bool forward[ITERA_OP_COUNT], gradient[ITERA_OP_COUNT];
    for (int kind = 0; kind < ITERA_OP_COUNT; kind++) {
        const char *name = itera_op_info((enum itera_op_kind)kind)->name;
        forward[kind] = builders[kind] && itera_check_matches(checker, name);
        const bool has = builders[kind] && itera_op_info((enum itera_op_kind)kind)->def->grad;
        const bool named = has && matches_gradient(checker, (enum itera_op_kind)kind);
        /* "silu" with gradients means those of silu as well. */
        gradient[kind] =
            checker->options->gradients ? (forward[kind] && has) || named : named && !forward[kind];
        if (forward[kind] || gradient[kind])
            cases += (forward[kind] + gradient[kind]) * count_cases(checker, kind);
        any = any || forward[kind] || gradient[kind];
    }
    for (int kind = 0; kind < itera_n_chain_cases; kind++)
        if (itera_check_matches(checker, itera_chain_cases[kind].name)) {
            cases += count_chain_cases(checker, kind);
            any = true;
        }
    if (!any)
        return itera_fail(ITERA_ERR_ARGUMENT, "no op matches '%s'", checker->globs);
    for (int kind = 0; kind < ITERA_OP_COUNT; kind++) {
        checker->all_names = forward[kind];
        for (int i = checker->options->first; forward[kind] && !checker->status; i++) {
            checker->progress = (double)done / cases;
            if (!itera_check_forward(checker, (enum itera_op_kind)kind, i))
                break;
            done++;
        }
        for (int i = checker->options->first; gradient[kind] && !checker->status; i++) {
            checker->progress = (double)done / cases;
            if (!itera_check_gradient(checker, (enum itera_op_kind)kind, i))
                break;
            done++;
        }
    }
    checker->all_names = false;
    for (int kind = 0; kind < itera_n_chain_cases; kind++) {
        const bool named = itera_check_matches(checker, itera_chain_cases[kind].name);
        for (int i = checker->options->first; named && !checker->status; i++, done++) {
            checker->progress = (double)done / cases;
            if (!itera_check_chain(checker, kind, i))
                break;
        }
    }
    return checker->status;
}

enum itera_status itera_check_ops(const struct itera_check_options *options, itera_check_fn *fn,
                                  void *user, struct itera_check_summary *summary)
{
    static const struct itera_check_options defaults;
    struct itera_check_summary unused;
    if (!options)
        options = &defaults;
    struct itera_checker checker = {.options = options,
                                    .fn = fn,
                                    .user = user,
                                    .summary = summary ? summary : &unused,
                                    .globs = options->ops && options->ops[0] ? options->ops : "*"};
    *checker.summary = (struct itera_check_summary){0};
    enum itera_status status = open_devices(&checker);
    if (!status) {
        /* What goes wrong in a case becomes its result, and that a device is tuned for thousands of
         * cases is nobody's news. */
        itera_log_hush(1);
        enum itera_status checked = check_all(&checker);
        itera_log_hush(-1);
        if (checked)
            status = itera_fail(checked, "%s", itera_last_error());
    }
    for (int i = 0; i < checker.n_targets; i++)
        itera_device_close(&checker.targets[i].device);
    free(checker.targets);
    itera_device_close(&checker.reference);
    return status;
}
