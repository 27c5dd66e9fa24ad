/* The safetensors reader and writer: round trips, shards, and every kind of broken file. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "format/safetensors.h"
#include "tensor/half.h"
#include "tests/support/test.h"

static int set_up(void **state)
{
    (void)state;
    return make_root();
}

static int tear_down(void **state)
{
    (void)state;
    return remove_root();
}

static void put_bytes(const char *path, const void *data, size_t size)
{
    struct itera_writer *writer;
    assert_int_equal(itera_writer_open(path, &writer), ITERA_OK);
    assert_int_equal(itera_writer_append(writer, data, size), ITERA_OK);
    assert_int_equal(itera_writer_commit(&writer), ITERA_OK);
}

/* A file of this header and `bytes` bytes of data (counting up), opened from memory. */
static enum itera_status open_header(const char *header, size_t bytes,
                                     struct itera_safetensors **out)
{
    uint64_t length = strlen(header);
    size_t size = 8 + (size_t)length + bytes;
    unsigned char *data = malloc(size);
    assert_non_null(data);
    memcpy(data, &length, 8);
    memcpy(data + 8, header, length);
    for (size_t i = 0; i < bytes; i++)
        data[8 + length + i] = (unsigned char)i;
    enum itera_status status = itera_safetensors_open_memory(data, size, "mem", out);
    if (status == ITERA_OK)
        itera_safetensors_close(out);
    free(data);
    return status;
}

static void assert_bad(const char *header, size_t bytes, const char *what)
{
    struct itera_safetensors *st;
    assert_int_equal(open_header(header, bytes, &st), ITERA_ERR_FORMAT);
    assert_null(st);
    assert_says(what);
    assert_non_null(strstr(itera_last_error(), "mem: "));
}

static void assert_good(const char *header, size_t bytes)
{
    struct itera_safetensors *st;
    if (open_header(header, bytes, &st) != ITERA_OK)
        fail_msg("%s: %s", header, itera_last_error());
}

static void test_round_trip(void **state)
{
    (void)state;
    const float f32[6] = {1, -2, 0.5f, 3e30f, -0.0f, 7};
    const double f64[2] = {0.1, 1e300};
    const uint16_t f16[3] = {0x3c00, 0xc000, 0x0001};
    const uint16_t bf16[2] = {0x3f80, 0x7f80};
    const int32_t i32[2] = {-5, 1 << 30};
    const int64_t i64[2] = {-1, (int64_t)1 << 40};
    const uint8_t u8[5] = {1, 2, 3, 4, 255};
    const int8_t i8[1] = {-3};
    const struct itera_safetensors_entry entries[] = {
        {"u8", ITERA_ST_U8, 1, {5}, u8},
        {"a \"quoted\"\n\xc3\xa9", ITERA_ST_F32, 2, {2, 3}, f32},
        {"f64", ITERA_ST_F64, 1, {2}, f64},
        {"f16", ITERA_ST_F16, 3, {1, 3, 1}, f16},
        {"bf16", ITERA_ST_BF16, 1, {2}, bf16},
        {"i32", ITERA_ST_I32, 1, {2}, i32},
        {"i64", ITERA_ST_I64, 1, {2}, i64},
        {"i8", ITERA_ST_I8, 0, {0}, i8},
        {"empty", ITERA_ST_F32, 2, {0, 4}, NULL},
    };
    enum { COUNT = sizeof entries / sizeof *entries };
    const struct itera_safetensors_pair metadata[] = {
        {"config", "{\"architecture\": \"itera\"}\n\t\\"}, {"empty", ""}};
    const char *path = in_root("model.safetensors");
    assert_int_equal(itera_safetensors_write(path, entries, COUNT, metadata, 2), ITERA_OK);

    /* The directory finds the file too. */
    const char *ways[] = {path, root};
    for (int way = 0; way < 2; way++) {
        struct itera_safetensors *st;
        assert_int_equal(itera_safetensors_open(ways[way], &st), ITERA_OK);
        assert_int_equal(itera_safetensors_count(st), COUNT);
        assert_null(itera_safetensors_at(st, COUNT));
        assert_string_equal(itera_safetensors_metadata(st, "config"), metadata[0].value);
        assert_string_equal(itera_safetensors_metadata(st, "empty"), "");
        assert_null(itera_safetensors_metadata(st, "other"));
        assert_null(itera_safetensors_find(st, "other"));
        assert_null(itera_safetensors_find(st, "__metadata__"));
        for (int i = 0; i < COUNT; i++) {
            const struct itera_safetensor *tensor = itera_safetensors_find(st, entries[i].name);
            assert_non_null(tensor);
            assert_string_equal(tensor->name, entries[i].name);
            assert_int_equal(tensor->dtype, entries[i].dtype);
            assert_int_equal(tensor->rank, entries[i].rank);
            for (int d = 0; d < tensor->rank; d++)
                assert_int_equal(tensor->dim[d], entries[i].dim[d]);
            assert_int_equal(tensor->bytes,
                             (size_t)tensor->count * itera_st_dtype_bytes(tensor->dtype));
            assert_true(tensor->aligned);
            if (tensor->bytes)
                assert_memory_equal(tensor->data, entries[i].data, tensor->bytes);
        }
        assert_int_equal((uintptr_t)itera_safetensors_at(st, 0)->data % 64, 0);

        float out[6];
        int32_t ints[5];
        const struct itera_safetensor *t = itera_safetensors_find(st, "f16");
        assert_int_equal(itera_safetensor_read_f32(t, 0, 3, out), ITERA_OK);
        assert_true(out[0] == 1 && out[1] == -2 && out[2] == 0x1p-24f);
        t = itera_safetensors_find(st, "bf16");
        assert_int_equal(itera_safetensor_read_f32(t, 0, 2, out), ITERA_OK);
        assert_true(out[0] == 1 && isinf(out[1]));
        assert_int_equal(itera_safetensor_check_finite(t), ITERA_ERR_FORMAT);
        assert_non_null(strstr(itera_last_error(), "tensor bf16: found inf at index 1"));
        t = itera_safetensors_find(st, "f64");
        assert_int_equal(itera_safetensor_read_f32(t, 0, 2, out), ITERA_OK);
        assert_true(out[0] == 0.1f && isinf(out[1]));
        t = itera_safetensors_find(st, entries[1].name);
        assert_int_equal(itera_safetensor_read_f32(t, 2, 4, out), ITERA_OK);
        assert_memory_equal(out, f32 + 2, sizeof *out * 4);
        assert_int_equal(itera_safetensor_read_f32(t, 3, 4, out), ITERA_ERR_SHAPE);
        assert_int_equal(itera_safetensor_read_f32(t, -1, 1, out), ITERA_ERR_SHAPE);
        assert_int_equal(itera_safetensor_read_f32(t, INT64_MAX, INT64_MAX, out), ITERA_ERR_SHAPE);
        assert_int_equal(itera_safetensor_read_i32(t, 0, 1, ints), ITERA_ERR_FORMAT);
        t = itera_safetensors_find(st, "i32");
        assert_int_equal(itera_safetensor_read_i32(t, 0, 2, ints), ITERA_OK);
        assert_memory_equal(ints, i32, sizeof i32);
        assert_int_equal(itera_safetensor_read_f32(t, 0, 1, out), ITERA_ERR_FORMAT);
        t = itera_safetensors_find(st, "i64");
        assert_int_equal(itera_safetensor_read_i32(t, 0, 1, ints), ITERA_OK);
        assert_int_equal(ints[0], -1);
        assert_int_equal(itera_safetensor_read_i32(t, 0, 2, ints), ITERA_ERR_FORMAT);
        t = itera_safetensors_find(st, "i8");
        assert_int_equal(itera_safetensor_read_i32(t, 0, 1, ints), ITERA_OK);
        assert_int_equal(ints[0], -3);

        const int64_t right[] = {2, 3}, wrong[] = {3, 2};
        assert_int_equal(itera_safetensors_expect(st, entries[1].name, 2, right, &t), ITERA_OK);
        assert_int_equal(itera_safetensors_expect(st, entries[1].name, 2, wrong, &t),
                         ITERA_ERR_SHAPE);
        assert_null(t);
        assert_non_null(strstr(itera_last_error(), "found shape (2, 3), expected (3, 2)"));
        assert_int_equal(itera_safetensors_expect(st, "gone", 2, right, &t), ITERA_ERR_FORMAT);
        assert_non_null(strstr(itera_last_error(), "gone: not found"));
        itera_safetensors_close(&st);
        assert_null(st);
    }
}

static void test_writer_refuses(void **state)
{
    (void)state;
    const float data[4] = {0};
    const char *path = in_root("out.safetensors");
    const struct itera_safetensors_entry twice[] = {{"a", ITERA_ST_F32, 1, {4}, data},
                                                    {"a", ITERA_ST_F32, 1, {4}, data}};
    assert_int_equal(itera_safetensors_write(path, twice, 2, NULL, 0), ITERA_ERR_ARGUMENT);
    assert_non_null(strstr(itera_last_error(), "twice"));
    const struct itera_safetensors_entry bad[] = {
        {"__metadata__", ITERA_ST_F32, 1, {4}, data},
        {"\xff\xfe", ITERA_ST_F32, 1, {4}, data},
        {"a", ITERA_ST_F32, 1, {-4}, data},
        {"a", ITERA_ST_F32, 2, {INT64_MAX, 8}, data},
        {"a", ITERA_ST_F32, 9, {4}, data},
        {"a", ITERA_ST_F32, 1, {4}, NULL},
        {"a", ITERA_ST_DTYPE_COUNT, 1, {4}, data},
        {NULL, ITERA_ST_F32, 1, {4}, data},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(itera_safetensors_write(path, &bad[i], 1, NULL, 0), ITERA_ERR_ARGUMENT);
    const struct itera_safetensors_pair pair = {"k", "\xff"};
    assert_int_equal(itera_safetensors_write(path, twice, 1, &pair, 1), ITERA_ERR_ARGUMENT);
    assert_false(itera_file_exists(path));
    if (access("/dev/full", W_OK) == 0)
        assert_int_equal(itera_safetensors_write("/dev/full", twice, 1, NULL, 0), ITERA_ERR_IO);
    assert_int_equal(itera_safetensors_write(path, NULL, 0, NULL, 0), ITERA_OK);
    struct itera_safetensors *st;
    assert_int_equal(itera_safetensors_open(path, &st), ITERA_OK);
    assert_int_equal(itera_safetensors_count(st), 0);
    assert_int_equal(itera_safetensors_check_finite(st), ITERA_OK);
    itera_safetensors_close(&st);
}

#define T(dtype, shape, from, to)                                                                  \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"

/* Small in the file, a hundred times larger in memory. */
static void test_header_of_brackets(void **state)
{
    (void)state;
    enum { COUNT = 5 << 20 };
    char *header = malloc(3 * COUNT + 32);
    assert_non_null(header);
    char *end = stpcpy(header, "{\"x\":[");
    for (int i = 0; i < COUNT; i++)
        end = stpcpy(end, "[],");
    strcpy(end, "0]}");
    struct itera_safetensors *st;
    assert_int_equal(open_header(header, 0, &st), ITERA_ERR_LIMIT);
    assert_null(st);
    assert_non_null(strstr(itera_last_error(), "mem: more than 8388608 values"));
    free(header);
}

static void test_bad_headers(void **state)
{
    (void)state;
    assert_good("{}", 0);
    assert_good("{\"a\":" T("F32", "[2]", "0", "8") "}   ", 8);
    assert_good("{\"b\":" T("U8", "[1]", "8", "9") ",\"a\":" T("F32", "[2]", "0", "8") "}", 9);
    assert_good("{\"z\":" T("U8", "[0]", "4", "4") ",\"a\":" T("F32", "[]", "0", "4") "}", 4);

    /* Types that are not known here, of which no element is read; no metadata at all. */
    assert_good("{\"a\":" T("F8_E4M3", "[3]", "0", "3") ",\"b\":" T("F4", "[3]", "3", "5") "}", 5);
    assert_good("{\"__metadata__\":null}", 0);

    assert_bad("[]", 0, "JSON object");
    assert_bad("\xEF\xBB\xBF{}", 0, "byte order mark");
    assert_bad("{", 0, "line 1");
    assert_bad("{\"a\":\xff}", 0, "line 1");
    assert_bad("{} {}", 0, "end of file expected");
    assert_bad("{\"a\":1}", 0, "tensor a: expected an object");
    assert_bad("{\"a\":" T("U8", "[1]", "0", "1") ",\"a\":" T("U8", "[1]", "1", "2") "}", 2,
               "duplicate");
    assert_bad("{\"a\":" T("F4", "[3]", "0", "5") "}", 4, "data_offsets");
    assert_bad("{\"a\":{\"dtype\":8,\"shape\":[],\"data_offsets\":[0,4]}}", 4, "found 8 as dtype");
    assert_bad("{\"a\":{\"shape\":[],\"data_offsets\":[0,4]}}", 4, "dtype");
    assert_bad("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1],\"x\":1}}", 1,
               "found key \"x\"");
    assert_bad("{\"a\":" T("U8", "3", "0", "3") "}", 3, "as shape");
    assert_bad("{\"a\":" T("U8", "[1,1,1,1,1,1,1,1,1]", "0", "1") "}", 1, "at most 8");
    assert_bad("{\"a\":" T("U8", "[-1]", "0", "1") "}", 1, "dimension 0");
    assert_bad("{\"a\":" T("U8", "[1.5]", "0", "1") "}", 1, "dimension 0");
    assert_bad("{\"a\":" T("F64", "[4294967296,4294967296]", "0", "0") "}", 0, "overflows");
    assert_bad("{\"a\":" T("F64", "[2305843009213693952]", "0", "0") "}", 0, "overflows");
    assert_bad("{\"a\":" T("U8", "[99999999999999999999]", "0", "0") "}", 0, "line 1");
    assert_bad("{\"a\":" T("F32", "[2]", "0", "4") "}", 4, "found 4 bytes, expected 8");
    assert_bad("{\"a\":" T("F32", "[2]", "0", "8") "}", 4, "data_offsets");
    assert_bad("{\"a\":" T("U8", "[2]", "-1", "1") "}", 4, "data_offsets");
    assert_bad("{\"a\":" T("U8", "[2]", "3", "1") "}", 4, "data_offsets");
    assert_bad("{\"a\":" T("U8", "[2]", "0", "1.5") "}", 4, "two integers");
    assert_bad("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1,
               "two integers");
    assert_bad("{\"a\":" T("U8", "[4]", "0", "4") ",\"b\":" T("U8", "[4]", "3", "7") "}", 7,
               "inside tensor a");
    assert_bad("{\"a\":" T("U8", "[4]", "0", "4") ",\"b\":" T("U8", "[2]", "5", "7") "}", 7,
               "hole");
    assert_bad("{\"a\":" T("U8", "[4]", "0", "4") "}", 7, "found 7 bytes of data");
    assert_bad("{\"__metadata__\":{\"a\":1}}", 0, "expected a string");
    assert_bad("{\"__metadata__\":[]}", 0, "__metadata__");
}

static void test_truncated(void **state)
{
    (void)state;
    const float data[4] = {1, 2, 3, 4};
    const struct itera_safetensors_entry entry = {"weight", ITERA_ST_F32, 1, {4}, data};
    const char *path = in_root("t.safetensors");
    assert_int_equal(itera_safetensors_write(path, &entry, 1, NULL, 0), ITERA_OK);
    struct itera_map map;
    struct itera_safetensors *st;
    assert_int_equal(itera_map_open(path, &map), ITERA_OK);
    for (size_t size = 0; size < map.size; size++) {
        /* A copy of exactly this size, so that ASan sees any read past the end. */
        void *copy = malloc(size ? size : 1);
        assert_non_null(copy);
        memcpy(copy, map.data, size);
        assert_int_equal(itera_safetensors_open_memory(copy, size, "cut", &st), ITERA_ERR_FORMAT);
        assert_null(st);
        free(copy);
    }
    itera_map_close(&map);
    const uint64_t lengths[] = {ITERA_ST_MAX_HEADER + 1, UINT64_MAX, UINT64_MAX - 7, 1000};
    for (int i = 0; i < 4; i++) {
        unsigned char bytes[64] = {0};
        memcpy(bytes, &lengths[i], 8);
        assert_int_equal(itera_safetensors_open_memory(bytes, sizeof bytes, "len", &st),
                         ITERA_ERR_FORMAT);
        assert_non_null(strstr(itera_last_error(), "header of"));
    }
    put_bytes(in_root("empty.safetensors"), "", 0);
    assert_int_equal(itera_safetensors_open(in_root("empty.safetensors"), &st), ITERA_ERR_FORMAT);
    assert_int_equal(itera_safetensors_open(in_root("missing.safetensors"), &st), ITERA_ERR_IO);
    assert_int_equal(itera_safetensors_open(root, &st), ITERA_ERR_IO);
    assert_non_null(strstr(itera_last_error(), "neither"));
}

/* Others write headers of any length: data may lie at any byte. */
static void test_unaligned(void **state)
{
    (void)state;
    const char *header =
        "{\"a\":" T("F32", "[3]", "1", "13") ",\"b\":" T("U8", "[1]", "0", "1") "}";
    const float values[3] = {1.5f, NAN, 3};
    unsigned char data[256];
    uint64_t length = strlen(header);
    memcpy(data, &length, 8);
    memcpy(data + 8, header, length);
    data[8 + length] = 9;
    memcpy(data + 9 + length, values, sizeof values);
    for (size_t shift = 0; shift < 4; shift++) {
        unsigned char *copy = malloc(300);
        assert_non_null(copy);
        memcpy(copy + shift, data, 9 + length + sizeof values);
        struct itera_safetensors *st;
        assert_int_equal(
            itera_safetensors_open_memory(copy + shift, 9 + length + sizeof values, "shifted", &st),
            ITERA_OK);
        const struct itera_safetensor *tensor = itera_safetensors_find(st, "a");
        assert_int_equal(tensor->aligned, (uintptr_t)tensor->data % 4 == 0);
        float out[3];
        assert_int_equal(itera_safetensor_read_f32(tensor, 0, 3, out), ITERA_OK);
        assert_memory_equal(out, values, sizeof values);
        assert_int_equal(itera_safetensors_check_finite(st), ITERA_ERR_FORMAT);
        assert_non_null(strstr(itera_last_error(), "tensor a: found nan at index 1"));
        itera_safetensors_close(&st);
        free(copy);
    }
}

static void test_shards(void **state)
{
    (void)state;
    const float a[2] = {1, 2}, b[1] = {3};
    const struct itera_safetensors_entry first = {"a", ITERA_ST_F32, 1, {2}, a};
    const struct itera_safetensors_entry second = {"b", ITERA_ST_F32, 1, {1}, b};
    const struct itera_safetensors_pair pair = {"format", "pt"};
    struct itera_safetensors *st;
    assert_int_equal(itera_safetensors_write(in_root("m-1.safetensors"), &first, 1, &pair, 1), 0);
    assert_int_equal(itera_safetensors_write(in_root("m-2.safetensors"), &second, 1, &pair, 1), 0);
    const char *index = in_root("model.safetensors.index.json");
    const struct {
        const char *text, *what;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}", NULL},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-1.safetensors\"}}",
         "tensor b: found in no shard"},
        {"{\"weight_map\":{\"a\":\"m-2.safetensors\",\"b\":\"m-1.safetensors\"}}",
         "expected in m-2"},
        {"{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}", "beside the index"},
        {"{\"weight_map\":{\"a\":7}}", "beside the index"},
        {"{\"weight_map\":{\"a\":\"m-3.safetensors\"}}", "m-3.safetensors: cannot open"},
        {"{\"weight_map\":{}}", "weight_map"},
        {"[]", "weight_map"},
        {"{\"weight_map\":", "line 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_bytes(index, cases[i].text, strlen(cases[i].text));
        enum itera_status status = itera_safetensors_open(i % 2 ? index : root, &st);
        if (!cases[i].what) {
            assert_int_equal(status, ITERA_OK);
            assert_int_equal(itera_safetensors_count(st), 2);
            assert_non_null(itera_safetensors_find(st, "b"));
            assert_string_equal(itera_safetensors_metadata(st, "format"), "pt");
            itera_safetensors_close(&st);
        } else {
            assert_true(status != ITERA_OK);
            assert_says(cases[i].what);
        }
    }
    assert_int_equal(itera_safetensors_write(in_root("m-2.safetensors"), &first, 1, NULL, 0), 0);
    put_bytes(index, cases[0].text, strlen(cases[0].text));
    assert_int_equal(itera_safetensors_open(root, &st), ITERA_ERR_FORMAT);
    assert_non_null(strstr(itera_last_error(), "is also in"));
}

static void test_half(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        float value = itera_f16_to_f32((uint16_t)i);
        if (!isnan(value))
            assert_int_equal(itera_f32_to_f16(value), i);
        else
            assert_true(isnan(itera_f16_to_f32(itera_f32_to_f16(value))));
        value = itera_bf16_to_f32((uint16_t)i);
        if (!isnan(value))
            assert_int_equal(itera_f32_to_bf16(value), i);
        else
            assert_true(isnan(itera_bf16_to_f32(itera_f32_to_bf16(value))));
    }
    /* Ties go to even, below and above; the ends of the range. */
    assert_int_equal(itera_f32_to_f16(1 + 0x1p-11f), 0x3c00);
    assert_int_equal(itera_f32_to_f16(1 + 0x3p-11f), 0x3c02);
    assert_int_equal(itera_f32_to_f16(0x1p-25f), 0x0000);
    assert_int_equal(itera_f32_to_f16(0x1.8p-24f), 0x0002);
    assert_int_equal(itera_f32_to_f16(0x1.ffep-15f), 0x0400);
    assert_int_equal(itera_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(itera_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(itera_f32_to_bf16(1 + 0x1p-8f), 0x3f80);
    assert_int_equal(itera_f32_to_bf16(1 + 0x3p-8f), 0x3f82);
    assert_int_equal(itera_f32_to_bf16(0x1.fffffep127f), 0x7f80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writer_refuses, set_up, tear_down),
        cmocka_unit_test(test_header_of_brackets),
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test_setup_teardown(test_truncated, set_up, tear_down),
        cmocka_unit_test(test_unaligned),
        cmocka_unit_test_setup_teardown(test_shards, set_up, tear_down),
        cmocka_unit_test(test_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
