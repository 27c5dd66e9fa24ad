#include "cli/model_file.h"

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "itera/trainer.h"

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), n = strlen(end);
    return length > n && !strcmp(text + length - n, end);
}

/* The bytes of all weights in a directory. */
static int64_t folder_bytes(const char *path)
{
    DIR *folder = opendir(path);
    int64_t bytes = 0;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char file[PATH_MAX];
        struct stat info;
        const int length = snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        if (!ends_with(entry->d_name, ".safetensors") || length < 0 ||
            (size_t)length >= sizeof file || stat(file, &info) || !S_ISREG(info.st_mode))
            continue;
        bytes += info.st_size;
    }
    if (folder)
        closedir(folder);
    return bytes;
}

static const char *folder_of(const char *path, char folder[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    snprintf(folder, PATH_MAX, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    return folder;
}

int64_t model_file_bytes(const char *path)
{
    struct stat info;
    if (stat(path, &info))
        return 0;
    if (S_ISDIR(info.st_mode))
        return folder_bytes(path);
    if (!ends_with(path, ".json"))
        return info.st_size;
    /* An index: its shards lie beside it. */
    char folder[PATH_MAX];
    return folder_bytes(folder_of(path, folder));
}

char *model_own_text(const char *path)
{
    struct stat info;
    char folder[PATH_MAX], *source;
    const bool directory = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    itera_trainer_peek_text(directory ? path : folder_of(path, folder), &source);
    return source;
}
