/* itera prune: a smaller model without the experts and channels that matter least. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/device_request.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "commands/quality.h"
#include "commands/shrink.h"
#include "itera/compress.h"

struct arguments {
    struct itera_prune_options prune;
    struct finetune_request finetune;
    struct device_request device;
    const char *model, *out, *calibrate, *valid;
    int64_t tokens, eval_tokens;
    bool report;
    struct option_optional json;
};

/* What became of the model. Scores with no tokens were not taken. */
struct outcome {
    struct itera_prune_report *report;
    struct itera_eval_result before, pruned, finetuned;
    struct finetune_result finetune;
};

static int parse(int argc, char **argv, struct arguments *a, struct command_args *args)
{
    const struct command_option options[] = {
        {"out", 'o', OPTION_OUTPUT, &a->out, "FILE", "the smaller model"},
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
        {"valid", 0, OPTION_INPUT, &a->valid, "SRC",
         "held-out text to score before and after (default: none)"},
        {"eval-tokens", 0, OPTION_INTEGER, &a->eval_tokens, "N",
         "score about N tokens of --valid (default: all)", 1, 1e15},
        FINETUNE_OPTIONS(a->finetune),
        {"data", 0, OPTION_INPUT, &a->finetune.data, "SRC",
         "with --finetune: text to train on (default: that of\n--calibrate)"},
        {"report", 0, OPTION_FLAG, &a->report, NULL, "say what was kept in each layer"},
        DEVICE_OPTIONS(a->device),
        {"json", 0, OPTION_OPTIONAL, &a->json, "FILE", "write JSON to FILE, or to stdout"},
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
    const char *missing = NULL, *unused = shrink_finetune_unused(&a->finetune);
    if (a->finetune.data && !a->finetune.steps)
        unused = "data";
    if (!a->out)
        missing = "-o FILE is needed: where the smaller model goes";
    else if (!p->experts && !p->ffn && !p->inner && !p->channels)
        missing = "one of --experts, --ffn, --inner and --keep is needed";
    if (missing || unused) {
        options_free(args);
        return missing ? options_usage(&spec, "%s", missing)
                       : options_usage(&spec, "--%s needs --finetune", unused);
    }
    a->model = args->positional[0];
    a->prune.tokens = a->tokens;
    if (!a->finetune.data)
        a->finetune.data = a->calibrate;
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

static void print_outcome(const struct arguments *a, const struct outcome *o)
{
    print_sizes(o->report);
    if (a->report)
        print_layers(o->report);
    if (a->valid) {
        const struct shrink_score scores[] = {
            {"original", &o->before}, {"pruned", &o->pruned}, {"fine-tuned", &o->finetuned}};
        shrink_print_scores(scores, a->finetune.steps ? 3 : 2, a->valid);
    }
    printf("\nwrote %s\n", a->out);
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

static int write_json(const struct arguments *a, const struct outcome *o,
                      const struct itera_device *device)
{
    json_t *root =
        json_pack("{s:o, s:o, s:{s:o, s:I}, s:o, s:o, s:o}", "model", output_path(a->model), "out",
                  output_path(a->out), "calibration", "data", output_path(a->calibrate), "tokens",
                  (json_int_t)o->report->tokens, "before", sizes_json(&o->report->before), "after",
                  sizes_json(&o->report->after), "layers", layers_json(o->report));
    if (a->valid) {
        json_t *quality =
            json_pack("{s:o, s:o, s:o}", "data", output_path(a->valid), "before",
                      quality_result_json(&o->before), "after", quality_result_json(&o->pruned));
        if (a->finetune.steps)
            json_object_set_new(quality, "finetuned", quality_result_json(&o->finetuned));
        json_object_set_new(root, "quality", quality);
    }
    if (a->finetune.steps)
        json_object_set_new(root, "finetune", shrink_finetune_json(&a->finetune, &o->finetune));
    json_object_set_new(root, "device", json_string(itera_device_info(device)->id));
    json_object_set_new(root, "fallback_ops", device_fallback_json(device));
    int code = output_json(root, a->json.value);
    json_decref(root);
    return code;
}

/* *out is the smaller model, which is in a->out unless it is to be trained first. */
static int make_smaller(const struct arguments *a, struct itera_model *model,
                        struct itera_model **out, struct outcome *o)
{
    /* What cannot be asked for is known before any text is read. */
    struct itera_prune_sizes sizes;
    if (itera_prune_plan(model, &a->prune, &sizes))
        return EXIT_FAILED;
    struct itera_dataset *text = shrink_encode(model, a->calibrate);
    if (!text)
        return EXIT_FAILED;
    bool started = false;
    struct itera_prune_options options = a->prune;
    options.progress = on_progress;
    options.user = &started;
    enum itera_status status = itera_prune(model, text, &options, out, &o->report);
    progress_finish(0);
    itera_dataset_destroy(&text);
    if (!status && !a->finetune.steps)
        status = itera_model_save(*out, a->out);
    return status ? EXIT_FAILED : EXIT_OK;
}

static int finetune(const struct arguments *a, struct itera_device *device,
                    struct itera_model **smaller, int32_t positions, struct outcome *o)
{
    int code =
        shrink_finetune(device, smaller, &a->finetune, positions, a->valid, a->out, &o->finetune);
    struct itera_model *model = NULL;
    if (code != EXIT_OK || !a->valid)
        return code;
    if (itera_model_load(device, a->out, &model))
        return EXIT_FAILED;
    code = shrink_score(model, a->valid, a->eval_tokens, "score fine-tuned", &o->finetuned);
    itera_model_destroy(&model);
    return code;
}

static int prune(const struct arguments *a, struct itera_device *device)
{
    struct itera_model *model = NULL, *smaller = NULL;
    struct outcome o = {0};
    int code = EXIT_FAILED;
    if (itera_model_load(device, a->model, &model))
        return EXIT_FAILED;
    code = make_smaller(a, model, &smaller, &o);
    if (code == EXIT_OK && a->valid)
        code = shrink_score(model, a->valid, a->eval_tokens, "score original", &o.before);
    if (code == EXIT_OK && a->valid)
        code = shrink_score(smaller, a->valid, a->eval_tokens, "score pruned", &o.pruned);
    int32_t positions = itera_model_info(model)->max_positions;
    itera_model_destroy(&model); /* its memory is the trainer's */
    if (code == EXIT_OK && a->finetune.steps)
        code = finetune(a, device, &smaller, positions, &o);
    itera_model_destroy(&smaller);
    if (code == EXIT_OK) {
        bool on_stdout = a->json.given && (!a->json.value || !strcmp(a->json.value, "-"));
        if (!on_stdout)
            print_outcome(a, &o);
        if (a->json.given)
            code = write_json(a, &o, device);
    }
    itera_prune_report_destroy(&o.report);
    return code;
}

int itera_command_prune(int argc, char **argv)
{
    struct arguments a = {.finetune = FINETUNE_DEFAULT, .calibrate = "builtin:stories"};
    struct command_args args;
    int code = parse(argc, argv, &a, &args);
    if (code >= 0)
        return code;
    struct itera_device *device = NULL;
    code = output_json_check(a.json.value);
    if (code == EXIT_OK)
        code = output_file_check(a.out, "a model");
    if (code == EXIT_OK)
        code = shrink_finetune_check(&a.finetune);
    if (code == EXIT_OK && device_open(&a.device, &device))
        code = EXIT_FAILED;
    if (code == EXIT_OK)
        code = prune(&a, device);
    device_report_fallback(device);
    itera_device_close(&device);
    options_free(&args);
    return code;
}
