#include "bench/presets.h"

#include "core/log.h"
#include "model/phase.h"
#include "train/trainer_impl.h"

static const struct {
    enum itera_phase phase;
    int64_t batch, time;
} shapes[] = {
    {ITERA_PHASE_TRAIN, 8, 128}, {ITERA_PHASE_INFER, 1, 1},  {ITERA_PHASE_INFER, 8, 1},
    {ITERA_PHASE_INFER, 1, 128}, {ITERA_PHASE_EVAL, 1, 128},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static bool can_train(const struct itera_model *model)
{
    for (int32_t i = 0; i < model->layout.n_params; i++)
        if (model->layout.params[i].dtype != ITERA_F32)
            return false;
    return true;
}

static enum itera_status training(struct itera_model *model, int64_t batch, int64_t time,
                                  itera_bench_program_fn *fn, void *user, double done)
{
    struct itera_train_program t;
    struct itera_attempt attempt;
    itera_attempt_begin(&attempt);
    enum itera_status status =
        itera_train_program_create(model, batch, time, 1, 0.1, ITERA_PRECISION_F32, NULL, &t);
    itera_attempt_end(&attempt);
    if (status == ITERA_ERR_MEMORY) {
        itera_log(ITERA_LOG_WARNING, "training of %lld x %lld tokens is left out: %.255s",
                  (long long)batch, (long long)time, attempt.error);
        return ITERA_OK;
    }
    if (status)
        return itera_fail(status, "%.1000s", attempt.error);
    status = fn(user, t.train.graph.p, done);
    itera_train_program_destroy(&t);
    return status;
}

static enum itera_status phase(struct itera_model *model, enum itera_phase which, int64_t batch,
                               int64_t time, itera_bench_program_fn *fn, void *user, double done)
{
    const struct itera_phase_options options = {.phase = which, .batch = batch, .time = time};
    struct itera_model_phase run = {0};
    itera_phase_record(&run, model, &options);
    enum itera_status status = itera_phase_fuse(&run, NULL, NULL);
    if (!status)
        status = fn(user, run.graph.p, done);
    itera_phase_destroy(&run);
    return status;
}

enum itera_status itera_bench_programs(struct itera_model *model, itera_bench_program_fn *fn,
                                       void *user)
{
    enum itera_status status = ITERA_OK;
    for (int s = 0; s < SHAPES && !status; s++) {
        const double done = (double)s / SHAPES;
        if (shapes[s].phase != ITERA_PHASE_TRAIN)
            status = phase(model, shapes[s].phase, shapes[s].batch, shapes[s].time, fn, user, done);
        else if (can_train(model))
            status = training(model, shapes[s].batch, shapes[s].time, fn, user, done);
    }
    return status;
}
