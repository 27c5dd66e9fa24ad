#include "report/bench_charts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/output.h"

/* An axis with a title; `type`: "linear" or "logarithmic". */
static json_t *axis_json(const char *type, const char *title, const char *unit)
{
    json_t *axis =
        json_pack("{s:s, s:{s:b, s:s}}", "type", type, "title", "display", 1, "text", title);
    if (unit)
        json_object_set_new(axis, "unit", json_string(unit));
    return axis;
}

/* ---- bars ------------------------------------------------------------------------------------ */

/* The place of a name in the order of first appearance. */
static int place_of(json_t *places, const char *name)
{
    json_t *place = json_object_get(places, name);
    if (place)
        return (int)json_integer_value(place);
    json_object_set_new_nocheck(places, name, json_integer((json_int_t)json_object_size(places)));
    return (int)json_object_size(places) - 1;
}

static int place_of_bar(json_t *places, const struct bar *bar)
{
    char name[sizeof bar->what + 2];
    snprintf(name, sizeof name, "%s\x1f%s", bar->what[0], bar->what[1]);
    return place_of(places, name);
}

static json_t *empty_set(const char *label, size_t n)
{
    json_t *data = json_array(), *intervals = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(data, json_null());
        json_array_append_new(intervals, json_null());
    }
    return json_pack("{s:o, s:o, s:o, s:b, s:f}", "label", output_string(label), "data", data,
                     "intervals", intervals, "skipNull", 1, "maxBarThickness", 18.0);
}

static json_t *make_sets(const struct bar *bars, int n, json_t *whats, json_t *labels)
{
    json_t *set_places = json_object(), *sets = json_array();
    for (int i = 0; i < n; i++) {
        int at = place_of_bar(whats, &bars[i]);
        if (at < MAX_BARS && (size_t)at == json_array_size(labels))
            json_array_append_new(labels, json_pack("[o, o]", output_string(bars[i].what[0]),
                                                    output_string(bars[i].what[1])));
    }
    for (int i = 0; i < n; i++) {
        int at = place_of_bar(whats, &bars[i]), set = place_of(set_places, bars[i].set);
        if ((size_t)set == json_array_size(sets))
            json_array_append_new(sets, empty_set(bars[i].set, json_array_size(labels)));
        if (at >= MAX_BARS)
            continue;
        json_t *entry = json_array_get(sets, (size_t)set);
        json_array_set_new(json_object_get(entry, "data"), (size_t)at,
                           output_number(bars[i].value));
        if (isfinite(bars[i].low) && isfinite(bars[i].high))
            json_array_set_new(json_object_get(entry, "intervals"), (size_t)at,
                               json_pack("[f, f]", bars[i].low, bars[i].high));
    }
    json_decref(set_places);
    return sets;
}

/* The least and the most that is to be seen, whiskers included. */
static void range_of(const struct bar *bars, int n, double *least, double *most)
{
    *least = (double)INFINITY;
    *most = 0;
    for (int i = 0; i < n; i++) {
        const double seen[] = {bars[i].value, bars[i].low, bars[i].high};
        for (int k = 0; k < 3; k++) {
            if (isfinite(seen[k]) && seen[k] > 0) {
                *least = fmin(*least, seen[k]);
                *most = fmax(*most, seen[k]);
            }
        }
    }
}

json_t *chart_bars(const struct bar *bars, int n, const char *axis, bool stacked)
{
    if (!n)
        return NULL;
    json_t *whats = json_object(), *labels = json_array();
    json_t *sets = make_sets(bars, n, whats, labels);
    const size_t lines = json_array_size(labels), side = stacked ? 1 : json_array_size(sets);
    double least, most;
    range_of(bars, n, &least, &most);
    const bool wide = !stacked && most > 50 * least;
    json_t *values = axis_json(wide ? "logarithmic" : "linear", axis, "compact");
    json_object_set_new(values, "suggestedMax", output_number(most));
    if (wide) /* the shortest bar has some length */
        json_object_set_new(values, "suggestedMin", output_number(0.7 * least));
    json_t *names = json_pack("{s:{s:b}}", "ticks", "autoSkip", 0);
    if (stacked) {
        json_object_set_new(values, "stacked", json_true());
        json_object_set_new(values, "max", json_integer(100));
        json_object_set_new(names, "stacked", json_true());
    }
    /* Two lines of text at least, and a bar per set. */
    double height = 7 + (double)lines * fmax(2.6, 1.25 * (double)side + 0.6);
    json_decref(whats);
    return json_pack("{s:s, s:f, s:{s:o, s:o}, s:{s:s, s:b, s:{s:o, s:o}}}", "type", "bar",
                     "height", height, "data", "labels", labels, "datasets", sets, "options",
                     "indexAxis", "y", "legend", 1, "scales", "x", values, "y", names);
}

/* Bars grow from 1. Far from it the axis is logarithmic, where half as fast is as far as twice. */
json_t *chart_ratios(const struct bar *bars, int n)
{
    json_t *chart = chart_bars(bars, n, "speed beside the baseline (above 1 is faster)", false);
    json_t *axis =
        json_object_get(json_object_get(json_object_get(chart, "options"), "scales"), "x");
    double least = 0.95, most = 1.05;
    size_t i;
    json_t *set;
    for (int k = 0; k < n; k++) {
        least = fmin(least, isfinite(bars[k].low) ? bars[k].low : bars[k].value);
        most = fmax(most, isfinite(bars[k].high) ? bars[k].high : bars[k].value);
    }
    const bool near = least > 0.3 && most < 3;
    json_object_set_new(axis, "type", json_string(near ? "linear" : "logarithmic"));
    json_object_set_new(axis, "min", output_number(near ? floor(20 * least) / 20 : least / 1.1));
    json_object_set_new(axis, "max", output_number(near ? ceil(20 * most) / 20 : most * 1.1));
    json_array_foreach(json_object_get(json_object_get(chart, "data"), "datasets"), i, set)
        json_object_set_new(set, "base", json_integer(1));
    return chart;
}

/* ---- roofline -------------------------------------------------------------------------------- */

/* min(peak, bandwidth * intensity) from x0 to x1: two lines that meet at the ridge. */
static json_t *roof_json(const char *label, double peak, double bandwidth, double x0, double x1,
                         int colour, bool memory)
{
    double ridge = peak / bandwidth;
    json_t *points = json_array();
    json_array_append_new(points,
                          json_pack("{s:f, s:f}", "x", x0, "y", fmin(peak, bandwidth * x0)));
    if (ridge > x0 && ridge < x1)
        json_array_append_new(points, json_pack("{s:f, s:f}", "x", ridge, "y", peak));
    json_array_append_new(points,
                          json_pack("{s:f, s:f}", "x", x1, "y", fmin(peak, bandwidth * x1)));
    json_t *set = json_pack("{s:o, s:o, s:b, s:i, s:f, s:i, s:b}", "label", output_string(label),
                            "data", points, "showLine", 1, "pointRadius", 0, "borderWidth",
                            memory ? 2.0 : 1.0, "colour", colour, "quiet", 1);
    if (!memory)
        json_object_set_new(set, "borderDash", json_pack("[i, i]", 5, 4));
    return set;
}

/* The dots of a device's rows; grows the range of intensities. */
static json_t *dots_json(const struct result *result, const char *device, int colour, double *x0,
                         double *x1)
{
    json_t *points = json_array(), *names = json_array(), *shapes = json_array();
    for (int i = 0; i < result->n; i++) {
        const struct result_row *row = &result->rows[i];
        double flops = results_number(row->json, "gflops");
        double bytes = results_number(row->json, "gbytes_per_s");
        char name[256], here[96];
        if (strcmp(result_device(row, here, sizeof here), device) != 0 || !(flops > 0) ||
            !(bytes > 0))
            continue;
        *x0 = fmin(*x0, flops / bytes);
        *x1 = fmax(*x1, flops / bytes);
        snprintf(name, sizeof name, "%.64s %.16s %.64s %.16s, %.64s", row->op, row->phase,
                 row->case_name, row->dtype, here);
        json_array_append_new(points, json_pack("{s:f, s:f}", "x", flops / bytes, "y", flops));
        json_array_append_new(names, output_string(name));
        json_array_append_new(shapes, json_string(!strcmp(row->phase, "op")       ? "triangle"
                                                  : !strcmp(row->phase, "decode") ? "circle"
                                                  : !strcmp(row->phase, "train")  ? "rectRot"
                                                                                  : "rect"));
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:i, s:i}", "label", output_string(device), "data",
                     points, "names", names, "pointStyle", shapes, "pointRadius", 5, "colour",
                     colour);
}

json_t *chart_roofline(const struct result *result)
{
    const json_t *peaks = json_object_get(json_object_get(result->root, "host"), "peaks");
    json_t *sets = json_array(), *peak;
    double x0 = (double)INFINITY, x1 = 0;
    size_t i, k;
    json_array_foreach(peaks, i, peak)
    {
        char name[96];
        results_device(peak, name, sizeof name);
        json_array_append_new(sets, dots_json(result, name, (int)i, &x0, &x1));
    }
    if (!(x1 > 0)) {
        json_decref(sets);
        return NULL;
    }
    x0 /= 2;
    x1 *= 2;
    json_array_foreach(peaks, i, peak)
    {
        const json_t *reads = json_object_get(peak, "read");
        char name[96], label[160];
        json_t *read;
        double flops = results_number(peak, "gflops");
        results_device(peak, name, sizeof name);
        json_array_foreach(reads, k, read)
        {
            double bandwidth = results_number(read, "gbytes_per_s");
            if (!(flops > 0) || !(bandwidth > 0))
                continue;
            snprintf(label, sizeof label, "%s, reading %.3g MB", name,
                     results_number(read, "bytes") / 1e6);
            json_array_append_new(sets, roof_json(label, flops, bandwidth, x0, x1, (int)i,
                                                  k + 1 == json_array_size(reads)));
        }
    }
    return json_pack("{s:s, s:f, s:{s:o}, s:{s:b, s:{s:o, s:o}}}", "type", "scatter", "height",
                     26.0, "data", "datasets", sets, "options", "legend", 1, "scales", "x",
                     axis_json("logarithmic", "FLOP per byte", "compact"), "y",
                     axis_json("logarithmic", "GFLOP/s", "compact"));
}

/* ---- sweeps and quality ---------------------------------------------------------------------- */

static json_t *sweep_set(const struct result *result, const json_t *sweep, bool several)
{
    json_t *data = json_array(), *intervals = json_array(), *point;
    const json_t *points = json_object_get(sweep, "points");
    char name[96], label[320];
    double exponent = results_number(sweep, "exponent");
    size_t i;
    json_array_foreach(points, i, point)
    {
        double low = results_number(point, "low"), high = results_number(point, "high");
        json_array_append_new(data, json_pack("{s:f, s:f}", "x", results_number(point, "x"), "y",
                                              results_number(point, "ms")));
        json_array_append_new(intervals,
                              low > 0 && high > 0 ? json_pack("[f, f]", low, high) : json_null());
    }
    results_device(sweep, name, sizeof name);
    snprintf(label, sizeof label, "%.64s %.16s %.16s, %s", results_text(sweep, "op"),
             results_text(sweep, "phase"), results_text(sweep, "dtype"), name);
    size_t used = strlen(label);
    if (isfinite(exponent)) /* of hundreds of digits in a file that is forged */
        snprintf(label + used, sizeof label - used, ": exponent %.2f", exponent);
    used = strlen(label);
    if (several)
        snprintf(label + used, sizeof label - used, " (%s)", result->label);
    return json_pack("{s:o, s:o, s:o, s:b, s:i, s:i}", "label", output_string(label), "data", data,
                     "intervals", intervals, "showLine", 1, "pointRadius", 4, "borderWidth", 2);
}

json_t *chart_sweeps(const struct result *results, int n, const char *variable)
{
    json_t *sets = json_array();
    char title[64];
    for (int r = 0; r < n; r++) {
        json_t *sweep;
        size_t i;
        json_array_foreach(json_object_get(results[r].root, "sweeps"), i,
                           sweep) if (!strcmp(results_text(sweep, "variable"), variable))
            json_array_append_new(sets, sweep_set(&results[r], sweep, n > 1));
    }
    if (!json_array_size(sets)) {
        json_decref(sets);
        return NULL;
    }
    snprintf(title, sizeof title, "%s",
             !strcmp(variable, "length")  ? "length in tokens"
             : !strcmp(variable, "batch") ? "sequences at a time"
                                          : "width of the model");
    return json_pack("{s:s, s:f, s:{s:o}, s:{s:b, s:{s:o, s:o}}}", "type", "scatter", "height",
                     26.0, "data", "datasets", sets, "options", "legend", 1, "scales", "x",
                     axis_json("logarithmic", title, "compact"), "y",
                     axis_json("logarithmic", "ms", "compact"));
}

json_t *chart_quality(const json_t *ledger)
{
    json_t *sets = json_array(), *model;
    size_t i;
    json_array_foreach(json_object_get(ledger, "models"), i, model)
    {
        double bytes = results_number(model, "bytes_on_disk");
        double bits = results_number(model, "bits_per_byte");
        if (bytes > 0 && bits > 0)
            json_array_append_new(sets, json_pack("{s:o, s:[{s:f, s:f}], s:i}", "label",
                                                  output_string(results_text(model, "model")),
                                                  "data", "x", bytes, "y", bits, "pointRadius", 6));
    }
    if (!json_array_size(sets)) {
        json_decref(sets);
        return NULL;
    }
    return json_pack("{s:s, s:{s:o}, s:{s:b, s:{s:o, s:o}}}", "type", "scatter", "data", "datasets",
                     sets, "options", "legend", 1, "scales", "x",
                     axis_json("logarithmic", "bytes on disk", "bytes"), "y",
                     axis_json("linear", "bits per byte (lower is better)", NULL));
}
