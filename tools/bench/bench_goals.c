#include "bench/bench_goals.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/stop.h"
#include "results/results.h"

/* What is measured, in steps of one set of devices each. */
static const struct step {
    const char *mode, *filter;
    const char *presets[2], *dtypes[4], *phases[3];
    int64_t threads, prompt;
    double seconds;
} steps[] = {
    {.mode = "ops", .filter = "matmul 512x3072x768", .threads = 2, .seconds = 3},
    {.mode = "ops", .filter = "ssd_scan 48x64, state 128, 512 tokens", .threads = 2, .seconds = 3},
    {.mode = "ops", .filter = "ssd_scan 48x64, state 128, 1 token", .threads = 2, .seconds = 3},
    {.presets = {"micro", "tiny"},
     .dtypes = {"f32", "f16", "q8", "q4"},
     .phases = {"forward", "decode", "train"},
     .threads = 1,
     .prompt = 128,
     .seconds = 6},
    {.presets = {"mamba-130m"},
     .dtypes = {"f32", "f16", "q8", "q4"},
     .phases = {"prefill", "decode"},
     .threads = 2,
     .prompt = 512,
     .seconds = 10},
    {.presets = {"mamba-tiny"},
     .dtypes = {"f32", "f16", "q8", "q4"},
     .phases = {"prefill", "decode"},
     .threads = 2,
     .prompt = 512,
     .seconds = 3},
};

/* What others reached, on two cores of a Zen 3 with 91 GFLOP/s of f32 matmul a core. peer 0: it is
 * measured in the same run. */
static const struct goal {
    const char *work, *who, *op, *phase, *case_name, *dtype;
    bool per_second; /* peer in tokens per second, else in milliseconds */
    double peer, goal;
} goals[] = {
    {"f32 matmul 512x3072x768", "OpenBLAS, same run", "matmul", "op", "512x3072x768", "f32", false,
     0, 0.95},
    {"`micro` forward 1x128", "PyTorch", "micro", "forward", "1x128", "f32", false, 21, 20},
    {"`micro` decode", "PyTorch", "micro", "decode", "1x1", "f32", true, 152, 300},
    {"`micro` decode, q8", "PyTorch f32", "micro", "decode", "1x1", "q8", true, 152, 500},
    {"`micro` train 8x128", "PyTorch", "micro", "train", "8x128", "f32", false, 208, 8},
    {"`tiny` forward 1x128", "PyTorch", "tiny", "forward", "1x128", "f32", false, 35.5, 5},
    {"`tiny` train 8x128", "PyTorch", "tiny", "train", "8x128", "f32", false, 490, 3},
    {"`tiny` decode", "PyTorch", "tiny", "decode", "1x1", "f32", true, 78, 90},
    {"`tiny` decode, q8", "PyTorch f32", "tiny", "decode", "1x1", "q8", true, 78, 250},
    {"Mamba 130M f16 prefill 512", "llama.cpp", "mamba-130m", "prefill", "1x512", "f16", true, 258,
     2.3},
    {"Mamba 130M f16 decode", "llama.cpp", "mamba-130m", "decode", "1x1", "f16", true, 66, 1.15},
    {"Mamba 130M q8 prefill 512", "llama.cpp", "mamba-130m", "prefill", "1x512", "q8", true, 240,
     3.5},
    {"Mamba 130M q8 decode", "llama.cpp", "mamba-130m", "decode", "1x1", "q8", true, 90, 1.5},
    {"Mamba 130M q4 prefill 512", "llama.cpp", "mamba-130m", "prefill", "1x512", "q4", true, 249,
     3.5},
    {"Mamba 130M q4 decode", "llama.cpp", "mamba-130m", "decode", "1x1", "q4", true, 114, 1.9},
    {"Mamba 0.77M f16 prefill 512", "llama.cpp", "mamba-tiny", "prefill", "1x512", "f16", true,
     11000, 5},
    {"Mamba 0.77M f16 decode", "llama.cpp", "mamba-tiny", "decode", "1x1", "f16", true, 2980, 12},
    {"`ssd_scan`, 512 tokens", "ggml", "ssd_scan", "op", "48x64, state 128, 512 tokens", "f32",
     false, 15.0, 2},
    {"`ssd_scan`, 1 token", "ggml", "ssd_scan", "op", "48x64, state 128, 1 token", "f32", false,
     0.037, 1},
};

static size_t count_of(const char *const *names, size_t most)
{
    size_t n = 0;
    while (n < most && names[n])
        n++;
    return n;
}

enum itera_status bench_goals_measure(struct bench *b)
{
    static const char *const cpu[] = {"cpu"};
    static const int64_t one = 1;
    const struct bench_settings *const given = b->s;
    enum itera_status status = ITERA_OK;
    for (size_t i = 0; i < sizeof steps / sizeof *steps && !status && !stop_asked(); i++) {
        const struct step *step = &steps[i];
        struct bench_settings s = *given;
        s.mode = step->mode;
        s.filter = step->filter;
        s.devices = (struct option_names){1, cpu};
        s.presets = (struct option_names){count_of(step->presets, 2), step->presets};
        s.dtypes = (struct option_names){count_of(step->dtypes, 4), step->dtypes};
        s.phases = (struct option_names){count_of(step->phases, 3), step->phases};
        s.threads = (struct option_integers){1, &step->threads};
        s.prompts = (struct option_integers){1, &step->prompt};
        s.batches = (struct option_integers){1, &one};
        s.seconds = given->seconds > 0 ? given->seconds : step->seconds;
        b->s = &s;
        status = bench_open_devices(b);
        if (!status)
            status = bench_measure(b);
        b->s = given;
        bench_close_devices(b);
        b->n_devices = 0;
    }
    return status;
}

static const json_t *find_row(const json_t *result, const struct goal *goal)
{
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(result, "runs"), i,
                       row) if (!strcmp(results_text(row, "op"), goal->op) &&
                                !strcmp(results_text(row, "phase"), goal->phase) &&
                                !strcmp(results_text(row, "case"), goal->case_name) &&
                                !strcmp(results_text(row, "dtype"), goal->dtype)) return row;
    return NULL;
}

static void print_goal(FILE *out, const struct goal *goal, const json_t *row)
{
    const double core = 91; /* GFLOP/s of matmul where the peers were measured */
    const double p50 = results_number(row, "latency_ms.p50");
    const double low = results_number(row, "latency_ms.low");
    const double high = results_number(row, "latency_ms.high");
    const double rate = results_number(row, "tokens_per_second");
    const double beside = results_number(row, "peer.p50_ms");
    const double threads = results_number(row, "threads"),
                 gemm = results_number(row, "gemm_gflops");
    const double ratio = !(goal->peer > 0)  ? beside / p50
                         : goal->per_second ? rate / goal->peer
                                            : goal->peer / p50;
    fprintf(out, "| %s | %.0f | %s | ", goal->work, threads, goal->who);
    if (!(goal->peer > 0))
        fprintf(out, isfinite(beside) ? "%.3g ms | " : "not installed | ", beside);
    else
        fprintf(out, goal->per_second ? "%.0f tok/s | " : "%.3g ms | ", goal->peer);
    fprintf(out, goal->per_second ? "%.0f tok/s" : "%.3g ms", goal->per_second ? rate : p50);
    if (low > 0 && high > 0 && goal->per_second)
        fprintf(out, " (%.0f to %.0f)", rate * p50 / high, rate * p50 / low);
    else if (low > 0 && high > 0)
        fprintf(out, " (%.3g to %.3g)", low, high);
    fprintf(out, isfinite(ratio) ? " | %.3gx | " : " | | ", ratio);
    const double scaled = goal->peer > 0 && gemm > 0 ? ratio * core * threads / gemm : 0;
    if (scaled > 0)
        fprintf(out, "%.3gx | ", scaled);
    else
        fprintf(out, "| ");
    fprintf(out, "%.3gx%s |\n", goal->goal,
            ratio >= goal->goal    ? ", met"
            : scaled >= goal->goal ? ", met scaled"
                                   : "");
}

/* The table in Markdown; free with free(). NULL: no memory. */
static char *goals_table(const json_t *result)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    const double processors = results_number(result, "host.processors");
    fprintf(out, "Measured %.10s by `itera bench goals` on %s", results_text(result, "host.date"),
            results_text(result, "host.cpu"));
    if (processors > 0)
        fprintf(out, ", %.0f processors", processors);
    fprintf(out, ". Here: median and 95%% interval.\n\n"
                 "| work | threads | peer | it took | here | ratio | scaled | goal |\n"
                 "|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof goals / sizeof *goals; i++) {
        const json_t *row = find_row(result, &goals[i]);
        if (row && (!goals[i].per_second || results_number(row, "tokens_per_second") > 0))
            print_goal(out, &goals[i], row);
        else
            fprintf(out, "| %s | | %s | | not measured | | | %.3gx |\n", goals[i].work,
                    goals[i].who, goals[i].goal);
    }
    fprintf(out, "\n\"scaled\" is the ratio times how much slower this machine's f32 matmul was in "
                 "that minute than where the peer\nwas measured (91 GFLOP/s a thread).\n");
    bool failed = ferror(out);
    failed = fclose(out) != 0 || failed;
    if (failed) {
        free(text);
        return NULL;
    }
    return text;
}

/* The whole file; free with free(). NULL after printing why. */
static char *read_text(const char *file)
{
    enum { MOST = 1 << 20 };
    char *text = malloc(MOST + 1);
    FILE *f = text ? fopen(file, "r") : NULL;
    size_t n = f ? fread(text, 1, MOST, f) : 0;
    if (!f || ferror(f) || !feof(f)) {
        command_error("cannot read %s: %s", file,
                      f && !ferror(f) ? "it is too large" : strerror(errno));
        free(text);
        text = NULL;
    }
    if (f)
        fclose(f);
    if (text)
        text[n] = 0;
    return text;
}

int bench_goals_write(const json_t *result, const char *file)
{
    static const char begin[] = "<!-- goals -->\n", end[] = "<!-- /goals -->";
    char *table = goals_table(result), *old = NULL, *all = NULL;
    int code = EXIT_FAILED;
    if (!table) {
        command_error("no memory for the table of goals");
    } else if (!file) {
        code = printf("%s", table) < 0 ? EXIT_FAILED : EXIT_OK;
    } else if ((old = read_text(file))) {
        char *from = strstr(old, begin), *to = from ? strstr(from, end) : NULL;
        const size_t size = strlen(old) + strlen(table) + 1;
        if (!to) {
            command_error(
                "%s has no lines \"<!-- goals -->\" and \"%s\": where should the table go?", file,
                end);
        } else if (!(all = malloc(size))) {
            command_error("no memory for %s", file);
        } else {
            from += strlen(begin);
            snprintf(all, size, "%.*s%s%s", (int)(from - old), old, table, to);
            code = output_text(file, all);
        }
    }
    free(table);
    free(old);
    free(all);
    return code;
}
