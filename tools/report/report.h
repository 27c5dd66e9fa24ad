/* Reports: one HTML file that needs nothing else, with plots and, beside each, the figures as a
 * table. For screens and paper, light and dark. */
#ifndef ITERA_TOOLS_REPORT_H
#define ITERA_TOOLS_REPORT_H

#include <jansson.h>
#include <stdbool.h>

struct report;

/* The title and a line below it are plain text, as are all texts here. When memory runs out,
 * report_write says so; the others need not be looked at. */
struct report *report_create(const char *title, const char *subtitle);
void report_destroy(struct report **report); /* NULL-safe, nulls *report */

/* Sections; they are listed, with links, at the top of a report that has more than three. */
void report_heading(struct report *report, const char *text);
__attribute__((format(printf, 2, 3))) void report_paragraph(struct report *report,
                                                            const char *format, ...);
/* What a reader must know first: a framed list. */
void report_notes(struct report *report, const char *title, const char *const *notes, int n);

/* Large figures with what they are: any number of cards between begin and end. */
void report_cards_begin(struct report *report);
void report_card(struct report *report, const char *value, const char *unit, const char *text);
void report_cards_end(struct report *report);

/* Small tables between these stand side by side where there is room. */
void report_columns_begin(struct report *report);
void report_columns_end(struct report *report);

/* Cells row by row, `rows` of them; align: one 'l' or 'r' per column. */
void report_table(struct report *report, const char *caption, int columns,
                  const char *const *titles, const char *align, int rows, const char *const *cells);

/* The same, filled as it goes. Numbers say where in the JSON of the report they are from: the list
 * is a path in it ("runs"), a row's id an index into that, and a column's key a path in the item
 * ("latency_ms.p50"). Cells carry the exact values. */
struct report_column {
    const char *title, *key; /* key: NULL for none */
    char align;              /* 'l', 'r', or 'w': left, and long enough to wrap */
};
void report_table_begin(struct report *report, const char *caption, const char *list,
                        const struct report_column *columns, int n, int rows); /* list: or NULL */
void report_row(struct report *report, int id);                                /* -1: none */
__attribute__((format(printf, 2, 3))) void report_cell(struct report *report, const char *format,
                                                       ...);
/* A value, shown with `digits` significant digits; a dash where it is not finite. */
void report_number(struct report *report, double value, int digits);
/* A word in the colour of good (1) or bad (-1) news. */
void report_word(struct report *report, int news, const char *text);
void report_table_end(struct report *report);

/* A plot: `chart` is a Chart.js configuration as JSON (stolen), with more keys: "height" in rem; and
 * those that report.js lists. Colours are the report's own. */
void report_chart(struct report *report, const char *caption, json_t *chart);

/* Puts a JSON file into the report, for reading back: an element with this id, and a link that saves
 * it as `file`. */
void report_embed(struct report *report, const char *id, const char *file, const json_t *root);

/* Writes the file by way of a temporary one beside it. Returns EXIT_OK, or EXIT_FAILED after
 * printing why. */
int report_write(const struct report *report, const char *file);

#endif
