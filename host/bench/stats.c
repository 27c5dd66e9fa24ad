/* Medians with intervals that hold when neighbours in time resemble each other, and fitted
 * exponents. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_impl.h"
#include "core/log.h"

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double itera_bench_quantile(const double *sorted, int n, double q)
{
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

/* How many of the sorted values are smaller, those that are equal counting half. */
static double rank_of(const double *sorted, int n, double value)
{
    int below = 0, equal = 0;
    for (int i = 0; i < n; i++) {
        below += sorted[i] < value;
        equal += sorted[i] == value;
    }
    return below + 0.5 * (equal - 1);
}

/* The correlation of values that are `lag` apart, of their ranks (an outlier counts like any other
 * extreme), corrected for what estimating the mean takes from it in a short series (Marriott and
 * Pope 1954: the expectation is r - (1 + 4 r) / n at lag 1). */
static double autocorrelation(const double *rank, int n, int lag)
{
    double mean = 0.5 * (n - 1), power = 0, product = 0;
    for (int i = 0; i < n; i++) {
        power += (rank[i] - mean) * (rank[i] - mean);
        if (i >= lag)
            product += (rank[i] - mean) * (rank[i - lag] - mean);
    }
    if (!(power > 0))
        return 0;
    double r = product / power;
    return (n * r + 1) / (n - 4);
}

/* How many independent values the series is worth: n / (1 + 2 sum of the autocorrelations), the sum
 * taken as far as neighbouring pairs of them are positive (Geyer 1992, initial positive sequence). */
static double effective_length(const double *rank, int n)
{
    double sum = 0;
    for (int lag = 1; lag + 1 < n / 2; lag += 2) {
        double pair = autocorrelation(rank, n, lag) + autocorrelation(rank, n, lag + 1);
        if (pair <= 0)
            break;
        sum += pair;
    }
    double worth = n / (1 + 2 * sum);
    return worth < 1 ? 1 : worth;
}

enum itera_status itera_bench_interval(const double *series, int n,
                                       struct itera_bench_interval *out)
{
    enum { FEWEST = 6 }; /* the extremes of 6 values hold the median 31 times of 32 */
    *out = (struct itera_bench_interval){NAN, NAN, NAN};
    if (n <= 0)
        return ITERA_OK;
    double *sorted = malloc(2 * (size_t)n * sizeof *sorted);
    if (!sorted)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for the statistics of %d values", n);
    double *rank = sorted + n;
    memcpy(sorted, series, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    *out = (struct itera_bench_interval){itera_bench_quantile(sorted, n, 0.5), sorted[0],
                                         sorted[n - 1]};
    if (n > FEWEST) {
        for (int i = 0; i < n; i++)
            rank[i] = rank_of(sorted, n, series[i]);
        /* The number of values below the median is binomial: 1.96 standard deviations. */
        double share = 0.98 / sqrt(effective_length(rank, n));
        int low = (int)floor(n * (0.5 - share)), high = (int)ceil(n * (0.5 + share)) - 1;
        out->low = sorted[low > 0 ? low : 0];
        out->high = sorted[high < n - 1 ? high : n - 1];
    }
    free(sorted);
    return ITERA_OK;
}

/* The 97.5% quantile of Student's t. */
static double student(int freedom)
{
    static const double quantile[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447,
                                      2.365,  2.306, 2.262, 2.228, 2.201, 2.179};
    const int n = sizeof quantile / sizeof *quantile;
    /* Beyond the table its expansion about the normal quantile is right to three digits. */
    return freedom <= n ? quantile[freedom - 1]
                        : 1.960 + 2.372 / freedom + 2.82 / freedom / freedom;
}

struct itera_bench_fit itera_bench_fit(const double *x, const double *y, int n)
{
    struct itera_bench_fit fit = {NAN, NAN, NAN};
    double mx = 0, my = 0, xx = 0, xy = 0, squares = 0;
    if (n < 2)
        return fit;
    for (int i = 0; i < n; i++) {
        mx += log(x[i]) / n;
        my += log(y[i]) / n;
    }
    for (int i = 0; i < n; i++) {
        xx += (log(x[i]) - mx) * (log(x[i]) - mx);
        xy += (log(x[i]) - mx) * (log(y[i]) - my);
    }
    if (!(xx > 0))
        return fit;
    fit.exponent = xy / xx;
    for (int i = 0; i < n; i++) {
        double d = log(y[i]) - my - fit.exponent * (log(x[i]) - mx);
        squares += d * d;
    }
    double half = n > 2 ? student(n - 2) * sqrt(squares / (n - 2) / xx) : INFINITY;
    fit.low = fit.exponent - half;
    fit.high = fit.exponent + half;
    return fit;
}
