/* The q8 and q4 block that is nearest to 32 weights: a search over scales. */
#ifndef ITERA_COMPRESS_BLOCK_FIT_H
#define ITERA_COMPRESS_BLOCK_FIT_H

#include "tensor/blocks.h"

/* Rounds n elements (a multiple of 32, finite) to blocks that have a small
 *
 *     e = sum_k v[k] (x[k] - s q[k])^2
 *
 * v: (n) importances, positive, or NULL for 1. Each candidate scale puts the block's element of the
 * largest magnitude on a place around the reference's (q8: 127; q4: -8, and 8 for the other sign of
 * the scale), so that some clip a little for a finer step. The best by what remains after a least
 * squares refit, s = sum v x q / sum v q^2, is refitted and rounded to nearest again for a few
 * rounds; its scale is then rounded to f16 and the integers to nearest for that scale. A block that
 * is not better than itera_blocks_round's is replaced by it: the search never loses. For q8 the scale
 * that q4 would have is tried as well, so that its e is at most q4's. */
void itera_blocks_fit(enum itera_dtype dtype, const float *from, const float *importance, int64_t n,
                      struct itera_blocks to);

/* e of n elements, summed in double. importance may be NULL. */
double itera_blocks_error(enum itera_dtype dtype, const float *from, const float *importance,
                          int64_t n, struct itera_blocks blocks);

#endif
