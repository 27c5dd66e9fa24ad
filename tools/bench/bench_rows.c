/* itera bench: rows as a table and as JSON. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/bench_parts.h"
#include "cli/device_request.h"
#include "cli/output.h"
#include "cli/progress.h"

static double tokens_rate(const struct itera_bench_row *row)
{
    return row->p50 > 0 ? (double)row->tokens / row->p50 : 0;
}

struct table *bench_table(void)
{
    static const char *const titles[] = {"device",  "thr",    "type",         "phase", "what",
                                         "case",    "p50 ms", "95% interval", "p95",   "tokens/s",
                                         "GFLOP/s", "GB/s",   "of peak",      "",      "peer"};
    return table_create(15, titles, "lrllllrrrrrrrll");
}

static void print_row(struct table *table, const struct itera_bench_row *r)
{
    table_cell(table, "%s", r->device);
    table_cell(table, "%d", r->threads);
    table_cell(table, "%s", r->dtype);
    table_cell(table, "%s", r->phase);
    table_cell(table, "%s", r->op);
    table_cell(table, "%s", r->case_name);
    table_cell(table, "%.4g", r->p50 * 1e3);
    table_cell(table, "%.4g-%.4g", r->low * 1e3, r->high * 1e3);
    table_cell(table, "%.4g", r->p95 * 1e3);
    table_cell(table, "%.0f", tokens_rate(r));
    table_cell(table, "%.1f", r->flops / r->p50 / 1e9);
    table_cell(table, "%.1f", r->bytes / r->p50 / 1e9);
    table_cell(table, "%.0f%%", r->peak_share * 100);
    table_cell(table, "%s",
               r->parity.known && !r->parity.pass ? "WRONG"
               : r->stable                        ? ""
                                                  : "unstable");
    if (r->peer_p50 > 0)
        table_cell(table, "%s %.4g ms (%.2fx)", r->peer, r->peer_p50 * 1e3, r->peer_p50 / r->p50);
    else
        table_cell(table, "%s", "");
}

static json_t *parity_json(const struct itera_bench_parity *p)
{
    if (!p->known)
        return json_null();
    return json_pack("{s:s, s:I, s:o, s:o, s:o, s:f, s:b}", "reference", p->reference, "positions",
                     (json_int_t)p->positions, "nmse", output_number(p->nmse), "max_abs",
                     output_number(p->max_abs), "max_rel", output_number(p->max_rel), "limit",
                     p->limit, "pass", p->pass);
}

static json_t *load_json(const struct itera_bench_load *load)
{
    if (!load->layers)
        return json_null();
    json_t *layers = json_array();
    for (int i = 0; i < load->layers; i++)
        json_array_append_new(layers, output_number(load->imbalance[i]));
    return json_pack("{s:i, s:i, s:I, s:o, s:o}", "experts", load->experts, "top_k", load->top_k,
                     "tokens", (json_int_t)load->tokens, "imbalance", output_number(load->worst),
                     "layers", layers);
}

/* By part of the model. joules: of one run, or NAN; they are shared out by time. */
static json_t *breakdown_json(const struct itera_bench_part *parts, int count, double joules)
{
    json_t *list = json_array();
    double total = 0;
    for (int i = 0; i < count; i++)
        total += parts[i].is_op ? 0 : parts[i].seconds;
    for (int i = 0; i < count; i++) {
        const struct itera_bench_part *p = &parts[i];
        if (p->is_op)
            continue;
        double share = total > 0 ? p->seconds / total : 0;
        json_array_append_new(
            list,
            json_pack("{s:s, s:i, s:o, s:o, s:o, s:o, s:o}", "part", p->name, "ops", p->count, "ms",
                      output_number(p->seconds * 1e3), "share", output_number(share), "gflop",
                      output_number(p->flops / 1e9), "mbytes", output_number(p->bytes / 1e6),
                      "joules", output_number(joules * share)));
    }
    return list;
}

static json_t *row_json(const struct itera_bench_row *r)
{
    json_t *row =
        json_pack("{s:s, s:i, s:s, s:s, s:o, s:s, s:I, s:I, s:i, s:i}", "device", r->device,
                  "threads", r->threads, "dtype", r->dtype, "phase", r->phase, "op",
                  output_string(r->op), "case", r->case_name, "batch", (json_int_t)r->batch,
                  "tokens", (json_int_t)r->tokens, "repeats", r->repeats, "blocks", r->blocks);
    json_object_set_new(row, "tokens_per_second", output_number(tokens_rate(r)));
    json_object_set_new(row, "latency_ms",
                        json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "p50", r->p50 * 1e3, "p95",
                                  r->p95 * 1e3, "p99", r->p99 * 1e3, "best", r->best * 1e3, "low",
                                  r->low * 1e3, "high", r->high * 1e3));
    json_object_set_new(row, "stable", json_boolean(r->stable));
    if (!r->stable)
        json_object_set_new(row, "unstable_because", output_string(r->unstable_because));
    json_object_set_new(row, "device_ms",
                        isnan(r->device_p50) ? json_null()
                                             : json_pack("{s:f}", "p50", r->device_p50 * 1e3));
    json_object_set_new(row, "gflops", output_number(r->flops / r->p50 / 1e9));
    json_object_set_new(row, "gbytes_per_s", output_number(r->bytes / r->p50 / 1e9));
    json_object_set_new(row, "peak_share", output_number(r->peak_share));
    json_object_set_new(row, "bound", json_string(r->compute_bound ? "compute" : "memory"));
    json_object_set_new(row, "gemm_gflops",
                        r->gemm_gflops > 0 ? json_real(r->gemm_gflops) : json_null());
    json_object_set_new(row, "memory_bytes", json_integer((json_int_t)r->memory_bytes));
    json_object_set_new(row, "peak_memory_bytes", json_integer((json_int_t)r->peak_bytes));
    if (r->dispatches) {
        json_object_set_new(row, "dispatches", json_integer(r->dispatches));
        json_object_set_new(row, "barriers", json_integer(r->barriers));
    }
    json_object_set_new(row, "parity", parity_json(&r->parity));
    json_object_set_new(row, "expert_load", load_json(&r->load));
    if (r->peer_p50 > 0)
        json_object_set_new(row, "peer",
                            json_pack("{s:s, s:f, s:f}", "name", r->peer, "p50_ms",
                                      r->peer_p50 * 1e3, "speedup", r->peer_p50 / r->p50));
    return row;
}

static void print_parts(const struct itera_bench_part *parts, int count, bool ops)
{
    double total = 0;
    for (int i = 0; i < count; i++)
        total += parts[i].is_op == ops ? parts[i].seconds : 0;
    const char *titles[] = {ops ? "op" : "part", "ops", "ms", "share", "GFLOP/s", "GB/s"};
    struct table *table = table_create(6, titles, "lrrrrr");
    for (int i = 0; i < count; i++) {
        const struct itera_bench_part *p = &parts[i];
        if (p->is_op != ops)
            continue;
        table_cell(table, "%s", p->name);
        table_cell(table, "%d", p->count);
        table_cell(table, "%.4f", p->seconds * 1e3);
        table_cell(table, "%.1f%%", 100 * p->seconds / total);
        table_cell(table, "%.1f", p->seconds > 0 ? p->flops / p->seconds / 1e9 : 0);
        table_cell(table, "%.1f", p->seconds > 0 ? p->bytes / p->seconds / 1e9 : 0);
    }
    table_print(table);
    table_destroy(&table);
}

static void print_breakdown(const struct itera_bench_row *row, const struct itera_bench_part *parts,
                            int count)
{
    progress_finish(0);
    char device[DEVICE_LABEL];
    printf("%s, %s, %s of %s tokens in %s, each op timed apart:\n",
           device_label(row->device, row->threads, device, sizeof device), row->op, row->phase,
           row->case_name, row->dtype);
    print_parts(parts, count, false);
    printf("\n");
    print_parts(parts, count, true);
    printf("\n");
}

enum itera_status bench_add_row(struct bench *b, struct itera_bench_task *task,
                                const struct bench_device *device)
{
    struct itera_bench_part parts[ITERA_BENCH_PARTS];
    int count = 0;
    const struct bench_settings *s = b->s;
    enum itera_status status =
        itera_bench_task_breakdown(task, s->quick ? 0.05 : 0.3, parts, &count);
    if (!status && device->metered)
        status = itera_bench_task_energy(task, device->meter, s->seconds);
    if (status)
        return status;
    const struct itera_bench_row *r = itera_bench_task_row(task, &device->peaks);
    json_t *row = row_json(r), *fallback = json_array();
    json_t *energy = meter_energy_json(&r->energy, r->energy_tokens);
    double joules = json_is_object(energy)
                        ? r->energy.figure[0].joules / r->energy_tokens * (double)r->tokens
                        : (double)NAN;
    json_object_set_new(row, "energy", energy);
    if (json_is_null(energy))
        json_object_set_new(row, "energy_reason",
                            output_string(r->energy.n_figures ? r->energy.figure[0].reason
                                                              : device->energy_reason));
    for (int i = 0; itera_bench_task_fallback_op(task, i); i++)
        json_array_append_new(fallback, json_string(itera_bench_task_fallback_op(task, i)));
    json_object_set_new(row, "fallback_ops", fallback);
    if (count)
        json_object_set_new(row, "breakdown", breakdown_json(parts, count, joules));
    json_array_append_new(b->runs, row);
    if (b->table)
        print_row(b->table, r);
    if (b->table && s->breakdown && count)
        print_breakdown(r, parts, count);
    char label[DEVICE_LABEL];
    progress_line("%s  %-4s %-8s %s %s: %.4g ms (%.4g to %.4g)%s%s%s",
                  device_label(r->device, r->threads, label, sizeof label), r->dtype, r->phase,
                  r->op, r->case_name, r->p50 * 1e3, r->low * 1e3, r->high * 1e3,
                  r->stable ? "" : ", unstable: ", r->unstable_because,
                  r->parity.known && !r->parity.pass ? "; its logits are WRONG" : "");
    return ITERA_OK;
}
