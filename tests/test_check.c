/* The parity harness: what it passes, and above all what it must catch. Faults are injected between
 * a real device and the harness, in the memory that it reads back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "check/checker.h"
#include "core/log.h"

/* A CPU device whose results go through `spoil`. */
typedef void spoil_fn(uint32_t *words, size_t n);

static struct itera_backend spoiled_backend;
static spoil_fn *spoil;
static int spoil_from, spoil_to; /* which downloads, counted from 0 */
static int downloads;

static enum itera_status spoiled_download(struct itera_buffer *buffer, size_t offset, void *data,
                                          size_t bytes)
{
    enum itera_status status = itera_backend_cpu.download(buffer, offset, data, bytes);
    if (spoil && downloads >= spoil_from && downloads < spoil_to)
        spoil(data, bytes / 4);
    downloads++;
    return status;
}

static struct itera_device *open_device(const char *isa, int threads, bool spoilt)
{
    struct itera_device *device;
    struct itera_device_options options = {.threads = threads, .isa = isa};
    assert_int_equal(itera_device_open("cpu", &options, &device), ITERA_OK);
    spoiled_backend = itera_backend_cpu;
    spoiled_backend.download = spoiled_download;
    if (spoilt)
        device->backend = &spoiled_backend;
    return device;
}

static char last_reason[300];
static char last_variant[64];

static int remember(void *user, const struct itera_check_result *result)
{
    (void)user;
    if (result->verdict == ITERA_CHECK_FAIL && !last_reason[0]) {
        snprintf(last_reason, sizeof last_reason, "%s", result->reason);
        snprintf(last_variant, sizeof last_variant, "%s", result->variant);
    }
    return 0;
}

/* One case of an op on a device that may be spoilt, against a reference that may be. */
static struct itera_check_summary run_case(enum itera_op_kind kind, int index, int threads,
                                           bool spoil_reference, bool gradient)
{
    static const struct itera_check_options options = {.seed = 1};
    struct itera_check_summary summary = {0};
    struct itera_check_target target = {.name = "spoilt"};
    target.device = open_device("ref", threads, !spoil_reference);
    target.device->checking = true;
    struct itera_checker checker = {
        .options = &options,
        .fn = remember,
        .summary = &summary,
        .targets = &target,
        .n_targets = 1,
        .reference = open_device("ref", 1, spoil_reference),
        .globs = "*",
        .all_names = true,
    };
    last_reason[0] = last_variant[0] = '\0';
    downloads = 0;
    itera_log_hush(1);
    if (gradient)
        assert_true(itera_check_gradient(&checker, kind, index));
    else
        assert_true(itera_check_forward(&checker, kind, index));
    itera_log_hush(-1);
    assert_int_equal(checker.status, ITERA_OK);
    itera_device_close(&checker.reference);
    itera_device_close(&target.device);
    return summary;
}

static void expect_failure(spoil_fn *fn, int from, int to, const char *reason)
{
    spoil = fn;
    spoil_from = from;
    spoil_to = to;
    struct itera_check_summary summary = run_case(ITERA_OP_silu, 0, 1, false, false);
    spoil = NULL;
    assert_true(summary.fail > 0);
    if (!strstr(last_reason, reason))
        fail_msg("expected a reason with '%s', got '%s'", reason, last_reason);
}

/* The words of the tensor lie between guards of 512 bytes. */
enum { GUARD = 128 };

static void no_harm(uint32_t *words, size_t n)
{
    (void)words;
    (void)n;
}

static void write_before(uint32_t *words, size_t n)
{
    (void)n;
    words[GUARD - 1] = 0;
}

static void write_behind(uint32_t *words, size_t n)
{
    words[n - GUARD] = 0;
}

static void change_one(uint32_t *words, size_t n)
{
    (void)n;
    float value;
    memcpy(&value, &words[GUARD], sizeof value);
    value = value * 1.01f + 0.01f;
    memcpy(&words[GUARD], &value, sizeof value);
}

static void make_nan(uint32_t *words, size_t n)
{
    (void)n;
    words[GUARD] = 0x7fc00000;
}

static void make_infinite(uint32_t *words, size_t n)
{
    (void)n;
    words[GUARD] = 0x7f800000;
}

static void forget_one(uint32_t *words, size_t n)
{
    (void)n;
    words[GUARD] = ITERA_TRIAL_PATTERN;
}

/* All values a little too large, as a slightly wrong constant makes them. */
static void scale_all(uint32_t *words, size_t n)
{
    for (size_t i = GUARD; i + GUARD < n; i++) {
        float value;
        if (words[i] == ITERA_TRIAL_PATTERN)
            continue;
        memcpy(&value, &words[i], sizeof value);
        value *= 1.01f;
        memcpy(&words[i], &value, sizeof value);
    }
}

static void test_good(void **state)
{
    (void)state;
    spoil = no_harm;
    struct itera_check_summary summary = run_case(ITERA_OP_silu, 0, 1, false, false);
    spoil = NULL;
    assert_string_equal(last_reason, "");
    assert_true(summary.pass > 0);
    assert_int_equal(summary.fail, 0);
}

/* silu has two buffers: x is read back first, then y. */
static void test_faults(void **state)
{
    (void)state;
    expect_failure(write_before, 1, 2, "wrote 4 bytes before y");
    expect_failure(write_behind, 1, 2, "behind y");
    expect_failure(write_before, 0, 1, "before x");
    expect_failure(change_one, 0, 1, "changed an operand that it only reads, x at [0, 0]");
    expect_failure(change_one, 1, 2, "NMSE");
    expect_failure(make_nan, 1, 2, "y[0, 0] is nan where");
    expect_failure(make_infinite, 1, 2, "y[0, 0] is inf");
    expect_failure(forget_one, 1, 2, "never written");
}

static void test_differs_between_runs(void **state)
{
    (void)state;
    spoil = make_nan;
    spoil_from = 3; /* y of the second run */
    spoil_to = 4;
    struct itera_check_summary summary = run_case(ITERA_OP_silu, 0, 2, false, false);
    spoil = NULL;
    assert_true(summary.fail > 0);
    assert_non_null(strstr(last_reason, "differs between two equal runs"));
}

static void test_bad_reference(void **state)
{
    (void)state;
    spoil = forget_one;
    spoil_from = 1;
    spoil_to = 2;
    struct itera_check_summary summary = run_case(ITERA_OP_silu, 0, 1, true, false);
    spoil = NULL;
    assert_int_equal(summary.fail, 1);
    assert_string_equal(last_variant, "reference");
    assert_non_null(strstr(last_reason, "never written"));
}

/* A gradient rule that is off by a percent: the reference's own gradient is scaled, which its
 * finite differences must notice. x, seed and dx are read back in this order. */
static void test_finite_differences(void **state)
{
    (void)state;
    spoil = no_harm;
    struct itera_check_summary good = run_case(ITERA_OP_silu, 0, 1, true, true);
    assert_int_equal(good.fail, 0);
    assert_int_equal(good.pass, 2); /* the differences, and the device */

    spoil = scale_all;
    spoil_from = 2;
    spoil_to = 3;
    struct itera_check_summary bad = run_case(ITERA_OP_silu, 0, 1, true, true);
    spoil = NULL;
    assert_int_equal(bad.fail, 2);
    assert_string_equal(last_variant, "finite-difference");
    assert_non_null(strstr(last_reason, "the gradient of x is off by"));
}

static int count_rows(void *user, const struct itera_check_result *result)
{
    int *rows = user;
    assert_true(!strcmp(result->op, "softplus") || !strcmp(result->op, "softplus_bwd"));
    assert_string_equal(result->device, "cpu");
    assert_true(result->progress >= 0 && result->progress <= 1);
    ++*rows;
    return 0;
}

static int stop(void *user, const struct itera_check_result *result)
{
    (void)user;
    (void)result;
    return 1;
}

static void test_interface(void **state)
{
    (void)state;
    struct itera_check_options options = {.ops = "softplus", .cases = 2, .gradients = 1, .seed = 7};
    struct itera_check_summary summary, again;
    int rows = 0;
    assert_int_equal(itera_check_ops(&options, count_rows, &rows, &summary), ITERA_OK);
    assert_int_equal(summary.fail, 0);
    assert_true(summary.pass > 0);
    assert_int_equal(rows, summary.pass + summary.skip);
    assert_int_equal(itera_check_ops(&options, NULL, NULL, &again), ITERA_OK);
    assert_memory_equal(&summary, &again, sizeof summary);

    /* A gradient op is reached through its forward op. */
    options.ops = "softplus_bwd";
    options.gradients = 0;
    rows = 0;
    assert_int_equal(itera_check_ops(&options, count_rows, &rows, &summary), ITERA_OK);
    assert_true(summary.pass > 0);

    options.ops = "no_such_op";
    assert_int_equal(itera_check_ops(&options, NULL, NULL, &summary), ITERA_ERR_ARGUMENT);
    options.ops = "softplus";
    options.devices = "gpu:7";
    assert_int_equal(itera_check_ops(&options, NULL, NULL, &summary), ITERA_ERR_DEVICE);
    options.devices = NULL;
    options.isa = "sse9";
    assert_int_equal(itera_check_ops(&options, NULL, NULL, &summary), ITERA_ERR_ARGUMENT);
    options.isa = "ref";
    assert_int_equal(itera_check_ops(&options, stop, NULL, &summary), ITERA_ERR_CANCELLED);
}

/* A few cases of every op, at every level: what `itera check` does with all of them. */
static int print_failure(void *user, const struct itera_check_result *result)
{
    (void)user;
    if (result->verdict == ITERA_CHECK_FAIL)
        print_message("%s [%s] on %s: %s\n", result->op, result->label, result->variant,
                      result->reason);
    return 0;
}

static void test_every_op(void **state)
{
    (void)state;
    struct itera_check_options options = {.gradients = 1, .seed = 1, .cases = 4};
    struct itera_check_summary summary;
    assert_int_equal(itera_check_ops(&options, print_failure, NULL, &summary), ITERA_OK);
    assert_int_equal(summary.fail, 0);
    assert_true(summary.pass > ITERA_OP_COUNT);
}

static void test_fills(void **state)
{
    (void)state;
    struct itera_rng rng = {.seed = 3};
    int32_t x[64];
    itera_trial_fill(ITERA_FILL_OFFSETS, 0, 40, &rng, 1, 9, 9, x);
    assert_int_equal(x[0], 0);
    assert_int_equal(x[8], 40);
    for (int i = 1; i < 9; i++)
        assert_true(x[i] >= x[i - 1]);
    itera_trial_fill(ITERA_FILL_EXPERTS, 0, 4, &rng, 8, 3, 5, x);
    for (int r = 0; r < 8; r++)
        for (int i = 0; i < 3; i++) {
            assert_true(x[5 * r + i] >= 0 && x[5 * r + i] < 4);
            for (int j = 0; j < i; j++)
                assert_int_not_equal(x[5 * r + i], x[5 * r + j]);
        }
    int ignored = 0;
    itera_trial_fill(ITERA_FILL_IGNORE, 0, 10, &rng, 1, 64, 64, x);
    for (int i = 0; i < 64; i++) {
        ignored += x[i] == -1;
        assert_true(x[i] >= -1 && x[i] < 10);
    }
    assert_in_range(ignored, 1, 63);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_differs_between_runs),
        cmocka_unit_test(test_bad_reference),
        cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_interface),
        cmocka_unit_test(test_every_op),
        cmocka_unit_test(test_fills),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
