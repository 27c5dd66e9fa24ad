/* itera devices --tune: measures the kernels that the presets use. */
#include <stdlib.h>

#include "backend/backend.h"
#include "core/log.h"
#include "itera/bench.h"
#include "model/phase.h"
#include "train/trainer_impl.h"

/* What a tuning run covers of each preset. */
static const struct {
    enum itera_phase phase;
    int64_t batch, time;
} shapes[] = {
    {ITERA_PHASE_TRAIN, 8, 128}, {ITERA_PHASE_INFER, 1, 1},  {ITERA_PHASE_INFER, 8, 1},
    {ITERA_PHASE_INFER, 1, 128}, {ITERA_PHASE_EVAL, 1, 128},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static enum itera_status tune_training(struct itera_device *device, struct itera_model *model,
                                       int64_t batch, int64_t time)
{
    struct itera_train_program t;
    enum itera_status status =
        itera_train_program_create(model, batch, time, 1, 0.1, ITERA_PRECISION_F32, NULL, &t);
    if (status)
        return status;
    status = device->backend->tune(device, t.train.graph.p);
    itera_train_program_destroy(&t);
    return status;
}

static enum itera_status tune_phase(struct itera_device *device, struct itera_model *model,
                                    enum itera_phase phase, int64_t batch, int64_t time)
{
    const struct itera_phase_options options = {.phase = phase, .batch = batch, .time = time};
    struct itera_model_phase run = {0};
    itera_phase_record(&run, model, &options);
    enum itera_status status = itera_phase_fuse(&run, NULL, NULL);
    if (!status)
        status = device->backend->tune(device, run.graph.p);
    itera_phase_destroy(&run);
    return status;
}

enum itera_status itera_bench_tune(struct itera_device *device, const char *const *presets,
                                   int n_presets, itera_bench_tune_fn *fn, void *user)
{
    if (!device->backend->tune)
        return ITERA_OK;
    enum itera_status status = device->backend->tune(device, NULL);
    for (int i = 0; i < n_presets && !status; i++) {
        struct itera_model *model;
        struct itera_model_options options = {.seed = 1};
        status = itera_model_create(device, presets[i], &options, &model);
        for (int s = 0; s < SHAPES && !status; s++) {
            if (fn && fn(user, presets[i], (double)(i * SHAPES + s) / (n_presets * SHAPES)))
                status = itera_fail(ITERA_ERR_CANCELLED, "tuning was stopped");
            else if (shapes[s].phase == ITERA_PHASE_TRAIN)
                status = tune_training(device, model, shapes[s].batch, shapes[s].time);
            else
                status =
                    tune_phase(device, model, shapes[s].phase, shapes[s].batch, shapes[s].time);
        }
        itera_model_destroy(&model);
    }
    return status;
}
