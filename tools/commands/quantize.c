/* itera quantize: the same model in narrower weights. */
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
#include "itera/compress.h"

/* What the command was asked for. */
struct request {
    const char *model, *out, *to, *calibrate, *valid, *tokenizer;
    struct option_names set;
    struct option_optional json;
    int64_t calibrate_tokens, eval_tokens;
    bool plain, report, force;
    struct device_request device;
};

/* What came of it. */
struct outcome {
    struct itera_quantize_tensor *tensors; /* names and dimensions are copies */
    int n, room;
    bool failed; /* to keep one */
    int64_t bytes_before, bytes_after, parameters;
    struct quality quality;
    bool evaluated;
    const char *working; /* on what there is a progress bar */
};

static const char DEFAULT_VALID[] = "builtin:stories?valid";

/* ---- callbacks ------------------------------------------------------------------------------- */

static int show(struct outcome *o, const char *what, const char *unit, int64_t done, int64_t total)
{
    if (o->working != what) {
        progress_finish(0);
        progress_start(what, unit, (double)total);
        o->working = what;
    }
    progress_update((double)done, NULL);
    return 0;
}

static int on_calibration(void *user, int64_t done, int64_t total)
{
    static const char what[] = "calibrate";
    return show(user, what, "tok", done, total);
}

static int on_weights(void *user, int64_t done, int64_t total)
{
    static const char what[] = "quantize";
    return show(user, what, "weights", done, total);
}

static void on_tensor(void *user, const struct itera_quantize_tensor *tensor)
{
    struct outcome *o = user;
    if (o->n == o->room) {
        int room = o->room ? 2 * o->room : 64;
        struct itera_quantize_tensor *moved = realloc(o->tensors, (size_t)room * sizeof *moved);
        if (!moved) {
            o->failed = true;
            return;
        }
        o->tensors = moved;
        o->room = room;
    }
    struct itera_quantize_tensor *t = &o->tensors[o->n];
    *t = *tensor;
    int64_t *dim = malloc((size_t)t->rank * sizeof *dim);
    t->name = strdup(tensor->name);
    t->dim = dim;
    o->n++;
    if (t->name && dim)
        memcpy(dim, tensor->dim, (size_t)t->rank * sizeof *dim);
    else
        o->failed = true;
}

static void outcome_free(struct outcome *o)
{
    for (int i = 0; i < o->n; i++) {
        free((void *)(uintptr_t)o->tensors[i].name);
        free((void *)(uintptr_t)o->tensors[i].dim);
    }
    free(o->tensors);
}

/* ---- results --------------------------------------------------------------------------------- */

static const char *shape_text(const struct itera_quantize_tensor *t, char *out, size_t size)
{
    size_t used = 0;
    for (int i = 0; i < t->rank && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%lld", i ? " x " : "",
                                 (long long)t->dim[i]);
    return out;
}

/* An error in percent; nothing where there is none, or none is known. */
static void error_cell(struct table *table, double error)
{
    if (error > 0)
        table_cell(table, "%.3f%%", 100 * error);
    else
        table_cell(table, "%s", isnan(error) ? "" : "0");
}

static void print_tensors(const struct outcome *o, bool calibrated)
{
    static const char *const titles[] = {"tensor", "shape",     "from",      "to",
                                         "bytes",  "rms error", "max error", "weighted"};
    const int columns = calibrated ? 8 : 7;
    struct table *table = table_create(columns, titles, calibrated ? "lrllrrrr" : "lrllrrr");
    for (int i = 0; i < o->n; i++) {
        const struct itera_quantize_tensor *t = &o->tensors[i];
        char text[128];
        table_cell(table, "%s", t->name);
        table_cell(table, "%s", shape_text(t, text, sizeof text));
        table_cell(table, "%s", t->from);
        table_cell(table, "%s%s", t->to, strcmp(t->asked, t->to) ? " *" : "");
        table_cell(table, "%s", output_grouped(t->bytes_to, text, sizeof text));
        error_cell(table, t->rms_error);
        table_cell(table, t->max_error > 0 ? "%.3g" : "0", t->max_error);
        if (calibrated)
            error_cell(table, t->weighted_error);
    }
    table_print(table);
    table_destroy(&table);
    printf("\n");
}

static void print_outcome(const struct request *r, const struct outcome *o)
{
    char before[32], after[32], a[32], b[32];
    if (r->report)
        print_tensors(o, r->calibrate);
    int unfit = 0, widened = 0;
    const char *first = "", *first_widened = "";
    for (int i = 0; i < o->n; i++) {
        const struct itera_quantize_tensor *t = &o->tensors[i];
        if (!strcmp(t->asked, t->to))
            continue;
        if (t->dim[t->rank - 1] % 32 && !strcmp(t->to, "f16")) {
            if (!unfit++)
                first = t->name;
        } else if (!widened++) {
            first_widened = t->name;
        }
    }
    if (widened)
        printf(
            "%s%d tensor%s a wider type: the weights are out of the range of the rules' (%s%s)\n",
            r->report ? "* " : "", widened, widened == 1 ? " has" : "s have", first_widened,
            widened > 1 ? ", ..." : "");
    if (unfit)
        printf("%s%d tensor%s f16: rows of q8 and q4 are multiples of 32 (%s%s)\n",
               r->report ? "* " : "", unfit, unfit == 1 ? " is" : "s are", first,
               unfit > 1 ? ", ..." : "");
    printf("%s  %s bytes (%s)\n", r->model, output_grouped(o->bytes_before, a, sizeof a),
           output_size(o->bytes_before, before, sizeof before));
    printf("%s  %s bytes (%s), %.1f%%, %.2f bits per parameter\n", r->out,
           output_grouped(o->bytes_after, b, sizeof b),
           output_size(o->bytes_after, after, sizeof after),
           100 * (double)o->bytes_after / (double)o->bytes_before,
           8 * (double)o->bytes_after / (double)o->parameters);
    if (o->evaluated)
        quality_print(&o->quality, r->valid);
}

static json_t *tensors_json(const struct outcome *o)
{
    json_t *list = json_array();
    for (int i = 0; i < o->n; i++) {
        const struct itera_quantize_tensor *t = &o->tensors[i];
        json_t *shape = json_array();
        for (int k = 0; k < t->rank; k++)
            json_array_append_new(shape, json_integer(t->dim[k]));
        json_array_append_new(
            list, json_pack("{s:o, s:o, s:s, s:s, s:s, s:I, s:I, s:o, s:o, s:o}", "name",
                            output_string(t->name), "shape", shape, "from", t->from, "to", t->to,
                            "asked", t->asked, "bytes_before", (json_int_t)t->bytes_from, "bytes",
                            (json_int_t)t->bytes_to, "rms_error", output_number(t->rms_error),
                            "max_error", output_number(t->max_error), "weighted_error",
                            output_number(t->weighted_error)));
    }
    return list;
}

static int write_json(const struct request *r, const struct outcome *o,
                      const struct itera_device *device)
{
    json_t *set = json_array();
    for (size_t i = 0; i < r->set.n; i++)
        json_array_append_new(set, output_path(r->set.item[i]));
    json_t *root =
        json_pack("{s:o, s:o, s:s, s:o, s:o, s:s, s:I, s:I, s:I, s:o, s:o, s:s, s:o}", "model",
                  output_path(r->model), "out", output_path(r->out), "to", r->to, "set", set,
                  "calibration", output_path(r->calibrate), "rounding",
                  r->plain ? "plain" : "search", "parameters", (json_int_t)o->parameters,
                  "bytes_before", (json_int_t)o->bytes_before, "bytes", (json_int_t)o->bytes_after,
                  "quality", o->evaluated ? quality_json(&o->quality, r->valid) : json_null(),
                  "tensors", tensors_json(o), "device", itera_device_info(device)->id,
                  "fallback_ops", device_fallback_json(device));
    int code = output_json(root, r->json.value);
    json_decref(root);
    return code;
}

/* ---- the work -------------------------------------------------------------------------------- */

/* NULL source: no dataset. */
static enum itera_status open_data(const char *source, const struct itera_model *model,
                                   struct itera_dataset **out)
{
    *out = NULL;
    struct itera_corpus *corpus = NULL;
    enum itera_status status = source ? itera_corpus_open(source, &corpus) : ITERA_OK;
    if (!status && source)
        status = itera_dataset_create(corpus, itera_model_tokenizer(model), out);
    itera_corpus_destroy(&corpus);
    return status;
}

static enum itera_status quantize(const struct request *r, struct itera_model *model,
                                  const struct itera_dataset *calibration, struct outcome *o,
                                  struct itera_model **made)
{
    const struct itera_quantize_options options = {
        .to = r->to,
        .set = r->set.item,
        .n_set = (int)r->set.n,
        .plain = r->plain,
        .threads = (int)r->device.threads,
        .calibration = calibration,
        .calibration_tokens = r->calibrate_tokens,
        .calibrating = on_calibration,
        .progress = on_weights,
        .tensor = on_tensor,
        .user = o,
    };
    enum itera_status status = itera_quantize(model, &options, made);
    progress_finish(0);
    if (!status && o->failed) {
        command_error("no memory for a report");
        status = ITERA_ERR_MEMORY;
    }
    return status;
}

static int run(struct request *r, struct itera_model *model, struct itera_device *device)
{
    const bool tokenizer = itera_model_tokenizer(model) != NULL;
    if (!tokenizer && (r->calibrate || r->valid)) {
        command_error("%s: has no tokenizer to read a text with; name one with --tokenizer FILE",
                      r->model);
        return EXIT_FAILED;
    }
    char *own = r->report && !r->valid && tokenizer ? model_own_text(r->model) : NULL;
    if (r->report && !r->valid && tokenizer) {
        r->valid = own ? own : DEFAULT_VALID;
        if (!own)
            command_note("%s: lies in no run that says which text is its own: it is scored on %s, "
                         "which may be nothing like it (--valid names another)",
                         r->model, DEFAULT_VALID);
    }
    struct itera_dataset *calibration, *valid = NULL;
    struct itera_model *made = NULL;
    struct outcome o = {.parameters = itera_model_info(model)->parameters};
    enum itera_status status = open_data(r->calibrate, model, &calibration);
    if (!status)
        status = open_data(r->valid, model, &valid);
    if (!status)
        status = quantize(r, model, calibration, &o, &made);
    if (!status)
        status = itera_model_save(made, r->out);
    if (!status) {
        o.bytes_before = model_file_bytes(r->model);
        o.bytes_after = model_file_bytes(r->out);
    }
    if (!status && valid) {
        status = quality_compare(model, made, valid, r->eval_tokens, &o.quality);
        o.evaluated = !status;
    }
    int code = status ? EXIT_FAILED : EXIT_OK;
    if (!status && !output_on_stdout(&r->json))
        print_outcome(r, &o);
    if (!status && r->json.given)
        code = write_json(r, &o, device);
    outcome_free(&o);
    itera_model_destroy(&made);
    itera_dataset_destroy(&calibration);
    itera_dataset_destroy(&valid);
    if (own)
        r->valid = NULL;
    free(own);
    return code;
}

static int open_and_run(struct request *r)
{
    struct itera_device *device = NULL;
    struct itera_model *model = NULL;
    struct itera_tokenizer *tokenizer = NULL;
    enum itera_status status = device_open(&r->device, &device);
    if (!status)
        status = itera_model_load(device, r->model, &model);
    if (!status && r->tokenizer)
        status = itera_tokenizer_open(r->tokenizer, &tokenizer);
    if (!status && tokenizer)
        status = itera_model_set_tokenizer(model, tokenizer);
    if (status)
        itera_tokenizer_destroy(&tokenizer);
    int code = status ? EXIT_FAILED : run(r, model, device);
    itera_model_destroy(&model);
    device_report_fallback(device);
    itera_device_close(&device);
    return code;
}

int itera_command_quantize(int argc, char **argv)
{
    struct request r = {0};
    const struct command_option options[] = {
        {"to", 0, OPTION_CHOICE, &r.to, "TYPE",
         "f16, bf16, q8, q4, f32, or mixed: embeddings and\nprojections q8, feed-forward and "
         "experts q4, SSM f16,\nrouter and norms f32",
         .choices = "f32|f16|bf16|q8|q4|mixed"},
        {"set", 0, OPTION_EACH, &r.set, "PATTERN=TYPE",
         "another type for the tensors whose names match, such as\n'*embed*=f16'; may be given "
         "again, and the last that\nmatches counts"},
        {"out", 'o', OPTION_OUTPUT, &r.out, "OUT", "the file to write"},
        FORCE_OPTION(r.force),
        {"calibrate", 0, OPTION_INPUT, &r.calibrate, "SRC",
         "text (as for itera train) by which to weight what\nmatters when rounding to q8 and q4"},
        {"tokens", 0, OPTION_INTEGER, &r.calibrate_tokens, "N",
         "tokens of it to read (default: 32768, or a shorter text\nwhole)", 1, 1e12},
        {"plain", 0, OPTION_FLAG, &r.plain, NULL, "round to nearest without a search for scales"},
        {"report", 0, OPTION_FLAG, &r.report, NULL,
         "the error of each tensor, and perplexity before and\nafter"},
        {"valid", 0, OPTION_INPUT, &r.valid, "SRC",
         "held-out text for perplexity before and after (default,\nwith --report: what the "
         "model's run set aside, or\nbuiltin:stories?valid)"},
        {"eval-tokens", 0, OPTION_INTEGER, &r.eval_tokens, "N",
         "score about N tokens of it (default: all)", 1, 1e12},
        {"tokenizer", 0, OPTION_INPUT, &r.tokenizer, "FILE", "for a model that comes without one"},
        DEVICE_OPTIONS(r.device),
        {"json", 0, OPTION_OPTIONAL, &r.json, "FILE", "write JSON to FILE, or to stdout"},
        {0}};
    const struct command_spec spec = {
        .name = "quantize",
        .positional = "MODEL",
        .summary = "Writes a copy of a model with narrower weights: q8 and q4 are blocks of 32\n"
                   "integers of 8 and 4 bits with a scale.",
        .notes = "Matrices whose rows are no multiple of 32 stay f16. Errors are relative: root\n"
                 "mean square error over root mean square of the tensor.",
        .options = options,
        .min = 1,
        .max = 1};
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    r.model = args.positional[0];
    if (!r.to)
        code = options_usage(&spec, "--to TYPE is needed");
    else if (!r.out)
        code = options_usage(&spec, "-o OUT is needed");
    else if (r.calibrate_tokens && !r.calibrate)
        code = options_usage(&spec, "--tokens goes with --calibrate");
    else if (r.eval_tokens && !r.valid && !r.report)
        code = options_usage(&spec, "--eval-tokens goes with --valid or --report");
    else if (r.calibrate && r.plain)
        code = options_usage(&spec, "--plain chooses no scales; leave out --calibrate");
    else if (output_model_check(r.out, r.force) != EXIT_OK ||
             output_json_check(r.json.value) != EXIT_OK)
        code = EXIT_FAILED;
    else
        code = open_and_run(&r);
    options_free(&args);
    return code;
}
