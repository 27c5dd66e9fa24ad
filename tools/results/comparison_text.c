/* Comparisons as text. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/output.h"
#include "results/comparison.h"

static void print_times(struct table *table, const struct result_row *row)
{
    table_cell(table, "%.4g", row->p50);
    if (row->has_interval)
        table_cell(table, "%.4g..%.4g%s", row->low, row->high, row->unstable ? " !" : "");
    else
        table_cell(table, "%s", "");
    if (row->tokens_per_second > 0 && strcmp(row->phase, "op"))
        table_cell(table, "%.4g", row->tokens_per_second);
    else
        table_cell(table, "%s", "");
}

static void print_cells(struct table *table, const struct comparison *c, int i, int file)
{
    const struct judgement j = compare_judge(c, i, file);
    print_times(table, c->rows.row[i * c->n + file]);
    if (isnan(j.ratio))
        table_cell(table, "%s", "");
    else
        table_cell(table, "%.3fx", j.ratio);
    if (isnan(j.low) || isnan(j.high))
        table_cell(table, "%s", "");
    else
        table_cell(table, "%.3f..%.3f", j.low, j.high);
    table_cell(table, "%s", compare_verdict(j.verdict));
}

static void print_name(struct table *table, const struct result_row *row)
{
    char device[64];
    table_cell(table, "%.40s", row->op);
    table_cell(table, "%s", row->phase);
    table_cell(table, "%.40s", row->case_name);
    table_cell(table, "%.12s", row->dtype);
    table_cell(table, "%.24s", result_device(row, device, sizeof device));
}

static int count_files(const struct comparison *c, int i)
{
    int have = 0;
    for (int file = 0; file < c->n; file++)
        have += c->rows.row[i * c->n + file] != NULL;
    return have;
}

/* Two files: a line per row. */
static void print_pairs(const struct comparison *c)
{
    static const char *const titles[] = {"what",     "phase",  "case",   "type",
                                         "device",   "before", "p50 ms", "95%",
                                         "tokens/s", "speed",  "range",  "verdict"};
    struct table *table = table_create(12, titles, "lllllrrrrrrl");
    for (int i = 0; i < c->rows.n; i++) {
        if (count_files(c, i) < 2)
            continue;
        print_name(table, c->rows.row[2 * i + 1]);
        table_cell(table, "%.4g", c->rows.row[2 * i]->p50);
        print_cells(table, c, i, 1);
    }
    table_print(table);
    table_destroy(&table);
}

/* One file: there is nothing to judge its rows by. */
static void print_single(const struct comparison *c)
{
    static const char *const titles[] = {"what",   "phase",  "case", "type",
                                         "device", "p50 ms", "95%",  "tokens/s"};
    struct table *table = table_create(8, titles, "lllllrrr");
    for (int i = 0; i < c->rows.n; i++) {
        print_name(table, c->rows.row[i]);
        print_times(table, c->rows.row[i]);
    }
    table_print(table);
    table_destroy(&table);
}

/* What at least two files have: a line per row and file. */
static void print_rows(const struct comparison *c)
{
    static const char *const titles[] = {"what",     "phase", "case",   "type",
                                         "device",   "file",  "p50 ms", "95%",
                                         "tokens/s", "speed", "range",  "verdict"};
    struct table *table = table_create(12, titles, "llllllrrrrrl");
    for (int i = 0; i < c->rows.n; i++) {
        bool first = true;
        if (count_files(c, i) < 2)
            continue;
        for (int file = 0; file < c->n; file++) {
            const struct result_row *row = c->rows.row[i * c->n + file];
            if (!row)
                continue;
            if (first)
                print_name(table, row);
            for (int k = 0; !first && k < 5; k++)
                table_cell(table, "%s", "");
            table_cell(table, "%.40s", c->results[file].label);
            print_cells(table, c, i, file);
            first = false;
        }
    }
    table_print(table);
    table_destroy(&table);
}

static void print_files(const struct comparison *c)
{
    static const char *const titles[] = {"file", "program", "date", "machine", "rows"};
    struct table *table = table_create(5, titles, "llllr");
    for (int i = 0; i < c->n; i++) {
        const json_t *host = json_object_get(c->results[i].root, "host");
        const bool peer = c->results[i].is_peer;
        table_cell(table, "%s%s", c->results[i].label, i || c->n < 2 ? "" : " (baseline)");
        table_cell(table, "%.60s %.40s", peer ? results_text(host, "peer.name") : "itera",
                   results_text(host, peer ? "peer.version" : "itera"));
        table_cell(table, "%.10s", results_text(host, "date"));
        table_cell(table, "%.80s", results_text(host, "cpu"));
        table_cell(table, "%d", c->results[i].n);
    }
    table_print(table);
    table_destroy(&table);
}

/* Rows of one file alone: matched by nothing, and easily overlooked. */
static void print_lonely(const struct comparison *c)
{
    for (int file = 0; file < c->n && c->n > 1; file++) {
        int count = 0;
        for (int i = 0; i < c->rows.n; i++) {
            const struct result_row *const *row = &c->rows.row[i * c->n];
            char device[64];
            if (count_files(c, i) != 1 || !row[file])
                continue;
            if (!count++)
                printf("\nOnly in %s:\n", c->results[file].label);
            printf("  %s %s %s %s %s: %.4g ms\n", row[file]->op, row[file]->phase,
                   row[file]->case_name, row[file]->dtype,
                   result_device(row[file], device, sizeof device), row[file]->p50);
        }
    }
}

static bool same_machine(const struct comparison *c)
{
    for (int i = 1; i < c->n; i++)
        if (strcmp(results_text(c->results[0].root, "host.cpu"),
                   results_text(c->results[i].root, "host.cpu")) != 0)
            return false;
    return true;
}

/* Where a device's reference rates differ between files: its rows say that of the machine first. */
static void print_paces(const struct comparison *c)
{
    json_t *said = json_object();
    for (int i = 0; i < c->rows.n; i++) {
        for (int file = 1; file < c->n; file++) {
            const struct result_row *row = c->rows.row[i * c->n + file];
            char device[64], key[80];
            double low, high;
            if (!row || !c->rows.row[i * c->n])
                continue;
            compare_pace(c, row, file, &low, &high);
            result_device(row, device, sizeof device);
            snprintf(key, sizeof key, "%d %s", file, device);
            if ((low * (1 + c->threshold) >= 1 && high <= 1 + c->threshold) ||
                json_object_get(said, key))
                continue;
            json_object_set_new(said, key, json_true());
            printf("When %s was measured, %s reached %.0f to %.0f%% of the reference rates of the "
                   "baseline: what is\nwithin that is said to be as the machine.\n",
                   c->results[file].label, device, 100 * low, 100 * high);
        }
    }
    json_decref(said);
}

void compare_print(const struct comparison *c)
{
    char summary[256];
    print_files(c);
    printf("\n");
    if (c->n < 2)
        print_single(c);
    else if (c->n == 2)
        print_pairs(c);
    else
        print_rows(c);
    print_lonely(c);
    if (c->n < 2)
        return;
    compare_summary(c, summary, sizeof summary);
    printf("\n%s\n", summary);
    print_paces(c);
    if (!same_machine(c))
        printf("The files are from different processors, so that they say more about these than "
               "about versions.\n");
}

int compare_results(const json_t *baseline, const json_t *result, bool print, bool *regressed)
{
    const json_t *const results[] = {baseline, result};
    struct comparison c;
    *regressed = false;
    if (compare_open(results, NULL, 2, COMPARE_THRESHOLD / 100.0, &c) != EXIT_OK)
        return EXIT_FAILED;
    /* Two runs of one version on one day have the same label otherwise. */
    snprintf(c.results[0].label, sizeof c.results[0].label, "baseline");
    snprintf(c.results[1].label, sizeof c.results[1].label, "now");
    if (print)
        compare_print(&c);
    *regressed = compare_regressed(&c);
    compare_close(&c);
    return EXIT_OK;
}
