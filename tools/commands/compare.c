/* itera compare: result files of itera bench side by side. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "report/bench_report.h"
#include "report/gallery.h"
#include "results/comparison.h"

enum { MAX_FILES = 64 };

struct settings {
    const char *html, *csv, *ledger;
    struct option_optional json, markdown;
    double threshold;
    bool check, no_fail;
};

static int write_outputs(const struct comparison *c, const json_t *const *results,
                         const char *const *names, const json_t *ledger, const struct settings *s)
{
    int code = EXIT_OK;
    if (!output_on_stdout(&s->json) && !s->markdown.given)
        compare_print(c);
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
    struct settings s = {.threshold = COMPARE_THRESHOLD};
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
