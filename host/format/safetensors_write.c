#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "format/json.h"
#include "format/safetensors.h"

/* The buffer starts here, so that vector loads from a map are aligned. */
#define BUFFER_ALIGN 64

static enum itera_status entry_bytes(const struct itera_safetensors_entry *entry, const char *path,
                                     int64_t *out)
{
    if (!entry->name || itera_st_dtype_bytes(entry->dtype) == 0 || entry->rank < 0 ||
        entry->rank > ITERA_ST_MAX_RANK)
        return itera_fail(
            ITERA_ERR_ARGUMENT,
            "%s: tensor %.160s: dtype %d, rank %d: expected a known dtype and at most "
            "%d dimensions",
            path, entry->name ? entry->name : "without name", (int)entry->dtype, entry->rank,
            ITERA_ST_MAX_RANK);
    int64_t bytes = (int64_t)itera_st_dtype_bytes(entry->dtype);
    for (int i = 0; i < entry->rank; i++)
        if (entry->dim[i] < 0 || __builtin_mul_overflow(bytes, entry->dim[i], &bytes))
            return itera_fail(ITERA_ERR_ARGUMENT,
                              "%s: tensor %.160s: dimension %d is %" PRId64
                              ": negative, or the size overflows",
                              path, entry->name, i, entry->dim[i]);
    if (bytes > 0 && !entry->data)
        return itera_fail(ITERA_ERR_ARGUMENT, "%s: tensor %.160s: has no data", path, entry->name);
    *out = bytes;
    return ITERA_OK;
}

/* Places every entry in the buffer, widest element first, and writes it when there is a writer. */
static enum itera_status layout(const struct itera_safetensors_entry *entries, size_t count,
                                const char *path, int64_t *offsets, struct itera_writer *writer)
{
    int64_t next = 0;
    for (size_t width = 8; width > 0; width /= 2) {
        for (size_t i = 0; i < count; i++) {
            if (itera_st_dtype_bytes(entries[i].dtype) != width)
                continue;
            int64_t bytes = 0;
            enum itera_status status = entry_bytes(&entries[i], path, &bytes);
            if (status == ITERA_OK && writer)
                status = itera_writer_append(writer, entries[i].data, (size_t)bytes);
            if (status)
                return status;
            offsets[2 * i] = next;
            if (__builtin_add_overflow(next, bytes, &next))
                return itera_fail(ITERA_ERR_ARGUMENT, "%s: the tensors' size overflows", path);
            offsets[2 * i + 1] = next;
        }
    }
    return ITERA_OK;
}

static json_t *describe(const struct itera_safetensors_entry *entry, const int64_t *offsets)
{
    json_t *shape = json_array();
    for (int i = 0; i < entry->rank; i++)
        json_array_append_new(shape, json_integer(entry->dim[i]));
    if (json_array_size(shape) != (size_t)entry->rank) {
        json_decref(shape);
        return NULL;
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", itera_st_dtype_name(entry->dtype), "shape",
                     shape, "data_offsets", (json_int_t)offsets[0], (json_int_t)offsets[1]);
}

static enum itera_status set_new(json_t *object, const char *key, json_t *value, const char *path,
                                 const char *kind)
{
    if (json_object_get(object, key)) {
        json_decref(value);
        return itera_fail(ITERA_ERR_ARGUMENT, "%s: %s %.160s: given twice", path, kind, key);
    }
    if (json_object_set_new(object, key, value) != 0)
        return itera_fail(ITERA_ERR_ARGUMENT, "%s: %s %.160s: name or value is not UTF-8", path,
                          kind, key);
    return ITERA_OK;
}

/* The header's text, to be freed. */
static enum itera_status make_header(const char *path,
                                     const struct itera_safetensors_entry *entries,
                                     size_t entry_count,
                                     const struct itera_safetensors_pair *metadata,
                                     size_t metadata_count, const int64_t *offsets, char **out)
{
    *out = NULL;
    enum itera_status status = ITERA_OK;
    json_t *header = json_object();
    if (metadata_count) {
        json_t *pairs = json_object();
        for (size_t i = 0; i < metadata_count && status == ITERA_OK; i++) {
            json_t *value = json_string(metadata[i].value);
            status = set_new(pairs, metadata[i].key, value, path, "metadata");
        }
        if (status == ITERA_OK)
            status = set_new(header, "__metadata__", pairs, path, "metadata");
        else
            json_decref(pairs);
    }
    for (size_t i = 0; i < entry_count && status == ITERA_OK; i++) {
        if (strcmp(entries[i].name, "__metadata__") == 0)
            status =
                itera_fail(ITERA_ERR_ARGUMENT, "%s: no tensor can be called __metadata__", path);
        else
            status = set_new(header, entries[i].name, describe(&entries[i], &offsets[2 * i]), path,
                             "tensor");
    }
    if (status == ITERA_OK) {
        *out = itera_json_write(header, JSON_COMPACT);
        if (!*out)
            status = itera_fail(ITERA_ERR_MEMORY, "%s: out of memory for the header", path);
    }
    json_decref(header);
    return status;
}

static enum itera_status append_header(struct itera_writer *writer, const char *path,
                                       const char *text)
{
    static const char spaces[BUFFER_ALIGN] =
        "                                                                ";
    size_t length = strlen(text);
    size_t padding = (BUFFER_ALIGN - (8 + length) % BUFFER_ALIGN) % BUFFER_ALIGN;
    if (length + padding > ITERA_ST_MAX_HEADER)
        return itera_fail(ITERA_ERR_LIMIT,
                          "%s: names and metadata take %zu bytes, expected at most %zu", path,
                          length, ITERA_ST_MAX_HEADER);
    uint64_t total = length + padding;
    enum itera_status status = itera_writer_append(writer, &total, sizeof total);
    if (status == ITERA_OK)
        status = itera_writer_append(writer, text, length);
    if (status == ITERA_OK)
        status = itera_writer_append(writer, spaces, padding);
    return status;
}

enum itera_status itera_safetensors_write(const char *path,
                                          const struct itera_safetensors_entry *entries,
                                          size_t entry_count,
                                          const struct itera_safetensors_pair *metadata,
                                          size_t metadata_count)
{
    struct itera_writer *writer = NULL;
    char *header = NULL;
    enum itera_status status = ITERA_OK;
    int64_t *offsets = calloc(entry_count ? entry_count : 1, 2 * sizeof *offsets);
    if (!offsets)
        return itera_fail(ITERA_ERR_MEMORY, "%s: out of memory", path);

    /* Every entry is checked before the first byte is written. */
    for (size_t i = 0; i < entry_count && status == ITERA_OK; i++) {
        int64_t bytes;
        status = entry_bytes(&entries[i], path, &bytes);
    }
    if (status == ITERA_OK)
        status = layout(entries, entry_count, path, offsets, NULL);
    if (status == ITERA_OK)
        status =
            make_header(path, entries, entry_count, metadata, metadata_count, offsets, &header);
    if (status == ITERA_OK)
        status = itera_writer_open(path, &writer);
    if (status == ITERA_OK)
        status = append_header(writer, path, header);
    if (status == ITERA_OK)
        status = layout(entries, entry_count, path, offsets, writer);
    if (status == ITERA_OK)
        status = itera_writer_commit(&writer);
    itera_writer_abort(&writer);
    free(header);
    free(offsets);
    return status;
}
