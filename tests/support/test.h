/* cmocka with the headers that it needs, and what several tests share. */
#ifndef ITERA_TESTS_TEST_H
#define ITERA_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* ---- files.c: a folder of the program's own -------------------------------------------------- */

extern char root[64];
/* Made under /tmp, and removed with all that is in it. They return as cmocka's fixtures do. */
int make_root(void);
int remove_root(void);
/* The path of a name in it; the last 32 of them are good. */
__attribute__((format(printf, 1, 2))) char *in_root(const char *format, ...);

void put(const char *path, const char *text);
/* All of a text file; to be freed. */
char *get(const char *path);
void copy(const char *to, const char *from);

/* ---- messages.c ------------------------------------------------------------------------------ */

/* What the library logged since log_begin or log_clear: lines of "<level> message", the levels as
 * numbers. */
extern char logged[16384];
void log_begin(void);
void log_clear(void);
int logged_times(const char *text);

/* Fails unless the last error says all of these words. */
#define assert_says(...)                                                                           \
    assert_says_at(__FILE__, __LINE__, (const char *const[]){__VA_ARGS__, NULL})
void assert_says_at(const char *file, int line, const char *const *words);

/* ---- models.c -------------------------------------------------------------------------------- */

struct itera_device;
struct itera_model;
struct itera_dataset;
struct itera_device *open_cpu(int threads);
struct itera_model *make_model(struct itera_device *device, const char *config, int32_t vocab,
                               uint64_t seed);
/* A source as bytes. */
struct itera_dataset *bytes_of_source(const char *source);

#endif
