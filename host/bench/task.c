/* Tasks: what is measured together, and the figures of each. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_impl.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/number.h"

enum itera_status itera_bench_task_begin(struct itera_device *device, struct itera_bench_task **out)
{
    struct itera_bench_task *task = calloc(1, sizeof *task);
    *out = task;
    if (!task)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for a benchmark");
    task->device = device;
    snprintf(task->row.device, sizeof task->row.device, "%s", device->info.id);
    snprintf(task->row.dtype, sizeof task->row.dtype, "f32");
    task->row.threads = itera_device_threads(device);
    task->row.device_p50 = NAN;
    task->row.memory_bytes = device->allocated;
    memcpy(task->fell_back, device->fell_back, sizeof task->fell_back);
    memset(device->fell_back, 0, sizeof device->fell_back);
    return ITERA_OK;
}

void itera_bench_task_end(struct itera_bench_task *task)
{
    struct itera_device *device = task->device;
    task->row.memory_bytes = device->allocated - task->row.memory_bytes;
    task->row.peak_bytes += task->row.memory_bytes;
    if (task->executable) {
        task->row.dispatches = task->executable->n_dispatches;
        task->row.barriers = task->executable->n_barriers;
    }
    for (int kind = 0; kind < ITERA_OP_COUNT; kind++) {
        bool before = task->fell_back[kind];
        task->fell_back[kind] = device->fell_back[kind];
        device->fell_back[kind] |= before;
    }
}

void itera_bench_task_destroy(struct itera_bench_task **task)
{
    struct itera_bench_task *t = *task;
    if (!t)
        return;
    itera_bench_work_free(&t->work);
    itera_bench_work_free(&t->peer);
    if (t->destroy)
        t->destroy(t->content);
    free(t);
    *task = NULL;
}

const char *itera_bench_task_fallback_op(const struct itera_bench_task *task, int index)
{
    for (int kind = 0; kind < ITERA_OP_COUNT; kind++)
        if (task->fell_back[kind] && index-- == 0)
            return itera_op_info((enum itera_op_kind)kind)->name;
    return NULL;
}

enum itera_status itera_bench_task_parity(struct itera_bench_task *task)
{
    return task->parity ? task->parity(task) : ITERA_OK;
}

/* ---- measuring ------------------------------------------------------------------------------- */

enum { MOST_READINGS = 64 };

/* How fast a CPU was, round by round. */
struct readings {
    struct itera_device *device;
    struct itera_bench_gauge *gauge;
    double value[MOST_READINGS];
    int n;
};

struct measurement {
    struct itera_bench_task *const *tasks;
    int n;
    const struct itera_bench_options *options;
    struct readings *readings;
    int n_readings, turns;
    int *owner; /* of each work: its task */
};

static int take_turn(void *user, int index, int round, int rounds)
{
    struct measurement *m = user;
    if (index < 0) {
        for (int i = 0; i < m->n_readings; i++) {
            struct readings *r = &m->readings[i];
            double value = itera_bench_gauge_read(r->gauge);
            if (value > 0 && r->n < MOST_READINGS)
                r->value[r->n++] = value;
        }
        return 0;
    }
    m->turns += round >= 0;
    double done = (double)m->turns / ((double)m->n * rounds);
    return m->options->progress ? m->options->progress(m->options->user, done < 1 ? done : 1,
                                                       m->tasks[m->owner[index]])
                                : 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A gauge for each CPU device; one that cannot be had is no error, there are no readings then. */
static void open_gauges(struct measurement *m)
{
    for (int i = 0; i < m->n; i++) {
        struct itera_device *device = m->tasks[i]->device;
        int k = 0;
        while (k < m->n_readings && m->readings[k].device != device)
            k++;
        if (k < m->n_readings || device->info.type != ITERA_DEVICE_CPU)
            continue;
        m->readings[k].device = device;
        struct itera_attempt attempt; /* it tells more of the rows, which do without */
        itera_attempt_begin(&attempt);
        if (!itera_bench_gauge_open(device, &m->readings[k].gauge))
            m->n_readings++;
        itera_attempt_end(&attempt);
    }
}

/* The median of the gauge beside a task, and what its stability can say against it. */
static enum itera_status conclude(const struct measurement *m, struct itera_bench_task *task)
{
    enum { FEWEST = 6 };
    const double widest = 0.10;
    struct itera_bench_row *row = &task->row;
    struct itera_bench_interval median;
    enum itera_status status = itera_bench_interval(task->work.medians, task->work.blocks, &median);
    row->repeats = task->work.count;
    row->blocks = task->work.blocks;
    if (status || !row->blocks)
        return status;
    row->p50 = median.median;
    row->low = median.low;
    row->high = median.high;
    const double *samples = task->work.samples;
    row->best = samples[0];
    row->p95 = fmax(row->p50, itera_bench_quantile(samples, row->repeats, 0.95));
    row->p99 = fmax(row->p50, itera_bench_quantile(samples, row->repeats, 0.99));
    double spread = 0;
    for (int i = 0; i < m->n_readings; i++) {
        const struct readings *r = &m->readings[i];
        if (r->device != task->device || !r->n)
            continue;
        row->gemm_gflops = itera_bench_quantile(r->value, r->n, 0.5);
        spread = (itera_bench_quantile(r->value, r->n, 0.75) -
                  itera_bench_quantile(r->value, r->n, 0.25)) /
                 row->gemm_gflops;
    }
    const double width = (row->high - row->low) / row->p50;
    char *why = row->unstable_because;
    if (row->blocks < FEWEST)
        snprintf(why, sizeof row->unstable_because, "only %d blocks of runs", row->blocks);
    else if (width > widest)
        itera_format(why, sizeof row->unstable_because, "the interval is %.0f%% of the median wide",
                     100 * width);
    else if (spread > widest)
        itera_format(why, sizeof row->unstable_because,
                     "the processor's speed varied by %.0f%% meanwhile", 100 * spread);
    row->stable = !*why;
    if (task->has_peer && task->peer.blocks) {
        status = itera_bench_interval(task->peer.medians, task->peer.blocks, &median);
        row->peer_p50 = median.median;
    }
    return status;
}

enum itera_status itera_bench_measure(struct itera_bench_task *const *tasks, int n,
                                      const struct itera_bench_options *options)
{
    static const struct itera_bench_options defaults;
    if (!options)
        options = &defaults;
    struct measurement m = {.tasks = tasks, .n = n, .options = options};
    struct itera_bench_work **works = calloc(2 * (size_t)n + 1, sizeof *works);
    m.owner = calloc(2 * (size_t)n + 1, sizeof *m.owner);
    m.readings = calloc((size_t)n + 1, sizeof *m.readings);
    enum itera_status status = ITERA_OK;
    if (!works || !m.owner || !m.readings)
        status = itera_fail(ITERA_ERR_MEMORY, "no memory for %d benchmarks", n);
    int n_works = 0;
    for (int i = 0; i < n && !status; i++) {
        m.owner[n_works] = i;
        works[n_works++] = &tasks[i]->work;
        if (tasks[i]->has_peer) {
            m.owner[n_works] = i;
            works[n_works++] = &tasks[i]->peer;
        }
        tasks[i]->row.unstable_because[0] = 0;
    }
    if (!status) {
        open_gauges(&m);
        status = itera_bench_rounds(works, n_works, options->seconds > 0 ? options->seconds : 1,
                                    take_turn, &m);
    }
    for (int i = 0; i < m.n_readings; i++) {
        qsort(m.readings[i].value, (size_t)m.readings[i].n, sizeof(double), by_value);
        itera_bench_gauge_close(&m.readings[i].gauge);
    }
    for (int i = 0; i < n && !status; i++)
        status = conclude(&m, tasks[i]);
    free(works);
    free(m.owner);
    free(m.readings);
    return status;
}

enum itera_status itera_bench_task_energy(struct itera_bench_task *task, struct itera_meter *meter,
                                          double seconds)
{
    struct itera_bench_work *work = &task->work;
    int runs = 0;
    const enum itera_status begun = itera_meter_begin(meter);
    enum itera_status status = begun;
    for (double begin = itera_seconds(); !status && (!runs || itera_seconds() - begin < seconds);
         runs++) {
        if (work->prepare)
            status = work->prepare(work->user);
        if (!status)
            status = work->run(work->user);
    }
    /* A meter that goes on would refuse the next task. */
    struct itera_energy energy;
    const enum itera_status ended = begun ? ITERA_OK : itera_meter_end(meter, &energy);
    if (!status && work->finish)
        status = work->finish(work->user);
    if (!status && !(status = ended))
        task->row.energy = energy;
    task->row.energy_tokens = (double)task->row.tokens * runs;
    return status;
}

/* ---- figures --------------------------------------------------------------------------------- */

/* The read bandwidth for a working set of this size. */
static double bandwidth(const struct itera_bench_peaks *peaks, double bytes)
{
    for (int i = 0; i < ITERA_BENCH_SIZES; i++)
        if (bytes <= peaks->read_bytes[i] || i == ITERA_BENCH_SIZES - 1)
            return peaks->read_gbytes[i] * 1e9;
    return 0;
}

const struct itera_bench_row *itera_bench_task_row(struct itera_bench_task *task,
                                                   const struct itera_bench_peaks *peaks)
{
    struct itera_bench_row *row = &task->row;
    double rate = bandwidth(peaks, task->working_set);
    if (peaks->gflops > 0 && rate > 0 && row->p50 > 0) {
        double by_flops = row->flops / (peaks->gflops * 1e9), by_bytes = row->bytes / rate;
        row->compute_bound = by_flops > by_bytes;
        row->peak_share = fmax(by_flops, by_bytes) / row->p50;
    }
    return row;
}

static int by_seconds(const void *a, const void *b)
{
    const struct itera_bench_part *x = a, *y = b;
    if (x->is_op != y->is_op)
        return x->is_op ? 1 : -1;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

/* The row of this name, made when it is new. */
static struct itera_bench_part *part_named(struct itera_bench_part *parts, int *count, bool is_op,
                                           const char *name)
{
    for (int i = 0; i < *count; i++)
        if (parts[i].is_op == is_op && !strcmp(parts[i].name, name))
            return &parts[i];
    struct itera_bench_part *part = &parts[(*count)++];
    *part = (struct itera_bench_part){.is_op = is_op};
    snprintf(part->name, sizeof part->name, "%s", name);
    return part;
}

static void sum_parts(const struct itera_program *p, const double *seconds,
                      struct itera_bench_part *parts, int *count)
{
    for (int32_t i = 0; i < p->n_ops; i++) {
        const struct itera_op *op = &p->ops[i];
        struct itera_cost cost = itera_op_cost(p, op);
        for (int is_op = 0; is_op < 2; is_op++) {
            const char *name = is_op ? itera_op_info(op->kind)->name : itera_part_name(op->part);
            struct itera_bench_part *part = part_named(parts, count, is_op, name);
            part->count++;
            part->seconds += seconds[i];
            part->flops += cost.flops;
            part->bytes += cost.bytes;
        }
    }
    qsort(parts, (size_t)*count, sizeof *parts, by_seconds);
}

_Static_assert(ITERA_PART_COUNT + ITERA_OP_COUNT <= ITERA_BENCH_PARTS, "rows of a breakdown");

enum itera_status itera_bench_task_breakdown(struct itera_bench_task *task, double enough,
                                             struct itera_bench_part parts[ITERA_BENCH_PARTS],
                                             int *count)
{
    enum { MOST = 200, FEWEST = 2 };
    const struct itera_program *p = task->program;
    *count = 0;
    if (!p)
        return ITERA_OK;
    double *seconds = calloc(2 * (size_t)p->n_ops + 1, sizeof *seconds), all[MOST];
    double *mean = seconds + p->n_ops;
    if (!seconds)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for a profile");
    struct itera_attempt attempt; /* a device may have no timestamps */
    itera_attempt_begin(&attempt);
    enum itera_status status = itera_profile(task->executable, seconds); /* warms up */
    itera_attempt_end(&attempt);
    if (status) {
        free(seconds);
        return status == ITERA_ERR_UNSUPPORTED ? ITERA_OK : itera_fail(status, "%s", attempt.error);
    }
    int runs = 0;
    for (double begin = itera_seconds();
         !status && runs < MOST && (runs < FEWEST || itera_seconds() - begin < enough); runs++) {
        if (task->work.prepare)
            status = task->work.prepare(task->work.user);
        if (!status)
            status = itera_profile(task->executable, seconds);
        all[runs] = 0;
        for (int32_t i = 0; i < p->n_ops && !status; i++) {
            mean[i] += seconds[i];
            all[runs] += seconds[i];
        }
    }
    for (int32_t i = 0; i < p->n_ops && !status; i++)
        mean[i] /= runs;
    if (!status) {
        sum_parts(p, mean, parts, count);
        qsort(all, (size_t)runs, sizeof *all, by_value);
        if (task->device->info.type != ITERA_DEVICE_CPU)
            task->row.device_p50 = itera_bench_quantile(all, runs, 0.5);
    }
    free(seconds);
    return status;
}
