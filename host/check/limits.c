#include "check/limits.h"

#include <math.h>
#include <stdlib.h>

#include "core/log.h"

static int by_error(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum itera_status itera_integer_nmse(const float *logits, const float *expected, int64_t positions,
                                     int64_t vocab, bool routed, double *nmse)
{
    /* Of each position: error, then power. */
    double(*of)[2] = calloc((size_t)positions + 1, sizeof *of);
    if (!of)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to compare logits");
    for (int64_t t = 0; t < positions; t++, logits += vocab, expected += vocab)
        for (int64_t i = 0; i < vocab; i++) {
            const double d = (double)logits[i] - expected[i];
            of[t][0] += d * d;
            of[t][1] += (double)expected[i] * expected[i];
        }
    double error = 0, power = 0;
    bool finite = true;
    for (int64_t t = 0; t < positions; t++)
        finite = finite && isfinite(of[t][0]);
    if (finite)
        qsort(of, (size_t)positions, sizeof *of, by_error);
    const int64_t kept = positions - (routed ? positions / 10 : 0);
    for (int64_t t = 0; t < kept; t++) {
        error += of[t][0];
        power += of[t][1];
    }
    free(of);
    *nmse = !finite ? (double)INFINITY : power > 0 ? error / power : error;
    return ITERA_OK;
}
