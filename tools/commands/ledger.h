/* What the files of itera ledger share: the models, what was measured of each, and how that is shown. */
#ifndef ITERA_TOOLS_LEDGER_H
#define ITERA_TOOLS_LEDGER_H

#include <jansson.h>
#include <stdbool.h>

#include "cli/meter_request.h"
#include "itera/bench.h"
#include "itera/describe.h"

enum { LEDGER_ROUNDS = 100 };

struct ledger_entry {
    const char *path;
    char name[128]; /* the part of the path that tells it from the others */
    struct itera_model *model;
    int64_t file_bytes, parameters, bytes; /* on disk; weights in memory */
    int64_t dtype_bytes[ITERA_WEIGHT_DTYPES];
    double flops;         /* per token */
    uint64_t peak_memory; /* weights and the largest program */
    double word_perplexity, bits_per_byte;
    uint64_t unknown;
    double prefill[LEDGER_ROUNDS], decode[LEDGER_ROUNDS]; /* tokens/s of each round, then sorted */
    int n_prefill, n_decode;
    struct itera_energy energy; /* of decoding energy_tokens */
    double energy_tokens;
};

struct ledger {
    struct ledger_entry *entries;
    int n;
    struct itera_device *device;
    const char *data;
    int64_t prompt, rounds, window, tokens;
    double seconds;
    struct meter_request request;
    struct itera_meter *meter;
    int64_t round;
};

/* Loads, evaluates and times the models; what goes wrong has been said. */
enum itera_status ledger_measure(struct ledger *ledger, const struct itera_load_options *load);

/* Of a few values, which are sorted; NaN without any. */
double ledger_median(double *values, int n);

/* The table: a row for each model, of which the first is what the others are compared with. */
enum { LEDGER_COLUMNS = 12 };
extern const char *const ledger_titles[LEDGER_COLUMNS];
extern const char ledger_align[]; /* see table_create */
void ledger_cells(const struct ledger *ledger, int row, char cells[LEDGER_COLUMNS][64]);

void ledger_print(const struct ledger *ledger);
json_t *ledger_json(const struct ledger *ledger);
/* Writes the report with the plot; an exit status. */
int ledger_report(const struct ledger *ledger, const char *file);

#endif
