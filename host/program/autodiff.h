/* Reverse-mode differentiation over a program's op list, and what gradient rules are written with.
 */
#ifndef ITERA_PROGRAM_AUTODIFF_H
#define ITERA_PROGRAM_AUTODIFF_H

#include "program/program.h"

/* Appends to `p` the ops that compute the gradient of tensor `loss` (or, when `seed` is not
 * ITERA_NONE, the vector-Jacobian product with seed, which has loss's dims) with respect to the n
 * tensors wrt[]. grads[i] says where: an existing tensor to write (a bound gradient buffer), or
 * ITERA_NEW; on return it holds the id. A wrt tensor that the loss does not depend on gets zeros.
 */
enum itera_status itera_differentiate(struct itera_program *p, int32_t loss, int32_t seed, int n,
                                      const int32_t *wrt, int32_t *grads);

/* For gradient rules (itera_grad_fn). */
struct itera_autodiff;
struct itera_program *itera_ad_program(struct itera_autodiff *ad);
/* Gradient of an output of the op; ITERA_NONE when nothing depends on that output. */
int32_t itera_ad_of(struct itera_autodiff *ad, int32_t tensor);
/* Whether the gradient of an input must be computed (false for ITERA_NONE). */
bool itera_ad_wants(struct itera_autodiff *ad, int32_t tensor);
/* A tensor for a new contribution to the gradient of `tensor`; the rule records an op that writes
 * it in full and then calls end, which adds it to earlier contributions. */
int32_t itera_ad_begin(struct itera_autodiff *ad, int32_t tensor);
void itera_ad_end(struct itera_autodiff *ad, int32_t tensor, int32_t contribution);
/* As begin/end for an op that can add to its output: *accumulate says whether it must. */
int32_t itera_ad_target(struct itera_autodiff *ad, int32_t tensor, uint8_t *accumulate);
/* An existing tensor (mostly the output's gradient) is the contribution as it is. */
void itera_ad_pass(struct itera_autodiff *ad, int32_t tensor, int32_t contribution);
/* Gives up with an error: the op cannot be differentiated as it was recorded. */
void itera_ad_fail(struct itera_autodiff *ad, const struct itera_op *op, const char *why);

/* The common rule: records `bwd` with in[] as given; for each output i of bwd, of[i] names the
 * tensor whose gradient it is (ITERA_NONE: not produced). Outputs whose gradient is not wanted are
 * omitted when optional and written to an activation nobody reads otherwise. */
void itera_ad_record(struct itera_autodiff *ad, enum itera_op_kind bwd,
                     const struct itera_attr *attr, const int32_t *in, const int32_t *of);

#endif
