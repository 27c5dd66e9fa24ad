#include "report/bench_report.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/output.h"
#include "report/bench_charts.h"

const struct bench_phase bench_phases[N_PHASES] = {
    {"decode", "Decode", "One token after another, as text is generated."},
    {"prefill", "Prefill", "Reading a prompt, up to the logits of its last token."},
    {"forward", "Forward", "Logits of every position, as for evaluation."},
    {"mixed", "Decode at different positions", "One token of each sequence of a batch."},
    {"train", "Training", "A whole step: forward, backward, clipping, AdamW."},
    {"op", "Operators", "Single operators at the shapes of the presets."}};

void bench_row_name(const struct result_row *row, char what[2][96])
{
    snprintf(what[0], sizeof what[0], "%.90s", row->op);
    snprintf(what[1], sizeof what[1], "%.70s %.16s", row->case_name, row->dtype);
}

const char *bench_figure(double value, char *out, size_t size)
{
    if (!isfinite(value))
        snprintf(out, size, "\xe2\x80\x93");
    else if (fabs(value) >= 1000 && fabs(value) < 1e15)
        output_grouped((int64_t)llround(value), out, size);
    else
        snprintf(out, size, "%.3g", value);
    return out;
}

/* ---- what must be known first ---------------------------------------------------------------- */

struct notes {
    char *text[48];
    int n;
};

__attribute__((format(printf, 2, 3))) static void note(struct notes *notes, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (notes->n < (int)(sizeof notes->text / sizeof notes->text[0]) &&
        vasprintf(&notes->text[notes->n], format, args) >= 0)
        notes->n++;
    va_end(args);
}

static void note_rows(struct notes *notes, const struct result *result)
{
    const json_t *given = json_object_get(json_object_get(result->root, "host"), "notes");
    int unstable = 0, wrong = 0, fallen = 0;
    bool said = false;
    json_t *one;
    size_t k;
    json_array_foreach(given, k, one) said = said || strstr(json_string_value(one), "unstable");
    for (int i = 0; i < result->n; i++) {
        const json_t *run = result->rows[i].json;
        unstable += result->rows[i].unstable;
        wrong += json_is_false(json_object_get(json_object_get(run, "parity"), "pass"));
        fallen += json_array_size(json_object_get(run, "fallback_ops")) > 0;
    }
    if (wrong)
        note(notes,
             "%d of %d rows do NOT compute what the CPU computes; their speed means nothing.",
             wrong, result->n);
    if (unstable && !said)
        note(notes,
             "%d of %d rows are unstable: the machine was disturbed, and their medians may "
             "be off by more than their intervals say.",
             unstable, result->n);
    if (fallen)
        note(notes, "In %d of %d rows some ops ran on the CPU instead of the device.", fallen,
             result->n);
}

static void note_devices(struct notes *notes, const struct result *result)
{
    const json_t *peaks = json_object_get(json_object_get(result->root, "host"), "peaks");
    json_t *peak;
    size_t i;
    json_array_foreach(peaks, i, peak)
    {
        if (strcmp(results_text(peak, "type"), "software") != 0)
            continue;
        note(notes, "%.60s (%.100s) is no hardware: its driver runs on the CPU.",
             results_text(peak, "device"), results_text(peak, "name"));
    }
}

static void put_notes(struct report *report, const struct result *result)
{
    const json_t *host = json_object_get(result->root, "host");
    json_t *given;
    size_t i;
    struct notes notes = {.n = 0};
    note_rows(&notes, result);
    note_devices(&notes, result);
    json_array_foreach(json_object_get(host, "notes"), i, given)
        note(&notes, "%s", json_string_value(given));
    report_notes(report, "Read this first", (const char *const *)notes.text, notes.n);
    for (int k = 0; k < notes.n; k++)
        free(notes.text[k]);
}

/* ---- summary --------------------------------------------------------------------------------- */

/* The fastest row of a model in a phase; NULL where another row of the same has been before it. */
static const struct result_row *fastest(const struct result *result, int first)
{
    const struct result_row *row = &result->rows[first], *best = row;
    for (int i = 0; i < result->n; i++) {
        const struct result_row *other = &result->rows[i];
        if (strcmp(other->op, row->op) != 0 || strcmp(other->phase, row->phase) != 0)
            continue;
        if (i < first)
            return NULL;
        if (other->tokens_per_second > best->tokens_per_second)
            best = other;
    }
    return best;
}

static void put_card(struct report *report, const struct result_row *row)
{
    char value[64], device[96], text[512], low[64], high[64];
    double share = results_number(row->json, "peak_share");
    double joules = results_number(row->json, "energy.joules_per_token");
    snprintf(text, sizeof text, "%.64s %.16s, %.64s %.16s on %.64s", row->op, row->phase,
             row->case_name, row->dtype, result_device(row, device, sizeof device));
    size_t used = strlen(text);
    if (row->has_interval)
        snprintf(text + used, sizeof text - used, "; %s to %s%s",
                 bench_figure(row->tokens_per_second * row->p50 / row->high, low, sizeof low),
                 bench_figure(row->tokens_per_second * row->p50 / row->low, high, sizeof high),
                 row->unstable ? ", unstable" : "");
    used = strlen(text);
    if (isfinite(share)) /* of hundreds of digits in a file that is forged */
        snprintf(text + used, sizeof text - used, "; %.0f%% of the measured peak", 100 * share);
    used = strlen(text);
    if (isfinite(joules))
        snprintf(text + used, sizeof text - used, "; %.3g mJ a token%s", 1e3 * joules,
                 json_is_true(json_object_get(json_object_get(row->json, "energy"), "measured"))
                     ? ""
                     : " (estimated)");
    report_card(report, bench_figure(row->tokens_per_second, value, sizeof value), "tokens/s",
                text);
}

static void put_summary(struct report *report, const struct result *result)
{
    enum { MAX_CARDS = 12 };
    static const char *const phases[] = {"decode", "prefill", "train"};
    int cards = 0;
    report_heading(report, "Summary");
    report_paragraph(report, "The fastest configuration of each model, in tokens per second: "
                             "medians, and the 95%% confidence interval of the median.");
    report_cards_begin(report);
    for (size_t p = 0; p < sizeof phases / sizeof phases[0]; p++)
        for (int i = 0; i < result->n && cards < MAX_CARDS; i++) {
            const struct result_row *row = &result->rows[i];
            if (strcmp(row->phase, phases[p]) != 0 || !(row->tokens_per_second > 0))
                continue;
            row = fastest(result, i);
            if (row) {
                put_card(report, row);
                cards++;
            }
        }
    report_cards_end(report);
}

/* ---- environment ----------------------------------------------------------------------------- */

static void put_pair(struct report *report, const char *name, const char *value)
{
    if (!*value)
        return;
    report_row(report, -1);
    report_word(report, 0, name);
    report_word(report, 0, value);
}

/* "before 2100, after 2080, at most 3400 MHz" */
static void put_change(struct report *report, const char *name, const json_t *change,
                       const char *unit)
{
    static const char *const keys[] = {"before", "after", "max"};
    static const char *const words[] = {"before ", "after ", "at most "};
    char text[160] = "";
    for (size_t i = 0; i < 3; i++) {
        double value = results_number(change, keys[i]);
        size_t used = strlen(text);
        if (isfinite(value))
            snprintf(text + used, sizeof text - used, "%s%s%.4g", used ? ", " : "", words[i],
                     value);
    }
    size_t used = strlen(text);
    if (used)
        snprintf(text + used, sizeof text - used, " %s", unit);
    put_pair(report, name, text);
}

static void put_settings(struct report *report, const json_t *settings)
{
    char text[64] = "";
    double seed = results_number(settings, "seed"), seconds = results_number(settings, "seconds");
    put_pair(report, "command", results_text(settings, "command"));
    put_pair(report, "profile", results_text(settings, "profile"));
    if (isfinite(seed)) {
        snprintf(text, sizeof text, "%.0f", seed);
        put_pair(report, "seed", text);
    }
    if (isfinite(seconds)) {
        snprintf(text, sizeof text, "%g%s", seconds,
                 json_is_true(json_object_get(settings, "quick")) ? ", quick" : "");
        put_pair(report, "seconds per row", text);
    }
}

static void put_environment(struct report *report, const struct result *result)
{
    static const struct report_column columns[] = {{"", NULL, 'l'}, {"", NULL, 'w'}};
    const json_t *host = json_object_get(result->root, "host");
    char text[256];
    report_heading(report, "Environment");
    report_table_begin(report, "The machine and how it was measured", NULL, columns, 2, 0);
    put_pair(report, "processor", results_text(host, "cpu"));
    if (results_number(host, "processors") > 0) {
        snprintf(text, sizeof text, "%.0f", results_number(host, "processors"));
        put_pair(report, "processors", text);
    }
    if (results_number(host, "memory_bytes") > 0) {
        output_size((int64_t)fmin(results_number(host, "memory_bytes"), 9e18), text, sizeof text);
        put_pair(report, "memory", text);
    }
    snprintf(text, sizeof text, "%.80s %.80s %.40s", results_text(host, "system"),
             results_text(host, "release"), results_text(host, "machine"));
    put_pair(report, "system", text);
    put_pair(report, "virtual machine", results_text(host, "virtual"));
    put_pair(report, "governor", results_text(host, "governor"));
    put_change(report, "clock", json_object_get(host, "clock_mhz"), "MHz");
    put_change(report, "temperature", json_object_get(host, "temperature_c"),
               "\xc2\xb0"
               "C");
    if (isfinite(results_number(host, "throttled"))) {
        snprintf(text, sizeof text, "%.0f times", results_number(host, "throttled"));
        put_pair(report, "throttled", text);
    }
    if (isfinite(results_number(host, "load_average"))) {
        snprintf(text, sizeof text, "%.2f", results_number(host, "load_average"));
        put_pair(report, "load average before", text);
    }
    snprintf(text, sizeof text, "%.60s %.60s", results_text(host, "peer.name"),
             results_text(host, "peer.version"));
    put_pair(report, "program", result->is_peer ? text : "");
    put_pair(report, "itera", results_text(host, "itera"));
    put_pair(report, "date", results_text(host, "date"));
    put_settings(report, json_object_get(result->root, "settings"));
    report_table_end(report);
}

static void put_peaks(struct report *report, const struct result *result)
{
    static const struct report_column columns[] = {{"device", NULL, 'l'},
                                                   {"name", NULL, 'w'},
                                                   {"driver", NULL, 'w'},
                                                   {"threads", "threads", 'r'},
                                                   {"f32 GFLOP/s", "gflops", 'r'},
                                                   {"f16 GFLOP/s", "f16_gflops", 'r'},
                                                   {"int8 GOP/s", "int8_gops", 'r'},
                                                   {"copy GB/s", "copy_gbytes_per_s", 'r'},
                                                   {"read, smallest", "read.0.gbytes_per_s", 'r'},
                                                   {"middle", "read.1.gbytes_per_s", 'r'},
                                                   {"memory GB/s", "read.2.gbytes_per_s", 'r'}};
    enum { COLUMNS = sizeof columns / sizeof columns[0], FIRST = 3 };
    const json_t *peaks = json_object_get(json_object_get(result->root, "host"), "peaks");
    json_t *peak;
    size_t i;
    if (!json_array_size(peaks))
        return;
    report_heading(report, "Peaks");
    report_table_begin(report,
                       "What each device reached in the same run, and what \"of peak\" refers to: "
                       "f32 matmul, f16 and int8 arithmetic, copying (read plus written), and "
                       "reading working sets of three sizes",
                       "host.peaks", columns, COLUMNS, (int)json_array_size(peaks));
    json_array_foreach(peaks, i, peak)
    {
        report_row(report, (int)i);
        report_word(report, 0, results_text(peak, "device"));
        report_word(report, 0, results_text(peak, "name"));
        report_word(report, 0, results_text(peak, "driver"));
        for (int k = FIRST; k < COLUMNS; k++)
            report_number(report, results_number(peak, columns[k].key), 4);
    }
    report_table_end(report);
}

/* ---- phases ---------------------------------------------------------------------------------- */

enum { SPEED_TEXTS = 4, SPEED_NUMBERS = 13, SPEED_COLUMNS = 17 };
static const struct report_column speed_columns[SPEED_COLUMNS] = {
    {"what", NULL, 'l'},
    {"case", NULL, 'l'},
    {"type", NULL, 'l'},
    {"device", NULL, 'l'},
    {"tokens/s", "tokens_per_second", 'r'},
    {"p50 ms", "latency_ms.p50", 'r'},
    {"low", "latency_ms.low", 'r'},
    {"high", "latency_ms.high", 'r'},
    {"p95", "latency_ms.p95", 'r'},
    {"p99", "latency_ms.p99", 'r'},
    {"device ms", "device_ms.p50", 'r'},
    {"GFLOP/s", "gflops", 'r'},
    {"GB/s", "gbytes_per_s", 'r'},
    {"of peak", NULL, 'r'},
    {"bound", NULL, 'l'},
    {"beside", NULL, 'l'},
    {"stable", NULL, 'w'}};

/* A cell of a column that holds text. */
static void speed_text(const struct result_row *row, int column, char *out, size_t size)
{
    const json_t *run = row->json;
    const char *because = results_text(run, "unstable_because");
    const char *const names[SPEED_TEXTS] = {row->op, row->case_name, row->dtype};
    double share = results_number(run, "peak_share");
    double speedup = results_number(run, "peer.speedup");
    *out = 0;
    if (column == 3)
        result_device(row, out, size);
    else if (column < SPEED_TEXTS)
        snprintf(out, size, "%s", names[column]);
    else if (column == SPEED_NUMBERS && isfinite(share))
        snprintf(out, size, "%.0f%%", 100 * share);
    else if (column == SPEED_NUMBERS + 1)
        snprintf(out, size, "%s", results_text(run, "bound"));
    else if (column == SPEED_NUMBERS + 2 && isfinite(speedup))
        snprintf(out, size, "%.2fx %s", speedup, results_text(run, "peer.name"));
    else if (column == SPEED_NUMBERS + 3 && row->unstable)
        snprintf(out, size, "no: %s", *because ? because : "no reason given");
    else if (column == SPEED_NUMBERS + 3 && json_is_true(json_object_get(run, "stable")))
        snprintf(out, size, "yes");
}

/* Whether a column has anything in any row of the phase: of those that many files leave empty. */
static bool column_used(const struct result *result, const char *phase, int column)
{
    char text[1280];
    /* Tokens per second mean nothing for an op. */
    if (speed_columns[column].key && !strcmp(speed_columns[column].key, "tokens_per_second") &&
        !strcmp(phase, "op"))
        return false;
    for (int i = 0; i < result->n; i++) {
        const struct result_row *row = &result->rows[i];
        if (strcmp(row->phase, phase) != 0)
            continue;
        if (speed_columns[column].key) {
            if (isfinite(results_number(row->json, speed_columns[column].key)))
                return true;
            continue;
        }
        speed_text(row, column, text, sizeof text);
        if (*text)
            return true;
    }
    return false;
}

static void put_speed_table(struct report *report, const struct result *result, const char *phase,
                            const char *caption, int rows)
{
    struct report_column columns[SPEED_COLUMNS];
    int place[SPEED_COLUMNS], n = 0;
    for (int k = 0; k < SPEED_COLUMNS; k++)
        if (column_used(result, phase, k)) {
            place[n] = k;
            columns[n++] = speed_columns[k];
        }
    report_table_begin(report, caption, "runs", columns, n, rows);
    for (int i = 0; i < result->n; i++) {
        const struct result_row *row = &result->rows[i];
        char text[1280];
        if (strcmp(row->phase, phase) != 0)
            continue;
        report_row(report, i);
        for (int k = 0; k < n; k++) {
            if (columns[k].key) {
                report_number(report, results_number(row->json, columns[k].key), 4);
                continue;
            }
            speed_text(row, place[k], text, sizeof text);
            report_word(report, place[k] == SPEED_COLUMNS - 1 && row->unstable ? -1 : 0, text);
        }
    }
    report_table_end(report);
}

/* The bars of a phase: tokens per second, or milliseconds. Freed by the caller. */
static struct bar *phase_bars(const struct result *result, const char *phase, bool rate, int *n)
{
    struct bar *bars = calloc((size_t)result->n + 1, sizeof *bars);
    *n = 0;
    for (int i = 0; i < result->n && bars; i++) {
        const struct result_row *row = &result->rows[i];
        struct bar *bar = &bars[*n];
        if (strcmp(row->phase, phase) != 0 || (rate && !(row->tokens_per_second > 0)))
            continue;
        const double tokens = row->tokens_per_second * row->p50;
        bench_row_name(row, bar->what);
        result_device(row, bar->set, sizeof bar->set);
        bar->value = rate ? row->tokens_per_second : row->p50;
        bar->low = rate ? tokens / row->high : row->low;
        bar->high = rate ? tokens / row->low : row->high;
        (*n)++;
    }
    return bars;
}

static void put_phase(struct report *report, const struct result *result,
                      const struct bench_phase *phase)
{
    static const char limit[] = "; the first 60 of them, the table has all";
    const bool rate = strcmp(phase->name, "op") != 0;
    char caption[256];
    int n;
    struct bar *bars = phase_bars(result, phase->name, false, &n);
    const int rows = n;
    if (!bars || !n) {
        free(bars);
        return;
    }
    report_heading(report, phase->title);
    report_paragraph(report, "%s", phase->what);
    if (rate) {
        struct bar *rates = phase_bars(result, phase->name, true, &n);
        snprintf(caption, sizeof caption,
                 "%s: tokens per second, more is better; whiskers are 95%% intervals, for unstable "
                 "rows the best to the 95th percentile%s",
                 phase->title, n > MAX_BARS ? limit : "");
        if (rates)
            report_chart(report, caption, chart_bars(rates, n, "tokens per second", false));
        free(rates);
    }
    snprintf(caption, sizeof caption,
             "%s: milliseconds, less is better; medians with the same whiskers%s", phase->title,
             rows > MAX_BARS ? limit : "");
    report_chart(report, caption, chart_bars(bars, rows, "ms", false));
    free(bars);
    snprintf(caption, sizeof caption,
             "%s: latencies in milliseconds; low and high bound the median "
             "with 95%% confidence",
             phase->title);
    put_speed_table(report, result, phase->name, caption, rows);
}

/* ---- the report ------------------------------------------------------------------------------ */

static void put_method(struct report *report)
{
    report_heading(report, "How to read this");
    report_paragraph(report, "Times are medians of runs of one piece of work after a warm-up; the "
                             "configurations that are "
                             "compared take turns, so that a machine that slows down slows all of "
                             "them. \"Of peak\" is the "
                             "time that the measured peaks would allow over the median. A row is "
                             "unstable where its runs "
                             "show that the machine was disturbed; its table says how. Energy is "
                             "what a sensor measured; "
                             "estimates are marked, and without either there is no figure.");
}

static void put_single(struct report *report, const struct result *result, const json_t *ledger)
{
    bool models = false;
    for (int i = 0; i < result->n; i++)
        models = models || strcmp(result->rows[i].phase, "op") != 0;
    put_notes(report, result);
    if (models)
        put_summary(report, result);
    put_environment(report, result);
    for (int p = 0; p < N_PHASES; p++)
        put_phase(report, result, &bench_phases[p]);
    bench_section_roofline(report, result);
    bench_section_breakdown(report, result);
    bench_section_sweeps(report, result, 1);
    bench_section_energy(report, result);
    bench_section_accuracy(report, result);
    bench_section_quality(report, ledger);
    put_peaks(report, result);
    put_method(report);
}

int bench_report_files(const json_t *const *results, const char *const *names, int n,
                       const json_t *ledger, double threshold, const char *file)
{
    struct comparison c;
    char subtitle[512];
    if (compare_open(results, n > 1 ? names : NULL, n, threshold, &c) != EXIT_OK)
        return EXIT_FAILED;
    const json_t *host = json_object_get(results[0], "host");
    if (n == 1)
        snprintf(subtitle, sizeof subtitle, "%.200s, %.95s", results_text(host, "cpu"),
                 c.results[0].label);
    else
        snprintf(subtitle, sizeof subtitle, "%d result files; the baseline is %.96s", n,
                 c.results[0].label);
    struct report *report =
        report_create(n == 1 ? "itera benchmark" : "itera benchmarks compared", subtitle);
    if (n == 1) {
        put_single(report, &c.results[0], ledger);
        report_heading(report, "Data");
        report_embed(report, "results", "results.json", results[0]);
    } else {
        bench_section_comparison(report, &c);
        bench_section_sweeps(report, c.results, n);
        bench_section_quality(report, ledger);
        report_heading(report, "Data");
        json_t *root = compare_json(&c);
        report_embed(report, "results", "comparison.json", root);
        json_decref(root);
    }
    int code = report_write(report, file);
    report_destroy(&report);
    compare_close(&c);
    return code;
}

int bench_report_html(const json_t *const *results, int n, const char *file)
{
    return bench_report_files(results, NULL, n, NULL, 0.05, file);
}

json_t *ledger_load(const char *file)
{
    json_t *root = results_json(file);
    if (root && !json_array_size(json_object_get(root, "models"))) {
        command_error("%s: no JSON of itera ledger: it has no \"models\"", file);
        json_decref(root);
        root = NULL;
    }
    return root;
}
