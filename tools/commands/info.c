/* itera info: what a model is made of. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "itera/describe.h"

static void print_layers(const struct itera_description *d)
{
    bool used[ITERA_MODEL_PARTS] = {0};
    for (int i = 0; i < d->n_layers; i++)
        for (int p = 0; p < ITERA_MODEL_PARTS; p++)
            used[p] |= d->layers[i].part_parameters[p] > 0;
    const char *titles[ITERA_MODEL_PARTS + 6] = {"layer", "kind"};
    char align[ITERA_MODEL_PARTS + 7] = "ll";
    int columns = 2;
    for (int p = 0; p < ITERA_MODEL_PARTS; p++)
        if (used[p])
            titles[columns++] = itera_model_part_name(p);
    titles[columns++] = "parameters";
    titles[columns++] = "active";
    titles[columns++] = "MFLOP/token";
    for (int i = 2; i < columns; i++)
        align[i] = 'r';
    align[columns] = 0;
    struct table *table = table_create(columns, titles, align);
    char text[32];
    for (int i = 0; i < d->n_layers; i++) {
        const struct itera_layer_description *l = &d->layers[i];
        if (l->layer < 0)
            table_cell(table, "-");
        else
            table_cell(table, "%d", l->layer);
        table_cell(table, "%s", l->kind);
        for (int p = 0; p < ITERA_MODEL_PARTS; p++)
            if (used[p])
                table_cell(table, "%s",
                           l->part_parameters[p]
                               ? output_grouped(l->part_parameters[p], text, sizeof text)
                               : "");
        table_cell(table, "%s", output_grouped(l->parameters, text, sizeof text));
        table_cell(table, "%s", output_grouped(l->active_parameters, text, sizeof text));
        table_cell(table, "%.3f", l->flops_per_token * 1e-6);
    }
    table_print(table);
    table_destroy(&table);
}

static void print_description(const struct itera_description *d, const char *name)
{
    char a[32], b[32];
    printf("%s: %s\n", name, d->architecture);
    printf("parameters       %s (%s active per token)\n",
           output_grouped(d->parameters, a, sizeof a),
           output_grouped(d->active_parameters, b, sizeof b));
    printf("weights          %s (", output_size(d->bytes, a, sizeof a));
    const char *gap = "";
    for (int i = 0; i < ITERA_WEIGHT_DTYPES; i++) {
        if (!d->dtype_bytes[i])
            continue;
        printf("%s%s %s", gap, itera_weight_dtype_name(i),
               output_size(d->dtype_bytes[i], b, sizeof b));
        gap = ", ";
    }
    printf(")\n");
    printf("FLOPs per token  %.4g M\n", d->flops_per_token * 1e-6);
    printf("state            %s per sequence%s\n", output_size(d->state_bytes, a, sizeof a),
           d->max_positions ? "" : ", whatever its length");
    printf("vocabulary       %s\n", output_grouped(d->vocab, a, sizeof a));
    if (d->max_positions)
        printf("positions        %s\n", output_grouped(d->max_positions, a, sizeof a));
    else
        printf("positions        no limit\n");
    printf("width            %d", d->hidden);
    if (d->inner)
        printf(", inner %d", d->inner);
    if (d->ffn)
        printf(", feed-forward %d", d->ffn);
    if (d->experts)
        printf(", %d experts of which a token sees %d", d->experts, d->top_k);
    printf("\n\n");
    print_layers(d);
}

static json_t *parts_json(const struct itera_layer_description *l, bool flops)
{
    json_t *parts = json_object();
    for (int p = 0; p < ITERA_MODEL_PARTS; p++) {
        if (flops && l->part_flops[p] > 0)
            json_object_set_new(parts, itera_model_part_name(p), output_number(l->part_flops[p]));
        if (!flops && l->part_parameters[p])
            json_object_set_new(parts, itera_model_part_name(p),
                                json_integer((json_int_t)l->part_parameters[p]));
    }
    return parts;
}

static int write_json(const struct itera_description *d, const struct itera_tokenizer *tokenizer,
                      const char *file)
{
    json_t *layers = json_array();
    for (int i = 0; i < d->n_layers; i++) {
        const struct itera_layer_description *l = &d->layers[i];
        json_array_append_new(
            layers, json_pack("{s:o, s:s, s:I, s:I, s:o, s:o, s:o}", "layer",
                              l->layer < 0 ? json_null() : json_integer(l->layer), "kind", l->kind,
                              "parameters", (json_int_t)l->parameters, "active_parameters",
                              (json_int_t)l->active_parameters, "flops_per_token",
                              output_number(l->flops_per_token), "parameters_by_part",
                              parts_json(l, false), "flops_by_part", parts_json(l, true)));
    }
    json_t *config = json_loads(d->config, 0, NULL), *dtypes = json_object();
    for (int i = 0; i < ITERA_WEIGHT_DTYPES; i++)
        if (d->dtype_bytes[i])
            json_object_set_new(dtypes, itera_weight_dtype_name(i),
                                json_integer((json_int_t)d->dtype_bytes[i]));
    json_t *root = json_pack(
        "{s:s, s:I, s:I, s:I, s:o, s:o, s:I, s:i, s:i, s:o, s:o, s:o, s:o}", "architecture",
        d->architecture, "parameters", (json_int_t)d->parameters, "active_parameters",
        (json_int_t)d->active_parameters, "bytes", (json_int_t)d->bytes, "bytes_by_dtype", dtypes,
        "flops_per_token", output_number(d->flops_per_token), "state_bytes",
        (json_int_t)d->state_bytes, "vocabulary", d->vocab, "hidden", d->hidden, "max_positions",
        d->max_positions ? json_integer(d->max_positions) : json_null(), "tokenizer",
        tokenizer ? json_string(itera_tokenizer_kind(tokenizer)) : json_null(), "config",
        config ? config : json_null(), "layers", layers);
    int code = output_json(root, file);
    json_decref(root);
    return code;
}

static int print_ops(const struct itera_description *d, const char *phase, int64_t tokens)
{
    char *text = NULL;
    if (itera_describe_ops(d->config, phase, tokens, &text))
        return EXIT_FAILED;
    fputs(text, stdout);
    free(text);
    return EXIT_OK;
}

int itera_command_info(int argc, char **argv)
{
    const char *preset = NULL, *phase = "decode";
    int64_t vocab = 0, tokens = 128;
    bool ops = false, phase_given = false;
    struct option_optional json = {0};
    const struct command_option options[] = {
        {"preset", 0, OPTION_INPUT, &preset, "P", "describe a preset, or a configuration file"},
        {"vocab", 0, OPTION_INTEGER, &vocab, "N", "with --preset: another size of vocabulary", 1,
         1 << 24},
        {"ops", 0, OPTION_FLAG, &ops, NULL, "print the list of ops instead"},
        {"phase", 0, OPTION_CHOICE, &phase, "PHASE",
         "with --ops: decode (default), prefill, eval or train",
         .choices = "decode|prefill|eval|train", .given = &phase_given},
        {"tokens", 0, OPTION_INTEGER, &tokens, "N", "with --ops: time steps (default: 128)", 1,
         1 << 20},
        {"json", 0, OPTION_OPTIONAL, &json, "FILE", "write JSON to FILE, or to stdout"},
        {0}};
    const struct command_spec spec = {
        .name = "info",
        .positional = "[MODEL]",
        .summary = "Parameters, bytes and FLOPs of a model or preset, layer by layer.",
        .options = options,
        .notes = output_presets(),
        .min = 0,
        .max = 1};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    if ((args.n == 1) == (preset != NULL)) {
        options_free(&args);
        return options_usage(&spec, "one of MODEL and --preset is needed");
    }
    if (output_json_check(json.value) != EXIT_OK) {
        options_free(&args);
        return EXIT_FAILED;
    }
    /* A model is loaded to be checked in full, which the CPU does best. */
    struct itera_device *device = NULL;
    struct itera_model *model = NULL;
    struct itera_description *d = NULL;
    enum itera_status status = ITERA_OK;
    if (preset) {
        status = itera_describe_config(preset, (int32_t)vocab, &d);
    } else {
        const struct itera_device_options one = {.threads = 1};
        status = itera_device_open("cpu", &one, &device);
        if (!status)
            status = itera_model_load(device, args.positional[0], &model);
        if (!status)
            status = itera_describe_model(model, &d);
    }
    code = EXIT_FAILED;
    if (!status && (ops || phase_given)) {
        code = print_ops(d, phase, tokens);
    } else if (!status) {
        if (!output_on_stdout(&json))
            print_description(d, preset ? preset : args.positional[0]);
        code = json.given ? write_json(d, model ? itera_model_tokenizer(model) : NULL, json.value)
                          : EXIT_OK;
    }
    itera_description_destroy(&d);
    itera_model_destroy(&model);
    itera_device_close(&device);
    options_free(&args);
    return code;
}
