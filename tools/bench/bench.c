/* itera bench: latency and rates of ops, inference and training. */
#include "bench/bench_parts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench_goals.h"
#include "cli/command.h"
#include "cli/device_request.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/stop.h"
#include "itera/describe.h"
#include "report/bench_report.h"
#include "results/comparison.h"
#include "results/results.h"

struct outputs {
    struct option_optional json;
    const char *html, *csv, *baseline;
    bool goals;
    const char *update, *from; /* goals: the file that has the table; a result to take it from */
};

/* Writes the result wherever it was asked for, and compares it. */
static int write_result(json_t *result, const struct outputs *out, const json_t *baseline)
{
    int code = EXIT_OK, written;
    bool regressed = false;
    if (out->json.given)
        code = output_json(result, out->json.value);
    if (out->csv && (written = results_csv(result, out->csv)) != EXIT_OK)
        code = written;
    if (out->html &&
        (written = bench_report_html((const json_t *const *)&result, 1, out->html)) != EXIT_OK)
        code = written;
    if (out->goals && !(output_on_stdout(&out->json) && !out->update) &&
        (written = bench_goals_write(result, out->update)) != EXIT_OK)
        code = written;
    if (baseline &&
        (compare_results(baseline, result, !output_on_stdout(&out->json), &regressed) != EXIT_OK ||
         regressed))
        code = EXIT_FAILED;
    return code;
}

static int run(const struct bench_settings *s, const struct outputs *out, const json_t *baseline,
               int argc, char **argv)
{
    struct bench b = {.s = s,
                      .peaks = json_array(),
                      .notes = json_array(),
                      .runs = json_array(),
                      .sweeps = json_array(),
                      .table = output_on_stdout(&out->json) ? NULL : bench_table()};
    stop_catch(); /* what was measured until then is kept */
    bench_look_before(&b);
    const int processors = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (s->profile && s->threads.item[0] == processors)
        bench_note(&b, "The profile %s was cut to the %d threads of this machine.", s->profile,
                   processors);
    enum itera_status status = out->goals ? bench_goals_measure(&b) : bench_open_devices(&b);
    if (!status && !out->goals)
        status = s->sweep ? bench_sweep(&b) : bench_measure(&b);
    if (!status && stop_asked())
        bench_note(&b, "The run was interrupted: rows are missing, or have fewer runs.");
    int code = EXIT_FAILED;
    if (!status) {
        if (b.table && json_array_size(b.runs))
            table_print(b.table);
        json_t *result = bench_result(&b, argc, argv);
        size_t i;
        json_t *note;
        json_array_foreach(b.notes, i, note) progress_line("note: %s", json_string_value(note));
        code = write_result(result, out, baseline);
        json_decref(result);
        if (code == EXIT_OK && stop_asked())
            code = EXIT_FAILED;
        if (code == EXIT_OK && !json_array_size(b.runs) && !json_array_size(b.sweeps)) {
            command_error("nothing was measured: no row fits what was asked for");
            code = EXIT_FAILED;
        }
    }
    bench_close_devices(&b);
    table_destroy(&b.table);
    json_decref(b.peaks);
    json_decref(b.notes);
    json_decref(b.runs);
    json_decref(b.sweeps);
    return code;
}

/* Threads of a profile, no more than the machine has. */
static int64_t profile_threads(const char *profile)
{
    const int64_t wanted = !strcmp(profile, "desktop") ? 12 : !strcmp(profile, "laptop") ? 4 : 2;
    const int64_t processors = sysconf(_SC_NPROCESSORS_ONLN);
    return wanted < processors ? wanted : processors;
}

/* What was not asked for: sets of rows that fit into a minute (quick) or into ten. */
static void set_defaults(struct bench_settings *s, bool goals)
{
    static const char *const cpu[] = {"cpu"};
    static const char *const quick[] = {"micro", "mamba-tiny"}, *const curves[] = {
                                                                    "micro", "transformer-micro"};
    static const char *const common[] = {"micro", "itera-m", "transformer-micro", "mamba-tiny"};
    static const int64_t all_threads[] = {0}, prompts[] = {128, 512}, ones[] = {1};
    const bool ops = s->mode && !strcmp(s->mode, "ops");
    if (!s->devices.n)
        s->devices = (struct option_names){1, cpu};
    if (!s->model && !s->presets.n && s->quick && !s->sweep)
        s->lean = quick[1]; /* with the fewest kernels to compile */
    if (!s->presets.n)
        s->presets = s->sweep   ? (struct option_names){2, curves}
                     : s->quick ? (struct option_names){2, quick}
                                : (struct option_names){4, common};
    if (!s->threads.n)
        s->threads = (struct option_integers){1, all_threads};
    if (!s->prompts.n)
        s->prompts = (struct option_integers){s->quick || s->sweep ? 1 : 2, prompts};
    if (!s->batches.n)
        s->batches = (struct option_integers){1, ones};
    if (!(s->seconds > 0) && !goals)
        s->seconds = s->quick ? 0.25 : ops || s->sweep ? 1 : 3;
}

/* What the table of options cannot say. Returns EXIT_OK to go on. */
static int check_settings(const struct command_spec *spec, const struct bench_settings *s,
                          bool threads_given)
{
    if (s->profile && threads_given)
        return options_usage(spec, "--profile sets the threads: --threads cannot be given too");
    if (s->sweep && s->mode)
        return options_usage(spec, "--sweep is not for '%s'", s->mode);
    if (!s->sweep && s->at.n)
        return options_usage(spec, "--at lists the points of --sweep");
    if (s->sweep && s->model && !strcmp(s->sweep, "width"))
        return options_usage(spec, "--sweep width is for presets: a file has its width");
    if (s->sweep && s->dtypes.n && strcmp(s->sweep, "batch") != 0 &&
        (s->dtypes.n > 1 || strcmp(s->dtypes.item[0], "f32") != 0))
        return options_usage(spec, "--sweep %s measures f32 weights", s->sweep);
    if (s->filter && (!s->mode || strcmp(s->mode, "ops") != 0))
        return options_usage(spec, "--op is for 'itera bench ops'");
    for (size_t i = 0; i < s->phases.n && s->mode && strcmp(s->mode, "ops"); i++)
        if (!strcmp(s->phases.item[i], "train") != !strcmp(s->mode, "train"))
            return options_usage(spec, "'itera bench %s' has no phase '%s'", s->mode,
                                 s->phases.item[i]);
    if (s->sweep && s->phases.n)
        return options_usage(spec, "--sweep has a phase of its own: no --phase");
    if (s->model && s->presets.n)
        return options_usage(spec, "--preset is instead of a MODEL, not beside one");
    if (s->mode && !strcmp(s->mode, "ops") &&
        (s->model || s->presets.n || s->dtypes.n || s->phases.n))
        return options_usage(spec, "ops have shapes and types of their own: no MODEL, --preset, "
                                   "--dtype or --phase");
    char ops[400];
    if (s->filter && !bench_any_op(s->filter, ops, sizeof ops))
        return options_usage(spec, "no op matches '%.40s'; measured are %s", s->filter, ops);
    return EXIT_OK;
}

/* Before anything is measured: a mode that is misspelt is taken for a model. */
static int model_there(const char *model)
{
    if (!model || access(model, R_OK) == 0)
        return EXIT_OK;
    command_error("%s: no model can be read there (%s), and the modes are ops, model, train and "
                  "goals",
                  model, strerror(errno));
    return EXIT_FAILED;
}

/* Before anything is measured: the presets that are asked for are there. */
static int presets_there(const struct option_names *presets)
{
    for (size_t i = 0; i < presets->n; i++) {
        struct itera_description *d = NULL;
        if (itera_describe_config(presets->item[i], 0, &d))
            return EXIT_FAILED;
        itera_description_destroy(&d);
    }
    return EXIT_OK;
}

/* The table of goals from a result that is there already. */
static int goals_from(const struct outputs *out)
{
    json_t *result = results_load(out->from);
    int code = result ? bench_goals_write(result, out->update) : EXIT_FAILED;
    json_decref(result);
    return code;
}

/* What follows the command: a mode, and a model. */
static int take_arguments(const struct command_spec *spec, const struct command_args *args,
                          struct bench_settings *s, struct outputs *out)
{
    int at = 0;
    if (args->n && (!strcmp(args->positional[0], "ops") || !strcmp(args->positional[0], "model") ||
                    !strcmp(args->positional[0], "train")))
        s->mode = args->positional[at++];
    else if (args->n && !strcmp(args->positional[0], "goals"))
        out->goals = ++at;
    if (at < args->n && !out->goals)
        s->model = args->positional[at++];
    return at < args->n ? options_usage(spec, "unexpected argument '%s'", args->positional[at])
                        : EXIT_OK;
}

/* Whether what is read is there, and what is written can be: before anything takes long. */
static bool files_there(const struct bench_settings *s, const struct outputs *out,
                        json_t **baseline)
{
    return model_there(s->model) == EXIT_OK && presets_there(&s->presets) == EXIT_OK &&
           output_json_check(out->json.value) == EXIT_OK &&
           (!out->html || output_file_check(out->html, "the report") == EXIT_OK) &&
           (!out->csv || output_file_check(out->csv, "the CSV") == EXIT_OK) &&
           (!out->baseline || (*baseline = results_load(out->baseline)));
}

static int run_with_defaults(struct bench_settings *s, const struct outputs *out,
                             const json_t *baseline, int argc, char **argv)
{
    int64_t threads = s->profile ? profile_threads(s->profile) : 0;
    if (s->profile)
        s->threads = (struct option_integers){1, &threads};
    set_defaults(s, out->goals);
    return run(s, out, baseline, argc, argv);
}

int itera_command_bench(int argc, char **argv)
{
    char notes[1600];
    snprintf(notes, sizeof notes,
             "Rows that are compared take turns. Times are medians with their 95%% confidence "
             "interval;\n\"of peak\" is the time that the measured peaks would allow, over the "
             "median. forward\ncomputes the logits of every position, prefill those of the last; "
             "decode is one token.\nCtrl-C ends early and keeps what was measured. "
             "docs/benchmarks.md explains all figures.\n\n%s\n\n"
             "Examples:\n  itera bench --quick --device all --json r.json --html r.html\n"
             "  itera bench model --preset mamba-130m --threads 1,2 --dtype f32,q8\n"
             "  itera bench --sweep length",
             output_presets());
    struct bench_settings s = {.generate = 64, .train_batch = 8, .train_seq = 128};
    struct outputs out = {0};
    bool threads_given = false;
    const struct command_option options[] = {
        {"preset", 0, OPTION_NAMES, &s.presets, "P",
         "presets to create with random weights, instead of a\nMODEL (default: micro, itera-m, "
         "transformer-micro and\nmamba-tiny; with --quick: micro,\nmamba-tiny)"},
        {"device", 'd', OPTION_NAMES, &s.devices, "LIST",
         "devices: all, auto, or a comma list (default: cpu)"},
        FALLBACK_OPTION(s),
        {"threads", 't', OPTION_INTEGERS, &s.threads, "LIST",
         "CPU: thread counts to measure (default: one per processor)", 1, 1024, NULL,
         &threads_given},
        {"profile", 0, OPTION_CHOICE, &s.profile, "P",
         "threads of a desktop (12), laptop (4) or embedded (2)\nmachine, as far as there are", 0,
         0, "desktop|laptop|embedded"},
        {"dtype", 0, OPTION_NAMES, &s.dtypes, "LIST",
         "weights as f32, f16, bf16, q8, q4 or mixed (default:\nas the model has them; presets: "
         "f32)",
         0, 0, "f32|f16|bf16|q8|q4|mixed"},
        EXACT_OPTION(s.exact),
        PRECISION_OPTION(s.precision),
        {"phase", 0, OPTION_NAMES, &s.phases, "LIST",
         "forward, prefill, decode, mixed, train (default: all\nbut mixed; with --quick, software "
         "devices leave some\nout); mixed is decode of sequences at different\npositions",
         0, 0, "forward|prefill|decode|mixed|train"},
        {"prompt", 0, OPTION_INTEGERS, &s.prompts, "LIST",
         "lengths for forward and prefill (default: 128,512)", 1, 1 << 20},
        {"gen", 'n', OPTION_INTEGER, &s.generate, "N",
         "tokens to decode before beginning anew (default: 64)", 1, 1 << 20},
        {"batch", 0, OPTION_INTEGERS, &s.batches, "LIST", "sequences at a time (default: 1)", 1,
         1024},
        {"train-batch", 0, OPTION_INTEGER, &s.train_batch, "N", "train: sequences (default: 8)", 1,
         1024},
        {"train-seq", 0, OPTION_INTEGER, &s.train_seq, "N", "train: tokens each (default: 128)", 2,
         1 << 20},
        {"op", 0, OPTION_STRING, &s.filter, "GLOB",
         "ops: only those whose name, or name and case, match"},
        {"sweep", 0, OPTION_CHOICE, &s.sweep, "WHAT",
         "how cost grows with length (prefill), batch (decode) or\nwidth (prefill): the curve and "
         "its exponent",
         0, 0, "length|batch|width"},
        {"at", 0, OPTION_INTEGERS, &s.at, "LIST",
         "points of the sweep: lengths, batches, or multiples of\nthe preset's width", 1, 1 << 20},
        {"seconds", 0, OPTION_NUMBER, &s.seconds, "S",
         "time for each row (default: 3; ops and sweeps 1; --quick\n0.25)", 0.01, 600},
        {"breakdown", 0, OPTION_FLAG, &s.breakdown, NULL,
         "print the time by part of the model and by op"},
        {"quick", 0, OPTION_FLAG, &s.quick, NULL, "a short run: fewer rows, 0.25 s each"},
        METER_OPTIONS(s.meter),
        {"json", 0, OPTION_OPTIONAL, &out.json, "FILE", "write JSON to FILE, or to stdout"},
        {"html", 0, OPTION_OUTPUT, &out.html, "FILE", "write a report"},
        {"csv", 0, OPTION_OUTPUT, &out.csv, "FILE", "write the rows as CSV"},
        {"baseline", 0, OPTION_INPUT, &out.baseline, "FILE",
         "compare with this result; 1 is returned when a row got\nslower beyond noise"},
        {"update", 0, OPTION_OUTPUT, &out.update, "FILE",
         "goals: write the table into FILE, between its lines\n<!-- goals --> and <!-- /goals -->"},
        {"from", 0, OPTION_INPUT, &out.from, "FILE",
         "goals: take the table from this result, measure nothing"},
        {0}};
    const struct command_spec spec = {
        .name = "bench",
        .positional = "[ops|model|train|goals] [MODEL]",
        .summary =
            "Measures ops, inference (forward, prefill, decode) or training on each device, "
            "beside\n"
            "what the device reaches in large matmuls and in reading memory in the same run.\n"
            "Without a mode: model and train. goals: the work that itera holds itself against.",
        .options = options,
        .notes = notes,
        .max = 2};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    precision_take(s.precision, &s.exact, &s.half);
    code = take_arguments(&spec, &args, &s, &out);
    if (code == EXIT_OK)
        code = check_settings(&spec, &s, threads_given);
    if (code == EXIT_OK && !out.goals && (out.update || out.from))
        code = options_usage(&spec, "--update and --from are for 'itera bench goals'");
    json_t *baseline = NULL;
    if (code == EXIT_OK && !files_there(&s, &out, &baseline))
        code = EXIT_FAILED;
    if (code == EXIT_OK)
        code = out.from ? goals_from(&out) : run_with_defaults(&s, &out, baseline, argc, argv);
    json_decref(baseline);
    options_free(&args);
    return code;
}
