/* Block sizes and register shuffles of the matmul for AVX2: 16 registers hold a tile of 6 rows by
 * two vectors, two vectors of b and the broadcasts of a. */
#ifndef ITERA_MATMUL_ISA_H
#define ITERA_MATMUL_ISA_H

#include "vec.h"

#define MM_ROWS 6    /* rows of a tile */
#define MM_VECS 2    /* vectors in a row of a tile */
#define MM_KC   1024 /* depth of a packed panel, at most: see make_plan */
#define MM_MC   240  /* rows of a that are reused from L2 */

/* Columns [0, 4) of VF_N rows as four vectors. Rows i and i + 4 are brought into the halves of one
 * vector by loads, which leaves the shuffle port a third less than a transpose in registers. */
static inline void mm_load_columns(const float *src, int64_t ld, vf r[4])
{
    for (int i = 0; i < 4; i++)
        r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(src + i * ld)),
                                    _mm_loadu_ps(src + (i + 4) * ld), 1);
    vf ac_lo = _mm256_unpacklo_ps(r[0], r[1]);
    vf ac_hi = _mm256_unpackhi_ps(r[0], r[1]);
    vf bd_lo = _mm256_unpacklo_ps(r[2], r[3]);
    vf bd_hi = _mm256_unpackhi_ps(r[2], r[3]);
    r[0] = _mm256_shuffle_ps(ac_lo, bd_lo, 0x44);
    r[1] = _mm256_shuffle_ps(ac_lo, bd_lo, 0xee);
    r[2] = _mm256_shuffle_ps(ac_hi, bd_hi, 0x44);
    r[3] = _mm256_shuffle_ps(ac_hi, bd_hi, 0xee);
}

/* Lane i of the result is the sum of r[i]'s lanes. */
static inline vf mm_reduce(const vf r[VF_N])
{
    vf lo = _mm256_hadd_ps(_mm256_hadd_ps(r[0], r[1]), _mm256_hadd_ps(r[2], r[3]));
    vf hi = _mm256_hadd_ps(_mm256_hadd_ps(r[4], r[5]), _mm256_hadd_ps(r[6], r[7]));
    return _mm256_add_ps(_mm256_blend_ps(lo, hi, 0xf0), _mm256_permute2f128_ps(lo, hi, 0x21));
}

#endif
