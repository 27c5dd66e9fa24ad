/* Result files side by side: ratios, and what is beyond noise. */
#ifndef ITERA_TOOLS_COMPARISON_H
#define ITERA_TOOLS_COMPARISON_H

#include <jansson.h>
#include <stdbool.h>

#include "results/results.h"

enum verdict {
    VERDICT_BASE, /* the baseline itself, or a row that it lacks */
    VERDICT_SAME,
    VERDICT_FASTER,
    VERDICT_REGRESSION, /* slower beyond noise and threshold */
    VERDICT_SLOWER,     /* the same beside a peer, where it is no regression */
    VERDICT_UNKNOWN,    /* no interval in one of the files */
    VERDICT_PARITY,     /* right in the baseline, wrong now */
    VERDICT_MACHINE, /* slower or faster by no more than the reference rates of the machine are */
};

struct judgement {
    /* Baseline's median over this one's: above 1 is faster. Low and high: from the end of one
     * interval to the opposite end of the other, so they leave 1 outside exactly where the
     * intervals are disjoint; NaN without intervals. Two 95% intervals make at least 90%. */
    double ratio, low, high;
    enum verdict verdict;
};

enum { COMPARE_VERDICTS = VERDICT_MACHINE + 1 };

struct comparison {
    struct result *results;
    int n;            /* the first is the baseline */
    double threshold; /* a share of the baseline's speed: 0.05 */
    struct alignment rows;
    int count[COMPARE_VERDICTS];
};

/* results: checked, and alive as long as the comparison; names: as of result_rows. Returns EXIT_OK,
 * or EXIT_FAILED after printing why. */
int compare_open(const json_t *const *results, const char *const *names, int n, double threshold,
                 struct comparison *comparison);
void compare_close(struct comparison *comparison);
/* Of row i in a file against the baseline. */
struct judgement compare_judge(const struct comparison *comparison, int i, int file);
/* What the device of a row reached in a file by the reference measurements taken before the rows, over
 * what it did in the baseline: the lowest and the highest of compute and memory. 1 and 1 where it is
 * another device, or no file says. */
void compare_pace(const struct comparison *comparison, const struct result_row *row, int file,
                  double *low, double *high);
/* "regression", or "" for the baseline. */
const char *compare_verdict(enum verdict verdict);
/* One sentence: how many rows are faster, the same, slower. */
void compare_summary(const struct comparison *comparison, char *out, size_t size);
/* Whether a row got slower or wrong. */
bool compare_regressed(const struct comparison *comparison);

/* What the files have in common, and each alone, on stdout. */
void compare_print(const struct comparison *comparison);
/* Slower by less than this is no regression, where nothing else is asked for; percent. */
enum { COMPARE_THRESHOLD = 5 };
/* Whether a checked result regressed against its baseline; print: with both side by side. Returns
 * EXIT_OK or EXIT_FAILED (no memory). */
int compare_results(const json_t *baseline, const json_t *result, bool print, bool *regressed);

/* One line per row and file, ratios where there are several files. Returns EXIT_OK, or EXIT_FAILED
 * after printing why. */
int compare_csv(const struct comparison *comparison, const char *file);
json_t *compare_json(const struct comparison *comparison);

/* The rows of one checked result as CSV. */
int results_csv(const json_t *result, const char *file);

#endif
