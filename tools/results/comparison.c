/* Rows of results against those of the baseline: ratios and verdicts. */
#include "results/comparison.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/command.h"

static bool parity_broke(const struct result_row *base, const struct result_row *row)
{
    const json_t *was = json_object_get(json_object_get(base->json, "parity"), "pass");
    const json_t *is = json_object_get(json_object_get(row->json, "parity"), "pass");
    return json_is_true(was) && json_is_false(is);
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
    return j;
}

const char *compare_verdict(enum verdict verdict)
{
    static const char *const names[COMPARE_VERDICTS] = {
        "", "same", "faster", "regression", "slower", "not judged", "parity broken"};
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
