/* The parts of `itera bench`: what is asked (bench.c), measuring (bench_run.c), curves
 * (bench_sweep.c), results as a table and JSON (bench_rows.c), the machine (bench_host.c). */
#ifndef ITERA_TOOLS_BENCH_PARTS_H
#define ITERA_TOOLS_BENCH_PARTS_H

#include <jansson.h>
#include <stdbool.h>

#include "cli/meter_request.h"
#include "cli/options.h"
#include "itera/bench.h"

struct bench_settings {
    const char *mode;  /* ops, model, train, or NULL: model and train */
    const char *model; /* a file; NULL: the presets */
    const char *sweep; /* length, batch, width, or NULL */
    struct option_names presets;
    struct option_names devices;
    struct option_names dtypes; /* n is 0: as the model has them, f32 for presets */
    struct option_names phases; /* n is 0: all, or what a quick run has time for */
    bool exact, half;
    const char *precision;
    struct option_integers threads, prompts, batches, at; /* at: points of a sweep; n 0: default */
    int64_t generate, train_batch, train_seq;
    const char *filter, *fallback, *profile;
    double seconds; /* per row */
    bool quick, breakdown;
    const char *lean; /* the one preset of software devices; NULL: all */
    struct meter_request meter;
};

/* A device with a number of threads. */
struct bench_device {
    struct itera_device *device;
    struct itera_bench_peaks peaks;
    size_t peaks_index; /* in bench.peaks */
    struct itera_meter *meter;
    bool metered;            /* there are figures */
    char energy_reason[512]; /* why there are none */
};

enum { BENCH_MOST_DEVICES = 64 };

struct bench {
    const struct bench_settings *s;
    struct bench_device devices[BENCH_MOST_DEVICES];
    int n_devices;
    struct itera_bench_machine before;
    json_t *peaks, *notes, *runs, *sweeps;
    struct table *table; /* of rows; NULL: not printed */
};

/* ---- bench_run.c ----------------------------------------------------------------------------- */

enum itera_status bench_open_devices(struct bench *b);
void bench_close_devices(struct bench *b);
/* Ops, or models, as the settings say; rows go to b->runs. */
enum itera_status bench_measure(struct bench *b);
/* Whether --op FILTER means any of the ops; if not, `names` gets those that there are. */
bool bench_any_op(const char *filter, char *names, size_t size);
/* The file or preset on a device, with its weights as `dtype` (NULL: as they are). */
enum itera_status bench_make_model(struct itera_device *device, const struct bench_settings *s,
                                   const char *preset, const char *dtype,
                                   struct itera_model **model);
/* How rows name the preset, or the file. */
const char *bench_model_name(const struct bench_settings *s, const char *preset);
/* Measures n tasks in turns, with a progress bar. */
enum itera_status bench_tasks(const struct bench *b, struct itera_bench_task *const *tasks, int n);

/* ---- bench_sweep.c --------------------------------------------------------------------------- */

/* Curves; they go to b->sweeps. */
enum itera_status bench_sweep(struct bench *b);

/* ---- bench_rows.c ---------------------------------------------------------------------------- */

/* The row of a measured task: profiled, metered, printed and kept. */
enum itera_status bench_add_row(struct bench *b, struct itera_bench_task *task,
                                const struct bench_device *device);
struct table *bench_table(void);

/* ---- bench_host.c ---------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) void bench_note(struct bench *b, const char *format, ...);
json_t *bench_peaks_json(const struct bench_device *device);
/* The machine before the measurement, in notes. */
void bench_look_before(struct bench *b);
/* All of the result; the machine now is compared with what it was before. */
json_t *bench_result(struct bench *b, int argc, char **argv);

#endif
