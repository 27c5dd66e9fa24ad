/* Pruning: what is removed is what does not count, on every family; the smaller model is a model
 * like any other; sizes that cannot be. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compress/calibrate.h"
#include "core/file.h"
#include "itera/compress.h"
#include "itera/eval.h"
#include "itera/session.h"
#include "itera/trainer.h"
#include "tests/support/test.h"

enum { VOCAB = 257, N = 40, FAMILIES = 4 };

static struct itera_device *device;
static struct itera_tokenizer *tokenizer;
static struct itera_dataset *dataset;

/* Per family: sizes that the model has, those to keep, and the ends of the names of the columns
 * that read the mixer's channels. */
static const struct family {
    const char *preset;
    const char *experts, *ffn, *inner;
    int32_t left_experts, left_ffn, left_inner;
    const char *readers[4];
    const char *down;
} families[FAMILIES] = {
    {"micro",
     "3",
     "20",
     "75%",
     3,
     20,
     96,
     {"out_proj.weight", "delta_proj.weight", ".ssm.B"},
     ".w2.weight"},
    {"transformer-micro", NULL, "62.5%", NULL, 0, 160, 0, {NULL}, ".w2.weight"},
    {"mamba-tiny", NULL, NULL, "200", 0, 0, 200, {"out_proj.weight", "x_proj.weight"}, NULL},
    {"itera-m-micro",
     "2",
     "32",
     "100",
     2,
     32,
     100,
     {"out_proj.weight", "x_proj.weight"},
     ".down_proj.weight"},
};

static int set_up(void **state)
{
    (void)state;
    struct itera_device_options options = {.threads = 2};
    struct itera_corpus *corpus;
    if (make_root() || itera_device_open("cpu", &options, &device) ||
        itera_corpus_open("builtin:stories?bytes=6000", &corpus) ||
        itera_tokenizer_create("byte", corpus, &tokenizer) ||
        itera_dataset_create(corpus, tokenizer, &dataset))
        return -1;
    itera_corpus_destroy(&corpus);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    itera_dataset_destroy(&dataset);
    itera_tokenizer_destroy(&tokenizer);
    itera_device_close(&device);
    return remove_root();
}

static struct itera_model *make_with_tokenizer(const char *preset)
{
    struct itera_model *m;
    struct itera_tokenizer *own;
    char *json;
    struct itera_model_options options = {.vocab = VOCAB, .seed = 5};
    assert_int_equal(itera_model_create(device, preset, &options, &m), ITERA_OK);
    assert_int_equal(itera_tokenizer_to_json(tokenizer, &json), ITERA_OK);
    assert_int_equal(itera_tokenizer_from_json(json, strlen(json), "test", &own), ITERA_OK);
    assert_int_equal(itera_model_set_tokenizer(m, own), ITERA_OK);
    free(json);
    return m;
}

static float *read_weights(const struct itera_model *m)
{
    float *w = malloc((size_t)m->layout.elements * sizeof *w);
    assert_non_null(w);
    assert_int_equal(itera_model_read_f32(m, w), ITERA_OK);
    return w;
}

static void write_weights(struct itera_model *m, float *w)
{
    assert_int_equal(itera_model_write_f32(m, w), ITERA_OK);
    free(w);
}

static bool ends(const char *name, const char *ending)
{
    size_t n = strlen(name), k = ending ? strlen(ending) : n + 1;
    return n >= k && !strcmp(name + n - k, ending);
}

/* Whether channel c of n is one of the `left` that stay useful; different from layer to layer. */
static bool useful(int64_t c, int64_t n, int64_t left, int64_t salt)
{
    return (c * 7 + salt * 5) % n < left; /* 7 is prime to all the sizes here */
}

/* Zeroes the columns of what is to have no use. */
static void zero_columns(const struct itera_param *param, float *w, int64_t left, int64_t salt)
{
    int64_t cols = itera_shape_cols(&param->shape), rows = itera_shape_rows(&param->shape);
    int64_t per_block = param->experts ? rows / param->experts : rows;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            if (!useful(c, cols, left, salt + r / per_block))
                w[r * cols + c] = 0;
}

/* All rows alike, so that the mean over any of them is the same. */
static void repeat_first(const struct itera_param *param, float *w)
{
    int64_t n = itera_shape_elements(&param->shape);
    int64_t cols = param->shape.rank > 1 ? itera_shape_cols(&param->shape) : 1;
    for (int64_t i = cols; i < n; i++)
        w[i] = w[i - cols];
}

/* Channel 0 of what the router sees is positive for every token: after LayerNorm by its bias, and
 * in itera-m because the residual stream keeps it from the embedding on. */
static void hold_channel(const struct itera_model *m, float *w)
{
    for (int i = 0; i < m->layout.n_params; i++) {
        const struct itera_param *param = &m->layout.params[i];
        float *at = w + param->offset;
        int64_t cols = itera_shape_cols(&param->shape), rows = itera_shape_rows(&param->shape);
        if (ends(param->name, "moe.layer.norm.weight"))
            at[0] = 0;
        else if (ends(param->name, "moe.layer.norm.bias"))
            at[0] = 1;
        if (m->config.architecture != ITERA_ARCH_ITERA_M)
            continue;
        bool residual =
            ends(param->name, "out_proj.weight") || ends(param->name, "down_proj.weight");
        for (int64_t r = 0; r < rows; r++)
            if (ends(param->name, "embed_tokens.weight"))
                at[r * cols] = 0.05F;
            else if (residual && r % m->config.hidden == 0)
                memset(at + r * cols, 0, (size_t)cols * sizeof *at);
    }
}

/* Gives the model experts that are never chosen and channels that add nothing. */
static void make_useless(struct itera_model *m, const struct family *f)
{
    float *w = read_weights(m);
    if (f->left_experts)
        hold_channel(m, w);
    for (int i = 0; i < m->layout.n_params; i++) {
        const struct itera_param *param = &m->layout.params[i];
        float *at = w + param->offset;
        int layer = itera_param_layer(param->name);
        if (ends(param->name, "delta_proj.weight") || ends(param->name, "delta_proj.bias"))
            repeat_first(param, at);
        for (int k = 0; k < 4 && f->readers[k]; k++)
            if (ends(param->name, f->readers[k]))
                zero_columns(param, at, f->left_inner, layer);
        if (ends(param->name, f->down))
            zero_columns(param, at, f->left_ffn, layer);
        if (ends(param->name, "router.weight") || ends(param->name, "router.gate.weight"))
            for (int e = 0; e < m->config.experts; e++)
                if (!useful(e, m->config.experts, f->left_experts, layer))
                    at[e * m->config.hidden] = -10000;
    }
    write_weights(m, w);
}

static void logits_of(struct itera_model *m, float *logits)
{
    int32_t ids[N];
    for (int t = 0; t < N; t++)
        ids[t] = (int32_t)((unsigned)(t * 37 + t * t * 5) % 128);
    assert_int_equal(itera_logits(m, ids, 1, N, logits), ITERA_OK);
}

static void assert_near(const float *a, const float *b, double limit)
{
    double largest = 0;
    for (int i = 0; i < N * VOCAB; i++)
        largest = fmax(largest, fabs((double)b[i]));
    assert_true(largest > 0);
    for (int i = 0; i < N * VOCAB; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= limit * largest))
            fail_msg("logit %d is %g, expected %g", i, (double)a[i], (double)b[i]);
}

static struct itera_prune_options options_of(const struct family *f)
{
    return (struct itera_prune_options){
        .experts = f->experts, .ffn = f->ffn, .inner = f->inner, .tokens = 2048};
}

static void check_report(const struct itera_model *m, const struct itera_model *pruned,
                         const struct family *f, const struct itera_prune_report *r)
{
    assert_int_equal(r->tokens, 2048);
    assert_int_equal(r->n_layers, m->config.layers);
    assert_int_equal(r->after.experts, f->left_experts);
    assert_int_equal(r->after.ffn, f->left_ffn);
    assert_int_equal(r->after.inner, f->left_inner);
    assert_int_equal(r->before.parameters, m->info.parameters);
    assert_int_equal(r->after.parameters, pruned->info.parameters);
    assert_true(r->after.parameters < r->before.parameters);
    assert_true(r->after.flops_per_token < r->before.flops_per_token);
    for (int l = 0; l < r->n_layers; l++) {
        const struct itera_prune_layer *layer = &r->layers[l];
        assert_int_equal(layer->experts, m->config.moe[l] ? f->left_experts : 0);
        if (m->config.moe[l])
            assert_true(fabs(layer->routed - 1) < 1e-6);
        for (int e = 0; e < layer->experts; e++)
            assert_true(useful(layer->kept[e], m->config.experts, f->left_experts, l));
        if (f->left_ffn)
            assert_true(fabs(layer->ffn - 1) < 1e-6);
        if (f->left_inner)
            assert_true(fabs(layer->inner - 1) < 1e-6);
        assert_true(isnan(layer->step_error) == (m->config.architecture != ITERA_ARCH_ITERA));
        if (!isnan(layer->step_error))
            assert_true(layer->step_error < 1e-3);
    }
}

/* The pruned model in a file is a model like any other: loads, scores, generates, trains. */
static void check_use(const struct itera_model *pruned, const float *expected)
{
    static float logits[N * VOCAB];
    char path[96];
    snprintf(path, sizeof path, "%s/pruned.safetensors", root);
    assert_int_equal(itera_model_save(pruned, path), ITERA_OK);
    struct itera_model *m;
    assert_int_equal(itera_model_load(device, path, &m), ITERA_OK);
    logits_of(m, logits);
    assert_near(logits, expected, 1e-6);
    struct itera_eval_options eval = {.tokens = 500};
    struct itera_eval_result result;
    assert_int_equal(itera_evaluate(m, dataset, &eval, &result), ITERA_OK);
    assert_true(result.nll > 0 && result.nll < 50);
    struct itera_session *session;
    struct itera_session_options one = {.batch = 1};
    int32_t token = 65;
    assert_int_equal(itera_session_create(m, &one, &session), ITERA_OK);
    assert_int_equal(itera_session_prefill(session, &token, 1), ITERA_OK);
    for (int t = 0; t < 5; t++) {
        assert_int_equal(itera_session_next(session, &token), ITERA_OK);
        assert_in_range(token, 0, VOCAB - 1);
    }
    itera_session_destroy(&session);
    itera_model_destroy(&m);

    struct itera_train_options train = {0};
    train.init = path;
    train.data = "builtin:stories?bytes=6000";
    train.valid = "";
    train.batch = 2;
    train.seq = 32;
    train.steps = 30;
    train.log_every = 1;
    struct itera_trainer *trainer;
    struct itera_train_report report;
    assert_int_equal(itera_trainer_create(device, &train, &trainer), ITERA_OK);
    double first = 0;
    do {
        assert_int_equal(itera_trainer_step(trainer, &report), ITERA_OK);
        if (report.step == 1)
            first = report.loss;
    } while (!(report.events & ITERA_TRAIN_FINISHED));
    assert_true(report.loss < first);
    itera_trainer_destroy(&trainer);
}

static void test_useless_parts(void **state)
{
    (void)state;
    static float before[N * VOCAB], after[N * VOCAB];
    for (int i = 0; i < FAMILIES; i++) {
        const struct family *f = &families[i];
        struct itera_model *m = make_with_tokenizer(f->preset), *pruned;
        struct itera_prune_report *report;
        struct itera_prune_options options = options_of(f);
        make_useless(m, f);
        logits_of(m, before);
        assert_int_equal(itera_prune(m, dataset, &options, &pruned, &report), ITERA_OK);
        check_report(m, pruned, f, report);
        logits_of(pruned, after);
        assert_near(after, before, 1e-5);
        check_use(pruned, after);
        itera_prune_report_destroy(&report);
        assert_null(report);
        itera_model_destroy(&pruned);
        logits_of(m, after); /* the original is as it was */
        assert_memory_equal(after, before, sizeof before);
        itera_model_destroy(&m);
    }
}

/* The rows of delta_proj that stay have nearly the mean of all, unlike the first so many. */
static void test_steps(void **state)
{
    (void)state;
    struct itera_model *m = make_with_tokenizer("micro"), *pruned;
    struct itera_calibration *c;
    struct itera_calibrate_options calibrate = {.tokens = 2048, .steps = true};
    assert_int_equal(itera_calibrate(m, dataset, &calibrate, &c), ITERA_OK);
    static const struct {
        const char *size;
        int kept;
    } sizes[] = {{"32", 32}, {"96", 96}};
    for (int s = 0; s < 2; s++) {
        struct itera_prune_options options = {.inner = sizes[s].size, .tokens = 2048};
        struct itera_prune_report *report;
        assert_int_equal(itera_prune(m, dataset, &options, &pruned, &report), ITERA_OK);
        int d = m->config.inner, kept = sizes[s].kept;
        for (int l = 0; l < m->config.layers; l++) {
            double all = 0, both = 0, first = 0;
            for (int i = 0; i < d; i++) {
                for (int j = 0; j < d; j++) {
                    double product = (double)c->steps[l][i * d + j];
                    all += product / (d * d);
                    both += i < kept ? product / (kept * d) : 0;
                    first += i < kept && j < kept ? product / (kept * kept) : 0;
                }
            }
            double naive = sqrt(fmax(all - 2 * both + first, 0) / all);
            assert_true(report->layers[l].step_error < 0.05);
            assert_true(report->layers[l].step_error < 0.6 * naive);
        }
        itera_prune_report_destroy(&report);
        itera_model_destroy(&pruned);
    }
    itera_calibration_destroy(&c);
    itera_model_destroy(&m);
}

static void test_sizes(void **state)
{
    (void)state;
    struct itera_model *m = make_with_tokenizer("micro"); /* feed-forward 32, inner 128 */
    static const struct {
        const char *size;
        int32_t ffn, inner;
    } cases[] = {{"100%", 32, 128}, {"50%", 16, 64},  {"60%", 19, 64},
                 {"80%", 26, 96},   {"99%", 32, 127}, {"10%", 3, 32}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct itera_prune_options options = {.channels = cases[i].size, .experts = "2"};
        struct itera_prune_sizes sizes;
        assert_int_equal(itera_prune_plan(m, &options, &sizes), ITERA_OK);
        assert_int_equal(sizes.experts, 2);
        assert_int_equal(sizes.ffn, cases[i].ffn);
        assert_int_equal(sizes.inner, cases[i].inner);
    }
    /* A size of its own counts more. */
    struct itera_prune_options options = {.channels = "50%", .ffn = "31", .experts = "75%"};
    struct itera_prune_sizes sizes;
    assert_int_equal(itera_prune_plan(m, &options, &sizes), ITERA_OK);
    assert_int_equal(sizes.experts, 3);
    assert_int_equal(sizes.ffn, 31);
    assert_int_equal(sizes.inner, 64);
    itera_model_destroy(&m);
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *preset;
        struct itera_prune_options options;
        const char *what;
    } cases[] = {
        {"micro", {.experts = "1"}, "cannot keep 1 of 4; from 2 (a token goes to 2) to 4"},
        {"micro", {.experts = "5"}, "cannot keep 5 of 4"},
        {"micro", {.experts = "many"}, "neither a number nor a percentage"},
        {"micro", {.ffn = "0"}, "cannot keep 0 of 32; from 1 to 32"},
        {"micro", {.ffn = "0%"}, "cannot keep 0% of 32"},
        {"micro", {.ffn = "101%"}, "cannot keep 101% of 32"},
        {"micro", {.ffn = "-3"}, "cannot keep -3 of 32"},
        {"micro", {.ffn = "1.5"}, "neither a number"},
        {"micro", {.ffn = "nan%"}, "neither a number"},
        {"micro", {.ffn = ""}, "neither a number"},
        {"micro", {.inner = "129"}, "cannot keep 129 of 128"},
        {"micro", {.inner = "64x"}, "neither a number"},
        {"micro", {.channels = "12"}, "no percentage"},
        {"micro", {.channels = ""}, "no percentage"},
        {"micro", {0}, "nothing would be removed"},
        {"micro", {.experts = "4", .ffn = "100%"}, "nothing would be removed"},
        {"mamba-tiny", {.ffn = "10"}, "a model of family mamba has none"},
        {"mamba-tiny", {.experts = "2"}, "a model of family mamba has none"},
        {"transformer-micro", {.inner = "64"}, "a model of family transformer has none"},
        {"transformer-micro", {.ffn = "64", .tokens = 10000000}, "too short"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct itera_model *m = make_with_tokenizer(cases[i].preset), *pruned = m;
        struct itera_prune_report *report = (struct itera_prune_report *)m;
        assert_int_equal(itera_prune(m, dataset, &cases[i].options, &pruned, &report),
                         ITERA_ERR_ARGUMENT);
        assert_says(cases[i].what);
        assert_null(pruned);
        assert_null(report);
        itera_model_destroy(&m);
    }
}

/* Blocks of 32 do not come apart. */
static void test_quantised(void **state)
{
    (void)state;
    struct itera_model *m = make_with_tokenizer("transformer-micro"), *q, *pruned;
    int n = m->layout.n_params;
    enum itera_dtype *dtypes = calloc((size_t)n, sizeof *dtypes);
    assert_non_null(dtypes);
    for (int i = 0; i < n; i++)
        if (ends(m->layout.params[i].name, ".w1.weight"))
            dtypes[i] = ITERA_Q8;
    assert_int_equal(itera_model_allocate_like(device, &m->config, dtypes, dtypes, &q), ITERA_OK);
    struct itera_prune_options options = {.ffn = "50%"};
    struct itera_prune_report *report;
    assert_int_equal(itera_prune(q, dataset, &options, &pruned, &report), ITERA_ERR_UNSUPPORTED);
    assert_non_null(strstr(itera_last_error(), "prune first, then quantise"));
    assert_null(pruned);
    free(dtypes);
    itera_model_destroy(&q);
    itera_model_destroy(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_useless_parts), cmocka_unit_test(test_steps),
        cmocka_unit_test(test_sizes),         cmocka_unit_test(test_errors),
        cmocka_unit_test(test_quantised),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
