/* Learning rate schedules and run lengths. */
#include <math.h>

#include "train/trainer_impl.h"

static const double PI = 3.14159265358979323846;

const char *itera_precision_name(enum itera_precision precision)
{
    return precision == ITERA_PRECISION_F16 ? "f16" : "f32";
}

const char *itera_schedule_name(enum itera_schedule schedule)
{
    static const char *const names[] = {"cosine", "constant", "linear"};
    return (unsigned)schedule < 3 ? names[schedule] : "?";
}

void itera_train_plan_start(struct itera_train_plan *plan, int64_t steps, int64_t warmup)
{
    if (warmup < 0) {
        warmup = steps / 20;
        if (warmup > 200)
            warmup = 200;
    }
    if (warmup > steps)
        warmup = steps;
    *plan = (struct itera_train_plan){.steps = steps, .warmup = warmup, .from_step = warmup};
}

static double progress(const struct itera_train_plan *plan, int64_t step)
{
    if (step <= plan->from_step)
        return plan->from_progress;
    if (step >= plan->steps)
        return 1;
    double along = (double)(step - plan->from_step) / (double)(plan->steps - plan->from_step);
    return plan->from_progress + along * (1 - plan->from_progress);
}

void itera_train_plan_move(struct itera_train_plan *plan, int64_t step, int64_t steps)
{
    if (steps < step + 1)
        steps = step + 1;
    if (step > plan->from_step) {
        plan->from_progress = progress(plan, step);
        plan->from_step = step;
    }
    if (steps <= plan->from_step) /* still warming up */
        steps = plan->from_step + 1;
    plan->steps = steps;
}

double itera_train_learning_rate(const struct itera_train_options *options,
                                 const struct itera_train_plan *plan, int64_t step)
{
    if (step < plan->warmup)
        return options->lr * (double)(step + 1) / (double)plan->warmup;
    double p = progress(plan, step), lowest = options->min_lr;
    switch (options->schedule) {
    case ITERA_SCHEDULE_CONSTANT:
        break;
    case ITERA_SCHEDULE_LINEAR:
        return options->lr * (1 - (1 - lowest) * p);
    case ITERA_SCHEDULE_COSINE:
        return options->lr * (lowest + (1 - lowest) * 0.5 * (1 + cos(PI * p)));
    }
    return options->lr;
}
