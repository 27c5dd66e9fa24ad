/* itera ledger: the table. */
#include <math.h>
#include <stdio.h>

#include "cli/output.h"
#include "commands/ledger.h"

double ledger_median(double *values, int n)
{
    if (!n)
        return (double)NAN;
    for (int i = 1; i < n; i++) /* a few values */
        for (int k = i; k > 0 && values[k - 1] > values[k]; k--) {
            double swap = values[k];
            values[k] = values[k - 1];
            values[k - 1] = swap;
        }
    return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

const char *const ledger_titles[LEDGER_COLUMNS] = {
    "model",     "bytes",    "smaller", "parameters", "MFLOP/tok", "memory",
    "prefill/s", "decode/s", "faster",  "J/token",    "word ppl",  "bits/byte"};
const char ledger_align[] = "lrrrrrrrrrrr";

/* The cells of one row, LEDGER_COLUMNS of them. */
void ledger_cells(const struct ledger *l, int i, char cells[LEDGER_COLUMNS][64])
{
    struct ledger_entry *e = &l->entries[i], *base = &l->entries[0];
    char text[64];
    double decode = ledger_median(e->decode, e->n_decode),
           slow = ledger_median(base->decode, base->n_decode);
    snprintf(cells[0], 64, "%.60s", e->name);
    snprintf(cells[1], 64, "%s", output_size(e->file_bytes, text, sizeof text));
    snprintf(cells[2], 64, "%.2fx", (double)base->file_bytes / (double)e->file_bytes);
    snprintf(cells[3], 64, "%s", output_grouped(e->parameters, text, sizeof text));
    snprintf(cells[4], 64, "%.3f", e->flops * 1e-6);
    snprintf(cells[5], 64, "%s", output_size((int64_t)e->peak_memory, text, sizeof text));
    snprintf(cells[6], 64, "%.0f", ledger_median(e->prefill, e->n_prefill));
    snprintf(cells[7], 64, "%.0f", decode);
    snprintf(cells[8], 64, "%.2fx", decode / slow);
    snprintf(cells[9], 64, "-");
    const struct itera_energy_figure *energy = e->energy.figure;
    if (!isnan(energy->joules))
        snprintf(cells[9], 64, "%.3g%s", energy->joules / e->energy_tokens,
                 energy->measured ? "" : " est.");
    snprintf(cells[10], 64, "%.3f", e->word_perplexity);
    snprintf(cells[11], 64, "%.4f", e->bits_per_byte);
}

void ledger_print(const struct ledger *l)
{
    struct table *table = table_create(LEDGER_COLUMNS, ledger_titles, ledger_align);
    for (int i = 0; i < l->n; i++) {
        char cells[LEDGER_COLUMNS][64];
        ledger_cells(l, i, cells);
        for (int c = 0; c < LEDGER_COLUMNS; c++)
            table_cell(table, "%s", cells[c]);
    }
    table_print(table);
    table_destroy(&table);
    const struct itera_energy_figure *energy = l->entries[0].energy.figure;
    if (isnan(energy->joules))
        printf("\nJ/token: not measured: %s\n", energy->reason);
    else
        printf("\nJ/token: %s (%s)\n", energy->source, itera_energy_scope_name(energy->scope));
    printf("\"smaller\" and \"faster\" (decode) are relative to the first; quality is on %s.\n",
           l->data);
}
