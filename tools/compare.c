/* itera compare: result files of itera bench side by side. */
#include "compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_report.h"
#include "command.h"
#include "options.h"
#include "output.h"

enum { MAX_FILES = 64 };
#define DEFAULT_THRESHOLD 5 /* percent */

/* ---- judging --------------------------------------------------------------------------------- */

static bool parity_broke(const struct result_row *base, const struct result_row *row)
{
    const json_t *was = json_object_get(json_object_get(base->json, "parity"), "pass");
    const json_t *is = json_object_get(json_object_get(row->json, "parity"), "pass");
    return json_is_true(was) && json_is_false(is);
}

struct judgement compare_judge(const struct comparison *c, int i, int file)
{
    const struct result_row *const *rows = &c->rows.row[i * c->n];
    const struct result_row *base = rows[0], *row = rows[file];
    struct judgement j = {(double)NAN, (double)NAN, (double)NAN, VERDICT_BASE};
    if (!file || !base || !row)
        return j;
    j.ratio = base->p50 / row->p50;
    j.low = base->low / row->high;
    j.high = base->high / row->low;
    const bool peer = c->results[0].is_peer || c->results[file].is_peer;
    if (parity_broke(base, row))
        j.verdict = VERDICT_PARITY;
    else if (isnan(j.low) || isnan(j.high))
        j.verdict = VERDICT_UNKNOWN;
    else if (j.high < 1 && j.ratio < 1 / (1 + c->threshold))
        j.verdict = peer ? VERDICT_SLOWER : VERDICT_REGRESSION;
    else if (j.low > 1 && j.ratio > 1 + c->threshold)
        j.verdict = VERDICT_FASTER;
    else
        j.verdict = VERDICT_SAME;
    return j;
}

const char *compare_verdict(enum verdict verdict)
{
    static const char *const names[COMPARE_VERDICTS] = {
        "", "same", "faster", "regression", "slower", "not judged", "parity broken"};
    return names[verdict];
}

int compare_open(const json_t *const *results, const char *const *names, int n, double threshold,
                 struct comparison *c)
{
    *c = (struct comparison){.n = n, .threshold = threshold};
    c->results = result_rows(results, names, n);
    if (!c->results || !result_align(c->results, n, &c->rows)) {
        compare_close(c);
        return EXIT_FAILED;
    }
    for (int i = 0; i < c->rows.n; i++)
        for (int file = 1; file < n; file++)
            c->count[compare_judge(c, i, file).verdict]++;
    return EXIT_OK;
}

void compare_close(struct comparison *c)
{
    free(c->rows.row);
    c->rows.row = NULL;
    result_free(&c->results, c->n);
}

bool compare_regressed(const struct comparison *c)
{
    return c->count[VERDICT_REGRESSION] + c->count[VERDICT_PARITY] > 0;
}

void compare_summary(const struct comparison *c, char *out, size_t size)
{
    const int slower = c->count[VERDICT_REGRESSION] + c->count[VERDICT_SLOWER];
    int used =
        snprintf(out, size, "Beyond noise and %g%%: %d slower, %d faster; %d the same",
                 100 * c->threshold, slower, c->count[VERDICT_FASTER], c->count[VERDICT_SAME]);
    if (c->count[VERDICT_UNKNOWN] && used < (int)size)
        used += snprintf(out + used, size - (size_t)used, ", %d without intervals",
                         c->count[VERDICT_UNKNOWN]);
    if (c->count[VERDICT_PARITY] && used < (int)size)
        used +=
            snprintf(out + used, size - (size_t)used,
                     "; %d no longer compute what the reference does", c->count[VERDICT_PARITY]);
    if (used < (int)size)
        snprintf(out + used, size - (size_t)used, ".");
}

/* ---- text ------------------------------------------------------------------------------------ */

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

static void print_comparison(const struct comparison *c)
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
    if (!same_machine(c))
        printf("The files are from different processors, so that they say more about these than "
               "about versions.\n");
}

/* ---- the command ----------------------------------------------------------------------------- */

int compare_results(const json_t *baseline, const json_t *result, bool print, bool *regressed)
{
    const json_t *const results[] = {baseline, result};
    struct comparison c;
    *regressed = false;
    if (compare_open(results, NULL, 2, DEFAULT_THRESHOLD / 100.0, &c) != EXIT_OK)
        return EXIT_FAILED;
    /* Two runs of one version on one day have the same label otherwise. */
    snprintf(c.results[0].label, sizeof c.results[0].label, "baseline");
    snprintf(c.results[1].label, sizeof c.results[1].label, "now");
    if (print)
        print_comparison(&c);
    *regressed = compare_regressed(&c);
    compare_close(&c);
    return EXIT_OK;
}

struct settings {
    const char *html, *csv, *ledger;
    struct option_optional json, markdown;
    double threshold;
    bool check, no_fail;
};

static int write_outputs(const struct comparison *c, const json_t *const *results,
                         const char *const *names, const json_t *ledger, const struct settings *s)
{
    const bool json_on_stdout = s->json.given && (!s->json.value || !strcmp(s->json.value, "-"));
    int code = EXIT_OK;
    if (!json_on_stdout && !s->markdown.given)
        print_comparison(c);
    if (s->html)
        code = bench_report_files(results, names, c->n, ledger, c->threshold, s->html);
    if (code == EXIT_OK && s->csv)
        code = compare_csv(c, s->csv);
    if (code == EXIT_OK && s->json.given) {
        json_t *root = compare_json(c);
        code = output_json(root, s->json.value);
        json_decref(root);
    }
    return code == EXIT_OK && compare_regressed(c) && !s->no_fail ? EXIT_FAILED : code;
}

static int run(const char *const *names, int n, const struct settings *s)
{
    json_t *results[MAX_FILES] = {NULL}, *ledger = NULL;
    struct comparison c = {0};
    int code = EXIT_OK;
    for (int i = 0; i < n; i++) {
        results[i] = results_load(names[i]);
        if (!results[i])
            code = EXIT_FAILED;
        else if (s->check)
            printf("%s: %zu rows\n", names[i],
                   json_array_size(json_object_get(results[i], "runs")));
    }
    if (code == EXIT_OK && s->ledger && !(ledger = ledger_load(s->ledger)))
        code = EXIT_FAILED;
    const json_t *const *checked = (const json_t *const *)results;
    if (code == EXIT_OK && s->markdown.given)
        code = gallery_markdown(checked, names, n, s->markdown.value);
    const bool compares = !s->markdown.given || s->html || s->csv || s->json.given;
    if (code == EXIT_OK && compares && !s->check) {
        code = compare_open(checked, names, n, s->threshold / 100, &c);
        if (code == EXIT_OK)
            code = write_outputs(&c, checked, names, ledger, s);
        compare_close(&c);
    }
    for (int i = 0; i < n; i++)
        json_decref(results[i]);
    json_decref(ledger);
    return code;
}

static int check_outputs(const struct settings *s)
{
    int code = output_json_check(s->json.value);
    if (code == EXIT_OK && s->html)
        code = output_file_check(s->html, "the report");
    if (code == EXIT_OK && s->csv)
        code = output_file_check(s->csv, "CSV");
    if (code == EXIT_OK && s->markdown.value && strcmp(s->markdown.value, "-") != 0)
        code = output_file_check(s->markdown.value, "Markdown");
    return code;
}

static const char NOTES[] =
    "Rows of different files belong together when model or op, phase, case, type, kind of device "
    "and\nthreads are equal. speed: the baseline's median over this one's, above 1 is faster. "
    "range: "
    "from the\nends of both 95% intervals (two of them make at least 90%). A row that is unstable "
    "(!) or has no\ninterval is judged by its best time and its 95th percentile instead, which are "
    "wider.\n\nA regression is a row whose interval lies beyond the baseline's and whose median is "
    "slower by more\nthan the threshold, or that no longer computes what the reference does. Other "
    "programs' files (of\nbench/peers) have no regressions: they stand beside.\n\nExit status: 0 "
    "no "
    "regression, 1 a regression or an error, 2 wrong usage.\n\nExample: itera compare before.json "
    "after.json --html compare.html";

int itera_command_compare(int argc, char **argv)
{
    struct settings s = {.threshold = DEFAULT_THRESHOLD};
    const struct command_option options[] = {
        {"threshold", 0, OPTION_NUMBER, &s.threshold, "PCT",
         "slower by less than this is no regression (default: 5)", 0, 1000},
        {"no-fail", 0, OPTION_FLAG, &s.no_fail, NULL, "exit with 0 even after a regression"},
        {"html", 0, OPTION_OUTPUT, &s.html, "FILE",
         "write a report: of the comparison, or of a single file"},
        {"ledger", 0, OPTION_INPUT, &s.ledger, "FILE",
         "put the plot of quality against size into the report,\nfrom the JSON of itera ledger"},
        {"csv", 0, OPTION_OUTPUT, &s.csv, "FILE", "write a line per row and file as CSV"},
        {"json", 0, OPTION_OPTIONAL, &s.json, "FILE", "write JSON to FILE, or to stdout"},
        {"markdown", 0, OPTION_OPTIONAL, &s.markdown, "FILE",
         "write the files as a gallery (docs/results.md), in place of\nthe table on stdout"},
        {"check", 0, OPTION_FLAG, &s.check, NULL,
         "only check that the files are what they should be"},
        {0}};
    const struct command_spec spec = {
        .name = "compare",
        .positional = "FILE...",
        .summary = "Puts result files of itera bench side by side, from any machines and versions. "
                   "The first is\nthe baseline. With a single file: its rows, its report.",
        .options = options,
        .notes = NOTES,
        .min = 1,
        .max = MAX_FILES};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    if (s.check && (s.html || s.csv || s.json.given || s.markdown.given))
        code = options_usage(&spec, "--check writes nothing: leave out what is to be written");
    else if (s.ledger && !s.html)
        code = options_usage(&spec, "--ledger is for the report: give --html FILE as well");
    else if (check_outputs(&s) != EXIT_OK)
        code = EXIT_FAILED;
    else
        code = run((const char *const *)args.positional, args.n, &s);
    options_free(&args);
    return code;
}
