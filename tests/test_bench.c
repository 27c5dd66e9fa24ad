/* The statistics of the benchmark on series whose truth is known, tasks in turns, parity, and what
 * is read of the machine. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/bench_impl.h"
#include "check/limits.h"
#include "core/file.h"
#include "core/log.h"
#include "core/rng.h"
#include "itera/compress.h"
#include "tests/support/test.h"

static double normal(struct itera_rng *rng)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (double)itera_rng_uniform(rng);
    return sum;
}

/* The share of 400 series of n values whose interval holds their median, 100. Neighbours have this
 * correlation; a share of the values is an outlier far above. */
static double coverage(int n, double correlation, double outliers)
{
    enum { SERIES = 400, MOST = 64 };
    struct itera_rng rng = {.seed = 5};
    int held = 0;
    for (int s = 0; s < SERIES; s++) {
        double series[MOST], state = normal(&rng);
        for (int i = 0; i < n; i++) {
            series[i] = 100 + 5 * state;
            if ((double)itera_rng_uniform(&rng) < outliers)
                series[i] += series[i] > 100 ? 300 : 0; /* the median stays */
            state = correlation * state + sqrt(1 - correlation * correlation) * normal(&rng);
        }
        struct itera_bench_interval interval;
        assert_int_equal(itera_bench_interval(series, n, &interval), ITERA_OK);
        assert_true(interval.low <= interval.median && interval.median <= interval.high);
        held += interval.low <= 100 && 100 <= interval.high;
    }
    return (double)held / SERIES;
}

/* Independent values: 95%. Drifting ones, where an interval that took them for independent would
 * hold the truth half of the time: still nine times of ten, as long as the drift turns within the
 * series. */
static void test_coverage(void **state)
{
    (void)state;
    static const struct {
        int n;
        double correlation, outliers, least;
    } cases[] = {{40, 0, 0, 0.93},   {40, 0, 0.2, 0.93}, {12, 0, 0, 0.90},    {40, 0.5, 0, 0.90},
                 {40, 0.8, 0, 0.86}, {24, 0.5, 0, 0.86}, {40, 0.8, 0.2, 0.86}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double share = coverage(cases[i].n, cases[i].correlation, cases[i].outliers);
        print_message("n %d, correlation %g, outliers %g: %.3f\n", cases[i].n, cases[i].correlation,
                      cases[i].outliers, share);
        assert_true(share >= cases[i].least);
    }
}

/* A machine that is half as fast for a stretch: the interval reaches to both speeds. */
static void test_regimes(void **state)
{
    (void)state;
    double series[40];
    struct itera_rng rng = {.seed = 9};
    for (int i = 0; i < 40; i++)
        series[i] = (i < 22 ? 100 : 200) + normal(&rng);
    struct itera_bench_interval interval;
    assert_int_equal(itera_bench_interval(series, 40, &interval), ITERA_OK);
    assert_true(interval.low < 110);
    assert_true(interval.high > 190);
}

static void test_short_series(void **state)
{
    (void)state;
    struct itera_bench_interval interval;
    assert_int_equal(itera_bench_interval(NULL, 0, &interval), ITERA_OK);
    assert_true(isnan(interval.median));
    const double one = 3, some[] = {3, 1, 2};
    assert_int_equal(itera_bench_interval(&one, 1, &interval), ITERA_OK);
    assert_true(interval.low == 3 && interval.median == 3 && interval.high == 3);
    assert_int_equal(itera_bench_interval(some, 3, &interval), ITERA_OK);
    assert_true(interval.low == 1 && interval.median == 2 && interval.high == 3);
    const double same[] = {5, 5, 5, 5, 5, 5, 5, 5};
    assert_int_equal(itera_bench_interval(same, 8, &interval), ITERA_OK);
    assert_true(interval.low == 5 && interval.high == 5);
}

static void test_fit(void **state)
{
    (void)state;
    const double x[] = {1, 2, 4, 8, 16}, exact[] = {3, 12, 48, 192, 768};
    struct itera_bench_fit fit = itera_bench_fit(x, exact, 5);
    assert_true(fabs(fit.exponent - 2) < 1e-12 && fit.high - fit.low < 1e-6);
    /* By hand: the residuals of log y are 0.1, -0.2, 0.1, 0, 0 about a slope of 1 less what they
     * pull; Student's t of 3 degrees of freedom is 3.182. */
    const double noise[] = {0.1, -0.2, 0.1, 0, 0};
    double y[5], slope = 1, xx = 0, squares = 0;
    for (int i = 0; i < 5; i++) {
        y[i] = x[i] * exp(noise[i]);
        xx += (i - 2) * (i - 2) * log(2) * log(2);
    }
    for (int i = 0; i < 5; i++)
        slope += (i - 2) * log(2) * noise[i] / xx;
    for (int i = 0; i < 5; i++) {
        double d = noise[i] - (slope - 1) * (i - 2) * log(2);
        squares += d * d;
    }
    fit = itera_bench_fit(x, y, 5);
    assert_true(fabs(fit.exponent - slope) < 1e-12);
    assert_true(fabs(fit.high - slope - 3.182 * sqrt(squares / 3 / xx)) < 1e-9);
    assert_true(isnan(itera_bench_fit(x, y, 1).exponent));
    assert_true(isinf(itera_bench_fit(x, y, 2).high));
}

/* ---- tasks ----------------------------------------------------------------------------------- */

static struct itera_model *make_of_dtype(struct itera_device *device, const char *preset,
                                         const char *dtype)
{
    struct itera_model *model, *narrow;
    const struct itera_model_options options = {.seed = 1};
    assert_int_equal(itera_model_create(device, preset, &options, &model), ITERA_OK);
    if (!dtype)
        return model;
    const struct itera_quantize_options to = {.to = dtype, .plain = true};
    assert_int_equal(itera_quantize(model, &to, &narrow), ITERA_OK);
    itera_model_destroy(&model);
    return narrow;
}

/* All phases of models with and without experts, in turns: every row is whole, and right. */
static void test_tasks(void **state)
{
    (void)state;
    static const char *const presets[] = {"micro", "transformer-micro", "itera-m-micro"};
    struct itera_device *device;
    struct itera_model *models[3];
    enum { PHASES = ITERA_BENCH_TRAIN + 1, TASKS = 3 * PHASES };
    struct itera_bench_task *tasks[TASKS];
    assert_int_equal(itera_device_open("cpu", NULL, &device), ITERA_OK);
    struct itera_bench_peaks peaks = {.gflops = 100, .copy_gbytes = 10};
    for (int i = 0; i < ITERA_BENCH_SIZES; i++)
        peaks.read_gbytes[i] = 10;
    for (int m = 0; m < 3; m++) {
        models[m] = make_of_dtype(device, presets[m], NULL);
        for (int phase = 0; phase < PHASES; phase++) {
            struct itera_bench_task **task = &tasks[PHASES * m + phase];
            assert_int_equal(itera_bench_task_model(models[m], presets[m], NULL,
                                                    (enum itera_bench_phase)phase, 2, 24, task),
                             ITERA_OK);
            assert_int_equal(itera_bench_task_parity(*task), ITERA_OK);
        }
    }
    const struct itera_bench_options options = {.seconds = 0.02};
    assert_int_equal(itera_bench_measure(tasks, TASKS, &options), ITERA_OK);
    for (int i = 0; i < TASKS; i++) {
        struct itera_bench_part parts[ITERA_BENCH_PARTS];
        int count;
        assert_int_equal(itera_bench_task_breakdown(tasks[i], 0.01, parts, &count), ITERA_OK);
        assert_true(count > 5);
        const struct itera_bench_row *row = itera_bench_task_row(tasks[i], &peaks);
        assert_true(row->blocks >= 3 && row->repeats >= row->blocks);
        assert_true(row->best > 0 && row->best <= row->p50 && row->low <= row->p50);
        assert_true(row->p50 <= row->high && row->p50 <= row->p95 && row->p95 <= row->p99);
        assert_true(row->flops > 0 && row->bytes > 0 && row->peak_share > 0);
        assert_true(row->peak_bytes > row->memory_bytes && row->memory_bytes > 0);
        assert_true(row->stable == !row->unstable_because[0]);
        assert_true(isnan(row->device_p50)); /* the CPU has no clock of its own */
        const bool train = !strcmp(row->phase, "train");
        const bool decode = !strcmp(row->phase, "decode") || !strcmp(row->phase, "mixed");
        assert_int_equal(row->tokens, decode ? 2 : 48);
        assert_true(row->parity.known == !train);
        if (!train)
            assert_true(row->parity.pass && row->parity.max_rel <= 1e-4);
        const bool experts = i / PHASES != 1 && !decode;
        assert_true((row->load.layers > 0) == experts);
        if (experts)
            assert_true(row->load.worst >= 1 && row->load.worst <= row->load.experts);
        itera_bench_task_destroy(&tasks[i]);
    }
    for (int m = 0; m < 3; m++)
        itera_model_destroy(&models[m]);
    assert_int_equal(device->allocated, 0);
    itera_device_close(&device);
}

/* A tenth of the positions may go to other experts, no more; and nothing hides a NaN. */
static void test_integer_nmse(void **state)
{
    (void)state;
    enum { POSITIONS = 20, VOCAB = 3 };
    float a[POSITIONS * VOCAB], b[POSITIONS * VOCAB];
    double nmse;
    for (int i = 0; i < POSITIONS * VOCAB; i++) {
        b[i] = 1;
        a[i] = i < 2 * VOCAB ? 3.0f : 1.1f;
    }
    assert_int_equal(itera_integer_nmse(a, b, POSITIONS, VOCAB, true, &nmse), ITERA_OK);
    assert_true(fabs(nmse - 0.01) < 1e-6);
    assert_int_equal(itera_integer_nmse(a, b, POSITIONS, VOCAB, false, &nmse), ITERA_OK);
    assert_true(fabs(nmse - (2 * 4 + 18 * 0.01) / 20) < 1e-6);
    a[2 * VOCAB] = 3;
    assert_int_equal(itera_integer_nmse(a, b, POSITIONS, VOCAB, true, &nmse), ITERA_OK);
    assert_true(nmse > 0.05);
    a[0] = NAN;
    assert_int_equal(itera_integer_nmse(a, b, POSITIONS, VOCAB, true, &nmse), ITERA_OK);
    assert_true(isinf(nmse));
}

/* The limit of rounded activations is the one of `itera check`, and wrong logits are found. */
static void test_parity(void **state)
{
    (void)state;
    struct itera_device *device;
    assert_int_equal(itera_device_open("cpu", NULL, &device), ITERA_OK);
    struct itera_model *model = make_of_dtype(device, "micro", "q8");
    struct itera_bench_task *task;
    assert_int_equal(
        itera_bench_task_model(model, "micro", NULL, ITERA_BENCH_PREFILL, 1, 32, &task), ITERA_OK);
    assert_int_equal(itera_bench_task_parity(task), ITERA_OK);
    assert_true(task->row.parity.pass && task->row.parity.limit == itera_integer_limit(3));
    assert_string_equal(task->row.dtype, "q8");
    itera_bench_task_destroy(&task);
    assert_int_equal(itera_bench_task_model(model, "micro", NULL, ITERA_BENCH_TRAIN, 1, 32, &task),
                     ITERA_ERR_ARGUMENT);
    assert_int_equal(
        itera_bench_task_model(model, "micro", NULL, ITERA_BENCH_FORWARD, 1, 4096, &task),
        ITERA_ERR_ARGUMENT);
    int32_t *ids = itera_bench_random_ids(8, 2000);
    float *logits = calloc(8 * 2000, sizeof *logits);
    struct itera_bench_parity parity;
    assert_int_equal(itera_bench_compare(model, ids, 8, logits, 8, &parity), ITERA_OK);
    assert_true(parity.known && !parity.pass && fabs(parity.nmse - 1) < 1e-9);
    free(logits);
    free(ids);
    itera_model_destroy(&model);
    itera_device_close(&device);
}

static int stop_at_once(void *user, double done, const struct itera_bench_task *task)
{
    (void)done;
    (void)task;
    return ++*(int *)user > 6;
}

static void test_stop(void **state)
{
    (void)state;
    struct itera_device *device;
    struct itera_bench_task *task;
    int calls = 0;
    assert_int_equal(itera_device_open("cpu", NULL, &device), ITERA_OK);
    assert_int_equal(itera_bench_task_op(device, 11, &task), ITERA_OK);
    const struct itera_bench_options options = {
        .seconds = 0.5, .progress = stop_at_once, .user = &calls};
    assert_int_equal(itera_bench_measure(&task, 1, &options), ITERA_OK);
    const struct itera_bench_peaks peaks = {0};
    const struct itera_bench_row *row = itera_bench_task_row(task, &peaks);
    assert_true(row->blocks < 7 && row->repeats >= row->blocks);
    itera_bench_task_destroy(&task);
    char name[160];
    assert_null(itera_bench_op_name(10000, name, sizeof name));
    assert_int_equal(itera_bench_task_op(device, 10000, &task), ITERA_ERR_ARGUMENT);
    itera_device_close(&device);
}

static void test_scaled(void **state)
{
    (void)state;
    struct itera_device *device;
    struct itera_model *model;
    assert_int_equal(itera_device_open("cpu", NULL, &device), ITERA_OK);
    static const char *const presets[] = {"micro", "transformer-micro", "mamba-tiny", "itera-m"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(itera_bench_create_scaled(device, presets[i], 2, 256, &model), ITERA_OK);
        const struct itera_model_info *info = itera_model_info(model);
        assert_int_equal(info->hidden, i < 2 ? 128 : 256);
        assert_int_equal(info->max_positions, i < 2 ? 256 : 0);
        itera_model_destroy(&model);
    }
    assert_int_equal(itera_bench_create_scaled(device, "micro", 1000, 0, &model),
                     ITERA_ERR_ARGUMENT);
    itera_device_close(&device);
}

/* ---- the machine ----------------------------------------------------------------------------- */

static void put_in_root(const char *name, const char *text)
{
    char *path = in_root("%s", name);
    char *slash = strrchr(path, '/');
    *slash = 0;
    assert_int_equal(itera_make_directory(path), ITERA_OK);
    *slash = '/';
    put(path, text);
}

static void test_machine(void **state)
{
    (void)state;
    assert_int_equal(make_root(), 0);
    struct itera_bench_machine m;
    itera_bench_look(root, &m);
    assert_true(isnan(m.clock_mhz) && isnan(m.temperature_c) && isnan(m.throttles));
    assert_string_equal(m.governor, "");
    assert_true(m.memory_bytes > 0 && m.available_bytes > 0);
    put_in_root("devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
    put_in_root("devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1000000\n");
    put_in_root("devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "4000000\n");
    put_in_root("devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n");
    put_in_root("devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "3000000\n");
    put_in_root("devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq", "5000000\n");
    put_in_root("devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "7\n");
    put_in_root("devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "9\n");
    put_in_root("class/hwmon/hwmon0/name", "nvme\n");
    put_in_root("class/hwmon/hwmon0/temp1_input", "90000\n");
    put_in_root("class/hwmon/hwmon1/name", "k10temp\n");
    put_in_root("class/hwmon/hwmon1/temp1_input", "61500\n");
    itera_bench_look(root, &m);
    assert_string_equal(m.governor, "powersave");
    assert_true(m.clock_mhz == 2000 && m.clock_max_mhz == 5000);
    assert_true(m.throttles == 9 && m.temperature_c == 61.5);
    put_in_root("devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n");
    put_in_root("class/hwmon/hwmon1/temp1_input", "hot\n");
    itera_bench_look(root, &m);
    assert_string_equal(m.governor, "mixed");
    assert_true(isnan(m.temperature_c));
    assert_int_equal(remove_root(), 0);
}

static enum itera_status run_and_fail(void *user)
{
    (void)user;
    return itera_fail(ITERA_ERR_DEVICE, "the device is gone");
}

static enum itera_status run_well(void *user)
{
    (void)user;
    return ITERA_OK;
}

/* A task that fails under the meter leaves it ready for the next one. */
static void test_failed_energy(void **state)
{
    (void)state;
    assert_int_equal(make_root(), 0); /* no sensor in it */
    const struct itera_meter_options options = {.tdp_watts = 10, .sysfs = root, .nvml_name = ""};
    struct itera_meter *meter;
    struct itera_bench_task task = {.work = {.run = run_and_fail}};
    assert_int_equal(itera_meter_open(&options, &meter), ITERA_OK);
    assert_int_equal(itera_bench_task_energy(&task, meter, 0.01), ITERA_ERR_DEVICE);
    assert_int_equal(task.row.energy.n_figures, 0);
    assert_string_equal(itera_last_error(), "the device is gone");
    task.work.run = run_well;
    assert_int_equal(itera_bench_task_energy(&task, meter, 0.01), ITERA_OK);
    assert_true(task.row.energy.figure[0].joules > 0);
    itera_meter_close(&meter);
    assert_int_equal(remove_root(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_coverage),      cmocka_unit_test(test_regimes),
        cmocka_unit_test(test_short_series),  cmocka_unit_test(test_fit),
        cmocka_unit_test(test_tasks),         cmocka_unit_test(test_integer_nmse),
        cmocka_unit_test(test_parity),        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_scaled),        cmocka_unit_test(test_machine),
        cmocka_unit_test(test_failed_energy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
