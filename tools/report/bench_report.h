/* Benchmark results as HTML: of one file everything it has, of several what they have in common. */
#ifndef ITERA_TOOLS_BENCH_REPORT_H
#define ITERA_TOOLS_BENCH_REPORT_H

#include <jansson.h>

#include "report/report.h"
#include "results/comparison.h"

/* n checked results (the first is the baseline) as one file. Returns EXIT_OK, or EXIT_FAILED after
 * printing why. */
int bench_report_html(const json_t *const *results, int n, const char *file);
/* The same with the files' names (or NULL), the JSON of an itera ledger (or NULL), and the threshold
 * of a regression as a share (0.05). */
int bench_report_files(const json_t *const *results, const char *const *names, int n,
                       const json_t *ledger, double threshold, const char *file);

/* The JSON that itera ledger writes, or NULL after printing what is wrong with it. The caller owns
 * it. */
json_t *ledger_load(const char *file);

/* ---- sections that both kinds of report have (bench_sections.c) ------------------------------- */

enum { N_PHASES = 6 };
struct bench_phase {
    const char *name, *title, *what; /* what: a sentence on what is measured */
};
extern const struct bench_phase bench_phases[N_PHASES];

/* "itera-m 1x128 f32": what a row is about, in two parts, and for tables in one. */
void bench_row_name(const struct result_row *row, char what[2][96]);
/* 12345.6 as "12,346", 0.01234 as "0.01234". */
const char *bench_figure(double value, char *out, size_t size);

void bench_section_roofline(struct report *report, const struct result *result);
void bench_section_breakdown(struct report *report, const struct result *result);
void bench_section_energy(struct report *report, const struct result *result);
void bench_section_accuracy(struct report *report, const struct result *result);
void bench_section_sweeps(struct report *report, const struct result *results, int n);
void bench_section_quality(struct report *report, const json_t *ledger);
/* compare_report.c: all of the report of several files. */
void bench_section_comparison(struct report *report, const struct comparison *comparison);

#endif
