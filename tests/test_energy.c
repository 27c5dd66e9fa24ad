/* Energy meters against a fake sysfs tree and a fake NVML library (fake_nvml.c). */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/file.h"
#include "itera/energy.h"
#include "tests/support/test.h"

static void path_of(char *out, const char *name)
{
    snprintf(out, 256, "%s/%s", root, name);
}

/* Writes a file of the tree, with its folders. Renamed into place: a meter that reads meanwhile sees
 * the old content or the new. */
__attribute__((format(printf, 2, 3))) static void put_sensor(const char *name, const char *format,
                                                             ...)
{
    char path[256], next[300];
    path_of(path, name);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    assert_int_equal(itera_make_directory(path), ITERA_OK);
    *slash = '/';
    snprintf(next, sizeof next, "%s.next", path);
    FILE *file = fopen(next, "w");
    assert_non_null(file);
    va_list args;
    va_start(args, format);
    vfprintf(file, format, args);
    va_end(args);
    fputc('\n', file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(next, path), 0);
}

static void drop(const char *name)
{
    char path[256];
    path_of(path, name);
    assert_int_equal(itera_remove_tree(path), ITERA_OK);
}

static void pause_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000},
              NULL);
}

static int setup(void **state)
{
    (void)state;
    assert_int_equal(make_root(), 0);
    chmod(root, 0755); /* another user reads it in the tests of permissions */
    setenv("FAKE_NVML", "", 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return remove_root();
}

static struct itera_meter_options options_of(const struct itera_device_info *device)
{
    return (struct itera_meter_options){.sysfs = root, .nvml_name = "", .device = device};
}

static struct itera_meter *open_meter(const struct itera_meter_options *options)
{
    struct itera_meter *meter;
    assert_int_equal(itera_meter_open(options, &meter), ITERA_OK);
    return meter;
}

static struct itera_meter *begin_meter(const struct itera_meter_options *options)
{
    struct itera_meter *meter = open_meter(options);
    assert_int_equal(itera_meter_begin(meter), ITERA_OK);
    return meter;
}

static struct itera_energy end_meter(struct itera_meter **meter)
{
    struct itera_energy energy;
    assert_int_equal(itera_meter_end(*meter, &energy), ITERA_OK);
    itera_meter_close(meter);
    assert_null(*meter);
    assert_true(energy.n_figures >= 1);
    return energy;
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not have \"%s\"", text, part);
}

static void assert_null_figure(const struct itera_energy_figure *f, const char *reason)
{
    assert_true(isnan(f->joules));
    assert_true(isnan(f->watts));
    assert_true(isnan(f->error_joules));
    assert_true(isnan(f->above_idle_joules));
    assert_false(f->measured);
    assert_contains(f->reason, reason);
}

static void assert_joules(const struct itera_energy_figure *f, double joules)
{
    if (!f->measured || f->joules != joules)
        fail_msg("%.9f J (%s), expected %.9f", f->joules, f->reason, joules);
    assert_string_equal(f->reason, "");
}

/* The sensor of this name in the list of what the machine has. */
static struct itera_sensor_info sensor_of(const struct itera_meter_options *options,
                                          const char *kind, const char *name)
{
    struct itera_sensor_info *infos, found = {0};
    int count, n = 0;
    assert_int_equal(itera_sensors(options, &infos, &count), ITERA_OK);
    for (int i = 0; i < count; i++)
        if (!strcmp(infos[i].kind, kind) && !strcmp(infos[i].name, name)) {
            found = infos[i];
            n++;
        }
    free(infos);
    if (n != 1)
        fail_msg("%d sensors %s %s", n, kind, name);
    return found;
}

#define RAPL  "class/powercap/intel-rapl:"
#define RANGE 262143328850ULL

static void put_zone(const char *zone, const char *name, unsigned long long micro,
                     unsigned long long range)
{
    char path[128];
    snprintf(path, sizeof path, "class/powercap/%s/name", zone);
    put_sensor(path, "%s", name);
    snprintf(path, sizeof path, "class/powercap/%s/energy_uj", zone);
    put_sensor(path, "%llu", micro);
    snprintf(path, sizeof path, "class/powercap/%s/max_energy_range_uj", zone);
    if (range)
        put_sensor(path, "%llu", range);
}

static void test_nothing(void **state)
{
    (void)state;
    struct itera_meter_options options = options_of(NULL);
    struct itera_sensor_info *infos;
    int count;
    assert_int_equal(itera_sensors(&options, &infos, &count), ITERA_OK);
    assert_int_equal(count, 4);
    for (int i = 0; i < count; i++) {
        assert_int_equal(infos[i].state, ITERA_SENSOR_ABSENT);
        assert_string_not_equal(infos[i].reason, "");
    }
    free(infos);

    struct itera_meter *meter = begin_meter(&options);
    struct itera_energy energy = end_meter(&meter);
    assert_int_equal(energy.n_figures, 1);
    assert_null_figure(&energy.figure[0], "no intel-rapl zone");

    options.tdp_watts = 65;
    meter = open_meter(&options);
    assert_int_equal(itera_meter_measure_idle(meter, 0.01), ITERA_OK);
    assert_int_equal(itera_meter_begin(meter), ITERA_OK);
    pause_ms(20);
    energy = end_meter(&meter);
    const struct itera_energy_figure *f = &energy.figure[0];
    assert_true(energy.seconds >= 0.02);
    assert_true(f->joules == 65 * energy.seconds);
    assert_false(f->measured);
    assert_string_equal(f->source, "tdp 65 W");
    assert_contains(f->reason, "no intel-rapl zone");
    assert_true(isnan(f->error_joules) && isnan(f->above_idle_joules));
}

/* Two packages with memory, each of which wraps at its own time; core and psys do not count. */
static void test_rapl_sum(void **state)
{
    (void)state;
    put_zone("intel-rapl:0", "package-0", RANGE - 1000000, RANGE);
    put_zone("intel-rapl:0:0", "core", 5000000, RANGE);
    put_zone("intel-rapl:0:1", "dram", 70000001, 65712999613ULL);
    put_zone("intel-rapl:1", "package-1", 123456789, RANGE);
    put_zone("intel-rapl:1:0", "dram", 65712999600ULL, 65712999613ULL);
    put_zone("intel-rapl:2", "psys", 9000000, RANGE);
    struct itera_meter_options options = options_of(NULL);
    struct itera_meter *meter = begin_meter(&options);
    put_sensor(RAPL "0/energy_uj", "%d", 2000000);    /* 3.000000 with the wrap */
    put_sensor(RAPL "0:0/energy_uj", "%d", 6000000);  /* inside package-0 */
    put_sensor(RAPL "0:1/energy_uj", "%d", 70500000); /* 0.499999 */
    put_sensor(RAPL "1/energy_uj", "%d", 125000000);  /* 1.543211 */
    put_sensor(RAPL "1:0/energy_uj", "%d", 7);        /* 0.000020 with the wrap */
    put_sensor(RAPL "2/energy_uj", "%d", 16000000);
    struct itera_energy energy = end_meter(&meter);
    assert_int_equal(energy.n_figures, 2);
    const struct itera_energy_figure *f = &energy.figure[0];
    assert_joules(f, 5.04323);
    assert_string_equal(f->source, "rapl package-0 + dram + package-1");
    assert_int_equal(f->scope, ITERA_SCOPE_PACKAGE);
    assert_string_equal(itera_energy_scope_name(f->scope), "package");
    assert_true(f->watts == f->joules / energy.seconds);
    assert_int_equal(f->samples, 2);
    assert_true(f->resolution == 4.0 / 16384);
    assert_true(fabs(f->error_joules - (f->resolution + 2 * f->watts * 1e-3)) < 1e-9);
    assert_joules(&energy.figure[1], 7);
    assert_int_equal(energy.figure[1].scope, ITERA_SCOPE_PLATFORM);
    assert_string_equal(energy.figure[1].source, "rapl psys");
}

static void expect_failure(const char *file, const char *content, const char *reason)
{
    struct itera_meter_options options = options_of(NULL);
    struct itera_meter *meter = begin_meter(&options);
    if (content)
        put_sensor(file, "%s", content);
    else
        drop(file);
    struct itera_energy energy = end_meter(&meter);
    assert_null_figure(&energy.figure[0], reason);
}

static void test_rapl_faults(void **state)
{
    (void)state;
    put_zone("intel-rapl:0", "package-0", 5000000, 0);
    expect_failure(RAPL "0/energy_uj", "4999999", "went back from 5.000000 J to 4.999999 J");
    /* A reset: read as a wrap it would be 262 kJ in no time. */
    put_zone("intel-rapl:0", "package-0", 5000000, RANGE);
    expect_failure(RAPL "0/energy_uj", "4999999", "was reset");
    put_zone("intel-rapl:0", "package-0", RANGE + 5, RANGE);
    expect_failure(RAPL "0/energy_uj", "4", "went back");
    put_zone("intel-rapl:0", "package-0", 5000000, RANGE);
    expect_failure(RAPL "0/energy_uj", "many", "holds \"many\", which is not a number");
    put_zone("intel-rapl:0", "package-0", 5000000, RANGE);
    expect_failure(RAPL "0/energy_uj", "-7", "holds \"-7\"");
    put_zone("intel-rapl:0", "package-0", 5000000, RANGE);
    expect_failure(RAPL "0/energy_uj", "99999999999999999999999", "not a number in range");
    put_zone("intel-rapl:0", "package-0", 5000000, RANGE);
    expect_failure(RAPL "0/energy_uj", "", "is empty");
    put_zone("intel-rapl:0", "package-0", 5000000, RANGE);
    expect_failure(RAPL "0", NULL, "is not there any more");

    /* Found like that: not usable, and an estimate goes on with the reason. */
    put_zone("intel-rapl:0", "package-0", 5000000, RANGE);
    put_sensor(RAPL "0/energy_uj", "n/a");
    struct itera_meter_options options = options_of(NULL);
    options.tdp_watts = 10;
    struct itera_sensor_info info = sensor_of(&options, "rapl", "package-0");
    assert_int_equal(info.state, ITERA_SENSOR_UNUSABLE);
    assert_contains(info.reason, "holds \"n/a\"");
    struct itera_meter *meter = begin_meter(&options);
    struct itera_energy energy = end_meter(&meter);
    assert_false(energy.figure[0].measured);
    assert_string_equal(energy.figure[0].source, "tdp 10 W");
    assert_contains(energy.figure[0].reason, "holds \"n/a\"");
}

static void test_permission(void **state)
{
    (void)state;
    char path[256], command[256];
    put_zone("intel-rapl:0", "package-0", 5000000, RANGE);
    put_zone("intel-rapl:1", "package-1", 5000000, RANGE);
    path_of(path, RAPL "1/energy_uj");
    assert_int_equal(chmod(path, 0), 0);
    bool root_user = geteuid() == 0;
    if (root_user) /* who may read everything */
        assert_int_equal(seteuid(65534), 0);
    struct itera_meter_options options = options_of(NULL);
    struct itera_sensor_info info = sensor_of(&options, "rapl", "package-1");
    struct itera_meter *meter = begin_meter(&options);
    struct itera_energy energy = end_meter(&meter);
    if (root_user)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(info.state, ITERA_SENSOR_UNUSABLE);
    assert_contains(info.reason, "Permission denied");
    snprintf(command, sizeof command, "sudo chmod a+r %s/class/powercap/intel-rapl:*/energy_uj",
             root);
    assert_string_equal(info.fix, command);
    /* One package of two is not the machine's. */
    assert_null_figure(&energy.figure[0], "rapl package-1: ");
    assert_contains(energy.figure[0].reason, command);
    assert_string_equal(energy.figure[0].source, "");
}

/* A counter that goes on by itself. */
struct ticker {
    pthread_t thread;
    atomic_bool stop;
};

static void *tick(void *user)
{
    struct ticker *ticker = user;
    for (unsigned micro = 0; !atomic_load(&ticker->stop); micro += 20000) {
        put_sensor(RAPL "0/energy_uj", "%u", micro);
        pause_ms(1);
    }
    return NULL;
}

static void test_zero_resolution(void **state)
{
    (void)state;
    put_zone("intel-rapl:0", "package-0", 5000000, RANGE);
    put_zone("intel-rapl:0:1", "dram", 0, RANGE);
    struct itera_meter_options options = options_of(NULL);
    struct itera_meter *meter = begin_meter(&options);
    pause_ms(5);
    struct itera_energy energy = end_meter(&meter);
    assert_null_figure(&energy.figure[0], "rapl package-0 + dram did not move in");

    options.probe_seconds = 0.05;
    struct itera_sensor_info info = sensor_of(&options, "rapl", "package-0");
    assert_int_equal(info.state, ITERA_SENSOR_UNUSABLE);
    assert_contains(info.reason, "does not move: it stood at 5.000000 J");

    struct ticker ticker = {0};
    assert_int_equal(pthread_create(&ticker.thread, NULL, tick, &ticker), 0);
    options.probe_seconds = 0.5;
    info = sensor_of(&options, "rapl", "package-0");
    assert_int_equal(info.state, ITERA_SENSOR_USABLE);
    /* The dead counter of the memory is left out of the sum. */
    meter = open_meter(&options);
    assert_int_equal(itera_meter_measure_idle(meter, 0.05), ITERA_OK);
    assert_int_equal(itera_meter_begin(meter), ITERA_OK);
    pause_ms(50);
    energy = end_meter(&meter);
    atomic_store(&ticker.stop, true);
    pthread_join(ticker.thread, NULL);
    const struct itera_energy_figure *f = &energy.figure[0];
    assert_string_equal(f->source, "rapl package-0");
    assert_true(f->measured && f->joules > 0 && f->idle_watts > 0);
    assert_true(f->above_idle_joules == f->joules - f->idle_watts * energy.seconds);
    assert_true(f->above_idle_error_joules > f->error_joules);
}

/* The same package through registers and through memory counts once. */
static void test_rapl_twice(void **state)
{
    (void)state;
    put_zone("intel-rapl:0", "package-0", 0, RANGE);
    put_zone("intel-rapl-mmio:0", "package-0", 0, RANGE);
    struct itera_meter_options options = options_of(NULL);
    struct itera_meter *meter = begin_meter(&options);
    put_sensor(RAPL "0/energy_uj", "%d", 1250000);
    put_sensor("class/powercap/intel-rapl-mmio:0/energy_uj", "%d", 1250000);
    struct itera_energy energy = end_meter(&meter);
    assert_joules(&energy.figure[0], 1.25);
    /* Zones that only stand inside their package are found, too. */
    put_zone("intel-rapl:0/intel-rapl:0:2", "dram", 0, RANGE);
    drop("class/powercap/intel-rapl-mmio:0");
    meter = begin_meter(&options);
    put_sensor(RAPL "0/intel-rapl:0:2/energy_uj", "%d", 250000);
    energy = end_meter(&meter);
    assert_joules(&energy.figure[0], 0.25);
    assert_string_equal(energy.figure[0].source, "rapl package-0 + dram");
}

static void put_card(int number, const char *driver, const char *pci, const char *file,
                     const char *content)
{
    char path[256], name[128], target[128];
    snprintf(name, sizeof name, "class/hwmon/hwmon%d/name", number);
    put_sensor(name, "%s", driver);
    snprintf(name, sizeof name, "class/hwmon/hwmon%d/%s", number, file);
    put_sensor(name, "%s", content);
    snprintf(name, sizeof name, "class/hwmon/hwmon%d/device", number);
    path_of(path, name);
    snprintf(target, sizeof target, "../../../%s", pci);
    unlink(path);
    assert_int_equal(symlink(target, path), 0);
}

/* A counter that wraps several times within a run, beside a power sensor that is read as often. */
static void test_rapl_many_wraps(void **state)
{
    (void)state;
    put_zone("intel-rapl:0", "package-0", 900000, 1000000);
    put_card(0, "amdgpu", "0000:03:00.0", "power1_average", "25000000");
    struct itera_meter_options options = options_of(NULL);
    options.sample_hz = 100;
    struct itera_meter *meter = begin_meter(&options);
    unsigned value = 900000;
    for (int i = 0; i < 8; i++) {
        value = (value + 300000) % 1000000;
        put_sensor(RAPL "0/energy_uj", "%u", value);
        pause_ms(50);
    }
    struct itera_energy energy = end_meter(&meter);
    assert_joules(&energy.figure[0], 2.4);
    assert_true(energy.figure[0].samples > 8);
    assert_true(energy.figure[1].samples > 8);
}

static const struct itera_device_info radeon = {.type = ITERA_DEVICE_GPU,
                                                .name = "AMD Radeon RX 7800 XT (RADV NAVI32)"};

/* Integrated power: constant, so that the integral is known but for the time of the readings. */
static void test_amdgpu(void **state)
{
    (void)state;
    put_card(3, "amdgpu", "0000:03:00.0", "power1_average", "25000000");
    put_card(4, "k10temp", "0000:00:18.3", "temp1_input", "25000");
    put_zone("intel-rapl:0", "package-0", 0, RANGE);
    struct itera_meter_options options = options_of(&radeon);
    options.sample_hz = 100;
    double before = itera_seconds();
    struct itera_meter *meter = begin_meter(&options);
    pause_ms(200);
    put_sensor(RAPL "0/energy_uj", "%d", 1000001);
    struct itera_energy energy = end_meter(&meter);
    double around = itera_seconds() - before;
    const struct itera_energy_figure *f = &energy.figure[0];
    assert_true(f->measured);
    assert_true(f->joules >= 25 * energy.seconds && f->joules <= 25 * around);
    assert_true(f->samples >= 4);
    assert_true(f->sample_hz == 100);
    assert_int_equal(f->scope, ITERA_SCOPE_GPU);
    assert_string_equal(f->source, "amdgpu card at 0000:03:00.0");
    assert_true(f->error_joules >= 25); /* a reading may be 1 s old */
    assert_int_equal(energy.n_figures, 2);
    assert_joules(&energy.figure[1], 1.000001);
    assert_int_equal(energy.figure[1].scope, ITERA_SCOPE_PACKAGE);

    /* The card goes to sleep, or away. */
    meter = begin_meter(&options);
    drop("class/hwmon/hwmon3/power1_average");
    pause_ms(30);
    energy = end_meter(&meter);
    assert_null_figure(&energy.figure[0], "is not there any more");

    /* Power that changes: an error of at least half of the step for the time that it may have had. */
    put_card(3, "amdgpu", "0000:03:00.0", "power1_input", "10000000");
    meter = begin_meter(&options);
    pause_ms(30);
    put_sensor("class/hwmon/hwmon3/power1_input", "%d", 90000000);
    pause_ms(30);
    energy = end_meter(&meter);
    assert_true(energy.figure[0].joules > 10 * energy.seconds);
    assert_true(energy.figure[0].error_joules > 90 * 0.1);
}

static void test_intel_cards(void **state)
{
    (void)state;
    put_card(1, "xe", "0000:03:00.0", "energy1_input", "7000000");
    put_sensor("class/hwmon/hwmon1/energy2_input", "3000000");
    put_card(2, "xe", "0000:04:00.0", "energy2_input", "3000000");
    put_card(10, "i915", "0000:05:00.0", "energy1_input", "18446744073709000000");
    put_card(11, "i915_gt0", "0000:05:00.0", "energy1_input", "5000000");
    struct itera_device_info arc = {.type = ITERA_DEVICE_GPU, .name = "Intel(R) Arc(tm) A770"};
    struct itera_meter_options options = options_of(&arc);
    struct itera_meter *meter = begin_meter(&options);
    struct itera_energy energy = end_meter(&meter);
    assert_null_figure(&energy.figure[0], "3 sensors could be that of Intel(R) Arc(tm) A770");

    snprintf(arc.pci, sizeof arc.pci, "0000:04:00.0");
    meter = begin_meter(&options);
    put_sensor("class/hwmon/hwmon2/energy2_input", "3000061");
    energy = end_meter(&meter);
    assert_joules(&energy.figure[0], 0.000061);

    /* Without a device: all of them, beside the packages. */
    options.device = NULL;
    meter = begin_meter(&options);
    put_sensor("class/hwmon/hwmon1/energy1_input", "7000010");
    put_sensor("class/hwmon/hwmon10/energy1_input", "18446744073709500000");
    pause_ms(2); /* longer than an update */
    energy = end_meter(&meter);
    assert_int_equal(energy.n_figures, 4);
    assert_null_figure(&energy.figure[0], "no intel-rapl zone");
    assert_joules(&energy.figure[1], 0.00001);
    assert_null_figure(&energy.figure[2], "did not move");
    assert_joules(&energy.figure[3], 0.5);
}

static void put_battery(const char *name, const char *status, const char *power)
{
    char path[128];
    snprintf(path, sizeof path, "class/power_supply/%s/type", name);
    put_sensor(path, "Battery");
    snprintf(path, sizeof path, "class/power_supply/%s/status", name);
    put_sensor(path, "%s", status);
    snprintf(path, sizeof path, "class/power_supply/%s/power_now", name);
    if (power)
        put_sensor(path, "%s", power);
}

static void test_battery(void **state)
{
    (void)state;
    put_sensor("class/power_supply/AC/type", "Mains");
    put_battery("hidpp_battery_0", "Discharging", "1000000");
    put_sensor("class/power_supply/hidpp_battery_0/scope", "Device");
    put_battery("BAT0", "Discharging", "8000000");
    put_battery("BAT1", "Not charging", "0");
    struct itera_meter_options options = options_of(NULL);
    options.sample_hz = 100;
    double before = itera_seconds();
    struct itera_meter *meter = begin_meter(&options);
    pause_ms(50);
    struct itera_energy energy = end_meter(&meter);
    const struct itera_energy_figure *f = &energy.figure[0];
    assert_true(f->measured);
    assert_true(f->joules >= 8 * energy.seconds && f->joules <= 8 * (itera_seconds() - before));
    assert_int_equal(f->scope, ITERA_SCOPE_MACHINE);
    assert_string_equal(f->source, "battery BAT0 + BAT1");

    /* The other one takes over; it shows voltage and a negative current. */
    meter = begin_meter(&options);
    put_battery("BAT0", "Not charging", "0");
    put_battery("BAT1", "Discharging", "0");
    put_sensor("class/power_supply/BAT1/voltage_now", "12000000");
    put_sensor("class/power_supply/BAT1/current_now", "-1000000");
    pause_ms(50);
    energy = end_meter(&meter);
    assert_true(energy.figure[0].joules >= 8 * energy.seconds);
    assert_true(energy.figure[0].joules <= 12 * (itera_seconds() - before));

    /* The charger is plugged in. */
    meter = begin_meter(&options);
    put_sensor("class/power_supply/BAT1/status", "Charging");
    pause_ms(30);
    put_sensor("class/power_supply/BAT1/status", "Discharging");
    pause_ms(30);
    energy = end_meter(&meter);
    assert_null_figure(&energy.figure[0], "its status is \"Charging\"");

    put_sensor("class/power_supply/BAT1/status", "Full");
    struct itera_sensor_info info = sensor_of(&options, "battery", "BAT0 + BAT1");
    assert_int_equal(info.state, ITERA_SENSOR_UNUSABLE);
    assert_contains(info.reason, "only while it discharges");
    assert_string_equal(info.fix, "unplug the charger while measuring");
    put_sensor("class/power_supply/BAT1/status", "Discharging");
    put_sensor("class/power_supply/BAT1/current_now", "0");
    info = sensor_of(&options, "battery", "BAT0 + BAT1");
    assert_contains(info.reason, "shows 0 W while discharging");
}

static struct itera_device_info nvidia(const char *name, const char *pci)
{
    struct itera_device_info info = {.type = ITERA_DEVICE_GPU};
    snprintf(info.name, sizeof info.name, "%s", name);
    snprintf(info.pci, sizeof info.pci, "%s", pci);
    return info;
}

static void put_nvml(const char *lines)
{
    char path[256];
    path_of(path, "nvml");
    put_sensor("nvml", "%s", lines);
    setenv("FAKE_NVML", path, 1);
}

static void test_nvml(void **state)
{
    (void)state;
    struct itera_device_info one = nvidia("NVIDIA H100 80GB HBM3", "");
    struct itera_meter_options options = options_of(&one);
    options.nvml_name = ITERA_FAKE_NVML;
    options.sample_hz = 100;
    put_nvml("65 123456789 60000 0 NVIDIA H100 80GB HBM3\n66 5 60000 0 NVIDIA L4\n"
             "67 - 30000 0 Tesla P4\n68 5 60000 0 NVIDIA L4");
    put_zone("intel-rapl:0", "package-0", 0, RANGE);
    struct itera_meter *meter = begin_meter(&options);
    put_sensor(RAPL "0/energy_uj", "%d", 2);
    put_nvml("65 123456999 60000 0 NVIDIA H100 80GB HBM3\n66 9 60000 0 NVIDIA L4\n"
             "67 - 30000 0 Tesla P4\n68 7 60000 0 NVIDIA L4");
    struct itera_energy energy = end_meter(&meter);
    assert_joules(&energy.figure[0], 0.21);
    assert_string_equal(energy.figure[0].source, "nvml NVIDIA H100 80GB HBM3");
    assert_true(energy.figure[0].update_seconds == 0.1);
    assert_int_equal(energy.n_figures, 2);
    assert_joules(&energy.figure[1], 0.000002);

    /* Shorter than an update. */
    meter = begin_meter(&options);
    energy = end_meter(&meter);
    assert_null_figure(&energy.figure[0], energy.seconds < 0.1
                                              ? "is shorter than the sensor's update of 0.1 s"
                                              : "did not move");

    /* Without the counter, power is integrated. */
    one = nvidia("Tesla P4", "");
    double before = itera_seconds();
    meter = begin_meter(&options);
    pause_ms(50);
    energy = end_meter(&meter);
    assert_true(energy.figure[0].joules >= 30 * energy.seconds);
    assert_true(energy.figure[0].joules <= 30 * (itera_seconds() - before));
    assert_true(energy.figure[0].sample_hz == 100);

    /* Two of a name are told apart by their address only. */
    one = nvidia("NVIDIA L4", "");
    meter = begin_meter(&options);
    energy = end_meter(&meter);
    assert_null_figure(&energy.figure[0], "2 sensors could be that of NVIDIA L4");
    one = nvidia("NVIDIA L4", "0000:68:00.0");
    meter = begin_meter(&options);
    put_nvml("65 123456999 60000 0 NVIDIA H100 80GB HBM3\n66 99 60000 0 NVIDIA L4\n"
             "67 - 30000 0 Tesla P4\n68 8 60000 0 NVIDIA L4");
    energy = end_meter(&meter);
    assert_joules(&energy.figure[0], 0.001);
}

static void test_nvml_faults(void **state)
{
    (void)state;
    struct itera_device_info one = nvidia("NVIDIA L4", "");
    struct itera_meter_options options = options_of(&one);
    options.nvml_name = ITERA_FAKE_NVML;
    put_nvml("66 5 60000 0 NVIDIA L4");
    struct itera_meter *meter = begin_meter(&options);
    put_nvml("66 9 60000 15 NVIDIA L4");
    struct itera_energy energy = end_meter(&meter);
    assert_null_figure(&energy.figure[0], "GPU is lost");

    put_nvml("66 5 60000 4 NVIDIA L4");
    struct itera_sensor_info info = sensor_of(&options, "nvml", "NVIDIA L4");
    assert_int_equal(info.state, ITERA_SENSOR_UNUSABLE);
    assert_contains(info.reason, "Insufficient Permissions");
    assert_contains(info.fix, "NVIDIA_DRIVER_CAPABILITIES");
    meter = begin_meter(&options);
    energy = end_meter(&meter);
    assert_null_figure(&energy.figure[0], "Insufficient Permissions");

    put_nvml("66 - - 0 NVIDIA L4");
    assert_contains(sensor_of(&options, "nvml", "NVIDIA L4").reason, "Not Supported");
    put_nvml("init 9");
    assert_contains(sensor_of(&options, "nvml", "NVIDIA GPU").reason, "Driver Not Loaded");

    /* No library: worth a word when there is a card. */
    options.nvml_name = "libitera-no-such-nvml.so.1";
    assert_int_equal(sensor_of(&options, "nvml", "").state, ITERA_SENSOR_ABSENT);
    put_sensor("bus/pci/devices/0000:01:00.0/vendor", "0x10de");
    put_sensor("bus/pci/devices/0000:01:00.0/class", "0x030000");
    info = sensor_of(&options, "nvml", "NVIDIA GPU");
    assert_int_equal(info.state, ITERA_SENSOR_UNUSABLE);
    assert_contains(info.reason, "cannot be loaded");
    assert_contains(info.fix, "libnvidia-ml1");
    assert_string_equal(info.pci, "0000:01:00.0");
    options.nvml_name = "libm.so.6";
    assert_contains(sensor_of(&options, "nvml", "NVIDIA GPU").reason, "is not NVML");
}

/* Which sensor a device is charged with. */
static void test_devices(void **state)
{
    (void)state;
    put_zone("intel-rapl:0", "package-0", 0, RANGE);
    put_card(0, "amdgpu", "0000:03:00.0", "power1_average", "25000000");
    put_battery("BAT0", "Discharging", "8000000");
    static const struct {
        enum itera_device_type type;
        const char *name;
        int figures;
        enum itera_energy_scope scope[4];
    } cases[] = {
        {ITERA_DEVICE_CPU, "CPU", 2, {ITERA_SCOPE_PACKAGE, ITERA_SCOPE_MACHINE}},
        {ITERA_DEVICE_SOFTWARE, "llvmpipe", 2, {ITERA_SCOPE_PACKAGE, ITERA_SCOPE_MACHINE}},
        {ITERA_DEVICE_IGPU,
         "AMD Radeon 780M",
         3,
         {ITERA_SCOPE_PACKAGE, ITERA_SCOPE_MACHINE, ITERA_SCOPE_GPU}},
        {ITERA_DEVICE_GPU,
         "AMD Radeon 780M",
         3,
         {ITERA_SCOPE_GPU, ITERA_SCOPE_MACHINE, ITERA_SCOPE_PACKAGE}},
        {ITERA_DEVICE_GPU, "NVIDIA L4", 2, {ITERA_SCOPE_MACHINE, ITERA_SCOPE_PACKAGE}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct itera_device_info device = {.type = cases[c].type};
        snprintf(device.name, sizeof device.name, "%s", cases[c].name);
        struct itera_meter_options options = options_of(&device);
        struct itera_meter *meter = begin_meter(&options);
        struct itera_energy energy = end_meter(&meter);
        assert_int_equal(energy.n_figures, cases[c].figures);
        for (int i = 0; i < energy.n_figures; i++)
            assert_int_equal(energy.figure[i].scope, cases[c].scope[i]);
    }
    drop("class/power_supply/BAT0");
    struct itera_device_info device = nvidia("NVIDIA L4", "");
    struct itera_meter_options options = options_of(&device);
    struct itera_meter *meter = begin_meter(&options);
    struct itera_energy energy = end_meter(&meter);
    assert_int_equal(energy.n_figures, 2);
    assert_null_figure(&energy.figure[0], "no sensor of NVIDIA L4 was found");
    assert_int_equal(energy.figure[1].scope, ITERA_SCOPE_PACKAGE);
}

static void test_misuse(void **state)
{
    (void)state;
    static const struct itera_meter_options bad[] = {
        {.sample_hz = -1},     {.sample_hz = 1e6},    {.sample_hz = NAN},
        {.tdp_watts = -5},     {.tdp_watts = NAN},    {.tdp_watts = 1e9},
        {.probe_seconds = -1}, {.probe_seconds = 61}, {.probe_seconds = NAN},
    };
    struct itera_meter *meter;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(itera_meter_open(&bad[i], &meter), ITERA_ERR_ARGUMENT);
        assert_null(meter);
    }
    put_zone("intel-rapl:0", "package-0", 0, RANGE);
    struct itera_meter_options options = options_of(NULL);
    struct itera_energy energy;
    meter = open_meter(&options);
    assert_int_equal(itera_meter_end(meter, &energy), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_meter_measure_idle(meter, 0), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_meter_measure_idle(meter, NAN), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_meter_begin(meter), ITERA_OK);
    assert_int_equal(itera_meter_begin(meter), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_meter_measure_idle(meter, 0.01), ITERA_ERR_ARGUMENT);
    itera_meter_close(&meter); /* in mid-run */
    assert_null(meter);
    itera_meter_close(&meter);
}

/* The environment says where sysfs is when the options do not; a meter measures many runs. */
static void test_environment(void **state)
{
    (void)state;
    setenv("ITERA_SYSFS", root, 1);
    setenv("ITERA_NVML", ITERA_FAKE_NVML, 1);
    put_nvml("65 1000 60000 0 NVIDIA L4");
    put_zone("intel-rapl:0", "package-0", 0, RANGE);
    assert_int_equal(sensor_of(NULL, "nvml", "NVIDIA L4").state, ITERA_SENSOR_USABLE);
    struct itera_meter *meter = open_meter(NULL);
    for (int run = 0; run < 3; run++) {
        struct itera_energy energy;
        put_sensor(RAPL "0/energy_uj", "%d", 1000 * run);
        assert_int_equal(itera_meter_begin(meter), ITERA_OK);
        put_sensor(RAPL "0/energy_uj", "%d", 1000 * run + 500);
        assert_int_equal(itera_meter_end(meter, &energy), ITERA_OK);
        assert_joules(&energy.figure[0], 0.0005);
    }
    itera_meter_close(&meter);
    unsetenv("ITERA_SYSFS");
    unsetenv("ITERA_NVML");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_nothing),     TEST(test_rapl_sum),   TEST(test_rapl_many_wraps),
        TEST(test_rapl_faults), TEST(test_permission), TEST(test_zero_resolution),
        TEST(test_rapl_twice),  TEST(test_amdgpu),     TEST(test_intel_cards),
        TEST(test_battery),     TEST(test_nvml),       TEST(test_nvml_faults),
        TEST(test_devices),     TEST(test_misuse),     TEST(test_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
