/* itera bench --sweep: how cost grows with length, batch or width. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_parts.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/stop.h"

enum { MOST_POINTS = 32, MOST_CURVES = 64 };

struct point {
    double x;
    struct itera_model *model;
    struct itera_bench_task *task;
};

struct curve {
    int device, n;
    struct point points[MOST_POINTS];
};

static const int64_t lengths[] = {128, 256, 512, 1024, 2048, 4096};
static const int64_t batches[] = {1, 2, 4, 8, 16, 32};
static const int64_t widths[] = {1, 2, 4, 8};

static struct option_integers points_of(const struct bench_settings *s)
{
    if (s->at.n)
        return s->at;
    if (!strcmp(s->sweep, "length"))
        return (struct option_integers){sizeof lengths / sizeof *lengths, lengths};
    if (!strcmp(s->sweep, "batch"))
        return (struct option_integers){sizeof batches / sizeof *batches, batches};
    return (struct option_integers){sizeof widths / sizeof *widths, widths};
}

/* The model of a point: presets get the positions and the width that it asks for. */
static enum itera_status make_model(const struct bench *b, const char *preset, const char *dtype,
                                    struct itera_device *device, int64_t at,
                                    struct itera_model **model)
{
    const struct bench_settings *s = b->s;
    const bool length = !strcmp(s->sweep, "length"), width = !strcmp(s->sweep, "width");
    if (s->model || (dtype && strcmp(dtype, "f32") != 0))
        return bench_make_model(device, s, preset, dtype, model);
    return itera_bench_create_scaled(device, preset, width ? (double)at : 1,
                                     length ? (int32_t)at : 0, model);
}

static enum itera_status add_point(struct bench *b, struct curve *curve, const char *preset,
                                   const char *dtype, int64_t at)
{
    const struct bench_settings *s = b->s;
    struct point *p = &curve->points[curve->n];
    struct itera_device *device = b->devices[curve->device].device;
    const char *name = bench_model_name(s, preset);
    enum itera_status status = make_model(b, preset, dtype, device, at, &p->model);
    if (status)
        return status;
    curve->n++;
    if (!strcmp(s->sweep, "batch")) {
        p->x = (double)at;
        return itera_bench_task_model(p->model, name, NULL, ITERA_BENCH_DECODE, at, s->generate,
                                      &p->task);
    }
    const bool length = !strcmp(s->sweep, "length");
    p->x = length ? (double)at : itera_model_info(p->model)->hidden;
    return itera_bench_task_model(p->model, name, NULL, ITERA_BENCH_PREFILL, 1,
                                  length ? at : s->prompts.item[0], &p->task);
}

static json_t *curve_json(struct bench *b, struct curve *curve)
{
    double x[MOST_POINTS], y[MOST_POINTS];
    json_t *points = json_array();
    const struct itera_bench_row *row = NULL;
    int n = 0;
    for (int i = 0; i < curve->n; i++) {
        const struct itera_bench_row *r =
            itera_bench_task_row(curve->points[i].task, &b->devices[curve->device].peaks);
        if (!r->repeats)
            continue;
        row = r;
        x[n] = curve->points[i].x;
        y[n++] = r->p50;
        json_array_append_new(points,
                              json_pack("{s:f, s:f, s:f, s:f, s:f}", "x", curve->points[i].x, "ms",
                                        r->p50 * 1e3, "low", r->low * 1e3, "high", r->high * 1e3,
                                        "tokens_per_second", (double)r->tokens / r->p50));
    }
    if (!row) {
        json_decref(points);
        return NULL;
    }
    const struct itera_bench_fit fit = itera_bench_fit(x, y, n);
    return json_pack("{s:s, s:i, s:s, s:o, s:s, s:s, s:o, s:o, s:o, s:o}", "device", row->device,
                     "threads", row->threads, "dtype", row->dtype, "op", output_string(row->op),
                     "phase", row->phase, "variable", b->s->sweep, "points", points, "exponent",
                     output_number(fit.exponent), "exponent_low", output_number(fit.low),
                     "exponent_high", output_number(fit.high));
}

/* What the fit says; of two points no interval, of one nothing. */
static void print_exponent(const json_t *curve, struct table *table)
{
    const json_t *exponent = json_object_get(curve, "exponent");
    const json_t *low = json_object_get(curve, "exponent_low");
    const json_t *high = json_object_get(curve, "exponent_high");
    if (json_is_number(low) && json_is_number(high))
        table_cell(table, "%.2f (%.2f to %.2f)", json_number_value(exponent),
                   json_number_value(low), json_number_value(high));
    else if (json_is_number(exponent))
        table_cell(table, "%.2f", json_number_value(exponent));
    else
        table_cell(table, "%s", "");
}

static void print_curve(const json_t *curve, struct table *table)
{
    size_t i;
    json_t *point;
    json_array_foreach(json_object_get(curve, "points"), i, point)
    {
        table_cell(table, "%s", i ? "" : json_string_value(json_object_get(curve, "op")));
        table_cell(table, "%s", i ? "" : json_string_value(json_object_get(curve, "device")));
        table_cell(table, "%s", i ? "" : json_string_value(json_object_get(curve, "dtype")));
        table_cell(table, "%g", json_number_value(json_object_get(point, "x")));
        table_cell(table, "%.4g", json_number_value(json_object_get(point, "ms")));
        table_cell(table, "%.4g-%.4g", json_number_value(json_object_get(point, "low")),
                   json_number_value(json_object_get(point, "high")));
        table_cell(table, "%.0f", json_number_value(json_object_get(point, "tokens_per_second")));
        if (i)
            table_cell(table, "%s", "");
        else
            print_exponent(curve, table);
    }
}

/* The curves of one preset on all devices, and all of their points in turns. */
static enum itera_status sweep_preset(struct bench *b, const char *preset, struct curve *curves,
                                      struct table *table)
{
    const struct bench_settings *s = b->s;
    const struct option_integers at = points_of(s);
    const int types = s->dtypes.n ? (int)s->dtypes.n : 1;
    struct itera_bench_task *tasks[MOST_POINTS * MOST_CURVES];
    int n_curves = 0, n = 0;
    enum itera_status status = ITERA_OK;
    if (at.n > MOST_POINTS)
        bench_note(b, "A curve has %d points at most: the last %zu were not measured.", MOST_POINTS,
                   at.n - MOST_POINTS);
    if (types * b->n_devices > MOST_CURVES)
        bench_note(b, "A preset has %d curves at most: the last %d were not measured.", MOST_CURVES,
                   types * b->n_devices - MOST_CURVES);
    for (int c = 0; c < types * b->n_devices && c < MOST_CURVES && !status; c++) {
        struct curve *curve = &curves[n_curves++];
        *curve = (struct curve){.device = c / types};
        for (size_t i = 0; i < at.n && i < MOST_POINTS && !status && !stop_asked(); i++)
            status = add_point(b, curve, preset, s->dtypes.n ? s->dtypes.item[c % types] : NULL,
                               at.item[i]);
        for (int i = 0; i < curve->n && !status; i++)
            tasks[n++] = curve->points[i].task;
    }
    if (!status && n && !stop_asked())
        status = bench_tasks(b, tasks, n);
    for (int c = 0; c < n_curves; c++) {
        json_t *json = status ? NULL : curve_json(b, &curves[c]);
        if (json) {
            print_curve(json, table);
            json_array_append_new(b->sweeps, json);
        }
        for (int i = 0; i < curves[c].n; i++) {
            itera_bench_task_destroy(&curves[c].points[i].task);
            itera_model_destroy(&curves[c].points[i].model);
        }
    }
    return status;
}

enum itera_status bench_sweep(struct bench *b)
{
    const struct bench_settings *s = b->s;
    const char *titles[] = {"model", "device",       "type",     s->sweep,
                            "ms",    "95% interval", "tokens/s", "exponent"};
    struct curve *curves = calloc(MOST_CURVES, sizeof *curves);
    struct table *table = table_create(8, titles, "lllrrrrl");
    enum itera_status status = ITERA_OK;
    if (!curves) {
        command_error("no memory for the curves");
        status = ITERA_ERR_MEMORY;
    }
    const size_t models = s->model ? 1 : s->presets.n;
    for (size_t i = 0; i < models && !status && !stop_asked(); i++)
        status = sweep_preset(b, s->model ? NULL : s->presets.item[i], curves, table);
    if (!status && b->table)
        table_print(table);
    table_destroy(&table);
    free(curves);
    return status;
}
