#include "results/schema.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct check {
    const json_t *root; /* of the schema */
    char *message;
    size_t size;
    char path[256]; /* of the value being looked at */
};

__attribute__((format(printf, 2, 3))) static bool refuse(struct check *c, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(c->message, c->size, "%s: %s", c->path[0] ? c->path : "the file", text);
    return false;
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    case JSON_NULL:
        break;
    }
    return "null";
}

static bool has_type(const json_t *value, const char *type)
{
    if (!strcmp(type, "object"))
        return json_is_object(value);
    if (!strcmp(type, "array"))
        return json_is_array(value);
    if (!strcmp(type, "string"))
        return json_is_string(value);
    if (!strcmp(type, "boolean"))
        return json_is_boolean(value);
    if (!strcmp(type, "null"))
        return json_is_null(value);
    if (!strcmp(type, "number"))
        return json_is_number(value);
    /* 2.0 is an integer to JSON Schema, as it is to JavaScript. */
    return !strcmp(type, "integer") && json_is_number(value) &&
           trunc(json_number_value(value)) == json_number_value(value);
}

/* "type": one name or several. */
static bool check_type(struct check *c, const json_t *types, const json_t *value)
{
    size_t n = json_is_array(types) ? json_array_size(types) : 1;
    char list[128] = "";
    for (size_t i = 0; i < n; i++) {
        const char *type =
            json_string_value(json_is_array(types) ? json_array_get(types, i) : types);
        if (has_type(value, type))
            return true;
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? " or " : "", type);
    }
    return refuse(c, "is %s; expected: %s", type_name(value), list);
}

static bool check_enum(struct check *c, const json_t *choices, const json_t *value)
{
    char list[256] = "";
    for (size_t i = 0; i < json_array_size(choices); i++) {
        const json_t *choice = json_array_get(choices, i);
        if (json_equal(choice, value))
            return true;
        const char *text = json_string_value(choice);
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", text ? text : "null");
    }
    if (json_is_string(value))
        return refuse(c, "is \"%.64s\"; known are: %s", json_string_value(value), list);
    return refuse(c, "is %s; known are: %s", type_name(value), list);
}

static bool check_range(struct check *c, const json_t *schema, const json_t *value)
{
    if (!json_is_number(value))
        return true;
    double number = json_number_value(value);
    const json_t *least = json_object_get(schema, "minimum");
    const json_t *above = json_object_get(schema, "exclusiveMinimum");
    if (least && number < json_number_value(least))
        return refuse(c, "is %g; the least is %g", number, json_number_value(least));
    if (above && number <= json_number_value(above))
        return refuse(c, "is %g; it must be above %g", number, json_number_value(above));
    return true;
}

static size_t code_points(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static bool check_length(struct check *c, const json_t *schema, const json_t *value)
{
    const json_t *length = json_object_get(schema, "maxLength");
    const json_t *items = json_object_get(schema, "maxItems");
    if (length && json_is_string(value) &&
        code_points(json_string_value(value)) > (size_t)json_integer_value(length))
        return refuse(c, "has more than %lld characters", (long long)json_integer_value(length));
    if (items && json_array_size(value) > (size_t)json_integer_value(items))
        return refuse(c, "has %zu items; the most is %lld", json_array_size(value),
                      (long long)json_integer_value(items));
    return true;
}

static bool check_value(struct check *c, const json_t *schema, const json_t *value);

static bool check_properties(struct check *c, const json_t *schema, const json_t *value)
{
    const json_t *required = json_object_get(schema, "required");
    const size_t length = strlen(c->path);
    if (!json_is_object(value))
        return true;
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *key = json_string_value(json_array_get(required, i));
        if (!json_object_get(value, key))
            return refuse(c, "has no \"%s\"", key);
    }
    const char *key;
    json_t *rule;
    json_object_foreach(json_object_get(schema, "properties"), key, rule)
    {
        const json_t *member = json_object_get(value, key);
        if (!member)
            continue;
        snprintf(c->path + length, sizeof c->path - length, "%s%s", length ? "." : "", key);
        if (!check_value(c, rule, member))
            return false;
        c->path[length] = 0;
    }
    return true;
}

static bool check_items(struct check *c, const json_t *schema, const json_t *value)
{
    const json_t *rule = json_object_get(schema, "items");
    const size_t length = strlen(c->path);
    for (size_t i = 0; rule && i < json_array_size(value); i++) {
        snprintf(c->path + length, sizeof c->path - length, "[%zu]", i);
        if (!check_value(c, rule, json_array_get(value, i)))
            return false;
        c->path[length] = 0;
    }
    return true;
}

/* Every keyword that constrains is one of those looked at here. */
static bool check_keywords(struct check *c, const json_t *schema)
{
    static const char *const known[] = {
        "type",     "const", "enum",      "required", "properties",       "items",
        "maxItems", "$ref",  "maxLength", "minimum",  "exclusiveMinimum", "description",
        "title",    "$defs", "$schema",   "$id"};
    const char *key;
    json_t *rule;
    json_object_foreach((json_t *)schema, key, rule)
    {
        size_t i = 0;
        while (i < sizeof known / sizeof known[0] && strcmp(known[i], key))
            i++;
        if (i == sizeof known / sizeof known[0])
            return refuse(c, "the schema says \"%s\", which is not checked here", key);
    }
    return true;
}

static bool check_value(struct check *c, const json_t *schema, const json_t *value)
{
    static const char prefix[] = "#/$defs/";
    const char *ref = json_string_value(json_object_get(schema, "$ref"));
    if (!check_keywords(c, schema))
        return false;
    if (ref) {
        const json_t *target = NULL;
        if (!strncmp(ref, prefix, sizeof prefix - 1))
            target = json_object_get(json_object_get(c->root, "$defs"), ref + sizeof prefix - 1);
        if (!target)
            return refuse(c, "the schema refers to %s, which it lacks", ref);
        if (!check_value(c, target, value))
            return false;
    }
    const json_t *type = json_object_get(schema, "type"), *is = json_object_get(schema, "const");
    const json_t *choices = json_object_get(schema, "enum");
    if (is && !json_equal(is, value))
        return refuse(c, "is not \"%s\"", json_string_value(is));
    return (!type || check_type(c, type, value)) && (!choices || check_enum(c, choices, value)) &&
           check_range(c, schema, value) && check_length(c, schema, value) &&
           check_properties(c, schema, value) && check_items(c, schema, value);
}

bool schema_check(const json_t *schema, const json_t *value, char *message, size_t size)
{
    struct check c = {.root = schema, .message = message, .size = size};
    return check_value(&c, schema, value);
}
