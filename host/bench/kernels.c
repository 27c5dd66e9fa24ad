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

/* The preset's model with weights of a type; NULL: f32. */
static enum itera_status create_model(struct itera_device *device, const char *preset,
                                      const char *dtype, struct itera_model **out)
{
    struct itera_model *wide;
    const struct itera_model_options options = {.seed = 1};
    enum itera_status status = itera_model_create(device, preset, &options, &wide);
    if (status || !dtype || !strcmp(dtype, "f32")) {
        *out = wide;
        return status;
    }
    const struct itera_quantize_options narrow = {.to = dtype, .plain = true};
    *out = NULL;
    status = itera_quantize(wide, &narrow, out);
    itera_model_destroy(&wide);
    return status;
}

static enum itera_status list_presets(struct listing *l, double part)
{
    const struct itera_kernel_options *o = l->options;
    const int n_dtypes = o->n_dtypes ? o->n_dtypes : 1, n = o->n_presets * n_dtypes;
    enum itera_status status = ITERA_OK;
    for (int i = 0; i < n && !status; i++) {
        struct itera_model *model;
        l->preset = o->presets[i / n_dtypes];
        l->begin = part * i / n;
        l->part = part / n;
        status = create_model(l->device, l->preset, o->n_dtypes ? o->dtypes[i % n_dtypes] : NULL,
                              &model);
        if (!status)
            status = itera_bench_programs(model, look_at_preset, l);
        itera_model_destroy(&model);
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
    return status;
}
