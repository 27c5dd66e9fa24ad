/* Result files of `itera bench` and of the scripts that measure its peers: docs/bench.schema.json.
 * They come from anywhere and are checked before anything looks at them. */
#ifndef ITERA_TOOLS_RESULTS_H
#define ITERA_TOOLS_RESULTS_H

#include <jansson.h>
#include <stdbool.h>

/* A result file, or NULL after printing what is wrong with it, by file and key. Files from before
 * the key "schema" get it. The caller owns it. */
json_t *results_load(const char *file);

/* The JSON of a file that itera wrote, whatever its schema: as above. */
json_t *results_json(const char *file);
/* Whether root is what docs/bench.schema.json says; prints what is not, naming it `name`. Control
 * characters in its strings, which would reach a terminal, become spaces. Returns EXIT_OK or
 * EXIT_FAILED. */
int results_check(json_t *root, const char *name);

/* A number of an object by path ("latency_ms.p50", "read.0.bytes"); NaN where it is null or absent.
 * Only keys of docs/bench.schema.json, or of the JSON of itera ledger, may be asked for. */
double results_number(const json_t *object, const char *path);
/* A string by path; "" where it is null or absent. */
const char *results_text(const json_t *object, const char *path);

/* ---- rows ------------------------------------------------------------------------------------ */

/* One of "runs". Strings belong to the JSON; numbers that are not there are NaN. */
struct result_row {
    const json_t *json;
    const char *device, *dtype, *phase, *op, *case_name;
    int threads;
    double p50, p95, low, high; /* ms; low and high: see interval */
    double tokens_per_second;
    /* Whether low and high bound the median with confidence. Rows without such an interval, and
     * unstable ones, have best and p95 in their place, which is wider; false: neither. */
    bool has_interval, unstable;
    char key[512]; /* what rows of different files have in common: op, phase, case, dtype, kind of
                      device, threads; several equal ones of a file are counted */
};

struct result {
    const json_t *root;
    char label[96];
    bool is_peer;
    int n;
    struct result_row *rows;
};

/* The rows of n checked results, in an array that the caller frees with result_free; NULL: no
 * memory (printed). names: file names, whose telling part becomes the label; or NULL, for labels
 * from version and date. */
struct result *result_rows(const json_t *const *results, const char *const *names, int n);
void result_free(struct result **results, int n); /* NULL-safe, nulls *results */

/* Rows side by side: row(i, file) is NULL where that file has none like it. Those of the first file
 * come first, in its order. */
struct alignment {
    int n;
    const struct result_row **row; /* n * files */
};
/* false: no memory (printed). Freed with free(alignment->row). */
bool result_align(const struct result *results, int n, struct alignment *alignment);

/* device_label() of a row, and of any object with "device" and "threads". */
const char *result_device(const struct result_row *row, char *out, size_t size);
const char *results_device(const json_t *object, char *out, size_t size);

#endif
