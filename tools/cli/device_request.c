#include "cli/device_request.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/progress.h"

enum itera_status device_open(const struct device_request *request, struct itera_device **device)
{
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (processors > 0 && request->threads > processors)
        command_note("%lld threads share %ld processor%s, and wait for each other",
                     (long long)request->threads, processors, processors == 1 ? "" : "s");
    bool refuse = request->fallback && !strcmp(request->fallback, "refuse");
    const struct itera_device_options options = {
        .threads = (int)request->threads,
        .fallback = refuse ? ITERA_FALLBACK_REFUSE : ITERA_FALLBACK_REPORT,
    };
    return itera_device_open(request->id, &options, device);
}

const char *device_label(const char *id, int threads, char *out, size_t size)
{
    if (strchr(id, ':') || threads < 1)
        snprintf(out, size, "%.60s", id);
    else
        snprintf(out, size, "%.60s x%d", id, threads);
    return out;
}

json_t *device_fallback_json(const struct itera_device *device)
{
    json_t *list = json_array();
    const char *op;
    for (int i = 0; (op = itera_device_fallback_op(device, i)); i++)
        json_array_append_new(list, json_string(op));
    return list;
}

void precision_take(const char *precision, bool *exact, bool *half)
{
    *half |= precision && !strcmp(precision, "f16");
    *exact |= precision && !strcmp(precision, "f32");
}

void device_report_fallback(const struct itera_device *device)
{
    char names[512] = "";
    size_t used = 0;
    const char *op;
    if (!device)
        return;
    for (int i = 0; used < sizeof names && (op = itera_device_fallback_op(device, i)); i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", op);
    if (used)
        command_note("%s has no kernel for these ops, and the CPU ran them: %s",
                     itera_device_info(device)->id, names);
}
