/* The report on several result files. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "report/bench_charts.h"
#include "report/bench_report.h"

static void put_files(struct report *report, const struct comparison *c)
{
    static const struct report_column columns[] = {{"file", NULL, 'l'},   {"program", NULL, 'l'},
                                                   {"date", NULL, 'l'},   {"processor", NULL, 'w'},
                                                   {"system", NULL, 'w'}, {"rows", NULL, 'r'}};
    report_heading(report, "Files");
    report_table_begin(report, "What is compared; the first file is the baseline", NULL, columns,
                       sizeof columns / sizeof columns[0], c->n);
    for (int i = 0; i < c->n; i++) {
        const json_t *host = json_object_get(c->results[i].root, "host");
        const bool peer = c->results[i].is_peer;
        report_row(report, -1);
        report_word(report, 0, c->results[i].label);
        report_cell(report, "%s %s", peer ? results_text(host, "peer.name") : "itera",
                    results_text(host, peer ? "peer.version" : "itera"));
        report_word(report, 0, results_text(host, "date"));
        report_word(report, 0, results_text(host, "cpu"));
        report_cell(report, "%s %s %s", results_text(host, "system"), results_text(host, "release"),
                    results_text(host, "virtual"));
        report_cell(report, "%d", c->results[i].n);
    }
    report_table_end(report);
}

/* The notes of all files, each with the file it is from. */
static void put_notes(struct report *report, const struct comparison *c)
{
    enum { MOST = 48 };
    char *text[MOST];
    int n = 0;
    for (int i = 0; i < c->n; i++) {
        const json_t *host = json_object_get(c->results[i].root, "host");
        json_t *given;
        size_t k;
        json_array_foreach(json_object_get(host, "notes"), k, given)
        {
            if (n < MOST &&
                asprintf(&text[n], "%s: %s", c->results[i].label, json_string_value(given)) >= 0)
                n++;
        }
    }
    report_notes(report, "Read this first", (const char *const *)text, n);
    for (int i = 0; i < n; i++)
        free(text[i]);
}

static const struct result_row *first_row(const struct comparison *c, int i, int *have)
{
    const struct result_row *first = NULL;
    *have = 0;
    for (int file = c->n - 1; file >= 0; file--)
        if (c->rows.row[i * c->n + file]) {
            first = c->rows.row[i * c->n + file];
            ++*have;
        }
    return first;
}

static void name_bar(struct bar *bar, const struct result_row *row, const char *set)
{
    char device[96];
    snprintf(bar->what[0], sizeof bar->what[0], "%.60s %.16s", row->op, row->phase);
    snprintf(bar->what[1], sizeof bar->what[1], "%.30s %.16s, %.40s", row->case_name, row->dtype,
             result_device(row, device, sizeof device));
    snprintf(bar->set, sizeof bar->set, "%s", set);
}

static void put_ratios(struct report *report, const struct comparison *c)
{
    struct bar *bars = calloc((size_t)c->rows.n * (size_t)c->n + 1, sizeof *bars);
    int n = 0;
    for (int i = 0; i < c->rows.n && bars; i++)
        for (int file = 1; file < c->n; file++) {
            const struct judgement j = compare_judge(c, i, file);
            if (!isfinite(j.ratio))
                continue;
            name_bar(&bars[n], c->rows.row[i * c->n + file], c->results[file].label);
            bars[n].value = j.ratio;
            bars[n].low = j.low;
            bars[n++].high = j.high;
        }
    if (n)
        report_chart(report,
                     n > MAX_BARS
                         ? "Speed beside the baseline, above 1 is faster; whiskers are the "
                           "ranges of the ratios. The first 60, the table has all"
                         : "Speed beside the baseline, above 1 is faster; whiskers are the "
                           "ranges of the ratios",
                     chart_ratios(bars, n));
    free(bars);
}

/* A table per file beside the baseline. */
static void put_pairs(struct report *report, const struct comparison *c, int file)
{
    static const char *const names[] = {"p50_ms",    "low_ms",     "high_ms",         "speed",
                                        "speed_low", "speed_high", "joules_per_token"};
    enum { NAMES = sizeof names / sizeof names[0] };
    char key[NAMES][48], caption[320];
    for (int k = 0; k < NAMES; k++)
        snprintf(key[k], sizeof key[k], "files.%d.%s", file, names[k]);
    const struct report_column columns[] = {
        {"what", NULL, 'l'},          {"case", NULL, 'l'},
        {"device", NULL, 'l'},        {"baseline ms", "files.0.p50_ms", 'r'},
        {"p50 ms", key[0], 'r'},      {"low", key[1], 'r'},
        {"high", key[2], 'r'},        {"speed", key[3], 'r'},
        {"at least", key[4], 'r'},    {"at most", key[5], 'r'},
        {"J per token", key[6], 'r'}, {"verdict", NULL, 'l'}};
    snprintf(caption, sizeof caption,
             "%.96s beside %.96s. speed: the baseline's median over this one's; at least and at "
             "most: from the ends of both 95%% intervals",
             c->results[file].label, c->results[0].label);
    report_table_begin(report, caption, "rows", columns, sizeof columns / sizeof columns[0],
                       c->rows.n);
    for (int i = 0; i < c->rows.n; i++) {
        const struct result_row *base = c->rows.row[i * c->n], *row = c->rows.row[i * c->n + file];
        const struct judgement j = compare_judge(c, i, file);
        char device[96];
        if (!base || !row)
            continue;
        const bool bad = j.verdict == VERDICT_REGRESSION || j.verdict == VERDICT_PARITY;
        report_row(report, i);
        report_cell(report, "%s %s", row->op, row->phase);
        report_cell(report, "%s %s", row->case_name, row->dtype);
        report_word(report, 0, result_device(row, device, sizeof device));
        report_number(report, base->p50, 4);
        report_number(report, row->p50, 4);
        report_number(report, row->low, 4);
        report_number(report, row->high, 4);
        report_number(report, j.ratio, 4);
        report_number(report, j.low, 4);
        report_number(report, j.high, 4);
        report_number(report, results_number(row->json, "energy.joules_per_token"), 3);
        report_word(report, bad ? -1 : j.verdict == VERDICT_FASTER, compare_verdict(j.verdict));
    }
    report_table_end(report);
}

static void put_lonely(struct report *report, const struct comparison *c)
{
    static const struct report_column columns[] = {{"file", NULL, 'l'},
                                                   {"what", NULL, 'l'},
                                                   {"case", NULL, 'l'},
                                                   {"device", NULL, 'l'},
                                                   {"p50 ms", NULL, 'r'}};
    int n = 0, have;
    for (int i = 0; i < c->rows.n; i++) {
        first_row(c, i, &have);
        n += have == 1;
    }
    if (!n)
        return;
    report_heading(report, "In one file only");
    report_table_begin(report, "Rows that no other file has", NULL, columns, 5, n);
    for (int i = 0; i < c->rows.n; i++) {
        const struct result_row *row = first_row(c, i, &have);
        char device[96];
        if (have != 1)
            continue;
        int file = 0;
        while (!c->rows.row[i * c->n + file])
            file++;
        report_row(report, -1);
        report_word(report, 0, c->results[file].label);
        report_cell(report, "%s %s", row->op, row->phase);
        report_cell(report, "%s %s", row->case_name, row->dtype);
        report_word(report, 0, result_device(row, device, sizeof device));
        report_number(report, row->p50, 4);
    }
    report_table_end(report);
}

/* Bars of all files for what at least two of them have. */
static void put_phase(struct report *report, const struct comparison *c,
                      const struct bench_phase *phase)
{
    const bool rate = strcmp(phase->name, "op") != 0;
    struct bar *bars = calloc((size_t)c->rows.n * (size_t)c->n + 1, sizeof *bars);
    char caption[160];
    int n = 0, have;
    for (int i = 0; i < c->rows.n && bars; i++) {
        if (strcmp(first_row(c, i, &have)->phase, phase->name) != 0 || have < 2)
            continue;
        for (int file = 0; file < c->n; file++) {
            const struct result_row *row = c->rows.row[i * c->n + file];
            if (!row || (rate && !(row->tokens_per_second > 0)))
                continue;
            const double tokens = row->tokens_per_second * row->p50;
            name_bar(&bars[n], row, c->results[file].label);
            bars[n].value = rate ? row->tokens_per_second : row->p50;
            bars[n].low = rate ? tokens / row->high : row->low;
            bars[n++].high = rate ? tokens / row->low : row->high;
        }
    }
    if (n) {
        snprintf(caption, sizeof caption, "%s: %s", phase->title,
                 rate ? "tokens per second, more is better" : "milliseconds, less is better");
        report_heading(report, phase->title);
        report_chart(report, caption,
                     chart_bars(bars, n, rate ? "tokens per second" : "ms", false));
    }
    free(bars);
}

void bench_section_comparison(struct report *report, const struct comparison *c)
{
    char summary[256];
    compare_summary(c, summary, sizeof summary);
    put_notes(report, c);
    put_files(report, c);
    report_heading(report, "Speed");
    report_paragraph(report, "%s", summary);
    report_paragraph(
        report,
        "A row counts as slower or faster where the two 95%% intervals are disjoint and "
        "the medians differ by more than %g%%. Rows without an interval, and unstable "
        "ones, are judged by their best time and 95th percentile, which are wider.",
        100 * c->threshold);
    put_ratios(report, c);
    for (int file = 1; file < c->n; file++)
        put_pairs(report, c, file);
    put_lonely(report, c);
    for (int p = 0; p < N_PHASES; p++)
        put_phase(report, c, &bench_phases[p]);
}
