/* itera bench: latency and rates of ops, inference and training. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "command.h"
#include "device.h"
#include "itera/bench.h"
#include "itera/compress.h"
#include "options.h"
#include "output.h"
#include "progress.h"

enum { MAX_ROWS = 2048 };

struct bench {
    struct itera_bench_row *rows;
    json_t **fallback; /* per row */
    int n_rows;
    const struct itera_device *device; /* being measured */
};

static int keep_row(void *user, const struct itera_bench_row *row)
{
    struct bench *b = user;
    if (b->n_rows == MAX_ROWS)
        return 1;
    b->fallback[b->n_rows] = device_fallback_json(b->device);
    b->rows[b->n_rows++] = *row;
    progress_line("%s x%d  %-4s %-8s %s %s: %.4g ms", row->device, row->threads, row->dtype,
                  row->phase, row->op, row->case_name, row->p50 * 1e3);
    return 0;
}

static double tokens_rate(const struct itera_bench_row *row)
{
    return row->p50 > 0 ? (double)row->tokens / row->p50 : 0;
}

static void print_rows(const struct bench *b)
{
    static const char *const titles[] = {"device", "thr",     "type", "phase",    "what",
                                         "case",   "p50 ms",  "p95",  "tokens/s", "GFLOP/s",
                                         "GB/s",   "of peak", "peer"};
    struct table *table = table_create(13, titles, "lrllllrrrrrrl");
    for (int i = 0; i < b->n_rows; i++) {
        const struct itera_bench_row *r = &b->rows[i];
        table_cell(table, "%s", r->device);
        table_cell(table, "%d", r->threads);
        table_cell(table, "%s", r->dtype);
        table_cell(table, "%s", r->phase);
        table_cell(table, "%s", r->op);
        table_cell(table, "%s", r->case_name);
        table_cell(table, "%.4g", r->p50 * 1e3);
        table_cell(table, "%.4g", r->p95 * 1e3);
        table_cell(table, "%.0f", tokens_rate(r));
        table_cell(table, "%.1f", r->flops / r->p50 / 1e9);
        table_cell(table, "%.1f", r->bytes / r->p50 / 1e9);
        table_cell(table, "%.0f%%", r->peak_share * 100);
        if (r->peer[0])
            table_cell(table, "%s %.4g ms (%.2fx)", r->peer, r->peer_p50 * 1e3,
                       r->peer_p50 / r->p50);
        else
            table_cell(table, "%s", "");
    }
    table_print(table);
    table_destroy(&table);
}

static json_t *row_json(const struct itera_bench_row *r, json_t *fallback)
{
    json_t *row = json_pack("{s:s, s:i, s:s, s:s, s:s, s:s, s:I, s:I, s:i}", "device", r->device,
                            "threads", r->threads, "dtype", r->dtype, "phase", r->phase, "op",
                            r->op, "case", r->case_name, "batch", (json_int_t)r->batch, "tokens",
                            (json_int_t)r->tokens, "repeats", r->repeats);
    json_object_set_new(row, "tokens_per_second", output_number(tokens_rate(r)));
    json_object_set_new(row, "latency_ms",
                        json_pack("{s:f, s:f, s:f, s:f}", "p50", r->p50 * 1e3, "p95", r->p95 * 1e3,
                                  "p99", r->p99 * 1e3, "best", r->best * 1e3));
    json_object_set_new(row, "gflops", output_number(r->flops / r->p50 / 1e9));
    json_object_set_new(row, "gbytes_per_s", output_number(r->bytes / r->p50 / 1e9));
    json_object_set_new(row, "peak_share", output_number(r->peak_share));
    json_object_set_new(row, "gemm_gflops",
                        r->gemm_gflops > 0 ? json_real(r->gemm_gflops) : json_null());
    json_object_set_new(row, "energy", json_null());
    json_object_set(row, "fallback_ops", fallback);
    json_object_set_new(row, "memory_bytes", json_integer((json_int_t)r->memory_bytes));
    if (r->peer[0])
        json_object_set_new(row, "peer",
                            json_pack("{s:s, s:f, s:f}", "name", r->peer, "p50_ms",
                                      r->peer_p50 * 1e3, "speedup", r->peer_p50 / r->p50));
    return row;
}

static json_t *peaks_json(const struct itera_bench_peaks *p)
{
    json_t *reads = json_array();
    for (int i = 0; i < ITERA_BENCH_SIZES; i++)
        json_array_append_new(reads, json_pack("{s:f, s:f}", "bytes", p->read_bytes[i],
                                               "gbytes_per_s", p->read_gbytes[i]));
    return json_pack("{s:f, s:f, s:o}", "gflops", p->gflops, "copy_gbytes_per_s", p->copy_gbytes,
                     "read", reads);
}

static json_t *host_json(void)
{
    struct utsname u;
    json_t *host = json_object();
    if (!uname(&u)) {
        json_object_set_new(host, "system", json_string(u.sysname));
        json_object_set_new(host, "release", json_string(u.release));
        json_object_set_new(host, "machine", json_string(u.machine));
    }
    struct itera_device_info *infos = NULL;
    int count = 0;
    if (!itera_devices(&infos, &count) && count > 0)
        json_object_set_new(host, "cpu", json_string(infos[0].name));
    free(infos);
    json_object_set_new(host, "processors", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
    json_object_set_new(host, "itera", json_string(ITERA_VERSION));
    char date[32];
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) && strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc))
        json_object_set_new(host, "date", json_string(date));
    return host;
}

struct settings {
    const char *mode;  /* ops, model, train, or NULL: model and train */
    const char *model; /* a file; NULL: the presets */
    struct option_names presets;
    struct option_names devices;
    struct option_names dtypes; /* n is 0: as the model has them, f32 for presets */
    struct itera_load_options load;
    struct option_integers threads;
    struct device_request request; /* its fallback policy */
    bool quick;
    bool breakdown;
    struct itera_bench_options options;
};

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
        table_cell(table, "%.1f", p->flops / p->seconds / 1e9);
        table_cell(table, "%.1f", p->bytes / p->seconds / 1e9);
    }
    table_print(table);
    table_destroy(&table);
}

static enum itera_status print_breakdown(struct itera_model *model, const char *name, bool training,
                                         const struct settings *s)
{
    struct itera_bench_part parts[ITERA_BENCH_PARTS];
    int count = 0;
    int64_t batch = training ? s->options.train_batch : 1;
    int64_t tokens = training               ? s->options.train_seq
                     : s->options.n_prompts ? s->options.prompts[0]
                                            : 128;
    int64_t limit = itera_model_info(model)->max_positions;
    if (limit && tokens > limit)
        tokens = limit;
    enum itera_status status = itera_bench_breakdown(model, training, batch, tokens, parts, &count);
    if (status)
        return status;
    printf("\n%s, %s of %lldx%lld tokens, each op timed apart:\n", name,
           training ? "a training step" : "forward", (long long)batch, (long long)tokens);
    print_parts(parts, count, false);
    printf("\n");
    print_parts(parts, count, true);
    return ITERA_OK;
}

/* The file or preset, with its weights as `dtype` (NULL: as they are). */
static enum itera_status make_model(struct itera_device *device, const struct settings *s,
                                    const char *preset, const char *dtype,
                                    struct itera_model **model)
{
    const struct itera_model_options create = {.dropout = -1, .seed = 1, .exact = s->load.exact};
    enum itera_status status = s->model ? itera_model_load_as(device, s->model, &s->load, model)
                                        : itera_model_create(device, preset, &create, model);
    if (status || !dtype || (!s->model && !strcmp(dtype, "f32")))
        return status;
    const struct itera_quantize_options options = {.to = dtype, .plain = true};
    struct itera_model *wide = *model;
    status = itera_quantize(wide, &options, model);
    itera_model_destroy(&wide);
    return status;
}

static enum itera_status bench_one_model(struct itera_device *device, const struct settings *s,
                                         const char *preset, const char *dtype, struct bench *b)
{
    struct itera_model *model = NULL;
    enum itera_status status = make_model(device, s, preset, dtype, &model);
    if (status)
        return status;
    const char *name = preset;
    if (s->model) {
        const char *slash = strrchr(s->model, '/');
        name = slash ? slash + 1 : s->model;
    }
    /* Narrow weights are not trained. */
    const struct itera_model_info *info = itera_model_info(model);
    bool infer = !s->mode || !strcmp(s->mode, "model");
    bool train = info->bytes == 4 * info->parameters && (!s->mode || !strcmp(s->mode, "train"));
    if (infer)
        status = itera_bench_model(model, name, &s->options, keep_row, b);
    if (!status && train)
        status = itera_bench_train(model, name, &s->options, keep_row, b);
    if (!status && s->breakdown && infer)
        status = print_breakdown(model, name, false, s);
    if (!status && s->breakdown && train)
        status = print_breakdown(model, name, true, s);
    itera_model_destroy(&model);
    return status;
}

static enum itera_status bench_device(const char *id, int64_t threads, const struct settings *s,
                                      struct bench *b, json_t *peaks_list)
{
    struct device_request request = {id, threads, s->request.fallback};
    struct itera_device *device;
    enum itera_status status = device_open(&request, &device);
    if (status)
        return status;
    b->device = device;
    struct settings here = *s;
    status = itera_bench_measure_peaks(device, &here.options.peaks);
    if (!status) {
        const struct itera_bench_peaks *p = &here.options.peaks;
        const struct itera_device_info *info = itera_device_info(device);
        progress_line("%s x%d (%s): %.0f GFLOP/s f32 matmul, copy %.1f GB/s, read %.0f / %.0f / "
                      "%.1f GB/s of %.1f / %.0f / %.0f MB",
                      info->id, itera_device_threads(device), info->driver, p->gflops,
                      p->copy_gbytes, p->read_gbytes[0], p->read_gbytes[1], p->read_gbytes[2],
                      p->read_bytes[0] / 1e6, p->read_bytes[1] / 1e6, p->read_bytes[2] / 1e6);
        json_t *peaks = peaks_json(p);
        json_object_set_new(peaks, "device", json_string(info->id));
        json_object_set_new(peaks, "driver", json_string(info->driver));
        json_object_set_new(peaks, "threads", json_integer(itera_device_threads(device)));
        json_array_append_new(peaks_list, peaks);
    }
    if (!status && s->mode && !strcmp(s->mode, "ops")) {
        status = itera_bench_ops(device, &here.options, keep_row, b);
    } else {
        const size_t models = s->model ? 1 : s->presets.n;
        const size_t types = s->dtypes.n ? s->dtypes.n : 1;
        for (size_t i = 0; i < models * types && !status; i++)
            status = bench_one_model(device, &here, s->model ? NULL : s->presets.item[i / types],
                                     s->dtypes.n ? s->dtypes.item[i % types] : NULL, b);
    }
    device_report_fallback(device);
    itera_device_close(&device);
    return status;
}

/* One entry of --device: a device with each number of threads, or all of them. Threads are the
 * CPU's. */
static enum itera_status bench_devices(const char *id, const struct settings *s, struct bench *b,
                                       json_t *peaks)
{
    struct itera_device_info *infos;
    int count;
    enum itera_status status = itera_devices(&infos, &count);
    bool all = !strcmp(id, "all");
    for (int i = 0; i < (all ? count : 1) && !status; i++) {
        const char *name = all ? infos[i].id : id;
        size_t turns = strchr(name, ':') ? 1 : s->threads.n;
        for (size_t t = 0; t < turns && !status; t++)
            status = bench_device(name, s->threads.item[t], s, b, peaks);
    }
    free(infos);
    return status;
}

static int run(const struct settings *s, const struct option_optional *json)
{
    struct bench b = {.rows = calloc(MAX_ROWS, sizeof *b.rows),
                      .fallback = calloc(MAX_ROWS, sizeof *b.fallback)};
    json_t *peaks = json_array();
    if (!b.rows || !b.fallback || !peaks) {
        command_error("no memory for the results");
        free(b.rows);
        free(b.fallback);
        json_decref(peaks);
        return EXIT_FAILED;
    }
    enum itera_status status = ITERA_OK;
    for (size_t d = 0; d < s->devices.n && !status; d++)
        status = bench_devices(s->devices.item[d], s, &b, peaks);
    int code = status ? EXIT_FAILED : EXIT_OK;
    if (!status && (!json->given || (json->value && strcmp(json->value, "-"))))
        print_rows(&b);
    if (!status && json->given) {
        json_t *runs = json_array();
        for (int i = 0; i < b.n_rows; i++)
            json_array_append_new(runs, row_json(&b.rows[i], b.fallback[i]));
        json_t *host = host_json();
        json_object_set(host, "peaks", peaks);
        json_t *root = json_pack("{s:o, s:o}", "host", host, "runs", runs);
        code = output_json(root, json->value);
        json_decref(root);
    }
    for (int i = 0; i < b.n_rows; i++)
        json_decref(b.fallback[i]);
    free(b.fallback);
    free(b.rows);
    json_decref(peaks);
    return code;
}

int itera_command_bench(int argc, char **argv)
{
    char notes[1024];
    snprintf(
        notes, sizeof notes,
        "Times are medians of runs of one piece of work after a warm-up; \"of peak\" is the time "
        "that\nthe measured peaks would allow, over the median. forward computes the logits of "
        "every\nposition, prefill those of the last.\n\n%s",
        output_presets());
    static const char *const cpu[] = {"cpu"}, *const micro[] = {"micro"};
    static const int64_t all_threads[] = {0}, prompts[] = {128, 512}, quick_prompts[] = {128};
    static const int64_t ones[] = {1};
    struct settings s = {.presets = {1, micro}, .devices = {1, cpu}, .threads = {1, all_threads}};
    struct option_integers prompt = {0}, batch = {1, ones};
    int64_t generate = 64, train_batch = 8, train_seq = 128;
    double seconds = 0;
    const char *filter = NULL;
    struct option_optional json = {0};
    const struct command_option options[] = {
        {"preset", 0, OPTION_NAMES, &s.presets, "P",
         "presets to create with random weights, instead of a\nMODEL (default: micro)"},
        {"device", 'd', OPTION_NAMES, &s.devices, "LIST",
         "devices: all, auto, or a comma list (default: cpu)"},
        FALLBACK_OPTION(s.request),
        {"threads", 't', OPTION_INTEGERS, &s.threads, "LIST",
         "CPU: thread counts to measure (default: one per processor)", 1, 1024},
        {"dtype", 0, OPTION_NAMES, &s.dtypes, "LIST",
         "weights as f32, f16, bf16, q8, q4 or mixed (default:\nas the model has them; presets: "
         "f32)",
         0, 0, "f32|f16|bf16|q8|q4|mixed"},
        EXACT_OPTION(s.load.exact),
        {"prompt", 0, OPTION_INTEGERS, &prompt, "LIST",
         "lengths for forward and prefill (default: 128,512)", 1, 1 << 20},
        {"gen", 'n', OPTION_INTEGER, &generate, "N", "tokens to decode (default: 64)", 1, 1 << 20},
        {"batch", 0, OPTION_INTEGERS, &batch, "LIST", "sequences at a time (default: 1)", 1, 1024},
        {"train-batch", 0, OPTION_INTEGER, &train_batch, "N", "train: sequences (default: 8)", 1,
         1024},
        {"train-seq", 0, OPTION_INTEGER, &train_seq, "N", "train: tokens each (default: 128)", 2,
         1 << 20},
        {"op", 0, OPTION_STRING, &filter, "GLOB",
         "ops: only those whose name, or name and case, "
         "match"},
        {"seconds", 0, OPTION_NUMBER, &seconds, "S", "time for each row (default: 1)", 0.01, 600},
        {"breakdown", 0, OPTION_FLAG, &s.breakdown, NULL,
         "model, train: time by part of the model and by op"},
        {"quick", 0, OPTION_FLAG, &s.quick, NULL, "a short run: fewer rows, 0.2 s each"},
        {"json", 0, OPTION_OPTIONAL, &json, "FILE", "write JSON to FILE, or to stdout"},
        {0}};
    const struct command_spec spec = {
        .name = "bench",
        .positional = "[ops|model|train] [MODEL]",
        .summary =
            "Measures ops, inference (forward, prefill, decode) or training on each device, "
            "beside\n"
            "what the device reaches in a large f32 matmul and in reading memory in the same run.\n"
            "Without a mode: model and train.",
        .options = options,
        .notes = notes,
        .max = 2};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    int at = 0;
    if (args.n && (!strcmp(args.positional[0], "ops") || !strcmp(args.positional[0], "model") ||
                   !strcmp(args.positional[0], "train")))
        s.mode = args.positional[at++];
    if (at < args.n)
        s.model = args.positional[at++];
    if (at < args.n) {
        code = options_usage(&spec, "unexpected argument '%s'", args.positional[at]);
    } else if (output_json_check(json.value) != EXIT_OK) {
        code = EXIT_FAILED;
    } else {
        s.options = (struct itera_bench_options){
            .seconds = seconds > 0 ? seconds
                       : s.quick   ? 0.2
                                   : 1,
            .filter = filter,
            .prompts = prompt.n  ? prompt.item
                       : s.quick ? quick_prompts
                                 : prompts,
            .n_prompts = prompt.n  ? (int)prompt.n
                         : s.quick ? 1
                                   : 2,
            .generate = generate,
            .batches = batch.item,
            .n_batches = (int)batch.n,
            .train_batch = train_batch,
            .train_seq = train_seq,
        };
        code = run(&s, &json);
    }
    options_free(&args);
    return code;
}
