/* itera devices: what this machine offers to compute with. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "itera/bench.h"
#include "itera/device.h"
#include "options.h"
#include "output.h"
#include "progress.h"

static json_t *device_json(const struct itera_device_info *info)
{
    json_t *features = json_object();
    for (int i = 0; i < info->n_features; i++)
        json_object_set_new(features, info->features[i].name, json_boolean(info->features[i].used));
    json_t *memory = info->memory_bytes <= INT64_MAX ? json_integer((json_int_t)info->memory_bytes)
                                                     : json_null();
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o}", "id", info->id, "backend",
                     info->backend, "name", info->name, "type", itera_device_type_name(info->type),
                     "driver", info->driver, "memory_bytes", memory, "features", features);
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
    static const char *const usual[] = {"micro", "tiny", "itera-m", "transformer", "mamba-tiny"};
    static const char *const all[] = {"all"};
    struct option_optional json = {0};
    bool tuning = false;
    struct option_names ids = {1, all};
    struct option_names presets = {sizeof usual / sizeof *usual, usual};
    const struct command_option options[] = {
        {"tune", 0, OPTION_FLAG, &tuning, NULL,
         "measure which kernels are fastest on each device and keep it,\ninstead of measuring "
         "shapes as they come"},
        {"device", 'd', OPTION_NAMES, &ids, "LIST", "with --tune: which (default: all)"},
        {"preset", 0, OPTION_NAMES, &presets, "LIST",
         "with --tune: the shapes of these models\n(default: micro, tiny, itera-m, transformer, "
         "mamba-tiny)"},
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
