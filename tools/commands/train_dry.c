/* itera train --dry-run: what a run would take, from some of its steps. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/command.h"
#include "cli/meter_request.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "commands/train_run.h"

/* Measured steps behind one that meets memory and caches for the first time. */
enum { LEAST = 3, MOST = 64 };
static const double LEAST_SECONDS = 1;

struct dry_run {
    int n;
    double seconds[MOST], median;
    double joules; /* of a step; NaN: no sensor */
    char source[160];
};

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum itera_status measure(struct itera_trainer *trainer, struct itera_meter *meter,
                                 struct dry_run *run)
{
    struct itera_train_report r;
    struct itera_energy energy;
    enum itera_status status = itera_trainer_step(trainer, &r);
    if (!status && meter)
        status = itera_meter_begin(meter);
    const double first = progress_seconds();
    while (!status && run->n < MOST && !(r.events & ITERA_TRAIN_FINISHED) &&
           (run->n < LEAST || progress_seconds() - first < LEAST_SECONDS)) {
        const double begin = progress_seconds();
        status = itera_trainer_step(trainer, &r);
        run->seconds[run->n++] = progress_seconds() - begin;
    }
    if (!status && meter && run->n && !itera_meter_end(meter, &energy) &&
        energy.figure[0].measured) {
        run->joules = energy.figure[0].joules / run->n;
        snprintf(run->source, sizeof run->source, "%s", energy.figure[0].source);
    }
    qsort(run->seconds, (size_t)run->n, sizeof *run->seconds, ascending);
    run->median = run->n ? run->seconds[run->n / 2] : (double)NAN;
    return status;
}

static void print_time(const char *what, double seconds)
{
    printf("%-16s ", what);
    if (seconds < 120)
        printf("%.1f s\n", seconds);
    else if (seconds < 7200)
        printf("%.0f minutes\n", seconds / 60);
    else
        printf("%.1f hours\n", seconds / 3600);
}

static void print(const struct itera_trainer *trainer, const struct itera_device *device,
                  uint64_t bytes, int64_t steps, const struct dry_run *run)
{
    const struct itera_train_options *o = itera_trainer_options(trainer);
    const struct itera_model_info *info = itera_model_info(itera_trainer_model(trainer));
    const double tokens = (double)(o->batch * o->accumulate * o->seq);
    char text[32], rate[32];
    printf("model            %s, %s parameters\n", info->architecture,
           output_grouped(info->parameters, text, sizeof text));
    printf("memory           %s on %s\n", output_size((int64_t)bytes, text, sizeof text),
           itera_device_info(device)->id);
    if (!run->n)
        return;
    printf("a step           %.3g ms (median of %d), %s tokens/s\n", 1e3 * run->median, run->n,
           output_grouped((int64_t)(tokens / run->median), rate, sizeof rate));
    printf("steps            %s, %s tokens\n", output_grouped(steps, text, sizeof text),
           output_grouped((int64_t)((double)steps * tokens), rate, sizeof rate));
    print_time("time", (double)steps * run->median);
    if (isfinite(run->joules))
        printf("energy           %.3g kJ (%s)\n", 1e-3 * (double)steps * run->joules, run->source);
    else
        printf("energy           not known: no sensor can be read (itera energy says why)\n");
    printf("Validations and checkpoints come on top. Nothing was written.\n");
}

static json_t *as_json(const struct itera_trainer *trainer, const struct itera_device *device,
                       uint64_t bytes, int64_t steps, const struct dry_run *run)
{
    const struct itera_model_info *info = itera_model_info(itera_trainer_model(trainer));
    return json_pack("{s:s, s:I, s:s, s:I, s:I, s:o, s:o, s:o}", "architecture", info->architecture,
                     "parameters", (json_int_t)info->parameters, "device",
                     itera_device_info(device)->id, "memory_bytes", (json_int_t)bytes, "steps",
                     (json_int_t)steps, "step_seconds", output_number(run->median), "seconds",
                     output_number((double)steps * run->median), "joules",
                     output_number((double)steps * run->joules));
}

int train_dry_run(const struct train_arguments *a, struct itera_device *device)
{
    struct itera_train_options options = a->train;
    struct itera_trainer *trainer = NULL;
    struct itera_meter *meter = NULL;
    struct dry_run run = {.joules = (double)NAN, .median = (double)NAN};
    options.directory = NULL;
    options.log_every = 1; /* each step is waited for */
    if (itera_trainer_create(device, &options, &trainer))
        return EXIT_FAILED;
    struct itera_train_report r;
    itera_trainer_report(trainer, &r);
    meter_open(&(struct meter_request){0}, itera_device_info(device), &meter);
    int code = measure(trainer, meter, &run) ? EXIT_FAILED : EXIT_OK;
    const uint64_t bytes = itera_device_allocated(device);
    if (code == EXIT_OK && !output_on_stdout(&a->json))
        print(trainer, device, bytes, r.steps, &run);
    if (code == EXIT_OK && a->json.given) {
        json_t *root = as_json(trainer, device, bytes, r.steps, &run);
        code = output_json(root, a->json.value);
        json_decref(root);
    }
    itera_meter_close(&meter);
    itera_trainer_destroy(&trainer);
    return code;
}
