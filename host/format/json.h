/* A small checked layer over jansson: parsing with clear errors, and typed getters with defaults
 * and ranges over one object. Duplicate keys, NaN, infinities and NUL in strings are errors. */
#ifndef ITERA_FORMAT_JSON_H
#define ITERA_FORMAT_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "itera/status.h"

/* json_loadb and json_dumps in C's locale: jansson writes and reads fractions with the program's. All
 * JSON of the library goes through these two. */
json_t *itera_json_read(const char *text, size_t size, size_t flags, json_error_t *error);
char *itera_json_write(const json_t *value, size_t flags);

/* ITERA_ERR_LIMIT for a text of more values than a gigabyte of memory has room for: a file of brackets
 * becomes a hundred times larger when it is read. */
enum itera_status itera_json_check_size(const char *text, size_t size, const char *source);

/* Parses size bytes of UTF-8 (need not end with a NUL). source names the text in messages:
 * "file: line 3, column 7: what". The caller drops *out with json_decref.
 * Errors: ITERA_ERR_FORMAT; ITERA_ERR_LIMIT, as itera_json_check_size; ITERA_ERR_MEMORY. */
enum itera_status itera_json_parse(const char *text, size_t size, const char *source, json_t **out);

/* The same for what Python's json module writes: Infinity, -Infinity and NaN become strings, so that
 * they are no error under keys that nobody reads, and a clear one where a number is expected. */
enum itera_status itera_json_parse_python(const char *text, size_t size, const char *source,
                                          json_t **out);

/* The same as itera_json_parse from a file of at most 512 MiB. */
enum itera_status itera_json_load(const char *path, json_t **out);

/* What a value is, for messages: `"text"`, `12`, `an array`; long strings are cut. Returns out. */
const char *itera_json_describe(const json_t *value, char *out, size_t size);

#define ITERA_JSON_MAX_KEYS 128

/* Reads an object key by key. The first error is reported once and kept in status; from then on the
 * getters return their defaults, so that a caller may read everything and look at status at the
 * end. A null value counts as absent, as Hugging Face writes it. keys must be string constants or
 * outlive the reader. */
struct itera_json_reader {
    const json_t *object; /* borrowed */
    const char *source;   /* borrowed */
    enum itera_status status;
    /* Set after itera_json_begin for files that only we write: whatever is asked for must be there,
     * and null is an error, too, unless itera_json_is_null was asked first. */
    bool complete;
    int used_count;
    const char *used[ITERA_JSON_MAX_KEYS]; /* keys that were asked for */
};

/* Fails when value is not an object. */
enum itera_status itera_json_begin(struct itera_json_reader *reader, const json_t *value,
                                   const char *source);

bool itera_json_has(struct itera_json_reader *reader, const char *key);
/* Whether the key is there, and null. */
bool itera_json_is_null(struct itera_json_reader *reader, const char *key);

/* An integer in [min, max]; 64.0 is taken as 64. */
int64_t itera_json_int(struct itera_json_reader *reader, const char *key, int64_t absent,
                       int64_t min, int64_t max);
/* The same; a missing key is an error. Returns min after an error. */
int64_t itera_json_need_int(struct itera_json_reader *reader, const char *key, int64_t min,
                            int64_t max);
double itera_json_real(struct itera_json_reader *reader, const char *key, double absent, double min,
                       double max);
bool itera_json_bool(struct itera_json_reader *reader, const char *key, bool absent);
/* The string belongs to the JSON value. */
const char *itera_json_string(struct itera_json_reader *reader, const char *key,
                              const char *absent);
/* A borrowed array or object, or NULL when the key is absent (or of another type: an error). */
const json_t *itera_json_array(struct itera_json_reader *reader, const char *key);
const json_t *itera_json_object(struct itera_json_reader *reader, const char *key);
/* The value itself, whatever its type; NULL when absent. */
const json_t *itera_json_value(struct itera_json_reader *reader, const char *key);

/* Text that need not be UTF-8, such as a path, losslessly: a string where it is UTF-8, otherwise
 * {"percent": "caf%E9.txt"}. NULL is null. Returns NULL without memory. */
json_t *itera_json_from_text(const char *text);
/* The same read back, from the arena; NULL where it is absent, null, or after an error. */
const char *itera_json_text(struct itera_json_reader *reader, const char *key,
                            struct itera_arena *arena);
/* The same of a value alone; NULL when it is no such text or there is no memory. */
const char *itera_json_to_text(const json_t *value, struct itera_arena *arena);

/* Reports the first error of the reader as "source: key "key": found X, expected <expected>". */
enum itera_status itera_json_fail(struct itera_json_reader *reader, const char *key,
                                  const char *expected);

/* Logs one warning that lists the keys nobody asked for; skipped are those in known (NULL or ended
 * with NULL). Returns how many there were. */
int itera_json_warn_unknown(const struct itera_json_reader *reader, const char *const *known);

#endif
