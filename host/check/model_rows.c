#include "check/model_rows.h"

#include <math.h>
#include <stdio.h>

#include "core/log.h"
#include "core/number.h"

struct itera_model_error itera_model_compare(const float *a, const float *b, int64_t n)
{
    struct itera_model_error e = {.finite = true};
    double largest = 0, power = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= e.max_abs)) {
            e.max_abs = d;
            e.worst = i;
        }
        e.finite = e.finite && isfinite(d);
        largest = fmax(largest, fabs((double)b[i]));
        power += (double)b[i] * b[i];
        squares += d * d;
    }
    e.max_rel = largest > 0 ? e.max_abs / largest : e.max_abs;
    e.nmse = power > 0 ? squares / power : squares;
    return e;
}

enum itera_status itera_model_report(struct itera_model_check *c, const char *op, const char *label,
                                     const struct itera_model_error *e, double figure,
                                     double tolerance, const char *why)
{
    char reason[256] = "";
    bool pass = e->finite && figure <= tolerance && !why;
    if (why)
        snprintf(reason, sizeof reason, "%s", why);
    else if (!e->finite)
        snprintf(reason, sizeof reason, "not finite at element %lld", (long long)e->worst);
    else if (!pass)
        itera_format(reason, sizeof reason,
                     "relative error %.3g, at most %.3g; worst at element %lld", figure, tolerance,
                     (long long)e->worst);
    struct itera_check_result result = {
        .op = op,
        .dtype = "f32",
        .device = c->device,
        .variant = c->variant,
        .target = c->variant,
        .method = "",
        .label = label,
        .verdict = pass ? ITERA_CHECK_PASS : ITERA_CHECK_FAIL,
        .reason = reason,
        .max_abs = e->max_abs,
        .max_rel = e->max_rel,
        .nmse = e->nmse,
        .tolerance = tolerance,
        .progress = c->begin,
    };
    *(pass ? &c->summary->pass : &c->summary->fail) += 1;
    if (c->fn && c->fn(c->user, &result))
        return itera_fail(ITERA_ERR_CANCELLED, "the check was stopped");
    return ITERA_OK;
}

enum itera_status itera_model_report_skip(struct itera_model_check *c, const char *op,
                                          const char *label, const char *reason)
{
    struct itera_check_result result = {.op = op,
                                        .dtype = "f32",
                                        .device = c->device,
                                        .variant = c->variant,
                                        .target = c->variant,
                                        .method = "",
                                        .label = label,
                                        .verdict = ITERA_CHECK_SKIP,
                                        .reason = reason,
                                        .progress = c->begin};
    c->summary->skip++;
    if (c->fn && c->fn(c->user, &result))
        return itera_fail(ITERA_ERR_CANCELLED, "the check was stopped");
    return ITERA_OK;
}
