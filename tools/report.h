/* Reports: one HTML file that needs nothing else, with plots and, beside each, the figures as a
 * table. For screens and paper, light and dark. */
#ifndef ITERA_TOOLS_REPORT_H
#define ITERA_TOOLS_REPORT_H

#include <jansson.h>

struct report;

/* The title and a line below it are plain text, as are all texts here. When memory runs out,
 * report_write says so; the others need not be looked at. */
struct report *report_create(const char *title, const char *subtitle);
void report_destroy(struct report **report); /* NULL-safe, nulls *report */

void report_heading(struct report *report, const char *text);
void report_paragraph(struct report *report, const char *text);
/* Cells row by row, `rows` of them; align: one 'l' or 'r' per column. */
void report_table(struct report *report, const char *caption, int columns,
                  const char *const *titles, const char *align, int rows, const char *const *cells);
/* A plot: `chart` is a Chart.js configuration as JSON (stolen), with two more keys in an axis
 * (options.scales.x): "unit": "bytes" writes its ticks as sizes. Colours are the report's own. */
void report_chart(struct report *report, const char *caption, json_t *chart);

/* Writes the file by way of a temporary one beside it. Returns EXIT_OK, or EXIT_FAILED after
 * printing why. */
int report_write(const struct report *report, const char *file);

#endif
