/* Block sizes and register shuffles of the matmul for NEON: 32 registers hold a tile of 6 rows by
 * four vectors, four vectors of b and the broadcasts of a. */
#ifndef ITERA_MATMUL_ISA_H
#define ITERA_MATMUL_ISA_H

#include "vec.h"

#define MM_ROWS 6    /* rows of a tile */
#define MM_VECS 4    /* vectors in a row of a tile */
#define MM_KC   1024 /* depth of a packed panel: see block_depth */
#define MM_MC   240  /* rows of a that are reused from L2 */

/* Turns VF_N rows into VF_N columns, in registers. */
static inline void mm_transpose(vf r[VF_N])
{
    float32x4x2_t x = vtrnq_f32(r[0], r[1]);
    float32x4x2_t y = vtrnq_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(x.val[0]), vget_low_f32(y.val[0]));
    r[1] = vcombine_f32(vget_low_f32(x.val[1]), vget_low_f32(y.val[1]));
    r[2] = vcombine_f32(vget_high_f32(x.val[0]), vget_high_f32(y.val[0]));
    r[3] = vcombine_f32(vget_high_f32(x.val[1]), vget_high_f32(y.val[1]));
}

/* Lane i of the result is the sum of r[i]'s lanes. */
static inline vf mm_reduce(const vf r[VF_N])
{
    return vpaddq_f32(vpaddq_f32(r[0], r[1]), vpaddq_f32(r[2], r[3]));
}

#endif
