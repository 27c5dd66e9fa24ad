/* What fails, what is refused and what is only tried. */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "tests/support/test.h"

static int errors, others;

static void on_log(void *user, enum itera_log_level level, const char *message)
{
    (void)user;
    (void)message;
    errors += level == ITERA_LOG_ERROR;
    others += level != ITERA_LOG_ERROR;
}

static int set_up(void **state)
{
    (void)state;
    errors = others = 0;
    itera_set_log(on_log, NULL);
    return 0;
}

static void a_failure_is_logged_and_kept(void **state)
{
    (void)state;
    assert_int_equal(itera_fail(ITERA_ERR_IO, "%s: gone", "a"), ITERA_ERR_IO);
    assert_string_equal(itera_last_error(), "a: gone");
    assert_int_equal(errors, 1);
}

static void a_refusal_is_an_answer(void **state)
{
    (void)state;
    struct itera_reason why;
    itera_fail(ITERA_ERR_IO, "before");
    assert_int_equal(itera_refuse(&why, "%d are too many", 3), ITERA_ERR_UNSUPPORTED);
    assert_int_equal(itera_refuse(NULL, "nobody asks"), ITERA_ERR_UNSUPPORTED);
    assert_string_equal(why.text, "3 are too many");
    assert_string_equal(itera_last_error(), "before");
    assert_int_equal(errors, 1);
}

static void an_attempt_keeps_its_error_to_itself(void **state)
{
    (void)state;
    struct itera_attempt outer, inner, none;
    itera_fail(ITERA_ERR_IO, "before");
    itera_attempt_begin(&outer);
    itera_fail(ITERA_ERR_IO, "outer");
    itera_attempt_begin(&inner);
    itera_fail(ITERA_ERR_IO, "inner");
    itera_attempt_end(&inner);
    assert_string_equal(inner.error, "inner");
    assert_string_equal(itera_last_error(), "outer");
    itera_log(ITERA_LOG_WARNING, "other messages go on");
    itera_attempt_end(&outer);
    itera_attempt_begin(&none);
    itera_attempt_end(&none);
    assert_string_equal(outer.error, "outer");
    assert_string_equal(none.error, "");
    assert_string_equal(itera_last_error(), "before");
    assert_int_equal(errors, 1);
    assert_int_equal(others, 1);
    itera_fail(ITERA_ERR_IO, "after");
    assert_int_equal(errors, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_failure_is_logged_and_kept, set_up),
        cmocka_unit_test_setup(a_refusal_is_an_answer, set_up),
        cmocka_unit_test_setup(an_attempt_keeps_its_error_to_itself, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
