/* The fixtures, on every level of this machine's CPU: logits, losses and every gradient against
 * other programs' values; and that check finds what is wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "format/safetensors.h"
#include "itera/check.h"
#include "itera/eval.h"
#include "itera/model.h"
#include "tests/support/test.h"

#define FIXTURES ITERA_SOURCE_DIR "/tests/fixtures/"

struct counts {
    int gradients, decode, greedy, prefill, logits, loss, aux;
    int variants; /* changes of variant */
    char variant[64];
};

static int on_result(void *user, const struct itera_check_result *r)
{
    struct counts *c = user;
    if (r->verdict != ITERA_CHECK_PASS)
        print_message("%s %s [%s]: %s\n", r->op, r->variant, r->label, r->reason);
    c->gradients += !strncmp(r->op, "grad.", 5);
    c->decode += !strcmp(r->op, "decode");
    c->greedy += !strcmp(r->op, "greedy");
    c->prefill += !strcmp(r->op, "prefill");
    c->logits += !strcmp(r->op, "logits");
    c->loss += !strcmp(r->op, "loss");
    c->aux += !strcmp(r->op, "aux_loss");
    c->variants += strcmp(c->variant, r->variant) != 0;
    snprintf(c->variant, sizeof c->variant, "%s", r->variant);
    return 0;
}

/* tensors: parameters in the file, each of which has a gradient. */
static void check_fixture(const char *name, int tensors, bool aux)
{
    char model[512], expected[512];
    snprintf(model, sizeof model, FIXTURES "%s", name);
    snprintf(expected, sizeof expected, FIXTURES "%s/expected.safetensors", name);
    struct itera_check_options options = {0};
    struct itera_check_summary summary;
    struct counts c = {0};
    assert_int_equal(itera_check_model(model, expected, &options, on_result, &c, &summary),
                     ITERA_OK);
    assert_int_equal(summary.fail, 0);
    assert_int_equal(summary.skip, 0);
    /* The reference at the least, and one level with two threads. */
    assert_true(c.variants >= 2);
    assert_int_equal(c.gradients, tensors * c.variants);
    assert_int_equal(c.logits, c.variants);
    assert_int_equal(c.loss, c.variants);
    assert_int_equal(c.decode, c.variants);
    assert_int_equal(c.greedy, c.variants);
    assert_int_equal(c.prefill, c.variants);
    assert_int_equal(c.aux, aux ? c.variants : 0);
}

static void test_itera(void **state)
{
    (void)state;
    check_fixture("itera-small", 59, true);
    check_fixture("itera-odd", 86, true);
}

static void test_mamba(void **state)
{
    (void)state;
    check_fixture("mamba-small", 22, false);
    check_fixture("mamba-odd", 22, false);
}

static void test_transformer(void **state)
{
    (void)state;
    check_fixture("transformer-small", 20, false);
}

/* Without a file: the reference is the measure, gradients included. */
static void test_against_reference(void **state)
{
    (void)state;
    struct itera_check_options options = {.gradients = 1, .seed = 3};
    struct itera_check_summary summary;
    struct counts c = {0};
    assert_int_equal(
        itera_check_model(FIXTURES "mamba-odd", NULL, &options, on_result, &c, &summary), ITERA_OK);
    assert_int_equal(summary.fail, 0);
    assert_int_equal(c.gradients, 22 * c.decode);
    assert_true(c.decode >= 1);
}

static int stop_at_once(void *user, const struct itera_check_result *r)
{
    (void)r;
    ++*(int *)user;
    return 1;
}

static void test_stop(void **state)
{
    (void)state;
    struct itera_check_options options = {0};
    struct itera_check_summary summary;
    int calls = 0;
    assert_int_equal(itera_check_model(FIXTURES "mamba-odd",
                                       FIXTURES "mamba-odd/expected.safetensors", &options,
                                       stop_at_once, &calls, &summary),
                     ITERA_ERR_CANCELLED);
    assert_int_equal(calls, 1);
}

/* Copies the tensors of an expected file with one value changed. */
static void spoil(const char *from, const char *to, const char *tensor, float by)
{
    struct itera_safetensors *file;
    assert_int_equal(itera_safetensors_open(from, &file), ITERA_OK);
    size_t n = itera_safetensors_count(file);
    struct itera_safetensors_entry *entries = calloc(n, sizeof *entries);
    assert_non_null(entries);
    void *changed = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct itera_safetensor *t = itera_safetensors_at(file, i);
        entries[i] = (struct itera_safetensors_entry){
            .name = t->name, .dtype = t->dtype, .rank = t->rank, .data = t->data};
        memcpy(entries[i].dim, t->dim, sizeof t->dim);
        if (strcmp(t->name, tensor) != 0)
            continue;
        changed = malloc(t->bytes);
        assert_non_null(changed);
        memcpy(changed, t->data, t->bytes);
        if (t->dtype == ITERA_ST_F32)
            ((float *)changed)[t->count / 2] += by;
        else
            ((int32_t *)changed)[t->count / 2] += (int32_t)by;
        entries[i].data = changed;
    }
    assert_non_null(changed);
    assert_int_equal(itera_safetensors_write(to, entries, n, NULL, 0), ITERA_OK);
    itera_safetensors_close(&file);
    free(entries);
    free(changed);
}

/* One wrong value anywhere is found, and nothing else is. */
static void test_finds_errors(void **state)
{
    (void)state;
    static const char *const tensors[] = {"logits", "loss", "grad.backbone.layers.1.mixer.A_log"};
    char path[] = "/tmp/itera-test-expected-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct itera_check_options options = {.isa = "ref"};
    struct itera_check_summary summary;
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        spoil(FIXTURES "mamba-odd/expected.safetensors", path, tensors[i], 0.01f);
        assert_int_equal(
            itera_check_model(FIXTURES "mamba-odd", path, &options, NULL, NULL, &summary),
            ITERA_OK);
        assert_true(summary.fail > 0);
        assert_true(summary.pass > 20);
    }
    spoil(FIXTURES "mamba-odd/expected.safetensors", path, "input_ids", 1000);
    assert_int_equal(itera_check_model(FIXTURES "mamba-odd", path, &options, NULL, NULL, &summary),
                     ITERA_ERR_FORMAT);
    unlink(path);
}

static void test_bad_input(void **state)
{
    (void)state;
    struct itera_check_options options = {.isa = "ref"};
    struct itera_check_summary summary;
    assert_int_not_equal(
        itera_check_model(FIXTURES "nothing", NULL, &options, NULL, NULL, &summary), ITERA_OK);
    /* Another model's values, and a file with none. */
    assert_int_not_equal(itera_check_model(FIXTURES "mamba-odd",
                                           FIXTURES "mamba-small/expected.safetensors", &options,
                                           NULL, NULL, &summary),
                         ITERA_OK);
    assert_int_equal(itera_check_model(FIXTURES "mamba-odd", FIXTURES "mamba-odd/model.safetensors",
                                       &options, NULL, NULL, &summary),
                     ITERA_ERR_FORMAT);
    options.isa = "sse9";
    assert_int_not_equal(
        itera_check_model(FIXTURES "mamba-odd", NULL, &options, NULL, NULL, &summary), ITERA_OK);
    options = (struct itera_check_options){.devices = "opencl:77"};
    assert_int_not_equal(
        itera_check_model(FIXTURES "mamba-odd", NULL, &options, NULL, NULL, &summary), ITERA_OK);
}

/* itera_logits, which the command `logits` writes to a file, agrees too. */
static void test_logits(void **state)
{
    (void)state;
    struct itera_device *device;
    struct itera_model *model;
    struct itera_safetensors *file;
    assert_int_equal(itera_device_open("cpu", NULL, &device), ITERA_OK);
    assert_int_equal(itera_model_load(device, FIXTURES "itera-odd", &model), ITERA_OK);
    assert_int_equal(itera_safetensors_open(FIXTURES "itera-odd/expected.safetensors", &file),
                     ITERA_OK);
    const struct itera_safetensor *ids = itera_safetensors_find(file, "input_ids");
    const struct itera_safetensor *expected = itera_safetensors_find(file, "logits");
    int32_t *tokens = malloc((size_t)ids->count * 4);
    float *a = malloc((size_t)expected->count * 4), *b = malloc((size_t)expected->count * 4);
    assert_int_equal(itera_safetensor_read_i32(ids, 0, ids->count, tokens), ITERA_OK);
    assert_int_equal(itera_safetensor_read_f32(expected, 0, expected->count, b), ITERA_OK);
    assert_int_equal(itera_logits(model, tokens, ids->dim[0], ids->dim[1], a), ITERA_OK);
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < expected->count; i++) {
        double d = (double)a[i] - b[i];
        worst = d > worst ? d : -d > worst ? -d : worst;
        largest = b[i] > largest ? b[i] : -b[i] > largest ? -b[i] : largest;
    }
    assert_true(worst <= 1e-5 * largest);
    tokens[2] = 61;
    assert_int_equal(itera_logits(model, tokens, 1, 4, a), ITERA_ERR_ARGUMENT);
    tokens[2] = -1;
    assert_int_equal(itera_logits(model, tokens, 1, 4, a), ITERA_ERR_ARGUMENT);
    tokens[2] = 1;
    assert_int_equal(itera_logits(model, tokens, 1, 31, a), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_logits(model, tokens, 1, 0, a), ITERA_ERR_ARGUMENT);
    free(tokens);
    free(a);
    free(b);
    itera_safetensors_close(&file);
    itera_model_destroy(&model);
    itera_device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_itera),       cmocka_unit_test(test_mamba),
        cmocka_unit_test(test_transformer), cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_stop),        cmocka_unit_test(test_finds_errors),
        cmocka_unit_test(test_bad_input),   cmocka_unit_test(test_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
