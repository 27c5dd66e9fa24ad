/* The cache on disk, and the faults that tests ask for. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/gpu.h"
#include "core/environment.h"
#include "core/file.h"
#include "core/log.h"

/* What a cache file begins with; then the identity, then the data. */
struct header {
    char magic[16];
    uint64_t identity_bytes, data_bytes, checksum;
};
static const char magic[16] = "itera-cache 1\n";

uint64_t itera_gpu_hash(uint64_t seed, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    uint64_t hash = seed ? seed : 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ at[i]) * 0x100000001b3u;
    return hash;
}

static uint64_t checksum(const void *identity, size_t identity_bytes, const void *data,
                         size_t data_bytes)
{
    return itera_gpu_hash(itera_gpu_hash(0, identity, identity_bytes), data, data_bytes);
}

static bool cache_path(char *out, size_t size, const char *name)
{
    char folder[768];
    return itera_environment_cache_dir(folder, sizeof folder) &&
           itera_path_join(out, size, folder, name) == ITERA_OK;
}

/* Why a file is not usable, NULL when it is. Another identity is no fault of the file. */
static const char *defect(const struct itera_map *map)
{
    const struct header *h = (const struct header *)map->data;
    if (map->size < sizeof *h)
        return "too short";
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        return "not a cache file of this version";
    uint64_t rest = map->size - sizeof *h;
    if (h->identity_bytes > rest || h->data_bytes != rest - h->identity_bytes)
        return "cut short";
    const uint8_t *identity = map->data + sizeof *h;
    if (checksum(identity, (size_t)h->identity_bytes, identity + h->identity_bytes,
                 (size_t)h->data_bytes) != h->checksum)
        return "damaged";
    return NULL;
}

enum itera_status itera_gpu_cache_read(const char *name, const char *identity, void **data,
                                       size_t *bytes)
{
    char path[1024];
    *data = NULL;
    *bytes = 0;
    if (!cache_path(path, sizeof path, name) || !itera_file_exists(path))
        return ITERA_OK;
    struct itera_map map;
    itera_log_hush(1);
    enum itera_status status = itera_map_open(path, &map);
    itera_log_hush(-1);
    if (status) {
        itera_log(ITERA_LOG_WARNING, "cache: %s; going on without", itera_last_error());
        return ITERA_OK;
    }
    const char *why = defect(&map);
    const struct header *h = (const struct header *)map.data;
    if (why) {
        itera_log(ITERA_LOG_WARNING, "cache: %s is %s; it will be made again", path, why);
    } else if (h->identity_bytes == strlen(identity) &&
               !memcmp(map.data + sizeof *h, identity, (size_t)h->identity_bytes)) {
        *data = malloc((size_t)h->data_bytes + 1);
        if (*data) {
            *bytes = (size_t)h->data_bytes;
            memcpy(*data, map.data + sizeof *h + h->identity_bytes, *bytes);
        } else {
            status = itera_fail(ITERA_ERR_MEMORY, "no memory to read %s", path);
        }
    }
    itera_map_close(&map);
    return status;
}

void itera_gpu_cache_write(const char *name, const char *identity, const void *data, size_t bytes)
{
    char path[1024], folder[768];
    struct header h = {.identity_bytes = strlen(identity), .data_bytes = bytes};
    struct itera_writer *writer = NULL;
    if (!itera_environment_cache_dir(folder, sizeof folder) || !cache_path(path, sizeof path, name))
        return;
    memcpy(h.magic, magic, sizeof magic);
    h.checksum = checksum(identity, (size_t)h.identity_bytes, data, bytes);
    itera_log_hush(1);
    enum itera_status status = itera_make_directory(folder);
    if (!status)
        status = itera_writer_open(path, &writer);
    if (!status)
        status = itera_writer_append(writer, &h, sizeof h);
    if (!status)
        status = itera_writer_append(writer, identity, (size_t)h.identity_bytes);
    if (!status)
        status = itera_writer_append(writer, data, bytes);
    if (!status)
        status = itera_writer_commit(&writer);
    if (writer)
        itera_writer_abort(&writer);
    itera_log_hush(-1);
    if (status)
        itera_log(ITERA_LOG_DEBUG, "cache: %s", itera_last_error());
}

bool itera_gpu_fault(enum itera_gpu_fault kind)
{
    static const char *const names[ITERA_GPU_FAULTS] = {
        "memory", "lost", "build", "list", "staging", "addresses", "barriers", "plain"};
    static int seen[ITERA_GPU_FAULTS]; /* tests only: devices are opened by one thread there */
    const char *at = itera_environment_fault();
    if (!at)
        return false;
    size_t length = strlen(names[kind]);
    for (; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, names[kind], length) && at[length] == ':')
            return ++seen[kind] >= atoi(at + length + 1);
    return false;
}
