/* itera devices: what this machine offers to compute with. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "commands/devices_kernels.h"
#include "itera/bench.h"
#include "itera/check.h"
#include "itera/device.h"

static json_t *device_json(const struct itera_device_info *info)
{
    json_t *features = json_object();
    for (int i = 0; i < info->n_features; i++)
        json_object_set_new(features, info->features[i].name, json_boolean(info->features[i].used));
    json_t *memory = info->memory_bytes <= INT64_MAX ? json_integer((json_int_t)info->memory_bytes)
                                                     : json_null();
    return json_pack("{s:s, s:s, s:o, s:s, s:o, s:s?, s:o, s:o}", "id", info->id, "backend",
                     info->backend, "name", output_string(info->name), "type",
                     itera_device_type_name(info->type), "driver", output_string(info->driver),
                     "pci", *info->pci ? info->pci : NULL, "memory_bytes", memory, "features",
                     features);
}

static int print_json(const struct itera_device_info *infos, int count, const char *file)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(list, device_json(&infos[i]));
    json_t *root = json_pack("{s:o}", "devices", list);
    int code = output_json(root, file);
    json_decref(root);
    return code;
}

static void print_table(const struct itera_device_info *infos, int count)
{
    static const char *const titles[] = {"id", "type", "name", "driver", "memory", "features"};
    struct table *table = table_create(6, titles, "llllrl");
    for (int i = 0; i < count; i++) {
        const struct itera_device_info *info = &infos[i];
        table_cell(table, "%s", info->id);
        table_cell(table, "%s", itera_device_type_name(info->type));
        table_cell(table, "%s", info->name);
        table_cell(table, "%s", info->driver[0] ? info->driver : "-");
        table_cell(table, "%.1f GiB", (double)info->memory_bytes / (1024.0 * 1024 * 1024));
        char features[512] = "";
        size_t used = 0;
        for (int j = 0; j < info->n_features && used < sizeof features; j++) {
            /* What the device has and the backend does not use stands in parentheses. */
            const char *form = info->features[j].used ? "%s%s" : "%s(%s)";
            used += (size_t)snprintf(features + used, sizeof features - used, form, j ? " " : "",
                                     info->features[j].name);
        }
        table_cell(table, "%s", features);
    }
    table_print(table);
    table_destroy(&table);
}

/* The ops, by name, with what each device says of them. */
struct ops {
    struct {
        char name[48];
        int variants, supported[16];
        char reason[16][160];
    } row[256];
    int n_rows, device;
};

static int on_op(void *user, const char *op, int variants, int supported, const char *reason)
{
    struct ops *ops = user;
    int i = 0;
    while (i < ops->n_rows && strcmp(ops->row[i].name, op))
        i++;
    if (i == (int)(sizeof ops->row / sizeof *ops->row))
        return 1;
    if (i == ops->n_rows)
        snprintf(ops->row[ops->n_rows++].name, sizeof ops->row->name, "%s", op);
    ops->row[i].variants = variants;
    ops->row[i].supported[ops->device] = supported;
    snprintf(ops->row[i].reason[ops->device], sizeof ops->row->reason[0], "%s", reason);
    return 0;
}

static json_t *ops_json(const struct itera_device_info *infos, int count, const struct ops *ops)
{
    json_t *list = json_array();
    for (int i = 0; i < ops->n_rows; i++) {
        json_t *devices = json_object();
        for (int d = 0; d < count; d++)
            json_object_set_new(devices, infos[d].id,
                                ops->row[i].supported[d] ? json_true()
                                                         : output_string(ops->row[i].reason[d]));
        json_array_append_new(list, json_pack("{s:s, s:b, s:o}", "op", ops->row[i].name, "variants",
                                              ops->row[i].variants, "devices", devices));
    }
    return json_pack("{s:o}", "ops", list);
}

static void print_ops(const struct itera_device_info *infos, int count, const struct ops *ops)
{
    const char *titles[18] = {"op", "variants"};
    for (int d = 0; d < count; d++)
        titles[d + 2] = infos[d].id;
    struct table *table = table_create(count + 2, titles, "llllllllllllllllll");
    for (int i = 0; i < ops->n_rows; i++) {
        table_cell(table, "%s", ops->row[i].name);
        table_cell(table, "%s", ops->row[i].variants ? "sequential parallel chunked" : "");
        for (int d = 0; d < count; d++)
            table_cell(table, "%s", ops->row[i].supported[d] ? "yes" : ops->row[i].reason[d]);
    }
    table_print(table);
    table_destroy(&table);
}

/* --ops: which ops each device has. */
static int list_ops(const struct itera_device_info *infos, int count,
                    const struct option_optional *json)
{
    static struct ops ops;
    if (count > 16) {
        command_note("these are the first 16 of %d devices", count);
        count = 16;
    }
    for (ops.device = 0; ops.device < count; ops.device++) {
        struct itera_device *device;
        enum itera_status status = itera_device_open(infos[ops.device].id, NULL, &device);
        if (!status)
            status = itera_check_support(device, on_op, &ops);
        itera_device_close(&device);
        if (status)
            return EXIT_FAILED;
    }
    if (!json->given) {
        print_ops(infos, count, &ops);
        return EXIT_OK;
    }
    json_t *root = ops_json(infos, count, &ops);
    int code = output_json(root, json->value);
    json_decref(root);
    return code;
}

static int on_tune(void *user, const char *preset, double progress)
{
    (void)user;
    progress_update(progress, "%s", preset);
    return 0;
}

/* Tunes every device that ids (a comma list, or "all") names. */
static int tune(const struct itera_device_info *infos, int count, const struct option_names *ids,
                const struct option_names *presets)
{
    for (size_t d = 0; d < ids->n; d++) {
        bool all = !strcmp(ids->item[d], "all");
        for (int i = 0; i < (all ? count : 1); i++) {
            const char *id = all ? infos[i].id : ids->item[d];
            struct itera_device *device;
            if (itera_device_open(id, NULL, &device))
                return EXIT_FAILED;
            if (!strcmp(itera_device_info(device)->backend, "cpu")) {
                progress_line("%s has nothing to tune", id);
                itera_device_close(&device);
                continue;
            }
            progress_start(id, "", 1);
            enum itera_status status =
                itera_bench_tune(device, presets->item, (int)presets->n, on_tune, NULL);
            progress_finish(!status);
            itera_device_close(&device);
            if (status)
                return EXIT_FAILED;
            progress_line("%s is tuned", id);
        }
    }
    return EXIT_OK;
}

int itera_command_devices(int argc, char **argv)
{
    static const char *const usual[] = {"micro", "tiny", "itera-m", "transformer-tiny",
                                        "mamba-tiny"};
    static const char *const all[] = {"all"};
    struct option_optional json = {0};
    bool tuning = false, listing = false, kernels = false, every = false;
    const char *ops = NULL;
    struct option_names dtypes = {0};
    struct option_names ids = {1, all};
    struct option_names presets = {sizeof usual / sizeof *usual, usual};
    const struct command_option options[] = {
        {"tune", 0, OPTION_FLAG, &tuning, NULL,
         "measure which kernels are fastest on each device and keep it,\ninstead of measuring "
         "shapes as they come"},
        {"kernels", 0, OPTION_FLAG, &kernels, NULL,
         "what the driver made of each kernel: registers, spills, memory,\nworst first, as far as "
         "it "
         "tells"},
        {"device", 'd', OPTION_NAMES, &ids, "LIST",
         "with --tune and --kernels: which (default: all)"},
        {"preset", 0, OPTION_NAMES, &presets, "LIST",
         "with --tune and --kernels: the shapes of these models\n(default: micro, tiny, itera-m, "
         "transformer-tiny, mamba-tiny)"},
        {"dtype", 0, OPTION_NAMES, &dtypes, "LIST",
         "with --kernels: weights of the presets (default: f32)", 0, 0, "f32|f16|bf16|q8|q4|mixed"},
        {"all", 0, OPTION_FLAG, &every, NULL,
         "with --kernels: also those that no preset uses, in every way\nthat the device has (see "
         "itera check)"},
        {"op", 0, OPTION_STRING, &ops, "GLOB", "with --kernels: only of these ops"},
        {"ops", 0, OPTION_FLAG, &listing, NULL, "which ops each device has kernels for"},
        {"json", 0, OPTION_OPTIONAL, &json, "FILE", "write JSON to FILE, or to stdout"},
        {0}};
    const struct command_spec spec = {
        .name = "devices",
        .summary =
            "Lists every device: backend, type, driver, memory and the features that are used\n"
            "(in parentheses: present, but not used).",
        .options = options};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;

    struct itera_device_info *infos = NULL;
    int count = 0;
    if (itera_devices(&infos, &count) != ITERA_OK)
        code = EXIT_FAILED;
    else if (tuning)
        code = tune(infos, count, &ids, &presets);
    else if (kernels)
        code = devices_kernels_run(infos, count, &ids,
                                   &(struct itera_kernel_options){.presets = presets.item,
                                                                  .n_presets = (int)presets.n,
                                                                  .dtypes = dtypes.item,
                                                                  .n_dtypes = (int)dtypes.n,
                                                                  .ops = ops,
                                                                  .every = every},
                                   &json);
    else if (listing)
        code = list_ops(infos, count, &json);
    else if (json.given)
        code = print_json(infos, count, json.value);
    else {
        print_table(infos, count);
        code = EXIT_OK;
    }
    options_free(&args);
    free(infos);
    return code;
}
