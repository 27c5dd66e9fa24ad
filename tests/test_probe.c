/* Drivers are asked for their devices in a child process: whatever they do there is a warning. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/probe.h"
#include "core/clock.h"
#include "core/log.h"
#include "tests/support/test.h"

enum { CAPACITY = 64 };
static struct itera_device_info infos[CAPACITY];

static enum itera_status probe(enum itera_status (*list)(struct itera_device_info *, int, int *),
                               double seconds, int *count)
{
    struct itera_backend backend = {.name = "fake", .list = list};
    log_begin();
    enum itera_status status = itera_probe(&backend, seconds, infos, CAPACITY, count);
    itera_set_log(NULL, NULL);
    return status;
}

static int changed; /* by a driver, in the process where it is loaded */

static enum itera_status list_many(struct itera_device_info *out, int capacity, int *count)
{
    changed = 1;
    for (*count = 0; *count < capacity; ++*count) /* more than a pipe holds */
        snprintf(out[*count].id, sizeof out->id, "fake:%d", *count);
    itera_log(ITERA_LOG_WARNING, "fake: one is left out");
    return ITERA_OK;
}

static enum itera_status list_nothing(struct itera_device_info *out, int capacity, int *count)
{
    (void)out, (void)capacity;
    *count = 0;
    return ITERA_OK;
}

static enum itera_status list_abort(struct itera_device_info *out, int capacity, int *count)
{
    (void)out, (void)capacity, (void)count;
    fprintf(stderr, "PTHREAD ERROR in a driver\n");
    abort();
}

static enum itera_status list_exit(struct itera_device_info *out, int capacity, int *count)
{
    (void)out, (void)capacity, (void)count;
    _exit(0);
}

static enum itera_status list_hang(struct itera_device_info *out, int capacity, int *count)
{
    (void)out, (void)capacity, (void)count;
    while (pause())
        ;
    return ITERA_OK;
}

static enum itera_status list_too_many(struct itera_device_info *out, int capacity, int *count)
{
    (void)out;
    *count = capacity + 1;
    return ITERA_OK;
}

static enum itera_status list_no_memory(struct itera_device_info *out, int capacity, int *count)
{
    (void)out, (void)capacity, (void)count;
    return itera_fail(ITERA_ERR_MEMORY, "fake: no memory for a list");
}

static void hands_on_devices_and_messages(void **state)
{
    (void)state;
    int count = 0;
    assert_int_equal(probe(list_many, 10, &count), ITERA_OK);
    assert_int_equal(count, CAPACITY);
    assert_string_equal(infos[0].id, "fake:0");
    assert_string_equal(infos[CAPACITY - 1].id, "fake:63");
    assert_string_equal(logged, "<1> fake: one is left out\n");
    assert_int_equal(changed, 0);
    assert_int_equal(probe(list_nothing, 10, &count), ITERA_OK);
    assert_int_equal(count, 0);
    assert_string_equal(logged, "");
    assert_int_equal(probe(list_no_memory, 10, &count), ITERA_ERR_MEMORY);
    assert_string_equal(logged, "<0> fake: no memory for a list\n");
}

static void broken_drivers_are_one_warning(void **state)
{
    (void)state;
    static const struct {
        enum itera_status (*list)(struct itera_device_info *, int, int *);
        const char *words;
    } cases[] = {{list_abort, "crashed (Aborted)"},
                 {list_exit, "ended the process"},
                 {list_too_many, "makes no sense"},
                 {list_hang, "gave no answer in 0.3 seconds"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int count = -1;
        double start = itera_seconds();
        assert_int_equal(probe(cases[i].list, cases[i].list == list_hang ? 0.3 : 60, &count),
                         ITERA_ERR_DEVICE);
        assert_true(itera_seconds() - start < 30);
        assert_int_equal(count, 0);
        assert_int_equal(logged_times("<1>"), 1);
        if (!strstr(logged, cases[i].words))
            fail_msg("%s does not say '%s'", logged, cases[i].words);
    }
}

static void a_host_may_ignore_its_children(void **state)
{
    (void)state;
    int count = 0;
    signal(SIGCHLD, SIG_IGN);
    assert_int_equal(probe(list_many, 10, &count), ITERA_OK);
    assert_int_equal(count, CAPACITY);
    assert_int_equal(probe(list_abort, 10, &count), ITERA_ERR_DEVICE);
    signal(SIGCHLD, SIG_DFL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hands_on_devices_and_messages),
        cmocka_unit_test(broken_drivers_are_one_warning),
        cmocka_unit_test(a_host_may_ignore_its_children),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
