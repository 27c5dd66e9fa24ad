/* itera ledger: the same with a plot, as a page. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/command.h"
#include "commands/ledger.h"
#include "report/bench_charts.h"
#include "report/report.h"

int ledger_report(const struct ledger *l, const char *file)
{
    char subtitle[512];
    snprintf(subtitle, sizeof subtitle, "%s on %s (%s); quality on %.200s, prompts of %lld tokens",
             "itera ledger", itera_device_info(l->device)->name, itera_device_info(l->device)->id,
             l->data, (long long)l->prompt);
    struct report *report = report_create("What models cost and what they are worth", subtitle);
    const char **pointers = calloc((size_t)l->n * LEDGER_COLUMNS, sizeof *pointers);
    char(*cells)[LEDGER_COLUMNS][64] = calloc((size_t)l->n, sizeof *cells);
    if (pointers && cells) {
        for (int i = 0; i < l->n; i++) {
            ledger_cells(l, i, cells[i]);
            for (int c = 0; c < LEDGER_COLUMNS; c++)
                pointers[i * LEDGER_COLUMNS + c] = cells[i][c];
        }
        json_t *root = ledger_json(l);
        report_chart(report, "Quality against size, each model a point", chart_quality(root));
        json_decref(root);
        report_table(report,
                     "Smaller and faster are relative to the first model; speeds are medians of "
                     "rounds in which the models took turns",
                     LEDGER_COLUMNS, ledger_titles, ledger_align, l->n, pointers);
    }
    int code = pointers && cells ? report_write(report, file) : EXIT_FAILED;
    report_destroy(&report);
    free(pointers);
    free(cells);
    return code;
}
