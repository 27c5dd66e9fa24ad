#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "tests/support/test.h"

char root[64];

int make_root(void)
{
    snprintf(root, sizeof root, "/tmp/itera-%.40s-XXXXXX", program_invocation_short_name);
    return mkdtemp(root) ? 0 : -1;
}

int remove_root(void)
{
    return itera_remove_tree(root);
}

char *in_root(const char *format, ...)
{
    enum { PATHS = 32 };
    static char paths[PATHS][256];
    static int next;
    char *path = paths[next++ % PATHS];
    const int used = snprintf(path, sizeof paths[0], "%s/", root);
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(path + used, sizeof paths[0] - (size_t)used, format, args);
    va_end(args);
    assert_true(length > 0 && (size_t)(used + length) < sizeof paths[0]);
    return path;
}

void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

char *get(const char *path)
{
    struct itera_map map;
    assert_int_equal(itera_map_open(path, &map), ITERA_OK);
    char *text = calloc(1, map.size + 1);
    assert_non_null(text);
    memcpy(text, map.data, map.size);
    itera_map_close(&map);
    return text;
}

void copy(const char *to, const char *from)
{
    struct itera_map map;
    struct itera_writer *writer;
    assert_int_equal(itera_map_open(from, &map), ITERA_OK);
    assert_int_equal(itera_writer_open(to, &writer), ITERA_OK);
    assert_int_equal(itera_writer_append(writer, map.data, map.size), ITERA_OK);
    assert_int_equal(itera_writer_commit(&writer), ITERA_OK);
    itera_map_close(&map);
}
