/* Whether what is measured computes the right thing: its logits against the CPU's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_impl.h"
#include "check/limits.h"
#include "core/log.h"
#include "model/model_impl.h"

/* FLOPs that the scalar reference does in about a second. Beyond, the CPU's fast kernels, which
 * `itera check` holds against the reference, take its place. */
static const double REFERENCE_FLOPS = 5e8;

/* The same weights as f32 on another device. */
static enum itera_status expand(struct itera_model *model, struct itera_device *device,
                                struct itera_model **out)
{
    *out = NULL;
    float *weights = calloc((size_t)model->layout.elements, sizeof *weights);
    enum itera_status status =
        weights ? itera_model_read_f32(model, weights)
                : itera_fail(ITERA_ERR_MEMORY, "no memory for %lld weights of the reference",
                             (long long)model->layout.elements);
    if (!status)
        status = itera_model_allocate(device, &model->config, out);
    if (!status)
        status = itera_model_write_f32(*out, weights);
    free(weights);
    return status;
}

static void measure_difference(const float *a, const float *b, int64_t n,
                               struct itera_bench_parity *out)
{
    double largest = 0, power = 0, squares = 0;
    out->max_abs = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        if (d > out->max_abs || isnan(d)) /* a NAN stays */
            out->max_abs = d;
        largest = fmax(largest, fabs((double)b[i]));
        power += (double)b[i] * b[i];
        squares += d * d;
    }
    out->max_rel = largest > 0 ? out->max_abs / largest : out->max_abs;
    out->nmse = power > 0 ? squares / power : squares;
    out->known = true;
}

enum itera_status itera_bench_compare(struct itera_model *model, const int32_t *ids, int64_t n,
                                      const float *logits, int64_t positions,
                                      struct itera_bench_parity *out)
{
    const bool exact = model->info.flops_per_token * (double)n <= REFERENCE_FLOPS;
    const struct itera_device_options options = {.isa = exact ? "ref" : NULL};
    const int64_t vocab = model->config.vocab;
    const size_t count = (size_t)(positions * vocab);
    struct itera_device *cpu = NULL;
    struct itera_model *wide = NULL;
    struct itera_bench_graph graph = {0};
    float *expected = malloc(count * sizeof *expected);
    enum itera_status status =
        expected ? itera_device_open("cpu", &options, &cpu)
                 : itera_fail(ITERA_ERR_MEMORY, "no memory for %zu logits", count);
    if (!status)
        status = expand(model, cpu, &wide);
    if (!status)
        status = itera_bench_graph_create(wide, true, 1, n, ids, true, &graph);
    if (!status)
        status = itera_run(graph.phase.executable);
    if (!status)
        status = itera_buffer_download(graph.logits, (size_t)((n - positions) * vocab) * 4,
                                       expected, count * sizeof *expected);
    if (!status) {
        const bool integer = itera_model_is_quantised(model) && model->layout.integer;
        const bool half = itera_model_rounds_to_half(model) &&
                          itera_device_info(model->device)->type != ITERA_DEVICE_CPU;
        const bool rounds = integer || half;
        *out = (struct itera_bench_parity){
            .positions = positions,
            .limit = integer ? itera_integer_limit(model->config.layers)
                     : half  ? itera_half_limit(model->config.layers)
                             : ITERA_REFERENCE_LIMIT * ITERA_REFERENCE_LIMIT};
        snprintf(out->reference, sizeof out->reference, "cpu f32 (%s)",
                 exact ? "ref" : "its fastest kernels");
        measure_difference(logits, expected, (int64_t)count, out);
        if (rounds)
            status = itera_integer_nmse(logits, expected, positions, vocab,
                                        model->config.experts > 0, &out->nmse);
        out->pass = out->nmse <= out->limit;
    }
    itera_bench_graph_destroy(&graph);
    itera_model_destroy(&wide);
    itera_device_close(&cpu);
    free(expected);
    return status;
}
