#include "commands/check_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"

struct model_report {
    struct table *table;
    json_t *results;
    /* The gradients of one device share a row: there may be hundreds. */
    char device[80];
    int64_t gradients, failed;
    double worst;
    char worst_name[160];
    bool out_of_memory;
};

static void target_name(const struct itera_check_result *result, char *out, size_t size)
{
    snprintf(out, size, "%s%s%s", result->device, result->variant[0] ? " " : "", result->variant);
}

static void print_gradients(struct model_report *r)
{
    if (!r->gradients)
        return;
    table_cell(r->table, "gradients");
    table_cell(r->table, "%s", r->device);
    table_cell(r->table, "%.1e", r->worst);
    table_cell(r->table, r->failed ? "FAIL" : "pass");
    table_cell(r->table, "%lld tensors, worst %s", (long long)r->gradients, r->worst_name);
    r->gradients = r->failed = 0;
    r->worst = 0;
    r->worst_name[0] = 0;
}

static void add_row(struct model_report *r, const struct itera_check_result *result)
{
    char target[80];
    target_name(result, target, sizeof target);
    if (!strncmp(result->op, "grad.", 5)) {
        memcpy(r->device, target, sizeof r->device);
        r->gradients++;
        r->failed += result->verdict == ITERA_CHECK_FAIL;
        /* What the limit is on: the distance over the norm. */
        if (!(sqrt(result->nmse) <= r->worst)) {
            r->worst = sqrt(result->nmse);
            snprintf(r->worst_name, sizeof r->worst_name, "%s", result->op + 5);
        }
        return;
    }
    print_gradients(r);
    table_cell(r->table, "%s", result->op);
    table_cell(r->table, "%s", target);
    table_cell(r->table, "%.1e", result->max_rel);
    table_cell(r->table, "%s", itera_check_verdict_name(result->verdict));
    table_cell(r->table, "%s", result->label);
}

static int on_result(void *user, const struct itera_check_result *result)
{
    struct model_report *r = user;
    add_row(r, result);
    if (result->verdict != ITERA_CHECK_PASS)
        progress_line("%s: %s [%s] on %s %s: %s",
                      result->verdict == ITERA_CHECK_FAIL ? "FAIL" : "skip", result->op,
                      result->label, result->device, result->variant, result->reason);
    progress_update(100 * result->progress, "%s", result->op);
    if (!r->results)
        return 0;
    json_t *entry = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:s, s:o}", "op", result->op, "dtype",
        result->dtype, "device", result->device, "variant", result->variant, "case", result->label,
        "max_abs", output_number(result->max_abs), "max_rel", output_number(result->max_rel),
        "nmse", output_number(result->nmse), "tolerance", output_number(result->tolerance),
        "status", itera_check_verdict_name(result->verdict), "reason",
        output_string(result->reason));
    if (!entry || json_array_append_new(r->results, entry))
        r->out_of_memory = true;
    return r->out_of_memory;
}

static int print_report(struct model_report *r, const struct itera_check_summary *summary,
                        uint64_t seed, const struct option_optional *json)
{
    if (!output_on_stdout(json)) {
        print_gradients(r);
        table_print(r->table);
        printf("\n%lld passed, %lld failed, %lld skipped (seed %llu)\n", (long long)summary->pass,
               (long long)summary->fail, (long long)summary->skip, (unsigned long long)seed);
    }
    int code = summary->fail ? EXIT_FAILED : summary->pass ? EXIT_OK : EXIT_NOTHING_TO_TEST;
    if (json->given) {
        json_t *root =
            json_pack("{s:I, s:O, s:{s:I, s:I, s:I}}", "seed", (json_int_t)seed, "results",
                      r->results, "summary", "pass", (json_int_t)summary->pass, "fail",
                      (json_int_t)summary->fail, "skip", (json_int_t)summary->skip);
        int written = output_json(root, json->value);
        json_decref(root);
        if (written != EXIT_OK)
            code = written;
    }
    return code;
}

int check_model_run(const char *model, const char *expected,
                    const struct itera_check_options *options, const struct option_optional *json)
{
    static const char *const titles[] = {"compared", "device", "relative error", "", ""};
    struct model_report r = {.table = table_create(5, titles, "llrll"),
                             .results = json->given ? json_array() : NULL};
    struct itera_check_summary summary;
    progress_start("check", "%", 100);
    enum itera_status status = itera_check_model(model, expected, options, on_result, &r, &summary);
    progress_finish(0);
    int code = EXIT_FAILED;
    if (r.out_of_memory)
        command_error("check: out of memory");
    else if (!status)
        code = print_report(&r, &summary, options->seed, json);
    table_destroy(&r.table);
    json_decref(r.results);
    return code;
}
