/* The option parser of the commands. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/help.c"
#include "cli/library_message.c"
#include "cli/option_files.c"
#include "cli/options.c"
#include "tests/support/test.h"

static char message[1024];

void command_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
}

static struct option_integers counts;
static struct option_names types, rules;
static struct option_optional json;
static const char *kind, *text;
static int64_t steps;
static double rate;
static bool fast, given;
static char places[8][64];
static int n_places;
static char rule[8][16];
static int n_rules;

static const struct command_option options[] = {
    {"counts", 'c', OPTION_INTEGERS, &counts, "LIST", "help", 1, 9},
    {"types", 0, OPTION_NAMES, &types, "LIST", "help", .choices = "f32|q8"},
    {"set", 0, OPTION_EACH, &rules, "RULE", "help"},
    {"steps", 'n', OPTION_INTEGER, &steps, "N", "help", 1, 100},
    {"rate", 0, OPTION_NUMBER, &rate, "X", "help", 0, 1, .given = &given},
    {"fast", 'f', OPTION_FLAG, &fast, NULL, "help"},
    {"kind", 0, OPTION_CHOICE, &kind, "KIND", "help", .choices = "a|bb"},
    {"text", 0, OPTION_STRING, &text, "TEXT", "help"},
    {"json", 0, OPTION_OPTIONAL, &json, "FILE", "help"},
    {0}};
static const struct command_spec spec = {.name = "test",
                                         .positional = "MODEL",
                                         .summary = "Tests.",
                                         .options = options,
                                         .min = 1,
                                         .max = 2};

/* Parses a line of words; lists and positional arguments are copied out. */
static int64_t list[8];
static int parse(const char *line)
{
    char words[256], *argv[32] = {"test"};
    int argc = 1;
    snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok(words, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    counts = (struct option_integers){0};
    types = rules = (struct option_names){0};
    n_rules = 0;
    json = (struct option_optional){0};
    kind = text = NULL;
    steps = 7;
    rate = 0.5;
    fast = given = false;
    message[0] = '\0';
    n_places = 0;
    struct command_args args;
    int code = options_parse(&spec, argc, argv, &args);
    if (code >= 0)
        return code;
    for (size_t i = 0; i < counts.n; i++)
        list[i] = counts.item[i];
    for (size_t i = 0; i < rules.n; i++)
        snprintf(rule[n_rules++], sizeof rule[0], "%s", rules.item[i]);
    for (int i = 0; i < args.n; i++)
        snprintf(places[n_places++], sizeof places[0], "%s", args.positional[i]);
    options_free(&args);
    return code;
}

static void test_values(void **state)
{
    (void)state;
    assert_int_equal(parse("-c1,2,9 m --types f32,q8 -n 5 -f --rate=1e-3 --kind bb"), -1);
    assert_int_equal(counts.n, 3);
    assert_int_equal(list[0] + list[1] + list[2], 12);
    assert_int_equal(types.n, 2);
    assert_int_equal(steps, 5);
    assert_true(fast && given);
    assert_float_equal(rate, 1e-3, 1e-12);
    assert_int_equal(n_places, 1);
    assert_string_equal(places[0], "m");
    /* What is named again replaces, but adds to a list of rules. */
    assert_int_equal(parse("m --types f32,q8 --types f32 --set a=b,c=d --set *e*=f"), -1);
    assert_int_equal(types.n, 1);
    assert_int_equal(n_rules, 3);
    assert_string_equal(rule[0], "a=b");
    assert_string_equal(rule[1], "c=d");
    assert_string_equal(rule[2], "*e*=f");
    assert_int_equal(parse("m -- -x"), -1);
    assert_string_equal(places[1], "-x");
    assert_int_equal(steps, 7);
    assert_false(given);
    assert_int_equal(parse("m -"), -1);
    assert_string_equal(places[1], "-");
}

static void expect_error(const char *line, const char *part)
{
    assert_int_equal(parse(line), EXIT_USAGE);
    if (!strstr(message, part))
        fail_msg("'%s': expected '%s' in '%s'", line, part, message);
}

static void test_errors(void **state)
{
    (void)state;
    expect_error("", "MODEL is missing");
    expect_error("a b c", "unexpected argument 'c'");
    expect_error("m --stpes 3", "did you mean '--steps'");
    expect_error("m --frobnicate", "there is no option '--frobnicate'");
    expect_error("m -x", "there is no option '-x'");
    expect_error("m --steps", "needs a value");
    expect_error("m --steps 1e3", "whole number");
    expect_error("m --steps 0", "from 1 to 100");
    expect_error("m --steps 99999999999999999999", "whole number");
    expect_error("m --rate nan", "takes a number");
    expect_error("m --rate 2", "from 0 to 1");
    expect_error("m --rate 1x", "takes a number");
    expect_error("m --counts 1,,2", "takes a list");
    expect_error("m --counts 10", "from 1 to 9");
    expect_error("m --types f32,f16", "is one of f32|q8");
    expect_error("m --kind b", "is one of a|bb");
    expect_error("m --fast=1", "takes no value");
}

/* `--json` before a positional argument must not take it for the file to write. */
static void test_optional_value(void **state)
{
    (void)state;
    assert_int_equal(parse("--json m"), -1);
    assert_true(json.given && !json.value);
    assert_string_equal(places[0], "m");
    assert_int_equal(parse("--json out.json m"), -1);
    assert_true(json.value != NULL);
    assert_int_equal(parse("m --json --fast"), -1);
    assert_true(json.given && !json.value && fast);
    assert_int_equal(parse("m --json -"), -1);
    assert_non_null(json.value);

    char folder[] = "/tmp/itera-options-XXXXXX", old[64], other[64], line[160];
    assert_non_null(mkdtemp(folder));
    snprintf(old, sizeof old, "%s/old", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    put(old, "{\"results\": []}\n");
    put(other, "precious\n");
    snprintf(line, sizeof line, "m --json %s", old);
    assert_int_equal(parse(line), -1);
    assert_non_null(json.value);
    snprintf(line, sizeof line, "m --json %s", other);
    assert_int_equal(parse(line), -1);
    assert_null(json.value);
    assert_string_equal(places[1], other);
    snprintf(line, sizeof line, "m --json %s", folder);
    assert_int_equal(parse(line), -1);
    assert_string_equal(places[1], folder);
    unlink(old);
    unlink(other);
    rmdir(folder);
}

static void test_closest(void **state)
{
    (void)state;
    static const char *const words[] = {"devices", "check", "train", "eval", "generate"};
    assert_string_equal(options_closest("dveices", words, 5), "devices");
    assert_string_equal(options_closest("gen", words, 5), "generate");
    assert_string_equal(options_closest("trian", words, 5), "train");
    assert_null(options_closest("banana", words, 5));
    assert_null(options_closest("", words, 5));
}

static void test_library_message(void **state)
{
    (void)state;
    char out[64];
    library_message("run (seq): go on with it (resume), or replace it (overwrite)", out,
                    sizeof out);
    assert_string_equal(out, "run (seq): go on with it (--resume), or replace it (--force)");
    library_message("could not start 9 threads; use fewer (threads)", out, sizeof out);
    assert_string_equal(out, "could not start 9 threads; use fewer (--threads)");
    library_message("12345678; use fewer (threads)", out, 20); /* cut, wherever that is */
    assert_string_equal(out, "12345678; use fewer");
    library_message("", out, sizeof out);
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),          cmocka_unit_test(test_errors),
        cmocka_unit_test(test_optional_value),  cmocka_unit_test(test_closest),
        cmocka_unit_test(test_library_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
