/* What the checks of whole models hand out: rows, and how two arrays of numbers compare. */
#ifndef ITERA_CHECK_MODEL_ROWS_H
#define ITERA_CHECK_MODEL_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "check/model_values.h"
#include "itera/check.h"

struct itera_model_check {
    itera_check_fn *fn;
    void *user;
    struct itera_check_summary *summary;
    const char *device;
    char variant[32];
    double begin; /* of the whole check, for progress */
    double logits_limit, gradient_limit;
    double
        rounded; /* not 0: products round activations, to int8 or f16; then the limit of the NMSE */
};

/* How a compares with the expected b. */
struct itera_model_error {
    double max_abs, max_rel; /* max_rel: max|a-b| / max|b| */
    double nmse;             /* |a-b|^2 / |b|^2 */
    int64_t worst;
    bool finite;
};

struct itera_model_error itera_model_compare(const float *a, const float *b, int64_t n);

/* Hands out one result; `figure` is what the tolerance holds for. `why` fails it whatever that is; NULL:
 * nothing does. ITERA_ERR_CANCELLED where the caller wants no more. */
enum itera_status itera_model_report(struct itera_model_check *c, const char *op, const char *label,
                                     const struct itera_model_error *e, double figure,
                                     double tolerance, const char *why);
enum itera_status itera_model_report_skip(struct itera_model_check *c, const char *op,
                                          const char *label, const char *reason);

/* What sessions of the model make of the expected tokens, beside the values of whole sequences and
 * beside each other (model_sessions.c). */
enum itera_status itera_model_check_sessions(struct itera_model_check *c, struct itera_model *m,
                                             const struct itera_model_values *expected);

#endif
