#include "cli/meter_request.h"

#include <math.h>

#include "cli/output.h"

enum itera_status meter_open(const struct meter_request *request,
                             const struct itera_device_info *device, struct itera_meter **meter)
{
    const struct itera_meter_options options = {.device = device,
                                                .tdp_watts = request->tdp,
                                                .sample_hz = request->rate,
                                                .probe_seconds = 0.1};
    return itera_meter_open(&options, meter);
}

static json_t *text_or_null(const char *text)
{
    return *text ? output_string(text) : json_null();
}

json_t *meter_figure_json(const struct itera_energy_figure *f)
{
    json_t *root = json_object();
    json_object_set_new(root, "scope", json_string(itera_energy_scope_name(f->scope)));
    json_object_set_new(root, "source", text_or_null(f->source));
    json_object_set_new(root, "measured", json_boolean(f->measured));
    json_object_set_new(root, "joules", output_number(f->joules));
    json_object_set_new(root, "error_joules", output_number(f->error_joules));
    json_object_set_new(root, "watts", output_number(f->watts));
    json_object_set_new(root, "idle_watts", output_number(f->idle_watts));
    json_object_set_new(root, "above_idle_joules", output_number(f->above_idle_joules));
    json_object_set_new(root, "above_idle_error_joules", output_number(f->above_idle_error_joules));
    if (f->measured) {
        const char *unit = f->sample_hz > 0 ? "resolution_watts" : "resolution_joules";
        json_object_set_new(root, unit, output_number(f->resolution));
        json_object_set_new(root, "update_seconds", output_number(f->update_seconds));
        json_object_set_new(root, "sample_hz",
                            f->sample_hz > 0 ? json_real(f->sample_hz) : json_null());
        json_object_set_new(root, "samples", json_integer(f->samples));
    }
    json_object_set_new(root, "reason", text_or_null(f->reason));
    return root;
}

json_t *meter_energy_json(const struct itera_energy *energy, double tokens)
{
    const struct itera_energy_figure *f = &energy->figure[0];
    if (energy->n_figures == 0 || isnan(f->joules))
        return json_null();
    json_t *root = meter_figure_json(f), *others = json_array();
    json_object_set_new(root, "joules_per_token", output_number(f->joules / tokens));
    json_object_set_new(root, "joules_per_token_above_idle",
                        output_number(f->above_idle_joules / tokens));
    json_object_set_new(root, "seconds", output_number(energy->seconds));
    for (int i = 1; i < energy->n_figures; i++)
        json_array_append_new(others, meter_figure_json(&energy->figure[i]));
    json_object_set_new(root, "others", others);
    return root;
}
