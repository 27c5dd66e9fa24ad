#include "energy/sysfs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "energy/sensor.h"

/* What isspace says in C's locale. */
static bool white_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

int itera_sysfs_text(const char *path, char *out, size_t size)
{
    out[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno;
    ssize_t n;
    do {
        n = read(fd, out, size - 1);
    } while (n < 0 && errno == EINTR);
    int error = n < 0 ? errno : 0;
    close(fd);
    if (error)
        return error;
    out[n] = '\0';
    size_t length = strlen(out), skip = 0;
    while (length && white_space(out[length - 1]))
        out[--length] = '\0';
    while (white_space(out[skip]))
        skip++;
    memmove(out, out + skip, length - skip + 1);
    return 0;
}

/* The content as a number's digits, or an errno with why. */
static int number_text(const char *path, char *text, size_t size, char *why)
{
    int error = itera_sysfs_text(path, text, size);
    if (error == ENOENT)
        snprintf(why, SENSOR_WHY, "%s is not there any more", path);
    else if (error)
        snprintf(why, SENSOR_WHY, "%s: %s", path, strerror(error));
    return error;
}

static int not_a_number(const char *path, const char *text, char *why)
{
    if (*text)
        snprintf(why, SENSOR_WHY, "%s holds \"%.40s\", which is not a number in range", path, text);
    else
        snprintf(why, SENSOR_WHY, "%s is empty", path);
    return EINVAL;
}

int itera_sysfs_number(const char *path, int64_t *value, char *why)
{
    char text[64], *end = NULL;
    int error = number_text(path, text, sizeof text, why);
    if (error)
        return error;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (end == text || *end || errno)
        return not_a_number(path, text, why);
    *value = parsed;
    return 0;
}

int itera_sysfs_counter(const char *path, uint64_t *value, char *why)
{
    char text[64], *end = NULL;
    int error = number_text(path, text, sizeof text, why);
    if (error)
        return error;
    errno = 0;
    unsigned long long parsed = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno)
        return not_a_number(path, text, why);
    *value = parsed;
    return 0;
}

void itera_sysfs_path(char *out, size_t size, const char *folder, const char *name)
{
    int n = snprintf(out, size, "%s/%s", folder, name);
    if (n < 0 || (size_t)n >= size)
        out[0] = '\0';
}

bool itera_sysfs_exists(const char *folder, const char *name)
{
    char path[PATH_MAX];
    itera_sysfs_path(path, sizeof path, folder, name);
    return access(path, F_OK) == 0;
}

static int natural_order(const void *a, const void *b)
{
    return strverscmp(*(char *const *)a, *(char *const *)b);
}

int itera_sysfs_list(const char *folder, const char *prefix, char ***names)
{
    *names = NULL;
    DIR *stream = opendir(folder);
    if (!stream)
        return 0;
    int count = 0, room = 0;
    struct dirent *entry;
    while (count >= 0 && (entry = readdir(stream)) != NULL) {
        if (entry->d_name[0] == '.' || strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
            continue;
        if (count == room) {
            room = room ? 2 * room : 16;
            char **grown = realloc(*names, (size_t)room * sizeof *grown);
            if (grown)
                *names = grown;
            else
                room = count;
        }
        char *copy = count < room ? strdup(entry->d_name) : NULL;
        if (copy) {
            (*names)[count++] = copy;
        } else {
            itera_sysfs_free(*names, count);
            *names = NULL;
            count = -1;
        }
    }
    closedir(stream);
    if (count > 0)
        qsort(*names, (size_t)count, sizeof **names, natural_order);
    return count;
}

void itera_sysfs_free(char **names, int count)
{
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

void itera_sysfs_pci(const char *folder, char *out, size_t size)
{
    char link[PATH_MAX], target[PATH_MAX];
    unsigned domain, bus, device, function;
    out[0] = '\0';
    itera_sysfs_path(link, sizeof link, folder, "device");
    ssize_t n = readlink(link, target, sizeof target - 1);
    if (n < 0)
        return;
    target[n] = '\0';
    const char *slash = strrchr(target, '/');
    if (sscanf(slash ? slash + 1 : target, "%x:%x:%x.%x", &domain, &bus, &device, &function) == 4)
        snprintf(out, size, "%04x:%02x:%02x.%x", domain, bus, device, function);
}
