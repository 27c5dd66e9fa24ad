/* itera devices --kernels: what a driver made of the kernels that presets, and parity cases, take. */
#include "itera/kernels.h"

#include <stdio.h>
#include <string.h>

#include "backend/backend.h"
#include "bench/presets.h"
#include "check/programs.h"
#include "core/log.h"
#include "itera/compress.h"

struct listing {
    struct itera_device *device;
    const struct itera_kernel_options *options;
    struct itera_kernel_list *list;
    itera_kernels_fn *fn;
    void *user;
    const char *preset; /* NULL: a parity case */
    double begin, part; /* of the progress of all */
};

static enum itera_status look(struct listing *l, const struct itera_program *program, double done)
{
    if (l->fn && l->fn(l->user, l->begin + done * l->part))
        return itera_fail(ITERA_ERR_CANCELLED, "the listing was stopped");
    return l->device->backend->kernels(l->device, program, l->options->ops ? l->options->ops : "*",
                                       !l->preset, l->preset, l->list);
}

static enum itera_status look_at_preset(void *user, const struct itera_program *program,
                                        double done)
{
    return look(user, program, done);
}

static enum itera_status look_at_case(void *user, const struct itera_program *program)
{
    return look(user, program, 0);
}

/* The kernels of a preset's model with weights of a type. */
static enum itera_status list_model(struct listing *l, struct itera_model *wide, const char *dtype)
{
    if (!strcmp(dtype, "f32"))
        return itera_bench_programs(wide, look_at_preset, l);
    const struct itera_quantize_options narrow = {.to = dtype, .plain = true};
    struct itera_model *model = NULL;
    enum itera_status status = itera_quantize(wide, &narrow, &model);
    if (!status)
        status = itera_bench_programs(model, look_at_preset, l);
    itera_model_destroy(&model);
    return status;
}

static enum itera_status list_presets(struct listing *l, double part)
{
    const struct itera_kernel_options *o = l->options;
    const int n_dtypes = o->n_dtypes ? o->n_dtypes : 1, n = o->n_presets * n_dtypes;
    const struct itera_model_options options = {.seed = 1};
    enum itera_status status = ITERA_OK;
    l->part = part / (n ? n : 1);
    for (int p = 0; p < o->n_presets && !status; p++) {
        struct itera_model *wide;
        l->preset = o->presets[p];
        status = itera_model_create(l->device, l->preset, &options, &wide);
        for (int t = 0; t < n_dtypes && !status; t++) {
            l->begin = l->part * (p * n_dtypes + t);
            status = list_model(l, wide, o->n_dtypes ? o->dtypes[t] : "f32");
        }
        itera_model_destroy(&wide);
    }
    return status;
}

static enum itera_status list_cases(struct listing *l, double begin)
{
    enum itera_status status = ITERA_OK;
    l->preset = NULL;
    l->part = 0;
    for (int kind = 0; kind < ITERA_OP_COUNT && !status; kind++) {
        l->begin = begin + (1 - begin) * kind / ITERA_OP_COUNT;
        status = itera_check_programs((enum itera_op_kind)kind, 0, look_at_case, l);
    }
    return status;
}

enum itera_status itera_kernels(struct itera_device *device,
                                const struct itera_kernel_options *options, itera_kernels_fn *fn,
                                void *user, struct itera_kernel_list *list)
{
    struct listing l = {.device = device, .options = options, .list = list, .fn = fn, .user = user};
    if (!device->backend->kernels)
        return ITERA_OK;
    const double part = options->every ? 0.3 : 1;
    enum itera_status status = list_presets(&l, part);
    if (!status && options->every)
        status = list_cases(&l, part);
    if (!status && options->ops && !list->n)
        status =
            itera_fail(ITERA_ERR_ARGUMENT, "no op of these presets matches '%s'", options->ops);
    return status;
}
