/* Block sizes and register shuffles of the matmul for NEON: 32 registers hold a tile of 8 rows by
 * two vectors, two vectors of b and an element of each row of a (compilers load them all ahead). */
#ifndef ITERA_MATMUL_ISA_H
#define ITERA_MATMUL_ISA_H

#include "vec.h"

#define MM_ROWS 8    /* rows of a tile */
#define MM_VECS 2    /* vectors in a row of a tile */
#define MM_KC   1024 /* depth of a packed panel, at most: see make_plan */
#define MM_MC   240  /* rows of a that are reused from L2 */

/* Columns [0, 4) of VF_N rows as four vectors. */
static inline void mm_load_columns(const float *src, int64_t ld, vf r[4])
{
    float32x4x2_t x = vtrnq_f32(vld1q_f32(src), vld1q_f32(src + ld));
    float32x4x2_t y = vtrnq_f32(vld1q_f32(src + 2 * ld), vld1q_f32(src + 3 * ld));
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
