/* itera check: proves, op by op, that a device computes what the scalar reference does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/stop.h"
#include "commands/check_model.h"
#include "itera/check.h"

enum { MOST_TARGETS = 64 };

/* The results of one op (with one algorithm) on one target. */
struct cell {
    int pass, fail, skip;
};

struct row {
    char op[48], method[24];
    double worst, tolerance; /* NMSE */
    struct cell cell[MOST_TARGETS];
};

struct report {
    struct row *rows;
    int n_rows;
    char target[MOST_TARGETS][64]; /* "cpu avx2 x2" */
    int n_targets;
    json_t *results;
    int64_t failures, skips;
    struct table *bench;
    int64_t seed;
    bool begun;  /* a result came */
    bool failed; /* memory ran out */
};

static struct row *find_row(struct report *report, const struct itera_check_result *result)
{
    for (int i = report->n_rows - 1; i >= 0; i--)
        if (!strcmp(report->rows[i].op, result->op) &&
            !strcmp(report->rows[i].method, result->method))
            return &report->rows[i];
    struct row *grown = realloc(report->rows, ((size_t)report->n_rows + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    report->rows = grown;
    struct row *row = &grown[report->n_rows++];
    memset(row, 0, sizeof *row);
    snprintf(row->op, sizeof row->op, "%s", result->op);
    snprintf(row->method, sizeof row->method, "%s", result->method);
    return row;
}

static int find_target(struct report *report, const struct itera_check_result *result)
{
    char name[sizeof report->target[0]];
    snprintf(name, sizeof name, "%s %s", result->device, result->target);
    for (int i = 0; i < report->n_targets; i++)
        if (!strcmp(report->target[i], name))
            return i;
    if (report->n_targets == MOST_TARGETS)
        return -1;
    memcpy(report->target[report->n_targets], name, sizeof name);
    return report->n_targets++;
}

static void add_json(struct report *report, const struct itera_check_result *result)
{
    json_t *entry = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:s, s:o}", "op", result->op, "dtype",
        result->dtype, "device", result->device, "variant", result->variant, "case", result->label,
        "max_abs", output_number(result->max_abs), "max_rel", output_number(result->max_rel),
        "nmse", output_number(result->nmse), "tolerance", output_number(result->tolerance),
        "status", itera_check_verdict_name(result->verdict), "reason",
        output_string(result->reason));
    if (entry && result->seconds > 0) {
        json_object_set_new(entry, "seconds", output_number(result->seconds));
        json_object_set_new(entry, "gflops", output_number(result->gflops));
        json_object_set_new(entry, "gbytes_per_s", output_number(result->gbytes_per_s));
    }
    if (!entry || json_array_append_new(report->results, entry))
        report->failed = true;
}

static void add_bench(struct report *report, const struct itera_check_result *result)
{
    table_cell(report->bench, "%s", result->op);
    table_cell(report->bench, "%s", result->variant);
    table_cell(report->bench, "%s", result->label);
    table_cell(report->bench, "%.2f", result->seconds * 1e6);
    table_cell(report->bench, "%.2f", result->gflops);
    table_cell(report->bench, "%.2f", result->gbytes_per_s);
}

/* Failures are told as they come, the first ones of each kind; all are in the JSON. */
static void tell(struct report *report, const struct itera_check_result *result)
{
    enum { TOLD = 40 };
    bool fail = result->verdict == ITERA_CHECK_FAIL;
    int64_t n = fail ? ++report->failures : ++report->skips;
    if (n <= TOLD)
        progress_line("%s: %s [%s] on %s %s: %s", fail ? "FAIL" : "skip", result->op, result->label,
                      result->device, result->variant, result->reason);
    else if (n == TOLD + 1)
        progress_line("... more %s: see --json", fail ? "failures" : "skipped cases");
}

static int on_result(void *user, const struct itera_check_result *result)
{
    struct report *report = user;
    /* With the results, so that a wrong option is the only line. */
    if (!report->begun)
        command_note("checking with --seed %lld", (long long)report->seed);
    report->begun = true;
    struct row *row = find_row(report, result);
    int target = find_target(report, result);
    if (!row) {
        report->failed = true;
        return 1;
    }
    if (target >= 0) {
        row->cell[target].pass += result->verdict == ITERA_CHECK_PASS;
        row->cell[target].fail += result->verdict == ITERA_CHECK_FAIL;
        row->cell[target].skip += result->verdict == ITERA_CHECK_SKIP;
    }
    /* Finite differences have a tolerance of their own. */
    if (strcmp(result->variant, "finite-difference") != 0) {
        if (result->nmse > row->worst)
            row->worst = result->nmse;
        if (result->tolerance > row->tolerance)
            row->tolerance = result->tolerance;
    }
    if (result->verdict != ITERA_CHECK_PASS)
        tell(report, result);
    else if (result->seconds > 0)
        add_bench(report, result);
    if (report->results)
        add_json(report, result);
    progress_update(100 * result->progress, "%s", result->op);
    return report->failed || stop_asked();
}

/* Ops down, targets across: how many cases passed, or "7/9" when not all did. */
static void print_rows(const struct report *report)
{
    enum { MOST_COLUMNS = 12 };
    for (int first = 0; first < report->n_targets; first += MOST_COLUMNS) {
        int shown = report->n_targets - first;
        if (shown > MOST_COLUMNS)
            shown = MOST_COLUMNS;
        const char *titles[3 + MOST_COLUMNS] = {"op", "worst NMSE", "limit"};
        char align[] = "lrrrrrrrrrrrrrr";
        for (int i = 0; i < shown; i++)
            titles[3 + i] = report->target[first + i];
        struct table *table = table_create(3 + shown, titles, align);
        for (int r = 0; r < report->n_rows; r++) {
            const struct row *row = &report->rows[r];
            table_cell(table, "%s%s%s", row->op, row->method[0] ? "." : "", row->method);
            table_cell(table, "%.1e", row->worst);
            table_cell(table, "%.0e", row->tolerance);
            for (int i = 0; i < shown; i++) {
                const struct cell *cell = &row->cell[first + i];
                int all = cell->pass + cell->fail + cell->skip;
                if (all == 0)
                    table_cell(table, "-");
                else if (cell->fail)
                    table_cell(table, "%d/%d FAIL", cell->pass, all);
                else if (cell->skip)
                    table_cell(table, "%d/%d skip", cell->pass, all);
                else
                    table_cell(table, "%d", all);
            }
        }
        table_print(table);
        table_destroy(&table);
        putchar('\n');
    }
}

static int print_report(struct report *report, const struct itera_check_summary *summary,
                        int64_t seed, const struct option_optional *json)
{
    if (report->failed) {
        command_error("check: out of memory");
        return EXIT_FAILED;
    }
    if (!output_on_stdout(json)) {
        print_rows(report);
        if (report->bench) {
            table_print(report->bench);
            putchar('\n');
        }
        printf("%lld passed, %lld failed, %lld skipped (seed %lld)\n", (long long)summary->pass,
               (long long)summary->fail, (long long)summary->skip, (long long)seed);
    }
    int code = summary->fail ? EXIT_FAILED : summary->pass ? EXIT_OK : EXIT_NOTHING_TO_TEST;
    if (json->given) {
        json_t *root =
            json_pack("{s:I, s:O, s:{s:I, s:I, s:I}}", "seed", (json_int_t)seed, "results",
                      report->results, "summary", "pass", (json_int_t)summary->pass, "fail",
                      (json_int_t)summary->fail, "skip", (json_int_t)summary->skip);
        int written = output_json(root, json->value);
        json_decref(root);
        if (written != EXIT_OK)
            code = written;
    }
    return code;
}

static int run_ops(const struct itera_check_options *options, const struct option_optional *json)
{
    static const char *const bench_titles[] = {"op", "variant", "case", "us", "GFLOP/s", "GB/s"};
    struct report report = {.results = json->given ? json_array() : NULL};
    struct itera_check_summary summary;
    if (options->bench)
        report.bench = table_create(6, bench_titles, "lllrrr");
    report.seed = (int64_t)options->seed;
    stop_catch();
    progress_start("check", "%", 100);
    enum itera_status status = itera_check_ops(options, on_result, &report, &summary);
    progress_finish(0);
    int code = EXIT_FAILED;
    if (status == ITERA_OK || report.failed || status == ITERA_ERR_CANCELLED)
        code = print_report(&report, &summary, (int64_t)options->seed, json);
    if (status == ITERA_ERR_CANCELLED) /* what is there is not what was asked for */
        code = EXIT_FAILED;
    else if (status == ITERA_ERR_ARGUMENT)
        code = EXIT_USAGE;
    table_destroy(&report.bench);
    json_decref(report.results);
    free(report.rows);
    return code;
}

int itera_command_check(int argc, char **argv)
{
    const char *devices = "cpu", *ops = NULL, *isa = NULL, *expected = NULL, *lanes = "in-order";
    bool gradients = false, bench = false;
    int64_t seed = 1, first = 0, cases = 0;
    struct option_optional json = {0};
    const struct command_option options[] = {
        {"device", 'd', OPTION_STRING, &devices, "LIST",
         "cpu (default), auto, all, or a comma list of devices"},
        {"op", 0, OPTION_STRING, &ops, "GLOB",
         "only these ops: 'silu', '*_scan', 'matmul,softplus*'"},
        {"grad", 'g', OPTION_FLAG, &gradients, NULL,
         "check gradients too, and the reference's against finite\ndifferences"},
        {"bench", 0, OPTION_FLAG, &bench, NULL, "time what passed"},
        {"seed", 's', OPTION_INTEGER, &seed, "N",
         "replays the random cases of an earlier check (default: 1)", 0, 9e15},
        {"isa", 0, OPTION_CHOICE, &isa, "LEVEL",
         "cpu: only this level of ref, avx2, avx512, avx512vnni, neon,\nneondot "
         "(default:\nITERA_CPU_ISA, or all that "
         "the "
         "processor has)",
         .choices = "ref|avx2|avx512|avx512vnni|neon|neondot"},
        {"lanes", 0, OPTION_CHOICE, &lanes, "ORDER",
         "number the lanes of GPU workgroups in-order (default), reversed or\nrotated: shows "
         "barriers that are missing",
         .choices = "in-order|reversed|rotated"},
        {"first", 0, OPTION_INTEGER, &first, "N", "begin with case N of each op (default: 0)", 0,
         1e6},
        {"cases", 0, OPTION_INTEGER, &cases, "N", "at most N cases per op", 1, 1e9},
        {"expected", 0, OPTION_INPUT, &expected, "FILE",
         "with MODEL: compare with this file (input_ids, logits, loss,\naux_loss, grad.*) instead "
         "of the reference"},
        {"json", 0, OPTION_OPTIONAL, &json, "FILE", "write JSON to FILE, or to stdout"},
        {0}};
    const struct command_spec spec = {
        .name = "check",
        .positional = "[MODEL]",
        .summary =
            "Draws random cases of every op, runs them on the device (the CPU: at every "
            "instruction\n"
            "set level, with one thread and with two), and compares with the scalar reference: "
            "the\n"
            "largest errors, memory around and between the operands, NaN and infinity only where\n"
            "the reference has them, the same bits again, results in place.\n"
            "With a MODEL it compares logits, decoding from state over length, greedy tokens, "
            "sequences\nat different positions, copied, saved and loaded, and (--grad) gradients "
            "of "
            "the whole\nmodel instead.",
        .notes =
            "The table counts the cases that passed. Exit status: 0 all passed, 1 some failed, "
            "77 none\ncould be run.",
        .options = options,
        .max = 1};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    const struct itera_check_options check = {
        .devices = devices,
        .isa = isa,
        .ops = ops,
        .seed = (uint64_t)seed,
        .gradients = gradients,
        .bench = bench,
        .first = (int)first,
        .cases = (int)cases,
        .lanes = !strcmp(lanes, "reversed")  ? ITERA_LANES_REVERSED
                 : !strcmp(lanes, "rotated") ? ITERA_LANES_ROTATED
                                             : ITERA_LANES_IN_ORDER};
    if (args.n && (ops || bench || first || cases || check.lanes))
        code = options_usage(
            &spec, "--op, --bench, --lanes, --first and --cases are for ops, not for a MODEL");
    else if (!args.n && expected)
        code = options_usage(&spec, "--expected needs a MODEL");
    else if (output_json_check(json.value) != EXIT_OK)
        code = EXIT_FAILED;
    else if (args.n)
        code = check_model_run(args.positional[0], expected, &check, &json);
    else
        code = run_ops(&check, &json);
    options_free(&args);
    return code;
}
