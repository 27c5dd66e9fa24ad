#include "format/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/log.h"
#include "format/json.h"

struct itera_safetensors {
    struct itera_arena *arena;
    struct itera_map *maps; /* one per shard; none over a caller's buffer */
    size_t map_count;
    struct itera_safetensor *tensors;
    size_t count, capacity;
    const struct itera_safetensor **by_name; /* sorted */
    struct itera_safetensors_pair *metadata;
    size_t metadata_count;
};

/* Names come from the file: long ones are cut in messages so that the rest still fits. */
#define NAME "%.160s"

static enum itera_status out_of_memory(const char *source)
{
    return itera_fail(ITERA_ERR_MEMORY, "%s: out of memory while reading tensors", source);
}

/* Elements and bytes of a shape; false when they overflow. */
static bool shape_size(const struct itera_safetensor *tensor, int64_t *count, int64_t *bytes)
{
    int64_t product = 1;
    for (int i = 0; i < tensor->rank; i++)
        if (__builtin_mul_overflow(product, tensor->dim[i], &product))
            return false;
    *count = product;
    return !__builtin_mul_overflow(product, (int64_t)itera_st_dtype_bytes(tensor->dtype), bytes);
}

static enum itera_status parse_dtype(struct itera_safetensor *tensor, const json_t *value,
                                     struct itera_arena *arena)
{
    const char *name = json_string_value(value);
    char found[96];
    if (!name)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: tensor " NAME ": found %s as dtype, expected a name", tensor->source,
                          tensor->name, itera_json_describe(value, found, sizeof found));
    for (int i = 0; i < ITERA_ST_OTHER; i++) {
        if (strcmp(itera_st_dtype_name((enum itera_st_dtype)i), name) == 0) {
            tensor->dtype = (enum itera_st_dtype)i;
            tensor->dtype_name = itera_st_dtype_name(tensor->dtype);
            return ITERA_OK;
        }
    }
    /* A model may well have no use for it; one that has is told when it reads the values. */
    tensor->dtype = ITERA_ST_OTHER;
    tensor->dtype_name = itera_arena_printf(arena, "%.32s", name);
    return tensor->dtype_name ? ITERA_OK : out_of_memory(tensor->source);
}

static enum itera_status parse_shape(struct itera_safetensor *tensor, const json_t *value)
{
    char found[96];
    if (!json_is_array(value) || json_array_size(value) > ITERA_ST_MAX_RANK)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: tensor " NAME ": found %s as shape, expected an array of at most %d",
                          tensor->source, tensor->name,
                          itera_json_describe(value, found, sizeof found), ITERA_ST_MAX_RANK);
    tensor->rank = (int)json_array_size(value);
    for (int i = 0; i < tensor->rank; i++) {
        const json_t *dim = json_array_get(value, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: tensor " NAME ": found %s as dimension %d, expected an integer "
                              "from 0",
                              tensor->source, tensor->name,
                              itera_json_describe(dim, found, sizeof found), i);
        tensor->dim[i] = json_integer_value(dim);
    }
    return ITERA_OK;
}

static enum itera_status parse_offsets(struct itera_safetensor *tensor, const json_t *value,
                                       const uint8_t *buffer, size_t buffer_size)
{
    const json_t *begin = json_array_get(value, 0);
    const json_t *end = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: tensor " NAME ": expected data_offsets as an array of two integers",
                          tensor->source, tensor->name);
    int64_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || from > to || (uint64_t)to > buffer_size)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: tensor " NAME ": found data_offsets [%" PRId64 ", %" PRId64
                          "], expected them in order and within the %zu bytes of data%s",
                          tensor->source, tensor->name, from, to, buffer_size,
                          from >= 0 && from <= to ? " (truncated?)" : "");
    int64_t count, bytes;
    char shape[192];
    itera_safetensors_shape_text(tensor->rank, tensor->dim, shape, sizeof shape);
    if (!shape_size(tensor, &count, &bytes))
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: tensor " NAME ": the size of %s %s overflows 64 bits",
                          tensor->source, tensor->name, tensor->dtype_name, shape);
    const size_t width = itera_st_dtype_bytes(tensor->dtype);
    if (!width) /* how long its elements are, nobody here knows */
        bytes = to - from;
    if (bytes != to - from)
        return itera_fail(
            ITERA_ERR_FORMAT,
            "%s: tensor " NAME ": found %" PRId64 " bytes, expected %" PRId64 " for %s %s",
            tensor->source, tensor->name, to - from, bytes, tensor->dtype_name, shape);
    tensor->count = count;
    tensor->bytes = (size_t)bytes;
    tensor->data = buffer + from;
    tensor->aligned = width && (uintptr_t)tensor->data % width == 0;
    return ITERA_OK;
}

static enum itera_status parse_tensor(struct itera_safetensor *tensor, const json_t *value,
                                      const uint8_t *buffer, size_t buffer_size,
                                      struct itera_arena *arena)
{
    const char *key;
    json_t *member;
    if (!json_is_object(value))
        return itera_fail(ITERA_ERR_FORMAT, "%s: tensor " NAME ": expected an object",
                          tensor->source, tensor->name);
    json_object_foreach((json_t *)value, key, member)
    {
        if (strcmp(key, "dtype") && strcmp(key, "shape") && strcmp(key, "data_offsets"))
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: tensor " NAME ": found key \"%.60s\", expected dtype, shape and "
                              "data_offsets",
                              tensor->source, tensor->name, key);
    }
    enum itera_status status = parse_dtype(tensor, json_object_get(value, "dtype"), arena);
    if (status == ITERA_OK)
        status = parse_shape(tensor, json_object_get(value, "shape"));
    if (status == ITERA_OK)
        status = parse_offsets(tensor, json_object_get(value, "data_offsets"), buffer, buffer_size);
    return status;
}

static enum itera_status parse_metadata(struct itera_safetensors *st, const json_t *value,
                                        const char *source)
{
    if (json_is_null(value))
        return ITERA_OK; /* as some writers have it where there is none */
    if (!json_is_object(value))
        return itera_fail(ITERA_ERR_FORMAT, "%s: expected __metadata__ as an object", source);
    size_t total = st->metadata_count + json_object_size(value);
    struct itera_safetensors_pair *pairs =
        itera_arena_calloc(st->arena, total ? total : 1, sizeof *pairs);
    if (!pairs)
        return out_of_memory(source);
    if (st->metadata_count)
        memcpy(pairs, st->metadata, st->metadata_count * sizeof *pairs);
    st->metadata = pairs;

    const char *key;
    json_t *member;
    json_object_foreach((json_t *)value, key, member)
    {
        char found[96];
        if (!json_is_string(member))
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: __metadata__ " NAME ": found %s, expected a "
                              "string",
                              source, key, itera_json_describe(member, found, sizeof found));
        struct itera_safetensors_pair *pair = &st->metadata[st->metadata_count];
        pair->key = itera_arena_strdup(st->arena, key);
        pair->value = itera_arena_strdup(st->arena, json_string_value(member));
        if (!pair->key || !pair->value)
            return out_of_memory(source);
        st->metadata_count++;
    }
    return ITERA_OK;
}

static int compare_places(const void *a, const void *b)
{
    const struct itera_safetensor *x = a, *y = b;
    if (x->data != y->data)
        return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* tensors are those of one file, sorted by place. */
static enum itera_status check_cover(const struct itera_safetensor *tensors, size_t count,
                                     const uint8_t *buffer, size_t size, const char *source)
{
    size_t next = 0;
    for (size_t i = 0; i < count; i++) {
        size_t begin = (size_t)((const uint8_t *)tensors[i].data - buffer);
        if (begin < next)
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: tensor " NAME ": starts at byte %zu inside tensor " NAME
                              ", expected %zu",
                              source, tensors[i].name, begin, tensors[i - 1].name, next);
        if (begin > next)
            return itera_fail(ITERA_ERR_FORMAT,
                              "%s: tensor " NAME ": starts at byte %zu, expected %zu (a hole that "
                              "belongs to no tensor)",
                              source, tensors[i].name, begin, next);
        next = begin + tensors[i].bytes;
    }
    if (next != size)
        return itera_fail(ITERA_ERR_FORMAT, "%s: found %zu bytes of data, the tensors cover %zu",
                          source, size, next);
    return ITERA_OK;
}

static enum itera_status add_tensors(struct itera_safetensors *st, const json_t *header,
                                     const uint8_t *buffer, size_t buffer_size, const char *source)
{
    enum itera_status status = ITERA_OK;
    size_t first = st->count;
    size_t need = first + json_object_size(header);
    if (need > st->capacity) {
        struct itera_safetensor *grown = realloc(st->tensors, need * sizeof *grown);
        if (!grown)
            return out_of_memory(source);
        st->tensors = grown;
        st->capacity = need;
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)header, key, value)
    {
        if (strcmp(key, "__metadata__") == 0) {
            status = parse_metadata(st, value, source);
        } else {
            struct itera_safetensor *tensor = &st->tensors[st->count];
            memset(tensor, 0, sizeof *tensor);
            tensor->source = source;
            tensor->name = itera_arena_strdup(st->arena, key);
            if (!tensor->name)
                return out_of_memory(source);
            status = parse_tensor(tensor, value, buffer, buffer_size, st->arena);
            st->count++;
        }
        if (status)
            return status;
    }
    if (st->count == first) /* none at all: there may be no array, either */
        return check_cover(NULL, 0, buffer, buffer_size, source);
    qsort(st->tensors + first, st->count - first, sizeof *st->tensors, compare_places);
    return check_cover(st->tensors + first, st->count - first, buffer, buffer_size, source);
}

/* Reads one file's worth of bytes into st. */
static enum itera_status add_file(struct itera_safetensors *st, const uint8_t *data, size_t size,
                                  const char *name)
{
    const char *source = itera_arena_strdup(st->arena, name);
    if (!source)
        return out_of_memory(name);
    if (size < 8)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: found %zu bytes, expected a safetensors file of at least 8", source,
                          size);
    uint64_t length;
    memcpy(&length, data, sizeof length);
    if (length > ITERA_ST_MAX_HEADER)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: found a header of %" PRIu64
                          " bytes, expected at most %zu (is this a safetensors file?)",
                          source, length, ITERA_ST_MAX_HEADER);
    if (length > size - 8)
        return itera_fail(ITERA_ERR_FORMAT,
                          "%s: found %zu bytes after the length, expected a header of %" PRIu64
                          " (truncated?)",
                          source, size - 8, length);

    json_t *header;
    enum itera_status status =
        itera_json_parse((const char *)data + 8, (size_t)length, source, &header);
    if (status)
        return status;
    if (json_is_object(header))
        status = add_tensors(st, header, data + 8 + length, size - 8 - (size_t)length, source);
    else
        status = itera_fail(ITERA_ERR_FORMAT, "%s: expected a JSON object as header", source);
    json_decref(header);
    return status;
}

static int compare_names(const void *a, const void *b)
{
    const struct itera_safetensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Once all files are in: the name index, and that no two shards hold the same name. */
static enum itera_status build_index(struct itera_safetensors *st)
{
    st->by_name = itera_arena_calloc(st->arena, st->count ? st->count : 1, sizeof *st->by_name);
    if (!st->by_name)
        return out_of_memory("safetensors");
    for (size_t i = 0; i < st->count; i++)
        st->by_name[i] = &st->tensors[i];
    qsort(st->by_name, st->count, sizeof *st->by_name, compare_names);
    for (size_t i = 1; i < st->count; i++) {
        const struct itera_safetensor *a = st->by_name[i - 1], *b = st->by_name[i];
        if (strcmp(a->name, b->name) == 0)
            return itera_fail(ITERA_ERR_FORMAT, "%s: tensor " NAME ": is also in %s", b->source,
                              b->name, a->source);
    }
    return ITERA_OK;
}

static struct itera_safetensors *create(void)
{
    struct itera_safetensors *st = calloc(1, sizeof *st);
    if (st)
        st->arena = itera_arena_create(0);
    if (st && !st->arena) {
        free(st);
        st = NULL;
    }
    return st;
}

enum itera_status itera_safetensors_open_memory(const void *data, size_t size, const char *source,
                                                struct itera_safetensors **out)
{
    *out = NULL;
    struct itera_safetensors *st = create();
    if (!st)
        return out_of_memory(source);
    enum itera_status status = add_file(st, data, size, source);
    if (status == ITERA_OK)
        status = build_index(st);
    if (status)
        itera_safetensors_close(&st);
    *out = st;
    return status;
}

static enum itera_status map_file(struct itera_safetensors *st, const char *path)
{
    struct itera_map *maps = realloc(st->maps, (st->map_count + 1) * sizeof *maps);
    if (!maps)
        return out_of_memory(path);
    st->maps = maps;
    struct itera_map *map = &st->maps[st->map_count];
    enum itera_status status = itera_map_open(path, map);
    if (status)
        return status;
    st->map_count++;
    return add_file(st, map->data, map->size, path);
}

/* Shards lie beside the index under plain names: anything with a slash could lead elsewhere. */
static bool is_plain_name(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

static enum itera_status add_shard(struct itera_safetensors *st, const char *index_path,
                                   const char *shard)
{
    char path[4096];
    const char *slash = strrchr(index_path, '/');
    int length = slash ? (int)(slash - index_path + 1) : 0;
    if (length > 3000 || strlen(shard) > 1000)
        return itera_fail(ITERA_ERR_LIMIT, "%s: the path of a shard is too long", index_path);
    snprintf(path, sizeof path, "%.*s%s", length, index_path, shard);
    return map_file(st, path);
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* {"metadata": {...}, "weight_map": {"tensor": "file", ...}} */
static enum itera_status open_index(struct itera_safetensors *st, const char *path)
{
    json_t *root;
    const char **shards = NULL;
    enum itera_status status = itera_json_load(path, &root);
    if (status)
        return status;
    const json_t *weights = json_object_get(root, "weight_map");
    size_t count = json_object_size(weights), used = 0;
    if (count == 0) {
        status = itera_fail(ITERA_ERR_FORMAT,
                            "%s: expected a \"weight_map\" object that names a file per tensor (a "
                            "model is a .safetensors file, its index, or their folder)",
                            path);
        goto done;
    }
    shards = calloc(count, sizeof *shards);
    if (!shards) {
        status = out_of_memory(path);
        goto done;
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)weights, key, value)
    {
        const char *shard = json_string_value(value);
        if (!shard || !is_plain_name(shard)) {
            char found[96];
            status = itera_fail(ITERA_ERR_FORMAT,
                                "%s: tensor " NAME ": found %s, expected the name of a file beside "
                                "the index",
                                path, key, itera_json_describe(value, found, sizeof found));
            goto done;
        }
        shards[used++] = shard;
    }
    qsort(shards, used, sizeof *shards, compare_strings);
    for (size_t i = 0; i < used && status == ITERA_OK; i++)
        if (i == 0 || strcmp(shards[i - 1], shards[i]) != 0)
            status = add_shard(st, path, shards[i]);
    if (status == ITERA_OK)
        status = build_index(st);
    if (status)
        goto done;

    json_object_foreach((json_t *)weights, key, value)
    {
        const struct itera_safetensor *tensor = itera_safetensors_find(st, key);
        const char *shard = json_string_value(value);
        const char *slash = tensor ? strrchr(tensor->source, '/') : NULL;
        const char *where = slash ? slash + 1 : tensor ? tensor->source : "no shard";
        if (strcmp(where, shard) != 0) {
            status = itera_fail(ITERA_ERR_FORMAT,
                                "%s: tensor " NAME ": found in %s, expected in "
                                "%.160s",
                                path, key, where, shard);
            goto done;
        }
    }
done:
    free(shards);
    json_decref(root);
    return status;
}

static bool ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

enum itera_status itera_safetensors_open(const char *path, struct itera_safetensors **out)
{
    *out = NULL;
    char inside[4096];
    if (itera_is_directory(path)) {
        enum itera_status status =
            itera_path_join(inside, sizeof inside, path, "model.safetensors");
        if (status == ITERA_OK && !itera_file_exists(inside))
            status = itera_path_join(inside, sizeof inside, path, "model.safetensors.index.json");
        if (status)
            return status;
        if (!itera_file_exists(inside))
            return itera_fail(ITERA_ERR_IO,
                              "%s: found neither model.safetensors nor "
                              "model.safetensors.index.json in it",
                              path);
        path = inside;
    }
    struct itera_safetensors *st = create();
    if (!st)
        return out_of_memory(path);
    enum itera_status status;
    if (ends_with(path, ".json")) {
        status = open_index(st, path);
    } else {
        status = map_file(st, path);
        if (status == ITERA_OK)
            status = build_index(st);
    }
    if (status)
        itera_safetensors_close(&st);
    *out = st;
    return status;
}

void itera_safetensors_close(struct itera_safetensors **pointer)
{
    if (!pointer || !*pointer)
        return;
    struct itera_safetensors *st = *pointer;
    *pointer = NULL;
    for (size_t i = 0; i < st->map_count; i++)
        itera_map_close(&st->maps[i]);
    free(st->maps);
    free(st->tensors);
    itera_arena_destroy(&st->arena);
    free(st);
}

enum itera_status itera_safetensors_check(const struct itera_safetensors *st)
{
    enum itera_status status = ITERA_OK;
    for (size_t i = 0; i < st->map_count && !status; i++)
        status = itera_map_check(&st->maps[i]);
    return status;
}

size_t itera_safetensors_count(const struct itera_safetensors *st)
{
    return st->count;
}

const struct itera_safetensor *itera_safetensors_at(const struct itera_safetensors *st,
                                                    size_t index)
{
    return index < st->count ? &st->tensors[index] : NULL;
}

const struct itera_safetensor *itera_safetensors_find(const struct itera_safetensors *st,
                                                      const char *name)
{
    size_t low = 0, high = st->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(st->by_name[middle]->name, name);
        if (order == 0)
            return st->by_name[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

enum itera_status itera_safetensors_expect(const struct itera_safetensors *st, const char *name,
                                           int rank, const int64_t *dim,
                                           const struct itera_safetensor **out)
{
    *out = NULL;
    char expected[192], found[192];
    itera_safetensors_shape_text(rank, dim, expected, sizeof expected);
    const struct itera_safetensor *tensor = itera_safetensors_find(st, name);
    if (!tensor)
        return itera_fail(ITERA_ERR_FORMAT, "%s: tensor " NAME ": not found, expected %s",
                          st->count ? st->tensors[0].source : "safetensors", name, expected);
    bool same = tensor->rank == rank;
    for (int i = 0; same && i < rank; i++)
        same = tensor->dim[i] == dim[i];
    if (!same)
        return itera_fail(
            ITERA_ERR_SHAPE, "%s: tensor " NAME ": found shape %s, expected %s", tensor->source,
            name, itera_safetensors_shape_text(tensor->rank, tensor->dim, found, sizeof found),
            expected);
    *out = tensor;
    return ITERA_OK;
}

const char *itera_safetensors_metadata(const struct itera_safetensors *st, const char *key)
{
    for (size_t i = 0; i < st->metadata_count; i++)
        if (strcmp(st->metadata[i].key, key) == 0)
            return st->metadata[i].value;
    return NULL;
}
