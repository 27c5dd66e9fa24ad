/* Comparisons as CSV and JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/output.h"
#include "results/comparison.h"

/* ---- CSV ------------------------------------------------------------------------------------- */

/* Quoted as in RFC 4180. Spreadsheets take what begins with one of =+-@ for a formula. */
static void put_text(FILE *out, const char *text)
{
    fputs(strchr("=+-@", *text) && *text ? "\"'" : "\"", out);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void put_number(FILE *out, double value)
{
    if (isfinite(value))
        fprintf(out, ",%.9g", value);
    else
        fputc(',', out);
}

static void put_bool(FILE *out, const json_t *value)
{
    fputs(json_is_true(value) ? ",true" : json_is_false(value) ? ",false" : ",", out);
}

/* Columns that are numbers of the row's JSON, under their own names with '_' for '.'. */
static const char *const NUMBERS[] = {"batch",
                                      "tokens",
                                      "repeats",
                                      "tokens_per_second",
                                      "latency_ms.p50",
                                      "latency_ms.low",
                                      "latency_ms.high",
                                      "latency_ms.p95",
                                      "latency_ms.p99",
                                      "latency_ms.best",
                                      "device_ms.p50",
                                      "gflops",
                                      "gbytes_per_s",
                                      "peak_share",
                                      "gemm_gflops",
                                      "energy.joules_per_token",
                                      "memory_bytes",
                                      "peak_memory_bytes",
                                      "parity.nmse",
                                      "parity.max_abs",
                                      "expert_load.imbalance",
                                      "peer.p50_ms",
                                      "peer.speedup"};
enum { N_NUMBERS = sizeof NUMBERS / sizeof NUMBERS[0] };

static void put_header(FILE *out)
{
    fputs("file,program,version,date,cpu,device,threads,dtype,phase,op,case", out);
    for (int i = 0; i < N_NUMBERS; i++) {
        fputc(',', out);
        for (const char *c = NUMBERS[i]; *c; c++)
            fputc(*c == '.' ? '_' : *c, out);
    }
    fputs(",stable,bound,energy_source,energy_measured,parity_pass,peer_name,speed,speed_low,"
          "speed_high,verdict\r\n",
          out);
}

static void put_row(FILE *out, const struct comparison *c, int i, int file)
{
    const struct result_row *row = c->rows.row[i * c->n + file];
    const struct result *result = &c->results[file];
    const struct judgement j = compare_judge(c, i, file);
    const json_t *host = json_object_get(result->root, "host"), *run = row->json;
    const char *peer = results_text(host, "peer.name");
    const char *const first[] = {result->label,
                                 *peer ? peer : "itera",
                                 results_text(host, *peer ? "peer.version" : "itera"),
                                 results_text(host, "date"),
                                 results_text(host, "cpu"),
                                 row->device};
    for (size_t k = 0; k < sizeof first / sizeof first[0]; k++) {
        if (k)
            fputc(',', out);
        put_text(out, first[k]);
    }
    fprintf(out, ",%d", row->threads);
    const char *const names[] = {row->dtype, row->phase, row->op, row->case_name};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        fputc(',', out);
        put_text(out, names[k]);
    }
    for (int k = 0; k < N_NUMBERS; k++)
        put_number(out, results_number(run, NUMBERS[k]));
    put_bool(out, json_object_get(run, "stable"));
    fputc(',', out);
    put_text(out, results_text(run, "bound"));
    fputc(',', out);
    put_text(out, results_text(run, "energy.source"));
    put_bool(out, json_object_get(json_object_get(run, "energy"), "measured"));
    put_bool(out, json_object_get(json_object_get(run, "parity"), "pass"));
    fputc(',', out);
    put_text(out, results_text(run, "peer.name"));
    put_number(out, j.ratio);
    put_number(out, j.low);
    put_number(out, j.high);
    fputc(',', out);
    put_text(out, compare_verdict(j.verdict));
    fputs("\r\n", out);
}

int compare_csv(const struct comparison *c, const char *file)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    int code = EXIT_FAILED;
    if (out) {
        put_header(out);
        for (int i = 0; i < c->rows.n; i++)
            for (int k = 0; k < c->n; k++)
                if (c->rows.row[i * c->n + k])
                    put_row(out, c, i, k);
    }
    if (out && fclose(out) == 0)
        code = output_text(file, text);
    else
        command_error("%s: no memory to write CSV", file);
    free(text);
    return code;
}

int results_csv(const json_t *result, const char *file)
{
    struct comparison c;
    int code = compare_open(&result, NULL, 1, 0, &c);
    if (code == EXIT_OK)
        code = compare_csv(&c, file);
    compare_close(&c);
    return code;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *file_json(const struct result *result)
{
    const json_t *host = json_object_get(result->root, "host");
    json_t *root = json_pack("{s:s, s:b, s:i}", "file", result->label, "is_peer", result->is_peer,
                             "rows", result->n);
    static const char *const keys[] = {"itera", "peer", "date", "cpu", "processors"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        json_t *value = json_object_get(host, keys[i]);
        if (value)
            json_object_set(root, keys[i], value);
    }
    return root;
}

static json_t *cell_json(const struct comparison *c, int i, int file)
{
    const struct result_row *row = c->rows.row[i * c->n + file];
    if (!row)
        return json_null();
    const struct judgement j = compare_judge(c, i, file);
    json_t *cell = json_object();
    json_object_set_new(cell, "device", json_string(row->device));
    json_object_set_new(cell, "p50_ms", output_number(row->p50));
    json_object_set_new(cell, "low_ms", output_number(row->low));
    json_object_set_new(cell, "high_ms", output_number(row->high));
    json_object_set_new(cell, "stable", json_boolean(!row->unstable));
    json_object_set_new(cell, "tokens_per_second", output_number(row->tokens_per_second));
    json_object_set_new(cell, "joules_per_token",
                        output_number(results_number(row->json, "energy.joules_per_token")));
    json_object_set_new(cell, "memory_bytes",
                        output_number(results_number(row->json, "memory_bytes")));
    /* How fast the machine was just then: where this fell as much, it was not the program. */
    json_object_set_new(cell, "gemm_gflops",
                        output_number(results_number(row->json, "gemm_gflops")));
    json_object_set_new(cell, "speed", output_number(j.ratio));
    json_object_set_new(cell, "speed_low", output_number(j.low));
    json_object_set_new(cell, "speed_high", output_number(j.high));
    json_object_set_new(cell, "verdict",
                        j.verdict ? json_string(compare_verdict(j.verdict)) : json_null());
    return cell;
}

static json_t *row_json(const struct comparison *c, int i)
{
    const struct result_row *row = NULL;
    json_t *cells = json_array();
    for (int file = c->n - 1; file >= 0; file--)
        if (c->rows.row[i * c->n + file])
            row = c->rows.row[i * c->n + file];
    for (int file = 0; file < c->n; file++)
        json_array_append_new(cells, cell_json(c, i, file));
    json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:i}", "op", row->op, "phase", row->phase,
                             "case", row->case_name, "dtype", row->dtype, "threads", row->threads);
    json_object_set_new(root, "files", cells);
    return root;
}

json_t *compare_json(const struct comparison *c)
{
    json_t *files = json_array(), *rows = json_array();
    for (int i = 0; i < c->n; i++)
        json_array_append_new(files, file_json(&c->results[i]));
    for (int i = 0; i < c->rows.n; i++)
        json_array_append_new(rows, row_json(c, i));
    return json_pack("{s:f, s:b, s:{s:i, s:i, s:i, s:i, s:i, s:i, s:i}, s:o, s:o}",
                     "threshold_percent", 100 * c->threshold, "regressed", compare_regressed(c),
                     "summary", "regressions", c->count[VERDICT_REGRESSION], "slower",
                     c->count[VERDICT_SLOWER], "faster", c->count[VERDICT_FASTER], "same",
                     c->count[VERDICT_SAME], "not_judged", c->count[VERDICT_UNKNOWN],
                     "as_the_machine", c->count[VERDICT_MACHINE], "parity_broken",
                     c->count[VERDICT_PARITY], "files", files, "rows", rows);
}
