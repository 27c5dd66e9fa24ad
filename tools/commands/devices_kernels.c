/* itera devices --kernels: what drivers made of the kernels, worst first. */
#include "commands/devices_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"

/* Of two numbers, the larger first; what is not told (-1) last. */
static int larger_first(int64_t a, int64_t b)
{
    return (a < b) - (a > b);
}

static int worst_first(const void *left, const void *right)
{
    const struct itera_kernel_info *a = left, *b = right;
    int order = larger_first(a->spills, b->spills);
    if (!order)
        order = larger_first(a->scratch_bytes, b->scratch_bytes);
    if (!order)
        order = larger_first(a->registers, b->registers);
    if (!order)
        order = strcmp(a->name, b->name);
    return order ? order : strcmp(a->constants, b->constants);
}

static void number_cell(struct table *table, int64_t value)
{
    if (value < 0)
        table_cell(table, "-");
    else
        table_cell(table, "%lld", (long long)value);
}

static bool tells(const struct itera_kernel_list *list)
{
    for (int i = 0; i < list->n; i++)
        if (list->items[i].statistics[0])
            return true;
    return false;
}

static void print_table(const struct itera_device_info *device,
                        const struct itera_kernel_list *list)
{
    static const char *const titles[] = {"registers", "spills", "scratch", "shared", "code",
                                         "waves",     "width",  "lanes",   "kernel", "used by"};
    struct table *table = table_create(10, titles, "rrrrrrrrll");
    int spilling = 0, spilling_presets = 0;
    for (int i = 0; i < list->n; i++) {
        const struct itera_kernel_info *k = &list->items[i];
        spilling += k->spills > 0;
        spilling_presets += k->spills > 0 && k->used_by[0];
        number_cell(table, k->registers);
        number_cell(table, k->spills);
        number_cell(table, k->scratch_bytes);
        number_cell(table, k->shared_bytes);
        number_cell(table, k->code_bytes);
        number_cell(table, k->waves);
        number_cell(table, k->subgroup);
        number_cell(table, k->lanes);
        table_cell(table, "%s%s%s", k->name, k->constants[0] ? " " : "", k->constants);
        table_cell(table, "%s", k->used_by[0] ? k->used_by : "-");
    }
    printf("%s: %s, %s\n\n", device->id, device->name, device->driver);
    table_print(table);
    table_destroy(&table);
    printf("\n%d kernels; %d spill registers, %d of them in what presets use\n", list->n, spilling,
           spilling_presets);
    if (!tells(list))
        command_note("the driver of %s tells nothing of its kernels (Vulkan: "
                     "VK_KHR_pipeline_executable_properties)",
                     device->id);
}

static json_t *told(int64_t value)
{
    return value < 0 ? json_null() : json_integer((json_int_t)value);
}

static json_t *device_json(const struct itera_device_info *device,
                           const struct itera_kernel_list *list)
{
    json_t *kernels = json_array();
    for (int i = 0; i < list->n; i++) {
        const struct itera_kernel_info *k = &list->items[i];
        json_array_append_new(
            kernels,
            json_pack("{s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "kernel",
                      k->name, "constants", k->constants, "op", k->op, "used_by", k->used_by,
                      "lanes", k->lanes, "subgroup", told(k->subgroup), "waves", told(k->waves),
                      "registers", told(k->registers), "spills", told(k->spills), "scratch_bytes",
                      told(k->scratch_bytes), "shared_bytes", told(k->shared_bytes), "code_bytes",
                      told(k->code_bytes), "statistics", output_string(k->statistics)));
    }
    return json_pack("{s:s, s:o, s:o, s:o}", "id", device->id, "name", output_string(device->name),
                     "driver", output_string(device->driver), "kernels", kernels);
}

static int on_progress(void *user, double progress)
{
    (void)user;
    progress_update(progress, "compiling");
    return 0;
}

/* Lists one device's kernels; those of the CPU are none. */
static int run_device(const char *id, const struct itera_kernel_options *options, bool print,
                      json_t *devices)
{
    struct itera_device *device;
    if (itera_device_open(id, NULL, &device))
        return EXIT_FAILED;
    const struct itera_device_info *info = itera_device_info(device);
    struct itera_kernel_list list = {0};
    progress_start(info->id, "", 1);
    enum itera_status status = itera_kernels(device, options, on_progress, NULL, &list);
    progress_finish(!status);
    if (!status && list.n)
        qsort(list.items, (size_t)list.n, sizeof *list.items, worst_first);
    if (!status && !strcmp(info->backend, "cpu"))
        command_note("%s has no kernels that a driver compiles", id);
    else if (!status && print)
        print_table(info, &list);
    if (!status)
        json_array_append_new(devices, device_json(info, &list));
    free(list.items);
    itera_device_close(&device);
    return status ? EXIT_FAILED : EXIT_OK;
}

int devices_kernels_run(const struct itera_device_info *infos, int count,
                        const struct option_names *ids, const struct itera_kernel_options *options,
                        const struct option_optional *json)
{
    const bool print = !output_on_stdout(json);
    int code = json->given ? output_json_check(json->value) : EXIT_OK;
    json_t *devices = json_array();
    for (size_t i = 0; i < ids->n && code == EXIT_OK; i++) {
        if (strcmp(ids->item[i], "all") != 0)
            code = run_device(ids->item[i], options, print, devices);
        else
            for (int d = 0; d < count && code == EXIT_OK; d++)
                if (strcmp(infos[d].backend, "cpu") != 0)
                    code = run_device(infos[d].id, options, print, devices);
    }
    if (code == EXIT_OK && print && !json_array_size(devices))
        command_note("there is no device whose kernels a driver compiles");
    json_t *root = json_pack("{s:O}", "devices", devices);
    if (code == EXIT_OK && json->given)
        code = output_json(root, json->value);
    json_decref(root);
    json_decref(devices);
    return code;
}
