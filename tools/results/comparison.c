/* Rows of results against those of the baseline: ratios and verdicts. */
#include "results/comparison.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"

static bool parity_broke(const struct result_row *base, const struct result_row *row)
{
    const json_t *was = json_object_get(json_object_get(base->json, "parity"), "pass");
    const json_t *is = json_object_get(json_object_get(row->json, "parity"), "pass");
    return json_is_true(was) && json_is_false(is);
}

/* The reference rates of a row's device in a file; NULL: none. */
static const json_t *peaks_of(const struct result *result, const struct result_row *row)
{
    const json_t *list = json_object_get(json_object_get(result->root, "host"), "peaks"), *peak;
    size_t i;
    json_array_foreach(list, i, peak)
    {
        const double threads = results_number(peak, "threads"); /* NaN where there is none */
        if (strcmp(results_text(peak, "device"), row->device) == 0 &&
            (isnan(threads) || threads == row->threads))
            return peak;
    }
    return NULL;
}

void compare_pace(const struct comparison *c, const struct result_row *row, int file, double *low,
                  double *high)
{
    static const char *const rates[] = {"gflops", "copy_gbytes_per_s"};
    const json_t *was = peaks_of(&c->results[0], row), *is = peaks_of(&c->results[file], row);
    *low = *high = 1;
    if (!was || !is || strcmp(results_text(was, "name"), results_text(is, "name")) != 0)
        return;
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        const double pace = results_number(is, rates[i]) / results_number(was, rates[i]);
        if (!(pace > 0 && isfinite(pace)))
            continue;
        *low = fmin(*low, pace);
        *high = fmax(*high, pace);
    }
}

/* Whether what a row lost or won is what the machine did. */
static bool is_machine(const struct comparison *c, const struct result_row *row, int file,
                       double ratio)
{
    double low, high;
    const double slack = 1 + c->threshold;
    compare_pace(c, row, file, &low, &high);
    return ratio < 1 ? low * slack < 1 && ratio * slack >= low
                     : high > slack && ratio <= high * slack;
}

struct judgement compare_judge(const struct comparison *c, int i, int file)
{
    const struct result_row *const *rows = &c->rows.row[i * c->n];
    const struct result_row *base = rows[0], *row = rows[file];
    struct judgement j = {(double)NAN, (double)NAN, (double)NAN, VERDICT_BASE};
    if (!file || !base || !row)
        return j;
    j.ratio = base->p50 / row->p50;
    j.low = base->low / row->high;
    j.high = base->high / row->low;
    const bool peer = c->results[0].is_peer || c->results[file].is_peer;
    if (parity_broke(base, row))
        j.verdict = VERDICT_PARITY;
    else if (isnan(j.low) || isnan(j.high))
        j.verdict = VERDICT_UNKNOWN;
    else if (j.high < 1 && j.ratio < 1 / (1 + c->threshold))
        j.verdict = peer ? VERDICT_SLOWER : VERDICT_REGRESSION;
    else if (j.low > 1 && j.ratio > 1 + c->threshold)
        j.verdict = VERDICT_FASTER;
    else
        j.verdict = VERDICT_SAME;
    if (j.verdict != VERDICT_SAME && j.verdict != VERDICT_PARITY && !isnan(j.low) && !peer &&
        is_machine(c, row, file, j.ratio))
        j.verdict = VERDICT_MACHINE;
    return j;
}

const char *compare_verdict(enum verdict verdict)
{
    static const char *const names[COMPARE_VERDICTS] = {
        "",       "same",       "faster",        "regression",
        "slower", "not judged", "parity broken", "as the machine"};
    return names[verdict];
}

int compare_open(const json_t *const *results, const char *const *names, int n, double threshold,
                 struct comparison *c)
{
    *c = (struct comparison){.n = n, .threshold = threshold};
    c->results = result_rows(results, names, n);
    if (!c->results || !result_align(c->results, n, &c->rows)) {
        compare_close(c);
        return EXIT_FAILED;
    }
    for (int i = 0; i < c->rows.n; i++)
        for (int file = 1; file < n; file++)
            c->count[compare_judge(c, i, file).verdict]++;
    return EXIT_OK;
}

void compare_close(struct comparison *c)
{
    free(c->rows.row);
    c->rows.row = NULL;
    result_free(&c->results, c->n);
}

bool compare_regressed(const struct comparison *c)
{
    return c->count[VERDICT_REGRESSION] + c->count[VERDICT_PARITY] > 0;
}

void compare_summary(const struct comparison *c, char *out, size_t size)
{
    const int slower = c->count[VERDICT_REGRESSION] + c->count[VERDICT_SLOWER];
    int used =
        snprintf(out, size, "Beyond noise and %g%%: %d slower, %d faster; %d the same",
                 100 * c->threshold, slower, c->count[VERDICT_FASTER], c->count[VERDICT_SAME]);
    if (c->count[VERDICT_MACHINE] && used < (int)size)
        used += snprintf(out + used, size - (size_t)used, ", %d as much as the machine",
                         c->count[VERDICT_MACHINE]);
    if (c->count[VERDICT_UNKNOWN] && used < (int)size)
        used += snprintf(out + used, size - (size_t)used, ", %d without intervals",
                         c->count[VERDICT_UNKNOWN]);
    if (c->count[VERDICT_PARITY] && used < (int)size)
        used +=
            snprintf(out + used, size - (size_t)used,
                     "; %d no longer compute what the reference does", c->count[VERDICT_PARITY]);
    if (used < (int)size)
        snprintf(out + used, size - (size_t)used, ".");
}
