/* Parity: shows, op by op, that a device computes what the scalar reference does.
 *
 * The interface serves the itera command and changes with it: a version that keeps the rest of the
 * library's interface may change this header in any way. */
#ifndef ITERA_CHECK_H
#define ITERA_CHECK_H

#include <stdint.h>

#include "itera/status.h"
#include "itera/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How the lanes of a GPU's workgroups are numbered: what a kernel without a barrier that it needs leaves
 * open comes out otherwise. ROTATED puts lanes of one subgroup into two. */
enum itera_check_lanes { ITERA_LANES_IN_ORDER, ITERA_LANES_REVERSED, ITERA_LANES_ROTATED };

/* Zero-initialise and set what matters. The strings need live only for the call. */
struct itera_check_options {
    const char *devices; /* "cpu", "auto", "all", or a comma list of device ids; NULL: "cpu" */
    const char *isa;     /* CPU: only this level; NULL: ITERA_CPU_ISA, else every level that the
                            processor has */
    const char *ops; /* comma list of globs over op names; NULL: all. Naming a gradient op asks for
                        its gradient check. */
    uint64_t seed;   /* every random choice follows from it */
    int gradients;   /* compare gradients too, and the reference's with finite differences */
    int bench;       /* time what passed */
    int first;       /* of each op's cases, counted from 0 as in their labels */
    int cases;       /* at most so many cases per op; 0: all */
    enum itera_check_lanes lanes;
};

enum itera_check_verdict { ITERA_CHECK_PASS, ITERA_CHECK_FAIL, ITERA_CHECK_SKIP };
ITERA_API const char *itera_check_verdict_name(enum itera_check_verdict verdict); /* "pass", ... */

/* One case of one op on one device. The strings live for the callback only. */
struct itera_check_result {
    const char *op;      /* "silu"; a gradient's is the name of the gradient op, else "<op>_grad" */
    const char *dtype;   /* "f32", "i32" */
    const char *device;  /* "cpu" */
    const char *variant; /* "avx2", "avx2 x2" (2 threads), "avx2.chunked", "finite-difference" */
    const char *target;  /* the variant without the algorithm: "avx2 x2" */
    const char *method;  /* the algorithm of a scan: "chunked"; "" for the op's own choice */
    const char *label;   /* the case: "3 rows=7 cols=65" */
    enum itera_check_verdict verdict;
    const char *reason; /* why it failed or was skipped; "" when it passed */
    double max_abs, max_rel, nmse, tolerance;
    /* With bench, for what passed; otherwise 0. */
    double seconds; /* median of the op alone */
    double gflops, gbytes_per_s;
    double progress; /* of the whole check, 0 to 1 */
};

struct itera_check_summary {
    int64_t pass, fail, skip;
};

/* Called for each result as it comes; return non-zero to stop (ITERA_ERR_CANCELLED). */
typedef int itera_check_fn(void *user, const struct itera_check_result *result);

/* Runs the cases of every op that matches. Failing cases are results, not errors: ITERA_OK says
 * that the check ran, summary->fail whether anything is wrong. options, fn and summary may be NULL.
 * Errors: ITERA_ERR_ARGUMENT when no op matches; ITERA_ERR_DEVICE for an unknown device;
 * ITERA_ERR_MEMORY; ITERA_ERR_CANCELLED. */
ITERA_API enum itera_status itera_check_ops(const struct itera_check_options *options,
                                            itera_check_fn *fn, void *user,
                                            struct itera_check_summary *summary);

/* Which ops a device has kernels for, in the order of the op list: called with each op's name,
 * whether it comes in several variants (scans), and, when the device lacks it for some of the shapes
 * of the parity cases, why. A non-zero return stops. Errors: ITERA_ERR_MEMORY;
 * ITERA_ERR_CANCELLED. */
struct itera_device;
typedef int itera_support_fn(void *user, const char *op, int variants, int supported,
                             const char *reason);
ITERA_API enum itera_status itera_check_support(struct itera_device *device, itera_support_fn *fn,
                                                void *user);

/* Parity of a whole model (file or directory). With `expected`, a safetensors file with
 * input_ids (batch, time) and logits (batch, time, vocabulary), and perhaps loss (mean next-token
 * cross-entropy plus auxiliary losses), aux_loss and grad.<parameter>: logits and losses must be
 * within 1e-5 relative, gradients within 1e-4 of their norm. Without it (NULL), random tokens go
 * through the scalar reference, and the logits of the device must be within 1e-4 of it; gradients
 * too when options->gradients is set. Either way, decoding token by token and prefilling in chunks
 * must give the logits of the whole sequence, and the likeliest tokens must agree. "Relative" is
 * the largest difference over the largest value; result->op says what was compared ("logits",
 * "decode", "grad.norm.weight"). options->devices, isa, seed and gradients count; as above, they
 * may be NULL. Errors: as above, and those of itera_model_load. */
ITERA_API enum itera_status itera_check_model(const char *model, const char *expected,
                                              const struct itera_check_options *options,
                                              itera_check_fn *fn, void *user,
                                              struct itera_check_summary *summary);

#ifdef __cplusplus
}
#endif
#endif
