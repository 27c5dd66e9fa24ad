#include "report/gallery.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/output.h"
#include "report/bench_report.h"

/* Text in a table's cell: nothing in it is Markdown or HTML. */
static void put_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (strchr("\\`*_{}[]<>#|~&!", *text))
            fputc('\\', out);
        fputc(*text, out);
    }
}

static void put_cell(FILE *out, const char *text)
{
    fputs("| ", out);
    put_text(out, text);
    fputc(' ', out);
}

static void put_number(FILE *out, double value)
{
    char text[64];
    fprintf(out, "| %s ", isfinite(value) ? bench_figure(value, text, sizeof text) : "");
}

static void put_end(FILE *out)
{
    fputs("|\n", out);
}

/* ---- at a glance ----------------------------------------------------------------------------- */

/* The fastest row of a model, type and device in a phase. */
static const struct result_row *best(const struct result *result, const struct result_row *like,
                                     const char *phase)
{
    const struct result_row *found = NULL;
    for (int i = 0; i < result->n; i++) {
        const struct result_row *row = &result->rows[i];
        if (strcmp(row->op, like->op) != 0 || strcmp(row->dtype, like->dtype) != 0 ||
            strcmp(row->device, like->device) != 0 || row->threads != like->threads ||
            strcmp(row->phase, phase) != 0 || !(row->tokens_per_second > 0))
            continue;
        if (!found || row->tokens_per_second > found->tokens_per_second)
            found = row;
    }
    return found;
}

static bool seen_before(const struct result *result, int i)
{
    const struct result_row *row = &result->rows[i];
    for (int k = 0; k < i; k++) {
        const struct result_row *other = &result->rows[k];
        if (strcmp(other->phase, "op") != 0 && !strcmp(other->op, row->op) &&
            !strcmp(other->dtype, row->dtype) && !strcmp(other->device, row->device) &&
            other->threads == row->threads)
            return true;
    }
    return false;
}

static void put_glance(FILE *out, const struct result *results, int n)
{
    fputs("## At a glance\n\nTokens per second, the fastest case of each; medians.\n\n"
          "| machine | program | device | model | type | decode | prefill | training |\n"
          "|---|---|---|---|---|---|---|---|\n",
          out);
    for (int r = 0; r < n; r++) {
        const json_t *host = json_object_get(results[r].root, "host");
        const char *peer = results_text(host, "peer.name");
        for (int i = 0; i < results[r].n; i++) {
            static const char *const phases[] = {"decode", "prefill", "train"};
            const struct result_row *row = &results[r].rows[i];
            char device[96];
            if (!strcmp(row->phase, "op") || seen_before(&results[r], i))
                continue;
            put_cell(out, results[r].label);
            put_cell(out, *peer ? peer : "itera");
            put_cell(out, result_device(row, device, sizeof device));
            put_cell(out, row->op);
            put_cell(out, row->dtype);
            for (size_t p = 0; p < sizeof phases / sizeof phases[0]; p++) {
                const struct result_row *found = best(&results[r], row, phases[p]);
                put_number(out, found ? found->tokens_per_second : (double)NAN);
            }
            put_end(out);
        }
    }
}

/* ---- one file -------------------------------------------------------------------------------- */

static void put_host(FILE *out, const struct result *result)
{
    const json_t *host = json_object_get(result->root, "host");
    const char *virtual = results_text(host, "virtual");
    double processors = results_number(host, "processors");
    json_t *given;
    size_t i;
    put_text(out, results_text(host, "cpu"));
    if (isfinite(processors))
        fprintf(out, ", %.0f processor%s", processors, processors > 1 ? "s" : "");
    if (*virtual) {
        fputs(", virtual (", out);
        put_text(out, virtual);
        fputc(')', out);
    }
    fputs("; ", out);
    put_text(out, results_text(host, "system"));
    fputc(' ', out);
    put_text(out, results_text(host, "release"));
    fputs("; ", out);
    put_text(out, result->is_peer ? results_text(host, "peer.name") : "itera");
    fputc(' ', out);
    put_text(out, results_text(host, result->is_peer ? "peer.version" : "itera"));
    fputs("; ", out);
    put_text(out, results_text(host, "date"));
    fputs(".\n\n", out);
    json_array_foreach(json_object_get(host, "notes"), i, given)
    {
        fputs("- ", out);
        put_text(out, json_string_value(given));
        fputs("\n", out);
    }
    if (i)
        fputc('\n', out);
}

static void put_peaks(FILE *out, const struct result *result)
{
    const json_t *peaks = json_object_get(json_object_get(result->root, "host"), "peaks");
    json_t *peak;
    size_t i;
    if (!json_array_size(peaks))
        return;
    fputs("| device | driver | threads | f32 GFLOP/s | f16 | int8 GOP/s | copy GB/s | read GB/s, "
          "smallest to largest set |\n|---|---|---|---|---|---|---|---|\n",
          out);
    json_array_foreach(peaks, i, peak)
    {
        json_t *read;
        size_t k;
        put_cell(out, results_text(peak, "device"));
        put_cell(out, results_text(peak, "driver"));
        put_number(out, results_number(peak, "threads"));
        put_number(out, results_number(peak, "gflops"));
        put_number(out, results_number(peak, "f16_gflops"));
        put_number(out, results_number(peak, "int8_gops"));
        put_number(out, results_number(peak, "copy_gbytes_per_s"));
        fputs("| ", out);
        json_array_foreach(json_object_get(peak, "read"), k, read)
        {
            char text[64];
            fprintf(out, "%s%s", k ? " / " : "",
                    bench_figure(results_number(read, "gbytes_per_s"), text, sizeof text));
        }
        fputc(' ', out);
        put_end(out);
    }
    fputc('\n', out);
}

static void put_rows(FILE *out, const struct result *result)
{
    fputs("| what | phase | case | type | device | p50 ms | 95% | tokens/s | GFLOP/s | of peak | "
          "mJ/token | beside |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
          out);
    for (int i = 0; i < result->n; i++) {
        const struct result_row *row = &result->rows[i];
        const json_t *run = row->json;
        double share = results_number(run, "peak_share"), rate = row->tokens_per_second;
        double speedup = results_number(run, "peer.speedup");
        const bool interval = row->has_interval && isfinite(results_number(run, "latency_ms.low"));
        char device[96];
        put_cell(out, row->op);
        put_cell(out, row->phase);
        put_cell(out, row->case_name);
        put_cell(out, row->dtype);
        put_cell(out, result_device(row, device, sizeof device));
        put_number(out, row->p50);
        if (interval)
            fprintf(out, "| %.3g to %.3g%s ", row->low, row->high,
                    row->unstable ? ", unstable" : "");
        else
            put_cell(out, row->unstable ? "unstable" : "");
        put_number(out, strcmp(row->phase, "op") != 0 ? rate : (double)NAN);
        put_number(out, results_number(run, "gflops"));
        if (isfinite(share))
            fprintf(out, "| %.0f%% ", 100 * share);
        else
            put_cell(out, "");
        put_number(out, 1e3 * results_number(run, "energy.joules_per_token"));
        if (isfinite(speedup)) {
            fprintf(out, "| %.2fx ", speedup);
            put_text(out, results_text(run, "peer.name"));
            fputc(' ', out);
        } else {
            put_cell(out, "");
        }
        put_end(out);
    }
}

static char *gallery_text(const struct result *results, int n)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    fputs(
        "# Results\n\nWhat `itera bench` measured on real machines: the files in "
        "[bench/results](../bench/results), each checked\nagainst [its schema](bench.schema.json). "
        "This page is made from them, not written:\n\n"
        "    itera compare --markdown=docs/results.md bench/results/*.json\n\n"
        "To add a machine, put the file that `itera bench --json` writes there and make the page "
        "again. [Performance](performance.md)\nsays what the figures mean.\n\n",
        out);
    put_glance(out, results, n);
    for (int i = 0; i < n; i++) {
        fputs("\n## ", out);
        put_text(out, results[i].label);
        fputs("\n\n", out);
        put_host(out, &results[i]);
        put_peaks(out, &results[i]);
        put_rows(out, &results[i]);
    }
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

/* A shell's order of files depends on its language. */
static int by_label(const void *a, const void *b)
{
    return strcmp(((const struct result *)a)->label, ((const struct result *)b)->label);
}

int gallery_markdown(const json_t *const *results, const char *const *names, int n,
                     const char *file)
{
    struct result *list = result_rows(results, names, n);
    if (list)
        qsort(list, (size_t)n, sizeof *list, by_label);
    char *text = list ? gallery_text(list, n) : NULL;
    int code = EXIT_FAILED;
    if (text && file && strcmp(file, "-") != 0) {
        code = output_text(file, text);
    } else if (text) {
        fputs(text, stdout);
        code = EXIT_OK;
    } else if (list) {
        command_error("no memory to write Markdown");
    }
    free(text);
    result_free(&list, n);
    return code;
}
