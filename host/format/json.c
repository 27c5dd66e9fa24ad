#include "format/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/number.h"

#define MAX_FILE ((size_t)512 * 1024 * 1024)

json_t *itera_json_read(const char *text, size_t size, size_t flags, json_error_t *error)
{
    struct itera_c_locale saved = itera_c_locale_enter();
    json_t *value = json_loadb(text, size, flags, error);
    itera_c_locale_leave(&saved);
    return value;
}

char *itera_json_write(const json_t *value, size_t flags)
{
    struct itera_c_locale saved = itera_c_locale_enter();
    char *text = json_dumps(value, flags);
    itera_c_locale_leave(&saved);
    return text;
}

enum itera_status itera_json_check_size(const char *text, size_t size, const char *source)
{
    /* What stands for a value takes up to 150 bytes of memory, an object 300. */
    enum { MOST = 8 << 20 };
    size_t count = 0;
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        const char c = text[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted)
            count += c == ',' || c == ':' ? 1 : c == '[' ? 2 : c == '{' ? 4 : 0;
    }
    return count <= MOST ? ITERA_OK
                         : itera_fail(ITERA_ERR_LIMIT, "%s: more than %d values in its JSON",
                                      source, (int)MOST);
}

enum itera_status itera_json_parse(const char *text, size_t size, const char *source, json_t **out)
{
    *out = NULL;
    const bool utf8 = size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0;
    if (utf8 ||
        (size >= 2 && (memcmp(text, "\xFF\xFE", 2) == 0 || memcmp(text, "\xFE\xFF", 2) == 0)))
        return itera_fail(
            ITERA_ERR_FORMAT,
            "%s: begins with a byte order mark%s, which JSON has not: save it as UTF-8 "
            "without one",
            source, utf8 ? "" : " of UTF-16");
    json_error_t error;
    enum itera_status status = itera_json_check_size(text ? text : "", size, source);
    if (status)
        return status;
    json_t *value = itera_json_read(text ? text : "", size, JSON_REJECT_DUPLICATES, &error);
    if (!value) {
        if (json_error_code(&error) == json_error_out_of_memory)
            return itera_fail(ITERA_ERR_MEMORY, "%s: out of memory while reading JSON", source);
        return itera_fail(ITERA_ERR_FORMAT, "%s: line %d, column %d: %s", source, error.line,
                          error.column, error.text);
    }
    *out = value;
    return ITERA_OK;
}

/* The length of a number that Python writes and JSON lacks, at the beginning of text, or 0. */
static size_t python_number(const char *text, size_t size)
{
    static const char *const names[] = {"Infinity", "-Infinity", "NaN"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const size_t length = strlen(names[i]);
        if (size >= length && memcmp(text, names[i], length) == 0)
            return length;
    }
    return 0;
}

enum itera_status itera_json_parse_python(const char *text, size_t size, const char *source,
                                          json_t **out)
{
    *out = NULL;
    /* At worst every third byte begins a NaN, and two quotes are added to each. */
    char *quoted = size <= MAX_FILE ? malloc(size / 3 * 2 + size + 1) : NULL;
    if (!quoted)
        return itera_json_parse(text, size, source, out);
    size_t n = 0;
    bool string = false;
    for (size_t i = 0; i < size;) {
        const size_t length = string ? 0 : python_number(text + i, size - i);
        if (length) {
            quoted[n++] = '"';
            memcpy(quoted + n, text + i, length);
            n += length;
            quoted[n++] = '"';
            i += length;
            continue;
        }
        if (string && text[i] == '\\' && i + 1 < size)
            quoted[n++] = text[i++];
        else if (text[i] == '"')
            string = !string;
        quoted[n++] = text[i++];
    }
    enum itera_status status = itera_json_parse(quoted, n, source, out);
    free(quoted);
    return status;
}

enum itera_status itera_json_load(const char *path, json_t **out)
{
    *out = NULL;
    struct itera_map map;
    enum itera_status status = itera_map_open(path, &map);
    if (status)
        return status;
    if (map.size > MAX_FILE)
        status = itera_fail(ITERA_ERR_LIMIT, "%s: %zu bytes of JSON, expected at most %zu", path,
                            map.size, MAX_FILE);
    else
        status = itera_json_parse((const char *)map.data, map.size, path, out);
    itera_map_close(&map);
    return status;
}

const char *itera_json_describe(const json_t *value, char *out, size_t size)
{
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_OBJECT:
        snprintf(out, size, "an object");
        break;
    case JSON_ARRAY:
        snprintf(out, size, "an array of %zu", json_array_size(value));
        break;
    case JSON_STRING:
        snprintf(out, size, "\"%.60s\"", json_string_value(value));
        break;
    case JSON_INTEGER:
        snprintf(out, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        itera_format(out, size, "%.9g", json_real_value(value));
        break;
    case JSON_TRUE:
        snprintf(out, size, "true");
        break;
    case JSON_FALSE:
        snprintf(out, size, "false");
        break;
    default:
        snprintf(out, size, "nothing");
        break;
    }
    return out;
}

enum itera_status itera_json_begin(struct itera_json_reader *reader, const json_t *value,
                                   const char *source)
{
    memset(reader, 0, sizeof *reader);
    reader->object = value;
    reader->source = source;
    if (!json_is_object(value)) {
        char found[96];
        reader->status = itera_fail(ITERA_ERR_FORMAT, "%s: found %s, expected a JSON object",
                                    source, itera_json_describe(value, found, sizeof found));
    }
    return reader->status;
}

const json_t *itera_json_value(struct itera_json_reader *reader, const char *key)
{
    bool known = false;
    for (int i = 0; i < reader->used_count && !known; i++)
        known = strcmp(reader->used[i], key) == 0;
    if (!known && reader->used_count < ITERA_JSON_MAX_KEYS)
        reader->used[reader->used_count++] = key;
    const json_t *value = json_object_get(reader->object, key);
    if (reader->complete && !reader->status && (!value || json_is_null(value)))
        reader->status = itera_fail(
            ITERA_ERR_FORMAT, "%s: key \"%s\" %s: the file is damaged, or another version wrote it",
            reader->source, key, value ? "has no value" : "is missing");
    return json_is_null(value) ? NULL : value;
}

bool itera_json_has(struct itera_json_reader *reader, const char *key)
{
    return itera_json_value(reader, key) != NULL;
}

bool itera_json_is_null(struct itera_json_reader *reader, const char *key)
{
    return json_is_null(json_object_get(reader->object, key));
}

enum itera_status itera_json_fail(struct itera_json_reader *reader, const char *key,
                                  const char *expected)
{
    if (reader->status == ITERA_OK) {
        char found[96];
        itera_json_describe(json_object_get(reader->object, key), found, sizeof found);
        reader->status = itera_fail(ITERA_ERR_FORMAT, "%s: key \"%s\": found %s, expected %s",
                                    reader->source, key, found, expected);
    }
    return reader->status;
}

int64_t itera_json_int(struct itera_json_reader *reader, const char *key, int64_t absent,
                       int64_t min, int64_t max)
{
    const json_t *value = itera_json_value(reader, key);
    if (!value || reader->status)
        return absent;
    int64_t number = 0;
    bool whole = true;
    if (json_is_integer(value)) {
        number = json_integer_value(value);
    } else if (json_is_real(value) && fabs(json_real_value(value)) < 0x1p53 &&
               json_real_value(value) == floor(json_real_value(value))) {
        number = (int64_t)json_real_value(value);
    } else {
        whole = false;
    }
    if (!whole || number < min || number > max) {
        char expected[96];
        snprintf(expected, sizeof expected, "an integer from %" PRId64 " to %" PRId64, min, max);
        itera_json_fail(reader, key, expected);
        return absent;
    }
    return number;
}

int64_t itera_json_need_int(struct itera_json_reader *reader, const char *key, int64_t min,
                            int64_t max)
{
    if (reader->status == ITERA_OK && !itera_json_has(reader, key)) {
        char expected[96];
        snprintf(expected, sizeof expected, "an integer from %" PRId64 " to %" PRId64, min, max);
        itera_json_fail(reader, key, expected);
    }
    return itera_json_int(reader, key, min, min, max);
}

double itera_json_real(struct itera_json_reader *reader, const char *key, double absent, double min,
                       double max)
{
    const json_t *value = itera_json_value(reader, key);
    if (!value || reader->status)
        return absent;
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= min && number <= max)) {
        char expected[96];
        itera_format(expected, sizeof expected, "a number from %g to %g", min, max);
        itera_json_fail(reader, key, expected);
        return absent;
    }
    return number;
}

bool itera_json_bool(struct itera_json_reader *reader, const char *key, bool absent)
{
    const json_t *value = itera_json_value(reader, key);
    if (!value || reader->status)
        return absent;
    if (!json_is_boolean(value)) {
        itera_json_fail(reader, key, "true or false");
        return absent;
    }
    return json_is_true(value);
}

const char *itera_json_string(struct itera_json_reader *reader, const char *key, const char *absent)
{
    const json_t *value = itera_json_value(reader, key);
    if (!value || reader->status)
        return absent;
    if (!json_is_string(value)) {
        itera_json_fail(reader, key, "a string");
        return absent;
    }
    return json_string_value(value);
}

static const char PERCENT[] = "percent";

json_t *itera_json_from_text(const char *text)
{
    if (!text)
        return json_null();
    json_t *plain = json_string(text);
    char *escaped = plain ? NULL : malloc(3 * strlen(text) + 1), *to = escaped;
    if (!escaped)
        return plain;
    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c >= 0x20 && (unsigned char)*c < 0x7f && *c != '%')
            *to++ = *c;
        else
            to += snprintf(to, 4, "%%%02X", (unsigned)(unsigned char)*c);
    }
    *to = 0;
    json_t *value = json_pack("{s:s}", PERCENT, escaped);
    free(escaped);
    return value;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

const char *itera_json_to_text(const json_t *value, struct itera_arena *arena)
{
    if (json_is_string(value))
        return itera_arena_strdup(arena, json_string_value(value));
    const char *from = json_string_value(json_object_get(value, PERCENT));
    char *text = from ? itera_arena_strdup(arena, from) : NULL, *to = text;
    while (text && *from) {
        if (*from != '%') {
            *to++ = *from++;
            continue;
        }
        const int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);
        if (low < 0 || !(high | low))
            return NULL;
        *to++ = (char)(high << 4 | low);
        from += 3;
    }
    if (text)
        *to = 0;
    return text;
}

const char *itera_json_text(struct itera_json_reader *reader, const char *key,
                            struct itera_arena *arena)
{
    const json_t *value = itera_json_is_null(reader, key) ? NULL : itera_json_value(reader, key);
    if (!value || reader->status)
        return NULL;
    const char *text = itera_json_to_text(value, arena);
    if (!text)
        itera_json_fail(reader, key, "a string, or percent-encoded text");
    return text;
}

const json_t *itera_json_array(struct itera_json_reader *reader, const char *key)
{
    const json_t *value = itera_json_value(reader, key);
    if (!value || reader->status)
        return NULL;
    if (!json_is_array(value)) {
        itera_json_fail(reader, key, "an array");
        return NULL;
    }
    return value;
}

const json_t *itera_json_object(struct itera_json_reader *reader, const char *key)
{
    const json_t *value = itera_json_value(reader, key);
    if (!value || reader->status)
        return NULL;
    if (!json_is_object(value)) {
        itera_json_fail(reader, key, "an object");
        return NULL;
    }
    return value;
}

static bool is_known(const struct itera_json_reader *reader, const char *const *known,
                     const char *key)
{
    for (int i = 0; i < reader->used_count; i++)
        if (strcmp(reader->used[i], key) == 0)
            return true;
    for (; known && *known; known++)
        if (strcmp(*known, key) == 0)
            return true;
    return false;
}

int itera_json_warn_unknown(const struct itera_json_reader *reader, const char *const *known)
{
    char list[600];
    size_t length = 0;
    int count = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)reader->object, key, value)
    {
        if (is_known(reader, known, key))
            continue;
        count++;
        if (length < sizeof list - 1)
            length += (size_t)snprintf(list + length, sizeof list - length, "%s%.60s",
                                       count > 1 ? ", " : "", key);
    }
    if (count)
        itera_log(ITERA_LOG_WARNING, "%s: %d unknown key%s ignored: %s%s", reader->source, count,
                  count > 1 ? "s" : "", list, length >= sizeof list ? "..." : "");
    return count;
}
