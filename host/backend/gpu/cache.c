#include "backend/gpu/cache.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/environment.h"
#include "core/file.h"
#include "core/log.h"
#include "core/private.h"
#include "core/siphash.h"

/* What a cache file begins with; then the identity, then the data. The checksum is of the file's name,
 * the sizes, the identity and the data, with the key of the user's cache folder: drivers trust what
 * they are given, so that nothing may reach them which another made, moved or cut. */
struct header {
    char magic[16];
    uint64_t identity_bytes, data_bytes;
    uint8_t checksum[ITERA_SIPHASH_BYTES];
};
static const char magic[16] = "itera-cache 2\n";

/* Pipeline caches of some drivers have tens of megabytes. */
#define MAX_FILE ((size_t)1 << 30)

static void checksum(const uint8_t *key, const char *name, const struct header *h,
                     const void *identity, const void *data, uint8_t *out)
{
    struct itera_siphash hash;
    itera_siphash_begin(&hash, key);
    itera_siphash_add(&hash, name, strlen(name) + 1);
    itera_siphash_add(&hash, h, offsetof(struct header, checksum));
    itera_siphash_add(&hash, identity, (size_t)h->identity_bytes);
    itera_siphash_add(&hash, data, (size_t)h->data_bytes);
    itera_siphash_end(&hash, out);
}

/* Why a file is not usable, NULL when it is. Another identity is no fault of the file. */
static const char *defect(const char *name, const uint8_t *key, const uint8_t *file, size_t size)
{
    struct header h;
    if (size < sizeof h)
        return "too short";
    memcpy(&h, file, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic) != 0)
        return "not a cache file of this version";
    uint64_t rest = size - sizeof h;
    if (h.identity_bytes > rest || h.data_bytes != rest - h.identity_bytes)
        return "cut short";
    uint8_t expected[ITERA_SIPHASH_BYTES];
    const uint8_t *identity = file + sizeof h;
    checksum(key, name, &h, identity, identity + h.identity_bytes, expected);
    if (memcmp(expected, h.checksum, sizeof expected) != 0)
        return "damaged, or was made elsewhere";
    return NULL;
}

enum itera_status itera_gpu_cache_read(const char *name, const char *identity, void **data,
                                       size_t *bytes)
{
    char path[1024], folder[768];
    uint8_t key[ITERA_PRIVATE_KEY];
    void *file;
    size_t size;
    *data = NULL;
    *bytes = 0;
    if (!itera_environment_cache_dir(folder, sizeof folder) ||
        itera_path_join(path, sizeof path, folder, name))
        return ITERA_OK;
    struct itera_attempt attempt;
    itera_attempt_begin(&attempt);
    enum itera_status status = itera_private_read(path, MAX_FILE, &file, &size);
    if (!status && file)
        status = itera_private_key(folder, key);
    itera_attempt_end(&attempt);
    if (status) {
        itera_log(ITERA_LOG_WARNING, "cache: %s; going on without", attempt.error);
        free(file);
        return ITERA_OK;
    }
    if (!file)
        return ITERA_OK;
    const char *why = defect(name, key, file, size);
    if (why) {
        itera_log(ITERA_LOG_WARNING, "cache: %s is %s; it will be made again", path, why);
        free(file);
        return ITERA_OK;
    }
    struct header h;
    memcpy(&h, file, sizeof h);
    const uint8_t *at = (const uint8_t *)file + sizeof h;
    if (h.identity_bytes == strlen(identity) && !memcmp(at, identity, (size_t)h.identity_bytes)) {
        *bytes = (size_t)h.data_bytes;
        memmove(file, at + h.identity_bytes, *bytes);
        *data = file;
    } else {
        free(file);
    }
    return ITERA_OK;
}

void itera_gpu_cache_write(const char *name, const char *identity, const void *data, size_t bytes)
{
    char path[1024], folder[768];
    uint8_t key[ITERA_PRIVATE_KEY];
    struct header h = {.identity_bytes = strlen(identity), .data_bytes = bytes};
    struct itera_writer *writer = NULL;
    if (!itera_environment_cache_dir(folder, sizeof folder) ||
        itera_path_join(path, sizeof path, folder, name) ||
        bytes > MAX_FILE - sizeof h - (size_t)h.identity_bytes)
        return;
    memcpy(h.magic, magic, sizeof magic);
    struct itera_attempt attempt;
    itera_attempt_begin(&attempt);
    enum itera_status status = itera_make_directory(folder);
    if (!status)
        status = itera_private_key(folder, key);
    if (!status) {
        checksum(key, name, &h, identity, data, h.checksum);
        status = itera_writer_open_private(path, &writer);
    }
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
    itera_attempt_end(&attempt);
    if (status)
        itera_log(ITERA_LOG_DEBUG, "cache: %s", attempt.error);
}
