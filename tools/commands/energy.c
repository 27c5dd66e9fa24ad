/* itera energy: the energy sensors of this machine, and what it takes now. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/command.h"
#include "cli/meter_request.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "itera/device.h"

/* The device of this id among those of the machine; no driver is opened for it. */
static int find_device(const char *id, struct itera_device_info *device)
{
    struct itera_device_info *infos;
    int count;
    if (itera_devices(&infos, &count))
        return EXIT_FAILED;
    char ids[512] = "";
    size_t used = 0;
    bool found = false;
    for (int i = 0; i < count && !found; i++) {
        found = !strcmp(infos[i].id, id);
        *device = infos[i];
        if (used < sizeof ids)
            used +=
                (size_t)snprintf(ids + used, sizeof ids - used, "%s%s", i ? ", " : "", infos[i].id);
    }
    free(infos);
    if (!found)
        command_error("there is no device '%s'; there are %s", id, ids);
    return found ? EXIT_OK : EXIT_FAILED;
}

static enum itera_status measure(struct itera_meter *meter, double seconds,
                                 struct itera_energy *energy)
{
    enum itera_status status = itera_meter_begin(meter);
    if (status)
        return status;
    double start = progress_seconds(), done = 0;
    progress_start("energy", "s", seconds);
    while (done < seconds) {
        double step = fmin(0.25, seconds - done);
        nanosleep(&(struct timespec){.tv_nsec = (long)(step * 1e9)}, NULL);
        done = progress_seconds() - start;
        progress_update(fmin(done, seconds), NULL);
    }
    progress_finish(0);
    return itera_meter_end(meter, energy);
}

static const char *quantity(double value, const char *unit, char *out, size_t size)
{
    static const char *const prefixes[] = {"u", "m", "", "k"};
    int p = value >= 1000 ? 3 : value >= 1 ? 2 : value >= 1e-3 ? 1 : 0;
    static const double scale[] = {1e6, 1e3, 1, 1e-3};
    snprintf(out, size, "%.3g %s%s", value * scale[p], prefixes[p], unit);
    return out;
}

static void print_sensors(const struct itera_sensor_info *infos, int count)
{
    static const char *const titles[] = {"sensor", "name", "scope", "reads", "step", "updated"};
    struct table *table = table_create(6, titles, "llllrr");
    char step[32], update[32];
    int usable = 0;
    for (int i = 0; i < count; i++) {
        const struct itera_sensor_info *s = &infos[i];
        if (s->state != ITERA_SENSOR_USABLE)
            continue;
        usable++;
        table_cell(table, "%s", s->kind);
        table_cell(table, "%s", s->name);
        table_cell(table, "%s", itera_energy_scope_name(s->scope));
        table_cell(table, "%s", s->counter ? "energy" : "power");
        table_cell(table, "%s", quantity(s->resolution, s->counter ? "J" : "W", step, sizeof step));
        table_cell(table, "%s", quantity(s->update_seconds, "s", update, sizeof update));
    }
    if (usable)
        table_print(table);
    table_destroy(&table);
    if (!usable)
        puts("No energy sensor of this machine can be used.");
    for (int i = 0; i < count; i++) {
        const struct itera_sensor_info *s = &infos[i];
        if (s->state == ITERA_SENSOR_USABLE || (s->state == ITERA_SENSOR_ABSENT && usable))
            continue;
        printf("%s%s%s: %s\n", s->kind, *s->name ? " " : "", s->name, s->reason);
        if (*s->fix)
            printf("    %s\n", s->fix);
    }
}

static void print_figures(const struct itera_energy *energy)
{
    static const char *const titles[] = {"scope", "joules", "+-", "watts", "samples", "source"};
    struct table *table = table_create(6, titles, "lrrrrl");
    int figures = 0;
    for (int i = 0; i < energy->n_figures; i++) {
        const struct itera_energy_figure *f = &energy->figure[i];
        if (isnan(f->joules))
            continue;
        figures++;
        table_cell(table, "%s", itera_energy_scope_name(f->scope));
        table_cell(table, "%.3f", f->joules);
        if (f->measured)
            table_cell(table, "%.3f", f->error_joules);
        else
            table_cell(table, "%s", "?");
        table_cell(table, "%.3f", f->watts);
        table_cell(table, "%d", f->samples);
        table_cell(table, "%s%s", f->source, f->measured ? "" : " (an estimate, not measured)");
    }
    printf("\nThis machine in %.3f s:\n", energy->seconds);
    if (figures)
        table_print(table);
    table_destroy(&table);
    for (int i = 0; i < energy->n_figures; i++)
        if (energy->figure[i].reason[0])
            printf("%s: %s %s\n", itera_energy_scope_name(energy->figure[i].scope),
                   isnan(energy->figure[i].joules) ? "no figure:" : "not measured:",
                   energy->figure[i].reason);
    if (isnan(energy->figure[0].joules))
        puts("`--tdp WATTS` gives an estimate, marked as such, here and in the other commands.");
}

static json_t *sensor_json(const struct itera_sensor_info *s)
{
    json_t *root = json_pack("{s:s, s:o, s:s}", "kind", s->kind, "name", output_string(s->name),
                             "state", itera_sensor_state_name(s->state));
    if (s->state != ITERA_SENSOR_ABSENT) {
        json_object_set_new(root, "scope", json_string(itera_energy_scope_name(s->scope)));
        json_object_set_new(root, "path", output_path(s->path));
    }
    if (*s->pci)
        json_object_set_new(root, "pci", json_string(s->pci));
    if (s->state == ITERA_SENSOR_USABLE) {
        json_object_set_new(root, "reads", json_string(s->counter ? "energy" : "power"));
        json_object_set_new(root, s->counter ? "resolution_joules" : "resolution_watts",
                            output_number(s->resolution));
        json_object_set_new(root, "update_seconds", output_number(s->update_seconds));
        return root;
    }
    json_object_set_new(root, "reason", output_string(s->reason));
    json_object_set_new(root, "fix", *s->fix ? output_string(s->fix) : json_null());
    return root;
}

static int write_json(const struct itera_sensor_info *infos, int count,
                      const struct itera_energy *energy, const char *file)
{
    json_t *root = json_object(), *sensors = json_array(), *figures = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(sensors, sensor_json(&infos[i]));
    for (int i = 0; i < energy->n_figures; i++)
        json_array_append_new(figures, meter_figure_json(&energy->figure[i]));
    json_object_set_new(root, "sensors", sensors);
    json_object_set_new(root, "seconds", output_number(energy->seconds));
    json_object_set_new(root, "figures", figures);
    int code = output_json(root, file);
    json_decref(root);
    return code;
}

static int report(const struct meter_request *request, const struct itera_device_info *device,
                  double seconds, const struct option_optional *json)
{
    const struct itera_meter_options look = {.probe_seconds = 0.1};
    struct itera_sensor_info *infos = NULL;
    struct itera_meter *meter = NULL;
    struct itera_energy energy = {0};
    int count = 0, code = EXIT_FAILED;
    if (itera_sensors(&look, &infos, &count))
        return EXIT_FAILED;
    if (seconds > 0 && (meter_open(request, device, &meter) || measure(meter, seconds, &energy)))
        goto done;
    if (!output_on_stdout(json)) {
        print_sensors(infos, count);
        if (seconds > 0)
            print_figures(&energy);
    }
    code = json->given ? write_json(infos, count, &energy, json->value) : EXIT_OK;
done:
    itera_meter_close(&meter);
    free(infos);
    return code;
}

int itera_command_energy(int argc, char **argv)
{
    const char *id = NULL;
    double seconds = 3;
    struct meter_request request = {0};
    struct option_optional json = {0};
    const struct command_option options[] = {
        {"seconds", 's', OPTION_NUMBER, &seconds, "S",
         "how long to measure (default: 3); 0 only lists the sensors", 0, 3600},
        {"device", 'd', OPTION_STRING, &id, "D",
         "show first what work on this device would be charged\nwith (see itera devices)"},
        METER_OPTIONS(request),
        {"json", 0, OPTION_OPTIONAL, &json, "FILE", "write JSON to FILE, or to stdout"},
        {0}};
    const struct command_spec spec = {
        .name = "energy",
        .summary = "Lists the energy sensors of this machine, with what would make the others\n"
                   "usable, and measures what the machine takes now.",
        .notes = "Sensors: RAPL (powercap), NVML, amdgpu, xe and i915 (hwmon), batteries. When\n"
                 "nothing else runs, the watts are the machine's idle power.",
        .options = options};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    options_free(&args);
    struct itera_device_info device;
    code = output_json_check(json.value);
    if (code == EXIT_OK && id)
        code = find_device(id, &device);
    return code == EXIT_OK ? report(&request, id ? &device : NULL, seconds, &json) : code;
}
