#include "backend/gpu/tuning_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/hash.h"
#include "core/environment.h"
#include "core/file.h"
#include "core/log.h"
#include "core/private.h"
#include "format/json.h"

#define MAX_FILE ((size_t)16 << 20)

struct itera_gpu_tuning {
    char *identity;
    char path[1024]; /* "" when there is no cache folder */
    json_t *choices; /* key -> {"choice": name, "seconds": s} */
    bool changed;
    bool cleared; /* what the file has does not count */
};

/* The choices in the file, or an empty object. */
static json_t *load(const struct itera_gpu_tuning *tuning)
{
    json_t *root = NULL, *choices = NULL;
    if (tuning->path[0]) {
        void *text = NULL;
        size_t bytes = 0;
        struct itera_attempt attempt;
        itera_attempt_begin(&attempt);
        enum itera_status status = itera_private_read(tuning->path, MAX_FILE, &text, &bytes);
        if (!status && text)
            status = itera_json_parse(text, bytes, tuning->path, &root);
        itera_attempt_end(&attempt);
        free(text);
        if (status)
            itera_log(ITERA_LOG_WARNING, "tuning data: %s; measuring again", attempt.error);
        const char *identity = json_string_value(json_object_get(root, "identity"));
        if (identity && !strcmp(identity, tuning->identity))
            choices = json_incref(json_object_get(root, "choices"));
        json_decref(root);
    }
    if (!json_is_object(choices)) {
        json_decref(choices);
        choices = json_object();
    }
    return choices;
}

enum itera_status itera_gpu_tuning_open(const char *identity, struct itera_gpu_tuning **out)
{
    *out = NULL;
    struct itera_gpu_tuning *tuning = calloc(1, sizeof *tuning);
    if (tuning)
        tuning->identity = strdup(identity);
    if (!tuning || !tuning->identity) {
        free(tuning);
        return itera_fail(ITERA_ERR_MEMORY, "no memory for tuning data");
    }
    char folder[768], name[64];
    snprintf(name, sizeof name, "tuning-%016llx.json",
             (unsigned long long)itera_gpu_hash(0, identity, strlen(identity)));
    if (!itera_environment_cache_dir(folder, sizeof folder) ||
        itera_path_join(tuning->path, sizeof tuning->path, folder, name))
        tuning->path[0] = '\0';
    tuning->choices = load(tuning);
    *out = tuning;
    return ITERA_OK;
}

void itera_gpu_tuning_close(struct itera_gpu_tuning **tuning)
{
    if (!*tuning)
        return;
    json_decref((*tuning)->choices);
    free((*tuning)->identity);
    free(*tuning);
    *tuning = NULL;
}

const char *itera_gpu_tuning_find(const struct itera_gpu_tuning *tuning, const char *key)
{
    return json_string_value(json_object_get(json_object_get(tuning->choices, key), "choice"));
}

enum itera_status itera_gpu_tuning_set(struct itera_gpu_tuning *tuning, const char *key,
                                       const char *name, double seconds)
{
    json_t *entry = json_pack("{s:s, s:f}", "choice", name, "seconds", seconds);
    if (!entry || json_object_set_new(tuning->choices, key, entry))
        return itera_fail(ITERA_ERR_MEMORY, "no memory for tuning data");
    tuning->changed = true;
    return ITERA_OK;
}

void itera_gpu_tuning_clear(struct itera_gpu_tuning *tuning)
{
    json_object_clear(tuning->choices);
    tuning->cleared = tuning->changed = true;
}

enum itera_status itera_gpu_tuning_save(struct itera_gpu_tuning *tuning)
{
    char folder[768];
    if (!tuning->changed || !tuning->path[0])
        return ITERA_OK;
    /* What another process measured meanwhile stays; what both measured is ours. */
    json_t *merged = tuning->cleared ? json_object() : load(tuning);
    json_object_update(merged, tuning->choices);
    json_decref(tuning->choices);
    tuning->choices = merged;
    json_t *root =
        json_pack("{s:s, s:O}", "identity", tuning->identity, "choices", tuning->choices);
    char *text = root ? itera_json_write(root, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    json_decref(root);
    struct itera_writer *writer = NULL;
    enum itera_status status = text && itera_environment_cache_dir(folder, sizeof folder)
                                   ? itera_make_directory(folder)
                                   : itera_fail(ITERA_ERR_MEMORY, "no memory for tuning data");
    if (!status)
        status = itera_writer_open_private(tuning->path, &writer);
    if (!status)
        status = itera_writer_append(writer, text, strlen(text));
    if (!status)
        status = itera_writer_commit(&writer);
    if (writer)
        itera_writer_abort(&writer);
    free(text);
    tuning->changed = status != ITERA_OK;
    tuning->cleared &= status != ITERA_OK;
    return status;
}
