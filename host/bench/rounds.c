/* Timing in rounds: short blocks of every work in turn. */
#include <stdlib.h>
#include <time.h>

#include "bench/bench_impl.h"
#include "core/clock.h"
#include "core/log.h"

enum {
    MOST_BLOCKS = 40,
    FEWEST_BLOCKS = 8,
    FEWEST_SLOW = 3, /* of a work of which one run already takes its time */
    BLOCK_SAMPLES = 2000,
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum itera_status itera_bench_run_program(void *executable)
{
    return itera_run(executable);
}

static enum itera_status run_once(struct itera_bench_work *work, double *seconds)
{
    enum itera_status status = work->prepare ? work->prepare(work->user) : ITERA_OK;
    if (status)
        return status;
    double before = itera_seconds();
    status = work->run(work->user);
    *seconds = itera_seconds() - before;
    return status;
}

static enum itera_status keep(struct itera_bench_work *work, double seconds)
{
    if (work->count == work->capacity) {
        int capacity = work->capacity ? 2 * work->capacity : 1024;
        double *samples = realloc(work->samples, (size_t)capacity * sizeof *samples);
        if (!samples)
            return itera_fail(ITERA_ERR_MEMORY, "no memory for %d benchmark samples", capacity);
        work->samples = samples;
        work->capacity = capacity;
    }
    work->samples[work->count++] = seconds;
    return ITERA_OK;
}

/* Nothing of a work is under way while others are timed. */
static enum itera_status finish(struct itera_bench_work *work)
{
    return work->finish ? work->finish(work->user) : ITERA_OK;
}

/* A block begins with runs that do not count: others had the caches since the last one. Of slow
 * works those are small beside the run. */
static enum itera_status run_block(struct itera_bench_work *work, double block)
{
    double seconds, sorted[BLOCK_SAMPLES];
    enum itera_status status = ITERA_OK;
    const int first = work->count;
    const double warm = work->run_seconds < 0.01 ? 0.1 * block : 0;
    for (double begin = itera_seconds(); !status && itera_seconds() - begin < warm;)
        status = run_once(work, &seconds);
    double spent = 0;
    do {
        if (!status)
            status = run_once(work, &seconds);
        if (!status)
            status = keep(work, seconds);
        spent += seconds;
    } while (!status && spent < block && work->count - first < BLOCK_SAMPLES);
    if (!status)
        status = finish(work);
    if (status)
        return status;
    const int n = work->count - first;
    for (int i = 0; i < n; i++)
        sorted[i] = work->samples[first + i];
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    work->medians[work->blocks++] = itera_bench_quantile(sorted, n, 0.5);
    return ITERA_OK;
}

/* Twice, or for a tenth of the time; a work that is slow only once. */
static enum itera_status warm_up(struct itera_bench_work *work, double seconds)
{
    double begin = itera_seconds(), last = 0;
    enum itera_status status = ITERA_OK;
    work->medians = calloc(MOST_BLOCKS, sizeof *work->medians);
    if (!work->medians)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for benchmark samples");
    do {
        status = run_once(work, &last);
        work->run_seconds =
            !work->run_seconds || last < work->run_seconds ? last : work->run_seconds;
    } while (!status && itera_seconds() - begin < 0.1 * seconds);
    if (!status && last < seconds)
        status = run_once(work, &work->run_seconds);
    return status ? status : finish(work);
}

/* How many blocks a work gets: as many as there are rounds, or fewer where one run takes longer
 * than a block. */
static int blocks_of(const struct itera_bench_work *work, double seconds, int rounds)
{
    /* Of a run of nanoseconds more fit than an int counts. */
    int fits = work->run_seconds * rounds < seconds ? rounds : (int)(seconds / work->run_seconds);
    int fewest = work->run_seconds > seconds / 2 ? FEWEST_SLOW : FEWEST_BLOCKS;
    fewest = fewest < rounds ? fewest : rounds;
    return fits < fewest ? fewest : fits > rounds ? rounds : fits;
}

enum itera_status itera_bench_rounds(struct itera_bench_work *const *works, int n, double seconds,
                                     itera_bench_turn_fn *turn, void *user)
{
    /* OpenBLAS's threads spin for some 30 ms and would take a processor from whoever is next. */
    static const struct timespec pause = {.tv_nsec = 60000000};
    int rounds = (int)(seconds / 0.02);
    rounds = rounds < FEWEST_BLOCKS ? FEWEST_BLOCKS : rounds > MOST_BLOCKS ? MOST_BLOCKS : rounds;
    enum itera_status status = ITERA_OK;
    bool stopped = false;
    for (int i = 0; i < n && !status && !stopped; i++) {
        stopped = turn && turn(user, i, -1, rounds);
        if (!stopped)
            status = warm_up(works[i], seconds);
        works[i]->wanted = blocks_of(works[i], seconds, rounds);
    }
    for (int r = 0; r < rounds && !status && !stopped; r++) {
        stopped = turn && turn(user, -1, r, rounds);
        for (int k = 0; k < n && !status && !stopped; k++) {
            /* The order is another one in each round; slow works sit most rounds out. */
            int i = (k + r) % n;
            struct itera_bench_work *work = works[i];
            if ((r + 1) * work->wanted / rounds == r * work->wanted / rounds)
                continue;
            stopped = turn && turn(user, i, r, rounds);
            if (!stopped)
                status = run_block(work, seconds / rounds);
            if (work->spins)
                nanosleep(&pause, NULL);
        }
    }
    for (int i = 0; i < n; i++)
        if (works[i]->count)
            qsort(works[i]->samples, (size_t)works[i]->count, sizeof(double), by_value);
    return status;
}

void itera_bench_work_free(struct itera_bench_work *work)
{
    free(work->samples);
    free(work->medians);
    work->samples = work->medians = NULL;
}
