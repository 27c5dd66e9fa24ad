/* Small files of sysfs. They are opened for each reading: a file that was open before its device
 * went away would go on to be read in some cases, and the cost is microseconds. */
#ifndef ITERA_ENERGY_SYSFS_H
#define ITERA_ENERGY_SYSFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The content without white space at either end. Returns 0 or an errno. */
int itera_sysfs_text(const char *path, char *out, size_t size);

/* A decimal integer, the whole content. Returns 0 or an errno (EINVAL: not a number), with a
 * sentence in why (SENSOR_WHY bytes). */
int itera_sysfs_number(const char *path, int64_t *value, char *why);
int itera_sysfs_counter(const char *path, uint64_t *value, char *why);

/* "a/b" into out; an empty string when it does not fit, which no file has as its name. */
void itera_sysfs_path(char *out, size_t size, const char *folder, const char *name);
bool itera_sysfs_exists(const char *folder, const char *name);

/* The names in a folder that begin with prefix, in natural order (hwmon2 before hwmon10); *names is
 * to be freed with itera_sysfs_free. Returns how many: 0 when there is no such folder, -1 when
 * memory ran out. */
int itera_sysfs_list(const char *folder, const char *prefix, char ***names);
void itera_sysfs_free(char **names, int count);

/* The PCI address ("0000:65:00.0") of the device that folder/device points to; "" for others. */
void itera_sysfs_pci(const char *folder, char *out, size_t size);

#endif
