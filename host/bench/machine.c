/* The state of the machine beside a measurement: what Linux says of clocks, heat and load. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#include "core/environment.h"
#include "energy/sensor.h"
#include "energy/sysfs.h"
#include "itera/bench.h"

enum { PATH_BYTES = 512 };

static double number_at(const char *folder, const char *name)
{
    char path[PATH_BYTES], why[SENSOR_WHY];
    int64_t value;
    itera_sysfs_path(path, sizeof path, folder, name);
    return itera_sysfs_number(path, &value, why) ? (double)NAN : (double)value;
}

static bool text_at(const char *folder, const char *name, char *out, size_t size)
{
    char path[PATH_BYTES];
    itera_sysfs_path(path, sizeof path, folder, name);
    return !itera_sysfs_text(path, out, size);
}

/* Governor, clocks and throttling of all processors. */
static void look_at_processors(const char *sysfs, struct itera_bench_machine *m)
{
    char folder[PATH_BYTES], cpu[PATH_BYTES], sub[PATH_BYTES], governor[32];
    char **names;
    double clocks = 0, throttles = 0;
    int clocked = 0, counted = 0;
    itera_sysfs_path(folder, sizeof folder, sysfs, "devices/system/cpu");
    const int n = itera_sysfs_list(folder, "cpu", &names);
    for (int i = 0; i < n; i++) {
        itera_sysfs_path(cpu, sizeof cpu, folder, names[i]);
        itera_sysfs_path(sub, sizeof sub, cpu, "cpufreq");
        if (text_at(sub, "scaling_governor", governor, sizeof governor) && *governor) {
            if (!*m->governor)
                memcpy(m->governor, governor, sizeof m->governor);
            else if (strcmp(m->governor, governor) != 0)
                snprintf(m->governor, sizeof m->governor, "mixed");
        }
        double now = number_at(sub, "scaling_cur_freq"), most = number_at(sub, "cpuinfo_max_freq");
        if (!isnan(now)) {
            clocks += now / 1e3;
            clocked++;
        }
        if (!isnan(most) && !(m->clock_max_mhz >= most / 1e3))
            m->clock_max_mhz = most / 1e3;
        itera_sysfs_path(sub, sizeof sub, cpu, "thermal_throttle");
        /* A package counts at each of its cores: the most that any saw. */
        double core = number_at(sub, "core_throttle_count");
        double package = number_at(sub, "package_throttle_count");
        if (!isnan(core) || !isnan(package)) {
            throttles = fmax(throttles, fmax(isnan(core) ? 0 : core, isnan(package) ? 0 : package));
            counted++;
        }
    }
    if (n >= 0)
        itera_sysfs_free(names, n);
    if (clocked)
        m->clock_mhz = clocks / clocked;
    if (counted)
        m->throttles = throttles;
}

/* The hottest sensor of a processor: hwmon's, else a thermal zone's. */
static void look_at_heat(const char *sysfs, struct itera_bench_machine *m)
{
    static const struct {
        const char *folder, *prefix, *kind, *value, *known;
    } places[] = {
        {"class/hwmon", "hwmon", "name", "temp1_input", " coretemp k10temp zenpower cpu_thermal "},
        {"class/thermal", "thermal_zone", "type", "temp",
         " x86_pkg_temp cpu-thermal cpu_thermal soc_thermal acpitz "},
    };
    char folder[PATH_BYTES], one[PATH_BYTES], kind[64], word[80];
    for (size_t p = 0; p < sizeof places / sizeof *places && isnan(m->temperature_c); p++) {
        char **names;
        itera_sysfs_path(folder, sizeof folder, sysfs, places[p].folder);
        const int n = itera_sysfs_list(folder, places[p].prefix, &names);
        for (int i = 0; i < n; i++) {
            itera_sysfs_path(one, sizeof one, folder, names[i]);
            if (!text_at(one, places[p].kind, kind, sizeof kind))
                continue;
            snprintf(word, sizeof word, " %s ", kind);
            double value = number_at(one, places[p].value) / 1e3;
            if (strstr(places[p].known, word) && !isnan(value))
                m->temperature_c = fmax(value, m->temperature_c);
        }
        if (n >= 0)
            itera_sysfs_free(names, n);
    }
}

/* Who signs CPUID leaf 0x40000000, which only hypervisors answer. */
static void look_for_hypervisor(struct itera_bench_machine *m)
{
#if defined(__x86_64__) || defined(__i386__)
    static const struct {
        const char *signature, *name;
    } known[] = {{"KVMKVMKVM", "kvm"},    {"Microsoft Hv", "hyper-v"}, {"VMwareVMware", "vmware"},
                 {"XenVMMXenVMM", "xen"}, {"TCGTCGTCGTCG", "qemu"},    {"bhyve bhyve ", "bhyve"}};
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 31 & 1))
        return;
    char signature[13] = "";
    __cpuid(0x40000000, a, b, c, d);
    memcpy(signature, &b, 4);
    memcpy(signature + 4, &c, 4);
    memcpy(signature + 8, &d, 4);
    snprintf(m->virtual_machine, sizeof m->virtual_machine, "unknown");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(signature, known[i].signature))
            snprintf(m->virtual_machine, sizeof m->virtual_machine, "%s", known[i].name);
#else
    (void)m;
#endif
}

static uint64_t available_memory(uint64_t otherwise)
{
    unsigned long long kib = 0;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "r");
    if (!f)
        return otherwise;
    while (!kib && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) != 1)
            kib = 0;
    fclose(f);
    return kib ? kib * 1024 : otherwise;
}

void itera_bench_look(const char *sysfs, struct itera_bench_machine *m)
{
    *m = (struct itera_bench_machine){.clock_mhz = NAN,
                                      .clock_max_mhz = NAN,
                                      .temperature_c = NAN,
                                      .throttles = NAN,
                                      .load = NAN};
    if (!sysfs)
        sysfs = itera_environment_sysfs();
    if (!sysfs)
        sysfs = "/sys";
    look_at_processors(sysfs, m);
    look_at_heat(sysfs, m);
    look_for_hypervisor(m);
    double load;
    if (getloadavg(&load, 1) == 1)
        m->load = load;
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (pages > 0 && page > 0)
        m->memory_bytes = (uint64_t)pages * (uint64_t)page;
    m->available_bytes = available_memory(m->memory_bytes);
}
