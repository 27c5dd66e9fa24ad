/* Block sizes and register shuffles of the matmul for AVX-512: 32 registers hold a tile of 14 rows
 * by two vectors, two vectors of b and the broadcasts of a. */
#ifndef ITERA_MATMUL_ISA_H
#define ITERA_MATMUL_ISA_H

#include "vec.h"

#define MM_ROWS 14   /* rows of a tile */
#define MM_VECS 2    /* vectors in a row of a tile */
#define MM_KC   1024 /* depth of a packed panel, at most: see make_plan */
#define MM_MC   280  /* rows of a that are reused from L2 */

/* Transposes 4x4 blocks within the 128-bit lanes of four vectors. */
static inline void mm_transpose_lanes(vf r[4])
{
    __m512d ac_lo = _mm512_castps_pd(_mm512_unpacklo_ps(r[0], r[1]));
    __m512d ac_hi = _mm512_castps_pd(_mm512_unpackhi_ps(r[0], r[1]));
    __m512d bd_lo = _mm512_castps_pd(_mm512_unpacklo_ps(r[2], r[3]));
    __m512d bd_hi = _mm512_castps_pd(_mm512_unpackhi_ps(r[2], r[3]));
    r[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(ac_lo, bd_lo));
    r[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(ac_lo, bd_lo));
    r[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(ac_hi, bd_hi));
    r[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(ac_hi, bd_hi));
}

/* Columns [0, 4) of VF_N rows as four vectors. Rows i, i + 4, i + 8, i + 12 are brought into the
 * lanes of one vector by loads, which leaves the shuffle port half of the work of a transpose in
 * registers. */
static inline void mm_load_columns(const float *src, int64_t ld, vf r[4])
{
    for (int i = 0; i < 4; i++) {
        const float *row = src + i * ld;
        vf x = _mm512_castps128_ps512(_mm_loadu_ps(row));
        x = _mm512_insertf32x4(x, _mm_loadu_ps(row + 4 * ld), 1);
        x = _mm512_insertf32x4(x, _mm_loadu_ps(row + 8 * ld), 2);
        r[i] = _mm512_insertf32x4(x, _mm_loadu_ps(row + 12 * ld), 3);
    }
    mm_transpose_lanes(r);
}

/* Lane i of the result is the sum of r[i]'s lanes. Each step folds two vectors into one: a blend
 * keeps the half of each that stays in place, a shuffle brings the other halves. */
static inline vf mm_reduce(const vf r[VF_N])
{
    vf h[8], q[4], d[2];
    for (int i = 0; i < 8; i++)
        h[i] = _mm512_add_ps(_mm512_mask_blend_ps(0xff00, r[i], r[i + 8]),
                             _mm512_shuffle_f32x4(r[i], r[i + 8], 0x4e));
    for (int i = 0; i < 4; i++) {
        vf mixed = _mm512_mask_blend_ps(0xf0f0, h[i], h[i + 4]);
        vf other = _mm512_mask_blend_ps(0xf0f0, h[i + 4], h[i]);
        q[i] = _mm512_add_ps(mixed, _mm512_shuffle_f32x4(other, other, 0xb1));
    }
    for (int i = 0; i < 2; i++)
        d[i] = _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, q[i], q[i + 2]),
                             _mm512_shuffle_ps(q[i], q[i + 2], 0x4e));
    vf mixed = _mm512_mask_blend_ps(0xaaaa, d[0], d[1]);
    vf other = _mm512_mask_blend_ps(0xaaaa, d[1], d[0]);
    return _mm512_add_ps(mixed, _mm512_permute_ps(other, 0xb1));
}

#endif
