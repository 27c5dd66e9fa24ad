/* Meters: a run's readings, the thread that takes those in between, and what they add up to. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/number.h"
#include "energy/figures.h"
#include "energy/sensor.h"

#define DEFAULT_HZ 20.0
/* More than a sensor can honestly show: tells a counter that wrapped from one that was reset. */
#define MOST_WATTS 10000.0
#define MOST_JUMP  1000.0 /* joules that no wrap is doubted for, however short the time */
/* Counters are read at least so often, so that no wrap is missed. Drivers that extend a counter of
 * 32 bits (i915, xe) rely on it, too. */
#define COUNTER_SECONDS 5.0

/* A sensor in a run. */
struct channel {
    struct itera_sensor *sensor;
    uint64_t last;       /* the reading before: microjoules or microwatts */
    double last_seconds; /* when */
    uint64_t counted;    /* counters: microjoules since begin */
    double integral;     /* power: joules since begin */
    double change;       /* power: joules by which the trapezoids may be wrong */
    double most;         /* power: watts */
    int samples;
    char why[SENSOR_WHY]; /* not empty: it failed */
};

struct itera_meter {
    struct itera_sensor_set set;
    struct channel *channel;
    int n_channels;
    struct itera_figure_sensors chosen[ITERA_ENERGY_FIGURES];
    double idle_watts[ITERA_ENERGY_FIGURES], idle_error[ITERA_ENERGY_FIGURES];
    int n_figures;
    double sample_hz, tdp_watts;
    double power_period, counter_period; /* seconds between readings; INFINITY: none needed */

    bool running, stop;
    double start; /* of the run */
    pthread_t thread;
    pthread_mutex_t mutex; /* channels and stop, while the thread is there */
    pthread_cond_t wake;
};

static void channel_fail(struct channel *c, const char *why)
{
    snprintf(c->why, sizeof c->why, "%s", why);
}

/* What a counter went on by from c->last. */
static bool counter_step(struct channel *c, uint64_t now, double seconds, uint64_t *step)
{
    uint64_t range = c->sensor->range;
    if (now >= c->last) {
        *step = now - c->last;
        return true;
    }
    if (range == 0 || c->last > range) {
        itera_format(c->why, sizeof c->why,
                     "the counter went back from %.6f J to %.6f J (a suspended machine or a driver "
                     "that was reloaded)",
                     (double)c->last * 1e-6, (double)now * 1e-6);
        return false;
    }
    *step = range - c->last + now;
    double limit = MOST_WATTS * (seconds + c->sensor->info.update_seconds);
    if ((double)*step * 1e-6 > (limit > MOST_JUMP ? limit : MOST_JUMP)) {
        itera_format(
            c->why, sizeof c->why,
            "the counter was reset: as a wrap, %.6f J to %.6f J in %.3g s would be more than "
            "%.0f W",
            (double)c->last * 1e-6, (double)now * 1e-6, seconds, MOST_WATTS);
        return false;
    }
    return true;
}

static void channel_sample(struct channel *c, bool first)
{
    uint64_t now = 0;
    char why[SENSOR_WHY] = "";
    if (c->why[0])
        return;
    if (c->sensor->kind->read(c->sensor, &now, why)) {
        channel_fail(c, why);
        return;
    }
    double t = itera_seconds(), seconds = t - c->last_seconds, watts = (double)now * 1e-6;
    if (c->sensor->info.counter) {
        uint64_t step = 0;
        if (!first && !counter_step(c, now, seconds, &step))
            return;
        c->counted += step;
    } else {
        double before = (double)c->last * 1e-6;
        if (!first) {
            c->integral += 0.5 * (before + watts) * seconds;
            c->change += 0.5 * fabs(watts - before) * seconds;
        }
        c->most = fmax(c->most, watts);
    }
    c->last = now;
    c->last_seconds = t;
    c->samples++;
}

static void channel_begin(struct channel *c)
{
    *c = (struct channel){.sensor = c->sensor};
    channel_sample(c, true);
}

static void sample_kind(struct itera_meter *meter, int counter)
{
    for (int i = 0; i < meter->n_channels; i++)
        if (meter->channel[i].sensor->info.counter == counter)
            channel_sample(&meter->channel[i], false);
}

static void *sampler(void *user)
{
    struct itera_meter *meter = user;
    pthread_mutex_lock(&meter->mutex);
    double power_at = meter->start + meter->power_period;
    double counter_at = meter->start + meter->counter_period;
    while (!meter->stop) {
        double next = fmin(power_at, counter_at);
        if (isinf(next)) {
            pthread_cond_wait(&meter->wake, &meter->mutex);
            continue;
        }
        struct timespec until = {.tv_sec = (time_t)next};
        until.tv_nsec = (long)((next - (double)until.tv_sec) * 1e9);
        int code = pthread_cond_timedwait(&meter->wake, &meter->mutex, &until);
        if (meter->stop || code != ETIMEDOUT)
            continue;
        double due = itera_seconds();
        if (power_at <= due)
            sample_kind(meter, 0);
        if (counter_at <= due)
            sample_kind(meter, 1);
        /* Moments that slow readings missed are not made up for. */
        while (power_at <= due)
            power_at += meter->power_period;
        while (counter_at <= due)
            counter_at += meter->counter_period;
    }
    pthread_mutex_unlock(&meter->mutex);
    return NULL;
}

/* The thread takes no signals: an interrupt belongs to the caller. */
static int start_thread(struct itera_meter *meter)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&meter->thread, NULL, sampler, meter);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

enum itera_status itera_meter_begin(struct itera_meter *meter)
{
    if (meter->running)
        return itera_fail(ITERA_ERR_ARGUMENT, "an energy meter was begun twice; end its run first");
    /* The thread waits for the mutex until everything has been read. */
    pthread_mutex_lock(&meter->mutex);
    meter->stop = false;
    int error = meter->n_channels ? start_thread(meter) : 0;
    if (error) {
        pthread_mutex_unlock(&meter->mutex);
        return itera_fail(ITERA_ERR_LIMIT, "no thread for an energy meter: %s", strerror(error));
    }
    meter->running = true;
    /* The first figure's last, next to the run. */
    for (int i = meter->n_channels; i-- > 0;)
        channel_begin(&meter->channel[i]);
    meter->start = itera_seconds();
    pthread_mutex_unlock(&meter->mutex);
    return ITERA_OK;
}

/* Ends the thread; with its last readings when they are wanted. */
static double stop_run(struct itera_meter *meter, bool read)
{
    pthread_mutex_lock(&meter->mutex);
    double seconds = itera_seconds() - meter->start;
    for (int i = 0; i < meter->n_channels && read; i++)
        channel_sample(&meter->channel[i], false);
    meter->stop = true;
    pthread_cond_signal(&meter->wake);
    pthread_mutex_unlock(&meter->mutex);
    if (meter->n_channels)
        pthread_join(meter->thread, NULL);
    meter->running = false;
    return seconds;
}

__attribute__((format(printf, 2, 3))) static void figure_fail(struct itera_energy_figure *f,
                                                              const char *format, ...)
{
    va_list args;
    va_start(args, format);
    itera_format_args(f->reason, sizeof f->reason, format, args);
    va_end(args);
    f->joules = f->watts = f->error_joules = NAN;
    f->measured = 0;
}

/* Adds up a figure's sensors; 0 and a figure without joules when one of them failed. */
static bool add_channels(const struct itera_meter *meter, int index, double seconds,
                         struct itera_energy_figure *f)
{
    uint64_t counted = 0; /* as integers: what is added up is right to the digit */
    double integral = 0, error = 0;
    for (int i = 0; i < meter->n_channels; i++) {
        const struct channel *c = &meter->channel[i];
        const struct itera_sensor_info *info = &c->sensor->info;
        if (c->sensor->figure != index)
            continue;
        if (c->why[0]) {
            figure_fail(f, "%s %s: %.200s", info->kind, info->name, c->why);
            return false;
        }
        counted += c->counted;
        integral += c->integral;
        /* Both ends of a counter are old by up to one update. The power at the ends is not known;
         * twice the mean is taken for it. */
        if (info->counter)
            error +=
                info->resolution + 2 * (double)c->counted * 1e-6 / seconds * info->update_seconds;
        else
            error += c->change + info->resolution * seconds + c->most * info->update_seconds;
        f->resolution += info->resolution;
        f->update_seconds = fmax(f->update_seconds, info->update_seconds);
        f->sample_hz = info->counter ? f->sample_hz : meter->sample_hz;
        f->samples = c->samples;
    }
    f->joules = (double)counted / 1e6 + integral;
    f->error_joules = error;
    return true;
}

static void measure(const struct itera_meter *meter, int index, double seconds,
                    struct itera_energy_figure *f)
{
    const struct itera_figure_sensors *chosen = &meter->chosen[index];
    if (chosen->sensors == 0) {
        figure_fail(f, "%s", chosen->reason);
        return;
    }
    snprintf(f->source, sizeof f->source, "%s", chosen->source);
    if (!add_channels(meter, index, seconds, f))
        return;
    if (f->joules == 0 && seconds < f->update_seconds) {
        figure_fail(f,
                    "the run of %.3g s is shorter than the sensor's update of %.3g s; repeat "
                    "the work within one run",
                    seconds, f->update_seconds);
    } else if (f->joules == 0) {
        figure_fail(f, "%s did not move in %.3g s", chosen->source, seconds);
    } else {
        f->measured = 1;
        f->watts = f->joules / seconds;
    }
}

static void subtract_idle(const struct itera_meter *meter, int index, double seconds,
                          struct itera_energy_figure *f)
{
    f->idle_watts = f->above_idle_joules = f->above_idle_error_joules = NAN;
    if (!f->measured || isnan(meter->idle_watts[index]))
        return;
    f->idle_watts = meter->idle_watts[index];
    f->above_idle_joules = f->joules - f->idle_watts * seconds;
    f->above_idle_error_joules = f->error_joules + meter->idle_error[index] * seconds;
}

enum itera_status itera_meter_end(struct itera_meter *meter, struct itera_energy *energy)
{
    *energy = (struct itera_energy){0};
    if (!meter->running)
        return itera_fail(ITERA_ERR_ARGUMENT, "an energy meter was ended without a begin");
    double seconds = stop_run(meter, true);
    energy->seconds = seconds;
    energy->n_figures = meter->n_figures;
    for (int i = 0; i < meter->n_figures; i++) {
        struct itera_energy_figure *f = &energy->figure[i];
        f->scope = meter->chosen[i].scope;
        measure(meter, i, seconds, f);
        /* The reason why nothing was measured stays. */
        if (i == 0 && !f->measured && meter->tdp_watts > 0) {
            itera_format(f->source, sizeof f->source, "tdp %g W", meter->tdp_watts);
            f->watts = meter->tdp_watts;
            f->joules = seconds * meter->tdp_watts;
        }
        subtract_idle(meter, i, seconds, f);
    }
    return ITERA_OK;
}

enum itera_status itera_meter_measure_idle(struct itera_meter *meter, double seconds)
{
    if (!(seconds > 0 && seconds <= 3600))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "idle power over %g s: the time must be above 0 and at most 3600",
                          seconds);
    struct itera_energy energy;
    enum itera_status status = itera_meter_begin(meter);
    if (status)
        return status;
    struct timespec left = {.tv_sec = (time_t)seconds};
    left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
    status = itera_meter_end(meter, &energy);
    for (int i = 0; i < energy.n_figures; i++) {
        const struct itera_energy_figure *f = &energy.figure[i];
        meter->idle_watts[i] = f->measured ? f->watts : NAN;
        meter->idle_error[i] = f->measured ? f->error_joules / energy.seconds : NAN;
    }
    return status;
}

/* How often the thread reads. */
static void set_periods(struct itera_meter *meter)
{
    meter->power_period = meter->counter_period = INFINITY;
    for (int i = 0; i < meter->n_channels; i++) {
        const struct itera_sensor *sensor = meter->channel[i].sensor;
        double limit = sensor->range ? (double)sensor->range * 1e-6 / (2 * MOST_WATTS) : INFINITY;
        if (!sensor->info.counter)
            meter->power_period = 1 / meter->sample_hz;
        else
            meter->counter_period =
                fmin(meter->counter_period, fmax(0.01, fmin(COUNTER_SECONDS, limit)));
    }
}

static enum itera_status check_options(const struct itera_meter_options *o)
{
    if (o->sample_hz != 0 && !(o->sample_hz >= 0.1 && o->sample_hz <= 1000))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "energy: %g samples per second; the rate must be 0.1 to 1000",
                          o->sample_hz);
    if (!(o->tdp_watts >= 0 && o->tdp_watts <= 1e6))
        return itera_fail(ITERA_ERR_ARGUMENT, "energy: a TDP of %g W; it must be 0 to 1e6",
                          o->tdp_watts);
    if (!(o->probe_seconds >= 0 && o->probe_seconds <= 60))
        return itera_fail(ITERA_ERR_ARGUMENT,
                          "energy: to watch counters for %g s; it must be 0 to 60",
                          o->probe_seconds);
    return ITERA_OK;
}

static void init_sync(struct itera_meter *meter)
{
    pthread_condattr_t attributes;
    pthread_mutex_init(&meter->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* that of itera_seconds */
    pthread_cond_init(&meter->wake, &attributes);
    pthread_condattr_destroy(&attributes);
}

enum itera_status itera_meter_open(const struct itera_meter_options *options,
                                   struct itera_meter **out)
{
    static const struct itera_meter_options defaults;
    const struct itera_meter_options *o = options ? options : &defaults;
    *out = NULL;
    enum itera_status status = check_options(o);
    if (status)
        return status;
    struct itera_meter *meter = calloc(1, sizeof *meter);
    if (!meter)
        return itera_fail(ITERA_ERR_MEMORY, "out of memory for an energy meter");
    init_sync(meter);
    meter->sample_hz = o->sample_hz > 0 ? o->sample_hz : DEFAULT_HZ;
    meter->tdp_watts = o->tdp_watts;
    struct itera_sensor_search search = itera_sensor_search_of(o);
    status = itera_sensor_set_find(&search, o->probe_seconds, &meter->set);
    if (status)
        goto fail;
    meter->channel = calloc((size_t)meter->set.count, sizeof *meter->channel);
    if (!meter->channel) {
        status = itera_fail(ITERA_ERR_MEMORY, "out of memory for an energy meter");
        goto fail;
    }
    meter->n_figures = itera_figures_assign(&meter->set, o->device, meter->chosen);
    for (int f = 0; f < meter->n_figures; f++) {
        meter->idle_watts[f] = meter->idle_error[f] = NAN;
        for (int i = 0; i < meter->set.count; i++)
            if (meter->set.item[i]->figure == f)
                meter->channel[meter->n_channels++].sensor = meter->set.item[i];
    }
    set_periods(meter);
    *out = meter;
    return ITERA_OK;
fail:
    itera_meter_close(&meter);
    return status;
}

void itera_meter_close(struct itera_meter **meter)
{
    if (!meter || !*meter)
        return;
    struct itera_meter *m = *meter;
    if (m->running)
        stop_run(m, false);
    itera_sensor_set_clear(&m->set);
    free(m->channel);
    pthread_cond_destroy(&m->wake);
    pthread_mutex_destroy(&m->mutex);
    free(m);
    *meter = NULL;
}
