/* itera bench: the machine and what a reader must know about it. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench_parts.h"
#include "cli/output.h"

void bench_note(struct bench *b, const char *format, ...)
{
    char text[700];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t i;
    json_t *note;
    json_array_foreach(b->notes, i, note) if (!strcmp(json_string_value(note), text)) return;
    json_array_append_new(b->notes, output_string(text));
}

json_t *bench_peaks_json(const struct bench_device *device)
{
    const struct itera_bench_peaks *p = &device->peaks;
    const struct itera_device_info *info = itera_device_info(device->device);
    json_t *reads = json_array();
    for (int i = 0; i < ITERA_BENCH_SIZES; i++)
        json_array_append_new(reads, json_pack("{s:f, s:o}", "bytes", p->read_bytes[i],
                                               "gbytes_per_s", output_number(p->read_gbytes[i])));
    return json_pack("{s:s, s:o, s:s, s:s, s:o, s:i, s:o, s:o, s:o, s:o, s:o}", "device", info->id,
                     "name", output_string(info->name), "backend", info->backend, "type",
                     itera_device_type_name(info->type), "driver", output_string(info->driver),
                     "threads", itera_device_threads(device->device), "gflops",
                     output_number(p->gflops), "f16_gflops", output_number(p->f16_gflops),
                     "int8_gops", output_number(p->int8_gops), "copy_gbytes_per_s",
                     output_number(p->copy_gbytes), "read", reads);
}

void bench_look_before(struct bench *b)
{
    const double busy = 0.3;
    struct itera_bench_machine *m = &b->before;
    itera_bench_look(NULL, m);
    if (*m->governor && strcmp(m->governor, "performance") != 0)
        bench_note(b,
                   "The CPU frequency governor is %s: clocks follow the load, and short runs may "
                   "see low ones.",
                   m->governor);
    if (*m->virtual_machine)
        bench_note(b,
                   "This is a virtual machine (%s): other guests may take its processors, which "
                   "cannot be seen from inside.",
                   m->virtual_machine);
    if (isnan(m->clock_mhz))
        bench_note(b, "Clocks cannot be read%s.", *m->virtual_machine ? " in here" : "");
    if (m->load > busy)
        bench_note(b, "Other work was going on: the load average was %.2f before the run.",
                   m->load);
}

static json_t *before_after(double before, double after)
{
    if (isnan(before) && isnan(after))
        return json_null();
    return json_pack("{s:o, s:o}", "before", output_number(before), "after", output_number(after));
}

static void look_after(struct bench *b, json_t *host)
{
    const struct itera_bench_machine *before = &b->before;
    struct itera_bench_machine after;
    itera_bench_look(NULL, &after);
    json_object_set_new(host, "memory_bytes", json_integer((json_int_t)before->memory_bytes));
    json_object_set_new(host, "virtual",
                        *before->virtual_machine ? output_string(before->virtual_machine)
                                                 : json_null());
    json_object_set_new(host, "governor",
                        *before->governor ? output_string(before->governor) : json_null());
    json_t *clock = before_after(before->clock_mhz, after.clock_mhz);
    if (json_is_object(clock))
        json_object_set_new(clock, "max", output_number(before->clock_max_mhz));
    json_object_set_new(host, "clock_mhz", clock);
    json_object_set_new(host, "temperature_c",
                        before_after(before->temperature_c, after.temperature_c));
    const double throttled = after.throttles - before->throttles;
    json_object_set_new(host, "throttled",
                        isnan(throttled) ? json_null() : json_integer((json_int_t)throttled));
    if (throttled > 0)
        bench_note(b, "The processor was too hot and throttled %.0f times during the run.",
                   throttled);
    json_object_set_new(host, "load_average", output_number(before->load));
    struct rusage usage;
    if (!getrusage(RUSAGE_SELF, &usage))
        json_object_set_new(host, "peak_memory_bytes",
                            json_integer((json_int_t)usage.ru_maxrss * 1024));
}

static json_t *host_json(struct bench *b)
{
    struct utsname u;
    json_t *host = json_object();
    if (!uname(&u)) {
        json_object_set_new(host, "system", output_string(u.sysname));
        json_object_set_new(host, "release", output_string(u.release));
        json_object_set_new(host, "machine", output_string(u.machine));
    }
    struct itera_device_info *infos = NULL;
    int count = 0;
    if (!itera_devices(&infos, &count) && count > 0)
        json_object_set_new(host, "cpu", output_string(infos[0].name));
    free(infos);
    json_object_set_new(host, "processors", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
    json_object_set_new(host, "itera", json_string(itera_version()));
    char date[32];
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) && strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc))
        json_object_set_new(host, "date", json_string(date));
    look_after(b, host);
    return host;
}

/* Why device d is not metered, and with it all others of the same reason; said at the first. */
static void note_energy(struct bench *b, int d)
{
    const char *reason = b->devices[d].energy_reason;
    char ids[256] = "";
    for (int i = 0; i < b->n_devices; i++) {
        const struct bench_device *other = &b->devices[i];
        if (other->metered || strcmp(other->energy_reason, reason) != 0)
            continue;
        if (i < d)
            return;
        if (i > d && !strcmp(itera_device_info(other->device)->id,
                             itera_device_info(b->devices[i - 1].device)->id))
            continue; /* with another number of threads */
        const size_t used = strlen(ids);
        snprintf(ids + used, sizeof ids - used, "%s%s", used ? ", " : "",
                 itera_device_info(other->device)->id);
    }
    bench_note(b, "No energy figures for %s: %s.", ids, reason);
}

/* What the rows themselves say. */
static void note_rows(struct bench *b)
{
    size_t i, unstable = 0, wrong = 0;
    json_t *row;
    json_array_foreach(b->runs, i, row)
    {
        unstable += json_is_false(json_object_get(row, "stable"));
        wrong += json_is_false(json_object_get(json_object_get(row, "parity"), "pass"));
    }
    if (unstable)
        bench_note(b,
                   "%zu of %zu rows are unstable: their intervals are wide, or the machine's "
                   "speed changed.",
                   unstable, json_array_size(b->runs));
    if (wrong)
        bench_note(b,
                   "The logits of %zu rows are further from the CPU's than they may be: do not "
                   "trust their speed.",
                   wrong);
    for (int d = 0; d < b->n_devices; d++) {
        const struct bench_device *device = &b->devices[d];
        const char *id = itera_device_info(device->device)->id;
        if (!device->metered)
            note_energy(b, d);
        for (int k = 0; itera_device_fallback_op(device->device, k); k++)
            bench_note(b, "%s has no kernel for %s here: the CPU computed it.", id,
                       itera_device_fallback_op(device->device, k));
    }
}

static json_t *command_line(int argc, char **argv)
{
    char text[2048] = "itera";
    size_t used = strlen(text);
    for (int i = 0; i < argc && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, " %s", argv[i]);
    return output_string(text);
}

json_t *bench_result(struct bench *b, int argc, char **argv)
{
    enum { SEED = 17 }; /* of the random tokens */
    json_t *host = host_json(b);
    note_rows(b);
    json_object_set(host, "notes", b->notes);
    json_object_set(host, "peaks", b->peaks);
    json_t *settings = json_pack("{s:o, s:b, s:f, s:i, s:o}", "command", command_line(argc, argv),
                                 "quick", b->s->quick, "seconds", b->s->seconds, "seed", SEED,
                                 "profile", output_path(b->s->profile));
    return json_pack("{s:s, s:o, s:o, s:O, s:O}", "schema", "itera-bench/1", "host", host,
                     "settings", settings, "runs", b->runs, "sweeps", b->sweeps);
}
