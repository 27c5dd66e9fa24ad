/* Quantising: the search for scales against plain rounding, types by rules, files, refusals. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compress/block_fit.h"
#include "core/rng.h"
#include "itera/compress.h"
#include "itera/eval.h"
#include "model/model_impl.h"
#include "tests/support/test.h"

#define FIXTURES ITERA_SOURCE_DIR "/tests/fixtures/"

static const char *const configs[] = {
    FIXTURES "itera-odd/config.json", "micro",        "transformer-micro", "mamba-tiny",
    FIXTURES "mamba-odd/config.json", "itera-m-micro"};
enum { CONFIGS = sizeof configs / sizeof *configs, VOCAB = 257, BLOCKS = 64 };
enum { ELEMENTS = BLOCKS * ITERA_BLOCK };

static struct itera_device *device;
static struct itera_dataset *dataset;

static int set_up(void **state)
{
    (void)state;
    dataset = bytes_of_source("builtin:stories?bytes=4000");
    return (device = open_cpu(1)) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    itera_dataset_destroy(&dataset);
    itera_device_close(&device);
    return 0;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

struct buffer {
    uint8_t bytes[ELEMENTS];
    uint16_t scales[BLOCKS];
};

static struct itera_blocks blocks_of(struct buffer *b)
{
    return (struct itera_blocks){b->bytes, b->scales};
}

/* Blocks by hand, as GGUF's reference makes Q8_0 and Q4_0: a scale in f16, little endian, and
 * behind it 32 int8, or 16 bytes with element i low and element i + 16 high. */
static void test_reference_blocks(void **state)
{
    (void)state;
    float x[ITERA_BLOCK];
    struct buffer b;
    uint8_t file[34];
    for (int i = 0; i < ITERA_BLOCK; i++)
        x[i] = 0.25f * (float)(4 * i - 127) + 0.06f; /* -31.69 to -0.69; 127 * 0.25 is 31.75 */
    x[0] = -31.75f;
    itera_blocks_round(ITERA_Q8, x, ITERA_BLOCK, blocks_of(&b));
    itera_blocks_to_file(ITERA_Q8, blocks_of(&b), 1, file);
    assert_int_equal(file[0], 0x00); /* 0.25 */
    assert_int_equal(file[1], 0x34);
    for (int i = 0; i < ITERA_BLOCK; i++)
        assert_int_equal((int8_t)file[2 + i], 4 * i - 127);

    for (int i = 0; i < ITERA_BLOCK; i++)
        x[i] = 0.5f * (float)(i % 16 - 8) + (i % 16 ? 0.1f : 0) + (i < 16 ? 0 : 0.05f);
    x[16] = -3.9f;
    itera_blocks_round(ITERA_Q4, x, ITERA_BLOCK, blocks_of(&b));
    itera_blocks_to_file(ITERA_Q4, blocks_of(&b), 1, file);
    assert_int_equal(file[0], 0x00); /* -4 / -8 */
    assert_int_equal(file[1], 0x38);
    for (int i = 0; i < ITERA_BLOCK / 2; i++)
        assert_int_equal(file[2 + i], i | i << 4);
    /* A positive extreme: the scale is negative. */
    for (int i = 0; i < ITERA_BLOCK; i++)
        x[i] = i == 7 ? 16 : -2;
    itera_blocks_round(ITERA_Q4, x, ITERA_BLOCK, blocks_of(&b));
    itera_blocks_to_file(ITERA_Q4, blocks_of(&b), 1, file);
    assert_int_equal(file[0], 0x00); /* -2 */
    assert_int_equal(file[1], 0xc0);
    for (int i = 0; i < ITERA_BLOCK / 2; i++)
        assert_int_equal(file[2 + i], i == 7 ? 0x90 : 0x99);
}

enum kind { NORMAL, OUTLIERS, TINY, LARGE, CONSTANT, SPARSE, ZERO, SMALL, SIXTEENTHS, KINDS };

static float draw(enum kind kind, struct itera_rng *rng)
{
    float x = itera_rng_normal(rng);
    switch (kind) {
    case OUTLIERS:
        return x * x * x;
    case TINY:
        return x * 1e-7f;
    case LARGE:
        return fmaxf(-3, fminf(3, x)) * 1e5f;
    case CONSTANT:
        return -0.3f;
    case SPARSE:
        return itera_rng_uniform(rng) < 0.05f ? x : 0;
    case ZERO:
        return 0;
    case SMALL: /* q8's scales are among f16's last subnormals */
        return x * 1e-6f;
    case SIXTEENTHS: /* exact in q4 */
        return 0.3125f * (float)((int)(itera_rng_uniform(rng) * 16) - 8);
    default:
        return x;
    }
}

/* Block by block the search is never worse than plain rounding, nor q8 worse than q4, for errors
 * weighted or not. */
static void test_search(void **state)
{
    (void)state;
    static const enum itera_dtype types[] = {ITERA_Q8, ITERA_Q4};
    static struct buffer plain, fitted, weighted;
    static float x[ELEMENTS], v[ELEMENTS];
    struct itera_rng rng = {.seed = 7, .stream = 1};
    for (int kind = 0; kind < KINDS; kind++) {
        double q8[2][BLOCKS];
        for (int i = 0; i < ELEMENTS; i++) {
            x[i] = draw((enum kind)kind, &rng);
            v[i] = 0.01f + expf(2 * itera_rng_normal(&rng));
        }
        for (int t = 0; t < 2; t++) {
            const enum itera_dtype type = types[t];
            itera_blocks_round(type, x, ELEMENTS, blocks_of(&plain));
            itera_blocks_fit(type, x, NULL, ELEMENTS, blocks_of(&fitted));
            itera_blocks_fit(type, x, v, ELEMENTS, blocks_of(&weighted));
            for (int b = 0; b < BLOCKS; b++) {
                const int64_t first = b * ITERA_BLOCK;
                struct itera_blocks p = {plain.bytes + b * itera_block_bytes(type),
                                         plain.scales + b},
                                    f = {fitted.bytes + b * itera_block_bytes(type),
                                         fitted.scales + b},
                                    w = {weighted.bytes + b * itera_block_bytes(type),
                                         weighted.scales + b};
                const float *at = x + first, *by = v + first;
                assert_true(itera_blocks_error(type, at, NULL, ITERA_BLOCK, f) <=
                            itera_blocks_error(type, at, NULL, ITERA_BLOCK, p));
                assert_true(itera_blocks_error(type, at, by, ITERA_BLOCK, w) <=
                            itera_blocks_error(type, at, by, ITERA_BLOCK, p));
                const double e[2] = {itera_blocks_error(type, at, NULL, ITERA_BLOCK, f),
                                     itera_blocks_error(type, at, by, ITERA_BLOCK, w)};
                for (int k = 0; k < 2; k++) {
                    if (type == ITERA_Q8)
                        q8[k][b] = e[k];
                    else
                        assert_true(q8[k][b] <= e[k]);
                }
            }
            const double p = itera_blocks_error(type, x, NULL, ELEMENTS, blocks_of(&plain));
            const double f = itera_blocks_error(type, x, NULL, ELEMENTS, blocks_of(&fitted));
            const double w = itera_blocks_error(type, x, v, ELEMENTS, blocks_of(&weighted));
            const double u = itera_blocks_error(type, x, v, ELEMENTS, blocks_of(&fitted));
            if (kind != CONSTANT) /* where the rounding of the scale is all */
                assert_true(w <= u);
            if (kind == NORMAL && type == ITERA_Q4) {
                assert_true(f < 0.9 * p); /* what the search is for */
                assert_true(w < 0.75 * u);
                assert_true(f < 0.09 * 0.09 * ELEMENTS);
            }
            if (kind == NORMAL && type == ITERA_Q8)
                assert_true(f < 0.006 * 0.006 * ELEMENTS);
            if (kind == ZERO)
                assert_true(f == 0);
        }
    }
}

/* ---- models ---------------------------------------------------------------------------------- */

struct report {
    struct itera_quantize_tensor last; /* of those that `name` ends */
    const char *name;
    int64_t bytes, elements;
    int tensors, stop_after;
    double worst[ITERA_DTYPE_COUNT]; /* rms error by type */
    double weighted;                 /* squared, of all */
};

static void on_tensor(void *user, const struct itera_quantize_tensor *t)
{
    struct report *r = user;
    enum itera_dtype type;
    assert_true(itera_dtype_find(t->to, &type));
    r->bytes += t->bytes_to;
    r->elements += t->elements;
    r->worst[type] = fmax(r->worst[type], t->rms_error);
    if (isfinite(t->weighted_error))
        r->weighted += t->weighted_error * t->weighted_error * (double)t->elements;
    r->tensors++;
    size_t length = strlen(t->name), suffix = r->name ? strlen(r->name) : 0;
    if (suffix && length >= suffix && !strcmp(t->name + length - suffix, r->name))
        r->last = *t;
}

static int on_progress(void *user, int64_t done, int64_t total)
{
    const struct report *r = user;
    assert_in_range(done, 1, total);
    return r->stop_after && r->tensors >= r->stop_after;
}

static struct itera_model *quantize(struct itera_model *m, const char *to, const char *set,
                                    bool plain, bool calibrate, struct report *r)
{
    struct itera_model *made;
    const struct itera_quantize_options options = {
        .to = to,
        .set = &set,
        .n_set = set != NULL,
        .plain = plain,
        .calibration = calibrate ? dataset : NULL,
        .tensor = on_tensor,
        .progress = on_progress,
        .user = r,
    };
    assert_int_equal(itera_quantize(m, &options, &made), ITERA_OK);
    return made;
}

static double nats(struct itera_model *m)
{
    struct itera_eval_result result;
    struct itera_eval_options options = {.window = 24, .stride = 24, .tokens = 120};
    assert_int_equal(itera_evaluate(m, dataset, &options, &result), ITERA_OK);
    return result.nll;
}

static float *weights_of(const struct itera_model *m)
{
    float *weights = calloc((size_t)m->layout.elements, sizeof *weights);
    assert_non_null(weights);
    assert_int_equal(itera_model_read_f32(m, weights), ITERA_OK);
    return weights;
}

/* The bytes of the file's tensors. */
static int64_t data_bytes(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t header[8];
    assert_non_null(file);
    assert_int_equal(fread(header, 1, 8, file), 8);
    fseek(file, 0, SEEK_END);
    int64_t size = ftell(file);
    fclose(file);
    for (int i = 0; i < 8; i++)
        size -= (int64_t)header[i] << 8 * i;
    return size - 8;
}

/* Every family in every type: the report fits the file, the file gives the same model, which
 * predicts nearly as before. */
static void test_types(void **state)
{
    (void)state;
    static const char *const types[] = {"f32", "f16", "bf16", "q8", "q4", "mixed"};
    static const double nats_within[] = {0, 5e-4, 2e-3, 2e-3, 2e-2, 1e-2};
    char path[] = "/tmp/itera-test-quantize-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    for (int c = 0; c < CONFIGS; c++) {
        struct itera_model *m = make_model(device, configs[c], VOCAB, 5);
        const double before = nats(m);
        for (int t = 0; t < 6; t++) {
            struct report r = {0};
            struct itera_model *made = quantize(m, types[t], NULL, false, false, &r), *loaded;
            assert_int_equal(r.elements, m->layout.parameters);
            assert_true(r.worst[ITERA_F32] == 0);
            assert_true(r.worst[ITERA_F16] < 5e-4);
            assert_true(r.worst[ITERA_BF16] < 4e-3);
            assert_true(r.worst[ITERA_Q8] < 6e-3);
            assert_true(r.worst[ITERA_Q4] < 0.095);
            const double after = nats(made);
            assert_true(fabs(after - before) <= nats_within[t]);

            assert_int_equal(itera_model_save(made, path), ITERA_OK);
            assert_int_equal(data_bytes(path), r.bytes);
            assert_int_equal(itera_model_load(device, path, &loaded), ITERA_OK);
            float *a = weights_of(made), *b = weights_of(loaded);
            for (int i = 0; i < m->layout.n_params; i++) {
                const struct itera_param *param = &m->layout.params[i];
                assert_int_equal(made->layout.params[i].dtype, loaded->layout.params[i].dtype);
                assert_memory_equal(a + param->offset, b + param->offset,
                                    (size_t)itera_shape_elements(&param->shape) * sizeof *a);
            }
            assert_true(nats(loaded) == after);
            free(a);
            free(b);
            itera_model_destroy(&loaded);
            itera_model_destroy(&made);
        }
        itera_model_destroy(&m);
    }
    unlink(path);
}

/* What the search leaves is less than plain rounding does, and with importances less by these. */
static void test_calibration(void **state)
{
    (void)state;
    struct itera_model *m = make_model(device, "itera-m-micro", VOCAB, 5);
    struct report plain = {0}, search = {0};
    struct itera_model *a = quantize(m, "q4", NULL, true, true, &plain),
                       *b = quantize(m, "q4", NULL, false, true, &search);
    assert_true(search.weighted < 0.9 * plain.weighted);
    itera_model_destroy(&a);
    itera_model_destroy(&b);
    itera_model_destroy(&m);
}

static void check_choice(const char *config, const char *to, const char *set, const char *name,
                         const char *type, const char *asked)
{
    struct itera_model *m = make_model(device, config, VOCAB, 5);
    struct report r = {.name = name};
    struct itera_model *made = quantize(m, to, set, true, false, &r);
    assert_non_null(r.last.to);
    assert_string_equal(r.last.to, type);
    assert_string_equal(r.last.asked, asked);
    itera_model_destroy(&made);
    itera_model_destroy(&m);
}

static void test_rules(void **state)
{
    (void)state;
    /* The presets, by the names of each family. */
    check_choice("micro", "mixed", NULL, "1.moe.layer.experts.3.w1.weight", "q4", "q4");
    check_choice("micro", "mixed", NULL, "0.moe.ffn.w2.weight", "q4", "q4");
    check_choice("micro", "mixed", NULL, "router.gate.weight", "f32", "f32");
    check_choice("micro", "mixed", NULL, "delta_proj.weight", "q8", "q8");
    check_choice("micro", "mixed", NULL, "0.ssm.ssm.B", "f16", "f16");
    check_choice("micro", "mixed", NULL, "0.ssm.ssm.A_log", "f16", "f16");
    check_choice("micro", "mixed", NULL, "position_embedding.weight", "q8", "q8");
    check_choice("micro", "mixed", NULL, "0.ssm.norm.weight", "f32", "f32");
    check_choice("itera-m-micro", "mixed", NULL, "embed_tokens.weight", "q8", "q8");
    check_choice("itera-m-micro", "mixed", NULL, "1.feed_forward.experts.0.up_proj.weight", "q4",
                 "q4");
    check_choice("itera-m-micro", "mixed", NULL, "1.feed_forward.router.weight", "f32", "f32");
    check_choice("itera-m-micro", "mixed", NULL, "0.mamba.in_proj.weight", "q8", "q8");
    check_choice("itera-m-micro", "mixed", NULL, "0.mamba.conv1d.weight", "f16", "f16");
    check_choice("itera-m-micro", "mixed", NULL, "final_layernorm.weight", "f32", "f32");
    check_choice("mamba-tiny", "mixed", NULL, "0.mixer.x_proj.weight", "f16", "f16");
    check_choice("mamba-tiny", "mixed", NULL, "0.mixer.A_log", "f16", "f16");
    check_choice("mamba-tiny", "q4", NULL, "0.mixer.x_proj.weight", "q8", "q8");
    check_choice("mamba-tiny", "q4", NULL, "0.mixer.in_proj.weight", "q4", "q4");
    check_choice("transformer-micro", "mixed", NULL, "0.attention.qkv.weight", "q8", "q8");
    check_choice("transformer-micro", "mixed", NULL, "0.ffn.w1.weight", "q4", "q4");
    check_choice("transformer-micro", "f16", NULL, "0.ln1.bias", "f16", "f16");
    /* Rows of 8 hold no blocks. */
    check_choice("micro", "q8", NULL, "0.ssm.ssm.C", "f16", "q8");
    /* The last rule that matches counts; a vector is not touched by q8. */
    check_choice("micro", "q4", "*in_proj*=q8,layers.1.*=f16", "1.ssm.in_proj.weight", "f16",
                 "f16");
    check_choice("micro", "q4", "*in_proj*=q8,layers.1.*=f16", "0.ssm.in_proj.weight", "q8", "q8");
    check_choice("micro", "f16", "layers.*=q8", "0.ssm.norm.weight", "f32", "f32");
}

/* Weights below the range of f16 scales: a warning that names them, and a wider type in mixed, if no
 * rule says otherwise. */
static void test_tiny_weights(void **state)
{
    (void)state;
    static const struct {
        const char *to, *set;
        float by;
        bool warned;
        const char *type;
    } cases[] = {
        {"q8", NULL, 1, false, "q8"},
        {"q8", NULL, 1e-6f, true, "q8"},
        {"q4", NULL, 3e-7f, true, "q4"},
        {"q8", NULL, 1e-9f, true, "q8"},
        {"f16", NULL, 1e-6f, true, "f16"},
        {"bf16", NULL, 1e-6f, false, "bf16"},
        {"mixed", NULL, 1, false, "q8"},
        {"mixed", NULL, 1e-5f, false, "q8"},
        {"mixed", NULL, 1e-6f, false, "f32"},
        {"mixed", "*in_proj*=q8", 1e-6f, true, "q8"},
        {"q8", "*in_proj*=f32", 1e-6f, false, "f32"},
    };
    log_begin();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct itera_model *m = make_model(device, "itera-m-micro", VOCAB, 5);
        float *weights = weights_of(m);
        const char *name = NULL;
        for (int p = 0; p < m->layout.n_params; p++) {
            const struct itera_param *param = &m->layout.params[p];
            if (!strstr(param->name, "layers.0.mamba.in_proj.weight"))
                continue;
            name = param->name;
            for (int64_t k = 0; k < itera_shape_elements(&param->shape); k++)
                weights[param->offset + k] *= cases[i].by;
        }
        assert_non_null(name);
        assert_int_equal(itera_model_write_f32(m, weights), ITERA_OK);
        log_clear();
        struct report r = {.name = "layers.0.mamba.in_proj.weight"};
        struct itera_model *made = quantize(m, cases[i].to, cases[i].set, false, false, &r);
        assert_string_equal(r.last.to, cases[i].type);
        assert_int_equal(strstr(logged, name) != NULL, cases[i].warned);
        assert_int_equal((logged_times("<1>") > 0), cases[i].warned);
        itera_model_destroy(&made);
        itera_model_destroy(&m);
        free(weights);
    }
    itera_set_log(NULL, NULL);
}

static void refused(struct itera_model *m, const char *to, const char *set,
                    enum itera_status status, const char *words)
{
    struct itera_model *made;
    const struct itera_quantize_options options = {.to = to, .set = &set, .n_set = set != NULL};
    assert_int_equal(itera_quantize(m, &options, &made), status);
    assert_null(made);
    assert_says(words);
}

static void test_refusals(void **state)
{
    (void)state;
    struct itera_model *m = make_model(device, "itera-m-micro", VOCAB, 5), *made;
    refused(m, "q5", NULL, ITERA_ERR_ARGUMENT, "'q5'");
    refused(m, "q8", "*nothing*=q4", ITERA_ERR_ARGUMENT, "model.embed_tokens.weight");
    refused(m, "q8", "*in_proj*", ITERA_ERR_ARGUMENT, "PATTERN=TYPE");
    refused(m, "q8", "=q4", ITERA_ERR_ARGUMENT, "PATTERN=TYPE");
    refused(m, "q8", "*in_proj*=i32", ITERA_ERR_ARGUMENT, "'i32'");
    refused(m, "q8", "*layernorm*=q8", ITERA_ERR_ARGUMENT, "only matrices");
    refused(m, "q8", "*experts.1.*=q4", ITERA_ERR_ARGUMENT, "one matrix");

    struct itera_quantize_options options = {.to = "q8", .calibration = dataset};
    options.calibration_tokens = 1000000;
    assert_int_equal(itera_quantize(m, &options, &made), ITERA_ERR_ARGUMENT);
    assert_non_null(strstr(itera_last_error(), "too short"));

    struct report r = {.stop_after = 3};
    options = (struct itera_quantize_options){
        .to = "q8", .tensor = on_tensor, .progress = on_progress, .user = &r};
    assert_int_equal(itera_quantize(m, &options, &made), ITERA_ERR_CANCELLED);
    assert_null(made);
    assert_int_equal(r.tensors, 3);

    r = (struct report){0};
    made = quantize(m, "f32", "*in_proj*=q8", true, false, &r);
    refused(made, "q4", NULL, ITERA_ERR_UNSUPPORTED, "quantised already");
    itera_model_destroy(&made);
    made = quantize(m, "bf16", NULL, true, false, &r);
    struct itera_model *again = quantize(made, "q8", NULL, true, false, &r);
    itera_model_destroy(&again);
    itera_model_destroy(&made);

    float *weights = weights_of(m);
    weights[m->layout.params[0].offset + 33] = -70000;
    assert_int_equal(itera_model_write_f32(m, weights), ITERA_OK);
    refused(m, "f16", NULL, ITERA_ERR_LIMIT, m->layout.params[0].name);
    made = quantize(m, "q4", NULL, false, false, &r);
    itera_model_destroy(&made);
    weights[m->layout.params[0].offset + 33] = -7e5f;
    assert_int_equal(itera_model_write_f32(m, weights), ITERA_OK);
    refused(m, "q4", NULL, ITERA_ERR_LIMIT, "too large for q4");
    free(weights);
    itera_model_destroy(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_blocks),
        cmocka_unit_test(test_search),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_calibration),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_tiny_weights),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
