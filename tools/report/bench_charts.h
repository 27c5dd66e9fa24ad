/* Plots of benchmark results, as Chart.js configurations for report_chart. All return NULL where
 * there is nothing to plot. */
#ifndef ITERA_TOOLS_BENCH_CHARTS_H
#define ITERA_TOOLS_BENCH_CHARTS_H

#include <jansson.h>

#include "results/results.h"

/* A bar: what it is about (two lines beside the axis), which set of bars it is of (a device, or a
 * file), its value, and an interval (NaN: none). */
struct bar {
    char what[2][96];
    char set[96];
    double value, low, high;
};

enum { MAX_BARS = 60 }; /* things along the axis; the rest is in the tables */

/* Sets side by side; one below the other where stacked. Where values span more than a factor of 50
 * the axis is logarithmic, unless stacked. */
json_t *chart_bars(const struct bar *bars, int n, const char *axis, bool stacked);
/* Speeds against the baseline, with intervals, around 1. */
json_t *chart_ratios(const struct bar *bars, int n);
/* Rows of a result against the roofs that its devices reached. */
json_t *chart_roofline(const struct result *result);
/* Time against one variable ("length", "batch", "width"), both axes logarithmic. */
json_t *chart_sweeps(const struct result *results, int n, const char *variable);
/* The models of an itera ledger. */
json_t *chart_quality(const json_t *ledger);

#endif
