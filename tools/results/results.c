#include "results/results.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/command.h"
#include "cli/device_request.h"
#include "results/schema.h"

extern const char results_schema[]; /* docs/bench.schema.json: cmake/report.cmake */

enum { FILE_LIMIT = 64 << 20 };

/* Spaces in place of C0 and C1 control characters and of what reorders text (U+202A to U+202E,
 * U+2066 to U+2069): names of models and devices end up on terminals. */
static void clean_text(json_t *string)
{
    unsigned char *text = (unsigned char *)strdup(json_string_value(string));
    bool dirty = false;
    for (unsigned char *c = text; c && *c; c++) {
        int length = 0;
        if (*c < 0x20 || *c == 0x7f)
            length = 1;
        else if (*c == 0xc2 && c[1] < 0xa0)
            length = 2;
        else if (*c == 0xe2 && ((c[1] == 0x80 && c[2] >= 0xaa && c[2] <= 0xae) ||
                                (c[1] == 0x81 && c[2] >= 0xa6 && c[2] <= 0xa9)))
            length = 3;
        memset(c, ' ', (size_t)length);
        dirty = dirty || length;
    }
    if (dirty)
        json_string_set_nocheck(string, (const char *)text);
    free(text);
}

/* Below a checked root, so no deeper than jansson's parser lets anything be. */
static void clean(json_t *value)
{
    const char *key;
    json_t *member;
    size_t i;
    if (json_is_string(value))
        clean_text(value);
    json_object_foreach(value, key, member) clean(member);
    json_array_foreach(value, i, member) clean(member);
}

int results_check(json_t *root, const char *name)
{
    char message[1024];
    json_t *schema = json_loads(results_schema, 0, NULL);
    bool good = false;
    if (!schema) {
        snprintf(message, sizeof message, "no memory to check it");
    } else {
        if (json_is_object(root) && !json_object_get(root, "schema"))
            json_object_set_new(root, "schema", json_string("itera-bench/1"));
        good = schema_check(schema, root, message, sizeof message);
    }
    json_decref(schema);
    if (good) {
        clean(root);
        return EXIT_OK;
    }
    command_error("%s: no result of itera bench: %s", name, message);
    return EXIT_FAILED;
}

json_t *results_json(const char *file)
{
    struct stat info;
    if (!stat(file, &info) && info.st_size > FILE_LIMIT) {
        command_error("%s: %lld bytes are too many for a result file; the most is %d", file,
                      (long long)info.st_size, FILE_LIMIT);
        return NULL;
    }
    if (!stat(file, &info) && S_ISDIR(info.st_mode)) {
        command_error("%s: is a directory, not a result of itera bench", file);
        return NULL;
    }
    json_error_t error;
    json_t *root = json_load_file(file, JSON_REJECT_DUPLICATES, &error);
    if (!root && error.line > 0)
        command_error("%s: line %d is not JSON: %s", file, error.line, error.text);
    else if (!root)
        command_error("%s: cannot read results: %s", file, error.text);
    return root;
}

json_t *results_load(const char *file)
{
    json_t *root = results_json(file);
    if (root && results_check(root, file) != EXIT_OK) {
        json_decref(root);
        root = NULL;
    }
    return root;
}

/* For assertions: whether results have such a key, or ledgers, wherever in them. One that is
 * misspelt would look like one that is absent. */
__attribute__((unused)) static bool is_key(const char *key)
{
    static const char ledger[] = "\"model\": \"bytes_on_disk\": \"parameters\": "
                                 "\"bits_per_byte\": \"word_perplexity\":";
    char quoted[80];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    return isdigit((unsigned char)*key) || strstr(results_schema, quoted) || strstr(ledger, quoted);
}

static const json_t *find(const json_t *object, const char *path)
{
    char key[64];
    for (;;) {
        size_t length = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)length, path);
        assert(is_key(key));
        object = json_is_array(object) ? json_array_get(object, strtoul(key, NULL, 10))
                                       : json_object_get(object, key);
        if (!path[length])
            return object;
        path += length + 1;
    }
}

double results_number(const json_t *object, const char *path)
{
    const json_t *value = find(object, path);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

const char *results_text(const json_t *object, const char *path)
{
    const char *text = json_string_value(find(object, path));
    return text ? text : "";
}

/* ---- rows ------------------------------------------------------------------------------------ */

const char *result_device(const struct result_row *row, char *out, size_t size)
{
    return device_label(row->device, row->threads, out, size);
}

const char *results_device(const json_t *object, char *out, size_t size)
{
    const double threads = results_number(object, "threads"); /* NaN where there is none */
    const int count = threads >= 1 && threads < 1e6 ? (int)threads : 0;
    return device_label(results_text(object, "device"), count, out, size);
}

static void set_interval(struct result_row *row)
{
    double best = results_number(row->json, "latency_ms.best");
    row->low = results_number(row->json, "latency_ms.low");
    row->high = results_number(row->json, "latency_ms.high");
    row->unstable = json_is_false(json_object_get(row->json, "stable"));
    /* An interval of no width is that of a single measurement, which bounds nothing. */
    row->has_interval =
        row->low <= row->p50 && row->high >= row->p50 && row->low > 0 && row->low < row->high;
    if (row->has_interval && !row->unstable)
        return;
    if (best > 0 && best <= row->p50 && row->p95 >= row->p50) {
        row->low = row->has_interval ? fmin(row->low, best) : best;
        row->high = row->has_interval ? fmax(row->high, row->p95) : row->p95;
        row->has_interval = true;
    } else if (!row->has_interval) {
        row->low = row->high = (double)NAN;
    }
}

static void read_row(const json_t *run, json_t *seen, struct result_row *row)
{
    row->json = run;
    row->device = results_text(run, "device");
    row->dtype = results_text(run, "dtype");
    row->phase = results_text(run, "phase");
    row->op = results_text(run, "op");
    row->case_name = results_text(run, "case");
    row->threads = (int)fmin(results_number(run, "threads"), 1e6);
    row->p50 = results_number(run, "latency_ms.p50");
    row->p95 = results_number(run, "latency_ms.p95");
    row->tokens_per_second = results_number(run, "tokens_per_second");
    set_interval(row);
    /* Two devices of a kind give equal rows; the first goes with the first, and so on. */
    char key[sizeof row->key - 16];
    snprintf(key, sizeof key, "%.100s\x1f%.16s\x1f%.100s\x1f%.16s\x1f%.*s\x1f%d", row->op,
             row->phase, row->case_name, row->dtype, (int)fmin(strcspn(row->device, ":"), 32),
             row->device, row->threads);
    json_int_t before = json_integer_value(json_object_get(seen, key));
    json_object_set_new_nocheck(seen, key, json_integer(before + 1));
    snprintf(row->key, sizeof row->key, "%s\x1f%lld", key, (long long)before);
}

static void label_by_host(struct result *result)
{
    const json_t *host = json_object_get(result->root, "host");
    const char *peer = results_text(host, "peer.name");
    const char *version = results_text(host, *peer ? "peer.version" : "itera");
    snprintf(result->label, sizeof result->label, "%.40s %.20s, %.10s", *peer ? peer : "itera",
             version, results_text(host, "date"));
}

/* Labels go to terminals and into JSON: what is no UTF-8 (a file may be named so, or have been cut
 * in a letter) or controls a terminal becomes '?'. */
static void clean_label(char *label)
{
    json_t *valid = json_string(label);
    for (unsigned char *c = (unsigned char *)label; *c; c++)
        if (*c < 0x20 || *c == 0x7f || (!valid && *c >= 0x80))
            *c = '?';
    json_decref(valid);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The length of what all names begin with, in whole folders. */
static size_t common_folders(const char *const *names, int n)
{
    size_t common = (size_t)(base_name(names[0]) - names[0]);
    for (int i = 1; i < n; i++)
        for (size_t k = 0; k < common; k++)
            if (names[i][k] != names[0][k])
                common = k;
    while (common && names[0][common - 1] != '/')
        common--;
    return common;
}

/* File names without ".json", and without their folders where that leaves them different. */
static void label_by_name(struct result *results, const char *const *names, int n)
{
    bool distinct = true;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++)
            distinct = distinct && strcmp(base_name(names[i]), base_name(names[k])) != 0;
    const size_t common = common_folders(names, n);
    for (int i = 0; i < n; i++) {
        const char *name = distinct ? base_name(names[i]) : names[i] + common;
        size_t length = strlen(name), end = sizeof ".json" - 1;
        if (length > end && !strcmp(name + length - end, ".json"))
            length -= end;
        snprintf(results[i].label, sizeof results[i].label, "%.*s", (int)length, name);
    }
}

struct result *result_rows(const json_t *const *results, const char *const *names, int n)
{
    struct result *list = calloc((size_t)n, sizeof *list);
    bool good = list != NULL;
    for (int i = 0; i < n && good; i++) {
        const json_t *runs = json_object_get(results[i], "runs");
        json_t *seen = json_object();
        list[i].root = results[i];
        list[i].is_peer = json_is_object(find(results[i], "host.peer"));
        list[i].n = (int)json_array_size(runs);
        list[i].rows = calloc((size_t)list[i].n + 1, sizeof *list[i].rows);
        good = list[i].rows && seen;
        for (int r = 0; r < list[i].n && good; r++)
            read_row(json_array_get(runs, (size_t)r), seen, &list[i].rows[r]);
        label_by_host(&list[i]);
        json_decref(seen);
    }
    if (good && names)
        label_by_name(list, names, n);
    for (int i = 0; i < n && good; i++)
        clean_label(list[i].label);
    if (!good) {
        command_error("no memory for the rows of the results");
        result_free(&list, n);
    }
    return list;
}

void result_free(struct result **results, int n)
{
    for (int i = 0; i < n && *results; i++)
        free((*results)[i].rows);
    free(*results);
    *results = NULL;
}

bool result_align(const struct result *results, int n, struct alignment *alignment)
{
    size_t room = 0;
    for (int i = 0; i < n; i++)
        room += (size_t)results[i].n;
    json_t *places = json_object(); /* key: index of the aligned row */
    *alignment = (struct alignment){0};
    alignment->row = calloc(room * (size_t)n + 1, sizeof(*alignment->row));
    if (!places || !alignment->row) {
        json_decref(places);
        free(alignment->row);
        alignment->row = NULL;
        command_error("no memory to compare the results");
        return false;
    }
    for (int i = 0; i < n; i++) {
        for (int r = 0; r < results[i].n; r++) {
            const struct result_row *row = &results[i].rows[r];
            const json_t *place = json_object_get(places, row->key);
            json_int_t at = place ? json_integer_value(place) : alignment->n;
            if (!place) {
                json_object_set_new_nocheck(places, row->key, json_integer(at));
                alignment->n++;
            }
            alignment->row[at * n + i] = row;
        }
    }
    json_decref(places);
    return true;
}
