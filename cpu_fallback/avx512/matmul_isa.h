/* Block sizes and register shuffles of the matmul for AVX-512: 32 registers hold a tile of 14 rows
 * by two vectors, two vectors of b and the broadcasts of a. */
#ifndef ITERA_MATMUL_ISA_H
#define ITERA_MATMUL_ISA_H

#include "vec.h"

#define MM_ROWS 14   /* rows of a tile */
#define MM_VECS 2    /* vectors in a row of a tile */
#define MM_KC   1024 /* depth of a packed panel: see block_depth */
#define MM_MC   280  /* rows of a that are reused from L2 */

/* Turns VF_N rows into VF_N columns, in registers. */
static inline void mm_transpose(vf r[VF_N])
{
    vf t[VF_N];
    for (int i = 0; i < 16; i += 4) {
        __m512d ac_lo = _mm512_castps_pd(_mm512_unpacklo_ps(r[i], r[i + 1]));
        __m512d ac_hi = _mm512_castps_pd(_mm512_unpackhi_ps(r[i], r[i + 1]));
        __m512d bd_lo = _mm512_castps_pd(_mm512_unpacklo_ps(r[i + 2], r[i + 3]));
        __m512d bd_hi = _mm512_castps_pd(_mm512_unpackhi_ps(r[i + 2], r[i + 3]));
        t[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(ac_lo, bd_lo));
        t[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(ac_lo, bd_lo));
        t[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(ac_hi, bd_hi));
        t[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(ac_hi, bd_hi));
    }
    /* Lane q of t[4 g + c] holds column 4 q + c of rows 4 g .. 4 g + 3: a 4x4 transpose of lanes.
     */
    for (int c = 0; c < 4; c++) {
        vf lo = _mm512_shuffle_f32x4(t[c], t[4 + c], 0x44);
        vf hi = _mm512_shuffle_f32x4(t[c], t[4 + c], 0xee);
        vf lo2 = _mm512_shuffle_f32x4(t[8 + c], t[12 + c], 0x44);
        vf hi2 = _mm512_shuffle_f32x4(t[8 + c], t[12 + c], 0xee);
        r[c] = _mm512_shuffle_f32x4(lo, lo2, 0x88);
        r[4 + c] = _mm512_shuffle_f32x4(lo, lo2, 0xdd);
        r[8 + c] = _mm512_shuffle_f32x4(hi, hi2, 0x88);
        r[12 + c] = _mm512_shuffle_f32x4(hi, hi2, 0xdd);
    }
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
