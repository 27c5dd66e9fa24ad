/* Sections of the reports on benchmark results. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/device_request.h"
#include "cli/output.h"
#include "report/bench_charts.h"
#include "report/bench_report.h"

/* What a row is about, in one cell. */
static void put_row_name(struct report *report, const struct result_row *row)
{
    char device[96];
    report_cell(report, "%s %s", row->op, row->phase);
    report_cell(report, "%s %s", row->case_name, row->dtype);
    report_word(report, 0, result_device(row, device, sizeof device));
}

/* ---- roofline -------------------------------------------------------------------------------- */

void bench_section_roofline(struct report *report, const struct result *result)
{
    json_t *chart = chart_roofline(result);
    static const struct report_column columns[] = {{"what", NULL, 'l'},
                                                   {"case", NULL, 'l'},
                                                   {"device", NULL, 'l'},
                                                   {"FLOP per byte", NULL, 'r'},
                                                   {"GFLOP/s", "gflops", 'r'},
                                                   {"GB/s", "gbytes_per_s", 'r'},
                                                   {"of peak", "peak_share", 'r'},
                                                   {"bound", NULL, 'l'}};
    if (!chart)
        return;
    report_heading(report, "Roofline");
    report_chart(report,
                 "What each row reaches against what its device allows. Solid: f32 matmul and "
                 "reading from memory; dashed: from caches. Circles decode, squares prefill and "
                 "forward, diamonds train, triangles single ops",
                 chart);
    report_table_begin(report, "Work by intensity: operations per byte that must be moved", "runs",
                       columns, sizeof columns / sizeof columns[0], result->n);
    for (int i = 0; i < result->n; i++) {
        const json_t *run = result->rows[i].json;
        double flops = results_number(run, "gflops"), bytes = results_number(run, "gbytes_per_s");
        if (!(flops > 0) || !(bytes > 0))
            continue;
        report_row(report, i);
        put_row_name(report, &result->rows[i]);
        report_cell(report, "%.3g", flops / bytes);
        report_number(report, flops, 4);
        report_number(report, bytes, 4);
        report_number(report, results_number(run, "peak_share"), 3);
        report_word(report, 0, results_text(run, "bound"));
    }
    report_table_end(report);
}

/* ---- breakdown ------------------------------------------------------------------------------- */

static double breakdown_total(const json_t *parts)
{
    json_t *part;
    size_t i;
    double sum = 0;
    json_array_foreach(parts, i, part) sum += fmax(results_number(part, "ms"), 0);
    return sum;
}

static void put_parts(struct report *report, const struct result *result, int row,
                      const json_t *parts)
{
    static const struct report_column columns[] = {{"part", NULL, 'l'},     {"ops", "ops", 'r'},
                                                   {"ms", "ms", 'r'},       {"share", "share", 'r'},
                                                   {"GFLOP", "gflop", 'r'}, {"MB", "mbytes", 'r'},
                                                   {"J", "joules", 'r'}};
    enum { COLUMNS = sizeof columns / sizeof columns[0] };
    const struct result_row *r = &result->rows[row];
    char caption[400], list[48], device[96];
    json_t *part;
    size_t i;
    snprintf(caption, sizeof caption, "%.64s %.16s, %.64s %.16s on %.64s, each op timed apart",
             r->op, r->phase, r->case_name, r->dtype, result_device(r, device, sizeof device));
    snprintf(list, sizeof list, "runs.%d.breakdown", row);
    report_table_begin(report, caption, list, columns, COLUMNS, 0);
    json_array_foreach(parts, i, part)
    {
        report_row(report, (int)i);
        report_word(report, 0, results_text(part, "part"));
        for (int k = 1; k < COLUMNS; k++)
            report_number(report, results_number(part, columns[k].key), 3);
    }
    report_table_end(report);
}

void bench_section_breakdown(struct report *report, const struct result *result)
{
    int n = 0, used = 0;
    for (int i = 0; i < result->n; i++)
        n += (int)json_array_size(json_object_get(result->rows[i].json, "breakdown"));
    if (!n)
        return;
    struct bar *bars = calloc((size_t)n, sizeof *bars);
    for (int i = 0; i < result->n && bars; i++) {
        const struct result_row *row = &result->rows[i];
        const json_t *parts = json_object_get(row->json, "breakdown");
        double total = breakdown_total(parts);
        char device[96];
        json_t *part;
        size_t k;
        json_array_foreach(parts, k, part)
        {
            struct bar *bar = &bars[used++];
            snprintf(bar->what[0], sizeof bar->what[0], "%.60s %.16s", row->op, row->phase);
            snprintf(bar->what[1], sizeof bar->what[1], "%.30s %.16s, %.40s", row->case_name,
                     row->dtype, result_device(row, device, sizeof device));
            snprintf(bar->set, sizeof bar->set, "%.90s", results_text(part, "part"));
            bar->value = total > 0 ? 100 * results_number(part, "ms") / total : (double)NAN;
            bar->low = bar->high = (double)NAN;
        }
    }
    report_heading(report, "Where the time goes");
    if (bars)
        report_chart(report, "Share of the time by part of the model, in percent",
                     chart_bars(bars, used, "percent of the time", true));
    free(bars);
    report_columns_begin(report);
    for (int i = 0; i < result->n; i++) {
        const json_t *parts = json_object_get(result->rows[i].json, "breakdown");
        if (json_array_size(parts))
            put_parts(report, result, i, parts);
    }
    report_columns_end(report);
}

/* ---- sweeps ---------------------------------------------------------------------------------- */

static void put_sweep_table(struct report *report, const struct result *result, const char *file)
{
    static const struct report_column columns[] = {{"what", NULL, 'l'},
                                                   {"type", NULL, 'l'},
                                                   {"device", NULL, 'l'},
                                                   {"against", NULL, 'l'},
                                                   {"exponent", "exponent", 'r'},
                                                   {"low", "exponent_low", 'r'},
                                                   {"high", "exponent_high", 'r'},
                                                   {"points", NULL, 'w'}};
    enum { COLUMNS = sizeof columns / sizeof columns[0] };
    const json_t *sweeps = json_object_get(result->root, "sweeps");
    char caption[256];
    json_t *sweep, *point;
    size_t i, k;
    snprintf(
        caption, sizeof caption,
        "Fitted exponents with 95%% intervals: time grows as the variable to this power%s%.96s",
        *file ? "; " : "", file);
    report_table_begin(report, caption, "sweeps", columns, COLUMNS, (int)json_array_size(sweeps));
    json_array_foreach(sweeps, i, sweep)
    {
        char points[1024] = "", number[64], device[DEVICE_LABEL];
        json_array_foreach(json_object_get(sweep, "points"), k, point)
        {
            size_t used = strlen(points);
            snprintf(points + used, sizeof points - used, "%s%s: %.4g ms", used ? ", " : "",
                     bench_figure(results_number(point, "x"), number, sizeof number),
                     results_number(point, "ms"));
        }
        /* Of several files only the first is what the numbers' places refer to. */
        report_row(report, *file ? -1 : (int)i);
        report_cell(report, "%s %s", results_text(sweep, "op"), results_text(sweep, "phase"));
        report_word(report, 0, results_text(sweep, "dtype"));
        report_word(report, 0, results_device(sweep, device, sizeof device));
        report_word(report, 0, results_text(sweep, "variable"));
        for (int c = 4; c < 7; c++)
            report_number(report, results_number(sweep, columns[c].key), 3);
        report_word(report, 0, points);
    }
    report_table_end(report);
}

void bench_section_sweeps(struct report *report, const struct result *results, int n)
{
    static const char *const variables[] = {"length", "batch", "width"};
    size_t count = 0;
    for (int i = 0; i < n; i++)
        count += json_array_size(json_object_get(results[i].root, "sweeps"));
    if (!count)
        return;
    report_heading(report, "How cost grows");
    for (size_t v = 0; v < sizeof variables / sizeof variables[0]; v++) {
        char caption[160];
        json_t *chart = chart_sweeps(results, n, variables[v]);
        snprintf(caption, sizeof caption,
                 "Time against %s, both axes logarithmic: a straight line is a power law",
                 variables[v]);
        if (chart)
            report_chart(report, caption, chart);
    }
    for (int i = 0; i < n; i++)
        if (json_array_size(json_object_get(results[i].root, "sweeps")))
            put_sweep_table(report, &results[i], n > 1 ? results[i].label : "");
}

/* ---- energy ---------------------------------------------------------------------------------- */

static void put_energy_table(struct report *report, const struct result *result, int n)
{
    static const struct report_column columns[] = {
        {"what", NULL, 'l'},   {"case", NULL, 'l'},
        {"device", NULL, 'l'}, {"J per token", "energy.joules_per_token", 'r'},
        {"sensor", NULL, 'l'}, {"measured", NULL, 'l'}};
    report_table_begin(report, "Energy per token, by sensor", "runs", columns,
                       sizeof columns / sizeof columns[0], n);
    for (int i = 0; i < result->n; i++) {
        const json_t *run = result->rows[i].json, *energy = json_object_get(run, "energy");
        if (!json_is_object(energy))
            continue;
        const bool measured = json_is_true(json_object_get(energy, "measured"));
        report_row(report, i);
        put_row_name(report, &result->rows[i]);
        report_number(report, results_number(run, "energy.joules_per_token"), 3);
        report_word(report, 0, results_text(energy, "source"));
        report_word(report, measured ? 0 : -1, measured ? "yes" : "no, estimated");
    }
    report_table_end(report);
}

/* Why there is no figure, each reason once. */
static void put_energy_reasons(struct report *report, const struct result *result, int without)
{
    json_t *reasons = json_object();
    for (int i = 0; i < result->n; i++) {
        const char *reason = results_text(result->rows[i].json, "energy_reason");
        if (*reason)
            json_object_set_new_nocheck(reasons, reason, json_true());
    }
    if (without == result->n)
        report_paragraph(report, "No energy was measured: no row has a figure.");
    else
        report_paragraph(report, "%d of %d rows have no figure.", without, result->n);
    const char *reason;
    json_t *unused;
    json_object_foreach(reasons, reason, unused) report_paragraph(report, "Why: %s", reason);
    json_decref(reasons);
}

void bench_section_energy(struct report *report, const struct result *result)
{
    struct bar *bars = calloc((size_t)result->n + 1, sizeof *bars);
    int n = 0;
    bool estimated = false;
    for (int i = 0; i < result->n && bars; i++) {
        const struct result_row *row = &result->rows[i];
        double joules = results_number(row->json, "energy.joules_per_token");
        if (!isfinite(joules))
            continue;
        struct bar *bar = &bars[n++];
        bench_row_name(row, bar->what);
        snprintf(bar->what[0], sizeof bar->what[0], "%.60s %.16s", row->op, row->phase);
        result_device(row, bar->set, sizeof bar->set);
        bar->value = 1e3 * joules;
        bar->low = bar->high = (double)NAN;
        estimated = estimated || json_is_false(json_object_get(json_object_get(row->json, "energy"),
                                                               "measured"));
    }
    report_heading(report, "Energy");
    if (n) {
        report_chart(report,
                     estimated ? "Millijoules per token, less is better. Figures that no sensor "
                                 "measured are estimates, marked in the table"
                               : "Millijoules per token, less is better",
                     chart_bars(bars, n, "mJ per token", false));
        put_energy_table(report, result, n);
    }
    if (n < result->n)
        put_energy_reasons(report, result, result->n - n);
    free(bars);
}

/* ---- memory, accuracy, experts --------------------------------------------------------------- */

static void put_fallback(struct report *report, const json_t *run)
{
    char text[512] = "";
    json_t *op;
    size_t i;
    json_array_foreach(json_object_get(run, "fallback_ops"), i, op)
    {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%s", used ? ", " : "", json_string_value(op));
    }
    report_word(report, *text ? -1 : 0, text);
}

void bench_section_accuracy(struct report *report, const struct result *result)
{
    static const struct report_column columns[] = {{"what", NULL, 'l'},
                                                   {"case", NULL, 'l'},
                                                   {"device", NULL, 'l'},
                                                   {"NMSE", "parity.nmse", 'r'},
                                                   {"limit", "parity.limit", 'r'},
                                                   {"largest error", "parity.max_abs", 'r'},
                                                   {"agrees", NULL, 'l'},
                                                   {"program bytes", "memory_bytes", 'r'},
                                                   {"peak bytes", "peak_memory_bytes", 'r'},
                                                   {"imbalance", "expert_load.imbalance", 'r'},
                                                   {"on the CPU instead", NULL, 'w'}};
    report_heading(report, "Accuracy, memory, experts");
    report_paragraph(report,
                     "Each configuration's outputs against the CPU's reference; memory; and "
                     "how evenly tokens are spread over experts (the busiest one's tokens "
                     "over the mean, in the worst layer: 1 is even).");
    report_table_begin(report, "Parity error, memory and expert load", "runs", columns,
                       sizeof columns / sizeof columns[0], result->n);
    for (int i = 0; i < result->n; i++) {
        const json_t *run = result->rows[i].json;
        const json_t *pass = json_object_get(json_object_get(run, "parity"), "pass");
        report_row(report, i);
        put_row_name(report, &result->rows[i]);
        for (int k = 3; k < 6; k++)
            report_number(report, results_number(run, columns[k].key), 3);
        report_word(report, json_is_false(pass) ? -1 : json_is_true(pass),
                    json_is_false(pass)  ? "NO"
                    : json_is_true(pass) ? "yes"
                                         : "");
        for (int k = 7; k < 10; k++)
            report_number(report, results_number(run, columns[k].key), 3);
        put_fallback(report, run);
    }
    report_table_end(report);
}

/* ---- quality --------------------------------------------------------------------------------- */

void bench_section_quality(struct report *report, const json_t *ledger)
{
    static const struct report_column columns[] = {{"model", NULL, 'l'},
                                                   {"bytes on disk", NULL, 'r'},
                                                   {"parameters", NULL, 'r'},
                                                   {"bits per byte", NULL, 'r'},
                                                   {"perplexity per word", NULL, 'r'}};
    static const char *const keys[] = {"bytes_on_disk", "parameters", "bits_per_byte",
                                       "word_perplexity"};
    json_t *models = json_object_get(ledger, "models"), *model, *chart = chart_quality(ledger);
    size_t i;
    if (!chart)
        return;
    report_heading(report, "Quality against size");
    report_chart(report, "Each model of the ledger a point; lower left is better", chart);
    report_table_begin(report, "The models of the ledger", NULL, columns,
                       sizeof columns / sizeof columns[0], (int)json_array_size(models));
    json_array_foreach(models, i, model)
    {
        report_row(report, -1);
        report_word(report, 0, results_text(model, "model"));
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++)
            report_number(report, results_number(model, keys[k]), 4);
    }
    report_table_end(report);
}
