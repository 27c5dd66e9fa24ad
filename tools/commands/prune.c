/* itera prune: a smaller model without the experts and channels that matter least. */
#include <math.h>
#include <stdio.h>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "commands/shrink.h"
#include "itera/compress.h"

struct arguments {
    struct shrink_request common;
    struct itera_prune_options prune;
    const char *calibrate;
    int64_t tokens;
    bool report;
};

struct pruning {
    const struct arguments *a;
    struct itera_prune_report *report;
};

static int parse(int argc, char **argv, struct arguments *a, struct command_args *args)
{
    const struct command_option options[] = {
        {"out", 'o', OPTION_OUTPUT, &a->common.out, "FILE", "the smaller model"},
        FORCE_OPTION(a->common.force),
        {"experts", 0, OPTION_STRING, &a->prune.experts, "N",
         "keep N (or P%) experts in each layer that has any"},
        {"ffn", 0, OPTION_STRING, &a->prune.ffn, "N",
         "keep N (or P%) channels of each feed-forward and expert"},
        {"inner", 0, OPTION_STRING, &a->prune.inner, "N",
         "keep N (or P%) inner channels of each SSM mixer"},
        {"keep", 0, OPTION_STRING, &a->prune.channels, "P%",
         "both of these, as far as the model has them"},
        {"calibrate", 0, OPTION_INPUT, &a->calibrate, "SRC",
         "text that shows what matters: best a part of what the model\n"
         "was trained on (default: builtin:stories)"},
        {"tokens", 0, OPTION_INTEGER, &a->tokens, "N", "of that text (default: 32768)", 1, 1e12},
        {"valid", 0, OPTION_INPUT, &a->common.valid, "SRC",
         "held-out text to score before and after (default: none)"},
        {"eval-tokens", 0, OPTION_INTEGER, &a->common.eval_tokens, "N",
         "score about N tokens of --valid (default: all)", 1, 1e15},
        FINETUNE_OPTIONS(a->common.finetune),
        {"data", 0, OPTION_INPUT, &a->common.finetune.data, "SRC",
         "with --finetune: text to train on (default: that of\n--calibrate)"},
        {"report", 0, OPTION_FLAG, &a->report, NULL, "say what was kept in each layer"},
        DEVICE_OPTIONS(a->common.device),
        {"json", 0, OPTION_OPTIONAL, &a->common.json, "FILE", "write JSON to FILE, or to stdout"},
        {0}};
    const struct command_spec spec = {
        .name = "prune",
        .positional = "MODEL",
        .summary = "Removes the experts that get the least routing, and the channels that add the\n"
                   "least, by what the model does on a text. The result has smaller shapes.",
        .options = options,
        .notes = "Sizes are what is kept. Percentages of channels are rounded to the nearest\n"
                 "multiple of 32, the block of q8 and q4 weights, unless that is all there is.\n\n"
                 "Example: itera prune run/model.safetensors --experts 3 --keep 75% --calibrate "
                 "train.txt \\\n             --valid valid.txt --finetune 500 -o "
                 "small.safetensors",
        .min = 1,
        .max = 1};
    int code = options_parse(&spec, argc, argv, args);
    if (code >= 0)
        return code;
    const struct itera_prune_options *p = &a->prune;
    const char *missing = NULL, *unused = shrink_finetune_unused(&a->common.finetune);
    if (a->common.finetune.data && !a->common.finetune.steps)
        unused = "data";
    if (!a->common.out)
        missing = "-o FILE is needed: where the smaller model goes";
    else if (!p->experts && !p->ffn && !p->inner && !p->channels)
        missing = "one of --experts, --ffn, --inner and --keep is needed";
    if (missing || unused) {
        options_free(args);
        return missing ? options_usage(&spec, "%s", missing)
                       : options_usage(&spec, "--%s needs --finetune", unused);
    }
    a->common.model = args->positional[0];
    a->prune.tokens = a->tokens;
    if (!a->common.finetune.data)
        a->common.finetune.data = a->calibrate;
    return -1;
}

static int on_progress(void *user, int64_t done, int64_t total)
{
    bool *started = user;
    if (!*started)
        progress_start("calibrate", "tok", (double)total);
    *started = true;
    progress_update((double)done, NULL);
    return 0;
}

static void print_size(const char *what, int32_t before, int32_t after)
{
    if (before)
        printf("%-22s %11d  %11d\n", what, before, after);
}

static void print_sizes(const struct itera_prune_report *r)
{
    const struct itera_prune_sizes *b = &r->before, *a = &r->after;
    char before[32], after[32];
    printf("%-22s %11s  %11s\n", "", "before", "after");
    print_size("experts", b->experts, a->experts);
    print_size("feed-forward channels", b->ffn, a->ffn);
    print_size("inner channels", b->inner, a->inner);
    printf("%-22s %11s  %11s  %5.1f%%\n", "parameters",
           output_grouped(b->parameters, before, sizeof before),
           output_grouped(a->parameters, after, sizeof after),
           100.0 * (double)a->parameters / (double)b->parameters);
    printf("%-22s %11s  %11s  %5.1f%%\n", "weights", output_size(b->bytes, before, sizeof before),
           output_size(a->bytes, after, sizeof after), 100.0 * (double)a->bytes / (double)b->bytes);
    printf("%-22s %11.3f  %11.3f  %5.1f%%\n", "MFLOP per token", b->flops_per_token * 1e-6,
           a->flops_per_token * 1e-6, 100.0 * a->flops_per_token / b->flops_per_token);
}

static void share_cell(struct table *table, double share)
{
    if (isnan(share))
        table_cell(table, "%s", "");
    else
        table_cell(table, "%.2f%%", 100 * share);
}

static void print_layers(const struct itera_prune_report *r)
{
    static const char *const titles[] = {"layer",        "experts kept", "routing",
                                         "feed-forward", "inner",        "step error"};
    struct table *table = table_create(6, titles, "llrrrr");
    for (int i = 0; i < r->n_layers; i++) {
        const struct itera_prune_layer *l = &r->layers[i];
        char experts[1024] = "";
        size_t used = 0;
        for (int e = 0; e < l->experts && used < sizeof experts - 16; e++)
            used += (size_t)snprintf(experts + used, sizeof experts - used, "%s%d", e ? " " : "",
                                     l->kept[e]);
        table_cell(table, "%d", i);
        table_cell(table, "%s", experts);
        share_cell(table, l->routed);
        share_cell(table, l->ffn);
        share_cell(table, l->inner);
        share_cell(table, l->step_error);
    }
    printf("\nwhat was kept, as a share of the layer's routing and of its channels' importance\n");
    table_print(table);
    table_destroy(&table);
}

static void print_outcome(const void *user)
{
    const struct pruning *p = user;
    print_sizes(p->report);
    if (p->a->report)
        print_layers(p->report);
}

static json_t *sizes_json(const struct itera_prune_sizes *s)
{
    return json_pack("{s:o, s:o, s:o, s:I, s:I, s:o}", "experts",
                     s->experts ? json_integer(s->experts) : json_null(), "ffn",
                     s->ffn ? json_integer(s->ffn) : json_null(), "inner",
                     s->inner ? json_integer(s->inner) : json_null(), "parameters",
                     (json_int_t)s->parameters, "bytes", (json_int_t)s->bytes, "flops_per_token",
                     output_number(s->flops_per_token));
}

static json_t *layers_json(const struct itera_prune_report *r)
{
    json_t *layers = json_array();
    for (int i = 0; i < r->n_layers; i++) {
        const struct itera_prune_layer *l = &r->layers[i];
        json_t *kept = l->experts ? json_array() : json_null();
        for (int e = 0; e < l->experts; e++)
            json_array_append_new(kept, json_integer(l->kept[e]));
        json_array_append_new(
            layers,
            json_pack("{s:i, s:o, s:o, s:o, s:o, s:o}", "layer", i, "experts", kept, "routing_kept",
                      output_number(l->routed), "ffn_kept", output_number(l->ffn), "inner_kept",
                      output_number(l->inner), "step_error", output_number(l->step_error)));
    }
    return layers;
}

static json_t *outcome_json(const void *user)
{
    const struct pruning *p = user;
    const struct arguments *a = p->a;
    return json_pack("{s:o, s:o, s:{s:o, s:I}, s:o, s:o, s:o}", "model",
                     output_path(a->common.model), "out", output_path(a->common.out), "calibration",
                     "data", output_path(a->calibrate), "tokens", (json_int_t)p->report->tokens,
                     "before", sizes_json(&p->report->before), "after",
                     sizes_json(&p->report->after), "layers", layers_json(p->report));
}

static int make_smaller(void *user, struct itera_model *model, struct itera_model **smaller)
{
    struct pruning *p = user;
    /* What cannot be asked for is known before any text is read. */
    struct itera_prune_sizes sizes;
    if (itera_prune_plan(model, &p->a->prune, &sizes))
        return EXIT_FAILED;
    struct itera_dataset *text = shrink_encode(model, p->a->calibrate);
    if (!text)
        return EXIT_FAILED;
    bool started = false;
    struct itera_prune_options options = p->a->prune;
    options.progress = on_progress;
    options.user = &started;
    enum itera_status status = itera_prune(model, text, &options, smaller, &p->report);
    progress_finish(0);
    itera_dataset_destroy(&text);
    return status ? EXIT_FAILED : EXIT_OK;
}

int itera_command_prune(int argc, char **argv)
{
    static const struct shrink_command command = {
        .smaller = "pruned", .make = make_smaller, .print = print_outcome, .json = outcome_json};
    struct arguments a = {.common.finetune = FINETUNE_DEFAULT, .calibrate = "builtin:stories"};
    struct command_args args;
    int code = parse(argc, argv, &a, &args);
    if (code >= 0)
        return code;
    struct pruning pruning = {.a = &a};
    code = shrink_run(&a.common, &command, &pruning);
    itera_prune_report_destroy(&pruning.report);
    options_free(&args);
    return code;
}
