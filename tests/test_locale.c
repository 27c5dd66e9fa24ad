/* A program that has chosen a locale with another decimal point (every program with GTK or Qt does):
 * what the library writes, reads and says is the same as in C's. */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/log.h"
#include "core/number.h"
#include "format/json.h"
#include "itera/itera.h"
#include "tests/support/parts.h"
#include "tests/support/test.h"

static struct itera_device *device;

/* German writes 1,5; Pashto 1٫5, of more than one byte. */
static const char *const names[] = {"de_DE.UTF-8", "ps_AF.UTF-8"};
static bool have[2];

static const char config[] =
    "{\"architecture\": \"itera\", \"vocab_size\": 257, \"hidden_size\": 16, \"num_layers\": 2,"
    " \"ssm_state_size\": 4, \"num_experts\": 4, \"expert_size\": 8, \"max_seq_length\": 32,"
    " \"norm_eps\": 0.00012207031, \"router_aux_loss_coef\": 0.0625}";

/* Into the locale, or skips: what is not installed is made by localedef, in a folder of its own. */
static void enter(int which)
{
    if (!have[which]) {
        skip_without("the locale %s, which localedef does not make either", names[which]);
    }
    assert_non_null(setlocale(LC_ALL, names[which]));
    char text[16];
    snprintf(text, sizeof text, "%.1f", 1.5);
    assert_string_not_equal(text, "1.5");
}

static int leave(void **state)
{
    (void)state;
    setlocale(LC_ALL, "C");
    return 0;
}

static void a_run(const char *directory)
{
    struct itera_train_options o = {0};
    o.config = in_root("config.json");
    o.tokenizer = "byte";
    o.data = o.valid = in_root("text.txt");
    o.directory = directory;
    o.batch = 2;
    o.seq = 32;
    o.steps = 6;
    o.eval_every = 3;
    o.save_every = 3;
    struct itera_trainer *trainer;
    struct itera_train_report report = {0};
    assert_int_equal(itera_trainer_create(device, &o, &trainer), ITERA_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(itera_trainer_step(trainer, &report), ITERA_OK);
    itera_trainer_destroy(&trainer);
    struct itera_train_changes none = {0};
    assert_int_equal(itera_trainer_resume(device, directory, &none, &trainer), ITERA_OK);
    while (!(report.events & ITERA_TRAIN_FINISHED))
        assert_int_equal(itera_trainer_step(trainer, &report), ITERA_OK);
    itera_trainer_destroy(&trainer);
}

/* Each line is JSON, and the same as in C's locale but for the speed. */
static void compare_logs(const char *a, const char *b)
{
    char *one = get(a), *other = get(b), *keep_one = NULL, *keep_other = NULL;
    char *x = strtok_r(one, "\n", &keep_one), *y = strtok_r(other, "\n", &keep_other);
    for (; x && y; x = strtok_r(NULL, "\n", &keep_one), y = strtok_r(NULL, "\n", &keep_other)) {
        json_t *left, *right;
        assert_int_equal(itera_json_parse(x, strlen(x), a, &left), ITERA_OK);
        assert_int_equal(itera_json_parse(y, strlen(y), b, &right), ITERA_OK);
        json_object_del(left, "tokens_per_second");
        json_object_del(right, "tokens_per_second");
        assert_true(json_equal(left, right));
        json_decref(left);
        json_decref(right);
    }
    assert_true(!x && !y);
    free(one);
    free(other);
}

static void trains(int which)
{
    enter(which);
    const char *names_of[] = {"c", names[which]};
    a_run(in_root("%s", names_of[1]));
    setlocale(LC_ALL, "C");
    if (access(in_root("c"), F_OK) != 0)
        a_run(in_root("c"));
    compare_logs(in_root("c/train.jsonl"), in_root("%s/train.jsonl", names_of[1]));
    static const char *const files[] = {"/config.json", "/model.safetensors", "/tokenizer.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct itera_map a, b;
        if (access(in_root("c%s", files[i]), F_OK) != 0)
            continue;
        assert_int_equal(itera_map_open(in_root("c%s", files[i]), &a), ITERA_OK);
        assert_int_equal(itera_map_open(in_root("%s%s", names_of[1], files[i]), &b), ITERA_OK);
        assert_int_equal(a.size, b.size);
        assert_memory_equal(a.data, b.data, a.size);
        itera_map_close(&a);
        itera_map_close(&b);
    }
}

static void training_in_german(void **state)
{
    (void)state;
    trains(0);
}

static void training_in_pashto(void **state)
{
    (void)state;
    trains(1);
}

static void numbers(int which)
{
    enter(which);
    char text[64], *end;
    itera_format(text, sizeof text, "%.3g", 0.125);
    assert_string_equal(text, "0.125");
    assert_true(itera_read_number("0.125%", &end) == 0.125 && *end == '%');
    itera_fail(ITERA_ERR_ARGUMENT, "found %g", 0.5);
    assert_string_equal(itera_last_error(), "found 0.5");
    /* The program's own locale is as it was. */
    snprintf(text, sizeof text, "%.1f", 1.5);
    assert_string_not_equal(text, "1.5");
    struct itera_c_locale saved = itera_c_locale_enter();
    snprintf(text, sizeof text, "%.1f", 1.5);
    itera_c_locale_leave(&saved);
    assert_string_equal(text, "1.5");
    json_t *value;
    static const char json[] = "{\"x\":0.1,\"y\":2.5e-7}";
    assert_int_equal(itera_json_parse(json, strlen(json), "json", &value), ITERA_OK);
    assert_true(json_number_value(json_object_get(value, "x")) == 0.1);
    assert_true(json_number_value(json_object_get(value, "y")) == 2.5e-7);
    char *written = itera_json_write(value, JSON_COMPACT | JSON_REAL_PRECISION(9));
    assert_string_equal(written, "{\"x\":0.1,\"y\":2.5e-7}");
    free(written);
    json_decref(value);
}

static void numbers_in_german(void **state)
{
    (void)state;
    numbers(0);
}

static void numbers_in_pashto(void **state)
{
    (void)state;
    numbers(1);
}

static void pruning_in_german(void **state)
{
    (void)state;
    struct itera_model *model;
    char path[256];
    snprintf(path, sizeof path, "%s/tests/fixtures/itera-small/model.safetensors",
             ITERA_SOURCE_DIR);
    assert_int_equal(itera_model_load(device, path, &model), ITERA_OK);
    const struct itera_prune_options o = {.inner = "62.5%"};
    struct itera_prune_sizes in_c, in_german;
    assert_int_equal(itera_prune_plan(model, &o, &in_c), ITERA_OK);
    enter(0);
    enum itera_status status = itera_prune_plan(model, &o, &in_german);
    assert_int_equal(status, ITERA_OK);
    assert_int_equal(in_german.inner, in_c.inner);
    itera_model_destroy(&model);
}

static int set_up(void **state)
{
    (void)state;
    if (make_root() || itera_device_open("cpu", NULL, &device))
        return -1;
    put(in_root("config.json"), config);
    FILE *f = fopen(in_root("text.txt"), "w");
    if (!f)
        return -1;
    for (int i = 0; i < 400; i++)
        fprintf(f, "line %d of a text to learn\n", i * 7 % 31);
    fclose(f);
    bool all = true;
    for (int i = 0; i < 2; i++)
        all &= have[i] = setlocale(LC_ALL, names[i]) != NULL;
    if (!all) {
        char command[256];
        mkdir(in_root("locales"), 0777);
        for (int i = 0; i < 2; i++) {
            snprintf(command, sizeof command,
                     "localedef -i %.5s -f UTF-8 '%s/locales/%s' >'%s/localedef' 2>&1", names[i],
                     root, names[i], root);
            if (system(command) != 0)
                printf("localedef makes no %s\n", names[i]);
        }
        setenv("LOCPATH", in_root("locales"), 1);
        for (int i = 0; i < 2; i++)
            have[i] = setlocale(LC_ALL, names[i]) != NULL;
    }
    setlocale(LC_ALL, "C");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    itera_device_close(&device);
    return remove_root();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(numbers_in_german, leave),
        cmocka_unit_test_teardown(numbers_in_pashto, leave),
        cmocka_unit_test_teardown(training_in_german, leave),
        cmocka_unit_test_teardown(training_in_pashto, leave),
        cmocka_unit_test_teardown(pruning_in_german, leave),
    };
    return part_status(cmocka_run_group_tests(tests, set_up, tear_down));
}
