/* Calibration: the statistics of what goes into a model's products, against sums over the model's
 * own weights where they can be told, on every family. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/calibrate.h"
#include "itera/status.h"
#include "tests/support/parts.h"
#include "tests/support/test.h"

#define FIXTURES ITERA_SOURCE_DIR "/tests/fixtures/"

static const char *const configs[] = {FIXTURES "itera-odd/config.json", "transformer-micro",
                                      FIXTURES "mamba-odd/config.json", "itera-m-micro"};
enum { FAMILIES = 4, VOCAB = 257 };

static struct itera_device *device;
static struct itera_dataset *dataset;

static int set_up(void **state)
{
    (void)state;
    dataset = bytes_of_source("builtin:stories?bytes=9000");
    return (device = open_cpu(2)) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    itera_dataset_destroy(&dataset);
    itera_device_close(&device);
    return 0;
}

/* Products of steps: symmetric, positive, and within Cauchy and Schwarz's bound. */
static void check_steps(const float *steps, int inner)
{
    for (int i = 0; steps && i < inner; i++) {
        for (int j = 0; j < inner; j++) {
            float ii = steps[i * inner + i], jj = steps[j * inner + j], ij = steps[i * inner + j];
            assert_true(ij > 0 && ij * ij <= ii * jj * 1.0001F);
            assert_true(fabsf(ij - steps[j * inner + i]) <= 1e-5F * ij);
        }
    }
}

static int find_param(const struct itera_model *m, const char *name)
{
    for (int i = 0; i < m->layout.n_params; i++)
        if (!strcmp(m->layout.params[i].name, name))
            return i;
    fail_msg("the model has no %s", name);
    return -1;
}

/* Every weight of a product has statistics, in which squares bound means; nothing else has. */
static void test_families(void **state)
{
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        struct itera_model *m = make_model(device, configs[f], VOCAB, 3);
        struct itera_calibration *c;
        struct itera_calibrate_options options = {.tokens = 2000, .window = 20, .steps = true};
        assert_int_equal(itera_calibrate(m, dataset, &options, &c), ITERA_OK);
        assert_true(c->tokens >= 2000 && c->tokens < 4000);
        assert_int_equal(c->n_params, m->layout.n_params);
        for (int i = 0; i < c->n_params; i++) {
            const struct itera_param *param = &m->layout.params[i];
            const char *name = param->name;
            /* The only matrix that is looked up in and never multiplied with. */
            bool product =
                param->offset < m->layout.decay_elements && !strstr(name, "position_embedding");
            assert_true((c->square[i] != NULL) == product);
            assert_true((c->mean[i] != NULL) == product);
            if (!product)
                continue;
            int64_t n = itera_shape_cols(&param->shape) * (param->experts ? param->experts : 1);
            for (int64_t k = 0; k < n; k++) {
                float square = c->square[i][k], mean = c->mean[i][k];
                assert_true(square >= 0 && isfinite(square));
                assert_true(mean * mean <= square * 1.0001F + 1e-12F);
            }
        }
        for (int l = 0; l < c->n_layers; l++) {
            assert_true((c->steps[l] != NULL) == (f == 0));
            check_steps(c->steps[l], m->config.inner);
            assert_true((c->share[l] != NULL) == m->config.moe[l]);
            if (!c->share[l])
                continue;
            double sum = 0;
            for (int e = 0; e < m->config.experts; e++)
                sum += (double)c->share[l][e];
            assert_true(fabs(sum - 1) < 1e-5);
        }
        itera_calibration_destroy(&c);
        assert_null(c);
        itera_model_destroy(&m);
    }
}

/* After RMSNorm with weight 1, squares have a mean of 1 over the channels; what the experts of a
 * layer got, weighted by their shares, is what went into the router. */
static void test_values(void **state)
{
    (void)state;
    struct itera_model *m = make_model(device, "itera-m-micro", VOCAB, 3);
    struct itera_calibration *c;
    assert_int_equal(itera_calibrate(m, dataset, NULL, &c), ITERA_OK);
    assert_true(c->tokens >= 8960 && c->tokens < 12000); /* all of the text */
    int in_proj = find_param(m, "model.layers.0.mamba.in_proj.weight");
    int router = find_param(m, "model.layers.1.feed_forward.router.weight");
    int up = find_param(m, "model.layers.1.feed_forward.experts.0.gate_proj.weight");
    int hidden = m->config.hidden;
    double mean = 0;
    for (int k = 0; k < hidden; k++)
        mean += (double)c->square[in_proj][k] / hidden;
    assert_true(fabs(mean - 1) < 1e-2);
    for (int k = 0; k < hidden; k++) {
        double square = 0, sum = 0;
        for (int e = 0; e < m->config.experts; e++) {
            square += (double)c->share[1][e] * (double)c->square[up][e * hidden + k];
            sum += (double)c->share[1][e] * (double)c->mean[up][e * hidden + k];
        }
        /* Every token goes to top_k experts, so each counts as often as the others. */
        assert_true(fabs(square - (double)c->square[router][k]) < 1e-4 * square);
        assert_true(fabs(sum - (double)c->mean[router][k]) < 1e-4 * sqrt(square));
    }
    itera_calibration_destroy(&c);
    itera_model_destroy(&m);
}

/* A GPU collects what the CPU does. OpenCL has the same ops, and compiles too long for a test. */
static void test_gpu(void **state)
{
    (void)state;
    struct itera_calibrate_options options = {.tokens = 512, .window = 64};
    struct itera_device *gpu, *cpu = device;
    struct itera_device_info *infos;
    int count, found = 0;
    assert_int_equal(itera_devices(&infos, &count), ITERA_OK);
    for (int i = 0; i < count; i++)
        found |= !strcmp(infos[i].id, "vulkan:0");
    free(infos);
    if (!found)
        skip_without("a Vulkan device");
    assert_int_equal(itera_device_open("vulkan:0", NULL, &gpu), ITERA_OK);
    struct itera_model *m = make_model(device, "itera-m-micro", VOCAB, 3), *on_gpu;
    device = gpu;
    on_gpu = make_model(device, "itera-m-micro", VOCAB, 3);
    device = cpu;
    struct itera_calibration *a, *b;
    assert_int_equal(itera_calibrate(m, dataset, &options, &a), ITERA_OK);
    assert_int_equal(itera_calibrate(on_gpu, dataset, &options, &b), ITERA_OK);
    for (int i = 0; i < a->n_params; i++) {
        const struct itera_param *param = &m->layout.params[i];
        int64_t n = itera_shape_cols(&param->shape) * (param->experts ? param->experts : 1);
        for (int64_t k = 0; a->square[i] && k < n; k++)
            assert_true(fabsf(a->square[i][k] - b->square[i][k]) <= 1e-3F * a->square[i][k]);
    }
    itera_calibration_destroy(&a);
    itera_calibration_destroy(&b);
    itera_model_destroy(&m);
    itera_model_destroy(&on_gpu);
    itera_device_close(&gpu);
}

static int stop(void *user, int64_t done, int64_t total)
{
    assert_true(done > 0 && done <= total);
    ++*(int *)user;
    return 1;
}

static void test_errors(void **state)
{
    (void)state;
    struct itera_model *m = make_model(device, "transformer-micro", VOCAB, 3);
    struct itera_calibration *c = (struct itera_calibration *)m;
    struct itera_calibrate_options options = {.tokens = 1000000};
    assert_int_equal(itera_calibrate(m, dataset, &options, &c), ITERA_ERR_ARGUMENT);
    assert_null(c);
    assert_non_null(strstr(itera_last_error(), "too short"));
    assert_non_null(strstr(itera_last_error(), "1000000 are needed"));
    options = (struct itera_calibrate_options){.window = 129};
    assert_int_equal(itera_calibrate(m, dataset, &options, &c), ITERA_ERR_ARGUMENT);
    options.window = -1;
    assert_int_equal(itera_calibrate(m, dataset, &options, &c), ITERA_ERR_ARGUMENT);
    int calls = 0;
    options = (struct itera_calibrate_options){.progress = stop, .user = &calls};
    assert_int_equal(itera_calibrate(m, dataset, &options, &c), ITERA_ERR_CANCELLED);
    assert_int_equal(calls, 1);
    assert_null(c);
    itera_model_destroy(&m);

    struct itera_corpus *corpus;
    struct itera_tokenizer *tokenizer;
    struct itera_dataset *small;
    assert_int_equal(itera_corpus_from_text("Once upon a time.", 17, "text", &corpus), ITERA_OK);
    assert_int_equal(itera_tokenizer_create("byte", corpus, &tokenizer), ITERA_OK);
    assert_int_equal(itera_dataset_create(corpus, tokenizer, &small), ITERA_OK);
    m = make_model(device, "micro", VOCAB, 3);
    assert_int_equal(itera_calibrate(m, small, NULL, &c), ITERA_ERR_ARGUMENT);
    assert_non_null(strstr(itera_last_error(), "has 18 tokens, 1024 are needed"));
    options = (struct itera_calibrate_options){.tokens = 18};
    assert_int_equal(itera_calibrate(m, small, &options, &c), ITERA_OK);
    assert_int_equal(c->tokens, 18);
    itera_calibration_destroy(&c);
    itera_model_destroy(&m);
    itera_dataset_destroy(&small);
    itera_tokenizer_destroy(&tokenizer);
    itera_corpus_destroy(&corpus);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_errors),
    };
    const struct CMUnitTest gpu[] = {cmocka_unit_test(test_gpu)};
    if (part_is(argc, argv, "gpu"))
        return part_status(cmocka_run_group_tests(gpu, set_up, tear_down));
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
