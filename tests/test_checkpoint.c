/* Checkpoints: they hold every option as it was given, all of their keys and files are needed, and
 * parts of another run are refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/file.h"
#include "format/json.h"
#include "itera/distill.h"
#include "itera/trainer.h"
#include "tests/support/test.h"
#include "train/trainer_impl.h"

static struct itera_device *device;

static const char config[] =
    "{\"architecture\": \"itera\", \"vocab_size\": 257, \"hidden_size\": 16, \"num_layers\": 2,"
    " \"ssm_state_size\": 4, \"num_experts\": 4, \"expert_size\": 8, \"max_seq_length\": 32}";

static int set_up(void **state)
{
    (void)state;
    if (make_root())
        return -1;
    return (device = open_cpu(1)) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    itera_device_close(&device);
    return remove_root();
}

static struct itera_train_options small(const char *directory)
{
    struct itera_train_options o = {0};
    put(in_root("config.json"), config);
    o.config = in_root("config.json");
    o.tokenizer = "byte";
    o.data = "builtin:stories?bytes=20000";
    o.directory = directory;
    o.batch = 4;
    o.seq = 16;
    o.steps = 8;
    o.lr = 1e-2;
    o.seed = UINT64_MAX - 6;
    return o;
}

static void put_text(const char *path, int lines)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < lines; i++)
        fprintf(f, "The %dth line of a text that is long enough.\n", i);
    assert_int_equal(fclose(f), 0);
}

/* A run of some steps, with a checkpoint at their end. */
static void run(const struct itera_train_options *o, int steps)
{
    struct itera_trainer *t;
    struct itera_train_report r;
    if (itera_trainer_create(device, o, &t))
        fail_msg("%s", itera_last_error());
    for (int i = 0; i < steps; i++)
        assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    assert_int_equal(itera_trainer_save(t), ITERA_OK);
    itera_trainer_destroy(&t);
}

static void refuse(const char *directory, const char *file, const char *words)
{
    struct itera_trainer *t;
    const enum itera_status status = itera_trainer_resume(device, directory, NULL, &t);
    assert_null(t);
    if (status != ITERA_ERR_FORMAT || !strstr(itera_last_error(), file) ||
        !strstr(itera_last_error(), words))
        fail_msg("'%s' does not say '%s' and '%s'", itera_last_error(), file, words);
}

static void test_text(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "plain/%41.txt",
                                        "na\xc3\xafve \xf0\x9f\x8c\x8a",
                                        "\xff",
                                        "a%ff\xff%",
                                        "\x01\t\"\\\x7f\x80",
                                        "\xed\xa0\x80",
                                        "\xc3"};
    struct itera_arena *arena = itera_arena_create(0);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *object = json_object();
        assert_int_equal(json_object_set_new(object, "text", itera_json_from_text(texts[i])), 0);
        char *json = json_dumps(object, 0);
        json_decref(object);
        assert_non_null(json);
        assert_int_equal(itera_json_parse(json, strlen(json), "text", &object), ITERA_OK);
        free(json);
        struct itera_json_reader r;
        itera_json_begin(&r, object, "text");
        assert_string_equal(itera_json_text(&r, "text", arena), texts[i]);
        json_decref(object);
    }
    static const char *const wrong[] = {"%", "%F", "%0", "a%00", "%fF", "%G0", "x%"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        json_t *value = json_pack("{s:s}", "percent", wrong[i]);
        assert_null(itera_json_to_text(value, arena));
        json_decref(value);
    }
    itera_arena_destroy(&arena);
}

/* Paths of every kind that are not UTF-8 are there after a resume, byte for byte. */
static void test_every_path(void **state)
{
    (void)state;
    struct itera_train_options o = small(in_root("run-\xfe"));
    struct itera_train_options teacher = small(in_root("teacher-\xfd"));
    teacher.steps = 1;
    run(&teacher, 1);
    put(in_root("config-\xfc.json"), config);
    put_text(in_root("data-\xfb.txt"), 200);
    put_text(in_root("valid-\xfa.txt"), 20);
    o.config = in_root("config-\xfc.json");
    o.data = in_root("data-\xfb.txt");
    o.valid = in_root("valid-\xfa.txt");
    o.teacher = in_root("teacher-\xfd/model.safetensors");
    o.tokenizer = NULL; /* the teacher's */
    o.eval_every = o.log_every = 1;
    run(&o, 3);

    struct itera_trainer *t;
    assert_int_equal(itera_trainer_resume(device, o.directory, NULL, &t), ITERA_OK);
    const struct itera_train_options *kept = itera_trainer_options(t);
    assert_string_equal(kept->config, o.config);
    assert_null(kept->tokenizer);
    assert_string_equal(kept->data, o.data);
    assert_string_equal(kept->valid, o.valid);
    assert_string_equal(kept->teacher, o.teacher);
    assert_true(kept->seed == o.seed);
    assert_non_null(itera_trainer_teacher(t));
    struct itera_train_report r;
    assert_int_equal(itera_trainer_step(t, &r), ITERA_OK);
    assert_true(r.valid_loss > 0 && r.kl_loss > 0);
    itera_trainer_destroy(&t);

    struct itera_distill_options whole = {.train = o};
    whole.train.directory = in_root("staged-\xf9");
    struct itera_distill *d;
    assert_int_equal(itera_distill_create(device, &whole, &d), ITERA_OK);
    itera_distill_destroy(&d);
    assert_int_equal(itera_distill_open(whole.train.directory, &d), ITERA_OK);
    kept = &itera_distill_options(d)->train;
    assert_string_equal(kept->config, o.config);
    assert_string_equal(kept->data, o.data);
    assert_string_equal(kept->valid, o.valid);
    assert_string_equal(kept->teacher, o.teacher);
    itera_distill_destroy(&d);
}

/* The names of init and tokenizer that are not UTF-8, which no run above has. */
static void test_options(void **state)
{
    (void)state;
    struct itera_train_options o = small(NULL), kept;
    o.init = "init\xff";
    o.preset = "preset\xfe";
    o.tokenizer = "tokenizer\xfd";
    o.schedule = ITERA_SCHEDULE_LINEAR;
    o.precision = ITERA_PRECISION_F16;
    o.lr = 0.1 + 0.2;
    json_t *json = itera_train_options_to_json(&o);
    struct itera_arena *arena = itera_arena_create(0);
    struct itera_json_reader r;
    kept = (struct itera_train_options){0};
    itera_json_begin(&r, json, "options");
    assert_int_equal(itera_train_options_from_json(arena, &r, &kept), ITERA_OK);
    assert_string_equal(kept.init, o.init);
    assert_string_equal(kept.preset, o.preset);
    assert_string_equal(kept.tokenizer, o.tokenizer);
    assert_null(kept.valid);
    assert_true(kept.schedule == o.schedule && kept.precision == o.precision && kept.lr == o.lr);
    json_decref(json);
    itera_arena_destroy(&arena);
}

/* Without any one of its keys, or with null instead of a number, a checkpoint is refused. */
static void refuse_without_keys(const char *directory, const char *file, const char *inner)
{
    char path[512], words[128];
    json_t *whole, *value;
    const char *key;
    snprintf(path, sizeof path, "%s/%s", directory, file);
    assert_int_equal(itera_json_load(path, &whole), ITERA_OK);
    json_t *keys = inner ? json_object_get(whole, inner) : whole;
    assert_true(json_object_size(keys) >= 4);
    json_object_foreach(keys, key, value)
    {
        for (int null = 0; null < 2; null++) {
            json_t *part = json_deep_copy(whole);
            json_t *from = inner ? json_object_get(part, inner) : part;
            if (null)
                json_object_set_new(from, key, json_null());
            else
                json_object_del(from, key);
            assert_int_equal(json_dump_file(part, path, JSON_REAL_PRECISION(17)), 0);
            json_decref(part);
            if (null && !json_is_number(value) && !json_is_object(value))
                continue;
            if (null && strstr(key, "_loss"))
                continue;
            snprintf(words, sizeof words, "\"%s\"", key);
            if (strcmp(file, "distill.json") != 0) {
                refuse(directory, "state.json", words);
                continue;
            }
            struct itera_distill *d;
            assert_int_equal(itera_distill_open(directory, &d), ITERA_ERR_FORMAT);
            assert_non_null(strstr(itera_last_error(), words));
        }
    }
    assert_int_equal(json_dump_file(whole, path, JSON_REAL_PRECISION(17)), 0);
    json_decref(whole);
}

static void test_every_key(void **state)
{
    (void)state;
    struct itera_train_options o = small(in_root("keys"));
    o.valid = "builtin:stories?valid&bytes=3000";
    o.eval_every = 2;
    run(&o, 3);
    refuse_without_keys(o.directory, "checkpoint/state.json", NULL);
    refuse_without_keys(o.directory, "checkpoint/state.json", "options");
    refuse_without_keys(o.directory, "checkpoint/state.json", "plan");
    struct itera_trainer *t;
    assert_int_equal(itera_trainer_resume(device, o.directory, NULL, &t), ITERA_OK);
    itera_trainer_destroy(&t);

    struct itera_distill_options whole = {.train = o};
    whole.train.directory = in_root("stages");
    whole.train.teacher = in_root("keys/checkpoint/model.safetensors");
    struct itera_distill *d;
    assert_int_equal(itera_distill_create(device, &whole, &d), ITERA_OK);
    itera_distill_destroy(&d);
    refuse_without_keys(whole.train.directory, "distill.json", NULL);
    refuse_without_keys(whole.train.directory, "distill.json", "options");
    assert_int_equal(itera_distill_open(whole.train.directory, &d), ITERA_OK);
    itera_distill_destroy(&d);
}

static const char *const files[] = {"model.safetensors", "m.safetensors", "v.safetensors",
                                    "state.json"};

static char *part(const char *directory, int file)
{
    char name[128];
    snprintf(name, sizeof name, "%s/checkpoint/%s", directory, files[file]);
    return in_root("%s", name);
}

/* Every part, of another run or of another step of the same one, and all parts but state.json. */
static void test_mixed(void **state)
{
    (void)state;
    static const char *const others[] = {"other", "later"};
    struct itera_train_options o = small(in_root("mixed"));
    run(&o, 3);
    o.directory = in_root("later");
    run(&o, 4);
    o.directory = in_root("other");
    o.seed++;
    run(&o, 3);
    o.directory = strdupa(in_root("mixed"));
    for (int i = 0; i < 4; i++)
        copy(in_root("%s", files[i]), part("mixed", i));
    for (int other = 0; other < 2; other++) {
        for (int set = 1; set < 15; set++) {
            for (int i = 0; i < 4; i++)
                copy(part("mixed", i),
                     set >> i & 1 ? part(others[other], i) : in_root("%s", files[i]));
            refuse(o.directory, "mixed/checkpoint/", "the whole checkpoint");
        }
    }
    for (int i = 0; i < 4; i++)
        copy(part("mixed", i), in_root("%s", files[i]));
    struct itera_trainer *t;
    assert_int_equal(itera_trainer_resume(device, o.directory, NULL, &t), ITERA_OK);
    itera_trainer_destroy(&t);
}

/* Another value: refused by the hash of its file, and with its hash where it cannot be one. */
static void test_impossible_values(void **state)
{
    (void)state;
    static const char *const keys[] = {"model_hash", "m_hash", "v_hash"};
    static const unsigned char nan[] = {0, 0, 0xc0, 0x7f}, negative[] = {0, 0, 0x80, 0xbf};
    struct itera_train_options o = small(strdupa(in_root("values")));
    run(&o, 3);
    copy(in_root("state"), part("values", 3));
    for (int i = 0; i < 3; i++) {
        copy(in_root("whole"), part("values", i));
        for (int sign = 0; sign < 2; sign++) {
            struct itera_map map;
            uint64_t hash;
            json_t *json;
            assert_int_equal(itera_map_open(part("values", i), &map), ITERA_OK);
            FILE *f = fopen(part("values", i), "r+b");
            assert_non_null(f);
            /* The last value of the file. */
            assert_int_equal(fseek(f, (long)map.size - 4, SEEK_SET), 0);
            assert_int_equal(fwrite(sign ? negative : nan, 1, 4, f), 4);
            assert_int_equal(fclose(f), 0);
            itera_map_close(&map);
            refuse(o.directory, files[i], !sign ? "finite" : i == 2 ? "negative" : "damaged");

            assert_int_equal(itera_train_files_hash(part("values", i), &hash), ITERA_OK);
            assert_int_equal(itera_json_load(part("values", 3), &json), ITERA_OK);
            assert_int_equal(json_object_set_new(json, keys[i], json_integer((json_int_t)hash)), 0);
            assert_int_equal(itera_train_write_json(json, part("values", 3)), ITERA_OK);
            if (!sign)
                refuse(o.directory, files[i], "finite");
            else if (i == 2)
                refuse(o.directory, files[i], "negative");
            copy(part("values", i), in_root("whole"));
            copy(part("values", 3), in_root("state"));
        }
    }
    static const struct {
        const char *key;
        int value;
    } wrong[] = {{"best_step", 4}, {"skipped", 4}, {"skipped_in_a_row", 1}, {"step", 9}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        json_t *json;
        assert_int_equal(itera_json_load(in_root("state"), &json), ITERA_OK);
        assert_int_equal(json_object_set_new(json, wrong[i].key, json_integer(wrong[i].value)), 0);
        assert_int_equal(itera_train_write_json(json, part("values", 3)), ITERA_OK);
        refuse(o.directory, "state.json", "do not fit together");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),    cmocka_unit_test(test_every_path),
        cmocka_unit_test(test_options), cmocka_unit_test(test_every_key),
        cmocka_unit_test(test_mixed),   cmocka_unit_test(test_impossible_values),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
