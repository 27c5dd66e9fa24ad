/* itera devices --tune: measures the kernels that the presets use. */
#include <stdlib.h>

#include "backend/backend.h"
#include "bench/presets.h"
#include "core/log.h"
#include "itera/bench.h"

struct tuning {
    struct itera_device *device;
    const char *preset;
    double begin, part; /* of the progress of all */
    itera_bench_tune_fn *fn;
    void *user;
};

static enum itera_status tune_program(void *user, const struct itera_program *program, double done)
{
    struct tuning *t = user;
    if (t->fn && t->fn(t->user, t->preset, t->begin + done * t->part))
        return itera_fail(ITERA_ERR_CANCELLED, "tuning was stopped");
    return t->device->backend->tune(t->device, program);
}

enum itera_status itera_bench_tune(struct itera_device *device, const char *const *presets,
                                   int n_presets, itera_bench_tune_fn *fn, void *user)
{
    if (!device->backend->tune)
        return ITERA_OK;
    enum itera_status status = device->backend->tune(device, NULL);
    for (int i = 0; i < n_presets && !status; i++) {
        struct tuning tuning = {.device = device,
                                .preset = presets[i],
                                .begin = (double)i / n_presets,
                                .part = 1.0 / n_presets,
                                .fn = fn,
                                .user = user};
        struct itera_model *model;
        struct itera_model_options options = {.seed = 1};
        status = itera_model_create(device, presets[i], &options, &model);
        if (!status)
            status = itera_bench_programs(model, tune_program, &tuning);
        itera_model_destroy(&model);
    }
    return status;
}
