/* The parity harness: what it passes, and above all what it must catch. Faults are injected between
 * a real device and the harness, in the memory that it reads back. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/checker.h"
#include "core/log.h"
#include "tests/support/test.h"

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

/* Faults of one kind in what every op reads or writes. A buffer's contents before the run tell the
 * words that the op wrote: each runner uploads all of its buffers in the order in which it downloads
 * them. */
enum { BUFFERS = 64 };
static struct {
    uint32_t *before;
    size_t words;
} uploaded[BUFFERS];
static int uploads, fetched;

/* What a fault does to a word at a distance (in words) from the largest one. True: it changed it. */
typedef bool fault_fn(uint32_t *word, ptrdiff_t distance);
static fault_fn *fault; /* in what is written; NULL: in what is read */
static int drop_from;   /* the buffer whose last value is not read; -1: none */
static size_t dropped;  /* where that value is */
static bool harmed;     /* something came out otherwise, or something was not read */

static float value_of(uint32_t word)
{
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

static bool is_written(int buffer, const uint32_t *words, size_t i)
{
    return words[i] != uploaded[buffer].before[i] && isfinite(value_of(words[i]));
}

static bool opposite_sign(uint32_t *word, ptrdiff_t distance)
{
    if (distance || value_of(*word) == 0)
        return false;
    *word ^= 0x80000000u;
    return true;
}

/* One lane of a vector of eight, 1e-5 too large: constants of too few digits, an approximation. */
static bool lane_off(uint32_t *word, ptrdiff_t distance)
{
    const float value = value_of(*word) * (1 + 1e-5f);
    if (distance % 8 || fabsf(value) < 1e-30f)
        return false;
    memcpy(word, &value, sizeof value);
    return true;
}

static void inject(int buffer, uint32_t *words, size_t n)
{
    size_t largest = n;
    for (size_t i = 0; i < n; i++)
        if (is_written(buffer, words, i) &&
            (largest == n || fabsf(value_of(words[i])) > fabsf(value_of(words[largest]))))
            largest = i;
    for (size_t i = 0; i < n && largest < n; i++)
        if (is_written(buffer, words, i) && fault(&words[i], (ptrdiff_t)i - (ptrdiff_t)largest))
            harmed = true;
}

/* Takes the last value of an operand away, as a loop that ends a step too early does. */
static void drop_last(uint32_t *words, size_t n)
{
    for (size_t i = n; i-- > 0 && !harmed;)
        if (words[i] != ITERA_TRIAL_PATTERN && words[i] << 1) {
            dropped = i;
            words[i] = 0;
            harmed = true;
        }
}

static enum itera_status noted_upload(struct itera_buffer *buffer, size_t offset, const void *data,
                                      size_t bytes)
{
    if (fetched) { /* a new run */
        for (int i = 0; i < uploads; i++)
            free(uploaded[i].before);
        uploads = fetched = 0;
    }
    assert_true(uploads < BUFFERS);
    uint32_t *before = malloc(bytes + 1), *changed = malloc(bytes + 1);
    assert_non_null(before);
    assert_non_null(changed);
    memcpy(before, data, bytes);
    memcpy(changed, data, bytes);
    if (uploads == drop_from)
        drop_last(changed, bytes / 4);
    uploaded[uploads].before = before;
    uploaded[uploads++].words = bytes / 4;
    enum itera_status status = itera_backend_cpu.upload(buffer, offset, changed, bytes);
    free(changed);
    return status;
}

static enum itera_status noted_download(struct itera_buffer *buffer, size_t offset, void *data,
                                        size_t bytes)
{
    enum itera_status status = itera_backend_cpu.download(buffer, offset, data, bytes);
    uint32_t *words = data;
    assert_true(fetched < uploads && uploaded[fetched].words == bytes / 4);
    if (fault)
        inject(fetched, words, bytes / 4);
    else if (fetched == drop_from && harmed && words[dropped] == 0) /* the operand stays as it is */
        words[dropped] = uploaded[fetched].before[dropped];
    fetched++;
    return status;
}

/* Runs a case on a device with the fault: harmed says whether there was anything to spoil. */
static bool is_caught(enum itera_op_kind kind, int index, bool gradient, int *buffers)
{
    static const struct itera_check_options options = {.seed = 1};
    static struct itera_backend faulty;
    struct itera_check_summary summary = {0};
    struct itera_check_target target = {.name = "faulty", .device = open_device("ref", 1, false)};
    struct itera_checker checker = {
        .options = &options,
        .summary = &summary,
        .targets = &target,
        .n_targets = 1,
        .reference = open_device("ref", 1, false),
        .globs = "*",
        .all_names = true,
    };
    faulty = itera_backend_cpu;
    faulty.upload = noted_upload;
    faulty.download = noted_download;
    target.device->backend = &faulty;
    harmed = false;
    itera_log_hush(1);
    if (gradient)
        itera_check_gradient(&checker, kind, index);
    else
        itera_check_forward(&checker, kind, index);
    itera_log_hush(-1);
    assert_int_equal(checker.status, ITERA_OK);
    *buffers = uploads;
    for (int i = 0; i < uploads; i++)
        free(uploaded[i].before);
    uploads = fetched = 0;
    itera_device_close(&checker.reference);
    itera_device_close(&target.device);
    return summary.fail > 0;
}

enum { TEETH_CASES = 4 };

static bool has_case(int kind, bool gradient)
{
    return itera_check_has_cases((enum itera_op_kind)kind) &&
           (!gradient || itera_op_info((enum itera_op_kind)kind)->def->grad);
}

/* Of the first cases of every op, none comes out spoilt without a failure. */
static void expect_teeth(fault_fn *fn, const char *name)
{
    int missed = 0, caught = 0, buffers;
    fault = fn;
    drop_from = -1;
    for (int kind = 0; kind < ITERA_OP_COUNT; kind++)
        for (int i = 0; i < 2 * TEETH_CASES; i++) {
            const bool gradient = i >= TEETH_CASES;
            if (!has_case(kind, gradient))
                continue;
            const bool noticed =
                is_caught((enum itera_op_kind)kind, i % TEETH_CASES, gradient, &buffers);
            caught += noticed && harmed;
            if (noticed || !harmed)
                continue;
            print_message("%s, case %d%s: %s is not noticed\n",
                          itera_op_info((enum itera_op_kind)kind)->name, i % TEETH_CASES,
                          gradient ? " of the gradient" : "", name);
            missed++;
        }
    fault = NULL;
    assert_int_equal(missed, 0);
    assert_true(caught > TEETH_CASES * ITERA_OP_COUNT / 2);
}

static void test_wrong_element(void **state)
{
    (void)state;
    expect_teeth(opposite_sign, "one wrong element");
}

static void test_lane_off(void **state)
{
    (void)state;
    expect_teeth(lane_off, "a relative error of 1e-5 in one lane");
}

/* The last value of each operand in turn: that it is missing must show in some case of every op (not
 * in all: nothing depends on the last row of a table that no token names, and no draw on a token
 * that was not near). */
static void test_dropped_step(void **state)
{
    (void)state;
    int missed = 0;
    fault = NULL;
    for (int kind = 0; kind < ITERA_OP_COUNT; kind++)
        for (int gradient = 0; gradient < 2; gradient++) {
            int tried = 0, caught = 0;
            for (int i = 0; i < 4 * TEETH_CASES && !caught && has_case(kind, gradient); i++) {
                int buffers = 1;
                for (drop_from = 0; drop_from < buffers; drop_from++) {
                    const bool noticed = is_caught((enum itera_op_kind)kind, i, gradient, &buffers);
                    tried += harmed;
                    caught += harmed && noticed;
                }
            }
            if (!tried || caught)
                continue;
            print_message("%s%s: a dropped last step is never noticed\n",
                          itera_op_info((enum itera_op_kind)kind)->name,
                          gradient ? ", its gradient" : "");
            missed++;
        }
    assert_int_equal(missed, 0);
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
        cmocka_unit_test(test_wrong_element),
        cmocka_unit_test(test_lane_off),
        cmocka_unit_test(test_dropped_step),
        cmocka_unit_test(test_fills),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
