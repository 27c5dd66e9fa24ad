/* Results: aligned tables and JSON. */
#ifndef ITERA_TOOLS_OUTPUT_H
#define ITERA_TOOLS_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A table, filled cell by cell, row by row, and printed to stdout once its widths are known. Cells
 * are UTF-8. When memory runs out it says so when printed. */
struct table;
/* titles: `columns` of them; align: one 'l' or 'r' per column. */
struct table *table_create(int columns, const char *const *titles, const char *align);
__attribute__((format(printf, 2, 3))) void table_cell(struct table *table, const char *format, ...);
void table_print(const struct table *table);
void table_destroy(struct table **table); /* NULL-safe, nulls *table */

/* Writes root, indented and with a newline, to `file`: by way of a temporary file beside it,
 * renamed into place, so that a reader never sees half of it; NULL or "-" is stdout. Steals
 * nothing. A root of NULL, which could not be made, is an error. Returns EXIT_OK, or EXIT_FAILED
 * after printing why. */
int output_json(const json_t *root, const char *file);
/* Whether --json was given, and its result goes to stdout: nothing else does then. */
struct option_optional;
bool output_on_stdout(const struct option_optional *json);
/* Whether output_json(root, file) has a place to write to, before hours of work end in a path that
 * never existed. Returns EXIT_OK, or EXIT_FAILED after printing why. */
int output_json_check(const char *file);
/* The same for another file that a command is to write, atomically; what: "a model". */
int output_file_check(const char *file, const char *what);
/* The same, and that a model which is there already is not lost without being asked (`--force`). */
int output_model_check(const char *file, bool force);
/* Writes a text in the same way. */
int output_text(const char *file, const char *text);
/* A JSON number, or null for NaN and infinities, which JSON lacks. */
json_t *output_number(double value);
/* A JSON string of text from outside: without the half letter that cutting may have left at its
 * end, and with '?' for its other bytes beyond ASCII where it is no UTF-8. NULL is null. */
json_t *output_string(const char *text);
/* The same of a whole path, of which no end is cut. NULL is null. */
json_t *output_path(const char *path);

/* 1234567 as "1,234,567", and bytes as "1.18 MiB", into a caller's buffer; they return it. */
const char *output_grouped(int64_t n, char *out, size_t size);
const char *output_size(int64_t bytes, char *out, size_t size);

/* "Presets: micro, tiny, ...", in lines of less than 80 columns, for the help texts. */
const char *output_presets(void);

/* Whether what is printed still arrives: false once the reader of stdout went away or the disk is
 * full. A command that streams may stop then. */
bool output_arrives(void);

/* Flushes stdout; the exit code: `code`, or EXIT_FAILED with a message when output was lost. A
 * reader that went away (`| head`) is no failure. */
int output_finish(int code);

#endif
