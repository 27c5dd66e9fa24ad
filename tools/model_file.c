#include "model_file.h"

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "command.h"
#include "output.h"

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), n = strlen(end);
    return length > n && !strcmp(text + length - n, end);
}

static bool is_file_of(const struct stat *a, const struct stat *b)
{
    return b && a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* The bytes of all weights in a directory. Sets *same where one of them is the file of `other`. */
static int64_t visit_folder(const char *path, const struct stat *other, bool *same)
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
        *same |= is_file_of(&info, other);
        bytes += info.st_size;
    }
    if (folder)
        closedir(folder);
    return bytes;
}

static int64_t visit(const char *path, const struct stat *other, bool *same)
{
    struct stat info;
    if (stat(path, &info))
        return 0;
    if (S_ISDIR(info.st_mode))
        return visit_folder(path, other, same);
    *same |= is_file_of(&info, other);
    if (!ends_with(path, ".json"))
        return info.st_size;
    /* An index: its shards lie beside it. */
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1,
             slash ? path : ".");
    return visit_folder(folder, other, same);
}

int64_t model_file_bytes(const char *path)
{
    bool same = false;
    return visit(path, NULL, &same);
}

int model_file_check_out(const char *out, const char *model, const char *made)
{
    struct stat info;
    bool same = false;
    if (output_file_check(out, "a model") != EXIT_OK)
        return EXIT_FAILED;
    if (!stat(out, &info))
        visit(model, &info, &same);
    if (!same)
        return EXIT_OK;
    command_error("%s: is the model itself; write the %s one to another file", out, made);
    return EXIT_FAILED;
}
